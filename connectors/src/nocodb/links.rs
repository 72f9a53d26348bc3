//! The ids of linked records.
//!
//! A record's own answer has at most twenty-five of them, or only says how many there are, and to have them all sent with it costs the
//! server five milliseconds a record. So they are read where they stand: a column of the linked records, or a table that holds nothing
//! but links. Both can be asked for by the keys of a whole page.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Unfit, is_null, object, whole};
use super::pages::{MOST_KEYS, joined, pair};
use super::record::{CHANGED, Ids, Raw};
use super::shape::{Column, KeyShape, Link, Shape, Stands};

/// A question about links.
pub(super) struct Wanted<'a> {
    pub(super) table: &'a str,
    own: &'a Column,
    other: &'a Column,
    /// Of which records, in the server's words; empty for all.
    filter: String,
}

impl Wanted<'_> {
    pub(super) fn fields(&self) -> String {
        format!("{},{}", self.own.id, self.other.id)
    }

    /// From behind this pair on.
    pub(super) fn filter(&self, last: Option<(i64, i64)>) -> String {
        let (own, other) = (&self.own.id, &self.other.id);
        let behind = last.map(|(record, linked)| {
            format!("(({own},gt,{record})~or(({own},eq,{record})~and({other},gt,{linked})))")
        });
        match behind {
            Some(behind) if self.filter.is_empty() => behind,
            Some(behind) => format!("{}~and{behind}", self.filter),
            None => self.filter.clone(),
        }
    }

    /// The place of a pair, where both are whole numbers.
    pub(super) fn numbers(&self, json: &RawValue) -> Result<Option<(i64, i64)>, Unfit> {
        pair(json, &self.own.title, &self.other.title)
    }
}

/// What has to be asked for these records' links. `spans`: the records are all that there are between the first and the last.
pub(super) fn wanted<'a>(
    shape: &Shape,
    link: &'a Link,
    raws: &[Raw<'_>],
    spans: bool,
) -> Result<Vec<Wanted<'a>>, Unfit> {
    let Stands::There { table, own, other, counted } = &link.stands else { return Ok(Vec::new()) };
    let with = |filter| Wanted { table: table.as_str(), own, other, filter };
    let mut keys = Vec::with_capacity(raws.len());
    let mut any = false;
    for raw in raws {
        let linked = match counted {
            Some(column) => whole(raw.value(column)?) != Some(0),
            None => true,
        };
        any |= linked;
        if let (true, KeyShape::Number(column)) = (linked, &shape.key) {
            keys.push(raw.number(column)?);
        }
    }
    if !any {
        return Ok(Vec::new());
    }
    let KeyShape::Number(_) = &shape.key else { return Ok(vec![with(String::new())]) };
    let id = &own.id;
    if let (true, Some(first), Some(last)) = (spans && keys.len() > MOST_KEYS / 10, keys.first(), keys.last())
    {
        return Ok(vec![with(format!("({id},gte,{first})~and({id},lte,{last})"))]);
    }
    Ok(keys.chunks(MOST_KEYS).map(|some| with(format!("({id},in,{})", joined(some)))).collect())
}

/// The linked ids of each record, by the text of its key, for one link.
pub(super) type Linked<'a> = HashMap<&'a str, Ids<'a>>;

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    list: Vec<&'a RawValue>,
}

/// What was read, by link and record.
pub(super) fn sorted<'a>(shape: &Shape, bodies: &'a [Vec<Bytes>]) -> Result<Vec<Linked<'a>>, Unfit> {
    let mut all = Vec::with_capacity(bodies.len());
    for (link, bodies) in shape.links.iter().zip(bodies) {
        let mut linked = Linked::new();
        if let Stands::There { own, other, .. } = &link.stands {
            for body in bodies {
                let list: List<'_> =
                    serde_json::from_slice(body).map_err(|_| Unfit("links that cannot be read"))?;
                for json in list.list {
                    let members = object(json)?;
                    let find = |column: &Column| members.get(&column.title).copied().ok_or(CHANGED);
                    let (own, other) = (find(own)?, find(other)?);
                    if !is_null(own) && !is_null(other) {
                        linked.entry(bare(own)).or_default().push(other);
                    }
                }
            }
            for ids in linked.values_mut() {
                ids.sort_by(|a, b| whole(a).cmp(&whole(b)).then_with(|| a.get().cmp(b.get())));
                ids.dedup_by(|a, b| a.get() == b.get());
            }
        }
        all.push(linked);
    }
    Ok(all)
}

/// The ids of one record, for each link of the shape.
pub(super) fn of<'a>(shape: &Shape, raw: &Raw<'a>, linked: &[Linked<'a>]) -> Result<Vec<Ids<'a>>, Unfit> {
    let mut all = Vec::with_capacity(shape.links.len());
    let key = match shape.key_columns() {
        [one] => Some(bare(raw.value(one)?)),
        _ => None,
    };
    for (link, linked) in shape.links.iter().zip(linked) {
        all.push(match &link.stands {
            Stands::Here(column) => {
                let id = raw.value(column)?;
                if is_null(id) { Vec::new() } else { vec![id] }
            }
            Stands::There { .. } => key.and_then(|key| linked.get(key)).cloned().unwrap_or_default(),
        });
    }
    Ok(all)
}

/// The text of a key, be it sent as a number or as text.
fn bare(json: &RawValue) -> &str {
    let text = json.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

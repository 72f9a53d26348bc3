//! Records in pages, with their links.
//!
//! A table whose key is a whole number is read in the order of the key, each page from behind the last key: what is written meanwhile
//! moves nothing. Other keys sort as the server's database pleases, so there a page begins at an offset.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use slackwater_topics::{Document, Key, Value};

use super::http::{Answer, Http, TOO_LARGE, TOO_SLOW, unreadable};
use super::json::{Unfit, whole};
use super::links::{self, Wanted};
use super::record::{CHANGED, Raw, Record};
use super::shape::{KeyShape, Shape};
use super::times;
use crate::error::{Error, Kind, Result};

/// An error with this code is of a table that is no longer what it was.
pub(super) const SHAPE: &str = "another shape";
/// Keys in one question; the address may have 8 kB.
pub(super) const MOST_KEYS: usize = 300;
/// Smaller pages than this help nobody.
const SMALLEST: usize = 10;

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Start,
    Key(i64),
    Offset(usize),
}

/// Which records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Which {
    /// From this key on.
    pub(super) lo: Option<i64>,
    /// Up to the one before this key.
    pub(super) hi: Option<i64>,
    /// Created or updated at this second or later.
    pub(super) since: Option<i64>,
}

/// A page.
pub(super) struct Page {
    pub(super) records: Vec<Record>,
    /// Where the next one begins, if there is one.
    pub(super) next: Option<After>,
    /// The newest time in it, seconds since 1970.
    pub(super) newest: Option<i64>,
    /// The server's clock.
    pub(super) date: Option<i64>,
}

/// How many records are asked for at once.
#[derive(Debug)]
pub(super) struct Size {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    list: Vec<&'a RawValue>,
    #[serde(rename = "pageInfo")]
    info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "isLastPage")]
    last: Option<bool>,
}

#[derive(Deserialize)]
struct Counted {
    count: u64,
}

impl Size {
    pub(super) fn new(page: usize) -> Self {
        let page = page.max(1);
        Self { now: page.into(), most: page.into() }
    }

    pub(super) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// A page of this size came.
    fn fits(&self, size: usize) {
        let most = self.most.load(Ordering::Relaxed);
        if size >= self.now() && size < most {
            self.now.store(most.min(size * 2), Ordering::Relaxed);
        }
    }

    /// A page of this size could not be had. What is too large once is always; what is slow may have been a bad minute.
    fn refused(&self, size: usize, error: &Error) {
        let large = error.code.as_deref().is_some_and(|code| code == TOO_LARGE || code.contains("LIMIT"));
        if !large && error.code.as_deref() != Some(TOO_SLOW) {
            return;
        }
        let half = (size / 2).max(SMALLEST.min(size));
        self.now.fetch_min(half, Ordering::Relaxed);
        if large {
            self.most.fetch_min(half, Ordering::Relaxed);
        }
    }
}

impl Http {
    /// Reads a page.
    pub(super) async fn page(&self, shape: &Shape, which: Which, after: After, size: &Size) -> Result<Page> {
        let limit = size.now();
        let read = self.sized(shape, which, after, limit).await;
        match &read {
            Ok(page) if page.records.len() >= limit => size.fits(limit),
            Ok(_) => {}
            Err(error) => size.refused(limit, error),
        }
        read
    }

    async fn sized(&self, shape: &Shape, which: Which, after: After, limit: usize) -> Result<Page> {
        let doing = format!("reading {}", shape.title);
        let sort: Vec<&str> = shape.key_columns().iter().map(|column| column.id.as_str()).collect();
        let (asked, sort, limit) = (shape.asked(), sort.join(","), limit.to_string());
        let filter = filter(shape, which, after);
        let mut query = vec![("fields", asked.as_str()), ("sort", sort.as_str()), ("limit", limit.as_str())];
        if !filter.is_empty() {
            query.push(("where", filter.as_str()));
        }
        let offset = match after {
            After::Offset(offset) => offset.to_string(),
            After::Start | After::Key(_) => String::new(),
        };
        if !offset.is_empty() {
            query.push(("offset", offset.as_str()));
        }
        let answer = match self.get(&["api", "v2", "tables", &shape.table, "records"], &query, &doing).await {
            Ok(answer) => answer,
            // Somebody has deleted what the page would have held.
            Err(error) if error.code.as_deref() == Some("ERR_INVALID_OFFSET_VALUE") => {
                return Ok(Page { records: Vec::new(), next: None, newest: None, date: None });
            }
            Err(error) => return Err(error),
        };
        let Answer { body, date } = answer;
        let list: List<'_> = serde_json::from_slice(&body).map_err(|error| unreadable(&doing, &error))?;
        let last = list.list.is_empty()
            || list.info.and_then(|info| info.last).unwrap_or(list.list.len().to_string() != limit);
        // A range that is read whole holds all links of its records and no others.
        let spans = which.since.is_none();
        let (records, newest) = self.records(shape, &list.list, spans, &doing).await?;
        let next = match (&shape.key, after) {
            _ if last => None,
            (KeyShape::Number(_), _) => records.last().and_then(|record| number(&record.key)).map(After::Key),
            (KeyShape::Other(_), After::Offset(offset)) => Some(After::Offset(offset + list.list.len())),
            (KeyShape::Other(_), _) => Some(After::Offset(list.list.len())),
        };
        if let KeyShape::Number(_) = shape.key {
            in_order(&records, after).map_err(|what| Error::new(Kind::Unreachable, doing, what))?;
        }
        Ok(Page { records, next, newest, date })
    }

    async fn records(
        &self,
        shape: &Shape,
        list: &[&RawValue],
        spans: bool,
        doing: &str,
    ) -> Result<(Vec<Record>, Option<i64>)> {
        let raws: std::result::Result<Vec<Raw<'_>>, Unfit> = list.iter().map(|json| Raw::of(json)).collect();
        let raws = raws.map_err(|unfit| refused(doing, unfit))?;
        let bodies = self.links(shape, &raws, spans, doing).await?;
        let linked = links::sorted(shape, &bodies).map_err(|unfit| refused(doing, unfit))?;
        let mut records = Vec::with_capacity(raws.len());
        let mut newest = None;
        for raw in &raws {
            let record = links::of(shape, raw, &linked).and_then(|ids| raw.record(shape, &ids));
            records.push(record.map_err(|unfit| refused(doing, unfit))?);
            newest = newest.max(raw.time(shape.created.as_ref())).max(raw.time(shape.updated.as_ref()));
        }
        Ok((records, newest))
    }

    /// What is needed of other tables, for each link of the shape.
    async fn links(
        &self,
        shape: &Shape,
        raws: &[Raw<'_>],
        spans: bool,
        doing: &str,
    ) -> Result<Vec<Vec<Bytes>>> {
        let mut bodies = Vec::with_capacity(shape.links.len());
        for link in &shape.links {
            let wanted = links::wanted(shape, link, raws, spans).map_err(|unfit| refused(doing, unfit))?;
            let mut of_link = Vec::new();
            for wanted in wanted {
                self.pairs(&wanted, &mut of_link, doing).await?;
            }
            bodies.push(of_link);
        }
        Ok(bodies)
    }

    /// Everything that one question about links brings, page by page.
    async fn pairs(&self, wanted: &Wanted<'_>, bodies: &mut Vec<Bytes>, doing: &str) -> Result<()> {
        let mut last = None;
        let mut offset = 0;
        loop {
            let (fields, filter) = (wanted.fields(), wanted.filter(last));
            let text = offset.to_string();
            let mut query = vec![("fields", fields.as_str()), ("sort", fields.as_str()), ("limit", "1000")];
            if !filter.is_empty() {
                query.push(("where", filter.as_str()));
            }
            if last.is_none() && offset > 0 {
                query.push(("offset", text.as_str()));
            }
            let answer =
                match self.get(&["api", "v2", "tables", wanted.table, "records"], &query, doing).await {
                    Err(error) if error.code.as_deref() == Some("ERR_INVALID_OFFSET_VALUE") => return Ok(()),
                    answer => answer?,
                };
            let list: List<'_> =
                serde_json::from_slice(&answer.body).map_err(|error| unreadable(doing, &error))?;
            let done = list.list.is_empty()
                || list.info.and_then(|info| info.last).unwrap_or(list.list.len() < 1_000);
            offset += list.list.len();
            let before = last;
            if let Some(pair) = list.list.last() {
                last = wanted.numbers(pair).map_err(|unfit| refused(doing, unfit))?;
            }
            if !done && last.is_some() && last <= before {
                return Err(Error::new(Kind::Unreachable, doing, AGAIN));
            }
            bodies.push(answer.body);
            if done {
                return Ok(());
            }
        }
    }

    /// The records of these keys that are there.
    pub(super) async fn by_keys(&self, shape: &Shape, keys: &[Key]) -> Result<Vec<Record>> {
        let doing = format!("looking up records of {}", shape.title);
        let mut found = Vec::new();
        let KeyShape::Number(column) = &shape.key else {
            for key in keys {
                found.extend(self.by_key(shape, key, &doing).await?);
            }
            return Ok(found);
        };
        let numbers: Vec<i64> = keys.iter().filter_map(number).collect();
        for some in numbers.chunks(MOST_KEYS) {
            let filter = format!("({},in,{})", column.id, joined(some));
            let (asked, limit) = (shape.asked(), some.len().to_string());
            let query =
                [("fields", asked.as_str()), ("sort", &column.id), ("limit", &limit), ("where", &filter)];
            let answer = self.get(&["api", "v2", "tables", &shape.table, "records"], &query, &doing).await?;
            let list: List<'_> =
                serde_json::from_slice(&answer.body).map_err(|error| unreadable(&doing, &error))?;
            let (records, _) = self.records(shape, &list.list, false, &doing).await?;
            found.extend(records);
        }
        // An answer to another question would delete what is there.
        let wanted: std::collections::HashSet<&Key> = keys.iter().collect();
        if found.iter().any(|record| !wanted.contains(&record.key)) {
            return Err(Error::new(
                Kind::Unreachable,
                doing,
                "the server answers with records that were not asked for",
            ));
        }
        Ok(found)
    }

    async fn by_key(&self, shape: &Shape, key: &Key, doing: &str) -> Result<Option<Record>> {
        let asked = shape.asked();
        let id = path_of(key).ok_or_else(|| refused(doing, Unfit("a key that no address can hold")))?;
        let path = ["api", "v2", "tables", &shape.table, "records", &id];
        let answer = match self.get(&path, &[("fields", asked.as_str())], doing).await {
            Err(error) if error.code.as_deref() == Some("ERR_RECORD_NOT_FOUND") => return Ok(None),
            answer => answer?,
        };
        let json: &RawValue =
            serde_json::from_slice(&answer.body).map_err(|error| unreadable(doing, &error))?;
        let (mut records, _) = self.records(shape, &[json], false, doing).await?;
        Ok(records.pop().filter(|record| record.key == *key))
    }

    /// How many records the table has.
    pub(super) async fn count(&self, shape: &Shape) -> Result<u64> {
        Ok(self.count_at(shape).await?.0)
    }

    /// The same, and the server's clock.
    pub(super) async fn count_at(&self, shape: &Shape) -> Result<(u64, Option<i64>)> {
        let doing = format!("counting {}", shape.title);
        let path = ["api", "v2", "tables", &shape.table, "records", "count"];
        let answer = self.get(&path, &[], &doing).await?;
        let counted: Counted =
            serde_json::from_slice(&answer.body).map_err(|error| unreadable(&doing, &error))?;
        Ok((counted.count, answer.date))
    }

    /// Keys and times of the records that were created or changed in this second or later, as the server writes them; a page of them.
    pub(super) async fn recent(&self, shape: &Shape, since: i64) -> Result<Vec<String>> {
        let times = [&shape.created, &shape.updated].into_iter().flatten();
        let columns: Vec<&str> =
            shape.key_columns().iter().chain(times).map(|column| column.id.as_str()).collect();
        let filter = filter(shape, Which { since: Some(since), ..Which::default() }, After::Start);
        if filter.is_empty() {
            return Ok(Vec::new());
        }
        let doing = format!("looking for changes of {}", shape.title);
        let (fields, sort) = (columns.join(","), columns[..shape.key_columns().len()].join(","));
        let query = [("fields", fields.as_str()), ("sort", &sort), ("limit", "1000"), ("where", &filter)];
        let answer = self.get(&["api", "v2", "tables", &shape.table, "records"], &query, &doing).await?;
        let list: List<'_> =
            serde_json::from_slice(&answer.body).map_err(|error| unreadable(&doing, &error))?;
        Ok(list.list.iter().map(|json| json.get().to_owned()).collect())
    }

    /// The key of the record that has so many before it.
    pub(super) async fn nth(&self, shape: &Shape, offset: u64) -> Result<Option<i64>> {
        let KeyShape::Number(column) = &shape.key else { return Ok(None) };
        let doing = format!("splitting {}", shape.title);
        let offset = offset.to_string();
        let id = column.id.as_str();
        let query = [("fields", id), ("sort", id), ("limit", "1"), ("offset", &offset)];
        let answer = match self.get(&["api", "v2", "tables", &shape.table, "records"], &query, &doing).await {
            Err(error) if error.code.as_deref() == Some("ERR_INVALID_OFFSET_VALUE") => return Ok(None),
            answer => answer?,
        };
        let list: List<'_> =
            serde_json::from_slice(&answer.body).map_err(|error| unreadable(&doing, &error))?;
        let first = list.list.first().map(|json| Raw::of(json).and_then(|raw| raw.number(column)));
        first.transpose().map_err(|unfit| refused(&doing, unfit))
    }
}

const AGAIN: &str = "the server sends a page again that we have";

/// A filter in NocoDB's words.
fn filter(shape: &Shape, which: Which, after: After) -> String {
    let mut parts = Vec::new();
    if let KeyShape::Number(column) = &shape.key {
        let id = &column.id;
        parts.extend(match after {
            After::Key(last) => Some(format!("({id},gt,{last})")),
            After::Start | After::Offset(_) => which.lo.map(|lo| format!("({id},gte,{lo})")),
        });
        parts.extend(which.hi.map(|hi| format!("({id},lt,{hi})")));
    }
    if let Some(since) = which.since.and_then(times::filter) {
        let times = [&shape.updated, &shape.created].into_iter().flatten();
        let times: Vec<String> =
            times.map(|column| format!("({},gte,exactDate,{since})", column.id)).collect();
        parts.push(match times.as_slice() {
            [one] => one.clone(),
            more => format!("({})", more.join("~or")),
        });
    }
    parts.join("~and")
}

/// Each key above the one before, and all of them above where the page begins.
fn in_order(records: &[Record], after: After) -> std::result::Result<(), &'static str> {
    let mut last = match after {
        After::Key(last) => Some(last),
        After::Start | After::Offset(_) => None,
    };
    for record in records {
        let key = number(&record.key);
        if key.is_none() || last.is_some_and(|last| key <= Some(last)) {
            return Err(AGAIN);
        }
        last = key;
    }
    Ok(())
}

/// The whole number that a key is.
pub(super) fn number(key: &Key) -> Option<i64> {
    let mut element = Vec::new();
    key.write_element("", &mut element).ok()?;
    match with_value(&element, |value| value.map(whole_of)) {
        Some(Some(number)) => Some(number),
        _ => None,
    }
}

pub(super) fn whole_of(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int32(number) => Some(number.into()),
        Value::Int64(number) => Some(number),
        Value::Double(number) if number.trunc() == number && number.abs() < 9e15 => Some(number as i64),
        _ => None,
    }
}

fn with_value<T>(element: &[u8], look: impl FnOnce(Option<Value<'_>>) -> Option<T>) -> Option<T> {
    let mut document = ((element.len() + 5) as u32).to_le_bytes().to_vec();
    document.extend_from_slice(element);
    document.push(0);
    let document = Document::new(&document).ok()?;
    look(document.get(b"").ok().flatten())
}

/// A key as an address has it; of several columns with what NocoDB puts between them.
fn path_of(key: &Key) -> Option<String> {
    let mut element = Vec::new();
    key.write_element("", &mut element).ok()?;
    let text = |value: Value<'_>| match value {
        Value::String(text) => String::from_utf8(text.to_vec()).ok(),
        value => whole_of(value).map(|number| number.to_string()),
    };
    with_value(&element, |value| match value? {
        Value::Document(columns) => {
            let parts: Option<Vec<String>> =
                columns.elements().map(|element| Some(text(element.ok()?.1)?.replace('_', "\\_"))).collect();
            Some(parts?.join("___"))
        }
        one => text(one),
    })
}

pub(super) fn joined(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

pub(super) fn refused(doing: &str, unfit: Unfit) -> Error {
    let error = Error::new(Kind::Unsuitable, doing, format!("the answer has {}", unfit.0));
    if unfit == CHANGED { error.code(SHAPE) } else { error }
}

/// The two numbers of a pair, where both are whole.
pub(super) fn pair(
    json: &RawValue,
    own: &str,
    other: &str,
) -> std::result::Result<Option<(i64, i64)>, Unfit> {
    let members = super::json::object(json)?;
    let find = |title| members.get(title).copied().ok_or(CHANGED);
    let (own, other) = (find(own)?, find(other)?);
    Ok(whole(own).zip(whole(other)))
}

#[cfg(test)]
mod tests {
    use super::super::shape::Column;
    use super::*;

    fn column(id: &str) -> Column {
        Column { id: id.to_owned(), title: id.to_owned() }
    }

    fn shape() -> Shape {
        Shape {
            table: "t".into(),
            title: "T".into(),
            key: KeyShape::Number(column("c_id")),
            fields: Vec::new(),
            links: Vec::new(),
            unreadable: Vec::new(),
            created: Some(column("c_cr")),
            updated: Some(column("c_up")),
        }
    }

    #[test]
    fn filters_are_in_the_servers_words() {
        let all = Which::default();
        assert_eq!(filter(&shape(), all, After::Start), "");
        assert_eq!(filter(&shape(), all, After::Key(7)), "(c_id,gt,7)");
        let range = Which { lo: Some(3), hi: Some(9), since: None };
        assert_eq!(filter(&shape(), range, After::Start), "(c_id,gte,3)~and(c_id,lt,9)");
        assert_eq!(filter(&shape(), range, After::Key(5)), "(c_id,gt,5)~and(c_id,lt,9)");
        let since = Which { since: Some(86_401), ..all };
        let time = "exactDate,1970-01-02 00:00:01+00:00";
        let times = format!("((c_up,gte,{time})~or(c_cr,gte,{time}))");
        assert_eq!(filter(&shape(), since, After::Start), times);
        assert_eq!(filter(&shape(), since, After::Key(5)), format!("(c_id,gt,5)~and{times}"));
        let text = Shape { key: KeyShape::Other(vec![column("c_id")]), updated: None, ..shape() };
        assert_eq!(filter(&text, since, After::Offset(50)), format!("(c_cr,gte,{time})"));
    }

    #[test]
    fn a_page_that_is_not_what_was_asked_for_is_refused() {
        let record = |key: i64| Record {
            key: Key::of(Value::Int64(key)).expect("a key"),
            hash: [0; 16],
            document: Bytes::new(),
            id: Bytes::new(),
        };
        let page = |keys: &[i64]| keys.iter().map(|key| record(*key)).collect::<Vec<_>>();
        assert!(in_order(&page(&[3, 5]), After::Start).is_ok());
        assert!(in_order(&page(&[3, 5]), After::Key(2)).is_ok());
        assert!(in_order(&page(&[3, 5]), After::Key(3)).is_err(), "it was here already");
        assert!(in_order(&page(&[5, 3]), After::Start).is_err());
        assert!(in_order(&page(&[3, 3]), After::Start).is_err());
    }

    #[test]
    fn pages_shrink_and_grow_again_unless_they_were_too_large() {
        let failure = |code: &str| Error::new(Kind::Unreachable, "reading", "no").code(code);
        let size = Size::new(1_000);
        size.refused(1_000, &failure(TOO_SLOW));
        assert_eq!(size.now(), 500);
        size.refused(500, &failure("HTTP 500"));
        assert_eq!(size.now(), 500);
        size.fits(500);
        assert_eq!(size.now(), 1_000);
        size.refused(1_000, &failure(TOO_LARGE));
        size.fits(500);
        assert_eq!(size.now(), 500);
        (0..20).for_each(|_| size.refused(size.now(), &failure(TOO_LARGE)));
        assert_eq!(size.now(), SMALLEST);
    }

    #[test]
    fn keys_as_an_address_has_them() {
        let key = |document: bson::Document| {
            let bytes = document.to_vec().expect("bytes");
            let id = Document::new(&bytes).and_then(|document| document.get(b"_id"));
            Key::of(id.expect("a document").expect("an id")).expect("a key")
        };
        assert_eq!(path_of(&key(bson::doc! {"_id": "a/b ü"})).as_deref(), Some("a/b ü"));
        assert_eq!(path_of(&key(bson::doc! {"_id": 12_i64})).as_deref(), Some("12"));
        let two = key(bson::doc! {"_id": {"A": 1, "B": "x_y"}});
        assert_eq!(path_of(&two).as_deref(), Some("1___x\\_y"));
        assert_eq!(path_of(&key(bson::doc! {"_id": true})), None);
        assert_eq!((number(&key(bson::doc! {"_id": 5})), number(&two)), (Some(5), None));
    }
}

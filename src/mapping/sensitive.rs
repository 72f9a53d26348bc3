//! Fields that a rule calls `sensitive`: where a document is kept or shown to be looked at, they are left out of it.

use bytes::Bytes;
use slackwater_topics::{Document, Malformed, Value};

use crate::config::{Collection, Rule, Step, is_on};

/// What stands in the place of a value.
const BLANK: &str = "(sensitive)";
const TEXT: u8 = 2;

/// The sensitive fields of a collection, as the names that lead to each; none for any field of an object. No name at all means the whole
/// document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sensitive(Vec<Vec<Step>>);

impl Sensitive {
    pub(crate) fn of(collection: &Collection) -> Self {
        let mut ways = Vec::new();
        for table in &collection.tables {
            let columns = table.columns.iter().flat_map(|column| column.parts());
            for column in columns.filter(|column| column.sensitive) {
                ways.push(match &column.rule.value {
                    Rule::Value(value) => value.path.value.way(table.each.as_ref().map(|each| &each.value)),
                    // What is left of the document when all others have taken theirs.
                    _ => Vec::new(),
                });
            }
        }
        Self(ways)
    }

    /// The document without the values of these fields. The same bytes where there are none.
    pub(crate) fn blanked(&self, document: &Bytes) -> Bytes {
        if self.0.is_empty() || document.is_empty() {
            return document.clone();
        }
        let ways: Vec<&[Step]> = self.0.iter().map(Vec::as_slice).collect();
        // What cannot be read is not shown either.
        Document::new(document).and_then(|document| blanked(document, &ways, true)).unwrap_or_default().into()
    }
}

/// `top`: it is the document itself, whose `_id` everybody is told.
fn blanked(document: Document<'_>, ways: &[&[Step]], top: bool) -> Result<Vec<u8>, Malformed> {
    let bytes = document.as_bytes();
    let mut out = vec![0; 4];
    let mut elements = document.elements();
    loop {
        let start = elements.offset();
        let Some(element) = elements.next() else { break };
        let (name, value) = element?;
        let whole = ways.iter().any(|way| way.is_empty()) && !(top && name == b"_id");
        let behind: Vec<&[Step]> = ways
            .iter()
            .filter_map(|way| way.split_first())
            .filter(|(first, _)| is_on(first, name))
            .map(|(_, rest)| rest)
            .collect();
        if whole {
            text(name, &mut out);
        } else if behind.is_empty() {
            out.extend_from_slice(&bytes[start..elements.offset()]);
        } else {
            inside(name, value, &behind, &mut out)?;
        }
    }
    Ok(closed(out))
}

/// A value that some ways lead into. Where it is neither a document nor an array, what is there instead of them is left out.
fn inside(name: &[u8], value: Value<'_>, ways: &[&[Step]], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let made = match value {
        _ if ways.iter().any(|way| way.is_empty()) => None,
        Value::Document(document) => Some((3, blanked(document, ways, false)?)),
        Value::Array(array) => {
            let mut elements = vec![0; 4];
            for element in array.elements() {
                let (place, value) = element?;
                // A way may name a place in the array, or go on in each of its elements.
                let named =
                    ways.iter().filter_map(|way| way.split_first()).filter(|(first, _)| is_on(first, place));
                let behind: Vec<&[Step]> = ways.iter().copied().chain(named.map(|(_, rest)| rest)).collect();
                inside(place, value, &behind, &mut elements)?;
            }
            Some((4, closed(elements)))
        }
        _ => None,
    };
    match made {
        None => text(name, out),
        Some((kind, bytes)) => {
            begin(kind, name, out);
            out.extend_from_slice(&bytes);
        }
    }
    Ok(())
}

pub(super) fn begin(kind: u8, name: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(name);
    out.push(0);
}

fn text(name: &[u8], out: &mut Vec<u8>) {
    begin(TEXT, name, out);
    out.extend_from_slice(&(BLANK.len() as i32 + 1).to_le_bytes());
    out.extend_from_slice(BLANK.as_bytes());
    out.push(0);
}

/// With its length and its end.
pub(super) fn closed(mut out: Vec<u8>) -> Vec<u8> {
    out.push(0);
    let length = out.len() as i32;
    out[..4].copy_from_slice(&length.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn step(name: &str) -> Step {
        (name != "{}").then(|| name.to_owned())
    }

    fn blanked(ways: &[&str], document: &bson::Document) -> bson::Document {
        let ways = ways.iter().map(|way| way.split('.').filter(|name| !name.is_empty()).map(step).collect());
        let bytes = document.to_vec().expect("a document").into();
        let out = Sensitive(ways.collect()).blanked(&bytes);
        bson::Document::from_reader(&*out).expect("a document")
    }

    #[test]
    fn values_are_left_out_wherever_a_way_leads() {
        let document = doc! {
            "_id": 1, "name": "n", "contact": {"mail": "kanari", "phone": 7, "more": {"x": 1}},
            "lines": [{"price": 1, "n": 2}, {"price": "kanari"}, "kanari"], "last": bson::Bson::Null,
        };
        let b = "(sensitive)";
        assert_eq!(blanked(&[], &document), document);
        assert_eq!(blanked(&["missing", "contact.missing"], &document), document);
        assert_eq!(
            blanked(&["contact.mail", "contact.more.x", "last", "lines.price"], &document),
            doc! {
                "_id": 1, "name": "n", "contact": {"mail": b, "phone": 7, "more": {"x": b}},
                "lines": [{"price": b, "n": 2}, {"price": b}, b], "last": b,
            }
        );
        assert_eq!(
            blanked(&["lines.1", "contact"], &document),
            doc! {
                "_id": 1, "name": "n", "contact": b, "lines": [{"price": 1, "n": 2}, b, b], "last": bson::Bson::Null,
            }
        );
        let prices =
            doc! {"_id": 1, "prices": {"a": {"secret": "kanari", "n": 1}, "secret": {"n": 2}, "b": "kanari"}};
        assert_eq!(
            blanked(&["prices.{}.secret"], &prices),
            doc! {"_id": 1, "prices": {"a": {"secret": b, "n": 1}, "secret": {"n": 2}, "b": b}}
        );
        let nested = doc! {"_id": 1, "o": [{"l": {"x": [{"s": 1, "n": 2}]}}, {"l": [{"s": 1}]}]};
        assert_eq!(
            blanked(&["o.l.{}.s"], &nested),
            doc! {"_id": 1, "o": [{"l": {"x": [{"s": b, "n": 2}]}}, {"l": [{"s": b}]}]}
        );
        // Not of the shape that the file expects: what is there instead may be the secret itself.
        assert_eq!(blanked(&["name.first"], &doc! {"_id": 1, "name": "kanari"}), doc! {"_id": 1, "name": b});
        assert_eq!(
            blanked(&[""], &doc! {"_id": 1, "a": 2, "b": {"_id": 3}}),
            doc! {"_id": 1, "a": b, "b": b}
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        let broken = Bytes::from_static(b"kanari");
        assert!(Sensitive(vec![vec![Some("a".into())]]).blanked(&broken).is_empty());
        assert_eq!(Sensitive::default().blanked(&broken), broken);
    }
}

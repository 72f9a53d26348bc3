//! A record as a BSON document: its key, its fields by title, its links as ids.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::value::RawValue;
use slackwater_topics::{Document, Key};

use super::json::{Unfit, Writer, is_null, items, object, text, whole};
use super::shape::{Column, Form, KeyShape, Shape};
use super::times;

/// The hash of a document.
pub type Hash = [u8; 16];

/// A record that was read.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) key: Key,
    /// Of the whole document. Fields and links stand in a fixed order, so equal content has equal hashes.
    pub(super) hash: Hash,
    pub(super) document: Bytes,
    /// `{_id: …}`.
    pub(super) id: Bytes,
}

/// Ids of linked records, in ascending order.
pub(super) type Ids<'a> = Vec<&'a RawValue>;

/// A record as it stands in an answer.
pub(super) struct Raw<'a> {
    values: std::collections::HashMap<String, &'a RawValue>,
}

/// The largest whole number that NocoDB tells exactly.
const EXACT: u64 = 1 << 53;

impl<'a> Raw<'a> {
    pub(super) fn of(json: &'a RawValue) -> Result<Self, Unfit> {
        Ok(Self { values: object(json)? })
    }

    /// A column that was asked for. An answer without it is of a table that has changed.
    pub(super) fn value(&self, column: &Column) -> Result<&'a RawValue, Unfit> {
        self.values.get(&column.title).copied().ok_or(CHANGED)
    }

    /// The key, where it is a whole number.
    pub(super) fn number(&self, column: &Column) -> Result<i64, Unfit> {
        let number = whole(self.value(column)?).ok_or(Unfit("a key that is no whole number"))?;
        if number.unsigned_abs() > EXACT {
            return Err(Unfit("a key beyond 2^53, which NocoDB does not tell exactly"));
        }
        Ok(number)
    }

    /// Seconds since 1970.
    pub(super) fn time(&self, column: Option<&Column>) -> Option<i64> {
        let value = self.values.get(&column?.title)?;
        Some(times::millis(&text(value).ok()?)?.div_euclid(1_000))
    }

    fn write_id(&self, shape: &Shape, out: &mut Writer) -> Result<(), Unfit> {
        match &shape.key {
            KeyShape::Number(column) => {
                out.whole("_id", self.number(column)?);
                Ok(())
            }
            KeyShape::Other(columns) => match columns.as_slice() {
                [one] => out.value("_id", self.value(one)?),
                more => out.nested("_id", false, |out| {
                    more.iter().try_for_each(|column| out.value(&column.title, self.value(column)?))
                }),
            },
        }
    }

    /// The record with the links that were read for it, in the order of the shape's links.
    pub(super) fn record(&self, shape: &Shape, links: &[Ids<'_>]) -> Result<Record, Unfit> {
        let mut id = Writer::new();
        self.write_id(shape, &mut id)?;
        let id = id.end()?;
        let key = Document::new(&id).and_then(|id| id.get(b"_id")).ok().flatten();
        let key = key.and_then(|id| Key::of(id).ok()).ok_or(Unfit("a key that cannot be read"))?;
        let mut out = Writer::new();
        self.write_id(shape, &mut out)?;
        for field in &shape.fields {
            write(&mut out, &field.column.title, self.value(&field.column)?, field.form)?;
        }
        for (link, ids) in shape.links.iter().zip(links) {
            if link.single {
                match ids.first() {
                    Some(id) => out.value(&link.title, id)?,
                    None => out.null(&link.title),
                }
            } else {
                out.nested(&link.title, true, |out| {
                    ids.iter().enumerate().try_for_each(|(n, id)| out.value(&n.to_string(), id))
                })?;
            }
        }
        let document = out.end()?;
        let mut hash = Hash::default();
        hash.copy_from_slice(&digest(&SHA256, &document).as_ref()[..16]);
        Ok(Record { key, hash, document: document.into(), id: id.into() })
    }
}

/// The answer lacks a column that was asked for.
pub(super) const CHANGED: Unfit = Unfit("a record without a column that was asked for");

fn write(out: &mut Writer, name: &str, json: &RawValue, form: Form) -> Result<(), Unfit> {
    if is_null(json) {
        out.null(name);
        return Ok(());
    }
    let is_text = json.get().starts_with('"');
    match form {
        Form::Plain => {}
        Form::Decimal => {
            let number = if is_text { text(json)? } else { json.get().to_owned() };
            if out.decimal(name, &number) {
                return Ok(());
            }
        }
        Form::DateTime if is_text => {
            if let Some(millis) = times::millis(&text(json)?) {
                out.date_time(name, millis);
                return Ok(());
            }
        }
        Form::Boolean => {
            // Databases without a type for it give 1 and 0.
            if let Some(number @ (0 | 1)) = whole(json) {
                out.boolean(name, number == 1);
                return Ok(());
            }
        }
        Form::Choices if is_text => {
            let choices = text(json)?;
            let choices = choices.split(',').filter(|choice| !choice.is_empty());
            return out.nested(name, true, |out| {
                choices.enumerate().try_for_each(|(n, choice)| out.text(&n.to_string(), choice))
            });
        }
        Form::First if json.get().starts_with('[') => {
            return match items(json)?.first() {
                Some(first) => out.value(name, first),
                None => {
                    out.null(name);
                    Ok(())
                }
            };
        }
        Form::Files if json.get().starts_with('[') => return files(out, name, json),
        Form::DateTime | Form::Choices | Form::First | Form::Files => {}
    }
    // Of another shape than expected: nothing is lost, and whoever maps it hears of it.
    out.value(name, json)
}

/// Attachments, less addresses that are signed anew for each answer.
fn files(out: &mut Writer, name: &str, json: &RawValue) -> Result<(), Unfit> {
    let files = items(json)?;
    out.nested(name, true, |out| {
        files.iter().enumerate().try_for_each(|(n, file)| {
            let Ok(members) = object(file) else { return out.value(&n.to_string(), file) };
            let mut members: Vec<_> = members.into_iter().collect();
            members.retain(|(name, _)| !matches!(name.as_str(), "signedUrl" | "signedPath" | "thumbnails"));
            members.sort_by(|a, b| a.0.cmp(&b.0));
            out.nested(&n.to_string(), false, |out| {
                members.iter().try_for_each(|(name, value)| out.value(name, value))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::shape::{Field, Link, Stands};
    use super::*;
    use bson::{Bson, doc};

    fn column(title: &str) -> Column {
        Column { id: format!("c_{title}"), title: title.to_owned() }
    }

    fn shape(key: KeyShape, fields: &[(&str, Form)]) -> Shape {
        let field =
            |(title, form): &(&str, Form)| Field { column: column(title), kind: String::new(), form: *form };
        let link = |title: &str, single| Link {
            title: title.to_owned(),
            single,
            stands: Stands::Here(column("unused")),
        };
        Shape {
            table: "t".into(),
            title: "T".into(),
            key,
            fields: fields.iter().map(field).collect(),
            links: vec![link("Many", false), link("One", true)],
            unreadable: Vec::new(),
            created: None,
            updated: None,
        }
    }

    fn document(shape: &Shape, json: &str, links: &[&[&str]]) -> Result<(bson::Document, Record), Unfit> {
        let raw: Box<RawValue> = serde_json::from_str(json).expect("JSON");
        let ids: Vec<Vec<Box<RawValue>>> = links
            .iter()
            .map(|ids| ids.iter().map(|id| serde_json::from_str(id).expect("JSON")).collect())
            .collect();
        let ids: Vec<Ids<'_>> = ids.iter().map(|ids| ids.iter().map(AsRef::as_ref).collect()).collect();
        let record = Raw::of(&raw)?.record(shape, &ids)?;
        Ok((bson::Document::from_reader(&*record.document).expect("a document"), record))
    }

    #[test]
    fn every_form_of_value() {
        let forms = [
            ("Paid", Form::Boolean),
            ("Price", Form::Decimal),
            ("Seen", Form::DateTime),
            ("Tags", Form::Choices),
            ("Text", Form::Plain),
            ("Who", Form::First),
        ];
        let shape = shape(KeyShape::Number(column("Id")), &forms);
        let json = r#"{"Id": 7, "Paid": 1, "Price": 1250000.10, "Seen": "1970-01-01 00:00:01+00:00", "Tags": "a,c d",
            "Text": "x", "Who": [{"id": "u"}], "Other": 1}"#;
        let (found, record) = document(&shape, json, &[&["1", "2"], &["3"]]).expect("it fits");
        let price: bson::Decimal128 = "1250000.10".parse().expect("a decimal");
        let same = doc! {
            "_id": 7, "Paid": true, "Price": price, "Seen": bson::DateTime::from_millis(1_000),
            "Tags": ["a", "c d"], "Text": "x", "Who": {"id": "u"}, "Many": [1, 2], "One": 3,
        };
        assert_eq!(found, same);
        assert_eq!(record.key.to_string(), "7");
        let nothing =
            r#"{"Id": 7, "Paid": null, "Price": null, "Seen": null, "Tags": "", "Text": null, "Who": []}"#;
        let (found, other) = document(&shape, nothing, &[&[], &[]]).expect("it fits");
        let null = Bson::Null;
        let same = doc! {
            "_id": 7, "Paid": &null, "Price": &null, "Seen": &null, "Tags": [], "Text": &null, "Who": &null,
            "Many": [], "One": &null,
        };
        assert_eq!(found, same);
        assert_ne!(record.hash, other.hash);
    }

    #[test]
    fn what_has_another_shape_than_expected_is_kept() {
        let forms = [("Price", Form::Decimal), ("Seen", Form::DateTime), ("Yes", Form::Boolean)];
        let shape = shape(KeyShape::Number(column("Id")), &forms);
        let json = r#"{"Id": 1, "Price": "US$ 5", "Seen": "soon", "Yes": "maybe"}"#;
        let (found, _) = document(&shape, json, &[&[], &[]]).expect("it fits");
        assert_eq!(found.get_str("Price").ok(), Some("US$ 5"));
        assert_eq!(found.get_str("Seen").ok(), Some("soon"));
        assert_eq!(found.get_str("Yes").ok(), Some("maybe"));
    }

    #[test]
    fn signed_addresses_make_no_difference() {
        let shape = shape(KeyShape::Number(column("Id")), &[("Files", Form::Files)]);
        let json = |signed: &str| {
            format!(
                r#"{{"Id": 1, "Files": [{{"path": "p", "signedPath": "{signed}", "thumbnails": {{"t": "{signed}"}}}}]}}"#
            )
        };
        let (found, first) = document(&shape, &json("a"), &[&[], &[]]).expect("it fits");
        let (_, second) = document(&shape, &json("b"), &[&[], &[]]).expect("it fits");
        assert_eq!(found.get_array("Files").ok(), Some(&vec![doc! {"path": "p"}.into()]));
        assert_eq!(first.hash, second.hash);
    }

    #[test]
    fn keys_of_every_kind() {
        let text = shape(KeyShape::Other(vec![column("Code")]), &[]);
        let (found, _) = document(&text, r#"{"Code": "a,b"}"#, &[&[], &[]]).expect("it fits");
        assert_eq!(found.get_str("_id").ok(), Some("a,b"));
        let two = shape(KeyShape::Other(vec![column("A"), column("B")]), &[]);
        let (found, _) = document(&two, r#"{"A": 1, "B": "x"}"#, &[&[], &[]]).expect("it fits");
        assert_eq!(found.get_document("_id").ok(), Some(&doc! {"A": 1, "B": "x"}));
        let number = shape(KeyShape::Number(column("Id")), &[]);
        assert_eq!(
            document(&number, r#"{"Id": "12"}"#, &[&[], &[]]).expect("it fits").0.get_i32("_id").ok(),
            Some(12)
        );
        assert!(document(&number, r#"{"Id": 9007199254740994}"#, &[&[], &[]]).is_err());
        assert!(matches!(document(&number, r#"{"id": 1}"#, &[&[], &[]]), Err(CHANGED)));
    }
}

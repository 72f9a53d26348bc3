//! The two sides of a check, from documents and rows to values by key. Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use slackwater_connectors::postgres::target::checks::Cell;
use slackwater_topics::{Document, Key, Namespace, Value as Bson};

use super::value::{Value, agree};
use crate::config::Within;

/// The only key of a check without `by`.
pub(super) const ONLY: &str = "";

/// The values of a side, by key.
pub(super) type Side = BTreeMap<String, Value>;

/// What both sides said once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// How many keys there are.
    pub(super) keys: u64,
    /// Where they do not agree: source and target.
    pub(super) differences: BTreeMap<String, (Value, Value)>,
    /// Without `by`: what both said.
    pub(super) only: Option<(Value, Value)>,
    /// Both sides are as of one moment.
    pub(super) exact: bool,
}

/// What the keys of the source are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a> {
    /// The field with the key; none for one value.
    pub(super) by: Option<&'a str>,
    /// The key is an id of this collection's documents, and the target has what is made of it.
    pub(super) of: Option<(Namespace, &'a str)>,
}

/// The source's side. What is wrong with it is said without a value.
pub(super) fn of_documents(documents: &[Bytes], keys: Keys<'_>) -> Result<Side, String> {
    let mut side = Side::new();
    for bytes in documents {
        let document = Document::new(bytes).map_err(|broken| broken.to_string())?;
        let (key, value) = of_document(document, keys)?;
        put(&mut side, key, value, "the aggregation")?;
    }
    Ok(side)
}

fn of_document(document: Document<'_>, keys: Keys<'_>) -> Result<(String, Value), String> {
    let (mut id, mut named, mut value) = (None, None, None);
    for element in document.elements() {
        let (name, found) = element.map_err(|broken| broken.to_string())?;
        if name == b"_id" {
            id = Some(found);
        } else if keys.by.is_some_and(|by| by.as_bytes() == name) {
            named = Some(found);
        } else if value.replace(found).is_some() {
            return Err(
                "a document of the aggregation has several values beside its key: keep one with `$project`"
                    .to_owned(),
            );
        }
    }
    let cannot = |kind: &str| format!("the aggregation gives {kind}, which cannot be compared");
    let Some(value) = value else {
        return Err("a document of the aggregation has no value beside its key".to_owned());
    };
    let value = Value::of_source(value).map_err(cannot)?;
    if keys.by.is_none() {
        return Ok((ONLY.to_owned(), value));
    }
    let key = named.or(id).unwrap_or(Bson::Null);
    Ok((key_of(key, keys.of)?, value))
}

fn key_of(key: Bson<'_>, of: Option<(Namespace, &str)>) -> Result<String, String> {
    let cannot = |kind: &str| format!("the aggregation gives {kind} as a key, which cannot be compared");
    match (of, key) {
        // The document that it would belong to is not there.
        (Some(_), Bson::Null | Bson::Undefined) | (None, _) => {
            Ok(Value::of_source(key).map_err(cannot)?.key())
        }
        (Some((namespace, collection)), key) => {
            let key = Key::of(key).map_err(|broken| broken.to_string())?;
            Ok(namespace.id(collection, &key).to_string())
        }
    }
}

/// The target's side.
pub(super) fn of_rows(rows: Vec<(Option<Cell>, Cell)>) -> Result<Side, String> {
    let mut side = Side::new();
    for (key, value) in rows {
        let key = key.map_or_else(|| ONLY.to_owned(), |key| Value::of_target(key).key());
        put(&mut side, key, Value::of_target(value), "the query")?;
    }
    Ok(side)
}

fn put(side: &mut Side, key: String, value: Value, whose: &str) -> Result<(), String> {
    match side.entry(key) {
        Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
        Entry::Occupied(place) if place.key() == ONLY => Err(format!(
            "{whose} gives more than one value: group everything (`_id: null`), or name the key in `by`"
        )),
        Entry::Occupied(_) => Err(format!("{whose} gives a key twice: group by it")),
    }
}

/// Where the sides do not agree. A key that one of them does not have has no value there.
pub(super) fn compare(source: &Side, target: &Side, within: &Within) -> Round {
    let mut round = Round::default();
    let none = Value::Nothing;
    let alone =
        target.iter().filter(|(key, _)| !source.contains_key(*key)).map(|(key, value)| (key, &none, value));
    let pairs = source.iter().map(|(key, value)| (key, value, target.get(key).unwrap_or(&none)));
    for (key, source, target) in pairs.chain(alone) {
        round.keys += 1;
        if !agree(source, target, within) {
            round.differences.insert(key.clone(), (source.clone(), target.clone()));
        }
    }
    round
}

/// The same for one value.
pub(super) fn compare_only(source: &Side, target: &Side, within: &Within) -> Round {
    let of = |side: &Side| side.get(ONLY).cloned().unwrap_or(Value::Nothing);
    let only = (of(source), of(target));
    let mut round = Round { keys: 1, ..Round::default() };
    if !agree(&only.0, &only.1, within) {
        round.differences.insert(ONLY.to_owned(), only.clone());
    }
    round.only = Some(only);
    round
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::Decimal;
    use bson::{doc, oid::ObjectId};
    use slackwater_connectors::postgres::target::checks::CellKind;

    fn documents(documents: &[bson::Document]) -> Vec<Bytes> {
        documents.iter().map(|document| Bytes::from(document.to_vec().expect("BSON"))).collect()
    }

    fn rows(rows: &[(&str, &str)]) -> Side {
        let cell = |kind, text: &str| Cell { kind, text: Some(text.to_owned()) };
        let rows =
            rows.iter().map(|(key, value)| (Some(cell(CellKind::Text, key)), cell(CellKind::Exact, value)));
        of_rows(rows.collect()).expect("rows")
    }

    const BY: Keys<'_> = Keys { by: Some("user"), of: None };
    const ALONE: Keys<'_> = Keys { by: None, of: None };

    fn exactly() -> Within {
        Within::Amount(Decimal::default())
    }

    #[test]
    fn keys_are_compared_as_text() {
        let id = ObjectId::parse_str("65f1a0b2c3d4e5f60718293a").expect("an id");
        let given = documents(&[
            doc! {"_id": id, "total": 5},
            doc! {"_id": 0, "user": "ann", "total": 2.5},
            doc! {"_id": 7_i64, "total": 1},
            doc! {"_id": 8, "total": 0},
        ]);
        let source = of_documents(&given, BY).expect("a side");
        let target = rows(&[("65f1a0b2c3d4e5f60718293a", "5.00"), ("ann", "2.51"), ("9", "4")]);
        let round = compare(&source, &target, &exactly());
        let keys: Vec<&str> = round.differences.keys().map(String::as_str).collect();
        assert_eq!(keys, ["7", "9", "ann"], "8 has nothing to have");
        assert_eq!(round.keys, 5);
        assert_eq!(round.differences["9"].0, Value::Nothing);
    }

    #[test]
    fn ids_become_those_of_the_rows() {
        let id = ObjectId::parse_str("65f1a0b2c3d4e5f60718293a").expect("an id");
        let namespace = Namespace::of_migration("crm");
        let keys = Keys { of: Some((namespace, "legacy.users")), ..BY };
        let source = of_documents(&documents(&[doc! {"_id": id, "total": 5}]), keys).expect("a side");
        let made = namespace.id("legacy.users", &Key::of(Bson::ObjectId(&id.bytes())).expect("a key"));
        assert_eq!(source.keys().collect::<Vec<_>>(), [&made.to_string()]);
    }

    #[test]
    fn one_value_is_wanted() {
        let one = |given: &[bson::Document], keys| of_documents(&documents(given), keys);
        assert_eq!(one(&[], ALONE), Ok(Side::new()));
        let side = one(&[doc! {"_id": null, "n": 3}], ALONE).expect("a side");
        assert_eq!(compare_only(&side, &Side::new(), &exactly()).differences.len(), 1);
        assert!(compare_only(&Side::new(), &Side::new(), &exactly()).differences.is_empty());
        for (given, keys, said) in [
            (vec![doc! {"_id": 1, "n": 3}, doc! {"_id": 2, "n": 3}], ALONE, "more than one value"),
            (vec![doc! {"_id": 1, "n": 3}, doc! {"_id": 1, "n": 3}], BY, "a key twice"),
            (vec![doc! {"_id": 1, "n": 3, "m": 4}], ALONE, "several values"),
            (vec![doc! {"_id": 1}], ALONE, "no value"),
            (vec![doc! {"_id": 1, "n": [1]}], ALONE, "an array"),
            (vec![doc! {"_id": {"a": 1}, "n": 1}], BY, "an object as a key"),
        ] {
            let error = one(&given, keys).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }
}

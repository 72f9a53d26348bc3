//! Values that are encrypted anew: the same bytes in the same place, others in any other place, and nothing of them in what is said.

use bson::spec::BinarySubtype;

use super::*;
use crate::config::{unbase64, unhex};

const SECTION: &str = r#"ciphers:
  legacy: { aes-256-cbc: { key: "${OLD}", iv: prefix, encoding: hex } }
  fixed: { aes-256-cbc: { key: "${OLD}", iv: "${IV}" } }
  member: { aes-256-gcm: { key: "${NEW}" } }
  other: { aes-256-gcm: { key: "${OTHER}", encoding: hex } }
"#;

fn read(collections: &str) -> Result<config::Migration, config::Diagnostics> {
    let environment = |name: &str| match name {
        "OLD" => Some("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".to_owned()),
        "IV" => Some("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff".to_owned()),
        "NEW" => Some("1".repeat(64)),
        "OTHER" => Some("2".repeat(64)),
        _ => None,
    };
    config::parse(
        "m.yaml",
        &format!("{}{collections}", HEAD.replace("collections:", &format!("{SECTION}collections:"))),
        &environment,
    )
}

fn try_plan(collections: &str, tables: Vec<Table>) -> Result<Plan, config::Diagnostics> {
    compile(&read(collections)?, &catalog(tables))
}

fn plan(collections: &str, tables: Vec<Table>) -> Arc<Plan> {
    Arc::new(try_plan(collections, tables).unwrap_or_else(|found| panic!("{found}")))
}

/// A plan for one column of this type.
fn one(kind: &str, rule: &str) -> Arc<Plan> {
    let file = format!("  m.a: {{ into: a, columns: {{ id: {{ uuid: _id }}, v: {rule} }} }}\n");
    plan(&file, vec![table("a", &["id uuid key", &format!("v {kind}")])])
}

fn value(plan: &Arc<Plan>, document: &bson::Document) -> Option<Vec<u8>> {
    map_one(plan, document).expect("mapped").remove(1)
}

fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.expect("a value")).expect("text")
}

fn binary(subtype: BinarySubtype, bytes: Vec<u8>) -> Bson {
    Bson::Binary(bson::Binary { subtype, bytes })
}

/// `4711` in `fixed`, and with its first block before it in `legacy`.
const FIXED: &str = "DPpnBdc+IvZ4dW8H8geH/g==";
const PREFIX: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff0cfa6705d73e22f678756f07f20787fe";

#[test]
fn what_was_encrypted_is_encrypted_anew() {
    let legacy = doc! {"_id": 1, "pin": PREFIX};
    let raw =
        doc! {"_id": 1, "pin": binary(BinarySubtype::Generic, unhex(PREFIX.as_bytes()).expect("digits"))};
    let fixed = doc! {"_id": 1, "pin": format!(" {FIXED}\n")};
    let plain = doc! {"_id": 1, "pin": "4711"};
    let anew = |document: &bson::Document, from: &str| {
        text(value(&one("text", &format!("{{ reencrypt: pin, from: {from}, to: member }}")), document))
    };
    let sealed = anew(&legacy, "legacy");
    assert_eq!((anew(&raw, "legacy"), anew(&fixed, "fixed")), (sealed.clone(), sealed.clone()));
    assert_eq!(text(value(&one("text", "{ encrypt: pin, to: member }"), &plain)), sealed);
    // Another program made it by the recipe of `docs/design/ciphers.md`. It is in tables: it may never change.
    assert_eq!(sealed, "f59VwBUGostIvLD2gc5AU8YAQHFIVLDfz7+Eg/Cwa2o=");
    // Nonce, four letters, tag.
    let bytes = unbase64(sealed.as_bytes()).expect("base64");
    assert_eq!(bytes.len(), 12 + 4 + 16);
    assert_eq!(value(&one("bytea", "{ encrypt: pin, to: member }"), &plain), Some(bytes.clone()));
    let again = doc! {"_id": 1, "pin": sealed};
    for kind in ["text", "bytea"] {
        for (document, rule) in [
            (&legacy, "{ decrypt: pin, from: legacy }"),
            (&fixed, "{ decrypt: pin, from: fixed }"),
            (&again, "{ decrypt: pin, from: member }"),
        ] {
            assert_eq!(value(&one(kind, rule), document).as_deref(), Some(&b"4711"[..]), "{kind} {rule}");
        }
    }
    let hex = text(value(&one("text", "{ encrypt: pin, to: other }"), &plain));
    assert_ne!(unhex(hex.as_bytes()).expect("digits"), bytes, "another key, another value");
    assert_eq!(
        value(&one("text", "{ decrypt: pin, from: other }"), &doc! {"_id": 1, "pin": hex}).as_deref(),
        Some(&b"4711"[..])
    );
    // Numbers are encrypted as their text, bytes as they are, the old form of bytes without its second length.
    let number = doc! {"_id": 1, "pin": 4711};
    let old = doc! {"_id": 1, "pin": binary(BinarySubtype::BinaryOld, b"4711".to_vec())};
    let bytes = doc! {"_id": 1, "pin": binary(BinarySubtype::Generic, b"4711".to_vec())};
    for document in [number, old, bytes] {
        assert_eq!(
            text(value(&one("text", "{ encrypt: pin, to: member }"), &document)),
            anew(&legacy, "legacy")
        );
    }
}

proptest::proptest! {
    #[test]
    fn what_is_encrypted_can_be_decrypted(plain in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..70), id in 0..5_i64) {
        let sealed = one("bytea", "{ encrypt: v, to: member }");
        let document = doc! {"_id": id, "v": binary(BinarySubtype::Generic, plain.clone())};
        let bytes = value(&sealed, &document).expect("a value");
        assert_eq!(value(&sealed, &document).as_ref(), Some(&bytes), "a replay writes the same");
        let stored = doc! {"_id": id, "v": binary(BinarySubtype::Generic, bytes)};
        let anew = value(&one("bytea", "{ reencrypt: v, from: member, to: other }"), &stored).expect("a value");
        let stored = doc! {"_id": id, "v": binary(BinarySubtype::Generic, anew)};
        assert_eq!(value(&one("bytea", "{ decrypt: v, from: other }"), &stored), Some(plain));
    }
}

/// One value in two documents, columns, elements, collections: nobody sees that it is the same.
#[test]
fn equal_values_look_different_everywhere() {
    let file = "
  m.users:
    - into: users
      columns: { id: { uuid: _id }, a: { encrypt: v, to: member }, b: { encrypt: v, to: member } }
    - into: lines
      each: lines[]
      columns: { id: { uuid: each, by: n }, user_id: { parent: id }, a: { encrypt: v, to: member } }
    - into: places
      each: places[]
      columns: { user_id: { parent: id }, place: { index: 0 }, a: { encrypt: ., to: member } }
    - into: prices
      each: prices{}
      columns: { user_id: { parent: id }, code: { key: each }, a: { encrypt: ., to: member } }
  m.others: { into: users, set: { k: x }, columns: { id: { uuid: _id }, a: { encrypt: v, to: member } } }
";
    let tables = vec![
        table("users", &["id uuid key", "k text", "a text", "b text"]),
        refers(table("lines", &["id uuid key", "user_id uuid", "a text"]), "user_id", "users"),
        refers(table("places", &["user_id uuid key", "place integer key", "a text"]), "user_id", "users"),
        refers(table("prices", &["user_id uuid key", "code text key", "a text"]), "user_id", "users"),
    ];
    let plan = plan(file, tables);
    let lines = [doc! {"n": 1, "v": "same"}, doc! {"n": 2, "v": "same"}];
    let document = |id: i32| {
        doc! {
            "_id": id, "v": "same", "lines": lines.to_vec(), "places": ["same", "same"], "prices": {"x": "same", "y": "same"},
        }
    };
    let sealed = |documents: &[(u16, bson::Document)]| {
        let mut out = WriteSet::new(&plan.tables, true);
        let mut mapper = Mapper::new(Arc::clone(&plan));
        for (collection, document) in documents {
            mapper.map(&event(*collection, Op::Snapshot, document), &mut out).expect("mapped");
        }
        let mut all = Vec::new();
        for (write, spec) in out.tables.iter().zip(plan.tables.iter()) {
            let columns: Vec<usize> = (0..spec.columns.len())
                .filter(|at| matches!(spec.table.columns[spec.columns[*at]].name.as_str(), "a" | "b"))
                .collect();
            for row in rows(write, spec, true) {
                let there = columns.iter().filter_map(|at| row[*at].clone());
                all.extend(there.map(|bytes| text(Some(bytes))));
            }
        }
        all.sort();
        all
    };
    let all = sealed(&[(0, document(1)), (0, document(2)), (1, document(1))]);
    assert_eq!(all.len(), 2 * (2 + 2 + 2 + 2) + 1);
    let mut different = all.clone();
    different.dedup();
    assert_eq!(different, all);
    assert_eq!(sealed(&[(0, document(2)), (1, document(1)), (0, document(1))]), all, "in any order");
    // An element that has an id keeps its bytes when others come before it.
    let more = [doc! {"n": 3, "v": "more"}].into_iter().chain(lines.to_vec()).collect::<Vec<_>>();
    let (one, two) = (doc! {"_id": 1, "lines": lines.to_vec()}, doc! {"_id": 1, "lines": more});
    let (one, two) = (sealed(&[(0, one)]), sealed(&[(0, two)]));
    assert!(one.iter().all(|value| two.contains(value)) && two.len() == 3);
}

/// The values of an array column; none for a null.
fn values(array: Option<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
    let array = array.expect("an array");
    let number = |at: usize| i32::from_be_bytes(array[at..at + 4].try_into().expect("four bytes"));
    let (mut values, mut at) = (Vec::new(), 20);
    while at < array.len() {
        let length = number(at);
        at += 4;
        let end = at + usize::try_from(length).unwrap_or(0);
        values.push((length >= 0).then(|| array[at..end].to_vec()));
        at = end;
    }
    assert!(array.len() == 12 || number(12) as usize == values.len(), "as many as its head says");
    values
}

#[test]
fn each_value_of_an_array_is_encrypted_by_itself() {
    let document = doc! {"_id": 1, "pins": ["4711", "4711", Bson::Null, "4711"]};
    let sealed = values(value(&one("text[]", "{ encrypt: 'pins[]', to: member }"), &document));
    // Another program made them by the recipe of `docs/design/ciphers.md`. They are in tables: they may never change.
    let first =
        ["PRAIqVKeGKNm9RWVCGhqYHtV7/EKre1R8Hz/vfq/XW8=", "/oQ80F2cve+qU2qBaNUVrSIR7IUxtETW3Ys46PUcVis="];
    assert_eq!([text(sealed[0].clone()), text(sealed[1].clone())], first);
    assert!(sealed[2].is_none() && sealed[3] != sealed[0] && sealed[3] != sealed[1]);
    // The same value in a column of one is yet another.
    let alone = value(&one("text", "{ encrypt: 'pins.0', to: member }"), &document);
    assert!(!sealed.contains(&alone), "a column of its own");
    let bytes = values(value(&one("bytea[]", "{ encrypt: 'pins[]', to: member }"), &document));
    assert_eq!(bytes[1], unbase64(first[1].as_bytes()));
    // And back, out of objects.
    let stored = sealed.into_iter().map(|sealed| match sealed {
        Some(sealed) => doc! {"pin": text(Some(sealed))},
        None => doc! {"other": 1},
    });
    let stored = doc! {"_id": 1, "pins": stored.collect::<Vec<_>>()};
    let plain = values(value(&one("text[]", "{ decrypt: 'pins[].pin', from: member }"), &stored));
    let pin = || Some(b"4711".to_vec());
    assert_eq!(plain, [pin(), pin(), None, pin()]);
    let anew = value(&one("bytea[]", "{ reencrypt: 'pins[].pin', from: member, to: other }"), &stored);
    let anew: Vec<Option<Vec<u8>>> = values(anew);
    let anew = anew
        .into_iter()
        .map(|sealed| sealed.map_or(Bson::Null, |sealed| binary(BinarySubtype::Generic, sealed)));
    let anew = doc! {"_id": 1, "pins": anew.collect::<Vec<_>>()};
    assert_eq!(values(value(&one("text[]", "{ decrypt: 'pins[]', from: other }"), &anew)), plain);
    for (rule, document, count) in [
        (
            "{ decrypt: 'pins[]', from: member, invalid: strip }",
            doc! {"_id": 1, "pins": ["no", first[0]]},
            Some(1),
        ),
        (
            "{ decrypt: 'pins[]', from: member, invalid: null }",
            doc! {"_id": 1, "pins": ["no", first[0]]},
            None,
        ),
        ("{ encrypt: 'pins[]', to: member }", doc! {"_id": 1, "pins": []}, Some(0)),
        ("{ encrypt: 'pins[]', to: member }", doc! {"_id": 1, "pins": Bson::Null}, None),
    ] {
        let value = value(&one("text[]", rule), &document);
        assert_eq!(value.map(|array| values(Some(array)).len()), count, "{rule}");
    }
    for document in [doc! {"_id": 1, "pins": ["secret"]}, doc! {"_id": 1, "pins": "secret"}] {
        let refused =
            map_one(&one("text[]", "{ decrypt: 'pins[]', from: member }"), &document).expect_err("refused");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}

#[test]
fn policies_hold_for_what_cannot_be_decrypted() {
    let file = "
  m.a:
    into: a
    columns:
      id: { uuid: _id }
      v: { reencrypt: v, from: legacy, to: member, invalid: null, empty: null, null: default, default: none }
      w: { decrypt: w, from: fixed, invalid: default, default: none }
      x: { decrypt: x, from: fixed, invalid: clamp }
";
    let plan = plan(file, vec![table("a", &["id uuid key", "v text", "w text", "x varchar(5)"])]);
    let document = doc! {"_id": 1, "v": "00", "w": "no base64", "x": "7ZHDZvcFbM6bcmcNNvfF8Q=="};
    let mut mapper = Mapper::new(Arc::clone(&plan));
    let mut out = WriteSet::new(&plan.tables, false);
    let refused = mapper.map(&event(0, Op::Upsert, &document), &mut out).expect_err("refused");
    assert_eq!(refused.to_string(), "public.a.x: it cannot be decrypted with `fixed` (from `x`)");
    assert_eq!(refused.kind.word(), "cipher");
    // `sixteen letters!`
    let long = unhex(b"5621111eb9b68cca22492d552295f53138d52293e9ff25743b9af782107ceeea").expect("digits");
    let long = binary(BinarySubtype::Generic, long);
    let broken = doc! {"_id": 1, "v": "00", "w": "no base64", "x": long};
    let empty = doc! {"_id": 2, "v": "  ", "w": FIXED};
    for document in [broken, empty] {
        mapper.map(&event(0, Op::Upsert, &document), &mut out).expect("mapped");
    }
    let rows = rows(&out.tables[0], &plan.tables[0], false);
    let text = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(rows[0][1..], [None, text("none"), text("sixte")]);
    assert_eq!(rows[1][1..], [text("none"), text("4711"), None]);
    let tallies = mapper.take_tallies();
    let said: Vec<_> = tallies.iter().map(|tally| (tally.column.as_str(), tally.what.word())).collect();
    let expected =
        [("v", "invalid_to_null"), ("v", "null_to_default"), ("w", "invalid_to_default"), ("x", "clamped")];
    assert_eq!(said, expected);
}

/// Every way to be refused, without a letter of the value.
#[test]
fn what_is_refused_says_no_value() {
    let mut lines = Vec::new();
    let cut = &PREFIX[..62];
    for (kind, rule, stored) in [
        ("text", "{ decrypt: v, from: legacy }", Bson::from("secret")),
        ("text", "{ decrypt: v, from: legacy }", cut.into()),
        ("text", "{ decrypt: v, from: fixed }", "c2VjcmV0".into()),
        ("text", "{ decrypt: v, from: fixed }", "secret!".into()),
        ("text", "{ decrypt: v, from: member }", FIXED.into()),
        ("text", "{ reencrypt: v, from: member, to: other }", 5.into()),
        ("text", "{ reencrypt: v, from: fixed, to: other }", doc! {"secret": 1}.into()),
        ("text", "{ encrypt: v, to: member }", doc! {"secret": 1}.into()),
        ("varchar(5)", "{ encrypt: v, to: member, invalid: clamp }", "secret".into()),
        ("text not", "{ encrypt: v, to: member }", Bson::Null),
    ] {
        let refused = map_one(&one(kind, rule), &doc! {"_id": 1, "v": stored}).expect_err(rule);
        assert!(!refused.to_string().contains("secret"), "{refused}");
        lines.push(format!("{} {refused}", refused.kind.word()));
    }
    insta::assert_snapshot!("ciphers_refuse", lines.join("\n"));
}

#[test]
fn an_expression_may_take_what_is_decrypted() {
    let file = "  m.a: { into: a, columns: { id: { uuid: _id }, v: { sql: \"one || two\", with: { one: { decrypt: v, from: fixed }, two: { decrypt: v, from: legacy, invalid: null }, all: { decrypt: 'l[]', from: fixed } } } } }\n";
    let migration = read(file).expect("a file");
    assert_eq!(
        expressions(&migration)[0].inputs,
        [("one".into(), "text".into()), ("two".into(), "text".into()), ("all".into(), "text[]".into())]
    );
    let plan = plan(file, vec![table("a", &["id uuid key", "v text"])]);
    let mut out = WriteSet::new(&plan.tables, false);
    let event = event(0, Op::Upsert, &doc! {"_id": 1, "v": FIXED});
    Mapper::new(Arc::clone(&plan)).map(&event, &mut out).expect("mapped");
    let bytes = out.tables[0].rows.as_bytes();
    assert_eq!(bytes.windows(4).filter(|part| *part == b"4711").count(), 1);
}

/// Values of such columns are left out of documents that are kept or shown, whatever the file says.
#[test]
fn they_are_sensitive() {
    let file = "
  m.a:
    - into: a
      columns: { id: { uuid: _id }, v: { encrypt: a.v, to: member }, w: { sql: x, with: { x: { decrypt: w, from: legacy } } } }
    - into: l
      each: l[]
      columns: { a_id: { parent: id }, n: { index: 0 }, v: { reencrypt: v, from: legacy, to: member, sensitive: true } }
";
    let tables = vec![
        table("a", &["id uuid key", "v text", "w text"]),
        refers(table("l", &["a_id uuid key", "n integer key", "v text"]), "a_id", "a"),
    ];
    let plan = plan(file, tables);
    let document = doc! {"_id": 1, "a": {"v": "x", "y": 1}, "w": "x", "l": [{"v": "x", "n": 1}]};
    let blanked = plan.collections[0].sensitive.blanked(&document.to_vec().expect("a document").into());
    let blank = "(sensitive)";
    assert_eq!(
        bson::Document::from_reader(&*blanked).expect("a document"),
        doc! {"_id": 1, "a": {"v": blank, "y": 1}, "w": blank, "l": [{"v": blank, "n": 1}]}
    );
}

#[test]
fn mistakes_of_types_stand_at_their_place() {
    let mut said = Vec::new();
    for (kind, rule) in [
        ("integer", "{ decrypt: v, from: legacy }"),
        ("jsonb", "{ encrypt: v, to: member }"),
        ("text[]", "{ reencrypt: v, from: legacy, to: member }"),
        ("uuid", "{ reencrypt: v, from: legacy, to: member }"),
        ("text", "{ encrypt: 'v[]', to: member }"),
        ("integer[]", "{ decrypt: 'v[]', from: member }"),
    ] {
        let file = format!("  m.a: {{ into: a, columns: {{ id: {{ uuid: _id }}, v: {rule} }} }}\n");
        let found = try_plan(&file, vec![table("a", &["id uuid key", &format!("v {kind}")])]);
        said.push(found.expect_err(rule).to_string());
    }
    insta::assert_snapshot!("ciphers_and_types", said.join("\n"));
}

#[test]
fn json_says_what_binary_data_is() {
    let plan = one("jsonb", "v");
    let id: Vec<u8> = (0..16).collect();
    for (subtype, bytes, expected) in [
        (BinarySubtype::Generic, b"abc".to_vec(), "\u{1}\"YWJj\""),
        // The library writes the second length by itself.
        (BinarySubtype::BinaryOld, b"abc".to_vec(), "\u{1}\"YWJj\""),
        (BinarySubtype::Uuid, id.clone(), "\u{1}\"00010203-0405-0607-0809-0a0b0c0d0e0f\""),
        (BinarySubtype::UuidOld, id, "\u{1}\"00010203-0405-0607-0809-0a0b0c0d0e0f\""),
        (BinarySubtype::UuidOld, b"abc".to_vec(), "\u{1}\"YWJj\""),
    ] {
        let document = doc! {"_id": 1, "v": binary(subtype, bytes)};
        assert_eq!(text(value(&plan, &document)), expected, "{subtype:?}");
    }
    let old = doc! {"_id": 1, "v": binary(BinarySubtype::BinaryOld, b"abc".to_vec())};
    assert_eq!(value(&one("bytea", "v"), &old).as_deref(), Some(&b"abc"[..]));
}

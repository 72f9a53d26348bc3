//! Every type of column, and links of every kind, on the real server.

use bson::{Bson, doc};
use serde_json::{Value, json};
use slackwater_connectors::nocodb::Use;
use slackwater_topics::Range;

use crate::base::{Base, column};
use crate::target::{numbers, read};

const KINDS: [&str; 32] = [
    "LongText",
    "Number",
    "Decimal",
    "Currency",
    "Percent",
    "Duration",
    "Rating",
    "Year",
    "Date",
    "Time",
    "DateTime",
    "Checkbox",
    "Email",
    "PhoneNumber",
    "URL",
    "JSON",
    "GeoData",
    "Geometry",
    "User",
    "Users",
    "Attachment",
    "Barcode",
    "QrCode",
    "CreatedTime",
    "LastModifiedTime",
    "CreatedBy",
    "LastModifiedBy",
    "Button",
    "Formula",
    "UUID",
    "SingleSelect",
    "MultiSelect",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_column() {
    let base = Base::new().await;
    let mut table = base.table("All", json!([column("Title", "SingleLineText")])).await;
    for kind in KINDS {
        let mut asked = column(kind, if kind == "Users" { "User" } else { kind });
        let options = json!({"options": [{"title": "a"}, {"title": "c d"}]});
        match kind {
            "SingleSelect" | "MultiSelect" => asked["colOptions"] = options,
            "Users" => asked["meta"] = json!({"is_multi": true}),
            "Formula" => asked["formula_raw"] = json!("CONCAT({Title},\"!\")"),
            "Barcode" => asked["fk_barcode_value_column_id"] = json!(table.columns["Title"]),
            "QrCode" => asked["fk_qr_value_column_id"] = json!(table.columns["Title"]),
            _ => {}
        }
        table = base.column(&table, asked).await;
    }
    let file = json!({"url": "http://x.example/a.png", "title": "a.png", "mimetype": "image/png", "size": 3});
    let user = json!([{"email": "dev@slackwater.example"}]);
    let full = json!({
        "Title": "x", "LongText": "a\nb \"q\" ✓", "Number": 4_000_000_000_i64, "Decimal": 1.25, "Currency": 0.1, "Percent": 33.5,
        "Duration": 3600, "Rating": 3, "Year": 2026, "Date": "2026-01-31", "Time": "13:14:15",
        "DateTime": "2026-03-01 10:20:30+02:00", "Checkbox": true, "Email": "a@b.example", "PhoneNumber": "+491",
        "URL": "http://x.example", "JSON": {"a": [1, 2.5, {"$oid": "x"}, null]}, "GeoData": "1.5;2.5", "Geometry": "POINT(1 2)",
        "User": user, "Users": user, "Attachment": [file], "SingleSelect": "a", "MultiSelect": "a,c d",
    });
    base.create(&table, &[full]).await;
    base.create(&table, &[json!({})]).await;

    let noco = base.noco().await;
    let chunk = noco.read_chunk("All", &Range::all(), noco.now(), usize::MAX).await.expect("a chunk");
    let documents: Vec<bson::Document> = chunk.documents.iter().map(|(_, bytes)| read(bytes)).collect();
    let [mut full, mut empty] = documents.try_into().expect("two records");

    let decimal = |text: &str| Bson::Decimal128(text.parse().expect("a decimal"));
    let time = bson::DateTime::parse_rfc3339_str("2026-03-01T08:20:30Z").expect("a time");
    let user = full.remove("User").expect("a user");
    assert_eq!(user.as_document().expect("a document").get_str("email").ok(), Some("dev@slackwater.example"));
    assert_eq!(full.remove("Users"), Some(Bson::Array(vec![user.clone()])));
    assert_eq!(full.remove("CreatedBy"), Some(user));
    let file = full.remove("Attachment").expect("files");
    let file = file.as_array().and_then(|files| files[0].as_document().cloned()).expect("a file");
    assert_eq!(file.get_str("title").ok(), Some("a.png"));
    assert!(!file.contains_key("signedUrl") && !file.contains_key("thumbnails"), "{file}");
    assert!(matches!(full.remove("UUID"), Some(Bson::String(_))));
    let created = full.remove("CreatedAt").expect("a time");
    assert!(matches!(created, Bson::DateTime(_)));
    assert_eq!(full.remove("CreatedTime"), Some(created));
    let null = Bson::Null;
    assert_eq!(
        full,
        doc! {
            "_id": 1, "Checkbox": true, "Currency": decimal("0.1"), "Date": "2026-01-31", "DateTime": time,
            "Decimal": decimal("1.25"), "Duration": 3600, "Email": "a@b.example", "GeoData": "1.5;2.5",
            "Geometry": "POINT(1 2)", "Id": 1, "JSON": {"a": [1, 2.5, {"$oid": "x"}, &null]},
            "LastModifiedBy": &null, "LastModifiedTime": &null, "LongText": "a\nb \"q\" ✓",
            "MultiSelect": ["a", "c d"], "Number": 4_000_000_000_i64, "Percent": 33.5, "PhoneNumber": "+491", "Rating": 3,
            "SingleSelect": "a", "Time": "13:14:15", "Title": "x", "URL": "http://x.example", "UpdatedAt": &null, "Year": 2026,
        }
    );
    for given in ["CreatedAt", "CreatedBy", "CreatedTime", "UUID", "_id", "Id"] {
        assert!(empty.remove(given).is_some(), "{given}");
    }
    // What the server makes of nothing.
    assert_eq!((empty.remove("Checkbox"), empty.remove("Rating")), (Some(false.into()), Some(0.into())));
    assert!(empty.values().all(|value| *value == null), "{empty}");

    let look = noco.preflight(&["All".into(), "Nothing".into()]).await.expect("a look");
    assert!(look.tables[1].table.is_none() && look.others.is_empty());
    let table = look.tables[0].table.as_ref().expect("it is there");
    let read =
        |title: &str| table.columns.iter().find(|column| column.title == title).expect(title).read.clone();
    assert!(
        matches!(read("Button"), Use::Never(_))
            && read("Formula") == Use::Unless
            && read("JSON") == Use::Read
    );
    assert!(table.whole_key && table.timed && table.unreadable.is_none());
    assert!(table.fields.contains(&"CreatedAt".to_owned()) && !table.fields.contains(&"Formula".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_read_where_it_is_named() {
    let base = Base::new().await;
    let table = base.table("T", json!([column("Title", "SingleLineText")])).await;
    let mut formula = column("Loud", "Formula");
    formula["formula_raw"] = json!("CONCAT({Title},\"!\")");
    base.column(&table, formula).await;
    base.create(&table, &[json!({"Title": "x"})]).await;
    let mut settings = base.settings();
    settings.include.push(("T".into(), "Loud".into()));
    let noco = slackwater_connectors::nocodb::Noco::connect(&settings).await.expect("a connection");
    let chunk = noco.read_chunk("T", &Range::all(), noco.now(), usize::MAX).await.expect("a chunk");
    assert_eq!(read(&chunk.documents[0].1).get_str("Loud").ok(), Some("x!"));
}

/// More of one record than the server sends with it, and of a page than it sends at once.
const MANY: usize = 1_100;

#[tokio::test(flavor = "multi_thread")]
async fn links_of_every_kind() {
    let base = Base::new().await;
    let name = || json!([column("Name", "SingleLineText")]);
    let (mut here, mut there) = (base.table("Here, (1)", name()).await, base.table("There", name()).await);
    for kind in ["hm", "mm", "bt", "oo"] {
        for (suffix, uidt) in [("A", "Links"), ("B", "LinkToAnotherRecord")] {
            here = base.link(&here, &format!("{kind}{suffix}"), kind, uidt, &there).await;
        }
    }
    for kind in ["mm", "hm", "oo"] {
        here = base.link(&here, &format!("own {kind}"), kind, "Links", &here).await;
    }
    there = base.look(&there).await;
    let named: Vec<Value> = (0..4).map(|n| json!({"Name": format!("n{n}")})).collect();
    base.create(&here, &named).await;
    let others: Vec<Value> = (0..MANY).map(|n| json!({"Name": format!("o{n}")})).collect();
    let all = base.create(&there, &others).await;
    for (link, to) in [("hmA", [3, 1]), ("hmB", [2, 5]), ("mmA", [9, 4]), ("mmB", [4, 9])] {
        base.connect(&here, link, 2, &to).await;
    }
    for (link, to) in [("btA", 7), ("btB", 8), ("ooA", 6), ("ooB", 6), ("own oo", 3)] {
        base.connect(&here, link, 2, &[to]).await;
    }
    base.connect(&here, "own mm", 2, &[4, 2]).await;
    base.connect(&here, "own hm", 2, &[4, 3]).await;
    base.fill(&here, "mmA", 3, &all).await;

    let noco = base.noco().await;
    let chunk = noco.read_chunk("Here, (1)", &Range::all(), noco.now(), usize::MAX).await.expect("a chunk");
    let documents: Vec<bson::Document> = chunk.documents.iter().map(|(_, bytes)| read(bytes)).collect();
    let second = &documents[1];
    for (link, ids) in [("hmA", vec![1, 3]), ("hmB", vec![2, 5]), ("mmA", vec![4, 9]), ("mmB", vec![4, 9])] {
        assert_eq!(numbers(second, link), ids, "{link}");
    }
    for (link, id) in [("btA", 7), ("btB", 8), ("ooA", 6), ("ooB", 6), ("own oo", 3)] {
        assert_eq!(second.get_i32(link).ok(), Some(id), "{link}");
    }
    assert_eq!(numbers(second, "own mm"), [2, 4]);
    assert_eq!(numbers(second, "own hm"), [3, 4]);
    assert_eq!(numbers(&documents[2], "mmA"), all);
    for link in ["hmA", "hmB", "mmA", "mmB", "own mm", "own hm"] {
        assert_eq!(numbers(&documents[0], link), [0; 0], "{link}");
    }
    assert_eq!((documents[0].get("btA"), documents[0].get("ooA")), (Some(&Bson::Null), Some(&Bson::Null)));

    // The other side of each of them.
    let chunk = noco.read_chunk(&there.id, &Range::all(), noco.now(), usize::MAX).await.expect("a chunk");
    let sixth = read(&chunk.documents[5].1);
    let back: Vec<&String> =
        sixth.iter().filter(|(_, value)| value.as_i32() == Some(2)).map(|(name, _)| name).collect();
    assert_eq!(back.len(), 2, "both one-to-ones lead back: {sixth}");
    let seventh = read(&chunk.documents[6].1);
    let back: Vec<Vec<i64>> = seventh
        .iter()
        .filter(|(_, value)| value.as_array().is_some())
        .map(|(name, _)| numbers(&seventh, name))
        .collect();
    assert!(back.contains(&vec![2]) && back.contains(&vec![3]), "{seventh}");

    // A look-up shows the same as the copy.
    let keys: Vec<_> = chunk.documents.iter().map(|(key, _)| key.clone()).take(700).collect();
    let found = noco.lookup(&there.id, &keys, noco.now()).await.expect("a look-up");
    assert_eq!(found.found.len(), 700);
    let of_copy: std::collections::HashMap<_, _> = chunk.documents.into_iter().collect();
    assert!(found.found.iter().all(|(key, bytes)| of_copy[key] == *bytes));
}

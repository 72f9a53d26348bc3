//! `_id`s of every type in one collection, copied by several workers side by side while nothing is missed or doubled.

use std::collections::BTreeMap;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt as _;
use slackwater_migrations::Chance;
use slackwater_topics::{Key, Namespace, Value};

use crate::stage::{PATIENCE, Stage, until};
use crate::stage::{items, state};

const DOCUMENTS: i64 = 20_000;

/// Every type that MongoDB takes as `_id`; those with few values are there once.
fn ids(chance: &mut Chance) -> Vec<Bson> {
    let text = |text: String| Bson::String(text);
    let mut ids = vec![
        Bson::Null,
        Bson::MinKey,
        Bson::MaxKey,
        true.into(),
        false.into(),
        f64::NAN.into(),
        f64::INFINITY.into(),
        f64::NEG_INFINITY.into(),
        f64::MAX.into(),
        5e-324.into(),
        i64::MIN.into(),
        i64::MAX.into(),
        text(String::new()),
        text("x".repeat(10_000)),
        text("with \"quotes\", \\ and $dollar.dot".into()),
        doc! {}.into(),
        Bson::Decimal128("1E+6111".parse().expect("a decimal")),
        Bson::Decimal128("0.1".parse().expect("a decimal")),
        Bson::JavaScriptCode("function () {}".into()),
        DateTime::from_millis(i64::MIN).into(),
        DateTime::from_millis(i64::MAX).into(),
    ];
    for n in 0..DOCUMENTS - ids.len() as i64 {
        let noise = chance.next();
        ids.push(match n % 11 {
            0 => {
                let mut bytes = [0; 12];
                bytes[..8].copy_from_slice(&noise.to_be_bytes());
                bytes[8..].copy_from_slice(&(n as u32).to_be_bytes());
                ObjectId::from_bytes(bytes).into()
            }
            1 => Bson::Int32(n as i32 + 1),
            2 => Bson::Int64(n + (1 << 40)),
            3 => Bson::Double(n as f64 + 0.5),
            4 => text(format!("{:x}/{n}", noise & 0xffff)),
            5 => text(format!("Ünïcode {n} 🦀")),
            6 => doc! {"a": n, "b": {"c": [noise as i32, "x"]}}.into(),
            7 => Bson::Binary(Binary {
                subtype: BinarySubtype::Uuid,
                bytes: [noise, n as u64].map(u64::to_be_bytes).concat(),
            }),
            8 => DateTime::from_millis(n * 86_400_007 - 9_000_000_000).into(),
            9 => Bson::Timestamp(Timestamp { time: noise as u32, increment: n as u32 }),
            _ => Bson::Decimal128(format!("{n}.000000000000000000001").parse().expect("a decimal")),
        });
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_id_is_copied_once() {
    let stage = Stage::new("ids").await;
    let file = items::prepare(&stage).await;
    let mut chance = Chance::new(21);
    let mut documents: Vec<_> = ids(&mut chance)
        .into_iter()
        .enumerate()
        .map(|(n, id)| doc! {"_id": id, "n": n as i64, "name": format!("item {n}"), "v": 1_i64})
        .collect();
    chance.shuffle(&mut documents);
    for batch in documents.chunks(2_000) {
        items::collection(&stage).insert_many(batch).await.expect("documents can be inserted");
    }
    let namespace = Namespace::of_migration("items");
    let mut wanted = BTreeMap::new();
    let raw = stage.source.collection::<RawDocumentBuf>("items");
    let mut read = raw.find(doc! {}).await.expect("documents can be read");
    while let Some(document) = read.try_next().await.expect("documents can be read") {
        let document = slackwater_topics::Document::new(document.as_bytes()).expect("well formed");
        let id = document.get(b"_id").expect("well formed").expect("an _id");
        let Some(Value::Int64(n)) = document.get(b"n").expect("well formed") else { panic!("a number") };
        wanted.insert(n, namespace.id("legacy.items", &Key::of(id).expect("a key")).to_string());
    }
    assert_eq!(wanted.len() as i64, DOCUMENTS);

    let mut process = stage.run(&file);
    let found = async || {
        let rows = stage.target.query("SELECT n, id::text FROM items", &[]).await.expect("rows can be read");
        let found: BTreeMap<i64, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        (rows.len(), found)
    };
    until("all are copied", PATIENCE, async || {
        process.still_runs();
        (found().await.0 >= wanted.len() && state::copied(&stage.target).await).then_some(())
    })
    .await;
    let (rows, found) = found().await;
    assert_eq!(rows, wanted.len());
    assert!(found == wanted, "rows have other identifiers");
    let copy = state::copy(&stage.target).await;
    println!("{} types and odd values in {rows} documents, {copy:?}", 21 + 11);
    assert!(copy.chunks > 1, "the copy was not cut into chunks: {copy:?}");

    // The stream takes them all as well.
    let changed = items::collection(&stage).update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await;
    assert_eq!(changed.expect("documents can be changed").modified_count as i64, DOCUMENTS);
    items::equal(&stage, &mut process, PATIENCE).await;
    let gone = items::collection(&stage).delete_many(doc! {"n": {"$lt": DOCUMENTS / 2}}).await;
    gone.expect("documents can be deleted");
    assert_eq!(items::equal(&stage, &mut process, PATIENCE).await as i64, DOCUMENTS / 2);
    process.stop().await;
    stage.clear().await;
}

/// The list above is worth what MongoDB takes.
#[test]
fn the_ids_differ() {
    let mut chance = Chance::new(21);
    let keys: std::collections::BTreeSet<_> = ids(&mut chance)
        .into_iter()
        .map(|id| {
            let raw = Document::from_iter([("_id".to_owned(), id)]).to_vec().expect("a document");
            let document = slackwater_topics::Document::new(&raw).expect("well formed");
            Key::of(document.get(b"_id").expect("well formed").expect("an _id")).expect("a key")
        })
        .collect();
    assert_eq!(keys.len() as i64, DOCUMENTS);
}

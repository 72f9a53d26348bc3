//! Change streams: what they tell, and going on from any place.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use slackwater_connectors::mongodb::{ChangeStream, Start};
use slackwater_connectors::source::{Change, ChangeBatch, ChangeKind, DocumentChange};
use slackwater_topics::{CollectionId, Position};

use crate::server::{Scratch, any_id, document, key, until};

pub(crate) const IMAGES: fn() -> Document = || doc! {"changeStreamPreAndPostImages": {"enabled": true}};

fn changes(batches: &[ChangeBatch]) -> Vec<&Change> {
    batches.iter().flat_map(|batch| &batch.changes).collect()
}

pub(crate) fn of_documents(batches: &[ChangeBatch]) -> Vec<&DocumentChange> {
    fn document(change: &Change) -> Option<&DocumentChange> {
        match change {
            Change::Document(change) => Some(change),
            _ => None,
        }
    }
    changes(batches).into_iter().filter_map(document).collect()
}

pub(crate) fn names(names: &[&str]) -> Vec<(CollectionId, String)> {
    names.iter().enumerate().map(|(place, name)| (CollectionId(place as u16), (*name).to_owned())).collect()
}

pub(crate) async fn now(scratch: &Scratch, watched: &[&str]) -> ChangeStream {
    let start = scratch.mongo.operation_time().await.expect("a time");
    scratch.mongo.stream(Start::At(start), names(watched), 4)
}

pub(crate) async fn some(stream: &mut ChangeStream, count: usize) -> Vec<ChangeBatch> {
    until(stream, |batches| changes(batches).len() >= count).await
}

#[tokio::test]
async fn tells_of_every_kind_of_change() {
    let scratch = Scratch::shared().await;
    scratch.create("plain", doc! {}).await;
    scratch.create("imaged", IMAGES()).await;
    let mut stream = now(&scratch, &["imaged", "plain"]).await;
    scratch.collection("other").insert_one(doc! {"_id": 0}).await.expect("inserted");
    for name in ["plain", "imaged"] {
        let collection = scratch.collection(name);
        collection.insert_one(doc! {"_id": 1, "a": 1}).await.expect("inserted");
        collection.update_one(doc! {"_id": 1}, doc! {"$set": {"a": 2}}).await.expect("updated");
        collection.replace_one(doc! {"_id": 1}, doc! {"a": 3}).await.expect("replaced");
        collection.delete_one(doc! {"_id": 1}).await.expect("deleted");
    }
    let batches = some(&mut stream, 8).await;
    let changes = of_documents(&batches);
    let told: Vec<_> = changes
        .iter()
        .map(|change| {
            let a = change.document.as_ref().map(|bytes| document(bytes).get_i32("a").expect("a number"));
            (change.collection.0, change.kind, a)
        })
        .collect();
    let expected = |collection, update| {
        [
            (collection, ChangeKind::Insert, Some(1)),
            (collection, ChangeKind::Update, update),
            (collection, ChangeKind::Replace, Some(3)),
            (collection, ChangeKind::Delete, None),
        ]
    };
    assert_eq!(told, [expected(1, None), expected(0, Some(2))].concat());
    for change in &changes {
        assert_eq!(change.key, key(1));
        assert_eq!(document(&change.id), doc! {"_id": 1});
        assert!(change.wall > 1_600_000_000_000);
    }
    let tokens: Vec<_> = changes.iter().map(|change| change.position.clone()).collect();
    assert!(tokens.is_sorted_by(|a, b| a.token < b.token && a.moment <= b.moment));
    for batch in &batches {
        assert!(batch.passed <= batch.position.moment && batch.bytes > 0);
        assert!(batch.changes.iter().all(|change| *change.position() <= batch.position));
    }
}

#[tokio::test]
async fn changes_of_a_transaction_share_a_time_and_grow_in_token() {
    let scratch = Scratch::shared().await;
    scratch.create("plain", doc! {}).await;
    let mut stream = now(&scratch, &["plain"]).await;
    let mut session = scratch.db.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    for n in 0..20 {
        let inserted = scratch.collection("plain").insert_one(doc! {"_id": n}).session(&mut session).await;
        inserted.expect("inserted");
    }
    session.commit_transaction().await.expect("committed");
    let batches = some(&mut stream, 20).await;
    let changes = of_documents(&batches);
    let first = changes[0];
    assert!(changes.iter().all(|change| change.position.moment == first.position.moment));
    assert!(changes.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!(
        changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>(),
        (0..20).map(key).collect::<Vec<_>>()
    );

    // From the middle of the transaction.
    let mut again = scratch.mongo.stream(Start::After(changes[11].position.clone()), names(&["plain"]), 4);
    let rest = some(&mut again, 8).await;
    let positions = |changes: &[&DocumentChange]| -> Vec<Position> {
        changes.iter().map(|change| change.position.clone()).collect()
    };
    assert_eq!(positions(&of_documents(&rest)), positions(&changes[12..]));
    // Not passed before the last of them has come, passed soon after.
    let time = first.position.moment;
    let passed = until(&mut again, |batches| batches.last().is_some_and(|batch| batch.passed >= time)).await;
    assert!(of_documents(&passed).is_empty());
}

/// Every `_id` makes another token, and some need more than its text; each must be a place to go on from.
#[tokio::test]
async fn goes_on_from_any_position() {
    let scratch = Scratch::shared().await;
    scratch.create("mixed", doc! {}).await;
    let mut stream = now(&scratch, &["mixed"]).await;
    let ids: Vec<Bson> = (0..182).map(any_id).collect();
    let documents = ids.iter().map(|id| doc! {"_id": id.clone()});
    scratch.collection("mixed").insert_many(documents).await.expect("inserted");
    let batches = some(&mut stream, ids.len()).await;
    let all = of_documents(&batches);
    assert_eq!(
        all.iter().map(|change| change.key.clone()).collect::<Vec<_>>(),
        ids.into_iter().map(key).collect::<Vec<_>>()
    );
    assert!(all.is_sorted_by(|a, b| a.position < b.position));
    for at in (0..all.len() - 1).step_by(3) {
        let start = Start::After(all[at].position.clone());
        let mut again = scratch.mongo.stream(start, names(&["mixed"]), 1);
        let rest = some(&mut again, all.len() - at - 1).await;
        let rest = of_documents(&rest);
        assert_eq!(rest.len(), all.len() - at - 1);
        assert_eq!(rest[0].position, all[at + 1].position, "behind {at}");
        assert_eq!(rest[0].key, all[at + 1].key);
    }
}

#[tokio::test]
async fn drops_and_renames_are_told() {
    let scratch = Scratch::shared().await;
    for name in ["a", "b", "c", "unwatched"] {
        scratch.create(name, doc! {}).await;
    }
    let mut stream = now(&scratch, &["a", "b", "c"]).await;
    let rename = async |from: &str, to: &str, drop_target: bool| {
        let name = scratch.db.name();
        let rename = doc! {
            "renameCollection": format!("{name}.{from}"), "to": format!("{name}.{to}"), "dropTarget": drop_target,
        };
        scratch.db.client().database("admin").run_command(rename).await.expect("renamed");
    };
    scratch.collection("a").drop().await.expect("dropped");
    rename("b", "elsewhere", false).await;
    rename("unwatched", "c", true).await;
    scratch.collection("c").insert_one(doc! {"_id": 1}).await.expect("inserted");
    let batches = until(&mut stream, |batches| !of_documents(batches).is_empty()).await;
    let told: Vec<String> = changes(&batches)
        .into_iter()
        .map(|change| match change {
            Change::Document(change) => format!("document {}", change.collection.0),
            Change::Dropped { collection, .. } => format!("dropped {}", collection.0),
            Change::Renamed { from, to, to_name, .. } => {
                let (from, to) = (from.map(|id| id.0), to.map(|id| id.0));
                format!("renamed {from:?} {to:?} {to_name}")
            }
            other => format!("{other:?}"),
        })
        .collect();
    let wanted = ["dropped 0", "renamed Some(1) None elsewhere", "renamed None Some(2) c", "document 2"];
    // The server may tell of the target's drop as well.
    let told: Vec<&String> = told.iter().filter(|line| *line != "dropped 2").collect();
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn goes_on_after_the_database_was_dropped() {
    let scratch = Scratch::shared().await;
    scratch.create("a", doc! {}).await;
    let mut stream = now(&scratch, &["a"]).await;
    scratch.collection("a").insert_one(doc! {"_id": 1}).await.expect("inserted");
    scratch.db.drop().await.expect("dropped");
    scratch.collection("a").insert_one(doc! {"_id": 2}).await.expect("inserted");
    let batches = until(&mut stream, |batches| of_documents(batches).len() == 2).await;
    let changes = changes(&batches);
    assert!(matches!(
        changes[..],
        [
            Change::Document(_),
            Change::Dropped { collection: CollectionId(0), .. },
            Change::DatabaseDropped { .. },
            Change::Invalidated { .. },
            Change::Document(_)
        ]
    ));
    // A reader that stopped right behind the invalidation goes on as well.
    let mut again = scratch.mongo.stream(Start::After(changes[3].position().clone()), names(&["a"]), 1);
    let rest = until(&mut again, |batches| !of_documents(batches).is_empty()).await;
    assert_eq!(of_documents(&rest)[0].key, key(2));
}

#[tokio::test]
async fn an_idle_stream_moves_while_others_write() {
    let scratch = Scratch::shared().await;
    let other = Scratch::shared().await;
    scratch.create("quiet", doc! {}).await;
    let mut stream = now(&scratch, &["quiet"]).await;
    let first = until(&mut stream, |batches| !batches.is_empty()).await;
    other.collection("busy").insert_one(doc! {"_id": 1}).await.expect("inserted");
    let time = other.mongo.operation_time().await.expect("a time");
    assert!(first[0].passed <= time);
    let batches =
        until(&mut stream, |batches| batches.last().is_some_and(|batch| batch.passed >= time)).await;
    assert!(changes(&batches).is_empty());
    assert!(stream.connected());
    // And such a token is a place to go on from.
    let position = batches.last().expect("a batch").position.clone();
    let mut again = scratch.mongo.stream(Start::After(position), names(&["quiet"]), 1);
    scratch.collection("quiet").insert_one(doc! {"_id": 1}).await.expect("inserted");
    assert_eq!(of_documents(&some(&mut again, 1).await).len(), 1);
}

/// A reader that takes nothing stops the stream; everything is there when it goes on.
#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let scratch = Scratch::shared().await;
    scratch.create("many", doc! {}).await;
    let start = scratch.mongo.operation_time().await.expect("a time");
    let mut stream = scratch.mongo.stream(Start::At(start), names(&["many"]), 1);
    for batch in 0..30 {
        let documents = (0..200).map(|n| doc! {"_id": batch * 200 + n, "fill": "x".repeat(1000)});
        scratch.collection("many").insert_many(documents).await.expect("inserted");
    }
    let batches = some(&mut stream, 6000).await;
    let keys: Vec<_> = of_documents(&batches).iter().map(|change| change.key.clone()).collect();
    assert_eq!(keys, (0..6000).map(key).collect::<Vec<_>>());
}

/// A frozen source writes nothing that a stream would tell of; a note in its log has to be seen all the same, and soon.
#[tokio::test]
async fn hurried_it_passes_notes_sooner() {
    let scratch = Scratch::shared().await;
    scratch.create("quiet", doc! {}).await;
    let mut stream = now(&scratch, &["quiet"]).await;
    until(&mut stream, |batches| !batches.is_empty()).await;
    let admin = scratch.db.client().database("admin");
    let pass_notes = async |stream: &mut ChangeStream| {
        let begun = Instant::now();
        for n in 0..10 {
            let note = doc! {"appendOplogNote": 1, "data": {"n": n}};
            admin.run_command(note).await.expect("a note");
            let time = scratch.mongo.operation_time().await.expect("a time");
            until(stream, |batches| batches.last().is_some_and(|batch| batch.passed >= time)).await;
        }
        begun.elapsed()
    };
    let at_leisure = pass_notes(&mut stream).await;
    stream.hurry(Duration::from_millis(5));
    let hurried = pass_notes(&mut stream).await;
    assert!(hurried * 2 < at_leisure, "{hurried:?}, and {at_leisure:?} without hurry");
    scratch.collection("quiet").insert_one(doc! {"_id": 1}).await.expect("inserted");
    assert_eq!(of_documents(&some(&mut stream, 1).await).len(), 1);
}

//! Changes that are larger than a reply of the server may be.

use bson::doc;
use slackwater_connectors::mongodb::Start;
use slackwater_topics::{Key, Position};

use crate::server::{Scratch, document, key};
use crate::stream::{IMAGES, names, now, of_documents, some};

/// An `_id` occurs in the event twice and in its token, as hexadecimal text, a third time.
#[tokio::test]
async fn a_change_that_is_too_large_comes_without_its_document() {
    let scratch = Scratch::shared().await;
    scratch.create("large", doc! {}).await;
    let large = scratch.collection("large");
    let mut stream = now(&scratch, &["large"]).await;
    let id = "k".repeat(2 << 20);
    large.insert_one(doc! {"_id": 1}).await.expect("inserted");
    large.insert_one(doc! {"_id": id.clone(), "fill": "x".repeat(11 << 20)}).await.expect("inserted");
    large.insert_one(doc! {"_id": 2}).await.expect("inserted");
    let batches = some(&mut stream, 3).await;
    let told: Vec<_> =
        of_documents(&batches).iter().map(|change| (change.key.clone(), change.document.is_some())).collect();
    assert!(told == [(key(1), true), (key(id.clone()), false), (key(2), true)]);
    let lookup = scratch.mongo.lookup("large", &[key(id)], batches[0].passed).await.expect("a lookup");
    assert_eq!(lookup.found[0].1.len(), document(&lookup.found[0].1).to_vec().expect("a document").len());
}

/// The document and the list of what changed in it do not fit into one reply together.
#[tokio::test]
async fn a_large_update_comes_whole() {
    let scratch = Scratch::shared().await;
    scratch.create("large", IMAGES()).await;
    let large = scratch.collection("large");
    let mut stream = now(&scratch, &["large"]).await;
    large.insert_one(doc! {"_id": 1, "a": "x".repeat(7 << 20)}).await.expect("inserted");
    let change = doc! {"$set": {"b": "y".repeat(7 << 20)}};
    large.update_one(doc! {"_id": 1}, change).await.expect("updated");
    let batches = some(&mut stream, 2).await;
    assert!(of_documents(&batches)[1].document.as_ref().is_some_and(|document| document.len() > 14 << 20));
}

/// How many changes the server has cut; `None` where it cannot.
async fn cuts(scratch: &Scratch) -> Option<i64> {
    let status = scratch.db.client().database("admin").run_command(doc! {"serverStatus": 1}).await;
    let status = status.expect("the server's figures");
    let streams = status.get_document("metrics").ok()?.get_document("changeStreams").ok()?;
    streams.get_i64("largeEventsSplit").ok()
}

/// Each needs two replies or more. Some come in a row, one is in a transaction with others, and each of them is a place to go on from.
#[tokio::test]
async fn large_updates_come_whole_among_others() {
    let scratch = Scratch::shared().await;
    scratch.create("large", IMAGES()).await;
    let large = scratch.collection("large");
    let before = cuts(&scratch).await;
    let mut stream = now(&scratch, &["large"]).await;
    let fill = |letter: &str| doc! {"$set": {"b": letter.repeat(6 << 20)}};
    large.insert_one(doc! {"_id": 1, "a": "x".repeat(9 << 20)}).await.expect("inserted");
    for letter in ["a", "b", "c"] {
        large.update_one(doc! {"_id": 1}, fill(letter)).await.expect("updated");
    }
    large.insert_one(doc! {"_id": 2}).await.expect("inserted");
    let mut session = scratch.db.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    large.insert_one(doc! {"_id": 3}).session(&mut session).await.expect("inserted");
    large.update_one(doc! {"_id": 1}, fill("d")).session(&mut session).await.expect("updated");
    large.insert_one(doc! {"_id": 4}).session(&mut session).await.expect("inserted");
    session.commit_transaction().await.expect("committed");
    large.update_one(doc! {"_id": 1}, fill("e")).await.expect("updated");
    large.delete_one(doc! {"_id": 2}).await.expect("deleted");

    type Told = (Key, Option<String>, Position);
    let told = |batches: &[_]| -> Vec<Told> {
        let letter = |bytes: &bytes::Bytes| {
            let document = document(bytes);
            let fill = document.get_str("b").unwrap_or_default();
            assert!(fill.is_empty() || (fill.len() == 6 << 20 && document.get_str("a").is_ok()));
            fill.chars().take(1).collect()
        };
        let changes = of_documents(batches);
        let told = changes.iter().map(|change| {
            (change.key.clone(), change.document.as_ref().map(letter), change.position.clone())
        });
        told.collect()
    };
    let batches = some(&mut stream, 10).await;
    let all = told(&batches);
    let seen: Vec<_> = all.iter().map(|(key, letter, _)| (key.clone(), letter.as_deref())).collect();
    let one = |letter| (key(1), Some(letter));
    let other = |n: i32| (key(n), Some(""));
    let expected = [
        one(""),
        one("a"),
        one("b"),
        one("c"),
        other(2),
        other(3),
        one("d"),
        other(4),
        one("e"),
        (key(2), None),
    ];
    assert_eq!(seen, expected);
    assert!(all.is_sorted_by(|a, b| a.2 < b.2));
    for batch in &batches {
        assert!(batch.passed <= batch.position.moment);
        assert!(batch.changes.iter().all(|change| *change.position() <= batch.position));
    }
    for at in 0..all.len() - 1 {
        let start = Start::After(all[at].2.clone());
        let mut again = scratch.mongo.stream(start, names(&["large"]), 1);
        let rest = told(&some(&mut again, all.len() - at - 1).await);
        // Not by assert_eq, which would print them.
        assert!(rest == all[at + 1..], "behind {at}");
    }
    assert_eq!(
        before.is_some(),
        scratch.mongo.version() >= (6, 0, 9),
        "its version tells whether it can cut"
    );
    assert!(
        cuts(&scratch).await.zip(before).is_none_or(|(after, before)| after >= before + 5),
        "it was not asked to"
    );
}

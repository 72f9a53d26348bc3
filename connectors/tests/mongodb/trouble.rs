//! Servers that die, lose their primary, or forget their history.

use std::time::Duration;

use bson::doc;
use mongodb::error::{ErrorKind, WriteFailure};
use slackwater_connectors::error::Kind;
use slackwater_connectors::mongodb::{Mongo, Start};
use slackwater_connectors::secret::Secret;
use slackwater_connectors::source::{Change, ChangeBatch};
use slackwater_topics::{CollectionId, Key};

use crate::server::{Mongod, Scratch, Wire, key, until};

fn keys(batches: &[ChangeBatch]) -> Vec<Key> {
    let key = |change: &Change| match change {
        Change::Document(change) => Some(change.key.clone()),
        _ => None,
    };
    batches.iter().flat_map(|batch| &batch.changes).filter_map(key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing() {
    let mut mongod = Mongod::replica_set(&[]).await;
    let scratch = Scratch::at(&mongod.uri()).await;
    scratch.create("a", doc! {}).await;
    let start = scratch.mongo.operation_time().await.expect("a time");
    let mut stream = scratch.mongo.stream(Start::At(start), vec![(CollectionId(0), "a".into())], 2);
    let mut seen = Vec::new();
    for round in 0..3 {
        let inserted = (0..500).map(|n| doc! {"_id": round * 1000 + n});
        scratch.collection("a").insert_many(inserted).await.expect("inserted");
        let wanted = (round as usize + 1) * 500;
        if round < 2 {
            // The last round is read after the crash only.
            let batches = until(&mut stream, |batches| seen.len() + keys(batches).len() >= wanted).await;
            seen.extend(keys(&batches));
        }
        mongod.kill();
        let mut connection = stream.connection();
        let broken = tokio::time::timeout(Duration::from_secs(30), connection.wait_for(|open| !open)).await;
        broken.expect("the break is seen").expect("the stream lives");
        assert!(!stream.connected());
        mongod.again();
        mongod.client(&mongod.uri()).await;
    }
    let batches = until(&mut stream, |batches| seen.len() + keys(batches).len() >= 1500).await;
    seen.extend(keys(&batches));
    // What was read ahead of the crash may have been enough, so the stream need not be back yet.
    let mut connection = stream.connection();
    let back = tokio::time::timeout(Duration::from_secs(60), connection.wait_for(|open| *open)).await;
    back.expect("the stream comes back").expect("the stream lives");
    let wanted: Vec<Key> = (0..3).flat_map(|round| (0..500).map(move |n| key(round * 1000 + n))).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_primary_costs_nothing() {
    let mongod = Mongod::replica_set(&[]).await;
    let scratch = Scratch::at(&mongod.uri()).await;
    scratch.create("a", doc! {}).await;
    let start = scratch.mongo.operation_time().await.expect("a time");
    let mut stream = scratch.mongo.stream(Start::At(start), vec![(CollectionId(0), "a".into())], 2);
    let writer = async {
        for n in 0..300 {
            // It goes through, or is found to have gone through.
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while let Err(error) = scratch.collection("a").insert_one(doc! {"_id": n}).await {
                if matches!(&*error.kind, ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == 11000)
                {
                    break;
                }
                assert!(std::time::Instant::now() < deadline, "no primary comes back: {error}");
            }
        }
    };
    let stepping = async {
        for _ in 0..2 {
            let down = doc! {"replSetStepDown": 1, "force": true};
            let _ = scratch.db.client().database("admin").run_command(down).await;
        }
    };
    let (batches, (), ()) =
        tokio::join!(until(&mut stream, |batches| keys(batches).len() >= 300), writer, stepping);
    assert_eq!(keys(&batches), (0..300).map(key).collect::<Vec<_>>());
}

#[tokio::test]
async fn lost_history_is_told() {
    // The oplog is cut up to the last checkpoint only: one a second instead of one a minute.
    let mongod = Mongod::replica_set(&["--oplogSize", "1", "--syncdelay", "1"]).await;
    let scratch = Scratch::at(&mongod.uri()).await;
    scratch.create("a", doc! {}).await;
    let start = scratch.mongo.operation_time().await.expect("a time");
    let mut stream = scratch.mongo.stream(Start::At(start), vec![(CollectionId(0), "a".into())], 1);
    scratch.collection("a").insert_one(doc! {"_id": 0}).await.expect("inserted");
    let batches = until(&mut stream, |batches| keys(batches).len() == 1).await;
    let position = batches.last().expect("a batch").position.clone();
    drop(stream);
    let local = scratch.db.client().database("local");
    let first = async || {
        let find = doc! {"find": "oplog.rs", "limit": 1, "singleBatch": true, "sort": {"$natural": 1}};
        loop {
            let reply = match local.run_command(find.clone()).await {
                // The entry went while it was read.
                Err(error) if matches!(&*error.kind, ErrorKind::Command(error) if error.code == 136) => {
                    continue;
                }
                reply => reply.expect("the oplog"),
            };
            let cursor = reply.get_document("cursor").expect("a cursor");
            let entry = cursor.get_array("firstBatch").expect("a batch")[0].as_document().expect("an entry");
            return entry.get_timestamp("ts").expect("a time").time;
        }
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    let mut n = 1;
    while first().await <= position.moment.upper() {
        assert!(std::time::Instant::now() < deadline, "the oplog keeps everything");
        let fill = (0..20).map(|i| doc! {"_id": n * 100 + i, "fill": "x".repeat(100_000)});
        scratch.collection("other").insert_many(fill).await.expect("inserted");
        scratch.collection("other").delete_many(doc! {}).await.expect("deleted");
        n += 1;
    }
    for start in [Start::After(position.clone()), Start::At(position.moment)] {
        let mut stream = scratch.mongo.stream(start, vec![(CollectionId(0), "a".into())], 1);
        let error = loop {
            match stream.next().await {
                Ok(batch) => assert!(batch.changes.is_empty()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, Kind::HistoryLost, "{error}");
        assert!(!stream.connected());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_is_noticed() {
    let mongod = Mongod::replica_set(&[]).await;
    mongod.client(&mongod.uri()).await;
    let wire = Wire::to(mongod.port).await;
    let scratch = Scratch::at(&mongod.uri()).await;
    scratch.create("a", doc! {}).await;
    let uri = Secret::new(format!("mongodb://127.0.0.1:{}/?directConnection=true", wire.port));
    let mongo = Mongo::connect(&uri, scratch.db.name()).await.expect("a connection");
    let start = mongo.operation_time().await.expect("a time");
    let mut stream = mongo.stream(Start::At(start), vec![(CollectionId(0), "a".into())], 2);
    scratch.collection("a").insert_one(doc! {"_id": 0}).await.expect("inserted");
    let batches = until(&mut stream, |batches| !keys(batches).is_empty()).await;
    assert_eq!(keys(&batches), [key(0)]);
    wire.swallow();
    scratch.collection("a").insert_one(doc! {"_id": 1}).await.expect("inserted");
    let deadline = Duration::from_secs(150);
    let told = tokio::time::timeout(deadline, async {
        loop {
            let keys = keys(&[stream.next().await.expect("the stream goes on")]);
            if !keys.is_empty() {
                return keys;
            }
        }
    });
    assert_eq!(told.await.expect("in time"), [key(1)]);
}

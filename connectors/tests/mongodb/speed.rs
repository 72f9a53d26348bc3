//! How fast it is; run by hand: `cargo test --release -p slackwater-connectors --test mongodb speed -- --ignored --nocapture`.

#![expect(clippy::print_stderr, reason = "figures for whoever runs it")]

use std::time::Instant;

use bson::doc;
use futures_util::StreamExt as _;
use slackwater_connectors::mongodb::{Range, Start};
use slackwater_topics::ClusterTime;

use crate::server::Scratch;

const DOCUMENTS: i32 = 200_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed() {
    let scratch = Scratch::shared().await;
    scratch.create("many", doc! {}).await;
    let start = scratch.mongo.operation_time().await.expect("a time");
    for batch in 0..DOCUMENTS / 2000 {
        let documents = (0..2000).map(|n| {
            let n = batch * 2000 + n;
            doc! {
                "_id": bson::oid::ObjectId::new(), "number": n, "name": format!("name {n}"), "fill": "x".repeat(240),
                "when": bson::DateTime::from_millis(i64::from(n)), "tags": ["a", "b"], "amount": f64::from(n) / 3.0,
            }
        });
        scratch.collection("many").insert_many(documents).await.expect("inserted");
    }
    for run in 0..3 {
        let began = Instant::now();
        let mut rest = Some(Range::all());
        let (mut documents, mut bytes) = (0, 0);
        while let Some(range) = rest {
            let chunk = scratch
                .mongo
                .read_chunk("many", &range, ClusterTime::default(), 16 << 20)
                .await
                .expect("a chunk");
            documents += chunk.documents.len();
            bytes += chunk.bytes;
            rest = chunk.rest;
        }
        let seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "read_chunk, run {run}: {documents} documents of {} bytes, {:.0} a second",
            bytes / documents,
            documents as f64 / seconds
        );
    }
    for run in 0..3 {
        let mut stream = scratch.mongo.stream(Start::At(start), vec!["many".into()], 4);
        let began = Instant::now();
        let (mut events, mut batches) = (0, 0);
        while events < DOCUMENTS as usize {
            events += stream.next().await.expect("a batch").changes.len();
            batches += 1;
        }
        let seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "stream, run {run}: {events} events in {batches} batches, {:.0} a second",
            events as f64 / seconds
        );
    }
    for (name, pipeline) in [
        ("bare", vec![]),
        (
            "with $match",
            vec![doc! {"$match": {"$or": [{"ns.coll": {"$in": ["many"]}}, {"operationType": "invalidate"}]}}],
        ),
        ("bare", vec![]),
        ("with $project", vec![doc! {"$project": {"updateDescription": 0}}]),
        ("bare", vec![]),
        ("with $project", vec![doc! {"$project": {"updateDescription": 0}}]),
    ] {
        let time = bson::Timestamp { time: start.seconds(), increment: start.increment() };
        let mut stages =
            vec![doc! {"$changeStream": {"fullDocument": "whenAvailable", "startAtOperationTime": time}}];
        stages.extend(pipeline);
        let command = doc! {"aggregate": 1, "cursor": {"batchSize": i32::MAX}, "pipeline": stages};
        let command = bson::RawDocumentBuf::try_from(&command).expect("a command");
        let began = Instant::now();
        let mut cursor = scratch.db.run_raw_cursor_command(command).batch().await.expect("a cursor");
        let mut events = 0;
        while events < DOCUMENTS as usize {
            let batch = cursor.next().await.expect("a batch").expect("a batch");
            events += batch.doc_slices().expect("documents").into_iter().count();
        }
        eprintln!("cursor {name}: {:.0} a second", events as f64 / began.elapsed().as_secs_f64());
    }
    let now = scratch.mongo.operation_time().await.expect("a time");
    let mut stream = scratch.mongo.stream(Start::At(now), vec!["many".into()], 4);
    stream.next().await.expect("a batch");
    let note = doc! {"appendOplogNote": 1, "data": {"slackwater": 1}};
    for _ in 0..5 {
        let began = Instant::now();
        scratch.db.client().database("admin").run_command(note.clone()).await.expect("a note");
        let time = scratch.mongo.operation_time().await.expect("a time");
        let mut empty = 0;
        while stream.next().await.expect("a batch").passed < time {
            empty += 1;
        }
        eprintln!("a note is passed after {:?}, {empty} batches before", began.elapsed());
    }
    for n in 0..5 {
        let began = Instant::now();
        scratch.collection("many").insert_one(doc! {"_id": n}).await.expect("inserted");
        while stream.next().await.expect("a batch").changes.is_empty() {}
        eprintln!("an insert has come after {:?}", began.elapsed());
    }
}

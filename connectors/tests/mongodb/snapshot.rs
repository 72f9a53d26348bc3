//! Chunks: every document once, whatever its `_id`.

use std::collections::HashMap;

use bson::{Bson, doc};
use slackwater_topics::{Key, Moment, Range};

use crate::server::{Scratch, any_id, bound, document, key, with_value};

async fn fill(scratch: &Scratch, name: &str, count: i32) -> Vec<Bson> {
    let ids: Vec<Bson> = (0..count).map(any_id).collect();
    let documents = ids.iter().map(|id| doc! {"_id": id.clone(), "fill": "x".repeat(100)});
    scratch.collection(name).insert_many(documents).await.expect("inserted");
    ids
}

#[tokio::test]
async fn mixed_ids_come_once_each_and_ranges_agree_with_the_server() {
    let scratch = Scratch::shared().await;
    let ids = fill(&scratch, "mixed", 2000).await;
    let after = scratch.mongo.operation_time().await.expect("a time");
    let split = scratch.mongo.split("mixed", u64::MAX, 100).await.expect("a split");
    assert_eq!(split.documents, 2000);
    assert!((10..=20).contains(&split.bounds.len()), "{} bounds", split.bounds.len());
    let ranges = Range::between(&split.bounds);
    let mut seen: HashMap<Key, usize> = HashMap::new();
    for (number, range) in ranges.iter().enumerate() {
        let chunk = scratch.mongo.read_chunk("mixed", range, after, usize::MAX).await.expect("a chunk");
        assert!(chunk.rest.is_none() && chunk.from == after && chunk.until >= after);
        for (key, bytes) in &chunk.documents {
            let id = document(bytes).get("_id").cloned().expect("an _id");
            assert!(seen.insert(key.clone(), number).is_none(), "{id} came twice");
        }
    }
    assert_eq!(seen.len(), ids.len());
    for id in ids {
        let holders: Vec<usize> = (0..ranges.len())
            .filter(|number| with_value(id.clone(), |value| ranges[*number].contains(value)))
            .collect();
        assert_eq!(holders, [seen[&key(id.clone())]], "{id}");
    }
}

#[tokio::test]
async fn a_chunk_stops_at_the_most_bytes_and_the_rest_goes_on() {
    let scratch = Scratch::shared().await;
    let ids = fill(&scratch, "mixed", 500).await;
    for most in [1, 700, 20_000] {
        let mut rest = Some(Range::all());
        let mut keys = Vec::new();
        let mut chunks = 0;
        while let Some(range) = rest {
            let chunk =
                scratch.mongo.read_chunk("mixed", &range, Moment::default(), most).await.expect("a chunk");
            assert!(chunk.documents.len() == 1 || chunk.bytes <= most);
            keys.extend(chunk.documents.into_iter().map(|(key, _)| key));
            rest = chunk.rest;
            chunks += 1;
        }
        assert_eq!(keys.len(), ids.len());
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), ids.len());
        assert!(chunks > 1);
    }
}

#[tokio::test]
async fn ends_of_ranges_and_what_is_not_there() {
    let scratch = Scratch::shared().await;
    let collection = scratch.collection("numbers");
    collection.insert_many((0..10).map(|n| doc! {"_id": n})).await.expect("inserted");
    let read = async |lo: Option<Bson>, hi: Option<Bson>| {
        let range = Range { lo: lo.map(bound), hi: hi.map(bound) };
        let chunk = scratch.mongo.read_chunk("numbers", &range, Moment::default(), usize::MAX);
        chunk.await.expect("a chunk").documents.len()
    };
    assert_eq!(read(Some(3.into()), Some(7.0.into())).await, 4);
    assert_eq!(read(None, Some(3_i64.into())).await, 3);
    assert_eq!(read(Some(3.into()), None).await, 7);
    assert_eq!(read(Some(3.into()), Some(3.into())).await, 0);
    assert_eq!(read(Some(Bson::MinKey), Some("".into())).await, 10);
    assert_eq!(read(Some("".into()), None).await, 0);
    let absent = scratch.mongo.split("absent", 1, 1).await.expect("a split");
    assert_eq!((absent.documents, absent.bounds.len()), (0, 0));
    let small = scratch.mongo.split("numbers", 1 << 20, 1000).await.expect("a split");
    assert_eq!((small.documents, small.bounds.len()), (10, 0));
    let chunk = scratch.mongo.read_chunk("absent", &Range::all(), Moment::default(), 1).await;
    assert!(chunk.expect("a chunk").documents.is_empty());
}

#[tokio::test]
async fn clustered_and_collated_collections() {
    let scratch = Scratch::shared().await;
    let clustered = doc! {"clusteredIndex": {"key": {"_id": 1}, "unique": true, "name": "by id"}};
    scratch.create("clustered", clustered).await;
    scratch.create("collated", doc! {"collation": {"locale": "de", "strength": 2}}).await;
    for name in ["clustered", "collated"] {
        let documents = (0..2000).map(|n| doc! {"_id": format!("{}{n}", ["ä", "b", "A", "z"][n % 4])});
        scratch.collection(name).insert_many(documents).await.expect("inserted");
    }
    let split = scratch.mongo.split("clustered", u64::MAX, 200).await.expect("a split");
    assert!(split.bounds.len() > 3);
    let mut count = 0;
    for range in Range::between(&split.bounds) {
        let chunk = scratch
            .mongo
            .read_chunk("clustered", &range, Moment::default(), usize::MAX)
            .await
            .expect("a chunk");
        for (_, bytes) in &chunk.documents {
            let id = document(bytes).get("_id").cloned().expect("an _id");
            assert!(with_value(id, |id| range.contains(id)));
        }
        count += chunk.documents.len();
    }
    assert_eq!(count, 2000);
    let split = scratch.mongo.split("collated", u64::MAX, 200).await.expect("a split");
    assert_eq!((split.documents, split.bounds.len()), (2000, 0));
    let chunk =
        scratch.mongo.read_chunk("collated", &Range::all(), Moment::default(), 1000).await.expect("a chunk");
    assert_eq!((chunk.documents.len(), chunk.rest), (2000, None));
}

/// What is read at a time has every change that was acknowledged before it.
#[tokio::test]
async fn a_chunk_has_all_that_was_there_before() {
    let scratch = Scratch::shared().await;
    for n in 0..50 {
        scratch.collection("growing").insert_one(doc! {"_id": n}).await.expect("inserted");
        let after = scratch.mongo.operation_time().await.expect("a time");
        let chunk =
            scratch.mongo.read_chunk("growing", &Range::all(), after, usize::MAX).await.expect("a chunk");
        assert_eq!(chunk.documents.len(), n as usize + 1);
        assert!(chunk.until >= after);
    }
}

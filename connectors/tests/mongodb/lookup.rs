//! Documents by key.

use std::collections::HashSet;

use bson::{Bson, doc};
use slackwater_topics::{Key, Moment};

use crate::server::{Scratch, any_id, document, key};

#[tokio::test]
async fn finds_keys_of_every_kind_and_says_nothing_of_others() {
    let scratch = Scratch::shared().await;
    let ids: Vec<Bson> = (0..2500).map(any_id).collect();
    let documents = ids.iter().map(|id| doc! {"_id": id.clone()});
    scratch.collection("mixed").insert_many(documents).await.expect("inserted");
    let mut keys: Vec<Key> = ids.iter().cloned().map(key).collect();
    let wanted: HashSet<Key> = keys.iter().cloned().collect();
    keys.extend(["not there", ""].map(key).into_iter().filter(|key| !wanted.contains(key)));
    let after = scratch.mongo.operation_time().await.expect("a time");
    let lookup = scratch.mongo.lookup("mixed", &keys, after).await.expect("a lookup");
    assert!(lookup.at >= after);
    assert_eq!(lookup.found.len(), wanted.len());
    for (found, bytes) in &lookup.found {
        assert!(wanted.contains(found));
        assert_eq!(*found, key(document(bytes).get("_id").cloned().expect("an _id")));
    }
    let none = scratch.mongo.lookup("mixed", &[], after).await.expect("a lookup");
    assert!(none.found.is_empty());
    let absent = scratch.mongo.lookup("absent", &keys[..10], Moment::default()).await.expect("a lookup");
    assert!(absent.found.is_empty());
}

/// Under a collation "ANN" finds "ann", which is another document.
#[tokio::test]
async fn takes_no_document_of_another_key() {
    let scratch = Scratch::shared().await;
    scratch.create("collated", doc! {"collation": {"locale": "en", "strength": 2}}).await;
    scratch.collection("collated").insert_one(doc! {"_id": "ann"}).await.expect("inserted");
    let lookup = scratch.mongo.lookup("collated", &[key("ANN")], Moment::default()).await.expect("a lookup");
    assert!(lookup.found.is_empty());
    let lookup = scratch.mongo.lookup("collated", &[key("ann")], Moment::default()).await.expect("a lookup");
    assert_eq!(lookup.found.len(), 1);
}

//! A table in chunks, and what is remembered of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use slackwater_topics::Range;

use crate::base::{Base, column, followed};
use crate::store::Store;
use crate::target::{Target, id, read};

#[tokio::test(flavor = "multi_thread")]
async fn chunks_hold_every_record_once() {
    let base = Base::new().await;
    let table = base.table("T", json!([column("Name", "SingleLineText")])).await;
    let records: Vec<Value> = (0..450).map(|n| json!({"Name": format!("n{n}")})).collect();
    let ids = base.create(&table, &records).await;
    base.delete(&table, &ids[100..130]).await;
    let mut settings = base.settings();
    settings.page = 40;
    let noco = slackwater_connectors::nocodb::Noco::connect(&settings).await.expect("a connection");
    let split = noco.split("T", u64::MAX, 100).await.expect("a split");
    assert_eq!((split.documents, split.bounds.len()), (420, 4));
    assert_eq!(noco.count_exactly("T").await.expect("a count"), 420);
    let mut seen = Vec::new();
    for mut range in Range::between(&split.bounds) {
        loop {
            let since = noco.now();
            let chunk = noco.read_chunk("T", &range, since, 5_000).await.expect("a chunk");
            assert!(chunk.from == since && chunk.until > since && !chunk.documents.is_empty());
            assert!(chunk.bytes <= 5_000 || chunk.documents.len() == 1);
            seen.extend(chunk.documents.iter().map(|(_, bytes)| id(&read(bytes))));
            match chunk.rest {
                Some(rest) => range = rest,
                None => break,
            }
        }
    }
    let left: Vec<i64> = ids.iter().filter(|id| !ids[100..130].contains(id)).copied().collect();
    assert_eq!(seen, left);
    let whole = noco.split("T", u64::MAX, u64::MAX).await.expect("a split");
    assert!(whole.bounds.is_empty());
}

/// A chunk counts as handed out, and what was deleted after it is found although no page of the stream had shown it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_chunk_has_shown_is_remembered() {
    let base = Base::new().await;
    let table = base.table("T", json!([column("Name", "SingleLineText")])).await;
    let records: Vec<Value> = (0..5).map(|n| json!({"Name": format!("n{n}")})).collect();
    base.create(&table, &records).await;
    let store = Store::shared();
    let noco = base
        .noco()
        .await
        .remembering(store.clone(), vec![followed(3, "T", &["Name"])])
        .await
        .expect("remembers");
    let from = noco.now();
    let chunk = noco.read_chunk("T", &Range::all(), from, usize::MAX).await.expect("a chunk");
    assert_eq!(store.held("T"), (5, 0), "in the store before the chunk is anywhere");
    let keys: Vec<_> = chunk.documents.iter().map(|(key, _)| key.clone()).collect();
    noco.copied("T", &keys[..4], chunk.until).await.expect("kept");
    assert_eq!(store.held("T"), (5, 4));

    base.delete(&table, &[2]).await;
    base.update(&table, &[json!({"Id": 1, "Name": "other"})]).await;
    // Another process goes on, with nothing but the store.
    let noco = base
        .noco()
        .await
        .remembering(store.clone(), vec![followed(3, "T", &["Name"])])
        .await
        .expect("remembers");
    let mut stream = noco.stream(&slackwater_topics::Position::new(from, Vec::new()), 1).expect("a stream");
    let mut target = Target::default();
    target.catch_up(&mut stream, &noco).await;
    let sent: BTreeSet<i64> = target.of(3).into_keys().collect();
    assert_eq!(sent, BTreeSet::from([1, 5]), "what has changed, and what nobody called safe");
    assert_eq!(target.deletes.len(), 1);
    assert_eq!(store.held("T"), (4, 4));
}

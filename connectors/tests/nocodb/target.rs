//! A target that takes what a stream brings, and checks that it comes in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::Document;
use slackwater_connectors::nocodb::ChangeStream;
use slackwater_connectors::source::{Change, ChangeBatch, ChangeKind};
use slackwater_topics::{CollectionId, Key, Moment, Position};

/// A pass over several tables is many requests, and the machine may be doing much else.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) documents: BTreeMap<(u16, Key), Document>,
    pub(crate) dropped: Vec<CollectionId>,
    /// How many changes came.
    pub(crate) changes: usize,
    pub(crate) deletes: Vec<(u16, Key)>,
    position: Position,
}

impl Target {
    pub(crate) fn take(&mut self, batch: &ChangeBatch) {
        assert!(batch.passed <= batch.position.moment && batch.now >= batch.position.moment);
        for change in &batch.changes {
            assert!(*change.position() > self.position, "{:?} after {:?}", change.position(), self.position);
            self.position = change.position().clone();
            self.changes += 1;
            match change {
                Change::Document(change) => {
                    let key = (change.collection.0, change.key.clone());
                    match &change.document {
                        Some(document) => drop(self.documents.insert(key, read(document))),
                        None => {
                            assert_eq!(change.kind, ChangeKind::Delete);
                            self.documents.remove(&key);
                            self.deletes.push(key);
                        }
                    }
                }
                Change::Dropped { collection, .. } => self.dropped.push(*collection),
                other => panic!("{other:?}"),
            }
        }
        assert!(batch.position >= self.position);
    }

    /// Takes batches, and calls each of them safe, until the condition holds.
    pub(crate) async fn until(&mut self, stream: &mut ChangeStream, mut enough: impl FnMut(&Self) -> bool) {
        let keeper = stream.keeper();
        let all = async {
            while !enough(self) {
                let batch = stream.next().await.expect("the stream goes on");
                self.take(&batch);
                keeper.safe(batch.position.moment).await.expect("kept");
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, all).await;
        assert!(in_time.is_ok(), "not within {PATIENCE:?}; {} documents", self.documents.len());
    }

    /// Takes batches until everything that was written before this call must have come.
    pub(crate) async fn catch_up(
        &mut self,
        stream: &mut ChangeStream,
        noco: &slackwater_connectors::nocodb::Noco,
    ) {
        self.caught_up(stream, noco.mark()).await;
    }

    async fn caught_up(&mut self, stream: &mut ChangeStream, mark: Moment) {
        let keeper = stream.keeper();
        let all = async {
            loop {
                let batch = stream.next().await.expect("the stream goes on");
                self.take(&batch);
                keeper.safe(batch.position.moment).await.expect("kept");
                if batch.passed >= mark {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, all).await;
        assert!(in_time.is_ok(), "not within {PATIENCE:?}; {} documents", self.documents.len());
    }

    /// The same, without waiting until it is anybody's turn.
    pub(crate) async fn pass(
        &mut self,
        stream: &mut ChangeStream,
        noco: &slackwater_connectors::nocodb::Noco,
    ) {
        let mark = noco.mark();
        noco.begin_afresh();
        self.caught_up(stream, mark).await;
    }

    /// The documents of a collection, by whole number.
    pub(crate) fn of(&self, collection: u16) -> BTreeMap<i64, &Document> {
        let own = self.documents.iter().filter(|((number, _), _)| *number == collection);
        own.map(|(_, document)| (id(document), document)).collect()
    }
}

pub(crate) fn id(document: &Document) -> i64 {
    match document.get("_id") {
        Some(bson::Bson::Int32(id)) => i64::from(*id),
        Some(bson::Bson::Int64(id)) => *id,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn read(bytes: &[u8]) -> Document {
    Document::from_reader(bytes).expect("a document")
}

/// Whole numbers of an array.
pub(crate) fn numbers(document: &Document, name: &str) -> Vec<i64> {
    let array = document.get_array(name).unwrap_or_else(|_| panic!("{name}: {document}"));
    array.iter().map(|item| item.as_i32().map(i64::from).or(item.as_i64()).expect("a number")).collect()
}

//! The bare cursors: batches are taken off the wire, their documents counted, and let go.

use std::time::Instant;

use bson::{Document, RawDocumentBuf, Timestamp, rawdoc};
use futures_util::StreamExt;
use mongodb::Database;
use mongodb::error::{Error, Result};
use mongodb::raw_batch_cursor::RawBatch;

use crate::FullDocument;

/// Documents of a batch of `find`; 16 MB end a batch earlier.
const BATCH: u32 = 50_000;

/// Counts the events of one collection from `start` on, until there were `events`.
pub(crate) async fn change_stream(
    database: &Database,
    collection: &str,
    start: Timestamp,
    events: u64,
    full_document: FullDocument,
) -> Result<String> {
    let mut stage = rawdoc! { "startAtOperationTime": start };
    match full_document {
        FullDocument::Default => {}
        FullDocument::UpdateLookup => stage.append(bson::cstr!("fullDocument"), "updateLookup"),
        FullDocument::WhenAvailable => stage.append(bson::cstr!("fullDocument"), "whenAvailable"),
    }
    let command: RawDocumentBuf = rawdoc! {
        "aggregate": collection,
        "pipeline": [{ "$changeStream": stage }],
        "cursor": {},
    };
    let started = Instant::now();
    let mut cursor = database.run_raw_cursor_command(command).batch().await?;
    let mut seen = Seen::default();
    while seen.documents < events {
        let batch = cursor.next().await.ok_or_else(|| Error::custom("the change stream has ended"))??;
        seen.count(&batch)?;
    }
    Ok(seen.line(started))
}

/// Counts the documents of a collection.
pub(crate) async fn find(database: &Database, collection: &str) -> Result<String> {
    let started = Instant::now();
    let collection = database.collection::<Document>(collection);
    let mut cursor = collection.find(Document::new()).batch_size(BATCH).batch().await?;
    let mut seen = Seen::default();
    while let Some(batch) = cursor.next().await {
        seen.count(&batch?)?;
    }
    Ok(seen.line(started))
}

#[derive(Default)]
struct Seen {
    documents: u64,
    bytes: usize,
}

impl Seen {
    fn count(&mut self, batch: &RawBatch) -> Result<()> {
        for document in batch.doc_slices()? {
            document?;
            self.documents += 1;
        }
        self.bytes += batch.as_raw_document().as_bytes().len();
        Ok(())
    }

    fn line(&self, started: Instant) -> String {
        let seconds = started.elapsed().as_secs_f64();
        format!(r#"{{"documents": {}, "bytes": {}, "seconds": {seconds:.3}}}"#, self.documents, self.bytes)
    }
}

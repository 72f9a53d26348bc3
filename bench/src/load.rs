//! Fills a collection with many documents, as fast as the server takes them.

use std::time::Instant;

use bson::RawDocumentBuf;
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Database;
use mongodb::error::Result;

use crate::documents::Shape;

/// Documents of one insert.
const BATCH: u64 = 5_000;
/// Inserts under way at once.
const SIDE_BY_SIDE: usize = 3;

/// Drops the collection and fills it with `documents`.
pub(crate) async fn run(database: &Database, shape: Shape, documents: u64) -> Result<String> {
    let collection = database.collection::<RawDocumentBuf>(shape.collection());
    collection.drop().await?;
    database.create_collection(shape.collection()).await?;
    let started = Instant::now();
    stream::iter((0..documents).step_by(BATCH as usize))
        .map(|from| {
            let batch: Vec<_> =
                (from..documents.min(from + BATCH)).map(|index| shape.document(index)).collect();
            let collection = &collection;
            async move { collection.insert_many(batch).ordered(false).await }
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!(r#"{{"documents": {documents}, "seconds": {seconds:.3}}}"#))
}

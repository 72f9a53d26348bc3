//! Fills a database with the CRM's documents.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::Database;
use mongodb::bson::Document;

use super::{Kind, World};
use crate::collection::create;
use crate::{Error, Result};

const BATCH: u64 = 1_000;

/// What was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Documents.
    pub documents: u64,
    /// Their size as BSON.
    pub bytes: u64,
}

/// Creates the collections and fills them; `progress` hears of every batch. Collections must not exist yet.
pub async fn load(database: &Database, world: World, mut progress: impl FnMut(Loaded)) -> Result<Loaded> {
    if world.is_empty() {
        return Err(Error::Unexpected("at least 5 documents are needed, one a collection".into()));
    }
    let there = database.list_collection_names().await?;
    for kind in Kind::ALL {
        if there.iter().any(|name| name == kind.collection()) {
            return Err(Error::Unexpected(format!(
                "`{}` has a collection `{kind}` already: choose another database, or drop this one first",
                database.name()
            )));
        }
        create(database, kind.collection(), kind.has_images()).await?;
    }
    let mut loaded = Loaded::default();
    for kind in Kind::ALL {
        let collection = database.collection::<Document>(kind.collection());
        let starts = (0..world.len(kind)).step_by(BATCH as usize);
        let batches = stream::iter(starts.map(|start| {
            let collection = collection.clone();
            async move {
                let end = world.len(kind).min(start + BATCH);
                let documents: Vec<_> = (start..end).map(|index| world.document(kind, index)).collect();
                let mut bytes = 0;
                for document in &documents {
                    let raw = document.to_vec().map_err(|error| Error::Unexpected(error.to_string()))?;
                    bytes += raw.len() as u64;
                }
                collection.insert_many(documents).ordered(false).await?;
                Ok::<_, Error>(Loaded { documents: end - start, bytes })
            }
        }));
        let mut batches = batches.buffer_unordered(4);
        while let Some(batch) = batches.try_next().await? {
            loaded.documents += batch.documents;
            loaded.bytes += batch.bytes;
            progress(loaded);
        }
    }
    Ok(loaded)
}

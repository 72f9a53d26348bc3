//! Fills a database with the CRM's documents.

use bson::Document;
use mongodb::Database;

use super::{Model, World};
use crate::Result;
use crate::collection::create;

const BATCH: u32 = 1_000;

/// Creates the collections and fills them. They must not exist yet. How many documents.
pub async fn load(database: &Database, world: World) -> Result<u64> {
    for model in Model::all() {
        // Half of them with images, half of them looked up.
        create(database, model.collection(), (model as usize).is_multiple_of(2)).await?;
    }
    let mut documents = 0;
    for model in Model::all() {
        let collection = database.collection::<Document>(model.collection());
        for start in (0..world.documents).step_by(BATCH as usize) {
            let end = world.documents.min(start + BATCH);
            let batch = (start..end).map(|index| world.document(model, index, 0, index));
            collection.insert_many(batch).ordered(false).await?;
            documents += u64::from(end - start);
        }
    }
    Ok(documents)
}

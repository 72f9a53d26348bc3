//! Makes collections on every version of MongoDB.

use mongodb::Database;
use mongodb::bson::doc;
use mongodb::error::ErrorKind;

use crate::Result;

/// What a server answers that does not know an option.
const UNKNOWN_FIELD: i32 = 40415;

/// Makes a collection, with post-images where the server knows them: before 6.0 every update is looked up.
pub async fn create(database: &Database, name: &str, images: bool) -> Result<()> {
    let with = doc! {"create": name, "changeStreamPreAndPostImages": {"enabled": images}};
    match database.run_command(with).await {
        Err(error) if matches!(&*error.kind, ErrorKind::Command(command) if command.code == UNKNOWN_FIELD) => {
            database.run_command(doc! {"create": name}).await?;
        }
        outcome => drop(outcome?),
    }
    Ok(())
}

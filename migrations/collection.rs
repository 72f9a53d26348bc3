//! Makes collections on every version of MongoDB, and knows when none can be written to.

use mongodb::Database;
use mongodb::bson::doc;
use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::Result;

/// What a server answers that does not know an option.
const UNKNOWN_FIELD: i32 = 40415;
/// What a server answers whose writers are blocked, who have lost their right to write, or whose operation it has ended for that.
const BLOCKED: [i32; 3] = [371, 13, 11601];

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

/// The server refuses all writers.
pub(crate) fn is_blocked(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Command(command) => BLOCKED.contains(&command.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => BLOCKED.contains(&error.code),
        _ => false,
    }
}

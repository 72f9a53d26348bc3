//! `slackwater status`: one look at the whole, from the control store.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::postgres::control::Control;
use slackwater_topics::ClusterTime;

use super::exit::Failure;
use super::load;
use crate::config::Migration;
use crate::ops::status::Status;

pub(super) async fn run(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let migration = load::migration(path)?;
    let Some(control) = Control::peek(&migration.target.uri).await? else {
        let lines =
            vec!["slackwater has never run against this target; start it with `slackwater run`".to_owned()];
        return Err(Failure::Unsuitable(lines));
    };
    let now = source_time(&migration).await;
    let status = Status::read(&control, &migration.name, migration.collections.len(), now).await?;
    let mut stdout = std::io::stdout().lock();
    // A reader that has gone away wants no answer.
    let _ = if json { writeln!(stdout, "{:#}", status.json()) } else { write!(stdout, "{}", status.text()) };
    Ok(ExitCode::SUCCESS)
}

/// The source's present; none where it does not answer, which the status then says.
async fn source_time(migration: &Migration) -> Option<ClusterTime> {
    let source = migration.sources.first()?;
    let mongo = Mongo::connect(&source.uri, &source.database).await.ok()?;
    mongo.operation_time().await.ok()
}

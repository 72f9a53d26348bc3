//! `slackwater resolve`: what becomes of the rows of a collection that is gone at the source.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::gone::Word;

use crate::config::spelling::{list, nearest};
use crate::failure::Failure;
use crate::topology::load;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// The collection, as the migration file names it: `legacy.users`.
    collection: String,
    /// Its rows stay. If it comes back they are compared with it again.
    #[arg(long, required_unless_present = "follow", conflicts_with = "follow")]
    keep: bool,
    /// Its rows go, as the collection went.
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let migration = load::migration(&arguments.file)?;
    let name = &arguments.collection;
    let word = if arguments.keep { Word::Keep } else { Word::Follow };
    let never = "slackwater has never run against this target; start it with `slackwater run`";
    let control = Control::peek(&migration.target.uri).await?;
    let mut control = control.ok_or_else(|| Failure::Unsuitable(vec![never.to_owned()]))?;
    if control.decide_gone(&migration.name, name, word).await? {
        let becomes = if arguments.keep { "stay" } else { "go with the next copy" };
        tracing::info!("the rows of {name} {becomes}");
        return Ok(ExitCode::SUCCESS);
    }
    let gone = control.gone(&migration.name).await?;
    let names = || gone.iter().map(|row| row.collection.as_str());
    let help = match (nearest(name, names()), gone.is_empty()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, true) => "no collection of this migration is".to_owned(),
        (None, false) => format!("gone are: {}", list(names())),
    };
    Err(Failure::Unsuitable(vec![format!("`{name}` is not gone at its source; {help}")]))
}

//! Everything that can be found before the first row moves, in one round: `docs/design/check.md` has the reasons. Writes nothing.

mod finish;
mod freeze;
mod sources;

use std::path::Path;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::client::{self, Server};
use slackwater_connectors::postgres::target::catalog::Catalog;
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::postgres::target::rights::{self, Missing};

use crate::config::{self, Diagnostics, Findings, Finish, Log, Migration, Place};
use crate::failure::Failure;
use crate::log::kafka::topics::{Ready, of_log};
use crate::mapping::{self, Plan};
use crate::ops::policy::{exit_code, remedy};
use crate::source::Fitness;
use crate::topology::load;

/// Exit code: mistakes in the migration file.
const MISTAKES: u8 = 3;

/// What was found.
pub(crate) struct Report {
    /// As much of the file as could be read.
    pub(crate) migration: Option<Migration>,
    /// Where nothing stands in the way.
    pub(crate) plan: Option<Plan>,
    /// The target, if it answered.
    pub(crate) target: Option<Server>,
    /// Every source that answered, with its name.
    pub(crate) sources: Vec<(String, Fitness)>,
    /// The topics, if the log is Kafka and they could be looked at.
    pub(crate) topics: Option<Vec<Ready>>,
    pub(crate) found: Diagnostics,
    /// The exit code, if there are errors.
    pub(crate) code: Option<u8>,
}

/// What has been found so far.
pub(super) struct Round {
    findings: Findings,
    /// Something has to be mended in the file.
    mistaken: bool,
    /// Kinds of errors that servers gave.
    kinds: Vec<Kind>,
}

impl Round {
    /// A mistake that can be mended in the file.
    fn mistake(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.mistaken = true;
        self.findings.error(place, message, help);
    }

    fn warning(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.findings.warning(place, message, help);
    }

    /// A server, or what it has, is not as it must be.
    fn unfit(&mut self, place: Place, kind: Kind, message: impl Into<String>, help: impl Into<String>) {
        self.kinds.push(kind);
        self.findings.error(place, message, help);
    }

    fn server(&mut self, place: Place, error: &Error) {
        // Texts without a remedy beside them may say in themselves what to do.
        let told = error.help.is_none() && error.what.contains("; ");
        let help = if told { "" } else { remedy(error) };
        self.unfit(place, error.kind, error.to_string(), help);
    }
}

/// Checks the file and everything that it names.
pub(crate) async fn check(path: &Path) -> Result<Report, Failure> {
    let (migration, findings) = config::load_draft(path)
        .map_err(|error| Failure::File { path: path.display().to_string(), error })?;
    let Some(migration) = migration else {
        let found = findings.finish();
        return Ok(Report {
            migration: None,
            plan: None,
            target: None,
            sources: Vec::new(),
            topics: None,
            found,
            code: Some(MISTAKES),
        });
    };
    let mut round = Round { mistaken: findings.has_errors(), findings, kinds: Vec::new() };
    let (catalog, sources, topics) =
        tokio::join!(catalog(&migration), sources::look(&migration), of_log(&migration));
    let (mut plan, mut target) = (None, None);
    finish::programs(&migration, &mut round);
    match catalog {
        None => {}
        Some(Err(error)) => round.server(migration.target.place, &error),
        Some(Ok((server, catalog, missing))) => {
            if let Some(warning) = server.warning() {
                round.warning(migration.target.place, warning, "");
            }
            target = Some(server);
            let before = round.findings.errors();
            plan = mapping::judge(&migration, &catalog, &mut round.findings);
            round.mistaken |= round.findings.errors() > before;
            finish::sql(&migration, &mut round).await;
            let sequences = migration.cutover.after.contains(&Finish::Sequences);
            for right in missing.iter().filter(|right| sequences || !right.sequence) {
                round.unfit(migration.target.place, Kind::Denied, &right.what, &right.grant);
            }
        }
    }
    let mut fit = Vec::new();
    for (source, looked) in sources {
        fit.extend(sources::judge(&migration, source, looked, &mut round));
    }
    let topics = match topics {
        Ok(topics) => topics,
        Err(failure) => {
            topics_failed(&migration, failure, &mut round);
            None
        }
    };
    let failed = round.findings.has_errors();
    let code = failed.then(|| code(round.mistaken, &round.kinds));
    let found = round.findings.finish();
    Ok(Report {
        plan: plan.filter(|_| !failed),
        target,
        migration: Some(migration),
        sources: fit,
        topics,
        found,
        code,
    })
}

/// What the target has, and the rights that we lack there; none if the file does not say where it is.
async fn catalog(migration: &Migration) -> Option<Result<(Server, Catalog, Vec<Missing>), Error>> {
    let target = &migration.target;
    if target.unread {
        return None;
    }
    let tables = load::tables(migration);
    Some(tokio::try_join!(
        client::look(&target.uri),
        introspect::read(&target.uri, &tables),
        rights::missing(&target.uri, &tables)
    ))
}

/// Mistakes of the file first, because they are mended first; then what is most certain.
fn code(mistaken: bool, kinds: &[Kind]) -> u8 {
    if mistaken || kinds.is_empty() {
        return MISTAKES;
    }
    let worst = [Kind::Unsuitable, Kind::Denied, Kind::Unreachable];
    let worst = worst.into_iter().find(|kind| kinds.contains(kind));
    exit_code(worst.unwrap_or(kinds[0]))
}

fn topics_failed(migration: &Migration, failure: Failure, round: &mut Round) {
    let Log::Kafka(log) = &migration.log else { return };
    match failure {
        Failure::Server(error) => round.server(log.place, &error),
        Failure::Unsuitable(lines) => {
            lines.into_iter().for_each(|line| round.unfit(log.place, Kind::Unsuitable, line, ""));
        }
        Failure::Denied(lines) => {
            lines.into_iter().for_each(|line| round.unfit(log.place, Kind::Denied, line, ""));
        }
        // Those have been reported where the file was read.
        Failure::Mistakes(_) | Failure::File { .. } => {}
    }
}

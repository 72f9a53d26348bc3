//! Everything that can be found before the first row moves, in one round: `docs/design/check.md` has the reasons. Writes nothing.

mod finish;
mod freeze;
mod rights;
mod sources;

use std::path::Path;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::client::{self, Server};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::target::catalog::Catalog;
use slackwater_connectors::postgres::target::rights::{Rights, When, of as rights_of};

use crate::changes::{Change, compare, count};
use crate::config::{self, Diagnostics, Findings, Finish, Log, Migration, Place};
use crate::failure::Failure;
use crate::grants::postgres::takes_numbers;
use crate::log::kafka::rights::Lack;
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
    /// What the file changes for rows that are there, a line each.
    pub(crate) changes: Vec<(Change, String)>,
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
            changes: Vec::new(),
            found,
            code: Some(MISTAKES),
        });
    };
    let mut round = Round { mistaken: findings.has_errors(), findings, kinds: Vec::new() };
    let (catalog, sources, topics) =
        tokio::join!(catalog(&migration), sources::look(&migration), log(&migration));
    let (mut plan, mut target, mut changes) = (None, None, Vec::new());
    finish::programs(&migration, &mut round);
    finish::stages(&migration, &mut round).await;
    match catalog {
        None => {}
        Some(Err(error)) => round.server(migration.target.place, &error),
        Some(Ok((server, catalog, rights))) => {
            if let Some(warning) = server.warning() {
                round.warning(migration.target.place, warning, "");
            }
            target = Some(server);
            let before = round.findings.errors();
            plan = mapping::judge(&migration, &catalog, &mut round.findings);
            if let Some(plan) = &plan {
                changes = changed(&migration, plan, &mut round).await;
            }
            round.mistaken |= round.findings.errors() > before;
            if let Some(plan) = &plan {
                sequences(&migration, plan, &mut round).await;
            }
            finish::sql(&migration, &mut round).await;
            let sequences = migration.cutover.after.contains(&Finish::Sequences);
            for right in &rights.missing {
                let needed = match &right.when {
                    When::Always => true,
                    When::Switch => sequences,
                    When::Number((schema, table), column) => takes_numbers(&migration, schema, table, column),
                };
                if needed {
                    round.unfit(migration.target.place, Kind::Denied, &right.what, &right.grant);
                }
            }
            if let Some(more) = rights.excess {
                let message = format!("{more}, more than this migration needs");
                let help = "connect as a role with the rights that `slackwater grants FILE` prints";
                round.warning(migration.target.place, message, help);
            }
        }
    }
    let mut fit = Vec::new();
    for (source, looked) in sources {
        fit.extend(sources::judge(&migration, source, looked, &mut round));
    }
    let (topics, lacks) = topics;
    let applies = match (&migration.log, &lacks) {
        (Log::Kafka(log), Some(lacks)) => rights::parts(log, lacks, &mut round),
        _ => false,
    };
    let topics = match topics {
        Ok(topics) => topics,
        Err(failure) => {
            topics_failed(&migration, failure, applies, &mut round);
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
        changes,
        found,
        code,
    })
}

/// Sequences that are behind the numbers in their tables.
async fn sequences(migration: &Migration, plan: &Plan, round: &mut Round) {
    // A role that may not read the tables is complained of elsewhere.
    let Ok(behind) = load::behind(migration, plan).await else { return };
    for one in behind {
        let rules = migration.collections.iter().flat_map(|collection| &collection.tables);
        let named = |rule: &&config::Table| {
            let schema = rule.schema.as_ref().unwrap_or(&migration.target.schema);
            (schema, &rule.into.value) == (&one.table.0, &one.table.1)
        };
        let place = rules.into_iter().find(named).map_or(migration.target.place, |rule| rule.into.place);
        round.unfit(place, Kind::Unsuitable, one.message, one.help);
    }
}

/// What the file changes, compared with what the rows that are there were made by.
async fn changed(migration: &Migration, plan: &Plan, round: &mut Round) -> Vec<(Change, String)> {
    // A control store of an older version kept nothing of it, and one that does not answer is complained of elsewhere.
    let Ok(Some(control)) = Control::peek(&migration.target.uri).await else { return Vec::new() };
    let Ok(before) = control.mapping(&migration.name).await else { return Vec::new() };
    let changes = compare(migration, plan, before.as_ref());
    changes.complain(&mut round.findings);
    let counts = count::count(&migration.target.uri, &changes).await;
    let told = changes.list.into_iter().map(|change| {
        let rows = change.table.as_ref().and_then(|table| counts.get(table)).copied();
        let text = change.text(rows);
        (change, text)
    });
    told.collect()
}

/// What the target has, and the rights that we lack there; none if the file does not say where it is.
async fn catalog(migration: &Migration) -> Option<Result<(Server, Catalog, Rights), Error>> {
    let target = &migration.target;
    if target.unread {
        return None;
    }
    let tables = load::tables(migration);
    Some(tokio::try_join!(
        client::look(&target.uri),
        load::catalog(migration),
        rights_of(&target.uri, &tables)
    ))
}

/// The topics of a log that is Kafka, and which rights our user lacks on them, as far as they are there.
async fn log(migration: &Migration) -> (Result<Option<Vec<Ready>>, Failure>, Option<Vec<Lack>>) {
    let topics = of_log(migration).await;
    let asks = match &topics {
        Ok(topics) => topics.is_some(),
        Err(Failure::Server(error)) => {
            // Nobody who was not let in at all has rights to speak of.
            error.code.as_deref() == Some("TopicAuthorizationFailed")
        }
        Err(_) => false,
    };
    let lacks = if asks { rights::kafka(migration).await } else { None };
    (topics, lacks)
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

fn topics_failed(migration: &Migration, failure: Failure, applies: bool, round: &mut Round) {
    let Log::Kafka(log) = &migration.log else { return };
    match failure {
        // Appliers do not look at the topics' settings.
        Failure::Server(error) if applies && error.kind == Kind::Denied => {
            round.warning(log.place, error.to_string(), remedy(&error));
        }
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

//! What runs on the day of the switch: the team's SQL and programs, tried beforehand.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::target::trial::Trial;

use super::Round;
use crate::config::{Asks, Finish, Migration, Place};
use crate::source::{Named, Source};

/// Tries the SQL against the target.
pub(super) async fn sql(migration: &Migration, round: &mut Round) {
    let checks = migration.checks.iter().map(|check| {
        let sql = check.sql();
        (true, check.name.value.as_str(), &sql.value, sql.place)
    });
    let cutover = &migration.cutover;
    let after = cutover.after.iter().filter_map(|step| match step {
        Finish::Sql(statement) => Some(statement),
        Finish::Sequences => None,
    });
    let steps = cutover.before.iter().chain(after);
    let steps = steps.map(|step| (false, step.name.as_str(), &step.sql, step.place));
    let all: Vec<(bool, &str, &String, Place)> = checks.chain(steps).collect();
    if all.is_empty() {
        return;
    }
    let trial = match Trial::open(&migration.target.uri, &migration.target.schema).await {
        Ok(trial) => trial,
        Err(error) => return round.server(migration.target.place, &error),
    };
    for (query, name, sql, place) in all {
        let tried = if query { trial.query(sql).await } else { trial.statements(sql).await };
        if let Err(error) = tried {
            refused("SQL", name, &error, place, round);
        }
    }
}

fn refused(what: &str, name: &str, error: &Error, place: Place, round: &mut Round) {
    match error.kind {
        // What it needs is locked, or the server has no room: that says nothing of the SQL.
        Kind::Unreachable | Kind::Contention | Kind::Exhausted => round.server(place, error),
        Kind::Denied => {
            let message = format!("`{name}` may not run: {}", error.what);
            let who = if what == "SQL" { "role of `target`" } else { "user of the source" };
            round.unfit(place, Kind::Denied, message, format!("grant the right to the {who}"));
        }
        _ => {
            let message = format!("`{name}` cannot run: {}", error.what);
            round.mistake(
                place,
                message,
                format!("it would fail on the day of the switch: correct the {what}"),
            );
        }
    }
}

/// Lets the sources plan what checks ask of them.
pub(super) async fn stages(migration: &Migration, round: &mut Round) {
    for source in migration.sources.iter().filter(|source| !source.unread) {
        let asks = migration.checks.iter().filter_map(|check| match &check.asks {
            Asks::Both(both) if both.source == source.name.value => {
                Some((check.name.value.as_str(), &both.collection, both.stages.as_ref()?))
            }
            Asks::Both(_) | Asks::Nothing(_) => None,
        });
        let asks: Vec<_> = asks.collect();
        if asks.is_empty() {
            continue;
        }
        // One that does not let us in is complained of elsewhere.
        let Ok(named) = Named::connect(source).await else { continue };
        let Source::Mongodb(mongo) = &named.source else { continue };
        for (name, collection, stages) in asks {
            if let Err(error) = mongo.understands(&collection.value, stages).await {
                refused("aggregation", name, &error, collection.place, round);
            }
        }
    }
}

/// Looks for the programs.
pub(super) fn programs(migration: &Migration, round: &mut Round) {
    for program in &migration.cutover.programs {
        if !is_there(&program.value, std::env::var_os("PATH")) {
            let message = format!("there is no program `{}`, or it is not executable", program.value);
            round.mistake(program.place, message, "give its path, or put it where `PATH` finds it");
        }
    }
}

fn is_there(program: &str, path: Option<std::ffi::OsString>) -> bool {
    let runs = |file: &Path| {
        file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let folders: Vec<PathBuf> = path.map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    folders.iter().any(|folder| runs(&folder.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_as_a_shell_does() {
        let path = || Some("/nowhere:/bin:/usr/bin".into());
        assert!(is_there("sh", path()));
        assert!(is_there("/bin/sh", None));
        assert!(!is_there("sh", None));
        assert!(!is_there("no-such-program", path()));
        assert!(!is_there("/etc", path()), "a folder is no program");
    }
}

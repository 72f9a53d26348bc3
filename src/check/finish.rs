//! What runs on the day of the switch: the team's SQL and programs, tried beforehand.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::target::trial::Trial;

use super::Round;
use crate::config::{Finish, Migration, Place};

/// Tries the SQL against the target; whether some of it is wrong.
pub(super) async fn sql(migration: &Migration, round: &mut Round) -> bool {
    let checks =
        migration.checks.iter().map(|check| (true, check.name.value.as_str(), &check.sql, check.place));
    let cutover = &migration.cutover;
    let after = cutover.after.iter().filter_map(|step| match step {
        Finish::Sql(statement) => Some(statement),
        Finish::Sequences => None,
    });
    let steps = cutover.before.iter().chain(after);
    let steps = steps.map(|step| (false, step.name.as_str(), &step.sql, step.place));
    let all: Vec<(bool, &str, &String, Place)> = checks.chain(steps).collect();
    let mut wrong = false;
    if all.is_empty() {
        return wrong;
    }
    let trial = match Trial::open(&migration.target.uri, &migration.target.schema).await {
        Ok(trial) => trial,
        Err(error) => {
            round.server(migration.target.place, &error);
            return wrong;
        }
    };
    for (query, name, sql, place) in all {
        let tried = if query { trial.query(sql).await } else { trial.statements(sql).await };
        if let Err(error) = tried {
            wrong |= refused(name, &error, place, round);
        }
    }
    wrong
}

/// Whether the file has to be mended.
fn refused(name: &str, error: &Error, place: Place, round: &mut Round) -> bool {
    match error.kind {
        Kind::Unreachable => {
            round.server(place, error);
            false
        }
        Kind::Denied => {
            let message = format!("`{name}` may not run: {}", error.what);
            round.unfit(place, Kind::Denied, message, "grant the right to the role of `target`");
            false
        }
        _ => {
            let message = format!("`{name}` cannot run: {}", error.what);
            round.mistake(place, message, "it would fail on the day of the switch: correct the SQL");
            true
        }
    }
}

/// Looks for the programs; whether one is not there.
pub(super) fn programs(migration: &Migration, round: &mut Round) -> bool {
    let mut missing = false;
    for program in &migration.cutover.programs {
        if !is_there(&program.value, std::env::var_os("PATH")) {
            missing = true;
            let message = format!("there is no program `{}`, or it is not executable", program.value);
            round.mistake(program.place, message, "give its path, or put it where `PATH` finds it");
        }
    }
    missing
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

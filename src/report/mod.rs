//! The report of a run: one folder for each cutover and each verification, for people who were not there.
//!
//! - `folder`: its name, and how it comes to be there whole or not at all.
//! - `gather`: what is asked when the run is over. Nothing of it may delay a run.
//! - `assemble`: one object of all that is known. Pure.
//! - `page`: that object as a page to read and to print. Pure.
//! - `csv`: parts of it as lists. Pure.
//!
//! `docs/design/report.md` says what is decided.

mod assemble;
mod csv;
mod folder;
mod gather;
mod page;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::Migration;
use crate::ops::process::now_millis;

/// What a run was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cutover,
    Verification,
}

impl Kind {
    /// Its word in the folder's name.
    fn verb(self) -> &'static str {
        match self {
            Self::Cutover => "cutover",
            Self::Verification => "verify",
        }
    }

    /// Its word in the report.
    fn noun(self) -> &'static str {
        match self {
            Self::Cutover => "cutover",
            Self::Verification => "verification",
        }
    }
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) kind: Kind,
    pub(crate) migration: &'a Migration,
    /// What it says of itself, as JSON.
    pub(crate) said: Value,
    /// The time in the folder's name, milliseconds since 1970.
    pub(crate) at: i64,
    /// When the command began.
    pub(crate) started_at: i64,
    /// A report of the same cutover that is there already is not written again.
    pub(crate) once: bool,
}

/// Where reports go, as the command line says: `none` is nowhere.
pub(crate) fn wanted(folder: &Path) -> Option<&Path> {
    (folder != Path::new("none")).then_some(folder)
}

/// Writes the report of a run. If that is not possible, a warning says why, and the run is what it was.
pub(crate) async fn keep(run: Run<'_>, into: &Path) -> Option<PathBuf> {
    let name = folder::name(&run.migration.name, run.kind.verb(), run.at);
    if run.once
        && let Some(there) = folder::named(into, &name).find(|folder| is_of(folder, &run.said))
    {
        return Some(there);
    }
    let written = match folder::Draft::begin(into, &name) {
        // A folder that cannot be made costs no question.
        Ok(draft) => {
            let gathered = gather::gather(run.migration).await;
            draft.finish(&files(&run, &gathered))
        }
        Err(error) => Err(error),
    };
    match written {
        Ok(folder) => Some(folder),
        Err(error) => {
            tracing::warn!(
                "the report of this run cannot be written into {}: {error}; `--report DIR` names another folder, `--report none` writes none",
                into.display()
            );
            None
        }
    }
}

/// Whether a folder has the report of the same cutover: two may have begun in the same second.
fn is_of(folder: &Path, said: &Value) -> bool {
    let text = std::fs::read_to_string(folder.join("report.json")).unwrap_or_default();
    let report: Value = serde_json::from_str(&text).unwrap_or_default();
    report["cutover"].is_string() && report["cutover"] == said["cutover"]
}

/// The files of a report. Pure, but for the time and the name of the machine.
fn files(run: &Run<'_>, gathered: &gather::Gathered) -> Vec<(&'static str, String)> {
    let report = assemble::report(run, gathered, &gather::host(), now_millis());
    let mut files = vec![
        ("report.json", format!("{report:#}\n")),
        ("report.html", page::page(&report)),
        ("tables.csv", csv::tables(&report)),
        ("dead_letters.csv", csv::letters(&gathered.letters)),
        ("incidents.csv", csv::incidents(&gathered.incidents)),
    ];
    if let Some(findings) = assemble::findings(&report) {
        files.push(("findings.csv", csv::findings(findings)));
    }
    if let Some(steps) = report["steps"].as_array() {
        files.push(("steps.csv", csv::steps(steps)));
    }
    files
}

//! The migration file: read with the place of every value, checked, and turned into types.
//!
//! All mistakes are reported together. Nothing here talks to a server; `crate::mapping::compile` checks the result
//! against the target's catalogue.

mod append_only;
mod blot;
mod checks;
mod ciphers;
mod cutover;
mod diagnostics;
mod fields;
mod form;
mod include;
mod log;
mod lookups;
mod migration;
mod outside;
mod path;
mod pipeline;
mod predicate;
mod read;
mod rules;
mod sections;
mod sources;
pub(crate) mod spelling;
mod tree;

pub use checks::{Asks, Both, Check, Schedule, Within};
pub use ciphers::{Algorithm, Cipher, CipherKey, Encoding, Iv};
pub(crate) use ciphers::{unbase64, unhex};
pub use cutover::{Cutover, Finish, Freeze, Notice, Statement};
pub use diagnostics::{At, Diagnostic, Diagnostics, Place, Severity};
pub(crate) use diagnostics::{FileText, Findings};
pub(crate) use fields::span;
pub use form::{ColumnForm, Form, TableForm};
pub(crate) use form::{LOOKED_UP, digest};
pub use migration::{
    By, Candidates, ChangeOf, Collection, Column, Convert, InvalidPolicy, KafkaLog, Log, Merge, Migration,
    NocodbSource, NullPolicy, Policies, Rule, Snapshot, Source, Sql, System, Table, Target, Unit, Unknown,
    Value, Values, Verify,
};
pub use outside::Outside;
pub use path::{Levels, Path};
pub(crate) use path::{Step, is_on};
pub use predicate::{Predicate, Side, Test};
pub use tree::Scalar;

/// Reads a migration file's text. `name` is what messages call the file; `environment` gives the values of `${NAME}`,
/// the file system those of `${file:/path}`.
pub fn parse(
    name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Migration, Diagnostics> {
    let file = |path: &std::path::Path| std::fs::read_to_string(path);
    parse_with(name, text, &Outside { environment, file: &file, folder: &outside::files_in })
}

/// The same, with everything that is not in the text passed in.
pub fn parse_with(name: &str, text: &str, outside: &Outside<'_>) -> Result<Migration, Diagnostics> {
    match draft(name, text, outside) {
        (Some(migration), findings) if !findings.has_errors() => Ok(migration),
        (_, findings) => Err(findings.finish()),
    }
}

/// As much of the file as can be understood, and what is wrong with it.
fn draft(name: &str, text: &str, outside: &Outside<'_>) -> (Option<Migration>, Findings) {
    let mut findings = Findings::new(FileText::new(name, text));
    let mut read = read::Read::file(name, text);
    let migration = tree::read(0, text, &mut findings).and_then(|mut root| {
        findings.reveal(0, text, &root);
        blot::hide_keys(&mut root);
        include::include(&mut root, std::path::Path::new(name), outside, &mut read, &mut findings);
        sections::migration(&root, outside, &mut findings)
    });
    let (fingerprint, files) = read.finish();
    let migration = migration.map(|migration| Migration { fingerprint, files, ..migration });
    (migration, findings)
}

/// Reads a migration file for somebody who wants to know everything that is wrong: mistakes in it do not hide the others.
pub(crate) fn load_draft(path: &std::path::Path) -> std::io::Result<(Option<Migration>, Findings)> {
    let text = std::fs::read_to_string(path)?;
    let environment = |name: &str| std::env::var(name).ok();
    let file = |path: &std::path::Path| std::fs::read_to_string(path);
    let outside = Outside { environment: &environment, file: &file, folder: &outside::files_in };
    Ok(draft(&path.display().to_string(), &text, &outside))
}

/// Reads a migration file, with `${NAME}` from the process' environment. The outer error is that of the file system.
pub fn load(path: &std::path::Path) -> std::io::Result<Result<Migration, Diagnostics>> {
    let text = std::fs::read_to_string(path)?;
    Ok(parse(&path.display().to_string(), &text, &|name| std::env::var(name).ok()))
}

/// Every word that may stand in a rule.
#[cfg(test)]
pub(crate) fn rule_words() -> Vec<&'static str> {
    rules::known_words()
}

#[cfg(test)]
mod tests;

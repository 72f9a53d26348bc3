//! The folder of a report.
//!
//! **Invariant**: a folder with a report's name is whole. It is written under a hidden name and renamed when everything is on the disk.
//! **Crash**: a hidden folder stays, which nobody takes for a report.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::ops::process;

/// So many folders may have the same name but for a number.
const MOST: usize = 1_000;

/// The name of the folder of a run: `crm-cutover-20260301t100000Z`. Pure.
pub(super) fn name(migration: &str, run: &str, at: i64) -> String {
    let plain = |letter: char| {
        if letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.') { letter } else { '-' }
    };
    let migration: String = migration.chars().map(plain).collect();
    let migration = migration.trim_start_matches('.');
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or_default();
    format!("{migration}-{run}-{}", at.strftime("%Y%m%dt%H%M%SZ"))
}

/// The folders with this name, with and without a number.
pub(super) fn named(into: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    numbered(into, name).take_while(|folder| folder.exists())
}

fn numbered(into: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let folder =
        move |number| if number == 1 { into.join(name) } else { into.join(format!("{name}-{number}")) };
    (1..=MOST).map(folder)
}

/// A report that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    hidden: PathBuf,
    into: PathBuf,
    name: String,
}

impl Draft {
    /// Makes the hidden folder.
    pub(super) fn begin(into: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(into)?;
        let hidden = into.join(format!(".{name}-{}", process::unique_id().simple()));
        fs::create_dir(&hidden)?;
        Ok(Self { hidden, into: into.to_path_buf(), name: name.to_owned() })
    }

    /// Writes the files, and gives the folder its name; where that is taken, with a number.
    pub(super) fn finish(self, files: &[(&str, String)]) -> io::Result<PathBuf> {
        let done = self.write(files).and_then(|()| self.rename());
        if done.is_err() {
            // What is left of it is hidden, and the error tells more than another one would.
            let _ = fs::remove_dir_all(&self.hidden);
        }
        done
    }

    fn write(&self, files: &[(&str, String)]) -> io::Result<()> {
        for (name, text) in files {
            let mut file = File::create_new(self.hidden.join(name))?;
            file.write_all(text.as_bytes())?;
            file.set_permissions(Permissions::from_mode(0o444))?;
            file.sync_all()?;
        }
        File::open(&self.hidden)?.sync_all()
    }

    fn rename(&self) -> io::Result<PathBuf> {
        for folder in numbered(&self.into, &self.name) {
            // An empty folder would be replaced; one that somebody makes just now is not empty when it gets its name.
            if folder.exists() {
                continue;
            }
            match fs::rename(&self.hidden, &folder) {
                Ok(()) => {
                    File::open(&self.into)?.sync_all()?;
                    return Ok(folder);
                }
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{MOST} reports have the name {}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("slackwater-report-{name}-{}", process::unique_id()));
        fs::create_dir(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_name_tells_what_ran_and_when() {
        assert_eq!(name("crm", "cutover", 1_772_359_200_700), "crm-cutover-20260301t100000Z");
        assert_eq!(name("../my crm/2", "verify", 0), "-my-crm-2-verify-19700101t000000Z");
    }

    #[test]
    fn it_is_there_whole_and_is_not_changed() {
        let into = folder("whole").join("reports");
        let write = |text: &str| {
            let draft = Draft::begin(&into, "crm-cutover").expect("a draft");
            draft.finish(&[("report.json", text.to_owned()), ("b.csv", String::new())]).expect("a report")
        };
        assert_eq!(write("one"), into.join("crm-cutover"));
        assert_eq!(write("two"), into.join("crm-cutover-2"));
        let file = into.join("crm-cutover/report.json");
        assert_eq!(fs::read_to_string(&file).expect("text"), "one");
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o444);
        let there = fs::read_dir(&into).expect("a folder").count();
        assert_eq!(there, 2, "nothing hidden is left");
        assert_eq!(named(&into, "crm-cutover").count(), 2);
        assert_eq!(named(&into, "crm-verify").count(), 0);
        fs::remove_dir_all(into.parent().expect("a parent")).expect("it can be removed");
    }

    #[test]
    fn one_that_is_not_finished_is_hidden() {
        let into = folder("hidden");
        let draft = Draft::begin(&into, "crm-cutover").expect("a draft");
        draft.write(&[("report.json", "{}".into())]).expect("it can be written");
        assert!(!into.join("crm-cutover").exists());
        let twice = [("report.json", String::new())];
        draft.finish(&twice).expect_err("the file is there");
        assert_eq!(fs::read_dir(&into).expect("a folder").count(), 0, "what failed leaves nothing");
        File::create(into.join("file")).expect("a file");
        Draft::begin(&into.join("file"), "crm").expect_err("a file is no folder");
        fs::remove_dir_all(into).expect("it can be removed");
    }
}

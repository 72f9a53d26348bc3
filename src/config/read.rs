//! The files that a migration was read from: whether they have changed, and which they were.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::form::digest;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadFile {
    pub(crate) path: String,
    /// As `sha256sum` prints it.
    pub(crate) sha256: String,
}

/// The migration file, and what it includes.
#[derive(Debug)]
pub(super) struct Read {
    text: String,
    files: Vec<ReadFile>,
}

impl Read {
    /// The migration file itself.
    pub(super) fn file(path: &str, text: &str) -> Self {
        Self { text: text.to_owned(), files: vec![ReadFile::of(path.to_owned(), text)] }
    }

    /// A file that it includes. `written`: what it is called there.
    pub(super) fn part(&mut self, written: &str, path: &Path, text: &str) {
        self.text.push_str(&format!("\0{written}\0{text}"));
        self.files.push(ReadFile::of(path.display().to_string(), text));
    }

    /// A text that changes when one of them does; and all of them.
    pub(super) fn finish(self) -> (String, Vec<ReadFile>) {
        (digest(&self.text), self.files)
    }
}

impl ReadFile {
    fn of(path: String, text: &str) -> Self {
        let sum = Sha256::digest(text.as_bytes());
        Self { path, sha256: sum.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_what_the_shell_prints() {
        // printf abc | sha256sum
        let file = ReadFile::of("a.yaml".into(), "abc");
        assert_eq!(file.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut read = Read::file("a.yaml", "abc");
        read.part("*.yaml", Path::new("b.yaml"), "d");
        let (fingerprint, files) = read.finish();
        assert_eq!(fingerprint, digest("abc\0*.yaml\0d"));
        assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a.yaml", "b.yaml"]);
    }
}

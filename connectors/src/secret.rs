//! Text that cannot be printed by mistake.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A connection string or password. `Debug` and `Display` show nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// What it was put together from, where a part of it is a file.
    parts: Option<Arc<[Part]>>,
}

/// A part of a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// Known when the program starts, and always the same.
    Text(String),
    /// What the file held when the program started, and where it is: it may hold something else now.
    File(PathBuf, String),
}

impl Secret {
    /// Keeps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), parts: None }
    }

    /// Puts the text together.
    pub fn of(parts: Vec<Part>) -> Self {
        let text = parts.iter().map(|part| match part {
            Part::Text(text) | Part::File(_, text) => text.as_str(),
        });
        let files = parts.iter().any(|part| matches!(part, Part::File(..)));
        Self { text: text.collect(), parts: files.then(|| parts.into()) }
    }

    /// The text itself, as it was when the program started. For the driver only.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The text itself, with its files as they are now. On an error the file that cannot be read.
    pub fn expose_fresh(&self) -> Result<Cow<'_, str>, (PathBuf, std::io::Error)> {
        let Some(parts) = &self.parts else { return Ok(Cow::Borrowed(&self.text)) };
        let mut text = String::new();
        for part in &**parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::File(path, _) => match std::fs::read_to_string(path) {
                    Ok(read) => text.push_str(without_break(&read)),
                    Err(error) => return Err((path.clone(), error)),
                },
            }
        }
        Ok(Cow::Owned(text))
    }
}

impl Secret {
    /// As it is now, or where a file cannot be read, as it was when the program started: a file that is being replaced may be gone for a
    /// moment.
    pub(crate) fn expose_now(&self) -> Cow<'_, str> {
        self.expose_fresh().unwrap_or(Cow::Borrowed(&self.text))
    }
}

impl Part {
    /// A file with what was read from it.
    pub fn file(path: &Path, read: &str) -> Self {
        Self::File(path.to_owned(), without_break(read).to_owned())
    }
}

/// Editors and `echo` end a file with a line break, which is no part of a password.
fn without_break(text: &str) -> &str {
    text.trim_end_matches(['\n', '\r'])
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again() {
        let path = std::env::temp_dir().join(format!("slackwater_secret_{}", std::process::id()));
        std::fs::write(&path, "first\n").expect("a file");
        let secret = Secret::of(vec![
            Part::Text("a:".into()),
            Part::file(&path, "first\r\n"),
            Part::Text("@b".into()),
        ]);
        std::fs::write(&path, "second\n").expect("a file");
        assert_eq!(secret.expose(), "a:first@b");
        assert_eq!(secret.expose_fresh().expect("readable"), "a:second@b");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(secret.expose_fresh().expect_err("gone").0, path);
        assert!(!format!("{secret} {secret:?}").contains("first"));
        assert_eq!(Secret::new("x").expose_fresh().expect("no file"), "x");
    }
}

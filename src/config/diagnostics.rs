//! What is wrong in a migration file: where, what, and what would mend it.
//!
//! Mistakes are collected, never thrown one by one, so a person mends a file in one go. The text of the file is shown
//! with passwords blotted out: people write connection strings into files against all advice.

use std::fmt;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::Serialize;

use super::blot::{blot_secrets, reveal};
use super::tree::Node;

/// A place in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub(crate) offset: usize,
    pub(crate) length: usize,
    /// The migration file is 0, those that it includes follow.
    pub(crate) file: u16,
}

/// A value with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

impl<T> At<T> {
    /// A value and its place.
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The migration cannot run.
    Error,
    /// It can run; somebody should have looked at this.
    Warning,
}

/// One mistake or one warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file: the migration file, or one that it includes.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip)]
    place: Place,
}

impl Diagnostic {
    /// In a file that the migration file includes.
    pub(crate) fn is_included(&self) -> bool {
        self.place.file > 0
    }
}

/// All that was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostics {
    source: FileText,
    list: Vec<Diagnostic>,
}

/// The names of the migration file and of those that it includes, and their texts, as far as they may be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FileText {
    files: Vec<(Arc<str>, Arc<str>)>,
}

impl FileText {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let mut file = Self { files: Vec::new() };
        file.add(name, text);
        file
    }

    /// One more; its number.
    fn add(&mut self, name: &str, text: &str) -> u16 {
        self.files.push((name.into(), blot_secrets(text).into()));
        (self.files.len() - 1) as u16
    }

    fn name(&self, file: u16) -> &str {
        self.files.get(usize::from(file)).map_or("", |(name, _)| name)
    }

    /// A line, as it is named in what is said of another place.
    pub(crate) fn line(&self, place: Place, from: Place) -> String {
        match place.file == from.file {
            true => format!("line {}", place.line),
            false => format!("{}, line {}", self.name(place.file), place.line),
        }
    }
}

impl fmt::Debug for FileText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileText({})", self.name(0))
    }
}

/// Collects while reading and compiling go on.
#[derive(Debug)]
pub(crate) struct Findings {
    source: FileText,
    list: Vec<Diagnostic>,
}

impl Findings {
    pub(crate) fn new(source: FileText) -> Self {
        Self { source, list: Vec::new() }
    }

    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Error, place, message.into(), help.into());
    }

    pub(crate) fn warning(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Warning, place, message.into(), help.into());
    }

    fn add(&mut self, severity: Severity, place: Place, message: String, help: String) {
        let help = (!help.is_empty()).then_some(help);
        let file = self.source.name(place.file).to_owned();
        let (line, column) = (place.line, place.column);
        self.list.push(Diagnostic { severity, file, line, column, message, help, place });
    }

    /// One more file; its number.
    pub(super) fn include(&mut self, name: &str, text: &str) -> u16 {
        self.source.add(name, text)
    }

    /// The file could be read: more of its text may be shown.
    pub(super) fn reveal(&mut self, file: u16, text: &str, root: &Node) {
        if let Some((_, shown)) = self.source.files.get_mut(usize::from(file)) {
            *shown = reveal(shown, text, root).into();
        }
    }

    /// A line, as it is named in what is said of another place.
    pub(crate) fn line(&self, place: Place, from: Place) -> String {
        self.source.line(place, from)
    }

    /// The file, as far as it may be shown.
    pub(crate) fn file(&self) -> FileText {
        self.source.clone()
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    pub(crate) fn errors(&self) -> usize {
        self.list.iter().filter(|found| found.severity == Severity::Error).count()
    }

    /// In the order of the file.
    pub(crate) fn finish(mut self) -> Diagnostics {
        self.list.sort_by_key(|found| (found.place.file, found.line, found.column));
        self.list.dedup();
        Diagnostics { source: self.source, list: self.list }
    }
}

impl Diagnostics {
    /// The mistakes and warnings, in the order of the file.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// "2 errors, 1 warning".
    pub(crate) fn counted(&self) -> String {
        let count = |many: usize, one: &str| format!("{many} {one}{}", if many == 1 { "" } else { "s" });
        format!("{}, {}", count(self.errors(), "error"), count(self.list.len() - self.errors(), "warning"))
    }

    /// The same, errors before warnings.
    pub(crate) fn errors_first(&self) -> Self {
        let mut list = self.list.clone();
        list.sort_by_key(|found| found.severity == Severity::Warning);
        Self { source: self.source.clone(), list }
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|found| found.severity == Severity::Error).count()
    }

    /// The list for a machine to read.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "file": self.source.name(0), "diagnostics": self.list })
    }

    /// For a terminal: the lines of the file with the culprits marked.
    pub fn report(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(110);
        let sources: Vec<NamedSource<String>> = self
            .source
            .files
            .iter()
            .map(|(name, shown)| NamedSource::new(&**name, shown.to_string()))
            .collect();
        let mut text = String::new();
        for found in &self.list {
            let Some(source) = sources.get(usize::from(found.place.file)) else { continue };
            let shown = Shown { found, source };
            if handler.render_report(&mut text, &shown).is_err() {
                text.push_str(&found.message);
            }
            text.push('\n');
        }
        text
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl fmt::Display for Diagnostics {
    /// A line each, as compilers print them, with the remedy below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let severity = match found.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let (name, line, column) = (&found.file, found.line, found.column);
            write!(f, "{name}:{line}:{column}: {severity}: {}", found.message)?;
            if let Some(help) = &found.help {
                write!(f, "\n    help: {help}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Diagnostics {}

struct Shown<'a> {
    found: &'a Diagnostic,
    source: &'a NamedSource<String>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found.fmt(f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.found.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.found.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Place { offset, length, .. } = self.found.place;
        Some(Box::new(std::iter::once(LabeledSpan::new(Some("here".into()), offset, length))))
    }
}

//! Taking a mapping apart key by key, with every slip reported at its place.

use std::time::Duration;

use super::diagnostics::{At, Findings, Place};
use super::path::Path;
use super::spelling::{list, nearest};
use super::tree::{Node, Scalar, Shape};

/// The keys of one mapping, taken one after the other; what is left at the end is unknown.
pub(super) struct Fields<'n> {
    what: &'static str,
    place: Place,
    entries: Vec<(&'n At<String>, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// The mapping, or a complaint about its shape. Keys that occur twice are reported and the first one kept.
    pub(super) fn of(node: &'n Node, what: &'static str, findings: &mut Findings) -> Option<Self> {
        let Shape::Map(map) = &node.shape else {
            let message = format!("{what} must be a mapping (`key: value`), this is {}", node.kind());
            findings.error(node.place, message, "");
            return None;
        };
        let mut entries: Vec<(&At<String>, &Node)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            if let Some((first, _)) = entries.iter().find(|(seen, _)| seen.value == key.value) {
                let first = findings.line(first.place, key.place);
                let message = format!("`{}` is written twice, first in {first}", key.value);
                findings.error(key.place, message, "keep one of them");
            } else {
                entries.push((key, value));
            }
        }
        Some(Self { what, place: node.place, entries })
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn take(&mut self, name: &str) -> Option<(&'n At<String>, &'n Node)> {
        let index = self.entries.iter().position(|(key, _)| key.value == name)?;
        Some(self.entries.remove(index))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.value == name)
    }

    /// The keys that were not taken yet.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.value.as_str())
    }

    /// A key that must be there.
    pub(super) fn require(
        &mut self,
        name: &str,
        help: &str,
        findings: &mut Findings,
    ) -> Option<(&'n At<String>, &'n Node)> {
        let found = self.take(name);
        if found.is_none() {
            findings.error(self.place, format!("{} has no `{name}`", self.what), help);
        }
        found
    }

    /// All entries, for mappings whose keys are names.
    pub(super) fn into_entries(self) -> Vec<(&'n At<String>, &'n Node)> {
        self.entries
    }

    /// Whatever was not taken is unknown.
    pub(super) fn finish(self, known: &[&str], findings: &mut Findings) {
        for (key, _) in self.entries {
            let help = match nearest(&key.value, known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", list(known.iter().copied())),
            };
            findings.error(key.place, format!("{} knows no `{}`", self.what, key.value), help);
        }
    }
}

pub(super) fn scalar<'n>(node: &'n Node, what: &str, findings: &mut Findings) -> Option<&'n Scalar> {
    match &node.shape {
        Shape::Scalar(scalar) => Some(scalar),
        Shape::Seq(_) | Shape::Map(_) => {
            findings.error(
                node.place,
                format!("{what} must be a single value, this is {}", node.kind()),
                "write one value",
            );
            None
        }
    }
}

/// Text that is not empty.
pub(super) fn text(node: &Node, what: &str, findings: &mut Findings) -> Option<At<String>> {
    let scalar = scalar(node, what, findings)?;
    if scalar.is_null() || scalar.text.is_empty() {
        findings.error(node.place, format!("{what} is empty"), "");
        return None;
    }
    Some(At::new(scalar.text.clone(), node.place))
}

pub(super) fn boolean(node: &Node, what: &str, findings: &mut Findings) -> Option<bool> {
    match scalar(node, what, findings)?.text.as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => {
            findings.error(node.place, format!("{what} is `true` or `false`"), "");
            None
        }
    }
}

/// One word out of a few.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    words: &[(&str, T)],
    findings: &mut Findings,
) -> Option<T> {
    let scalar = scalar(node, what, findings)?;
    // `null:` without quotes is the word too.
    let written = if scalar.is_null() { "null" } else { scalar.text.as_str() };
    let found = words.iter().find(|(word, _)| *word == written).map(|(_, value)| *value);
    if found.is_none() {
        let help = match nearest(written, words.iter().map(|(word, _)| *word)) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("it is {}", list(words.iter().map(|(word, _)| *word))),
        };
        findings.error(node.place, format!("{what} cannot be `{written}`"), help);
    }
    found
}

pub(super) fn path(node: &Node, what: &str, findings: &mut Findings) -> Option<At<Path>> {
    let text = text(node, what, findings)?;
    match Path::parse(&text.value) {
        Ok(path) => Some(At::new(path, text.place)),
        Err(why) => {
            let help = "paths look like `a.b`, `tags[].name`, in elements also `.` and `^.field`";
            findings.error(node.place, format!("`{}` is not a path: {why}", text.value), help);
            None
        }
    }
}

/// A whole number above zero.
pub(super) fn count(node: &Node, what: &str, findings: &mut Findings) -> Option<u64> {
    let text = text(node, what, findings)?;
    let number = text.value.replace('_', "").parse().ok().filter(|number| *number > 0);
    if number.is_none() {
        findings.error(node.place, format!("{what} must be a whole number above 0"), "");
    }
    number
}

/// A time: `2s`, `500ms`, `1m`.
pub(super) fn duration(node: &Node, what: &str, findings: &mut Findings) -> Option<Duration> {
    let text = text(node, what, findings)?;
    let duration = span(&text.value);
    if duration.is_none() {
        findings.error(node.place, format!("{what} must be a time"), "such as `2s` or `500ms`");
    }
    duration
}

/// The same in words of the command line.
pub(crate) fn span(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
    let millis =
        number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    millis.filter(|millis| *millis > 0).map(Duration::from_millis)
}

/// A size: `8MiB`, `500kB`, `1048576`.
pub(super) fn size(node: &Node, what: &str, findings: &mut Findings) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("", 1),
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let text = text(node, what, findings)?;
    let digits = text.value.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.value.len());
    let (number, unit) = text.value.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
    let bytes =
        number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    let bytes = bytes.filter(|bytes| *bytes > 0);
    if bytes.is_none() {
        findings.error(node.place, format!("{what} must be a size"), "such as `8MiB` or `500kB`");
    }
    bytes
}

/// A list; a single value counts as a list of one where `single` allows it.
pub(super) fn items<'n>(
    node: &'n Node,
    what: &str,
    single: bool,
    findings: &mut Findings,
) -> Option<&'n [Node]> {
    match &node.shape {
        Shape::Seq(list) => Some(list),
        _ if single => Some(std::slice::from_ref(node)),
        _ => {
            findings.error(node.place, format!("{what} must be a list, this is {}", node.kind()), "");
            None
        }
    }
}

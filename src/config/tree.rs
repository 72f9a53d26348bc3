//! The file as a tree in which every node knows its place.
//!
//! YAML is read into this generic shape first, so that a wrong shape in one corner does not hide the mistakes of the
//! others. Plain scalars keep the text as written (`1.10` stays `1.10`, `null` is the word until somebody asks).
//!
//! Paths hold `[]` and `{}`, which YAML takes without quotes only outside of `{ … }`. Nobody should have to know that, so both are
//! hidden from the YAML reader right behind a name, each by a letter of the same two bytes; every span stays right.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::diagnostics::{At, Findings, Place};

/// A node of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) shape: Shape,
}

/// What it is.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Scalar(Scalar),
    Seq(Vec<Node>),
    /// In the order of the file, duplicates included.
    Map(Vec<(At<String>, Node)>),
}

/// A scalar as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text, without quotes.
    pub text: String,
    /// In quotes: text, whatever it looks like.
    pub quoted: bool,
}

impl Scalar {
    /// The absence of a value: nothing, `~`, or `null` without quotes.
    pub fn is_null(&self) -> bool {
        !self.quoted && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Node {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.shape {
            Shape::Scalar(scalar) if scalar.is_null() => "nothing",
            Shape::Scalar(_) => "a single value",
            Shape::Seq(_) => "a list",
            Shape::Map(_) => "a mapping",
        }
    }

    /// The entries of a mapping, or of the mappings in a list.
    pub(super) fn entries(&self) -> Vec<&(At<String>, Node)> {
        match &self.shape {
            Shape::Scalar(_) => Vec::new(),
            Shape::Seq(list) => list.iter().flat_map(Self::entries).collect(),
            Shape::Map(entries) => entries.iter().collect(),
        }
    }
}

/// What stands for them while YAML is read: two bytes in UTF-8, and assigned to no script.
const HIDDEN: [(&str, char); 2] = [("[]", '\u{378}'), ("{}", '\u{379}')];

/// The letters are in use, so nothing can be hidden behind them.
fn are_taken(text: &str) -> bool {
    HIDDEN.iter().any(|(_, letter)| text.contains(*letter))
}

fn hide_brackets(text: &str) -> String {
    if are_taken(text) {
        return text.to_owned();
    }
    HIDDEN.iter().fold(text.to_owned(), |text, (brackets, letter)| hide(&text, brackets, *letter))
}

fn hide(text: &str, brackets: &str, letter: char) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(brackets) {
        hidden.push_str(&rest[..at]);
        let behind_name = rest[..at]
            .chars()
            .next_back()
            .is_some_and(|letter| letter.is_alphanumeric() || "_-$".contains(letter));
        if behind_name {
            hidden.push(letter);
        } else {
            hidden.push_str(brackets);
        }
        rest = &rest[at + brackets.len()..];
    }
    hidden.push_str(rest);
    hidden
}

/// As it was written.
fn shown(value: String, text: &str) -> String {
    if are_taken(text) {
        return value;
    }
    HIDDEN.iter().fold(value, |value, (brackets, letter)| value.replace(*letter, brackets))
}

/// Reads the text. A syntax error is reported and ends it, for what follows cannot be told apart.
pub(super) fn read(file: u16, text: &str, findings: &mut Findings) -> Option<Node> {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(&hide_brackets(text), options) {
        Ok(root) => Some(node(root, &Text::new(file, text))),
        Err(error) => {
            let location = error.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
            let text = &Text::new(file, text);
            let mut place = place(location, text);
            if location.span().byte_offset().is_none() || place.offset == 0 {
                // The scanner's own errors know line and column only.
                place = at_line(location, text);
            }
            let full = error.without_snippet().to_string();
            let what = full.split(" at line ").next().unwrap_or_default();
            findings.error(
                place,
                format!("this is no YAML: {what}"),
                "mend this first: what follows cannot be read",
            );
            None
        }
    }
}

enum Raw {
    Scalar(Option<String>),
    Seq(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(value.to_string())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(value.to_string())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(value.to_string())))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(value.to_string())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Some(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element()? {
            list.push(item);
        }
        Ok(Raw::Seq(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries: Vec<(Spanned<Raw>, Spanned<Raw>)> = Vec::new();
        while let Some(key) = access.next_key::<Spanned<Raw>>()? {
            if !matches!(key.value, Raw::Scalar(_)) {
                return Err(A::Error::custom("a key must be a single word"));
            }
            entries.push((key, access.next_value()?));
        }
        Ok(Raw::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

/// A file's text, with the beginnings of its lines.
struct Text<'t> {
    file: u16,
    text: &'t str,
    lines: Vec<usize>,
}

impl<'t> Text<'t> {
    fn new(file: u16, text: &'t str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines }
    }
}

fn place(location: serde_saphyr::Location, Text { file, text, lines }: &Text<'_>) -> Place {
    let span = location.span();
    let offset = usize::try_from(span.byte_offset().unwrap_or(0)).unwrap_or(0).min(text.len());
    let length = usize::try_from(span.byte_len().unwrap_or(0)).unwrap_or(0).min(text.len() - offset);
    // Counted in the text as it was written, not as the reader saw it.
    let line = lines.partition_point(|begin| *begin <= offset).max(1);
    let before = text.get(lines[line - 1]..offset).unwrap_or_default();
    Place { line, column: before.chars().count() + 1, offset, length, file: *file }
}

fn at_line(location: serde_saphyr::Location, Text { file, text, .. }: &Text<'_>) -> Place {
    let line = usize::try_from(location.line()).unwrap_or(0).max(1);
    let column = usize::try_from(location.column()).unwrap_or(0).max(1);
    let offset: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    Place { line, column, offset: offset.min(text.len()), length: 0, file: *file }
}

fn node(raw: Spanned<Raw>, text: &Text<'_>) -> Node {
    let at = place(raw.referenced, text);
    let defined = place(raw.defined, text);
    let shape = match raw.value {
        Raw::Scalar(value) => Shape::Scalar(scalar(value, defined, text.text)),
        Raw::Seq(list) => Shape::Seq(list.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Shape::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = place(key.referenced, text);
                    let defined = place(key.defined, text);
                    let name = match key.value {
                        Raw::Scalar(name) => scalar(name, defined, text.text).text,
                        Raw::Seq(_) | Raw::Map(_) => String::new(),
                    };
                    (At::new(name, at), node(value, text))
                })
                .collect(),
        ),
    };
    // A mapping's span runs over all its lines; its first character is enough to point at.
    let at = match shape {
        Shape::Scalar(_) => at,
        Shape::Seq(_) | Shape::Map(_) => Place { length: at.length.min(1), ..at },
    };
    Node { place: at, shape }
}

fn scalar(value: Option<String>, place: Place, text: &str) -> Scalar {
    let written = text.get(place.offset..place.offset + place.length).unwrap_or_default().trim();
    let value = value.map(|value| shown(value, text));
    match (value, written.as_bytes().first()) {
        (Some(value), Some(b'"' | b'\'' | b'|' | b'>')) => Scalar { text: value, quoted: true },
        // As written, where the parser gave a typed value; its own text where the two differ (folded lines).
        (Some(value), Some(_)) if written.contains('\n') => Scalar { text: value, quoted: false },
        (_, Some(_)) => Scalar { text: written.to_owned(), quoted: false },
        (value, None) => Scalar { text: value.unwrap_or_default(), quoted: false },
    }
}

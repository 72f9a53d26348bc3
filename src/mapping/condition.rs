//! `when`: whether a document, or an element, is one for a table. Pure, over the values that were found anyway.

use std::cmp::Ordering;

use regex::bytes::Regex;
use slackwater_topics::{Malformed, Value};

use super::encode::{Scratch, as_float, follow, micros_of_text};
use super::row::Frame;
use super::trie::{Slots, Trie};
use crate::config::{Predicate, Scalar, Side, Test};

/// A condition, compiled.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Value {
        place: Place,
        /// After `[]`: the names to follow within each element.
        each: Option<Vec<Box<[u8]>>>,
        passes: Passes,
    },
}

/// Where the value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Document(usize),
    /// Of an element, so many levels further out than the innermost.
    Element {
        up: usize,
        slot: usize,
    },
    ElementItself,
}

#[derive(Debug)]
pub(super) enum Passes {
    Is(Vec<Wanted>),
    Exists(bool),
    Matches(Regex),
    Limit(Side, Box<Wanted>),
}

/// A value of the file, as each type may have to see it.
#[derive(Debug)]
pub(super) struct Wanted {
    /// `null`, without quotes.
    null: bool,
    text: Box<[u8]>,
    /// In quotes it is text and no number.
    whole: Option<i64>,
    number: Option<f64>,
    truth: Option<bool>,
    micros: Option<i128>,
    id: Option<[u8; 12]>,
    uuid: Option<uuid::Uuid>,
}

impl Condition {
    /// Slots of its values are made where they are new. `levels`: the names in elements, for tables made of elements; the innermost last.
    pub(super) fn compile(predicate: &Predicate, document: &mut Trie, levels: &mut [Trie]) -> Self {
        let mut all = |parts: &[Predicate], document: &mut Trie| -> Vec<Self> {
            parts.iter().map(|part| Self::compile(part, document, levels)).collect()
        };
        match predicate {
            Predicate::All(parts) => Self::All(all(parts, document)),
            Predicate::Any(parts) => Self::Any(all(parts, document)),
            Predicate::Not(inner) => Self::Not(Box::new(Self::compile(inner, document, levels))),
            Predicate::Value { path, test } => {
                let path = &path.value;
                let at = levels.len().checked_sub(path.up + 1);
                let place = match at.and_then(|at| levels.get_mut(at)) {
                    Some(_) if path.is_element() => Place::ElementItself,
                    Some(level) => Place::Element { up: path.up, slot: level.look(&path.names) },
                    None => Place::Document(document.look(&path.names)),
                };
                let each =
                    path.each.as_ref().map(|names| names.iter().map(|name| name.as_bytes().into()).collect());
                Self::Value { place, each, passes: Passes::of(test) }
            }
        }
    }

    /// Whether it holds. `frames`: the elements that are looked at, the innermost last.
    pub(super) fn holds<'a>(&self, document: &Slots<'a>, frames: &[Frame<'a>]) -> Result<bool, Malformed> {
        Ok(match self {
            Self::All(parts) => {
                for part in parts {
                    if !part.holds(document, frames)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Any(parts) => {
                for part in parts {
                    if part.holds(document, frames)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::Not(inner) => !inner.holds(document, frames)?,
            Self::Value { place, each, passes } => {
                let value = match place {
                    Place::Document(slot) => document.get(*slot).copied().flatten(),
                    Place::Element { up, slot } => {
                        frames.iter().nth_back(*up).and_then(|frame| frame.slot(*slot))
                    }
                    Place::ElementItself => frames.last().map(|frame| frame.value),
                };
                match each {
                    None => passes.value(value),
                    Some(names) => some_element(value, names, passes)?,
                }
            }
        })
    }
}

/// Whether some element passes; of `exists: false`, whether none has a value.
fn some_element(value: Option<Value<'_>>, names: &[Box<[u8]>], passes: &Passes) -> Result<bool, Malformed> {
    let none = matches!(passes, Passes::Exists(false));
    let elements = match value {
        Some(Value::Array(array) | Value::Document(array)) => array,
        _ => return Ok(none),
    };
    for element in elements.elements() {
        let (_, element) = element?;
        let value = follow(element, names).map_err(|_| Malformed { at: 0 })?;
        let found = if none { value.is_some() } else { passes.value(value) };
        if found {
            return Ok(!none);
        }
    }
    Ok(none)
}

impl Passes {
    fn of(test: &Test) -> Self {
        match test {
            Test::Is(scalars) => Self::Is(scalars.iter().map(|scalar| Wanted::of(&scalar.value)).collect()),
            Test::Exists(there) => Self::Exists(*there),
            Test::Matches(pattern) => match Regex::new(&pattern.value) {
                Ok(pattern) => Self::Matches(pattern),
                // It was read before: what cannot be read is reported there.
                Err(_) => Self::Is(Vec::new()),
            },
            Test::Limit(side, scalar) => Self::Limit(*side, Box::new(Wanted::of(&scalar.value))),
        }
    }

    fn value(&self, value: Option<Value<'_>>) -> bool {
        let value = value.filter(|value| !matches!(value, Value::Null | Value::Undefined));
        let Some(value) = value else {
            // `in` may name null.
            return match self {
                Self::Exists(there) => !there,
                Self::Is(wanted) => wanted.iter().any(|wanted| wanted.null),
                Self::Matches(_) | Self::Limit(..) => false,
            };
        };
        match self {
            Self::Exists(there) => *there,
            Self::Is(wanted) => wanted.iter().any(|wanted| wanted.compare(value) == Some(Ordering::Equal)),
            Self::Matches(pattern) => match value {
                Value::String(text) | Value::Symbol(text) => pattern.is_match(text),
                _ => false,
            },
            Self::Limit(side, wanted) => wanted.compare(value).is_some_and(|order| match side {
                Side::Above => order == Ordering::Greater,
                Side::AtLeast => order != Ordering::Less,
                Side::Below => order == Ordering::Less,
                Side::AtMost => order != Ordering::Greater,
            }),
        }
    }
}

impl Wanted {
    fn of(scalar: &Scalar) -> Self {
        let text = scalar.text.as_str();
        let digits = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = digits.then(|| {
            let mut id = [0; 12];
            for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                let digit = |letter: u8| char::from(letter).to_digit(16).unwrap_or_default() as u8;
                *byte = digit(pair[0]) << 4 | digit(pair[1]);
            }
            id
        });
        Self {
            null: scalar.is_null(),
            text: text.as_bytes().into(),
            whole: text.parse().ok().filter(|_| !scalar.quoted),
            number: text.parse().ok().filter(|_| !scalar.quoted),
            truth: text.parse().ok().filter(|_| !scalar.quoted),
            micros: micros_of_text(text.as_bytes()),
            id,
            uuid: uuid::Uuid::try_parse(text).ok(),
        }
    }

    /// How the value of a document stands to this one; none where they cannot be compared.
    fn compare(&self, value: Value<'_>) -> Option<Ordering> {
        match value {
            _ if self.null => None,
            Value::String(text) | Value::Symbol(text) => Some(text.cmp(&self.text)),
            Value::Int32(number) => self.with_whole(i64::from(number)),
            Value::Int64(number) => self.with_whole(number),
            Value::Double(number) => number.partial_cmp(&self.number?),
            Value::Decimal128(_) => as_float(value, &mut Scratch::default()).ok()?.partial_cmp(&self.number?),
            Value::Boolean(truth) => Some(truth.cmp(&self.truth?)),
            Value::DateTime(millis) => Some((i128::from(millis) * 1_000).cmp(&self.micros?)),
            Value::ObjectId(id) => Some(id[..].cmp(&self.id?[..])),
            Value::Binary { subtype: 3 | 4, bytes } => Some(bytes.cmp(self.uuid?.as_bytes())),
            _ => None,
        }
    }

    fn with_whole(&self, number: i64) -> Option<Ordering> {
        match self.whole {
            Some(whole) => Some(number.cmp(&whole)),
            None => (number as f64).partial_cmp(&self.number?),
        }
    }
}

//! `when`: what has to hold of a document, or an element, for a table to take it.

use super::diagnostics::{At, Findings};
use super::fields::{self, Fields};
use super::path::Path;
use super::rules::fits_depth;
use super::spelling::{list, nearest};
use super::tree::{Node, Scalar, Shape};

/// A condition.
#[derive(Clone, Debug)]
pub enum Predicate {
    /// Every one holds.
    All(Vec<Predicate>),
    /// At least one holds.
    Any(Vec<Predicate>),
    /// It does not hold.
    Not(Box<Predicate>),
    /// A value passes; of a path with `[]`, the value of some element.
    Value {
        /// The value's place.
        path: At<Path>,
        /// What it has to pass.
        test: Test,
    },
}

/// What one value is tested for.
#[derive(Clone, Debug)]
pub enum Test {
    /// It is one of these.
    Is(Vec<At<Scalar>>),
    /// There is a value, or there is none.
    Exists(bool),
    /// Some part of the text matches this pattern.
    Matches(At<String>),
    /// It is on this side of a limit.
    Limit(Side, At<Scalar>),
}

/// The side of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Side {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Predicate {
    /// Every path in it.
    pub(crate) fn paths(&self) -> Vec<&At<Path>> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::paths).collect(),
            Self::Not(inner) => inner.paths(),
            Self::Value { path, .. } => vec![path],
        }
    }
}

const TESTS: [&str; 9] = ["is", "in", "not", "exists", "matches", "above", "at_least", "below", "at_most"];
const SIDES: [(&str, Side); 4] =
    [("above", Side::Above), ("at_least", Side::AtLeast), ("below", Side::Below), ("at_most", Side::AtMost)];

/// Reads a condition: a mapping of paths to tests, and of `all`, `any` and `not` to conditions. All entries have to hold.
pub(super) fn predicate(node: &Node, depth: usize, findings: &mut Findings) -> Option<Predicate> {
    let entries = Fields::of(node, "a condition", findings)?.into_entries();
    if entries.is_empty() {
        let help = "name a field and what it must be: `when: { kind: invoice }`";
        findings.error(node.place, "the condition says nothing", help);
        return None;
    }
    let count = entries.len();
    let mut parts: Vec<Predicate> = Vec::with_capacity(count);
    for (key, node) in entries {
        parts.extend(match key.value.as_str() {
            "all" => several(node, depth, findings).map(Predicate::All),
            "any" => several(node, depth, findings).map(Predicate::Any),
            "not" => predicate(node, depth, findings).map(|inner| Predicate::Not(Box::new(inner))),
            _ => value(key, node, depth, findings),
        });
    }
    (parts.len() == count).then(|| one(parts))
}

fn one(mut parts: Vec<Predicate>) -> Predicate {
    if parts.len() == 1 { parts.remove(0) } else { Predicate::All(parts) }
}

fn several(node: &Node, depth: usize, findings: &mut Findings) -> Option<Vec<Predicate>> {
    let nodes = fields::items(node, "a list of conditions", false, findings)?;
    let parts: Vec<Predicate> = nodes.iter().filter_map(|node| predicate(node, depth, findings)).collect();
    if nodes.is_empty() {
        findings.error(node.place, "the list of conditions is empty", "add a condition, or take it out");
    }
    (parts.len() == nodes.len() && !nodes.is_empty()).then_some(parts)
}

fn value(key: &At<String>, node: &Node, depth: usize, findings: &mut Findings) -> Option<Predicate> {
    let path = match Path::parse(&key.value) {
        Ok(path) => path,
        Err(why) => {
            let help = "a condition is `field: value`, `field: { exists: true }`, `all`, `any` or `not`";
            findings.error(key.place, format!("`{}` is not a path: {why}", key.value), help);
            return None;
        }
    };
    let path = At::new(path, key.place);
    if !fits_depth(&path, depth, findings) {
        return None;
    }
    tests(&path, node, findings)
}

/// All tests of one value.
fn tests(path: &At<Path>, node: &Node, findings: &mut Findings) -> Option<Predicate> {
    let of = |test: Test| Predicate::Value { path: path.clone(), test };
    if let Shape::Scalar(scalar) = &node.shape {
        return Some(of(is(vec![At::new(scalar.clone(), node.place)])));
    }
    let entries = Fields::of(node, "a test", findings)?.into_entries();
    let count = entries.len();
    let mut parts = Vec::with_capacity(count);
    for (key, node) in entries {
        let word = key.value.as_str();
        parts.extend(match word {
            "is" => at(node, findings).map(|scalar| of(is(vec![scalar]))),
            "in" => among(node, findings).map(|scalars| of(is(scalars))),
            "not" => tests(path, node, findings).map(|inner| Predicate::Not(Box::new(inner))),
            "exists" => fields::boolean(node, "`exists`", findings).map(|there| of(Test::Exists(there))),
            "matches" => pattern(node, findings).map(|pattern| of(Test::Matches(pattern))),
            _ => match SIDES.iter().find(|(name, _)| *name == word) {
                Some((_, side)) => at(node, findings).map(|limit| of(Test::Limit(*side, limit))),
                None => {
                    let help = match nearest(word, TESTS) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("one of {}", list(TESTS)),
                    };
                    findings.error(key.place, format!("there is no test `{word}`"), help);
                    None
                }
            },
        });
    }
    if count == 0 {
        findings.error(node.place, "nothing is tested", format!("one of {}", list(TESTS)));
    }
    (parts.len() == count && count > 0).then(|| one(parts))
}

/// `null` is no value at all.
fn is(scalars: Vec<At<Scalar>>) -> Test {
    match &scalars[..] {
        [only] if only.value.is_null() => Test::Exists(false),
        _ => Test::Is(scalars),
    }
}

fn at(node: &Node, findings: &mut Findings) -> Option<At<Scalar>> {
    fields::scalar(node, "the value", findings).map(|scalar| At::new(scalar.clone(), node.place))
}

fn among(node: &Node, findings: &mut Findings) -> Option<Vec<At<Scalar>>> {
    let nodes = fields::items(node, "`in`", false, findings)?;
    if nodes.is_empty() {
        findings.error(node.place, "`in` names no value, so nothing would fit", "add values");
        return None;
    }
    let scalars: Vec<_> = nodes.iter().filter_map(|node| at(node, findings)).collect();
    (scalars.len() == nodes.len()).then_some(scalars)
}

fn pattern(node: &Node, findings: &mut Findings) -> Option<At<String>> {
    let text = fields::text(node, "`matches`", findings)?;
    match regex::bytes::Regex::new(&text.value) {
        Ok(_) => Some(text),
        Err(_) => {
            let help =
                "patterns are regular expressions without look-around and back references: `^INV-[0-9]+$`";
            findings.error(node.place, "this pattern cannot be read", help);
            None
        }
    }
}

//! Stages of an aggregation and filters, written in YAML, as BSON.
//!
//! Scalars without quotes are what they look like: numbers, `true`, `null`; others are text. What YAML cannot write is extended JSON:
//! `{ $date: … }`, `{ $oid: … }`, `{ $numberDecimal: … }`.

use std::fmt::Write as _;

use slackwater_topics::extjson;

use super::diagnostics::{At, Findings};
use super::tree::{Node, Scalar, Shape};

/// Stages that write, or never end.
const REFUSED: [&str; 4] = ["$out", "$merge", "$changeStream", "$changeStreamSplitLargeEvent"];

/// Objects that stand for a value of another type, and whether what is in them is text whatever it looks like.
const WRAPPERS: [(&str, bool); 15] = [
    ("$oid", true),
    ("$date", true),
    ("$numberInt", true),
    ("$numberLong", true),
    ("$numberDouble", true),
    ("$numberDecimal", true),
    ("$uuid", true),
    ("$symbol", true),
    ("$code", true),
    ("$binary", true),
    ("$timestamp", false),
    ("$regularExpression", true),
    ("$minKey", false),
    ("$maxKey", false),
    ("$undefined", false),
];

/// The stages, as a document that holds them under `pipeline`. Nothing if there is a mistake in them, which is reported.
pub(super) fn stages(node: &Node, findings: &mut Findings) -> Option<Vec<u8>> {
    let Shape::Seq(stages) = &node.shape else {
        let help = "such as `[ { $group: { _id: null, total: { $sum: $amount } } } ]`";
        findings.error(
            node.place,
            format!("`aggregate` must be a list of stages, this is {}", node.kind()),
            help,
        );
        return None;
    };
    if stages.is_empty() {
        let help = "leave it out to count the documents";
        findings.error(node.place, "`aggregate` has no stage", help);
        return None;
    }
    let mut good = true;
    for stage in stages {
        let named = match &stage.shape {
            Shape::Map(entries) => matches!(&entries[..], [(key, _)] if key.value.starts_with('$')),
            Shape::Scalar(_) | Shape::Seq(_) => false,
        };
        if !named {
            let help = "such as `{ $match: { paid: true } }`";
            findings.error(stage.place, "a stage has one name, which begins with `$`", help);
            good = false;
        }
    }
    let mut text = "{\"pipeline\":".to_owned();
    good &= json(node, &mut text, findings);
    text.push('}');
    if good { read(&text, node, findings) } else { None }
}

/// Counts what fits a filter, by a field where there is one, as [`stages`] does.
pub(super) fn counting(
    filter: Option<&Node>,
    by: Option<&At<String>>,
    node: &Node,
    findings: &mut Findings,
) -> Option<Vec<u8>> {
    let mut text = "{\"pipeline\":[".to_owned();
    if let Some(filter) = filter {
        if !matches!(filter.shape, Shape::Map(_)) {
            let message = format!("`filter` must be a mapping, this is {}", filter.kind());
            findings.error(filter.place, message, "such as `{ paid: true }`");
            return None;
        }
        text.push_str("{\"$match\":");
        if !json(filter, &mut text, findings) {
            return None;
        }
        text.push_str("},");
    }
    let key = by.map_or_else(|| "null".to_owned(), |by| quoted(&format!("${}", by.value)));
    let _ = write!(text, "{{\"$group\":{{\"_id\":{key},\"count\":{{\"$sum\":1}}}}}}]}}");
    read(&text, node, findings)
}

fn read(text: &str, node: &Node, findings: &mut Findings) -> Option<Vec<u8>> {
    match extjson::read(text.as_bytes()) {
        Ok(bytes) => Some(bytes),
        Err(broken) => {
            findings.error(node.place, format!("this cannot be read: {} was expected", broken.expected), "");
            None
        }
    }
}

/// Appends a node as extended JSON; false if there is a mistake in it.
fn json(node: &Node, out: &mut String, findings: &mut Findings) -> bool {
    match &node.shape {
        Shape::Scalar(scalar) => return plain(scalar, node, out, findings),
        Shape::Seq(list) => {
            out.push('[');
            let mut good = true;
            for (place, node) in list.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                good &= json(node, out, findings);
            }
            out.push(']');
            return good;
        }
        Shape::Map(entries) => {
            if let Some((key, _)) = entries.first()
                && let Some((_, text)) = WRAPPERS.iter().find(|(name, _)| *name == key.value)
            {
                return wrapper(node, *text, out, findings);
            }
        }
    }
    let Shape::Map(entries) = &node.shape else { return true };
    let mut good = true;
    out.push('{');
    for (place, (key, node)) in entries.iter().enumerate() {
        if REFUSED.contains(&key.value.as_str()) {
            let message = format!("`{}` has no place in a check, which only reads", key.value);
            findings.error(key.place, message, "take the stage out");
            good = false;
        }
        if entries[..place].iter().any(|(before, _)| before.value == key.value) {
            findings.error(key.place, format!("`{}` is written twice", key.value), "keep one of them");
            good = false;
        }
        if place > 0 {
            out.push(',');
        }
        out.push_str(&quoted(&key.value));
        out.push(':');
        good &= json(node, out, findings);
    }
    out.push('}');
    good
}

/// A value of another type. It is read by itself, so that a mistake is told at its place.
fn wrapper(node: &Node, text: bool, out: &mut String, findings: &mut Findings) -> bool {
    let mut inside = String::new();
    if !wrapped(node, text, &mut inside, findings) {
        return false;
    }
    let mut bytes = Vec::new();
    if let Err(broken) = extjson::read_value(inside.as_bytes(), "x", &mut bytes) {
        let message = format!("this is no value of extended JSON: {} was expected", broken.expected);
        let help = "such as `{ $date: 2026-03-01T00:00:00Z }`, `{ $oid: 65f1a0b2c3d4e5f60718293a }`, `{ $numberDecimal: 1.10 }`";
        findings.error(node.place, message, help);
        return false;
    }
    out.push_str(&inside);
    true
}

fn wrapped(node: &Node, text: bool, out: &mut String, findings: &mut Findings) -> bool {
    match &node.shape {
        Shape::Scalar(scalar) if text => out.push_str(&quoted(&scalar.text)),
        Shape::Scalar(scalar) => return plain(scalar, node, out, findings),
        Shape::Seq(_) => return json(node, out, findings),
        Shape::Map(entries) => {
            out.push('{');
            for (place, (key, node)) in entries.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(&key.value));
                out.push(':');
                if !wrapped(node, text, out, findings) {
                    return false;
                }
            }
            out.push('}');
        }
    }
    true
}

fn plain(scalar: &Scalar, node: &Node, out: &mut String, findings: &mut Findings) -> bool {
    let text = scalar.text.as_str();
    if scalar.is_null() {
        out.push_str("null");
    } else if scalar.quoted || !looks_like_a_number(text) {
        match text {
            "true" | "false" if !scalar.quoted => out.push_str(text),
            _ => out.push_str(&quoted(text)),
        }
    } else if let Ok(whole) = text.parse::<i64>() {
        let _ = write!(out, "{whole}");
    } else if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-".contains(&byte)) {
        let help = "write it as `{ $numberDecimal: \"…\" }`, or in quotes if it is text";
        findings.error(node.place, "a whole number of more than 64 bits", help);
        return false;
    } else {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                let _ = write!(out, "{number:?}");
            }
            _ => out.push_str(&quoted(text)),
        }
    }
    true
}

fn looks_like_a_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && unsigned.bytes().any(|byte| byte.is_ascii_digit())
        && unsigned.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
}

/// As JSON writes text.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

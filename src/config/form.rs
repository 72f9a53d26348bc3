//! What a collection's rows are made by, in a form that says whether two files mean the same.
//!
//! It is made of the file's text, not of what a version of the program understands of it: a new version, or a new kind of rule, changes
//! no form. Formatting, comments, the order of keys, words that say what holds anyway, and whatever rows do not depend on are no part
//! of it. Only digests are kept, so a constant of the file is not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::path::Levels;
use super::rules::{CIPHERS, is_maker};
use super::tree::{Node, Scalar, Shape};

/// What the rows of a collection are made by: its tables, each with its schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form(pub(crate) BTreeMap<String, TableForm>);

/// Stands for the table of ours with what is looked up in a collection's documents.
pub(crate) const LOOKED_UP: &str = "what is looked up";

impl Form {
    /// Other rules take these fields of the collection's documents.
    pub(super) fn take(&mut self, fields: &std::collections::BTreeSet<String>) {
        let column = |field: &String| {
            let rule = digest(field);
            (field.clone(), ColumnForm { value: rule.clone(), rule })
        };
        let table = TableForm { columns: fields.iter().map(column).collect(), ..TableForm::default() };
        self.0.insert(LOOKED_UP.to_owned(), table);
    }
}

/// What the rows of one table are made by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableForm {
    /// The key, where the file states it; sorted.
    pub(crate) key: Vec<String>,
    /// Of what decides which rows there are: the array, and what else the table has beside its columns.
    pub(crate) rows: String,
    pub(crate) columns: BTreeMap<String, ColumnForm>,
}

/// What fills a column: digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnForm {
    /// Of everything.
    pub(crate) rule: String,
    /// Of what a value is made of, without what happens to values that do not fit: rows of a key stay the same while this does.
    pub(crate) value: String,
}

/// What holds where a column has no word of its own.
const USUAL: [(&str, &str); 10] = [
    ("null", "keep"),
    ("invalid", "reject"),
    ("missing", "wait"),
    ("trim", "false"),
    ("lower", "false"),
    ("empty", "keep"),
    ("hex", "false"),
    ("unknown", "reject"),
    ("serial", "false"),
    ("sensitive", "false"),
];
/// What happens to values that are not there or do not fit.
const POLICIES: [&str; 4] = ["null", "invalid", "missing", "default"];
/// Rows do not depend on it.
const ASIDE: [&str; 2] = ["sensitive", "travels"];

/// The policies of the whole file, as they are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Usual(Vec<(String, String)>);

impl Usual {
    pub(super) fn of(node: &Node) -> Self {
        let Shape::Map(entries) = &node.shape else { return Self::default() };
        let words = entries.iter().filter_map(|(key, node)| match &node.shape {
            Shape::Scalar(scalar) => Some((key.value.clone(), scalar_text(scalar))),
            Shape::Seq(_) | Shape::Map(_) => None,
        });
        Self(words.collect())
    }
}

/// What stands in other sections and decides what rows look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'b> {
    pub(super) usual: &'b Usual,
    /// That of tables that are named without one.
    pub(super) schema: &'b str,
    /// What rows depend on of each cipher.
    pub(super) ciphers: &'b BTreeMap<String, String>,
}

/// The form of a collection: `nodes` are its tables.
pub(super) fn of(nodes: &[Node], beside: Beside<'_>) -> Form {
    let parent = nodes.iter().find(|node| entry(node, "each").is_none());
    let parent = parent.and_then(|node| named(node, beside.schema)).unwrap_or_default();
    let mut texts: BTreeMap<String, Texts> = BTreeMap::new();
    for node in nodes {
        let Some(name) = named(node, beside.schema) else { continue };
        let mut place = name.clone();
        let mut number = 1;
        while texts.contains_key(&place) {
            // Two rules of one collection may fill one table, told apart by a constant.
            number += 1;
            place = format!("{name} ({number})");
        }
        let around = enclosing(nodes, node);
        let nearest = around.last().and_then(|node| named(node, beside.schema));
        texts.insert(place, table(node, beside, nearest.as_ref().unwrap_or(&parent), &around));
    }
    // Fields that another rule takes are not among the rest.
    let all: Vec<&str> =
        texts.values().flat_map(|table| table.columns.values()).map(String::as_str).collect();
    let taken = digest(&all.join("\n"));
    let forms = texts.iter().map(|(name, texts)| (name.clone(), texts.form(&taken)));
    Form(forms.collect())
}

/// A table, not digested yet.
struct Texts {
    key: Vec<String>,
    rows: String,
    columns: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    rest: Vec<String>,
}

impl Texts {
    fn form(&self, taken: &str) -> TableForm {
        let column = |(name, text): (&String, &String)| {
            let rule =
                if self.rest.contains(name) { digest(&format!("{text} {taken}")) } else { digest(text) };
            let value = self.values.get(name).map(|text| digest(text)).unwrap_or_default();
            (name.clone(), ColumnForm { rule, value })
        };
        TableForm {
            key: self.key.clone(),
            rows: digest(&self.rows),
            columns: self.columns.iter().map(column).collect(),
        }
    }
}

/// The tables whose elements hold those of this one: of each array the first, the outermost first.
fn enclosing<'n>(nodes: &'n [Node], inner: &Node) -> Vec<&'n Node> {
    let Some(own) = levels(inner) else { return Vec::new() };
    let mut found: BTreeMap<usize, &Node> = BTreeMap::new();
    for node in nodes {
        if let Some(levels) = levels(node).filter(|levels| levels.encloses(&own)) {
            found.entry(levels.depth()).or_insert(node);
        }
    }
    found.into_values().collect()
}

fn levels(node: &Node) -> Option<Levels> {
    let Shape::Scalar(each) = &entry(node, "each")?.shape else { return None };
    Levels::parse(&each.text).ok()
}

/// What tells the elements of a table apart.
fn told_by(node: &Node) -> Option<String> {
    let columns = entry(node, "columns").map(entries).unwrap_or_default();
    let rules = columns.iter().map(|(_, rule)| rule);
    let each = |rule: &&Node| {
        let words = ["uuid", "serial"].into_iter().filter_map(|word| entry(rule, word));
        words.into_iter().any(|word| text(word) == "\"each\"")
    };
    rules.into_iter().find(each).and_then(|rule| entry(rule, "by")).map(text)
}

/// `parent`: the table that is meant where none is named. `around`: those whose elements hold the ones of this table.
fn table(node: &Node, beside: Beside<'_>, parent: &str, around: &[&Node]) -> Texts {
    let mut texts = Texts {
        key: entry(node, "key").map(words).unwrap_or_default(),
        rows: String::new(),
        columns: BTreeMap::new(),
        values: BTreeMap::new(),
        rest: Vec::new(),
    };
    texts.key.sort();
    let each = entry(node, "each").map(text).unwrap_or_default();
    let is_inside = levels(node).is_some_and(|levels| levels.depth() > 1);
    let others = entries(node)
        .iter()
        .filter(|(key, _)| !matches!(key.value.as_str(), "into" | "key" | "set" | "columns" | "candidates"));
    let mut others: Vec<String> =
        others.map(|(key, node)| format!("{:?}:{}", key.value, text(node))).collect();
    others.sort();
    let mut parents = Vec::new();
    for (key, node) in entry(node, "set").map(entries).unwrap_or_default() {
        let value = format!("{{\"const\":{}}}", text(node));
        texts.columns.insert(key.value.clone(), value.clone());
        texts.values.insert(key.value.clone(), value);
    }
    for (key, node) in entry(node, "columns").map(entries).unwrap_or_default() {
        let mut words = column(node, beside.usual);
        if words.contains_key("parent") {
            words.insert("\u{0}of".to_owned(), parent.to_owned());
        }
        if words.get("uuid").is_some_and(|word| word == "\"each\"") {
            // The array's path is a part of what the id of an element is made of.
            words.insert("\u{0}each".to_owned(), each.clone());
            // So is what tells the elements around it apart.
            let told: Vec<String> = around.iter().filter_map(|node| told_by(node)).collect();
            if !told.is_empty() {
                words.insert("\u{0}within".to_owned(), told.join(","));
            }
        }
        if let Some(parent) = words.get("parent").filter(|_| is_inside) {
            // What the rows belong to is what they are found by.
            parents.push(format!("{:?}:{parent}", key.value));
        }
        let ciphers = ciphers(node, beside.ciphers);
        if !ciphers.is_empty() {
            words.insert("\u{0}ciphers".to_owned(), ciphers.join(","));
        }
        if words.contains_key("rest") {
            texts.rest.push(key.value.clone());
        }
        texts.columns.insert(key.value.clone(), listed(words.iter()));
        let value = words.iter().filter(|(word, _)| !POLICIES.contains(&word.as_str()));
        texts.values.insert(key.value.clone(), listed(value));
    }
    parents.sort();
    others.extend(parents);
    texts.rows = others.join(",");
    texts
}

/// What rows depend on of the ciphers that a column names, itself or in the inputs of an expression.
fn ciphers(column: &Node, known: &BTreeMap<String, String>) -> Vec<String> {
    let inputs = entry(column, "with").map(entries).unwrap_or_default();
    let rules = std::iter::once(column).chain(inputs.iter().map(|(_, node)| node));
    let ciphered = rules.filter(|rule| CIPHERS.iter().any(|word| entry(rule, word).is_some()));
    let named = ciphered.flat_map(|rule| ["from", "to"].into_iter().filter_map(|side| entry(rule, side)));
    let mut forms: Vec<String> = named.flat_map(words).filter_map(|name| known.get(&name)).cloned().collect();
    forms.sort();
    forms.dedup();
    forms
}

/// The rule and the options of a column, with the file's own policies put in.
fn column(node: &Node, usual: &Usual) -> BTreeMap<String, String> {
    let mut words: BTreeMap<String, String> = match &node.shape {
        Shape::Map(entries) => entries.iter().map(|(key, node)| (key.value.clone(), text(node))).collect(),
        Shape::Scalar(_) | Shape::Seq(_) => BTreeMap::from([("from".to_owned(), text(node))]),
    };
    if !words.keys().any(|word| is_maker(word)) {
        for (word, value) in &usual.0 {
            let said = words.contains_key(word) || (word == "null" && words.contains_key("default"));
            if !said {
                words.insert(word.clone(), value.clone());
            }
        }
    }
    words.retain(|word, value| {
        let usual = USUAL.iter().any(|(known, usual)| known == word && *value == format!("{usual:?}"));
        !usual && !ASIDE.contains(&word.as_str())
    });
    words
}

fn listed<'a>(words: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let words: Vec<String> = words.map(|(word, value)| format!("{word:?}:{value}")).collect();
    format!("{{{}}}", words.join(","))
}

/// Schema and table.
fn named(node: &Node, schema: &str) -> Option<String> {
    let Shape::Scalar(name) = &entry(node, "into")?.shape else { return None };
    Some(if name.text.contains('.') { name.text.clone() } else { format!("{schema}.{}", name.text) })
}

fn entries(node: &Node) -> &[(super::At<String>, Node)] {
    match &node.shape {
        Shape::Map(entries) => entries,
        Shape::Scalar(_) | Shape::Seq(_) => &[],
    }
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    entries(node).iter().find(|(key, _)| key.value == name).map(|(_, node)| node)
}

/// The words of a list, or the one that is there instead.
fn words(node: &Node) -> Vec<String> {
    match &node.shape {
        Shape::Scalar(scalar) => vec![scalar.text.clone()],
        Shape::Seq(list) => list.iter().flat_map(words).collect(),
        Shape::Map(_) => Vec::new(),
    }
}

/// The same text for nodes that mean the same.
fn text(node: &Node) -> String {
    match &node.shape {
        Shape::Scalar(scalar) => scalar_text(scalar),
        Shape::Seq(list) => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(",")),
        Shape::Map(entries) => {
            let mut entries: Vec<String> =
                entries.iter().map(|(key, node)| format!("{:?}:{}", key.value, text(node))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
    }
}

/// Quotes count where the text without them is no text.
fn scalar_text(scalar: &Scalar) -> String {
    let plain = Scalar { text: scalar.text.clone(), quoted: false };
    let is_text = !plain.is_null()
        && !matches!(plain.text.as_str(), "true" | "false")
        && plain.text.parse::<f64>().is_err();
    match (is_text, scalar.quoted) {
        (true, _) => format!("{:?}", scalar.text),
        (false, true) => format!("text {:?}", scalar.text),
        // `null` as a word of a policy is that word; as a value it is written in several ways.
        (false, false) if scalar.is_null() => "\"null\"".to_owned(),
        (false, false) => format!("{:?}", scalar.text),
    }
}

/// Tells two texts apart, and says nothing else of them.
pub(crate) fn digest(text: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string()
}

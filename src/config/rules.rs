//! What fills a column: one rule and the options next to it.

use slackwater_connectors::postgres::target::rows::{How, Missing};

use super::ciphers;
use super::diagnostics::{At, Findings, Place};
use super::fields::{self, Fields};
use super::migration::{
    By, ChangeOf, Column, Convert, InvalidPolicy, NullPolicy, Policies, Rule, Sql, Unit, Unknown, Value,
};
use super::path::Path;
use super::spelling::{list, nearest};
use super::tree::{Node, Shape};

/// Rules that convert a value of the document.
const CONVERSIONS: [&str; 19] = [
    "from",
    "text",
    "integer",
    "numeric",
    "float",
    "boolean",
    "timestamp",
    "date",
    "time",
    "bytea",
    "jsonb",
    "array",
    "enum",
    "ref",
    "identity",
    "lookup",
    "encrypt",
    "decrypt",
    "reencrypt",
];
/// Rules beside which `from` names a cipher.
pub(super) const CIPHERS: [&str; 3] = ["encrypt", "decrypt", "reencrypt"];
/// Rules that make their value themselves.
const MAKERS: [&str; 9] = ["uuid", "serial", "parent", "rest", "const", "index", "key", "sql", "change"];

/// The rule makes its value itself, so no policy of the file holds for it.
pub(super) fn is_maker(word: &str) -> bool {
    word != "sql" && MAKERS.contains(&word)
}

/// Options allowed next to a rule.
const OPTIONS: [&str; 18] = [
    "travels",
    "null",
    "invalid",
    "default",
    "missing",
    "trim",
    "lower",
    "empty",
    "unit",
    "map",
    "unknown",
    "to",
    "hex",
    "with",
    "sensitive",
    "of",
    "take",
    "merge",
];

const MERGES: [(&str, How); 12] = [
    ("last", How::Last),
    ("first", How::First),
    ("longest", How::Longest),
    ("min", How::Min),
    ("earliest", How::Min),
    ("max", How::Max),
    ("latest", How::Max),
    ("sum", How::Sum),
    ("count", How::Count),
    ("union", How::Union),
    ("any", How::Any),
    ("all", How::All),
];

const INVALID: [(&str, InvalidPolicy); 5] = [
    ("reject", InvalidPolicy::Reject),
    ("null", InvalidPolicy::Null),
    ("clamp", InvalidPolicy::Clamp),
    ("strip", InvalidPolicy::Strip),
    ("default", InvalidPolicy::Default),
];
const NULL: [(&str, NullPolicy); 3] =
    [("reject", NullPolicy::Reject), ("keep", NullPolicy::Keep), ("default", NullPolicy::Default)];

const MISSING: [(&str, Missing); 3] =
    [("wait", Missing::Wait), ("null", Missing::Null), ("reject", Missing::Reject)];

/// The policies of the whole file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    null: NullPolicy,
    invalid: InvalidPolicy,
    missing: Missing,
}

impl Defaults {
    pub(super) const NONE: Self =
        Self { null: NullPolicy::Keep, invalid: InvalidPolicy::Reject, missing: Missing::Wait };

    pub(super) fn read(node: &Node, findings: &mut Findings) -> Self {
        let mut defaults = Self::NONE;
        let Some(mut fields) = Fields::of(node, "`defaults`", findings) else { return defaults };
        if let Some((_, node)) = fields.take("null") {
            // A default value belongs to one column, so neither policy can be `default` for all.
            defaults.null = fields::choice(node, "`null`", &NULL[..2], findings).unwrap_or(defaults.null);
        }
        if let Some((_, node)) = fields.take("invalid") {
            defaults.invalid =
                fields::choice(node, "`invalid`", &INVALID[..4], findings).unwrap_or(defaults.invalid);
        }
        if let Some((_, node)) = fields.take("missing") {
            defaults.missing =
                fields::choice(node, "`missing`", &MISSING, findings).unwrap_or(defaults.missing);
        }
        fields.finish(&["invalid", "missing", "null"], findings);
        defaults
    }

    fn policies(self) -> Policies {
        Policies {
            null: self.null,
            null_at: None,
            invalid: self.invalid,
            invalid_at: None,
            default: None,
            missing: self.missing,
            missing_at: None,
        }
    }
}

/// A constant out of `set`.
pub(super) fn constant(name: &At<String>, node: &Node, findings: &mut Findings) -> Option<Column> {
    let scalar = fields::scalar(node, "a constant", findings)?.clone();
    Some(Column {
        name: name.clone(),
        rule: At::new(Rule::Const(At::new(scalar, node.place)), node.place),
        policies: Defaults::NONE.policies(),
        sensitive: false,
        merge: None,
        travels: None,
    })
}

/// One column. `depth`: how many arrays the elements that the table is made of are in; none for a row a document.
pub(super) fn column(
    name: &At<String>,
    node: &Node,
    depth: usize,
    defaults: Defaults,
    findings: &mut Findings,
) -> Option<Column> {
    if let Shape::Scalar(_) = &node.shape {
        let path = checked_path(node, depth, findings)?;
        let value = plain(path, Convert::Auto);
        let rule = At::new(Rule::Value(value), node.place);
        let policies = defaults.policies();
        return Some(Column {
            name: name.clone(),
            rule,
            policies,
            sensitive: false,
            merge: None,
            travels: None,
        });
    }
    let mut fields = Fields::of(node, "a column", findings)?;
    let mut found: Vec<&str> =
        CONVERSIONS.iter().chain(&MAKERS).copied().filter(|word| fields.has(word)).collect();
    if found.iter().any(|word| CIPHERS.contains(word)) {
        found.retain(|word| *word != "from");
    }
    let [word] = found[..] else {
        let place = node.place;
        if found.is_empty() {
            let rules = || CONVERSIONS.iter().chain(&MAKERS).copied();
            for option in OPTIONS.iter().chain(&["by"]) {
                let _ = fields.take(option);
            }
            // Who has misspelt a rule is told so, and that is enough.
            if !fields.names().any(|name| nearest(name, rules()).is_some()) {
                findings.error(
                    place,
                    format!("nothing says what fills `{}`", name.value),
                    format!("one of {}", list(rules())),
                );
            }
            fields.finish(&known_words(), findings);
        } else {
            findings.error(
                place,
                format!("`{}` has two rules: {}", name.value, list(found.iter().copied())),
                "keep one of them",
            );
        }
        return None;
    };
    let (key, argument) = fields.take(word)?;
    let converts = CONVERSIONS.contains(&word);
    let rule = match word {
        _ if converts => conversion(word, argument, key.place, &mut fields, depth, findings).map(Rule::Value),
        "sql" => sql(argument, &mut fields, depth, defaults, findings).map(|sql| Rule::Sql(Box::new(sql))),
        _ => maker(word, argument, key.place, &mut fields, depth, findings),
    };
    let mut policies = defaults.policies();
    if converts || word == "sql" {
        read_policies(&mut fields, &mut policies, findings);
    }
    let (mut sensitive, mut travels) = (false, None);
    if let Some(rule @ (Rule::Value(_) | Rule::Rest)) = &rule {
        travels = fields.take("travels");
        // What others may not see on the way, nobody is shown.
        let hidden = travels.map(|(at, _)| at.place);
        sensitive = is_sensitive(rule, (key.place, hidden), &mut fields, depth, findings);
    }
    let travels = travels.and_then(|(_, node)| fields::text(node, "`travels`", findings));
    let merge = fields.take("merge").and_then(|(_, node)| {
        fields::choice(node, "`merge`", &MERGES, findings).map(|how| At::new(how, node.place))
    });
    for option in OPTIONS {
        if let Some((at, _)) = fields.take(option) {
            findings.error(at.place, format!("`{option}` does not go with `{word}`"), fits(option));
        }
    }
    fields.finish(&known_words(), findings);
    Some(Column { name: name.clone(), rule: At::new(rule?, key.place), policies, sensitive, merge, travels })
}

/// An expression, and what its names stand for.
fn sql(
    argument: &Node,
    fields: &mut Fields<'_>,
    depth: usize,
    defaults: Defaults,
    findings: &mut Findings,
) -> Option<Sql> {
    let text = fields::text(argument, "`sql`", findings)?;
    let mut with = Vec::new();
    let mut complete = true;
    if let Some((_, node)) = fields.take("with") {
        for (name, node) in Fields::of(node, "`with`", findings)?.into_entries() {
            let Some(input) = column(name, node, depth, defaults, findings) else {
                complete = false;
                continue;
            };
            let fits = matches!(
                input.rule.value,
                Rule::Value(_)
                    | Rule::Own { serial: false }
                    | Rule::Element { serial: false, .. }
                    | Rule::Index { .. }
                    | Rule::Key { .. }
                    | Rule::Rest
            );
            if !fits {
                let help = "inputs are values of the document: `first: name.first`, `count: { integer: n }`";
                findings.error(input.rule.place, format!("`{}` cannot be an input", name.value), help);
                complete = false;
            }
            if let Some(place) = input.policies.missing_at {
                findings.error(place, "`missing` does not go with an input", "write it beside `sql`");
            }
            if let Some(merge) = &input.merge {
                findings.error(merge.place, "`merge` does not go with an input", "write it beside `sql`");
            }
            with.push(input);
        }
    }
    complete.then_some(Sql { text, with })
}

/// Whether the value is to be shown to nobody. What a cipher is for always is.
fn is_sensitive(
    rule: &Rule,
    (place, hidden): (Place, Option<Place>),
    fields: &mut Fields<'_>,
    depth: usize,
    findings: &mut Findings,
) -> bool {
    let ciphered =
        hidden.is_some() || matches!(rule, Rule::Value(Value { convert: Convert::Cipher { .. }, .. }));
    let written = fields.take("sensitive");
    let at = match &written {
        Some((key, _)) => key.place,
        None if ciphered => hidden.unwrap_or(place),
        None => return false,
    };
    if let Rule::Value(value) = rule {
        let path = &value.path.value;
        if path.up == depth && path.names.first().is_some_and(|name| name == "_id") {
            let help = match ciphered {
                true => "every message and every dead letter names its document by it, so no cipher hides it",
                false => {
                    "every message and every dead letter names its document by it; leave `sensitive` out"
                }
            };
            findings.error(at, "the id of a document cannot be sensitive", help);
        }
    }
    let sensitive = written.map(|(_, node)| fields::boolean(node, "`sensitive`", findings));
    if ciphered && sensitive == Some(Some(false)) {
        findings.error(at, "what a cipher is for is always sensitive", "leave `sensitive` out");
    }
    ciphered || sensitive.flatten().unwrap_or(false)
}

pub(super) fn known_words() -> Vec<&'static str> {
    CONVERSIONS.iter().chain(&MAKERS).chain(&OPTIONS).chain(&["by"]).copied().collect()
}

fn fits(option: &str) -> &'static str {
    match option {
        "map" | "unknown" => "it belongs to `enum`",
        "to" => "it belongs to `ref`, `encrypt` and `reencrypt`",
        "hex" => "it belongs to `ref` and `lookup`",
        "of" => "it belongs to `identity` and `lookup`",
        "take" => "it belongs to `lookup`",
        "with" => "it belongs to `sql`",
        "unit" => "it belongs to `timestamp`, `date` and `from`",
        "trim" | "lower" => {
            "it belongs to `text`, `enum`, `array`, `identity`, `from`, and to `lookup` and `ref` with `by`"
        }
        "sensitive" | "travels" => {
            "it belongs to rules that take something out of the document, and to `rest`"
        }
        _ => "it belongs to rules that convert a value of the document",
    }
}

fn plain(path: At<Path>, convert: Convert) -> Value {
    Value { path, convert, trim: false, lower: false, empty_is_null: false, unit: None }
}

/// A path that fits its place.
fn checked_path(node: &Node, depth: usize, findings: &mut Findings) -> Option<At<Path>> {
    let path = fields::path(node, "the path", findings)?;
    fits_depth(&path, depth, findings).then_some(path)
}

/// The path does not begin further out than the document.
pub(super) fn fits_depth(path: &At<Path>, depth: usize, findings: &mut Findings) -> bool {
    let Path { up, .. } = path.value;
    if depth == 0 && (up > 0 || path.value.is_element()) {
        findings.error(
            path.place,
            format!("`{}` has a meaning only in a table with `each`", path.value),
            "here every path starts at the document: write the field's name",
        );
        return false;
    }
    if up > depth {
        let message = format!("`{}` goes further out than the document", path.value);
        let out = "^".repeat(depth);
        let help = format!("the document is {}: write `{out}.field`", levels_out(depth));
        findings.error(path.place, message, help);
        return false;
    }
    true
}

fn levels_out(depth: usize) -> String {
    if depth == 1 { "one level further out".to_owned() } else { format!("{depth} levels further out") }
}

fn conversion(
    word: &str,
    argument: &Node,
    place: Place,
    fields: &mut Fields<'_>,
    depth: usize,
    findings: &mut Findings,
) -> Option<Value> {
    let path = checked_path(argument, depth, findings);
    let convert = match word {
        "text" => Some(Convert::Text),
        "integer" => Some(Convert::Integer),
        "numeric" => Some(Convert::Numeric),
        "float" => Some(Convert::Float),
        "boolean" => Some(Convert::Boolean),
        "timestamp" => Some(Convert::Timestamp),
        "date" => Some(Convert::Date),
        "time" => Some(Convert::Time),
        "bytea" => Some(Convert::Bytea),
        "jsonb" => Some(Convert::Jsonb),
        "array" => Some(Convert::Array),
        "enum" => {
            let map = fields.take("map").and_then(|(_, node)| labels(node, findings));
            let unknown = fields.take("unknown").and_then(|(_, node)| unknown(node, findings));
            Some(Convert::Enum { map, unknown: unknown.unwrap_or(Unknown::Reject) })
        }
        "ref" => {
            let hex = fields.take("hex").and_then(|(_, node)| fields::boolean(node, "`hex`", findings));
            let help = "name the collection that it points to: `to: source.collection`";
            let to = fields.require("to", help, findings);
            let to = to.and_then(|(_, node)| fields::text(node, "`to`", findings));
            let by = fields.take("by").and_then(|(_, node)| found_by(node, findings));
            to.map(|to| Convert::Ref { to, hex: hex.unwrap_or(false), by })
        }
        "lookup" => {
            let hex = fields.take("hex").and_then(|(_, node)| fields::boolean(node, "`hex`", findings));
            let help = "name the collection of the other document: `of: source.collection`";
            let of = fields.require("of", help, findings);
            let of = of.and_then(|(_, node)| fields::text(node, "`of`", findings));
            let by = fields.take("by").and_then(|(_, node)| found_by(node, findings));
            let take = fields.require("take", "name the field with the value: `take: name`", findings);
            let take = take.and_then(|(_, node)| found_by(node, findings));
            match (of, take) {
                (Some(of), Some(take)) => Some(Convert::Lookup { of, hex: hex.unwrap_or(false), by, take }),
                _ => None,
            }
        }
        "identity" => {
            let of = fields.take("of").and_then(|(_, node)| fields::text(node, "`of`", findings));
            Some(Convert::Identity { of })
        }
        "encrypt" | "decrypt" | "reencrypt" => ciphers::convert(word, place, fields, findings),
        _ => Some(Convert::Auto),
    };
    let found_by_text =
        matches!(convert, Some(Convert::Ref { by: Some(_), .. } | Convert::Lookup { by: Some(_), .. }));
    let textual = matches!(word, "text" | "enum" | "array" | "identity" | "from") || found_by_text;
    let mut flag = |name: &str, fields: &mut Fields<'_>| {
        let node = textual.then(|| fields.take(name)).flatten();
        node.and_then(|(_, node)| fields::boolean(node, name, findings)).unwrap_or(false)
    };
    let (trim, lower) = (flag("trim", fields), flag("lower", fields));
    let empty = [("null", true), ("keep", false)];
    let empty_is_null =
        fields.take("empty").and_then(|(_, node)| fields::choice(node, "`empty`", &empty, findings));
    let units = [("s", Unit::Seconds), ("ms", Unit::Millis)];
    let unit = matches!(word, "timestamp" | "date" | "from").then(|| fields.take("unit")).flatten();
    let unit = unit.and_then(|(_, node)| fields::choice(node, "`unit`", &units, findings));
    let path = path?;
    let takes_many =
        matches!(word, "array" | "from" | "ref" | "enum" | "identity") || CIPHERS.contains(&word);
    if path.value.each.is_some() && !takes_many {
        findings.error(
            path.place,
            format!("`{}` selects many values, `{word}` takes one", path.value),
            "use `array` for an array column, or `each` for a table of its own",
        );
    }
    Some(Value { empty_is_null: empty_is_null.unwrap_or(false), trim, lower, unit, ..plain(path, convert?) })
}

/// A field of another document.
fn found_by(node: &Node, findings: &mut Findings) -> Option<Box<At<Path>>> {
    let path = fields::path(node, "the path", findings)?;
    if path.value.up > 0 || path.value.is_element() || path.value.each.is_some() {
        let message = format!("`{}` is not a field of the other document", path.value);
        findings.error(node.place, message, "write the field's name");
        return None;
    }
    Some(Box::new(path))
}

fn labels(node: &Node, findings: &mut Findings) -> Option<Vec<(At<String>, At<String>)>> {
    let entries = Fields::of(node, "`map`", findings)?.into_entries();
    let label =
        |(key, node): (&At<String>, &Node)| Some((key.clone(), fields::text(node, "the label", findings)?));
    Some(entries.into_iter().filter_map(label).collect())
}

fn unknown(node: &Node, findings: &mut Findings) -> Option<Unknown> {
    if let Shape::Map(_) = node.shape {
        let mut fields = Fields::of(node, "`unknown`", findings)?;
        let (_, node) = fields.require("default", "write `{ default: label }`", findings)?;
        let label = fields::text(node, "the label", findings)?;
        fields.finish(&["default"], findings);
        return Some(Unknown::Default(label));
    }
    let reject = fields::choice(node, "`unknown`", &[("reject", true), ("null", false)], findings)?;
    Some(if reject { Unknown::Reject } else { Unknown::Null })
}

fn read_policies(fields: &mut Fields<'_>, policies: &mut Policies, findings: &mut Findings) {
    if let Some((at, node)) = fields.take("default") {
        policies.default =
            fields::scalar(node, "`default`", findings).map(|scalar| At::new(scalar.clone(), node.place));
        // A default that nothing uses would be a mistake, so it replaces a missing value unless `null` says otherwise.
        policies.null = NullPolicy::Default;
        policies.null_at = Some(at.place);
    }
    if let Some((_, node)) = fields.take("null")
        && let Some(policy) = fields::choice(node, "`null`", &NULL, findings)
    {
        policies.null = policy;
        policies.null_at = Some(node.place);
    }
    if let Some((_, node)) = fields.take("invalid")
        && let Some(policy) = fields::choice(node, "`invalid`", &INVALID, findings)
    {
        policies.invalid = policy;
        policies.invalid_at = Some(node.place);
    }
    if let Some((_, node)) = fields.take("missing")
        && let Some(policy) = fields::choice(node, "`missing`", &MISSING, findings)
    {
        policies.missing = policy;
        policies.missing_at = Some(node.place);
    }
    let wanted = [
        (policies.null == NullPolicy::Default, policies.null_at),
        (policies.invalid == InvalidPolicy::Default, policies.invalid_at),
    ];
    for (wants, at) in wanted {
        if wants && policies.default.is_none() {
            let help = "write `default: value` beside it";
            findings.error(at.unwrap_or(fields.place()), "there is no default to put in", help);
        }
    }
}

fn maker(
    word: &str,
    argument: &Node,
    place: Place,
    fields: &mut Fields<'_>,
    depth: usize,
    findings: &mut Findings,
) -> Option<Rule> {
    if depth == 0 && matches!(word, "parent" | "index" | "key") {
        let help = "add `each: array[]` to the table, or use a rule that takes a value of the document";
        findings.error(place, format!("`{word}` has a meaning only in a table with `each`"), help);
        return None;
    }
    match word {
        "uuid" | "serial" => own_id(word, argument, fields, depth, findings),
        "parent" => Some(Rule::Parent(fields::text(argument, "`parent`", findings)?)),
        "rest" => {
            fields::choice(argument, "`rest`", &[("jsonb", ()), ("json", ())], findings)?;
            Some(Rule::Rest)
        }
        "const" => {
            let scalar = fields::scalar(argument, "`const`", findings)?.clone();
            Some(Rule::Const(At::new(scalar, argument.place)))
        }
        "key" => {
            let written = fields::text(argument, "`key`", findings)?.value;
            let out = written.len();
            let up = match written.as_str() {
                "each" => 0,
                up if !up.is_empty() && up.chars().all(|letter| letter == '^') && out < depth => out,
                _ => {
                    let help = "write `key: each`: the name under which the element stands in its object; `key: ^` is that of the element around it";
                    findings.error(argument.place, "`key` is of an element", help);
                    return None;
                }
            };
            Some(Rule::Key { up })
        }
        "change" => {
            let words = [("time", ChangeOf::Time), ("kind", ChangeOf::Kind), ("number", ChangeOf::Number)];
            Some(Rule::Change(fields::choice(argument, "`change`", &words, findings)?))
        }
        _ => {
            let from = fields::choice(argument, "`index`", &[("0", 0), ("1", 1)], findings)?;
            Some(Rule::Index { from })
        }
    }
}

fn own_id(
    word: &str,
    argument: &Node,
    fields: &mut Fields<'_>,
    depth: usize,
    findings: &mut Findings,
) -> Option<Rule> {
    let serial = word == "serial";
    let written = fields::text(argument, &format!("`{word}`"), findings)?;
    match written.value.as_str() {
        "each" if depth > 0 => {
            let help = "say what tells elements apart: `by: path`, `by: .`, `by: key` or `by: index`";
            let (_, node) = fields.require("by", help, findings)?;
            let nodes = fields::items(node, "`by`", true, findings)?;
            let listed = matches!(node.shape, Shape::Seq(_));
            if listed && depth != usize::MAX && nodes.len() != depth {
                let message = format!("`by` has {} entries, and `each` goes through {depth}", nodes.len());
                let help = "one for each `[]` or `{}`, the outermost first; or only what tells the elements of the innermost apart";
                findings.error(node.place, message, help);
                return None;
            }
            let by: Vec<By> = nodes.iter().filter_map(|node| told_by(node, findings)).collect();
            (by.len() == nodes.len()).then_some(Rule::Element { serial, by })
        }
        "_id" | "^._id" if depth > 0 => {
            let help =
                "`parent: column` takes the id of the document's row, `uuid: each` makes one of the element";
            findings.error(argument.place, "the document's own id cannot identify its elements", help);
            None
        }
        "_id" => Some(Rule::Own { serial }),
        "change" if !serial => Some(Rule::Change(ChangeOf::Id)),
        other => {
            let help = "`uuid: _id` is this document's own id; `ref: field` with `to: collection` that of another document; `from: field` reads a UUID out of the field";
            findings.error(argument.place, format!("`{word}` cannot be made of `{other}`"), help);
            None
        }
    }
}

fn told_by(node: &Node, findings: &mut Findings) -> Option<By> {
    if fields::scalar(node, "`by`", findings)?.text == "index" {
        return Some(By::Index);
    }
    let path = fields::path(node, "`by`", findings)?;
    if path.value.up > 0 || path.value.each.is_some() {
        findings.error(
            node.place,
            "`by` must be a value in the element",
            "write a path without `^` and `[]`; a list says it for each level, the outermost first",
        );
        return None;
    }
    Some(By::Path(path))
}

/// What says which document is first, and which is last.
pub(super) fn order(node: &Node, depth: usize, findings: &mut Findings) -> Option<Column> {
    let name = At::new("order".to_owned(), node.place);
    let column = column(&name, node, depth, Defaults::NONE, findings)?;
    let fits = match &column.rule.value {
        Rule::Value(value) => matches!(
            value.convert,
            Convert::Timestamp
                | Convert::Date
                | Convert::Integer
                | Convert::Numeric
                | Convert::Float
                | Convert::Text
        ),
        _ => false,
    };
    if !fits {
        let help = "say what it is: `order: { timestamp: updatedAt }`, or `date`, `integer`, `numeric`, `float`, `text`";
        findings.error(column.rule.place, "documents cannot be ordered by this", help);
        return None;
    }
    Some(column)
}

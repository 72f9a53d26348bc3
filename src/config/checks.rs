//! The section `checks`: what the source says against what the target says, and queries that must find nothing.

use std::time::Duration;

use super::diagnostics::{At, Findings, Place};
use super::fields::{self, Fields};
use super::migration::{Source, System};
use super::pipeline;
use super::sections::split_name;
use super::spelling::list;
use super::tree::Node;
use crate::decimal::Decimal;

/// Something that has to hold, whatever the mapping says.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it is called.
    pub name: At<String>,
    /// What is asked.
    pub asks: Asks,
    /// When it runs by itself, beside the rest.
    pub schedule: Option<Schedule>,
    /// If it fails, the switch does not begin, and has to be taken back.
    pub rollback: bool,
}

/// What a check asks.
#[derive(Clone, Debug)]
pub enum Asks {
    /// A query on the target that has to find nothing.
    Nothing(At<String>),
    /// Both sides, which have to agree.
    Both(Box<Both>),
}

/// Both sides of a check.
#[derive(Clone, Debug)]
pub struct Both {
    /// The source.
    pub source: String,
    /// Its collection, with its place.
    pub collection: At<String>,
    /// What is asked of it: stages of an aggregation, as a document that holds them under `pipeline`. None: how many records there are.
    pub stages: Option<Vec<u8>>,
    /// The query on the target.
    pub target: At<String>,
    /// How far they may be apart.
    pub within: Within,
    /// Each value of this field, and of this column, is compared by itself.
    pub by: Option<String>,
    /// Those values are ids of this collection's documents: the target has the UUIDs that are made of them.
    pub of: Option<String>,
}

/// How far two numbers may be apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// By so much.
    Amount(Decimal),
    /// By so many hundredths of what the source has.
    Percent(Decimal),
}

/// When a check runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// So long after it last began.
    Every(Duration),
    /// Each day, so many minutes after midnight, UTC.
    At(u32),
}

impl Check {
    /// Its query on the target.
    pub(crate) fn sql(&self) -> &At<String> {
        match &self.asks {
            Asks::Nothing(sql) => sql,
            Asks::Both(both) => &both.target,
        }
    }
}

const KEYS: [&str; 10] =
    ["name", "returns_nothing", "source", "target", "within", "by", "of", "every", "at", "rollback"];

const HELP: &str = "write `{ name: no orphans, returns_nothing: select … }`, or `{ name: users, source: { collection: legacy.users }, target: select … }`";

/// What goes with both sides only.
const OF_BOTH: [&str; 5] = ["source", "target", "within", "by", "of"];

pub(super) fn checks(node: &Node, sources: &[Source], findings: &mut Findings) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for node in fields::items(node, "`checks`", false, findings).unwrap_or_default() {
        let Some(check) = check(node, sources, findings) else { continue };
        if checks.iter().any(|before| before.name.value == check.name.value) {
            let message = format!("there are two checks `{}`", check.name.value);
            findings.error(check.name.place, message, "rename one of them");
        }
        checks.push(check);
    }
    checks
}

fn check(node: &Node, sources: &[Source], findings: &mut Findings) -> Option<Check> {
    let mut fields = Fields::of(node, "a check", findings)?;
    let name = fields.require("name", HELP, findings);
    let name = name.and_then(|(_, node)| fields::text(node, "`name`", findings));
    let schedule = schedule(&mut fields, findings);
    let rollback = fields.take("rollback");
    let rollback = rollback.and_then(|(_, node)| fields::boolean(node, "`rollback`", findings));
    let asks = match fields.take("returns_nothing") {
        Some((_, node)) => {
            for other in OF_BOTH {
                if let Some((key, _)) = fields.take(other) {
                    let message = format!("`{other}` does not go with `returns_nothing`");
                    findings.error(key.place, message, "write two checks, or take one of the two out");
                }
            }
            fields::text(node, "`returns_nothing`", findings).map(Asks::Nothing)
        }
        None if fields.has("source") || fields.has("target") => {
            both(&mut fields, sources, findings).map(|both| Asks::Both(Box::new(both)))
        }
        None => {
            findings.error(
                fields.place(),
                "a check has no `returns_nothing`, and no `source` and `target`",
                HELP,
            );
            None
        }
    };
    fields.finish(&KEYS, findings);
    Some(Check { name: name?, asks: asks?, schedule, rollback: rollback.unwrap_or(false) })
}

fn schedule(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Schedule> {
    let (every, at) = (fields.take("every"), fields.take("at"));
    if let (Some(_), Some((key, _))) = (&every, &at) {
        findings.error(key.place, "a check has `every` and `at`", "keep one of them");
        return None;
    }
    if let Some((_, node)) = every {
        return fields::duration(node, "`every`", findings).map(Schedule::Every);
    }
    let (_, node) = at?;
    let text = fields::text(node, "`at`", findings)?;
    let minutes = minutes(&text.value);
    if minutes.is_none() {
        findings.error(node.place, "`at` must be a time of the day", "such as `\"03:00\"`, which is UTC");
    }
    minutes.map(Schedule::At)
}

/// `03:00` as minutes after midnight.
fn minutes(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str, below: u32| {
        let fits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| fits && *number < below)
    };
    let minute = number(minute, 60).filter(|_| minute.len() == 2)?;
    Some(number(hour, 24)? * 60 + minute)
}

fn both(fields: &mut Fields<'_>, sources: &[Source], findings: &mut Findings) -> Option<Both> {
    let place = fields.place();
    let source =
        fields.require("source", "what the source says: `source: { collection: legacy.users }`", findings);
    let target =
        fields.require("target", "what the target says: `target: select count(*) from users`", findings);
    let target = target.and_then(|(_, node)| fields::text(node, "`target`", findings));
    let within = fields.take("within");
    let within = match within {
        Some((_, node)) => within_of(node, findings),
        None => Some(Within::Amount(Decimal::default())),
    };
    let by = fields.take("by").map(|(_, node)| fields::text(node, "`by`", findings));
    let of = fields.take("of");
    if let (Some((key, _)), None) = (&of, &by) {
        let help = "add `by: FIELD`, the field with the ids";
        findings.error(key.place, "`of` goes with `by`", help);
    }
    let of = of.map(|(_, node)| {
        let name = fields::text(node, "`of`", findings)?;
        split_name(&name, sources, findings).map(|_| name.value)
    });
    let (by_is_read, of_is_read) = (by != Some(None), of != Some(None));
    let side = source.and_then(|(_, node)| side(node, by.flatten(), place, sources, findings));
    let Side { source, collection, stages, by } = side?;
    let good = by_is_read && of_is_read;
    let (target, within) = (target?, within?);
    good.then(|| Both {
        source,
        collection,
        stages,
        target,
        within,
        by: by.map(|by| by.value),
        of: of.flatten(),
    })
}

fn within_of(node: &Node, findings: &mut Findings) -> Option<Within> {
    let text = fields::text(node, "`within`", findings)?;
    let (number, percent) = match text.value.strip_suffix('%') {
        Some(number) => (number.trim_end(), true),
        None => (text.value.as_str(), false),
    };
    let number = Decimal::parse(number).filter(|number| !number.is_negative());
    if number.is_none() {
        findings.error(
            node.place,
            "`within` must be a number or a percentage",
            "such as `0`, `0.01` or `1%`",
        );
    }
    number.map(|number| if percent { Within::Percent(number) } else { Within::Amount(number) })
}

/// The source's side.
struct Side {
    source: String,
    collection: At<String>,
    stages: Option<Vec<u8>>,
    by: Option<At<String>>,
}

fn side(
    node: &Node,
    by: Option<At<String>>,
    place: Place,
    sources: &[Source],
    findings: &mut Findings,
) -> Option<Side> {
    let mut fields = Fields::of(node, "`source`", findings)?;
    let name = fields.require("collection", "name it with its source: `collection: legacy.users`", findings);
    let name = name.and_then(|(_, node)| fields::text(node, "`collection`", findings));
    let parts = name.as_ref().and_then(|name| split_name(name, sources, findings));
    let (aggregate, filter) = (fields.take("aggregate"), fields.take("filter"));
    fields.finish(&["collection", "aggregate", "filter"], findings);
    let known =
        parts.as_ref().and_then(|(source, _)| sources.iter().find(|known| known.name.value == *source));
    if known.is_some_and(|known| matches!(known.system, System::Nocodb(_))) {
        let more = aggregate.or(filter).map(|(key, _)| key.place);
        if more.is_some() || by.is_some() {
            let help =
                format!("a check of a base of NocoDB counts records and knows {} only", list(["collection"]));
            let message = "NocoDB aggregates nothing for us, and is only asked how many records there are";
            findings.error(more.unwrap_or(place), message, help);
            return None;
        }
        let (source, collection) = parts?;
        let collection = At::new(collection, name?.place);
        return Some(Side { source, collection, stages: None, by: None });
    }
    let stages = match (aggregate, filter) {
        (Some(_), Some((key, _))) => {
            let help = "begin `aggregate` with `{ $match: … }`";
            findings.error(key.place, "`filter` does not go with `aggregate`", help);
            None
        }
        (Some((_, node)), None) => pipeline::stages(node, findings),
        (None, filter) => pipeline::counting(filter.map(|(_, node)| node), by.as_ref(), node, findings),
    };
    let (source, collection) = parts?;
    Some(Side { source, collection: At::new(collection, name?.place), stages: Some(stages?), by })
}

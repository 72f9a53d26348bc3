//! The section `cutover`: how the switch is made.

use std::time::Duration;

use slackwater_connectors::secret::Secret;

use super::diagnostics::{At, Findings, Place};
use super::fields::{self, Fields};
use super::outside::{Outside, secret};
use super::tree::{Node, Shape};

/// How the switch is made.
#[derive(Clone, Debug)]
pub struct Cutover {
    /// It does not begin while the target is further behind.
    pub max_lag: Duration,
    /// A whole verification has to have found everything equal, no longer ago than this.
    pub verified_within: Option<Duration>,
    /// The source is never frozen for longer.
    pub deadline: Duration,
    /// How the writers of the source are stopped.
    pub freeze: Freeze,
    /// SQL for the target before the freeze.
    pub before: Vec<Statement>,
    /// What the target needs between the last row and the opening.
    pub after: Vec<Finish>,
    /// Who is told that the target is open.
    pub open: Vec<Notice>,
    /// The programs of all commands.
    pub programs: Vec<At<String>>,
}

impl Default for Cutover {
    fn default() -> Self {
        Self {
            max_lag: Duration::from_secs(2),
            verified_within: None,
            deadline: Duration::from_secs(5),
            freeze: Freeze::BlockWrites,
            before: Vec::new(),
            after: vec![Finish::Sequences],
            open: Vec::new(),
            programs: Vec::new(),
        }
    }
}

/// How the writers of the source are stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// MongoDB refuses them.
    BlockWrites,
    /// Somebody does it and says so.
    ByHand,
    /// Commands of the team: program and arguments.
    Command { freeze: Vec<String>, unfreeze: Vec<String> },
}

/// SQL of the team, with the name that reports use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is called.
    pub name: String,
    /// What runs.
    pub sql: String,
    /// Its place.
    pub place: Place,
}

/// What the target needs before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Sequences behind `serial` and identity columns continue after the highest value.
    Sequences,
    /// SQL of the team.
    Sql(Statement),
}

/// Who is told that the target is open.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Program and arguments.
    Command(Vec<String>),
    /// An address that is sent the report.
    Webhook(Secret),
}

const SECTION: [&str; 7] = ["max_lag", "verified_within", "deadline", "freeze", "before", "after", "open"];

pub(super) fn cutover(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Cutover {
    let mut cutover = Cutover::default();
    let Some(mut fields) = Fields::of(node, "`cutover`", findings) else { return cutover };
    if let Some((_, node)) = fields.take("max_lag") {
        cutover.max_lag = fields::duration(node, "`max_lag`", findings).unwrap_or(cutover.max_lag);
    }
    if let Some((_, node)) = fields.take("verified_within") {
        cutover.verified_within = fields::duration(node, "`verified_within`", findings);
    }
    if let Some((_, node)) = fields.take("deadline") {
        cutover.deadline = fields::duration(node, "`deadline`", findings).unwrap_or(cutover.deadline);
    }
    if let Some((_, node)) = fields.take("freeze") {
        cutover.freeze = freeze(node, &mut cutover.programs, findings).unwrap_or(cutover.freeze);
    }
    if let Some((_, node)) = fields.take("before") {
        let nodes = fields::items(node, "`before`", true, findings).unwrap_or_default();
        cutover.before = nodes.iter().filter_map(|node| statement(node, findings)).collect();
    }
    if let Some((_, node)) = fields.take("after") {
        let nodes = fields::items(node, "`after`", true, findings).unwrap_or_default();
        cutover.after = nodes.iter().filter_map(|node| finish(node, findings)).collect();
    }
    if let Some((_, node)) = fields.take("open") {
        let nodes = fields::items(node, "`open`", true, findings).unwrap_or_default();
        let programs = &mut cutover.programs;
        cutover.open = nodes.iter().filter_map(|node| notice(node, outside, programs, findings)).collect();
    }
    fields.finish(&SECTION, findings);
    cutover
}

pub(super) fn freeze(node: &Node, programs: &mut Vec<At<String>>, findings: &mut Findings) -> Option<Freeze> {
    if let Shape::Scalar(_) = &node.shape {
        let words = [("mongodb_block_writes", Freeze::BlockWrites), ("by_hand", Freeze::ByHand)];
        let named: Vec<(&str, usize)> =
            words.iter().enumerate().map(|(place, (word, _))| (*word, place)).collect();
        return fields::choice(node, "`freeze`", &named, findings).map(|place| words[place].1.clone());
    }
    let mut fields = Fields::of(node, "`freeze`", findings)?;
    if fields.take("mongodb_block_writes").is_some() {
        fields.finish(&["mongodb_block_writes"], findings);
        return Some(Freeze::BlockWrites);
    }
    let help = "write `mongodb_block_writes`, `by_hand` or `{ command: { freeze: [ … ], unfreeze: [ … ] } }`";
    let command = fields.require("command", help, findings);
    fields.finish(&["command", "mongodb_block_writes"], findings);
    let mut fields = Fields::of(command?.1, "`command`", findings)?;
    let stop = fields.require("freeze", "the command that stops the writers", findings);
    let stop = stop.and_then(|(_, node)| command_line(node, "`freeze`", programs, findings));
    let again = fields.require("unfreeze", "the command that lets them write again", findings);
    let again = again.and_then(|(_, node)| command_line(node, "`unfreeze`", programs, findings));
    fields.finish(&["freeze", "unfreeze"], findings);
    Some(Freeze::Command { freeze: stop?, unfreeze: again? })
}

fn statement(node: &Node, findings: &mut Findings) -> Option<Statement> {
    let mut fields = Fields::of(node, "a statement", findings)?;
    let help = "write `{ name: search index, sql: refresh materialized view … }`";
    let name = fields.require("name", help, findings);
    let name = name.and_then(|(_, node)| fields::text(node, "`name`", findings));
    let sql = fields.require("sql", help, findings);
    let sql = sql.and_then(|(_, node)| fields::text(node, "`sql`", findings));
    fields.finish(&["name", "sql"], findings);
    let (name, sql) = (name?, sql?);
    Some(Statement { name: name.value, sql: sql.value, place: sql.place })
}

fn finish(node: &Node, findings: &mut Findings) -> Option<Finish> {
    if let Shape::Scalar(_) = &node.shape {
        return fields::choice(node, "a step of `after`", &[("sequences", ())], findings)
            .map(|()| Finish::Sequences);
    }
    statement(node, findings).map(Finish::Sql)
}

fn notice(
    node: &Node,
    outside: &Outside<'_>,
    programs: &mut Vec<At<String>>,
    findings: &mut Findings,
) -> Option<Notice> {
    let mut fields = Fields::of(node, "a step of `open`", findings)?;
    let command = fields.take("command");
    let webhook = fields.take("webhook");
    fields.finish(&["command", "webhook"], findings);
    match (command, webhook) {
        (Some((_, node)), None) => command_line(node, "`command`", programs, findings).map(Notice::Command),
        (None, Some((_, node))) => {
            let address = secret(node, "`webhook`", outside, findings)?;
            let fits = ["http://", "https://"].iter().any(|start| address.expose().starts_with(start));
            if !fits {
                findings.error(
                    node.place,
                    "`webhook` must be an address",
                    "it begins with http:// or https://",
                );
            }
            fits.then_some(Notice::Webhook(address))
        }
        _ => {
            let help = "write `{ command: [ ./announce.sh ] }` or `{ webhook: \"${URL}\" }`";
            findings.error(node.place, "a step of `open` is a command or a webhook", help);
            None
        }
    }
}

/// Program and arguments, no shell in between.
fn command_line(
    node: &Node,
    what: &'static str,
    programs: &mut Vec<At<String>>,
    findings: &mut Findings,
) -> Option<Vec<String>> {
    let nodes = fields::items(node, what, false, findings)?;
    let words: Vec<String> = nodes
        .iter()
        .filter_map(|node| fields::text(node, "a word of a command", findings))
        .map(|word| word.value)
        .collect();
    if words.is_empty() {
        findings.error(node.place, format!("{what} is empty"), "such as `[ ./freeze.sh, --now ]`");
        return None;
    }
    programs.extend(nodes.first().map(|first| At::new(words[0].clone(), first.place)));
    Some(words)
}

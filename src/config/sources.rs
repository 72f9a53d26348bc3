//! The section `sources`: where documents come from.

use slackwater_connectors::nocodb::Settings;
use slackwater_connectors::secret::Secret;

use super::cutover;
use super::diagnostics::{At, Findings, Place};
use super::fields::{self, Fields};
use super::migration::{NocodbSource, Source, System};
use super::outside::{Outside, secret};
use super::tree::Node;

/// Who knows the address may have the base asked at once, and no more.
const SHORTEST_HOOK: usize = 16;

/// `programs`: those of all commands.
pub(super) fn sources(
    node: &Node,
    outside: &Outside<'_>,
    programs: &mut Vec<At<String>>,
    findings: &mut Findings,
) -> Vec<Source> {
    let Some(fields) = Fields::of(node, "`sources`", findings) else { return Vec::new() };
    let entries = fields.into_entries();
    if entries.is_empty() {
        findings.error(
            node.place,
            "there is no source",
            "name one: `legacy: { mongodb: { uri: …, database: … } }`",
        );
    }
    entries
        .into_iter()
        .filter_map(|(name, node)| {
            // The name stands before a dot in names of collections, and between slashes in names of lanes.
            if name.value.is_empty() || name.value.contains(['.', '/']) {
                let help = "the dot separates source and collection; letters, digits, `_` and `-` do no harm";
                findings.error(
                    name.place,
                    "a source's name must not be empty, or hold a dot or a slash",
                    help,
                );
            }
            source(name, node, outside, programs, findings)
        })
        .collect()
}

fn source(
    name: &At<String>,
    node: &Node,
    outside: &Outside<'_>,
    programs: &mut Vec<At<String>>,
    findings: &mut Findings,
) -> Option<Source> {
    let mut fields = Fields::of(node, "a source", findings)?;
    if let Some((at, _)) = fields.take("postgres") {
        let help = "`mongodb` and `nocodb` are what this version reads";
        findings.error(at.place, "a postgres source is not supported yet", help);
        return None;
    }
    let freeze = fields.take("freeze");
    let freeze = freeze.and_then(|(_, node)| cutover::freeze(node, programs, findings));
    let ways = [("park", false), ("follow", true)];
    let on_drop = fields.take("on_drop");
    let on_drop = on_drop.and_then(|(_, node)| fields::choice(node, "`on_drop`", &ways, findings));
    let follows_drops = on_drop.unwrap_or(false);
    let known = ["mongodb", "nocodb", "freeze", "on_drop"];
    let found = match fields.take("nocodb") {
        Some((_, node)) => {
            fields.finish(&known, findings);
            let (system, place, unread) = nocodb(node, outside, findings)?;
            return Some(Source { name: name.clone(), system, freeze, follows_drops, place, unread });
        }
        None => fields.require("mongodb", "`{ mongodb: { uri: …, database: … } }`", findings),
    };
    fields.finish(&known, findings);
    let mut fields = Fields::of(found?.1, "`mongodb`", findings)?;
    let uri = fields.require("uri", "write `uri: \"${NAME}\"`", findings);
    let place = uri.as_ref().map_or(name.place, |(_, node)| node.place);
    let uri = uri.and_then(|(_, node)| secret(node, "`uri`", outside, findings));
    let database = fields.require("database", "name the database to read", findings);
    let database = database.and_then(|(_, node)| secret(node, "`database`", outside, findings));
    fields.finish(&["uri", "database"], findings);
    let unread = uri.is_none() || database.is_none();
    let system = System::Mongodb {
        uri: uri.unwrap_or_else(|| Secret::new(String::new())),
        database: database.map(|database| database.expose().to_owned()).unwrap_or_default(),
    };
    Some(Source { name: name.clone(), system, freeze, follows_drops, place, unread })
}

/// The system, the place of its address, and whether it cannot be reached for mistakes.
fn nocodb(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Option<(System, Place, bool)> {
    let mut fields = Fields::of(node, "`nocodb`", findings)?;
    let url = fields.require("url", "where the server is: `url: https://nocodb.example`", findings);
    let place = url.as_ref().map_or(node.place, |(_, node)| node.place);
    let url = url.and_then(|(_, node)| secret(node, "`url`", outside, findings));
    let token = fields.require("token", "a token of its API: `token: \"${NOCODB_TOKEN}\"`", findings);
    let token = token.and_then(|(_, node)| secret(node, "`token`", outside, findings));
    let base = fields.require("base", "name the base to read, by title or id", findings);
    let base = base.and_then(|(_, node)| secret(node, "`base`", outside, findings));
    let usual = Settings::new("", Secret::new(String::new()), "");
    let every = fields.take("every").and_then(|(_, node)| fields::duration(node, "`every`", findings));
    let sweep = fields.take("sweep").and_then(|(_, node)| fields::duration(node, "`sweep`", findings));
    let rate = fields.take("requests_per_second");
    let rate = rate.and_then(|(_, node)| fields::count(node, "`requests_per_second`", findings));
    let webhook = fields.take("webhook");
    let webhook = webhook.and_then(|(_, node)| hook(node, outside, findings));
    let include = fields.take("include").map(|(_, node)| include(node, findings)).unwrap_or_default();
    fields.finish(
        &["url", "token", "base", "every", "sweep", "requests_per_second", "webhook", "include"],
        findings,
    );
    let unread = url.is_none() || token.is_none() || base.is_none();
    let nothing = || Secret::new(String::new());
    let system = System::Nocodb(Box::new(NocodbSource {
        url: url.unwrap_or_else(nothing),
        token: token.unwrap_or_else(nothing),
        base: base.map(|base| base.expose().to_owned()).unwrap_or_default(),
        every: every.unwrap_or(usual.every),
        sweep: sweep.unwrap_or(usual.sweep),
        requests_per_second: rate.map_or(usual.requests_per_second, |rate| rate.min(1_000) as u32),
        webhook,
        include,
    }));
    Some((system, place, unread))
}

/// The end of an address: enough of it that nobody guesses it.
fn hook(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Option<Secret> {
    let word = secret(node, "`webhook`", outside, findings)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if word.expose().len() < SHORTEST_HOOK || !word.expose().bytes().all(plain) {
        let message = format!("`webhook` needs {SHORTEST_HOOK} or more letters, digits, `-` or `_`");
        let help = "it is the end of an address that only NocoDB may know: `webhook: \"${NOCODB_WEBHOOK}\"`";
        findings.error(node.place, message, help);
        return None;
    }
    Some(word)
}

/// `Table.Column`.
fn include(node: &Node, findings: &mut Findings) -> Vec<(String, String)> {
    let mut include = Vec::new();
    for node in fields::items(node, "`include`", false, findings).unwrap_or_default() {
        let Some(name) = fields::text(node, "a column", findings) else { continue };
        match name.value.split_once('.') {
            Some((table, column)) if !table.is_empty() && !column.is_empty() => {
                include.push((table.to_owned(), column.to_owned()));
            }
            _ => {
                let message = format!("`{}` names no column", name.value);
                findings.error(name.place, message, "columns are named with their table: `Berths.Area`");
            }
        }
    }
    include
}

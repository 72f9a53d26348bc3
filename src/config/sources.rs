//! The section `sources`: where documents come from.

use slackwater_connectors::secret::Secret;

use super::cutover;
use super::diagnostics::{At, Findings};
use super::fields::{self, Fields};
use super::migration::{Source, System};
use super::outside::{Outside, secret};
use super::tree::Node;

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
    for later in ["nocodb", "postgres"] {
        if let Some((at, _)) = fields.take(later) {
            let message = format!("a {later} source is not supported yet");
            findings.error(at.place, message, "`mongodb` is what this version reads");
            return None;
        }
    }
    let freeze = fields.take("freeze");
    let freeze = freeze.and_then(|(_, node)| cutover::freeze(node, programs, findings));
    let ways = [("park", false), ("follow", true)];
    let on_drop = fields.take("on_drop");
    let on_drop = on_drop.and_then(|(_, node)| fields::choice(node, "`on_drop`", &ways, findings));
    let found = fields.require("mongodb", "`{ mongodb: { uri: …, database: … } }`", findings);
    fields.finish(&["mongodb", "freeze", "on_drop"], findings);
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
    Some(Source {
        name: name.clone(),
        system,
        freeze,
        follows_drops: on_drop.unwrap_or(false),
        place,
        unread,
    })
}

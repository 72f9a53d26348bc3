//! MongoDB as a source: whether it is fit, judged from the facts.

use slackwater_connectors::error::Result;
use slackwater_connectors::mongodb::{CollectionKind, Mongo, Preflight, Presence as Found};

use super::fitness::{Findings, Fitness, Presence};

const SYSTEM: &str = "MongoDB";

/// Less oplog than this is worth a warning: an outage of a night must not lose history.
const FEW_HOURS: f64 = 24.0;

/// Looks at the server and judges it.
pub(super) async fn fitness(mongo: &Mongo, collections: &[String]) -> Result<Fitness> {
    let preflight = mongo.preflight(collections).await?;
    let findings = judge(&preflight, mongo.database());
    let history = preflight.oplog_hours.map(|hours| format!(", oplog reaches back {hours:.1} h"));
    let server = &preflight.server;
    Ok(Fitness {
        text: format!("{server}{}", history.unwrap_or_default()),
        json: serde_json::json!({
            "version": server.version,
            "hosts": server.hosts,
            "replica_set": server.replica_set,
            "database": server.database,
            "user": server.user,
            "mechanism": server.mechanism,
            "tls": server.tls,
            "verified": server.tls.then_some(server.verified),
            "compression": server.compression,
            "read_preference": server.read_preference.unwrap_or("primary"),
            "oplog_hours": preflight.oplog_hours,
        }),
        collections: preflight.collections.iter().map(|collection| presence(&collection.presence)).collect(),
        fields: vec![None; preflight.collections.len()],
        listed: preflight.others.is_some(),
        others: preflight.others.unwrap_or_default(),
        findings,
    })
}

fn presence(found: &Found) -> Presence {
    match found {
        Found::Present(info) => Presence::Present { sends_documents: info.post_images },
        Found::Missing => Presence::Missing,
        Found::Unknown => Presence::Unknown,
    }
}

/// Whether it is fit. Pure.
fn judge(preflight: &Preflight, database: &str) -> Findings {
    let mut found = Findings::default();
    if preflight.standalone() {
        found.error(
            None,
            "the source is a standalone MongoDB, which has no change streams; start it with --replSet and initiate the replica set (one member is enough)",
        );
        return found;
    }
    if preflight.version < (4, 0, 7) {
        let (major, minor, patch) = preflight.version;
        found.error(
            None,
            format!("the source runs MongoDB {major}.{minor}.{patch}; 4.0.7 or later is needed"),
        );
    }
    if let Some(warning) = preflight.server.warning() {
        found.warning(None, warning);
    }
    if let Some(error) = &preflight.no_change_stream {
        found.refuse(SYSTEM, error, &format!("give the user role `read` on database {database}"));
    }
    for collection in &preflight.collections {
        let name = collection.name.as_str();
        if let Some(error) = &collection.unreadable {
            let remedy = format!("give the user role `read` on database {database}, or `find` on {name}");
            found.refuse(SYSTEM, error, &remedy);
            continue;
        }
        let Found::Present(info) = &collection.presence else { continue };
        match info.kind {
            CollectionKind::Collection => {
                if info.collation {
                    let text = format!(
                        "{name} has a collation: it is copied as one chunk, which has to fit into memory"
                    );
                    found.warning(Some(name), text);
                }
                if info.capped {
                    let text = format!(
                        "{name} is capped: what MongoDB removes from it by itself is in no change stream, so its rows stay in the target"
                    );
                    found.warning(Some(name), text);
                }
                if info.encrypted {
                    let text = format!(
                        "{name} has fields that its clients encrypt: they arrive as they are stored, and nobody can read them in the target without the keys; map them into bytea columns, or leave them out"
                    );
                    found.warning(Some(name), text);
                }
            }
            CollectionKind::View => {
                let text =
                    format!("{name} is a view and has no changes of its own; map the collection behind it");
                found.error(Some(name), text);
            }
            CollectionKind::TimeSeries => {
                let text = format!(
                    "{name} is a time series, which change streams do not show; list it under `not_migrated`, and copy it by other means"
                );
                found.error(Some(name), text);
            }
        }
    }
    if preflight.others.is_none() {
        let text = "which collections there are is unknown: no right to list them, so nobody can say whether one was forgotten";
        found.unknown(text);
    }
    match preflight.oplog_hours {
        Some(hours) if hours < FEW_HOURS => found.warning(
            None,
            format!(
                "the oplog reaches back {hours:.1} hours; after a longer outage everything is copied again"
            ),
        ),
        Some(_) => {}
        None => found.unknown("the oplog's window is unknown: local.oplog.rs cannot be read"),
    }
    found
}

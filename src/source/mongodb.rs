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
    let (major, minor, patch) = preflight.version;
    let version = format!("{major}.{minor}.{patch}");
    let set = preflight.replica_set.as_deref().unwrap_or("sharded cluster");
    let history = preflight.oplog_hours.map(|hours| format!(", oplog reaches back {hours:.1} h"));
    Ok(Fitness {
        text: format!("MongoDB {version}, {set}{}", history.unwrap_or_default()),
        json: serde_json::json!({
            "version": version,
            "replica_set": preflight.replica_set,
            "oplog_hours": preflight.oplog_hours,
        }),
        collections: preflight.collections.iter().map(|collection| presence(&collection.presence)).collect(),
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
        found.errors.push(
            "the source is a standalone MongoDB, which has no change streams; start it with --replSet and initiate the replica set (one member is enough)"
                .to_owned(),
        );
        return found;
    }
    if preflight.version < (4, 0, 7) {
        let (major, minor, patch) = preflight.version;
        found
            .errors
            .push(format!("the source runs MongoDB {major}.{minor}.{patch}; 4.0.7 or later is needed"));
    }
    if let Some(error) = &preflight.no_change_stream {
        found.refuse(SYSTEM, error, &format!("give the user role `read` on database {database}"));
    }
    for collection in &preflight.collections {
        if let Some(error) = &collection.unreadable {
            found.refuse(
                SYSTEM,
                error,
                &format!(
                    "give the user role `read` on database {database}, or `find` on {}",
                    collection.name
                ),
            );
            continue;
        }
        match &collection.presence {
            Found::Present(info) => match info.kind {
                CollectionKind::Collection => {
                    if info.collation {
                        found.warnings.push(format!(
                            "{} has a collation: it is copied as one chunk, which has to fit into memory",
                            collection.name
                        ));
                    }
                }
                CollectionKind::View => found.errors.push(format!(
                    "{} is a view and has no changes of its own; map the collection behind it",
                    collection.name
                )),
                CollectionKind::TimeSeries => found
                    .errors
                    .push(format!("{} is a time series, which change streams do not show", collection.name)),
            },
            Found::Missing => found.warnings.push(format!("{} does not exist (yet)", collection.name)),
            Found::Unknown => {}
        }
    }
    match preflight.oplog_hours {
        Some(hours) if hours < FEW_HOURS => found.warnings.push(format!(
            "the oplog reaches back {hours:.1} hours; after a longer outage everything is copied again"
        )),
        Some(_) => {}
        None => {
            found.warnings.push("the oplog's window is unknown: no right to read local.oplog.rs".to_owned())
        }
    }
    found
}

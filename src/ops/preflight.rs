//! Whether the source is fit, judged from the facts. Pure.

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::mongodb::{CollectionKind, Preflight, Presence};

/// Less oplog than this is worth a warning: an outage of a night must not lose history.
const FEW_HOURS: f64 = 24.0;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// It will not do.
    pub(crate) errors: Vec<String>,
    /// The worst of them, for the exit code.
    pub(crate) denied: bool,
    /// It will do, but somebody should know.
    pub(crate) warnings: Vec<String>,
}

/// Judges the source.
pub(crate) fn judge(preflight: &Preflight, database: &str) -> Findings {
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
        found.refuse(error, &format!("give the user role `read` on database {database}"));
    }
    for collection in &preflight.collections {
        if let Some(error) = &collection.unreadable {
            found.refuse(
                error,
                &format!(
                    "give the user role `read` on database {database}, or `find` on {}",
                    collection.name
                ),
            );
            continue;
        }
        match &collection.presence {
            Presence::Present(info) => match info.kind {
                CollectionKind::Collection => {
                    if info.collation {
                        found.warnings.push(format!(
                            "{} has a collation: it is copied as one piece, which has to fit into memory",
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
            Presence::Missing => found.warnings.push(format!("{} does not exist (yet)", collection.name)),
            Presence::Unknown => {}
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

impl Findings {
    fn refuse(&mut self, error: &Error, remedy: &str) {
        self.denied |= error.kind == Kind::Denied;
        let line = format!("MongoDB refuses us: {error}; {remedy}");
        if !self.errors.contains(&line) {
            self.errors.push(line);
        }
    }
}

//! NocoDB as a source: whether it is fit, judged from the facts, and what of its records was sent, kept in our control store.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::nocodb::{ChangeStream, Followed, Hash, Noco, Remembers, WatchedTable};
use slackwater_connectors::source::ChangeBatch;
use slackwater_topics::{Key, Moment, Position};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::fitness::{Findings, Fitness, Presence};
use crate::mapping::Plan;
use crate::ops::persist::Stopped;
use crate::ops::store::{Store, ask};

const SYSTEM: &str = "NocoDB";

/// Looks at the base and judges it.
pub(super) async fn fitness(noco: &Noco, collections: &[String]) -> Result<Fitness> {
    let preflight = noco.preflight(collections).await?;
    let mut findings = Findings::default();
    for table in &preflight.tables {
        judge(table, &mut findings);
    }
    let presence = |table: &WatchedTable| match (&table.table, &table.refused) {
        (Some(_), _) => Presence::Present { sends_documents: true },
        (None, Some(_)) => Presence::Unknown,
        (None, None) => Presence::Missing,
    };
    let version = preflight.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    Ok(Fitness {
        text: format!("NocoDB{version} at {}, base {}", preflight.host, preflight.base.title),
        json: serde_json::json!({
            "version": preflight.version, "host": preflight.host, "base": preflight.base.title,
        }),
        collections: preflight.tables.iter().map(presence).collect(),
        fields: preflight
            .tables
            .iter()
            .map(|table| table.table.as_ref().map(|table| table.fields.clone()))
            .collect(),
        others: preflight.others,
        listed: true,
        findings,
    })
}

/// Whether a table can be read. Pure.
fn judge(watched: &WatchedTable, findings: &mut Findings) {
    let name = watched.name.as_str();
    if let Some(error) = &watched.refused {
        findings.refuse(SYSTEM, error, &format!("give the token's user the right to read {name}"));
    }
    let Some(table) = &watched.table else { return };
    if let Some(why) = &table.unreadable {
        findings.error(Some(name), format!("{name} cannot be read: {why}"));
    }
    for (link, why) in &table.unreadable_links {
        findings.warning(Some(name), format!("the link {link} of {name} cannot be read: {why}"));
    }
    if table.unreadable.is_none() && !table.timed {
        let text = format!(
            "{name} has no columns for the time of creation and of change: what changes is found only when the whole table is read"
        );
        findings.warning(Some(name), text);
    }
}

/// What was read of a table; nothing where there is no such table any more. A person may have said that its rows are to go.
pub(super) async fn or_gone<T>(
    noco: &Noco,
    table: &str,
    read: Result<T>,
    nothing: impl FnOnce() -> T,
) -> Result<T> {
    match read {
        Err(error) if error.kind == Kind::Unsuitable => {
            if noco.has(table).await? {
                Err(error)
            } else {
                Ok(nothing())
            }
        }
        read => read,
    }
}

/// What was sent, in the control store.
struct Sent(Mutex<Store>);

/// A stop ends the process, and whoever waits with it.
fn stopped(stopped: Stopped) -> Error {
    match stopped {
        Stopped::Failed(error) => error,
        Stopped::Asked => Error::new(Kind::Fenced, "keeping what was sent", "stopped meanwhile"),
    }
}

impl Remembers for Sent {
    fn load<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Vec<(Key, Option<Hash>)>>> {
        async move {
            let mut store = self.0.lock().await;
            ask!(store, control => control.sent(table)).map_err(stopped)
        }
        .boxed()
    }

    fn sent_through(&self) -> BoxFuture<'_, Result<Moment>> {
        async move {
            let mut store = self.0.lock().await;
            ask!(store, control => control.sent_through()).map_err(stopped)
        }
        .boxed()
    }

    fn sending<'a>(&'a self, table: &'a str, keys: &'a [Key], at: Moment) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut store = self.0.lock().await;
            ask!(store, control => control.sending(table, keys, at)).map_err(stopped)
        }
        .boxed()
    }

    fn safe<'a>(
        &'a self,
        table: &'a str,
        kept: &'a [(Key, Hash)],
        gone: &'a [Key],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut store = self.0.lock().await;
            ask!(store, control => control.sent_safely(table, kept, gone)).map_err(stopped)
        }
        .boxed()
    }
}

/// The base for the process that copies and follows these tables.
pub(super) async fn remembering(noco: &Noco, store: Store, plan: &Plan, source: &str) -> Result<Noco> {
    let followed = plan.of_source(source).into_iter().map(|collection| {
        let of = plan.collection(collection);
        Followed { collection, table: of.collection.clone(), needs: of.fields() }
    });
    noco.remembering(Arc::new(Sent(Mutex::new(store))), followed.collect()).await
}

/// The changes of a base. Dropping them ends the stream, and what keeps what was sent.
#[derive(Debug)]
pub(crate) struct Changes {
    stream: Result<ChangeStream>,
    _keeper: JoinSet<()>,
}

impl Changes {
    /// `safe`: through which moment the log has everything for good.
    pub(super) fn follow(noco: &Noco, from: &Position, buffer: usize, safe: watch::Receiver<Moment>) -> Self {
        let stream = noco.stream(from, buffer);
        let mut keeper = JoinSet::new();
        if let Ok(stream) = &stream {
            let (keeps, mut safe) = (stream.keeper(), safe);
            keeper.spawn(async move {
                loop {
                    let through = *safe.borrow_and_update();
                    // What is not kept is sent once more after a restart.
                    if let Err(error) = keeps.safe(through).await {
                        tracing::debug!(%error, "what was sent cannot be kept");
                    }
                    if safe.changed().await.is_err() {
                        return;
                    }
                }
            });
        }
        Self { stream, _keeper: keeper }
    }

    pub(super) async fn next(&mut self) -> Result<ChangeBatch> {
        match &mut self.stream {
            Ok(stream) => stream.next().await,
            Err(error) => {
                let ended = || Error::new(Kind::Bug, "following the changes", "the stream has ended");
                Err(std::mem::replace(error, ended()))
            }
        }
    }

    pub(super) fn hurry(&self, idle: std::time::Duration) {
        if let Ok(stream) = &self.stream {
            stream.hurry(idle);
        }
    }

    /// Tables that stand still, in a line.
    pub(super) fn trouble(&self) -> Option<String> {
        let troubles = self.stream.as_ref().ok()?.troubles();
        let troubles = troubles.borrow();
        let texts: Vec<&str> = troubles.iter().map(|trouble| trouble.text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

//! Verifies only what has changed since a time: for after a repair by hand, an incident, a night. Nothing of it is kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use slackwater_connectors::postgres::control::proofs::FindingRow;
use slackwater_topics::{CollectionId, Moment};

use super::report::{entry, sentence};
use super::{Cut, Follower, LeftOut, Progress, Wanted, ready, scope};
use crate::config::Migration;
use crate::failure::Failure;
use crate::mapping::Plan;
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::persist;
use crate::ops::stop::Stop;
use crate::source::{Named, Source};

/// Connections to the target that compare side by side.
const WORKERS: usize = 3;
/// So many findings are shown to a person.
const SHOWN: usize = 20;

/// What was compared, and what came of it.
#[derive(Debug)]
pub(crate) struct Changed {
    migration: String,
    documents: u64,
    found: Vec<FindingRow>,
    /// Documents that have dead letters, and rows that wait.
    letters: BTreeSet<(String, Vec<u8>)>,
    waiting: BTreeSet<((String, String), Vec<String>)>,
    left_out: Vec<LeftOut>,
}

/// Verifies what has changed within the span.
pub(crate) async fn since(
    migration: &Migration,
    plan: &Arc<Plan>,
    (wanted, span): (&Wanted, Duration),
    progress: &Progress,
    stop: &Stop,
) -> Result<Changed, Cut> {
    let control = ready(migration).await?;
    let look = Look::read(&control, &About::of(migration)).await?;
    let (collections, mut left_out) = scope(plan, wanted, &look);
    let (mut documents, mut found) = (0, Vec::new());
    let (mut letters, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    progress.enter("comparing what has changed");
    for named in Named::connect_all(&migration.sources).await? {
        let ours: Vec<CollectionId> =
            collections.iter().filter(|id| plan.collection(**id).source == named.name).copied().collect();
        if ours.is_empty() {
            continue;
        }
        if !matches!(named.source, Source::Mongodb(_)) {
            let why = "its source keeps no list of what has changed; `slackwater verify` without --since reads all of it";
            left_out.extend(
                ours.iter()
                    .map(|id| LeftOut { collection: plan.collection(*id).name.clone(), why: why.to_owned() }),
            );
            continue;
        }
        let now = persist(stop, || named.source.now()).await?;
        let from = before(&named, now, span);
        if named.source.history_from().await.is_some_and(|oldest| oldest > from) {
            let line = format!("the oplog of source {} does not reach back that far", named.name);
            return Err(Cut::Failed(Failure::Unsuitable(vec![line])));
        }
        let name = named.name.clone();
        let mut follower = Follower::new(migration, plan, named, (WORKERS, false), stop).await?;
        follower.follow_from(ours, from);
        while follower.through() < now {
            let Some(step) = follower.step().await? else {
                let line = format!(
                    "what has changed in source {name} cannot be compared: the target does not follow, or the oplog was cut"
                );
                return Err(Cut::Failed(Failure::Unsuitable(vec![line])));
            };
            documents += step.documents;
            found.extend(step.found);
            for row in step.explained {
                match (row.explained.as_deref(), row.collection.zip(row.key), row.table) {
                    (Some("letter"), Some(document), _) => _ = letters.insert(document),
                    // As the migration file wants it.
                    (Some("declared"), ..) => {}
                    (_, _, Some(table)) => _ = waiting.insert((table, row.row_key)),
                    _ => {}
                }
            }
            progress.read.store(documents, Ordering::Relaxed);
        }
        let lost = follower.lost().iter().filter(|id| follower.covered().contains(id));
        left_out.extend(
            lost.map(|id| LeftOut {
                collection: plan.collection(*id).name.clone(),
                why: "it was dropped or renamed meanwhile, so only single documents of it were compared"
                    .to_owned(),
            }),
        );
    }
    Ok(Changed { migration: migration.name.clone(), documents, found, letters, waiting, left_out })
}

/// The moment so long before another one.
fn before(named: &Named, now: Moment, span: Duration) -> Moment {
    let seconds = named.source.kind().seconds(now).saturating_sub_unsigned(span.as_secs()).max(0);
    Moment::of_halves(u32::try_from(seconds).unwrap_or(u32::MAX), 0)
}

impl Changed {
    /// Everything that has changed is as it should be.
    pub(crate) fn is_equal(&self) -> bool {
        self.found.is_empty()
            && self.letters.is_empty()
            && self.waiting.is_empty()
            && self.left_out.is_empty()
    }

    pub(crate) fn json(&self) -> Value {
        let findings: Vec<Value> = self.found.iter().map(entry).collect();
        let left_out: Vec<Value> = self.left_out.iter().map(LeftOut::json).collect();
        json!({
            "migration": self.migration, "equal": self.is_equal(), "documents": self.documents, "findings": findings,
            "dead_letters": self.letters.len(), "waiting": self.waiting.len(), "left_out": left_out,
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} documents that have changed were compared\n", self.documents);
        for (count, what) in [
            (self.letters.len(), "documents have dead letters: `slackwater status` lists them"),
            (self.waiting.len(), "rows wait: `slackwater status` says for what"),
        ] {
            if count > 0 {
                text += &format!("{count} {what}\n");
            }
        }
        for LeftOut { collection, why } in &self.left_out {
            text += &format!("left out: {collection}: {why}\n");
        }
        for finding in self.found.iter().take(SHOWN) {
            text += &format!("{}\n", sentence(finding));
        }
        if self.found.len() > SHOWN {
            text += &format!("… and {} more: --json lists them\n", self.found.len() - SHOWN);
        }
        text + if self.is_equal() { "equal\n" } else { "NOT equal\n" }
    }
}

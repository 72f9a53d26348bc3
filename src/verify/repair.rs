//! Repair: documents whose rows are wrong go through the log again, and rows that no document makes are removed if that is wanted. Each
//! round begins with a verification, and what the last one says is the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use slackwater_connectors::postgres::control::proofs::FindingRow;
use slackwater_connectors::postgres::control::recopies::ASKED;
use slackwater_connectors::postgres::target::removal::remove;

use super::{Cut, Progress, Report, Wanted, verify};
use crate::config::Migration;
use crate::failure::Failure;
use crate::mapping::Plan;
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::persist;
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};

/// What is not right after so many rounds needs a person.
const ROUNDS: usize = 3;
/// How often it is asked whether what was asked for is done.
const EVERY: Duration = Duration::from_millis(200);
/// Findings that are read at once.
const AT_ONCE: i64 = 5_000;

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Documents that were sent again.
    pub(crate) documents: u64,
    /// Collections that were copied again, because rows of several documents were wrong.
    pub(crate) recopied: BTreeSet<String>,
    /// Rows that were removed.
    pub(crate) removed: u64,
}

impl Done {
    fn text(&self) -> String {
        let mut text = format!("{} documents were sent again, {} rows removed", self.documents, self.removed);
        if !self.recopied.is_empty() {
            let names: Vec<&str> = self.recopied.iter().map(String::as_str).collect();
            text += &format!(", copied again: {}", names.join(", "));
        }
        text
    }
}

/// A repair that has ended.
#[derive(Debug)]
pub(crate) struct Repaired {
    pub(crate) done: Done,
    /// What the last verification says.
    pub(crate) report: Report,
}

impl Repaired {
    pub(crate) fn json(&self) -> Value {
        let Done { documents, recopied, removed } = &self.done;
        json!({
            "documents_sent_again": documents, "copied_again": recopied, "rows_removed": removed,
            "verification": self.report.json(),
        })
    }

    pub(crate) fn text(&self) -> String {
        format!("{}\n\n{}", self.done.text(), self.report.text())
    }
}

/// Repairs what a verification finds.
pub(crate) async fn repair(
    migration: &Migration,
    plan: &Arc<Plan>,
    (wanted, remove_extra): (Wanted, bool),
    progress: &Arc<Progress>,
    stop: &Stop,
) -> Result<Repaired, Cut> {
    let mut store = Store::new(&migration.target.uri, None, stop);
    let mut all = Done::default();
    for round in 0.. {
        let report = Box::pin(verify(migration, plan, wanted.clone(), progress, stop)).await?;
        let found = findings(migration, &mut store).await?;
        let todo = Todo::of(plan, &found, remove_extra);
        if todo.is_empty() || round == ROUNDS {
            if all.documents + all.removed > 0 || !all.recopied.is_empty() {
                let (name, text) = (&migration.name, all.text());
                ask!(store, control => control.note_incident(name, "repaired", &text))?;
            }
            return Ok(Repaired { done: all, report });
        }
        progress.enter("repairing");
        let look = ask!(store, control => Look::read(control, &About::of(migration)))?;
        if !look.running() {
            let line = "no process is at work that would send documents again: start `slackwater run` (or `capture` and `apply`)";
            return Err(Cut::Failed(Failure::Unsuitable(vec![line.to_owned()])));
        }
        todo.carry_out(migration, plan, &mut store, &mut all, stop).await?;
    }
    unreachable!("the last round returns")
}

/// What the newest verification has found.
async fn findings(migration: &Migration, store: &mut Store) -> Result<Vec<FindingRow>, Cut> {
    let name = &migration.name;
    let Some(proof) = ask!(store, control => control.newest_proof(name, true))? else {
        return Ok(Vec::new());
    };
    let mut all: Vec<FindingRow> = Vec::new();
    let mut after = 0;
    loop {
        let some = ask!(store, control => control.findings(proof.id, false, after, AT_ONCE))?;
        let Some((last, _)) = some.last() else { return Ok(all) };
        after = *last;
        all.extend(some.into_iter().map(|(_, finding)| finding));
    }
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
struct Todo {
    /// Keys of documents, by collection.
    documents: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Collections that make rows of several documents that are wrong.
    recopy: BTreeSet<String>,
    /// Keys of rows, by the table's place in the plan.
    remove: BTreeMap<usize, Vec<Vec<String>>>,
}

impl Todo {
    fn of(plan: &Plan, found: &[FindingRow], remove_extra: bool) -> Self {
        let mut todo = Self::default();
        for finding in found.iter().filter(|finding| finding.kind != "unsettled") {
            let table = finding.table.as_ref();
            let place = table.and_then(|(schema, name)| {
                let mut tables = plan.tables.iter();
                tables.position(|spec| spec.table.schema == *schema && spec.table.name == *name)
            });
            match (&finding.collection, &finding.key, finding.kind.as_str(), place) {
                (Some(collection), Some(key), ..) => {
                    todo.documents.entry(collection.clone()).or_default().insert(key.clone());
                }
                (_, _, "extra", Some(place)) if remove_extra => {
                    todo.remove.entry(place).or_default().push(finding.row_key.clone());
                }
                (_, _, kind, Some(place)) if kind != "extra" => {
                    let parts =
                        plan.tables[place].whole().map(|whole| whole.parts.clone()).unwrap_or_default();
                    let makes = plan
                        .ids()
                        .filter(|id| plan.collection(*id).tables.iter().any(|table| parts.contains(table)));
                    todo.recopy.extend(makes.map(|id| plan.collection(id).name.clone()));
                }
                _ => {}
            }
        }
        todo
    }

    fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.recopy.is_empty() && self.remove.is_empty()
    }

    async fn carry_out(
        self,
        migration: &Migration,
        plan: &Plan,
        store: &mut Store,
        done: &mut Done,
        stop: &Stop,
    ) -> Result<(), Cut> {
        let name = &migration.name;
        for (place, keys) in &self.remove {
            let (url, spec) = (&migration.target.uri, &plan.tables[*place]);
            done.removed += persist(stop, || remove(url, spec, keys)).await?;
        }
        for (collection, keys) in &self.documents {
            let keys: Vec<Vec<u8>> = keys.iter().cloned().collect();
            ask!(store, control => control.want_repairs(name, collection, &keys))?;
            done.documents += keys.len() as u64;
        }
        let recopy: Vec<&str> = self.recopy.iter().map(String::as_str).collect();
        if !recopy.is_empty() {
            let reason = (ASKED, "rows of several documents were found to be wrong");
            ask!(store, control => control.want_recopies(name, &recopy, reason))?;
            done.recopied.extend(self.recopy.iter().cloned());
        }
        let mut stop = stop.clone();
        loop {
            let left = ask!(store, control => control.repairs_left(name))?;
            let look = ask!(store, control => Look::read(control, &About::of(migration)))?;
            let copied = |row: &slackwater_connectors::postgres::control::CollectionRow| {
                !self.recopy.contains(&row.collection) || look.is_copied(row)
            };
            if left == 0 && look.collections.iter().all(copied) {
                // The verification that follows waits until the target has reached the source.
                return Ok(());
            }
            if !stop.sleep(EVERY).await {
                return Err(Cut::Asked);
            }
        }
    }
}

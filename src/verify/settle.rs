//! Suspects: documents whose rows differed when they were read. Each is looked at until it agrees, or differs at rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slackwater_connectors::postgres::control::proofs::{FindingRow, Suspect};
use slackwater_connectors::postgres::target::comparer::Difference;
use slackwater_connectors::postgres::target::surplus::Surplus;
use slackwater_topics::{CollectionId, Event, Key};

use super::pass::events;
use super::reached::{PATIENCE, present, reached};
use super::watch::Watch;
use super::worker::{Asked, Compared, Worker, deleted};
use super::{Cut, Verifier, again};
use crate::config::Migration;
use crate::mapping::Plan;
use crate::ops::persist::{Patience, persist};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::Source;

/// So many suspects are looked at together.
const AT_ONCE: i64 = 5_000;
/// A document that changes all the time is not looked at for longer.
const LONGEST: Duration = Duration::from_secs(90);
/// Between two looks at what did not come to rest.
const PAUSE: Duration = Duration::from_millis(200);
/// Where nobody tells what changes: so many equal reads with the same difference in between are rest.
const EQUAL_READS: u32 = 3;

/// A suspect that is not settled yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ids: Vec<i64>,
    /// How it was read last, and how often in a row it differed and read the same.
    read: Option<Bytes>,
    equal: u32,
}

impl Verifier<'_> {
    /// Settles all suspects.
    pub(super) async fn settle_all(&mut self, worker: &mut Worker) -> Result<(), Cut> {
        let id = self.id;
        loop {
            let some = ask!(self.store, control => control.suspects(id, AT_ONCE))?;
            if some.is_empty() {
                return Ok(());
            }
            self.settle(worker, some).await?;
        }
    }

    /// Settles suspects of one collection.
    async fn settle(&mut self, worker: &mut Worker, suspects: Vec<Suspect>) -> Result<(), Cut> {
        let id = self.id;
        let Some(collection) = suspects.first().and_then(|one| self.plan.id_of(&one.collection)) else {
            let ids: Vec<i64> = suspects.iter().map(|suspect| suspect.id).collect();
            return Ok(ask!(self.store, control => control.settle_suspects(id, &ids, &[]))?);
        };
        let mut pending: BTreeMap<Key, Pending> = BTreeMap::new();
        for suspect in suspects {
            pending.entry(Key::from_bytes(&suspect.key)).or_default().ids.push(suspect.id);
        }
        let begun = Instant::now();
        let mut watch = None;
        while !pending.is_empty() {
            let reached = self.round(worker, collection, &mut pending, &mut watch).await?;
            if !reached || begun.elapsed() > LONGEST {
                return self.give_up(collection, pending).await;
            }
            if !pending.is_empty() && !self.stop.sleep(PAUSE).await {
                return Err(Cut::Asked);
            }
        }
        Ok(())
    }

    /// One look at all that is pending. False where the target does not follow.
    async fn round(
        &mut self,
        worker: &mut Worker,
        collection: CollectionId,
        pending: &mut BTreeMap<Key, Pending>,
        watch: &mut Option<Watch>,
    ) -> Result<bool, Cut> {
        let plan = Arc::clone(&self.plan);
        let of = plan.collection(collection);
        let source = self.source(&of.source).clone();
        let stop = self.stop.clone();
        let scene =
            Scene { migration: self.migration, plan: &plan, source: &source, stop: &stop, surplus: false };
        let settled = scene.round(&mut self.store, worker, collection, pending, watch).await?;
        let Some(settled) = settled else { return Ok(false) };
        let mut rows = Vec::new();
        let mut ids = Vec::new();
        for (key, found) in settled {
            rows.extend(found);
            ids.extend(pending.remove(&key).into_iter().flat_map(|one| one.ids));
        }
        let id = self.id;
        if !ids.is_empty() {
            ask!(self.store, control => control.settle_suspects(id, &ids, &rows))?;
        }
        Ok(true)
    }

    /// What did not come to rest is said, and is no finding.
    async fn give_up(
        &mut self,
        collection: CollectionId,
        pending: BTreeMap<Key, Pending>,
    ) -> Result<(), Cut> {
        let id = self.id;
        let name = &self.plan.collection(collection).name;
        let rows: Vec<FindingRow> = pending
            .keys()
            .map(|key| FindingRow { kind: "unsettled".to_owned(), ..of_document(name, key) })
            .collect();
        let ids: Vec<i64> = pending.into_values().flat_map(|one| one.ids).collect();
        Ok(ask!(self.store, control => control.settle_suspects(id, &ids, &rows))?)
    }
}

/// Where documents are looked at again.
pub(super) struct Scene<'s> {
    pub(super) migration: &'s Migration,
    pub(super) plan: &'s Arc<Plan>,
    pub(super) source: &'s Source,
    pub(super) stop: &'s Stop,
    /// Rows that belong to the documents, and that they do not make, are asked for too.
    pub(super) surplus: bool,
}

impl Scene<'_> {
    /// One look at documents of a collection: those that are settled, with what was found of them. None where the target does not follow.
    pub(super) async fn round(
        &self,
        store: &mut Store,
        worker: &mut Worker,
        collection: CollectionId,
        pending: &mut BTreeMap<Key, Pending>,
        watch: &mut Option<Watch>,
    ) -> Result<Option<Vec<(Key, Vec<FindingRow>)>>, Cut> {
        let (plan, source, stop) = (self.plan, self.source, self.stop);
        let of = plan.collection(collection);
        let now = persist(stop, || present(source)).await?;
        if !reached(self.migration, store, stop, (&of.source, source.kind()), now, PATIENCE).await? {
            return Ok(None);
        }
        let keys: Vec<Key> = pending.keys().cloned().collect();
        let found = persist(stop, || source.look_up(&of.collection, &keys, now.moment)).await?.found;
        let there: HashSet<Key> = found.iter().map(|(key, _)| key.clone()).collect();
        let mut events = events(collection, found);
        if self.surplus {
            let gone = keys.iter().filter(|key| !there.contains(key));
            events.extend(gone.map(|key| deleted(collection, key.clone())));
        }
        worker.forget();
        let asked = if self.surplus { Asked::Changed { explained: true } } else { Asked::Explained };
        let mut patience = Patience::new(stop);
        let seen = loop {
            match worker.compare(&events, asked).await {
                Ok(seen) => break seen,
                Err(error) => again(worker, &mut patience, error).await?,
            }
        };
        let judged = judge(plan, &events, &seen);
        let mut at_rest = HashSet::new();
        if judged.values().any(|judgement| matches!(judgement, Judgement::Differs(_))) {
            let until = persist(stop, || present(source)).await?;
            if watch.is_none() {
                let wanted: HashSet<_> = pending.keys().map(|key| (collection, key.clone())).collect();
                let watched = vec![(collection, of.collection.clone())];
                *watch = Watch::begin(source, now.moment, watched, Some(wanted));
            }
            match watch {
                Some(watching) => match watching.through(until.moment).await {
                    Ok(()) => {
                        let still = |key: &&Key| !watching.changed(&(collection, (*key).clone()), now.moment);
                        at_rest.extend(judged.keys().filter(still).cloned());
                    }
                    // A new one is opened for the next look.
                    Err(_) => *watch = None,
                },
                None => {
                    for event in &events {
                        let Some(one) = pending.get_mut(&event.key) else { continue };
                        let differs = matches!(judged.get(&event.key), Some(Judgement::Differs(_)));
                        let equal = one.read.as_ref() == Some(&event.document);
                        one.equal = if differs && equal { one.equal + 1 } else { u32::from(differs) };
                        one.read = Some(event.document.clone());
                        if one.equal >= EQUAL_READS {
                            at_rest.insert(event.key.clone());
                        }
                    }
                }
            }
        }
        let mut settled = Vec::new();
        if !self.surplus {
            // One that is gone has no rows to compare; what is left of it is a row that no document makes.
            let gone = keys.iter().filter(|key| !there.contains(key));
            settled.extend(gone.map(|key| (key.clone(), Vec::new())));
        }
        for (key, judgement) in judged {
            match judgement {
                Judgement::Agrees => settled.push((key, Vec::new())),
                Judgement::Explained(found) => settled.push((key, found)),
                Judgement::Differs(found) if at_rest.contains(&key) => settled.push((key, found)),
                Judgement::Differs(_) => {}
            }
        }
        Ok(Some(settled))
    }
}

/// What a look says of a document.
#[derive(Debug, PartialEq)]
enum Judgement {
    Agrees,
    /// Something explains it.
    Explained(Vec<FindingRow>),
    /// It is a finding if the document was at rest.
    Differs(Vec<FindingRow>),
}

/// What a look says of each document. Pure.
fn judge(plan: &Plan, events: &[Event], seen: &Compared) -> HashMap<Key, Judgement> {
    let mut by_document: HashMap<usize, Vec<(usize, &Difference)>> = HashMap::new();
    for (at, (document, difference)) in seen.differences.iter().enumerate() {
        by_document.entry(*document).or_default().push((at, difference));
    }
    let refused: HashMap<usize, &String> = seen.refused.iter().map(|(at, why)| (*at, why)).collect();
    let letters: HashSet<usize> = seen.letters.iter().copied().collect();
    let kept: HashSet<usize> = seen.kept.iter().copied().collect();
    let mut judged = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        let name = &plan.collection(event.collection).name;
        let differences = by_document.remove(&at).unwrap_or_default();
        let is_refused = refused.contains_key(&at);
        let surplus = seen.surplus.iter().filter(|(document, _)| *document == at);
        let surplus: Vec<&Surplus> = surplus.map(|(_, row)| row).collect();
        let judgement = if differences.is_empty() && !is_refused && surplus.is_empty() {
            Judgement::Agrees
        } else if kept.contains(&at) {
            // As the file wants it: `slackwater status` lists what was not applied.
            Judgement::Agrees
        } else if letters.contains(&at) {
            Judgement::Explained(vec![of_letter(name, &event.key)])
        } else {
            let mut rows: Vec<FindingRow> = differences
                .iter()
                .map(|(place, difference)| {
                    let explained = seen.waiting.get(place).map(|blocks| explanation(*blocks).to_owned());
                    let FindingRow { kind, table, row_key, columns, .. } = of_row(plan, difference);
                    FindingRow { kind, explained, table, row_key, columns, ..of_document(name, &event.key) }
                })
                .collect();
            if is_refused {
                rows.push(FindingRow { kind: "refused".to_owned(), ..of_document(name, &event.key) });
            }
            rows.extend(surplus.into_iter().map(|(table, row_key)| {
                let of = &plan.written(*table).table;
                let table = Some((of.schema.clone(), of.name.clone()));
                let row_key = row_key.clone();
                FindingRow { kind: "extra".to_owned(), table, row_key, ..of_document(name, &event.key) }
            }));
            match rows.iter().all(|row| row.explained.is_some()) {
                true => Judgement::Explained(rows),
                false => Judgement::Differs(rows),
            }
        };
        judged.insert(event.key.clone(), judgement);
    }
    judged
}

/// The word for a row that waits.
pub(super) fn explanation(blocks: bool) -> &'static str {
    if blocks { "waiting" } else { "declared" }
}

fn of_document(collection: &str, key: &Key) -> FindingRow {
    FindingRow {
        collection: Some(collection.to_owned()),
        key: Some(key.as_bytes().to_vec()),
        document: Some(format!("{collection} {key}")),
        ..FindingRow::default()
    }
}

/// A document with a dead letter.
pub(super) fn of_letter(collection: &str, key: &Key) -> FindingRow {
    FindingRow {
        kind: "refused".to_owned(),
        explained: Some("letter".to_owned()),
        ..of_document(collection, key)
    }
}

/// A row that is missing, or differs.
pub(super) fn of_row(plan: &Plan, difference: &Difference) -> FindingRow {
    let spec = &plan.tables[difference.table];
    let table = &plan.written(difference.table).table;
    let name = |column: &usize| spec.table.columns[spec.columns[*column]].name.clone();
    FindingRow {
        kind: if difference.missing { "missing" } else { "different" }.to_owned(),
        table: Some((table.schema.clone(), table.name.clone())),
        row_key: difference.key.clone(),
        columns: difference.columns.iter().map(name).collect(),
        ..FindingRow::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use slackwater_connectors::postgres::target::catalog::{Catalog, Column, Table, Type};
    use slackwater_topics::Value;

    use super::*;

    fn plan() -> Plan {
        let column = |name: &str, oid: u32, kind: &str| Column {
            name: name.into(),
            kind: Type {
                oid,
                name: kind.into(),
                base_oid: oid,
                base_name: kind.into(),
                modifier: -1,
                comparable: true,
                ..Type::default()
            },
            not_null: name == "id",
            ..Column::default()
        };
        let table = Table {
            schema: "public".into(),
            name: "people".into(),
            columns: vec![column("id", 2950, "uuid"), column("name", 25, "text")],
            primary_key: vec![0],
            is_table: true,
            ..Table::default()
        };
        let mut catalog = Catalog::default();
        catalog.tables.insert(("public".into(), "people".into()), table);
        let text = "migration: m\nsources: { s: { mongodb: { uri: \"mongodb://h\", database: d } } }\n\
                    target: { postgres: { uri: \"postgres://u@h/d\" } }\n\
                    collections: { s.people: { into: people, columns: { id: { uuid: _id }, name: name } } }\n";
        let migration = crate::config::parse("file.yaml", text, &|_| None).expect("a file");
        crate::mapping::compile(&migration, &catalog).expect("a plan")
    }

    fn key(id: i32) -> Key {
        Key::of(Value::Int32(id)).expect("a key")
    }

    fn seen(differences: &[usize]) -> Compared {
        let difference = |document: &usize| {
            let difference = Difference {
                table: 0,
                place: *document,
                key: vec!["k".into()],
                missing: false,
                columns: vec![1],
            };
            (*document, difference)
        };
        Compared { differences: differences.iter().map(difference).collect(), ..Compared::default() }
    }

    #[test]
    fn what_explains_a_difference_is_no_finding() {
        let plan = plan();
        let documents = (0..6).map(|id| (key(id), Bytes::new()));
        let events = events(CollectionId(0), documents);
        let mut seen = seen(&[1, 2, 3, 4]);
        seen.letters = vec![2, 5];
        seen.waiting.insert(2, true);
        seen.kept = vec![4];
        seen.refused = vec![(5, String::new())];
        let judged = judge(&plan, &events, &seen);
        let of = |id: i32| &judged[&key(id)];
        assert_eq!(of(0), &Judgement::Agrees);
        let Judgement::Differs(found) = of(1) else { panic!("{:?}", of(1)) };
        assert_eq!((found[0].kind.as_str(), &found[0].columns), ("different", &vec!["name".to_owned()]));
        assert_eq!(found[0].document.as_deref(), Some("s.people 1"));
        for (id, why) in [(2, "letter"), (3, "waiting"), (5, "letter")] {
            let Judgement::Explained(found) = of(id) else { panic!("{:?}", of(id)) };
            assert_eq!(found[0].explained.as_deref(), Some(why));
        }
        // The first version of it stands.
        assert_eq!(of(4), &Judgement::Agrees);
    }

    #[test]
    fn what_is_explained_in_part_is_a_finding() {
        let plan = plan();
        let events = events(CollectionId(0), [(key(1), Bytes::new())]);
        let mut seen = seen(&[0, 0]);
        seen.waiting.insert(0, false);
        let judged = judge(&plan, &events, &seen);
        let Judgement::Differs(found) = &judged[&key(1)] else { panic!("{judged:?}") };
        let explained: Vec<Option<&str>> = found.iter().map(|row| row.explained.as_deref()).collect();
        assert_eq!(explained, [Some("declared"), None]);
    }
}

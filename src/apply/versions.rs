//! Collections of which every version counts. Of those that are append only the first one that is written stands; what becomes of the document
//! afterwards is noted, and not applied. In tables of history each version is a row. Here is decided what is written of a batch; pure.
//!
//! **Invariant**: what is kept of a document (the version that stands, the one that came last, how many there were) is what its rows show,
//! and both are written in one transaction. So a version that comes again (a replay, the copy beside the stream, a recopy, a letter that is
//! tried again) is told from a change, whatever the mapping makes of either. A version that is a dead letter does not stand.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use slackwater_connectors::postgres::progress::{
    Breach, BreachKind, Notes, Version, VersionDigest, VersionNote,
};
use slackwater_topics::{CollectionId, Event, Key, Op};
use uuid::Uuid;

use crate::mapping::{Change, ChangeKind, Plan, What};

/// Of a document whose last version is a dead letter: no version is like it.
const NONE: VersionDigest = [0; 16];

/// What becomes of a batch.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// What is mapped …
    pub(super) events: Vec<Event>,
    /// … and of each of them, what is written.
    whats: Vec<What>,
    versions: Vec<VersionNote>,
    breaches: Vec<Breach>,
}

/// A document of such a collection, and where its events are in the batch.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) id: Uuid,
    events: Vec<usize>,
}

/// Tells versions apart: equal bytes are the same version.
fn digest(document: &[u8]) -> VersionDigest {
    let mut digest = VersionDigest::default();
    let length = digest.len();
    digest.copy_from_slice(&Sha256::digest(document)[..length]);
    digest
}

/// The documents of such collections in a batch.
pub(super) fn documents(plan: &Plan, events: &[Event]) -> Vec<Document> {
    let mut found: HashMap<(CollectionId, &Key), usize> = HashMap::new();
    let mut documents: Vec<Document> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let collection = plan.collection(event.collection);
        if collection.stands || !plan.keeps_versions(event.collection) {
            continue;
        }
        let place = *found.entry((event.collection, &event.key)).or_insert_with(|| {
            let id = plan.namespace.id(&collection.name, &event.key);
            documents.push(Document { id, events: Vec::new() });
            documents.len() - 1
        });
        documents[place].events.push(at);
    }
    documents
}

/// Decides. `seen`: tables whose collections are being copied again; their documents are noted as met.
pub(super) fn choose(
    plan: &Plan,
    events: &[Event],
    documents: &[Document],
    known: &HashMap<Uuid, Version>,
    seen: &[usize],
) -> Chosen {
    let mut chosen = Chosen::default();
    let mut whats: Vec<Option<What>> = vec![Some(What::CURRENT); events.len()];
    for document in documents {
        let before = known.get(&document.id).copied();
        let Some(first) = document.events.first().map(|at| &events[*at]) else { continue };
        let collection = plan.collection(first.collection);
        let versions = document.events.iter().map(|at| &events[*at]);
        let versions: Vec<_> = versions
            .map(|event| (event, (event.op != Op::Delete).then(|| digest(&event.document))))
            .collect();
        let outcome = if collection.append_only {
            let history: Vec<_> = versions.iter().map(|(_, digest)| *digest).collect();
            let outcome = follow(before, &history);
            for (place, at) in document.events.iter().enumerate() {
                whats[*at] = (outcome.write == Some(place)).then_some(What::CURRENT);
            }
            outcome
        } else {
            let (after, changes) = record(before, &versions);
            for (place, (at, version)) in document.events.iter().zip(changes).enumerate() {
                let current = place + 1 == document.events.len();
                whats[*at] = (current || version.is_some()).then_some(What { current, version });
            }
            Outcome { after, ..Outcome::default() }
        };
        let (name, key) = (&collection.name, first.key.as_bytes());
        let met = seen.iter().any(|table| collection.tables.contains(table));
        if let Some(after) = outcome.after.filter(|after| met || before.as_ref() != Some(after)) {
            let (id, collection, key) = (document.id, name.clone(), key.to_vec());
            chosen.versions.push(VersionNote { id, collection, key, before, after });
        }
        for (kind, count) in outcome.breaches {
            let (id, collection, key) = (document.id, name.clone(), key.to_vec());
            chosen.breaches.push(Breach { id, kind, collection, key, count });
        }
    }
    for (event, what) in events.iter().zip(whats) {
        if let Some(what) = what {
            chosen.events.push(event.clone());
            chosen.whats.push(what);
        }
    }
    chosen
}

impl Chosen {
    /// What is written of an event.
    pub(super) fn what(&self, at: usize) -> What {
        self.whats.get(at).copied().unwrap_or(What::CURRENT)
    }

    /// Puts what is to be kept among the notes. Of a document that has become a dead letter no version stands, and its last one is not
    /// a row.
    pub(super) fn note(&self, notes: &mut Notes) {
        let failed: HashSet<(&str, &[u8])> = notes
            .dead_letters
            .iter()
            .map(|letter| (letter.collection.as_str(), letter.key.as_slice()))
            .collect();
        let fails = |collection: &str, key: &[u8]| failed.contains(&(collection, key));
        let mut not_begun = HashSet::new();
        notes.versions.clear();
        for note in &self.versions {
            let mut note = note.clone();
            if fails(&note.collection, &note.key) {
                if note.after.number > 0 {
                    note.after.last = note.after.last.map(|_| NONE);
                } else if note.before.is_none() {
                    not_begun.insert(note.id);
                    continue;
                }
            }
            notes.versions.push(note);
        }
        let breaches = self.breaches.iter().filter(|breach| !not_begun.contains(&breach.id));
        notes.breaches = breaches.cloned().collect();
    }
}

/// Which versions of a document are new, and what is known of it afterwards.
fn record(
    before: Option<Version>,
    versions: &[(&Event, Option<VersionDigest>)],
) -> (Option<Version>, Vec<Option<Change>>) {
    let mut known = before;
    let mut changes = Vec::with_capacity(versions.len());
    for (event, version) in versions {
        let last = known.and_then(|known| known.last);
        if last == *version {
            // The same again, or a delete of what never was.
            changes.push(None);
            continue;
        }
        let kind = match (last, version) {
            (_, None) => ChangeKind::Delete,
            _ if event.op == Op::Snapshot => ChangeKind::Copy,
            (None, Some(_)) => ChangeKind::Insert,
            (Some(_), Some(_)) => ChangeKind::Update,
        };
        let number = known.map_or(0, |known| known.number) + 1;
        let first = known.map(|known| known.first).or(*version).unwrap_or(NONE);
        known = Some(Version { first, last: *version, number });
        changes.push(Some(Change { kind, number, time: event.time }));
    }
    (known, changes)
}

/// What becomes of one document.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Which of its versions is written.
    write: Option<usize>,
    after: Option<Version>,
    breaches: BTreeMap<BreachKind, u64>,
}

/// Follows a document through its versions; none is a delete.
fn follow(before: Option<Version>, history: &[Option<VersionDigest>]) -> Outcome {
    let mut outcome = Outcome { after: before, ..Outcome::default() };
    for (place, version) in history.iter().enumerate() {
        let Some(known) = &mut outcome.after else {
            // Of a document that was never written a delete takes nothing away, and may settle a letter.
            outcome.write = Some(place);
            outcome.after = version.map(|first| Version { first, last: Some(first), number: 0 });
            continue;
        };
        if known.last != *version {
            let kind = match (known.last, version) {
                (_, None) => BreachKind::Delete,
                (None, Some(_)) => BreachKind::Insert,
                (Some(_), Some(_)) => BreachKind::Update,
            };
            *outcome.breaches.entry(kind).or_default() += 1;
            known.last = *version;
        }
        if *version == Some(known.first) {
            // The rules may have become others since it was written.
            outcome.write = Some(place);
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<VersionDigest> = Some([1; 16]);
    const B: Option<VersionDigest> = Some([2; 16]);
    const C: Option<VersionDigest> = Some([3; 16]);
    const GONE: Option<VersionDigest> = None;

    fn standing(last: Option<VersionDigest>) -> Option<Version> {
        Some(Version { first: [1; 16], last, number: 0 })
    }

    fn is(
        before: Option<Version>,
        history: &[Option<VersionDigest>],
        write: Option<usize>,
        after: Option<Version>,
        breaches: &[(BreachKind, u64)],
    ) {
        let breaches = breaches.iter().copied().collect();
        assert_eq!(follow(before, history), Outcome { write, after, breaches }, "{before:?} {history:?}");
    }

    #[test]
    fn the_first_version_stands() {
        use BreachKind::{Delete, Insert, Update};
        is(None, &[A], Some(0), standing(A), &[]);
        is(None, &[A, B, C], Some(0), standing(C), &[(Update, 2)]);
        is(None, &[A, GONE, A], Some(2), standing(A), &[(Delete, 1), (Insert, 1)]);
        is(None, &[GONE], Some(0), None, &[]);
        is(None, &[GONE, A, GONE], Some(1), standing(GONE), &[(Delete, 1)]);
        is(standing(A), &[A], Some(0), standing(A), &[]);
        is(standing(A), &[B], None, standing(B), &[(Update, 1)]);
        is(standing(B), &[A], Some(0), standing(A), &[(Update, 1)]);
        is(standing(GONE), &[C], None, standing(C), &[(Insert, 1)]);
    }

    /// What came last may come again: it is no breach and changes nothing, wherever the batches were cut.
    #[test]
    fn replays_and_batches_make_no_difference() {
        let versions = [A, B, C, GONE];
        for number in 0..4_usize.pow(6) {
            let history: Vec<_> = (0..6).map(|place| versions[number / 4_usize.pow(place) % 4]).collect();
            let whole = follow(None, &history);
            for cut in 0..=6 {
                let first = follow(None, &history[..cut]);
                // The end of the first batch comes once more.
                let again =
                    history[..cut].last().into_iter().chain(&history[cut..]).copied().collect::<Vec<_>>();
                let second = follow(first.after, &again);
                let mut breaches = first.breaches.clone();
                second.breaches.iter().for_each(|(kind, count)| *breaches.entry(*kind).or_default() += count);
                assert_eq!(
                    (second.after, breaches),
                    (whole.after, whole.breaches.clone()),
                    "{history:?} {cut}"
                );
                let stands = whole.after.map(|version| version.first);
                for (outcome, history) in [(first, &history[..cut]), (second, &again[..])] {
                    let written = outcome.write.and_then(|place| history[place]);
                    assert!(
                        written.is_none() || written == stands,
                        "{history:?}: another version than the first"
                    );
                }
            }
        }
    }

    fn events(history: &[Option<VersionDigest>], op: Op) -> Vec<(Event, Option<VersionDigest>)> {
        let event = |version: &Option<VersionDigest>| Event {
            collection: CollectionId(0),
            key: Key::of(slackwater_topics::Value::Int32(1)).expect("a key"),
            op: if version.is_some() { op } else { Op::Delete },
            document: bytes::Bytes::new(),
            position: slackwater_topics::Position::default(),
            time: 7,
        };
        history.iter().map(|version| (event(version), *version)).collect()
    }

    fn recorded(
        before: Option<Version>,
        history: &[Option<VersionDigest>],
        op: Op,
    ) -> (Option<Version>, Vec<(ChangeKind, i64)>) {
        let events = events(history, op);
        let events: Vec<_> = events.iter().map(|(event, version)| (event, *version)).collect();
        let (after, changes) = record(before, &events);
        (after, changes.into_iter().flatten().map(|change| (change.kind, change.number)).collect())
    }

    #[test]
    fn every_version_is_a_row() {
        use ChangeKind::{Copy, Delete, Insert, Update};
        let changes = |history: &[_]| recorded(None, history, Op::Upsert).1;
        assert_eq!(changes(&[A, B, C]), [(Insert, 1), (Update, 2), (Update, 3)]);
        assert_eq!(changes(&[A, A, B, B, A]), [(Insert, 1), (Update, 2), (Update, 3)]);
        assert_eq!(changes(&[GONE, A, GONE, GONE, A]), [(Insert, 1), (Delete, 2), (Insert, 3)]);
        let (copied, first) = recorded(None, &[A], Op::Snapshot);
        assert_eq!(first, [(Copy, 1)]);
        assert_eq!(recorded(copied, &[A], Op::Upsert).1, []);
        assert_eq!(recorded(copied, &[B], Op::Upsert).1, [(Update, 2)]);
        assert_eq!(recorded(copied, &[A, B], Op::Snapshot).1, [(Copy, 2)]);
    }

    #[test]
    fn no_version_is_a_row_twice() {
        let versions = [A, B, C, GONE];
        for number in 0..4_usize.pow(6) {
            let history: Vec<_> = (0..6).map(|place| versions[number / 4_usize.pow(place) % 4]).collect();
            let whole = recorded(None, &history, Op::Upsert);
            for cut in 0..=6 {
                let mut first = recorded(None, &history[..cut], Op::Upsert);
                let again: Vec<_> =
                    history[..cut].last().into_iter().chain(&history[cut..]).copied().collect();
                let second = recorded(first.0, &again, Op::Upsert);
                first.1.extend(second.1);
                assert_eq!((second.0, &first.1), (whole.0, &whole.1), "{history:?} {cut}");
            }
        }
    }
}

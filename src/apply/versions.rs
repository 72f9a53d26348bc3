//! Collections that are append only: the first version of a document that is written stands. What becomes of the document afterwards is
//! noted, and not applied. Here is decided what is written of a batch; pure.
//!
//! **Invariant**: a version stands exactly while its digest is kept, and both are written in one transaction. So a version that comes
//! again (a replay, the copy beside the stream, a recopy, a letter that is tried again) is told from a change, whatever the mapping makes
//! of either. A version that is a dead letter does not stand.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use slackwater_connectors::postgres::progress::{
    Breach, BreachKind, Notes, Version, VersionDigest, VersionNote,
};
use slackwater_topics::{CollectionId, Event, Key, Op};
use uuid::Uuid;

use crate::mapping::Plan;

/// What becomes of a batch.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// What is mapped: of each document one event at the most.
    pub(super) events: Vec<Event>,
    versions: Vec<VersionNote>,
    breaches: Vec<Breach>,
}

/// A document of an append-only collection, and where its events are in the batch.
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

/// The documents of append-only collections in a batch.
pub(super) fn documents(plan: &Plan, events: &[Event]) -> Vec<Document> {
    let mut found: HashMap<(CollectionId, &Key), usize> = HashMap::new();
    let mut documents: Vec<Document> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let collection = plan.collection(event.collection);
        if !collection.append_only || collection.stands {
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
    let mut written: Vec<bool> = vec![true; events.len()];
    for document in documents {
        let before = known.get(&document.id).copied();
        let history: Vec<Option<VersionDigest>> = document
            .events
            .iter()
            .map(|at| &events[*at])
            .map(|event| (event.op != Op::Delete).then(|| digest(&event.document)))
            .collect();
        let outcome = follow(before, &history);
        for (place, at) in document.events.iter().enumerate() {
            written[*at] = outcome.write == Some(place);
        }
        let Some(first) = document.events.first().map(|at| &events[*at]) else { continue };
        let collection = plan.collection(first.collection);
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
    let kept = events.iter().zip(written).filter(|(_, written)| *written);
    chosen.events = kept.map(|(event, _)| event.clone()).collect();
    chosen
}

impl Chosen {
    /// Puts what is to be kept among the notes; not of documents that have become dead letters, of which no version stands.
    pub(super) fn note(&self, notes: &mut Notes) {
        let failed: HashSet<(&str, &[u8])> = notes
            .dead_letters
            .iter()
            .map(|letter| (letter.collection.as_str(), letter.key.as_slice()))
            .collect();
        let stands = |collection: &str, key: &[u8]| !failed.contains(&(collection, key));
        let versions =
            self.versions.iter().filter(|note| note.before.is_some() || stands(&note.collection, &note.key));
        let versions: Vec<VersionNote> = versions.cloned().collect();
        let begun = |id: &Uuid| self.versions.iter().any(|note| note.id == *id && note.before.is_none());
        let breaches = self.breaches.iter();
        let breaches =
            breaches.filter(|breach| stands(&breach.collection, &breach.key) || !begun(&breach.id));
        let breaches: Vec<Breach> = breaches.cloned().collect();
        (notes.versions, notes.breaches) = (versions, breaches);
    }
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
            outcome.after = version.map(|first| Version { first, last: Some(first) });
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
        Some(Version { first: [1; 16], last })
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
}

//! The merge against a simulated source and target: any interleaving of writes, reads, releases and crashes must end
//! with both sides equal, and no document may ever be seen going back.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use slackwater_topics::{Bound, CollectionId, Key, Moment, Range, Value};

use super::{Arrival, ChunkId, Merge, RereadId, Route};

const COLLECTION: CollectionId = CollectionId(0);
const KEYS: i64 = 12;

/// What may happen next. Numbers are reduced to what exists at that moment.
#[derive(Clone, Debug)]
enum Step {
    Write(i64),
    Delete(i64),
    /// The stream hands the next change to the router.
    Deliver,
    /// The target commits everything that was routed.
    Commit,
    Begin,
    /// A begun read reads one more document, as it is now.
    ReadSome(usize),
    Release(usize),
    Apply(usize),
    Recapture(i64),
    ReleaseRecapture,
    /// Everything in memory is gone; reads and routed changes that were not committed are lost.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..KEYS).prop_map(Step::Write),
        2 => (0..KEYS).prop_map(Step::Delete),
        8 => Just(Step::Deliver),
        4 => Just(Step::Commit),
        4 => Just(Step::Begin),
        10 => any::<usize>().prop_map(Step::ReadSome),
        4 => any::<usize>().prop_map(Step::Release),
        4 => any::<usize>().prop_map(Step::Apply),
        1 => (0..KEYS).prop_map(Step::Recapture),
        2 => Just(Step::ReleaseRecapture),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..400)
}

#[derive(Clone, Copy)]
struct Change {
    time: u64,
    key: i64,
    /// `None`: deleted.
    version: Option<u64>,
}

/// The id of the rest of a chunk, and where it starts.
type Cut = Option<(ChunkId, i64)>;

/// A chunk with the versions that were read.
type ReadChunk = (ChunkId, Vec<(i64, u64)>, Cut);

struct Reading {
    id: ChunkId,
    keys: Vec<i64>,
    next: usize,
    found: Vec<(i64, u64)>,
}

struct World {
    merge: Merge,
    // source
    time: u64,
    source: BTreeMap<i64, u64>,
    oplog: Vec<Change>,
    // stream
    delivered: usize,
    committed: usize,
    routed: Vec<(i64, Option<u64>)>,
    // copy
    next_id: ChunkId,
    readings: Vec<Reading>,
    held: Vec<ReadChunk>,
    applying: Vec<ReadChunk>,
    recapture: Option<(RereadId, i64, Option<u64>)>,
    // what the control store keeps
    chunks: Vec<(ChunkId, (i64, i64), bool)>,
    // target
    target: BTreeMap<i64, u64>,
    newest: HashMap<i64, u64>,
}

fn with_value<T>(key: i64, then: impl FnOnce(Value<'_>, &Key) -> T) -> T {
    let value = Value::Int64(key);
    then(value, &Key::of(value).expect("a key"))
}

fn bound(key: i64) -> Bound {
    Bound::of(Value::Int64(key)).expect("a bound")
}

impl World {
    fn new() -> Self {
        let third = KEYS / 3;
        let chunks = vec![
            (1, (i64::MIN, third), false),
            (2, (third, 2 * third), false),
            (3, (2 * third, i64::MAX), false),
        ];
        let mut world = Self {
            merge: Merge::new(1),
            time: 1,
            source: (0..KEYS).step_by(2).map(|key| (key, 1)).collect(),
            oplog: Vec::new(),
            delivered: 0,
            committed: 0,
            routed: Vec::new(),
            next_id: 4,
            readings: Vec::new(),
            held: Vec::new(),
            applying: Vec::new(),
            recapture: None,
            chunks,
            target: BTreeMap::new(),
            newest: HashMap::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.merge = Merge::new(1);
        let range = |(lo, hi): (i64, i64)| Range {
            lo: (lo != i64::MIN).then(|| bound(lo)),
            hi: (hi != i64::MAX).then(|| bound(hi)),
        };
        let chunks =
            self.chunks.iter().filter(|chunk| !chunk.2).map(|(id, span, _)| (*id, range(*span))).collect();
        self.merge.plan(COLLECTION, chunks);
    }

    fn put(&mut self, key: i64, version: Option<u64>) {
        match version {
            Some(version) => {
                let newest = self.newest.entry(key).or_default();
                assert!(version >= *newest, "document {key} went back from {newest} to {version}");
                *newest = version;
                self.target.insert(key, version);
            }
            None => {
                self.target.remove(&key);
            }
        }
    }

    /// Hands over the next change; false where it has to wait for a chunk or there is none.
    fn deliver(&mut self) -> bool {
        let Some(change) = self.oplog.get(self.delivered).copied() else { return false };
        let route = with_value(change.key, |id, key| {
            self.merge.route(Arrival {
                collection: COLLECTION,
                id,
                key,
                is_delete: change.version.is_none(),
                time: Moment(change.time),
            })
        });
        match route {
            Route::Wait(_) => return false,
            Route::Drop => {}
            Route::Publish | Route::Remove => self.routed.push((change.key, change.version)),
        }
        self.delivered += 1;
        true
    }

    fn commit(&mut self) {
        for (key, version) in std::mem::take(&mut self.routed) {
            self.put(key, version);
        }
        self.committed = self.delivered;
    }

    fn applied(&self) -> Moment {
        // The stream has passed everything before the next undelivered change.
        Moment(self.oplog.get(self.committed).map_or(self.time, |next| next.time - 1))
    }

    fn begin(&mut self) {
        let Some((id, _)) = self.merge.next_open(COLLECTION) else { return };
        self.merge.begin(id, Moment(self.time));
        let (_, (lo, hi), _) = *self.chunks.iter().find(|chunk| chunk.0 == id).expect("planned");
        let keys = (0..KEYS).filter(|key| (lo..hi).contains(key)).collect();
        self.readings.push(Reading { id, keys, next: 0, found: Vec::new() });
    }

    fn read_some(&mut self, which: usize) {
        if self.readings.is_empty() {
            return;
        }
        let index = which % self.readings.len();
        let cut_short = which.is_multiple_of(7);
        let reading = &mut self.readings[index];
        if let Some(key) = reading.keys.get(reading.next) {
            if !(cut_short && reading.next > 0) {
                if let Some(version) = self.source.get(key) {
                    reading.found.push((*key, *version));
                }
                reading.next += 1;
                return;
            }
            // Full before its end: the rest becomes a chunk of its own.
            let (key, id, rest_id) = (*key, reading.id, self.next_id);
            self.next_id += 1;
            let reading = self.readings.swap_remove(index);
            let chunk = self.chunks.iter_mut().find(|chunk| chunk.0 == id).expect("planned");
            let hi = chunk.1.1;
            let rest = Range { lo: Some(bound(key)), hi: (hi != i64::MAX).then(|| bound(hi)) };
            assert!(self.merge.read(id, Moment(self.time), Some(rest)));
            self.held.push((id, reading.found, Some((rest_id, key))));
            return;
        }
        let reading = self.readings.swap_remove(index);
        assert!(self.merge.read(reading.id, Moment(self.time), None));
        self.held.push((reading.id, reading.found, None));
    }

    fn release(&mut self, which: usize) {
        if self.held.is_empty() {
            return;
        }
        let index = which % self.held.len();
        let applied = self.applied();
        if let Some(changed) = self.merge.release(self.held[index].0, applied) {
            let (id, mut found, cut) = self.held.swap_remove(index);
            found.retain(|(key, _)| with_value(*key, |_, key| !changed.contains(key)));
            self.applying.push((id, found, cut));
        }
    }

    fn apply(&mut self, which: usize) {
        if self.applying.is_empty() {
            return;
        }
        let index = which % self.applying.len();
        let (id, found, cut) = self.applying.swap_remove(index);
        for (key, version) in found {
            self.put(key, Some(version));
        }
        let chunk = self.chunks.iter_mut().find(|chunk| chunk.0 == id).expect("planned");
        chunk.2 = true;
        self.merge.done(id);
        if let Some((rest, at)) = cut {
            // In the transaction of the first part, and told to the merge afterwards.
            let hi = std::mem::replace(&mut chunk.1.1, at);
            self.chunks.push((rest, (at, hi), false));
            self.merge.identify(id, rest);
        }
    }

    fn recapture(&mut self, key: i64) {
        if self.recapture.is_some() {
            return;
        }
        let id = self.next_id.cast_unsigned();
        self.next_id += 1;
        let keys = HashSet::from([with_value(key, |_, key| key.clone())]);
        self.merge.recapture(id, COLLECTION, keys);
        self.merge.recaptured(id, Moment(self.time));
        self.recapture = Some((id, key, self.source.get(&key).copied()));
    }

    fn release_recapture(&mut self) {
        let Some((id, key, version)) = self.recapture else { return };
        if let Some(changed) = self.merge.release_recapture(id, self.applied()) {
            self.recapture = None;
            if !with_value(key, |_, key| changed.contains(key)) {
                self.routed.push((key, version));
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(key) => {
                self.time += 1;
                self.source.insert(key, self.time);
                self.oplog.push(Change { time: self.time, key, version: Some(self.time) });
            }
            Step::Delete(key) => {
                if self.source.remove(&key).is_some() {
                    self.time += 1;
                    self.oplog.push(Change { time: self.time, key, version: None });
                }
            }
            Step::Deliver => {
                self.deliver();
            }
            Step::Commit => self.commit(),
            Step::Begin => self.begin(),
            Step::ReadSome(which) => self.read_some(which),
            Step::Release(which) => self.release(which),
            Step::Apply(which) => self.apply(which),
            Step::Recapture(key) => self.recapture(key),
            Step::ReleaseRecapture => self.release_recapture(),
            Step::Crash => {
                self.readings.clear();
                self.held.clear();
                self.applying.clear();
                self.routed.clear();
                self.recapture = None;
                self.delivered = self.committed;
                self.start();
            }
        }
    }

    /// No more writes; everything runs to its end.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            while self.deliver() {}
            self.commit();
            self.release_recapture();
            self.begin();
            self.read_some(1);
            self.release(0);
            self.apply(0);
            let at_rest =
                self.delivered == self.oplog.len() && self.routed.is_empty() && self.recapture.is_none();
            if at_rest && self.merge.all_done(COLLECTION) {
                return;
            }
        }
        panic!("never came to its end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn ends_equal_and_never_goes_back(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.finish();
        prop_assert_eq!(world.target, world.source);
    }
}

//! Random interleavings of edits, pages, chunks, look-ups, confirmations and crashes, against a target that applies what is handed out.
//!
//! The router is played as it is: changes of an open chunk are dropped, changes that come after a chunk's beginning are left out of it, and
//! a chunk is applied once the stream is safe past its end. The target must show the table in the end, whatever happened.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use slackwater_topics::{Key, Moment, Value};

use super::*;

/// A small generator, so that a run can be made again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }
}

/// What a record holds: few values, so that old ones come back.
type Content = u8;

const KEYS: i64 = 12;

fn key(number: i64) -> Key {
    Key::of(Value::Int64(number)).expect("a key")
}

fn hash(content: Content) -> Hash {
    [content; 16]
}

/// A change on its way.
#[derive(Clone, Debug)]
struct Sent {
    at: Moment,
    changes: Vec<(i64, Option<Content>)>,
}

/// A chunk of half the keys, as the router sees it.
#[derive(Clone, Debug)]
enum Stage {
    Open,
    Reading { from: Moment, changed: Vec<i64> },
    Held { from: Moment, until: Moment, read: Vec<(i64, Content)>, changed: Vec<i64> },
    Done,
}

struct World {
    seed: u64,
    dice: Dice,
    clock: u64,
    table: BTreeMap<i64, Content>,
    mirror: Mirror,
    /// What the store has, whatever is killed.
    store: HashMap<Key, Option<Hash>>,
    handed_out: VecDeque<(Moment, Vec<Key>)>,
    /// From the stream to the router, and what the router knows of time.
    channel: VecDeque<Sent>,
    now: Moment,
    /// In the log, not yet in the target.
    log: VecDeque<Sent>,
    target: BTreeMap<i64, Content>,
    chunks: [Stage; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            dice: Dice(seed),
            clock: 0,
            table: BTreeMap::new(),
            mirror: Mirror::default(),
            store: HashMap::new(),
            handed_out: VecDeque::new(),
            channel: VecDeque::new(),
            now: Moment::default(),
            log: VecDeque::new(),
            target: BTreeMap::new(),
            chunks: [Stage::Open, Stage::Open],
        }
    }

    fn tick(&mut self) -> Moment {
        self.clock += 1;
        Moment(self.clock)
    }

    fn half(number: i64) -> usize {
        usize::from(number >= KEYS / 2)
    }

    fn sending(&mut self, keys: &[Key]) {
        for key in keys {
            self.store.insert(key.clone(), None);
        }
    }

    fn edit(&mut self) {
        let number = self.dice.below(KEYS as usize) as i64;
        match self.dice.below(3) {
            0 => drop(self.table.remove(&number)),
            _ => drop(self.table.insert(number, self.dice.below(3) as Content)),
        }
    }

    /// Some of the table: a page may leave records out, and show some twice.
    fn some(&mut self) -> Vec<(i64, Content)> {
        let all: Vec<(i64, Content)> = self.table.iter().map(|(key, content)| (*key, *content)).collect();
        let mut some: Vec<(i64, Content)> = all.iter().copied().filter(|_| self.dice.below(3) > 0).collect();
        if self.dice.below(4) == 0 && !some.is_empty() {
            some.push(some[0]);
        }
        some
    }

    fn hand_out(&mut self, read: Vec<(i64, Content)>, at: Moment) {
        let news: Vec<(i64, Content)> = read
            .into_iter()
            .filter(|(number, content)| self.mirror.look(&key(*number), &hash(*content)).is_some())
            .collect();
        let keys: Vec<Key> = news.iter().map(|(number, _)| key(*number)).collect();
        self.sending(&keys);
        for (number, content) in &news {
            self.mirror.stream(key(*number), hash(*content), at);
        }
        if !news.is_empty() {
            self.handed_out.push_back((at, keys));
        }
        let changes = news.into_iter().map(|(number, content)| (number, Some(content))).collect();
        self.channel.push_back(Sent { at, changes });
    }

    /// A poll: it is read, and then remembered.
    fn poll(&mut self) {
        let read = self.some();
        let at = self.tick();
        self.hand_out(read, at);
    }

    /// A sweep: pages, some of them wrong, and then whatever is missing is asked for by its key.
    fn sweep(&mut self, edited: bool) {
        self.mirror.begin();
        for _ in 0..2 {
            self.poll();
            if edited && self.dice.below(3) == 0 {
                self.edit();
            }
        }
        let missing = self.mirror.missing();
        let asked: Vec<i64> = (0..KEYS).filter(|number| missing.contains(&key(*number))).collect();
        let found: Vec<(i64, Content)> =
            asked.iter().filter_map(|number| Some((*number, *self.table.get(number)?))).collect();
        let gone: Vec<i64> = asked.into_iter().filter(|number| !self.table.contains_key(number)).collect();
        let at = self.tick();
        self.hand_out(found, at);
        if gone.is_empty() {
            return;
        }
        let at = self.tick();
        let keys: Vec<Key> = gone.iter().map(|number| key(*number)).collect();
        self.sending(&keys);
        for key in &keys {
            self.mirror.delete(key, at);
        }
        self.handed_out.push_back((at, keys));
        self.channel.push_back(Sent { at, changes: gone.into_iter().map(|number| (number, None)).collect() });
    }

    /// The router takes a batch.
    fn route(&mut self) {
        let Some(sent) = self.channel.pop_front() else { return };
        self.now = self.now.max(sent.at);
        let mut kept = Sent { at: sent.at, changes: Vec::new() };
        for (number, content) in sent.changes {
            let travels = match &mut self.chunks[Self::half(number)] {
                Stage::Open => content.is_none(),
                Stage::Reading { from, .. } | Stage::Held { from, .. } if sent.at <= *from => {
                    content.is_none()
                }
                Stage::Reading { changed, .. } | Stage::Held { changed, .. } => {
                    changed.push(number);
                    true
                }
                Stage::Done => true,
            };
            if travels {
                kept.changes.push((number, content));
            }
        }
        self.log.push_back(kept);
    }

    /// The target applies a batch, and the stream hears that it is safe.
    fn apply(&mut self) {
        let Some(sent) = self.log.pop_front() else { return };
        for (number, content) in sent.changes {
            match content {
                Some(content) => drop(self.target.insert(number, content)),
                None => drop(self.target.remove(&number)),
            }
        }
        // Sometimes nobody says so.
        if self.dice.below(4) > 0 {
            self.safe(sent.at);
        }
        for chunk in 0..2 {
            if let Stage::Held { until, read, changed, .. } = self.chunks[chunk].clone()
                && until <= sent.at
            {
                let left: Vec<(i64, Content)> =
                    read.into_iter().filter(|(number, _)| !changed.contains(number)).collect();
                self.target.extend(left.iter().copied());
                self.chunks[chunk] = Stage::Done;
                if self.dice.below(3) > 0 {
                    let keys: Vec<Key> = left.iter().map(|(number, _)| key(*number)).collect();
                    let safe = self.mirror.copied(&keys, until);
                    self.keep(&safe);
                }
            }
        }
    }

    fn safe(&mut self, through: Moment) {
        while self.handed_out.front().is_some_and(|(at, _)| *at <= through) {
            let Some((at, keys)) = self.handed_out.pop_front() else { return };
            let safe = self.mirror.safe(&keys, at);
            self.keep(&safe);
        }
    }

    fn keep(&mut self, safe: &Safe) {
        for (key, hash) in &safe.kept {
            self.store.insert(key.clone(), Some(*hash));
        }
        for key in &safe.gone {
            self.store.remove(key);
        }
        self.mirror.kept(safe);
    }

    /// A step of the copy.
    fn copy(&mut self) {
        let half = self.dice.below(2);
        match self.chunks[half].clone() {
            Stage::Open => {
                self.chunks[half] = Stage::Reading { from: self.now, changed: Vec::new() };
            }
            Stage::Reading { from, changed } => {
                let inside = self.table.iter().filter(|(number, _)| Self::half(**number) == half);
                let read: Vec<(i64, Content)> = inside.map(|(number, content)| (*number, *content)).collect();
                let until = self.tick();
                let hashes: Vec<(Key, Hash)> =
                    read.iter().map(|(number, content)| (key(*number), hash(*content))).collect();
                let covers =
                    |asked: &Key| (0..KEYS).any(|number| Self::half(number) == half && key(number) == *asked);
                let chunk = super::Chunk { records: &hashes, covers: &covers, since: from };
                let keys = self.mirror.to_copy(&chunk);
                self.sending(&keys);
                self.mirror.copy(&chunk, until);
                self.chunks[half] = Stage::Held { from, until, read, changed };
            }
            Stage::Held { .. } => {}
            // It is wanted once more.
            Stage::Done if self.dice.below(3) == 0 => self.chunks[half] = Stage::Open,
            Stage::Done => {}
        }
    }

    /// Records are looked up, and go into the log behind everything before them.
    fn look_up(&mut self) {
        let number = self.dice.below(KEYS as usize) as i64;
        let Some(content) = self.table.get(&number).copied() else { return };
        if !matches!(self.chunks[Self::half(number)], Stage::Done) {
            return;
        }
        let at = self.tick();
        let found = [(key(number), hash(content))];
        let keys = self.mirror.to_look_up(&found);
        self.sending(&keys);
        self.mirror.looked_up(keys, at);
        while !self.channel.is_empty() {
            self.route();
        }
        self.log.push_back(Sent { at: self.now, changes: vec![(number, Some(content))] });
    }

    /// Everything but the store and the target is gone. Chunks that are not done are read again.
    fn crash(&mut self) {
        self.channel.clear();
        // What the log has taken may be applied all the same.
        if self.dice.below(2) == 0 {
            self.log.clear();
        } else {
            for sent in std::mem::take(&mut self.log) {
                for (number, content) in sent.changes {
                    match content {
                        Some(content) => drop(self.target.insert(number, content)),
                        None => drop(self.target.remove(&number)),
                    }
                }
            }
        }
        self.handed_out.clear();
        self.now = self.tick();
        self.mirror = Mirror::of(self.store.clone().into_iter().collect());
        for chunk in &mut self.chunks {
            if !matches!(chunk, Stage::Done) {
                *chunk = Stage::Open;
            }
        }
    }

    /// A new stream in the same process.
    fn follow_again(&mut self) {
        self.channel.clear();
        self.handed_out.clear();
        self.mirror.restart();
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0..12 => self.edit(),
            12..17 => self.poll(),
            17..20 => self.sweep(true),
            20..26 => self.route(),
            26..32 => self.apply(),
            32..36 => self.copy(),
            36..38 => self.look_up(),
            38 => self.follow_again(),
            _ => self.crash(),
        }
        for number in self.target.keys() {
            let seed = self.seed;
            assert!(
                self.store.contains_key(&key(*number)),
                "a row of which the store knows nothing; SLACKWATER_TEST_SEED={seed}"
            );
        }
    }

    /// Nothing is edited any more; everything that is on its way arrives.
    fn finish(&mut self) {
        for _ in 0..4 {
            for half in 0..2 {
                if matches!(self.chunks[half], Stage::Open) {
                    self.chunks[half] = Stage::Reading { from: self.now, changed: Vec::new() };
                }
            }
            for _ in 0..8 {
                if self.chunks.iter().any(|chunk| matches!(chunk, Stage::Reading { .. })) {
                    self.copy();
                }
            }
            self.mirror.begin();
            let all = self.table.iter().map(|(number, content)| (*number, *content)).collect();
            let at = self.tick();
            self.hand_out(all, at);
            self.sweep(false);
            while !self.channel.is_empty() || !self.log.is_empty() {
                self.route();
                self.apply();
            }
        }
    }
}

#[test]
fn the_target_shows_the_table_in_the_end() {
    let given = std::env::var("SLACKWATER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = given.unwrap_or_else(|| RandomState::new().hash_one("mirror"));
    for seed in first..first.wrapping_add(if given.is_some() { 1 } else { 3_000 }) {
        let mut world = World::new(seed);
        for _ in 0..world.dice.below(150) {
            world.step();
        }
        world.finish();
        assert_eq!(world.target, world.table, "SLACKWATER_TEST_SEED={seed}");
    }
}

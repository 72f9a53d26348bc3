//! A partition between simulated captures and a simulated reader: whatever is killed at any moment, no document may
//! be seen going back, and each ends in its last state.
//!
//! The captures keep to the rules of `crate::capture`: the first word of each is a mark; positions are saved by the newest
//! only, behind what is in the log; chunks are released when the saved position has passed their reading, without what
//! changed since, and changes in them wait until they are in the log; look-ups bring newer states until
//! the stream has passed them. One that was superseded goes on for a while, as if it knew nothing of that. The reader tries
//! beginnings of what it has, of any length, on a copy of its intake; some cannot be written.

use std::collections::{BTreeMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::{NAME, cut};
use crate::apply::intake::*;
use bson::doc;
use slackwater_topics::encode;

const KEYS: i32 = 5;
const CHUNKS: usize = 2;

/// What may happen next; captures are counted from the newest one. Numbers are reduced to what exists at that moment.
#[derive(Clone, Debug)]
enum Step {
    Write(i32, bool),
    Delete(i32),
    /// The stream gives its next changes to a capture.
    Route(usize, usize),
    Mark(usize),
    ReadChunk(usize),
    Reread(i32),
    /// Chunks and documents read again are released where they may be.
    Release(usize),
    /// A task of a capture puts its next record into the producer's queue.
    Send(usize, usize),
    /// The broker takes the first record of a queue.
    Deliver(usize, usize),
    Save,
    CrashCapture,
    Take(usize),
    /// This many of the records taken are tried; whether they can be written.
    Try(usize, bool),
    /// It is killed, or the partition is claimed again.
    CrashReader,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = || prop_oneof![5 => Just(0_usize), 1 => 1..3_usize];
    let step = prop_oneof![
        8 => (0..KEYS, any::<bool>()).prop_map(|(key, images)| Step::Write(key, images)),
        2 => (0..KEYS).prop_map(Step::Delete),
        7 => (which(), 1..6_usize).prop_map(|(which, count)| Step::Route(which, count)),
        1 => which().prop_map(Step::Mark),
        3 => which().prop_map(Step::ReadChunk),
        1 => (0..KEYS).prop_map(Step::Reread),
        4 => which().prop_map(Step::Release),
        14 => (which(), any::<usize>()).prop_map(|(which, task)| Step::Send(which, task)),
        7 => (which(), 1..6_usize).prop_map(|(which, count)| Step::Deliver(which, count)),
        2 => Just(Step::Save),
        2 => Just(Step::CrashCapture),
        8 => (1..12_usize).prop_map(Step::Take),
        6 => (1..12_usize, prop_oneof![3 => Just(true), 1 => Just(false)])
            .prop_map(|(count, written)| Step::Try(count, written)),
        2 => Just(Step::CrashReader),
    ];
    proptest::collection::vec(step, 0..300)
}

/// The time of a document's last change, and whether it is there.
type State = (u64, bool);

/// A change, at the time that is its place in the oplog and one.
#[derive(Clone, Copy)]
struct Change {
    key: i32,
    delete: bool,
    images: bool,
}

/// What is in a queue, and what is known once the broker has it.
struct Sent {
    value: Option<Bytes>,
    mark: Option<Bytes>,
    of: Of,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Of the change with this time.
    Stream(u64),
    Chunk(usize),
    Mark,
    Reread,
}

#[derive(Clone, Default)]
enum Stage {
    #[default]
    Open,
    Held {
        from: u64,
        until: u64,
        found: Vec<(i32, State)>,
        changed: HashSet<i32>,
    },
    Applying,
    Done,
}

struct Reread {
    key: i32,
    found: State,
    until: u64,
    changed: bool,
}

struct Capture {
    epoch: i64,
    /// Its first mark is in the log; it does nothing before.
    heard: bool,
    /// Changes that it was given.
    routed: u64,
    saved: u64,
    /// The source's time that it knows of. At its start that is the present: what captures before it have sent must be in
    /// what it reads, for it would be taken for a duplicate if it were sent instead.
    now: u64,
    horizon: u64,
    groups: i64,
    chunks: Vec<Stage>,
    rereads: Vec<Reread>,
    /// The stream's task and one for each chunk.
    tasks: Vec<VecDeque<Sent>>,
    queue: VecDeque<Sent>,
}

struct World {
    /// Every change tells the document as it was after it; then nothing is looked up.
    images: bool,
    oplog: Vec<Change>,
    captures: VecDeque<Capture>,
    // What the control store keeps of the capture.
    epoch: i64,
    saved: u64,
    done: Vec<bool>,
    log: Vec<Raw>,
    // The reader, and what the target keeps.
    intake: Intake,
    /// What the intake has seen.
    fed: usize,
    /// What has come.
    at: usize,
    stored: (i64, Claim),
    /// Through which time everything is said to be applied.
    said: Moment,
    copied: bool,
    target: BTreeMap<i32, u64>,
    newest: BTreeMap<i32, u64>,
}

fn chunk_of(key: i32) -> usize {
    key as usize * CHUNKS / KEYS as usize
}

fn claimed((offset, claim): &(i64, Claim)) -> Intake {
    Intake::new("items".into(), 0, (CollectionId(0), NAME.into()), *offset, claim.clone())
}

impl World {
    /// `copied`: the chunks are done and in the target.
    fn new(images: bool, copied: bool) -> Self {
        let stored = (0, Claim { epoch: 1, ..Claim::default() });
        let mut world = Self {
            images,
            oplog: Vec::new(),
            captures: VecDeque::new(),
            epoch: 0,
            saved: 0,
            done: vec![copied; CHUNKS],
            log: Vec::new(),
            intake: claimed(&stored),
            fed: 0,
            at: 0,
            stored,
            said: Moment::default(),
            copied,
            target: BTreeMap::new(),
            newest: BTreeMap::new(),
        };
        // Some documents are older than everything.
        for key in (0..KEYS).step_by(2) {
            world.write(key, false, true);
            if copied {
                world.target.insert(key, world.now());
            }
        }
        world.saved = world.now();
        world.newest = world.target.clone();
        world.start_capture();
        world
    }

    fn now(&self) -> u64 {
        self.oplog.len() as u64
    }

    fn write(&mut self, key: i32, delete: bool, images: bool) {
        if !delete || self.state(key, self.now()).1 {
            self.oplog.push(Change { key, delete, images: images || self.images });
        }
    }

    /// A document as it is at some time.
    fn state(&self, key: i32, time: u64) -> State {
        let changes = self.oplog[..time as usize].iter().enumerate().rev();
        let last = changes.into_iter().find(|(_, change)| change.key == key);
        last.map_or((0, false), |(index, change)| (index as u64 + 1, !change.delete))
    }

    fn event(&self, op: Op, key: i32, position: Position, (version, there): State) -> Event {
        let version = version as i64;
        let document = doc! {"_id": key, "v": version}.to_vec().expect("a document");
        Event {
            collection: CollectionId(0),
            key: super::key(key),
            op: if there { op } else { Op::Delete },
            document: if there { document.into() } else { Bytes::new() },
            position,
            time: version,
        }
    }

    fn start_capture(&mut self) {
        self.epoch += 1;
        let done = self.done.iter().map(|done| if *done { Stage::Done } else { Stage::Open }).collect();
        let mut capture = Capture {
            epoch: self.epoch,
            heard: false,
            routed: self.saved,
            saved: self.saved,
            now: 0,
            horizon: 0,
            groups: 0,
            chunks: done,
            rereads: Vec::new(),
            tasks: (0..=CHUNKS).map(|_| VecDeque::new()).collect(),
            queue: VecDeque::new(),
        };
        let mark = capture.mark();
        capture.queue.push_back(mark);
        self.captures.push_front(capture);
        self.captures.truncate(3);
    }

    fn capture(&mut self, which: usize) -> Option<&mut Capture> {
        self.captures.get_mut(which).filter(|capture| capture.heard)
    }

    fn route(&mut self, which: usize) -> bool {
        let (now, Some(capture)) = (self.now(), self.captures.get(which)) else { return false };
        if !capture.heard || capture.routed >= now {
            return false;
        }
        let time = capture.routed + 1;
        let change = self.oplog[time as usize - 1];
        // What may be older than a look-up is looked up.
        let exact = (change.images || change.delete) && time > capture.horizon;
        let state = self.state(change.key, if exact { time } else { now });
        let capture = &mut self.captures[which];
        let publish = match &mut capture.chunks[chunk_of(change.key)] {
            Stage::Applying => return false,
            Stage::Done => true,
            Stage::Held { from, changed, .. } if time > *from => {
                changed.insert(change.key);
                true
            }
            Stage::Open | Stage::Held { .. } => {
                // A delete travels as one or not at all.
                change.delete && !state.1
            }
        };
        for reread in capture.rereads.iter_mut().filter(|reread| reread.key == change.key) {
            reread.changed = true;
        }
        capture.routed = time;
        capture.now = capture.now.max(time);
        if publish && !exact {
            capture.horizon = now;
        }
        let event = self.event(Op::Upsert, change.key, position(time), state);
        if publish {
            self.captures[which].send(0, &event, Of::Stream(time));
        }
        true
    }

    fn read_piece(&mut self, which: usize) {
        let now = self.now();
        let states: Vec<_> = (0..KEYS).map(|key| (key, self.state(key, now))).collect();
        let Some(capture) = self.capture(which) else { return };
        let open = capture.chunks.iter().position(|chunk| matches!(chunk, Stage::Open));
        let Some(chunk) = open else { return };
        let found =
            states.into_iter().filter(|(key, (_, there))| chunk_of(*key) == chunk && *there).collect();
        capture.chunks[chunk] = Stage::Held { from: capture.now, until: now, found, changed: HashSet::new() };
    }

    fn reread(&mut self, key: i32) {
        let now = self.now();
        let found = self.state(key, now);
        let Some(capture) = self.capture(0) else { return };
        capture.rereads.push(Reread { key, found, until: now, changed: false });
    }

    fn release(&mut self, which: usize) {
        let Some(capture) = self.capture(which) else { return };
        let mut sent = Vec::new();
        let saved = capture.saved;
        for (chunk, stage) in capture.chunks.iter_mut().enumerate() {
            if matches!(stage, Stage::Held { until, .. } if *until <= saved)
                && let Stage::Held { found, changed, .. } = std::mem::replace(stage, Stage::Applying)
            {
                let found = found.into_iter().filter(|(key, _)| !changed.contains(key));
                sent.extend(found.map(|(key, state)| (chunk + 1, key, state, Of::Chunk(chunk))));
            }
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut capture.rereads).into_iter().partition(|reread| reread.until <= saved);
        capture.rereads = later;
        let due = due.into_iter().filter(|reread| !reread.changed);
        sent.extend(due.map(|reread| (0, reread.key, reread.found, Of::Reread)));
        for (task, key, state, of) in sent {
            let event = self.event(Op::Snapshot, key, Position::default(), state);
            self.captures[which].send(task, &event, of);
        }
        // One may have nothing left.
        self.complete(which);
    }

    fn send(&mut self, which: usize, task: usize) -> bool {
        let Some(capture) = self.capture(which) else { return false };
        let tasks: Vec<usize> = (0..=CHUNKS).filter(|task| !capture.tasks[*task].is_empty()).collect();
        let Some(task) = tasks.get(task % tasks.len().max(1)) else { return false };
        let sent = capture.tasks[*task].pop_front().expect("not empty");
        capture.queue.push_back(sent);
        true
    }

    fn deliver(&mut self, which: usize) -> bool {
        let offset = self.log.len() as i64;
        let now = self.now();
        let Some(capture) = self.captures.get_mut(which) else { return false };
        let Some(sent) = capture.queue.pop_front() else { return false };
        if !capture.heard {
            capture.heard = true;
            capture.now = now;
            // Captures before it may have seen everything up to now.
            capture.horizon = if self.images { 0 } else { now };
        }
        self.log.push(Raw { offset, key: Bytes::new(), value: sent.value, mark: sent.mark });
        self.complete(which);
        true
    }

    /// Chunks are done when the broker has all of them.
    fn complete(&mut self, which: usize) {
        let capture = &mut self.captures[which];
        for chunk in 0..CHUNKS {
            let mut open = capture.queue.iter().chain(&capture.tasks[chunk + 1]);
            if matches!(capture.chunks[chunk], Stage::Applying)
                && !open.any(|sent| sent.of == Of::Chunk(chunk))
            {
                capture.chunks[chunk] = Stage::Done;
                // The control store takes nothing of one that was superseded.
                self.done[chunk] |= which == 0;
            }
        }
    }

    /// Everything before the first change that is not in the log.
    fn save(&mut self) {
        let Some(capture) = self.capture(0) else { return };
        let open = capture.queue.iter().chain(capture.tasks.iter().flatten());
        let first = open.filter_map(|sent| match sent.of {
            Of::Stream(time) => Some(time - 1),
            _ => None,
        });
        capture.saved = first.min().unwrap_or(capture.routed);
        self.saved = capture.saved;
    }

    fn take(&mut self, count: usize) {
        self.at = self.log.len().min(self.at + count);
    }

    fn attempt(&mut self, count: usize, written: bool) {
        let mut ahead = self.intake.clone();
        let mut gathered = Gathered::default();
        let fed = self.at.min(self.fed + count);
        for raw in &self.log[self.fed..fed] {
            ahead.take(raw, &mut gathered).expect("records of ours");
        }
        ahead.say_reached(self.log[fed..self.at].iter());
        let Some(advance) = ahead.advance() else {
            assert!(gathered.events.is_empty(), "events without progress would be lost");
            (self.intake, self.fed) = (ahead, fed);
            return;
        };
        if !written {
            return;
        }
        (self.intake, self.fed) = (ahead, fed);
        for event in gathered.events {
            // What a copy had been left to show may be streamed by a later capture.
            let streamed = self.copied && event.position != Position::default();
            assert!(!streamed || event.position.moment > self.said, "there was something left");
            let key = (0..KEYS).find(|id| super::key(*id) == event.key).expect("one of ours");
            if event.op == Op::Delete {
                self.target.remove(&key);
                continue;
            }
            // A document that comes back is newer than it was before it went.
            let version = event.time as u64;
            let newest = self.newest.entry(key).or_default();
            assert!(version >= *newest, "document {key} went back from {newest} to {version}");
            *newest = version;
            self.target.insert(key, version);
        }
        let (offset, claim) = &mut self.stored;
        assert_eq!(advance.from_offset, *offset);
        assert!(advance.next_offset >= *offset && advance.next_offset <= fed as i64);
        self.said = self.said.max(advance.applied_through.unwrap_or_default());
        let moved = advance.next_offset > *offset;
        *offset = advance.next_offset;
        claim.capture = claim.capture.max(advance.capture_epoch);
        claim.high = advance.position.unwrap_or_default().max(std::mem::take(&mut claim.high));
        assert_eq!(self.intake.committed(), moved.then_some(*offset));
    }

    fn crash_reader(&mut self) {
        self.intake = claimed(&self.stored);
        self.fed = self.stored.0 as usize;
        self.at = self.fed;
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(key, images) => self.write(key, false, images),
            Step::Delete(key) => self.write(key, true, true),
            Step::Route(which, count) => (0..count).for_each(|_| {
                self.route(which);
            }),
            Step::Mark(which) => {
                if let Some(capture) = self.capture(which) {
                    let mark = capture.mark();
                    capture.tasks[0].push_back(mark);
                }
            }
            Step::ReadChunk(which) => self.read_piece(which),
            Step::Reread(key) => self.reread(key),
            Step::Release(which) => self.release(which),
            Step::Send(which, task) => {
                self.send(which, task);
            }
            Step::Deliver(which, count) => (0..count).for_each(|_| {
                self.deliver(which);
            }),
            Step::Save => self.save(),
            Step::CrashCapture => self.start_capture(),
            Step::Take(count) => self.take(count),
            Step::Try(count, written) => self.attempt(count, written),
            Step::CrashReader => self.crash_reader(),
        }
    }

    /// No more writes and no more crashes; everything runs to its end.
    fn finish(&mut self) {
        for round in 0..10_000 {
            while self.send(0, round) || self.deliver(0) || self.route(0) {}
            self.save();
            self.release(0);
            self.read_piece(0);
            // What others still had comes late.
            for other in 1..self.captures.len() {
                self.send(other, round);
                self.deliver(other);
            }
            self.take(7);
            self.attempt(5, true);
            let capture = &self.captures[0];
            let sent = capture.queue.is_empty() && capture.tasks.iter().all(VecDeque::is_empty);
            let at_rest = sent && capture.routed == self.now() && capture.rereads.is_empty();
            if at_rest && self.done.iter().all(|done| *done) && self.fed == self.log.len() {
                assert_eq!(self.stored.0, self.log.len() as i64);
                return;
            }
        }
        panic!("never came to its end");
    }
}

impl Capture {
    fn mark(&self) -> Sent {
        let mut mark = Vec::new();
        Mark { epoch: self.epoch, time: Moment(self.routed), at: 0, as_of: None, fence: None }
            .encode(&mut mark);
        Sent { value: None, mark: Some(mark.into()), of: Of::Mark }
    }

    /// Some events are sent whole, some in parts.
    fn send(&mut self, task: usize, event: &Event, of: Of) {
        let stamp = Stamp { epoch: self.epoch, ..Stamp::default() };
        self.groups += 1;
        let values = match self.groups % 5 {
            0 => cut(event, self.epoch, self.groups, 3),
            1 => cut(event, self.epoch, self.groups, 2),
            _ => {
                let mut value = Vec::new();
                encode(event, NAME, stamp, &mut value);
                vec![value]
            }
        };
        let sent = values.into_iter().map(|value| Sent { value: Some(value.into()), mark: None, of });
        self.tasks[task].extend(sent);
    }
}

fn position(time: u64) -> Position {
    Position::new(Moment(time), Bytes::from_static(b"t"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn ends_equal_and_never_goes_back(images in any::<bool>(), copied in any::<bool>(), steps in steps()) {
        let mut world = World::new(images, copied);
        for step in &steps {
            world.step(step);
        }
        world.finish();
        let source: BTreeMap<i32, u64> = (0..KEYS)
            .map(|key| (key, world.state(key, world.now())))
            .filter_map(|(key, (version, there))| there.then_some((key, version)))
            .collect();
        prop_assert_eq!(world.target, source);
    }
}

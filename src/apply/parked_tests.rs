//! What is tried when, and several readers among partitions that refer to each other.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

fn partition(topic: u16) -> Partition {
    Partition { topic, number: 0 }
}

/// The record says its time in plain text, or nothing.
fn raw(offset: i64, time: Option<u64>) -> Raw {
    let value = time.map_or(Bytes::new(), |time| time.to_string().into());
    Raw { offset, key: Bytes::new(), value: Some(value), mark: None }
}

fn time_of(raw: &Raw) -> Moment {
    let value = raw.value.as_ref().expect("a value");
    let text = std::str::from_utf8(value).expect("text");
    text.parse().map(Moment).unwrap_or_default()
}

fn push(parked: &mut Parked, topic: u16, offset: i64, time: u64) {
    parked.push(partition(topic), raw(offset, Some(time)), time_of);
}

fn nobody(_: Partition) -> Option<Moment> {
    None
}

fn refuse(parked: &mut Parked, pick: &Pick, now: Instant) {
    parked.refused(pick, now, |_, raw| time_of(raw));
}

/// Refuses everything that is tried until `stops` lets something through; what that is.
fn refuse_until(parked: &mut Parked, now: &mut Instant, stops: impl Fn(&Pick) -> bool) -> Pick {
    for _ in 0..1_000 {
        match parked.next(*now, nobody, Moment::default()) {
            Some(pick) if stops(&pick) => return pick,
            Some(pick) => refuse(parked, &pick, *now),
            None => *now = parked.due().expect("something waits"),
        }
    }
    panic!("it is never tried");
}

#[test]
fn everything_goes_together_while_nothing_dangles() {
    let mut parked = Parked::new();
    for offset in 0..100 {
        push(&mut parked, 1, offset, 1_000);
        push(&mut parked, 0, offset, 7);
    }
    let pick = parked.next(Instant::now(), nobody, Moment::default()).expect("something waits");
    assert_eq!(pick, Pick { takes: vec![(partition(0), 100), (partition(1), 100)], last: false });
    parked.written(&pick);
    assert_eq!(parked.next(Instant::now(), nobody, Moment::default()), None);
    assert_eq!((parked.bytes, parked.due()), (0, None));
}

#[test]
fn a_little_is_tried_again_as_it_is() {
    let mut parked = Parked::new();
    push(&mut parked, 0, 0, 5);
    let now = Instant::now();
    let pick = parked.next(now, nobody, Moment::default()).expect("something waits");
    refuse(&mut parked, &pick, now);
    assert_eq!(parked.next(now, nobody, Moment::default()), None, "not at once");
    push(&mut parked, 1, 0, 6);
    let again = parked.next(now + FIRST_PAUSE, nobody, Moment::default()).expect("it is due");
    assert_eq!(again.records(), 2, "what has come meanwhile goes with it");
    parked.written(&again);
    assert!(!parked.is_uneven());
}

#[test]
fn much_is_tried_in_the_order_of_the_source() {
    let mut parked = Parked::new();
    // One partition is far ahead of the other.
    for offset in 0..1_000 {
        push(&mut parked, 0, offset, 10_000 + offset as u64);
        push(&mut parked, 1, offset, offset as u64);
    }
    let now = Instant::now();
    let all = parked.next(now, nobody, Moment::default()).expect("something waits");
    refuse(&mut parked, &all, now);
    let pick = parked.next(now, nobody, Moment::default()).expect("at once, and less");
    assert_eq!(pick, Pick { takes: vec![(partition(1), 500)], last: false });
    parked.written(&pick);
    let pick = parked.next(now, nobody, Moment::default()).expect("more waits");
    assert_eq!(pick.takes, [(partition(0), 500), (partition(1), 500)]);
    refuse(&mut parked, &pick, now);
    let takes = |others| parked.next(now, nobody, Moment(others)).expect("more waits").takes;
    assert_eq!(takes(0), [(partition(1), 250)]);
    assert_eq!(takes(900), [(partition(1), 250)], "what was refused is not tried again as it is");
    let pick = Pick { takes: takes(0), last: false };
    parked.written(&pick);
    let takes = |others| parked.next(now, nobody, Moment(others)).expect("more waits").takes;
    assert_eq!(takes(10_799), [(partition(0), 800), (partition(1), 250)], "others have passed all that");
}

#[test]
fn a_partition_that_is_blocked_lets_others_go_on_but_not_far() {
    let mut parked = Parked::new();
    for offset in 0..100 {
        push(&mut parked, 0, offset, 50);
        push(&mut parked, 1, offset, 60 + offset as u64);
    }
    push(&mut parked, 1, 100, 51 + AHEAD_OF_MUCH + MUCH);
    let mut now = Instant::now();
    let of_other = |pick: &Pick| pick.takes.iter().all(|(place, _)| *place == partition(1));
    let mut other = 0;
    while other < 100 {
        let pick = refuse_until(&mut parked, &mut now, of_other);
        parked.written(&pick);
        other += pick.records();
    }
    assert_eq!(parked.queues[&partition(0)].alone, Some(1));
    for _ in 0..12 {
        now = parked.due().expect("the other is blocked");
        let pick = parked.next(now, nobody, Moment::default()).expect("it is due");
        assert_eq!(pick.takes, [(partition(0), 1)], "what happened much later waits");
        refuse(&mut parked, &pick, now);
        assert_eq!(parked.next(now, nobody, Moment::default()), None);
    }
    parked.others_moved(now, Moment(49));
    let moved = now;
    let pick = refuse_until(&mut parked, &mut now, |pick| pick.last);
    assert_eq!(pick.takes, [(partition(0), 1)], "it was given up");
    assert!(now.duration_since(moved) >= GIVE_UP, "but not while others move");
    parked.written(&pick);
    assert_eq!(parked.next(now, nobody, Moment::default()).expect("it goes on").takes, [(partition(0), 4)]);
}

/// Each try takes as long as the longest pause, so that everything that was tried in vain is due again.
#[test]
fn tries_in_vain_keep_nobody_waiting() {
    let mut parked = Parked::new();
    for topic in 0..4 {
        (0..10).for_each(|offset| push(&mut parked, topic, offset, 100 + offset as u64));
    }
    let mut now = Instant::now();
    let is_blocked = |parked: &Parked, topic| parked.queues[&partition(topic)].blocked.is_some();
    for tries in 0.. {
        if (0..4).all(|topic| is_blocked(&parked, topic)) {
            break;
        }
        assert!(tries < 100, "the first is tried again and again");
        now += LONGEST_PAUSE;
        if let Some(pick) = parked.next(now, nobody, Moment::default()) {
            refuse(&mut parked, &pick, now);
        }
    }
    // What all of them wait for has come.
    (0..3).for_each(|offset| push(&mut parked, 4, offset, 50));
    now += LONGEST_PAUSE;
    let pick = parked.next(now, nobody, Moment::default()).expect("something waits");
    assert_eq!(pick.takes, [(partition(4), 3)], "the one that is behind goes first");
    parked.written(&pick);
    // And somebody else may wait for this.
    push(&mut parked, 5, 0, 105);
    for tries in 0.. {
        assert!(tries < 3, "those that are due again and again leave it no turn");
        now += LONGEST_PAUSE;
        let pick = parked.next(now, nobody, Moment::default()).expect("something waits");
        if pick.takes == [(partition(5), 1)] {
            break;
        }
        refuse(&mut parked, &pick, now);
    }
}

#[test]
fn a_reference_is_wrong_when_all_others_have_passed_it() {
    let mut parked = Parked::new();
    push(&mut parked, 0, 0, 50);
    push(&mut parked, 0, 1, 55);
    push(&mut parked, 0, 2, 70);
    let mut now = Instant::now();
    let head = |pick: &Pick| pick.takes == [(partition(0), 1)];
    let pick = refuse_until(&mut parked, &mut now, head);
    refuse(&mut parked, &pick, now);
    now = parked.due().expect("it is blocked");
    assert!(parked.is_blocked());
    let pick = parked.next(now, |_| Some(Moment(49)), Moment::default()).expect("it is due");
    assert!(!pick.last, "it may still come");
    let pick = parked.next(now, |_| Some(Moment(60)), Moment::default()).expect("it is due");
    assert_eq!(pick, Pick { takes: vec![(partition(0), 2)], last: true });
    parked.written(&pick);
    assert!(!parked.is_blocked());
}

#[test]
fn nobody_waits_for_those_who_cannot_help() {
    let mut parked = Parked::new();
    // Both at one time, so that neither was passed by the other.
    push(&mut parked, 0, 0, 50);
    push(&mut parked, 1, 0, 50);
    push(&mut parked, 1, 1, 51 + AHEAD);
    let mut now = Instant::now();
    while parked.queues.values().any(|queue| queue.blocked.is_none()) {
        match parked.next(now, nobody, Moment(49)) {
            Some(pick) => refuse(&mut parked, &pick, now),
            None => now = parked.due().expect("something waits"),
        }
    }
    assert_eq!(parked.next(now, nobody, Moment(49)), None, "somebody else may still bring it");
    let pick = parked.next(now, nobody, Moment(50)).expect("nobody else does");
    assert_eq!(pick, Pick { takes: vec![(partition(0), 1)], last: true });
    parked.written(&pick);
    let pick = parked.next(now, nobody, Moment(50)).expect("nor the second");
    assert_eq!(pick, Pick { takes: vec![(partition(1), 1)], last: true });

    let tried = parked.due().expect("it is blocked");
    let pick = parked.next(tried, nobody, Moment(48)).expect("it is due");
    assert!(!pick.last, "others are on their way");
    let later = now + GIVE_UP_TIED;
    assert!(!parked.next(later, nobody, Moment(48)).is_some_and(|pick| pick.last));
    assert!(parked.next(later, nobody, Moment(49)).is_some_and(|pick| pick.last), "they wait for us");

    let since = |parked: &Parked| parked.queues[&partition(1)].blocked.expect("it is blocked").since;
    let first = since(&parked);
    parked.others_moved(now + GIVE_UP, Moment(50));
    assert_eq!(since(&parked), first, "they were past it already");
    parked.others_moved(now + GIVE_UP, Moment(49));
    assert_eq!(since(&parked), now + GIVE_UP);

    let pick = Pick { takes: vec![(partition(1), 1)], last: false };
    for _ in 0..8 {
        refuse(&mut parked, &pick, now);
    }
    assert_eq!(parked.due(), Some(now + LONGEST_PAUSE));
    parked.try_again(now + Duration::from_millis(1));
    assert_eq!(parked.due(), Some(now + FIRST_PAUSE), "not all the time");
}

#[test]
fn what_has_no_time_of_its_own_counts_as_what_stands_before_it() {
    let mut parked = Parked::new();
    push(&mut parked, 0, 0, 90);
    push(&mut parked, 1, 0, 50);
    parked.push(partition(1), raw(1, None), time_of);
    parked.push(partition(1), raw(2, Some(20)), time_of);
    let mut now = Instant::now();
    let pick = refuse_until(&mut parked, &mut now, |pick| pick.takes == [(partition(1), 1)]);
    refuse(&mut parked, &pick, now);
    push(&mut parked, 1, 3, 80);
    parked.push(partition(1), raw(4, None), time_of);
    let times: Vec<u64> = parked.queues[&partition(1)].records.iter().map(|waiting| waiting.time.0).collect();
    assert_eq!(times, [50, 50, 50, 80, 80]);
}

#[test]
fn no_more_waits_than_memory_allows() {
    let mut parked = Parked::new();
    let large = |offset| Raw { value: Some(vec![0; 1 << 20].into()), ..raw(offset, None) };
    let mut now = Instant::now();
    parked.push(partition(0), large(0), |_| Moment::default());
    let head = parked.next(now, nobody, Moment::default()).expect("something waits");
    while !parked.is_blocked() {
        refuse(&mut parked, &head, now);
        now = parked.due().expect("something waits");
    }
    for offset in 1.. {
        if parked.is_full() {
            break;
        }
        assert!(!parked.next(now + LONGEST_PAUSE, nobody, Moment::default()).is_some_and(|pick| pick.last));
        parked.push(partition(0), large(offset), |_| Moment::default());
    }
    assert!((MOST_WAITING..MOST_WAITING + (2 << 20)).contains(&parked.bytes));
    let pick = parked.next(now + LONGEST_PAUSE, nobody, Moment::default()).expect("it is due");
    assert!(pick.last, "the oldest has to give");
    parked.written(&pick);
    assert!(!parked.is_full());
    parked.forget(partition(0));
    assert_eq!(parked.bytes, 0);
}

/// An object comes, is referred to by others, is released and goes; at the time that is its place in the source.
#[derive(Clone, Debug)]
struct Change {
    object: usize,
    gone: bool,
    refers: Vec<usize>,
}

/// Readers of some partitions each, and a target that takes no row without its references and gives none up that is
/// referred to.
struct World {
    log: Vec<Vec<(u64, Change)>>,
    readers: Vec<Parked>,
    owner: Vec<usize>,
    /// What has come, and what was written, of each partition.
    at: Vec<usize>,
    applied: Vec<usize>,
    /// How far it is said to be.
    said: Vec<Moment>,
    rows: HashMap<usize, Vec<usize>>,
    letters: BTreeSet<usize>,
    now: Instant,
}

impl World {
    /// Whether the source's own rules are kept: an object refers to such that are there, and goes when nobody does.
    fn new(partitions: usize, readers: usize, draws: &[(u16, bool, Vec<usize>)], orphans: &[usize]) -> Self {
        let mut log = vec![Vec::new(); partitions];
        let mut there: BTreeMap<usize, (u16, Vec<usize>)> = BTreeMap::new();
        for (place, (home, delete, refers)) in draws.iter().enumerate() {
            let time = place as u64 + 1;
            let free = |object: &usize| there.values().all(|(_, refers)| !refers.contains(object));
            let victim = there.keys().copied().filter(free).nth(usize::from(*home) % 3).filter(|_| *delete);
            let (home, change) = match victim {
                Some(object) => {
                    let (home, _) = there.remove(&object).expect("it is there");
                    (home, Change { object, gone: true, refers: Vec::new() })
                }
                None => {
                    let home = home % partitions as u16;
                    let known: Vec<usize> = there.keys().copied().collect();
                    let mut refers: Vec<usize> =
                        refers.iter().filter_map(|at| known.get(at % known.len().max(1)).copied()).collect();
                    there.insert(place, (home, refers.clone()));
                    if orphans.contains(&place) {
                        refers.push(usize::MAX);
                    }
                    (home, Change { object: place, gone: false, refers })
                }
            };
            log[usize::from(home)].push((time, change));
        }
        Self {
            readers: (0..readers).map(|_| Parked::new()).collect(),
            owner: (0..partitions).map(|place| place % readers).collect(),
            at: vec![0; partitions],
            applied: vec![0; partitions],
            said: vec![Moment::default(); partitions],
            log,
            rows: HashMap::new(),
            letters: BTreeSet::new(),
            now: Instant::now(),
        }
    }

    fn deliver(&mut self, place: usize, count: usize) {
        for _ in 0..count {
            let Some((time, _)) = self.log[place].get(self.at[place]) else { return };
            push(&mut self.readers[self.owner[place]], place as u16, self.at[place] as i64, *time);
            self.at[place] += 1;
        }
    }

    /// Another reader has it now.
    fn hand_over(&mut self, place: usize, to: usize) {
        self.readers[self.owner[place]].forget(partition(place as u16));
        self.owner[place] = to % self.readers.len();
        self.at[place] = self.applied[place];
    }

    /// As written down in the target: a mark comes behind the last record.
    fn through(&self, place: usize) -> Moment {
        match self.log[place].get(self.applied[place]) {
            Some(_) => {
                let last = self.applied[place].checked_sub(1).map_or(0, |last| self.log[place][last].0);
                Moment(last.saturating_sub(1))
            }
            None => Moment(u64::MAX),
        }
    }

    fn changes(&self, pick: &Pick) -> Vec<Change> {
        let mut changes = Vec::new();
        for (place, count) in &pick.takes {
            let place = usize::from(place.topic);
            changes.extend(
                self.log[place][self.applied[place]..][..*count].iter().map(|(_, change)| change.clone()),
            );
        }
        changes
    }

    /// All or nothing; deletes wait for nothing else in the same transaction.
    fn apply(&mut self, changes: &[Change]) -> bool {
        let mut rows = self.rows.clone();
        for change in changes {
            if change.gone {
                rows.remove(&change.object);
            } else {
                rows.insert(change.object, change.refers.clone());
            }
        }
        // Within a batch only the last state of an object counts.
        for change in changes.iter().filter(|change| change.gone) {
            rows.remove(&change.object);
        }
        let good = rows.values().flatten().all(|refers| rows.contains_key(refers));
        if good {
            self.rows = rows;
        }
        good
    }

    /// A reader tries something; whether there was anything to try.
    fn step(&mut self, reader: usize) -> bool {
        let through: Vec<Moment> =
            (0..self.log.len()).map(|place| self.through(place).max(self.said[place])).collect();
        let parked = &self.readers[reader];
        let reached = |place: usize| {
            let next = parked.behind(partition(place as u16), 0).next()?;
            Some(Moment(time_of(next).0 - 1))
        };
        let passed = |of: Partition| {
            let others = (0..through.len()).filter(|place| *place != usize::from(of.topic));
            others.map(|place| reached(place).unwrap_or_default().max(through[place])).min()
        };
        let others = (0..through.len()).filter(|place| reached(*place).is_none());
        let others = others.map(|place| through[place]).min().unwrap_or(Moment(u64::MAX));
        let Some(pick) = parked.next(self.now, passed, others) else { return false };
        let changes = self.changes(&pick);
        if !self.apply(&changes) {
            if !pick.last {
                refuse(&mut self.readers[reader], &pick, self.now);
                return true;
            }
            for change in changes {
                if !self.apply(std::slice::from_ref(&change)) {
                    self.letters.insert(change.object);
                }
            }
        }
        for (place, count) in &pick.takes {
            self.applied[usize::from(place.topic)] += count;
        }
        self.readers[reader].written(&pick);
        for place in 0..self.log.len() {
            if let Some(next) = self.readers[reader].behind(partition(place as u16), 0).next() {
                let time = time_of(next);
                self.said[place] = self.said[place].max(Moment(time.0 - 1));
            }
        }
        true
    }

    fn is_done(&self) -> bool {
        self.log.iter().zip(&self.applied).all(|(log, applied)| log.len() == *applied)
    }

    fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.is_done() {
                return;
            }
            (0..self.log.len()).for_each(|place| self.deliver(place, 50));
            let tried = (0..self.readers.len()).filter(|reader| self.step(*reader)).count();
            if tried == 0 {
                self.now = self.readers.iter().filter_map(Parked::due).min().expect("something waits");
            }
        }
        panic!("never came to its end");
    }
}

fn draws() -> impl Strategy<Value = Vec<(u16, bool, Vec<usize>)>> {
    let draw = (any::<u16>(), prop::bool::weighted(0.3), proptest::collection::vec(any::<usize>(), 0..3));
    proptest::collection::vec(draw, 0..300)
}

#[derive(Clone, Debug)]
enum Step {
    Deliver(usize, usize),
    Try(usize),
    HandOver(usize, usize),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<usize>(), 1..60_usize).prop_map(|(place, count)| Step::Deliver(place, count)),
        8 => any::<usize>().prop_map(Step::Try),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(place, to)| Step::HandOver(place, to)),
        2 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn readers_that_refer_to_each_other_come_to_their_end(
        partitions in 1..7_usize,
        readers in 1..4_usize,
        draws in draws(),
        orphans in proptest::collection::vec(0..300_usize, 0..5),
        steps in steps(),
    ) {
        let mut world = World::new(partitions, readers, &draws, &orphans);
        for step in steps {
            match step {
                Step::Deliver(place, count) => world.deliver(place % partitions, count),
                Step::Try(reader) => {
                    world.step(reader % readers);
                }
                Step::HandOver(place, to) => world.hand_over(place % partitions, to),
                Step::Wait => world.now += Duration::from_millis(100),
            }
        }
        world.finish();
        let mut rows = BTreeSet::new();
        let changes: BTreeMap<u64, &Change> = world.log.iter().flatten().map(|(time, change)| (*time, change)).collect();
        for change in changes.values() {
            if change.gone { rows.remove(&change.object); } else { rows.insert(change.object); }
        }
        let written: BTreeSet<usize> = world.rows.keys().copied().collect();
        let different: Vec<&usize> = rows.symmetric_difference(&written).collect();
        // Dead letters are tried again; nothing else may differ.
        prop_assert!(different.iter().all(|object| world.letters.contains(object)), "{different:?}");
    }
}

//! What is taken out of a partition, record by record.

use bson::doc;
use slackwater_topics::{Key, Value, encode};
use uuid::Uuid;

use super::*;

#[path = "intake_simulation.rs"]
mod simulation;

const NAME: &str = "legacy.items";

fn key(id: i32) -> Key {
    Key::of(Value::Int32(id)).expect("a key")
}

fn position(time: u64, token: &'static [u8]) -> Position {
    Position::new(Moment(time), token)
}

/// A change of a document; without a document it is a delete.
fn event(op: Op, id: i32, position: Position) -> Event {
    let document = match op {
        Op::Delete => Bytes::new(),
        Op::Snapshot | Op::Upsert => doc! {"_id": id, "n": id}.to_vec().expect("a document").into(),
    };
    Event { collection: CollectionId(0), key: key(id), op, document, position, time: 0 }
}

fn bytes(event: &Event, stamp: Stamp) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, NAME, stamp, &mut out);
    out
}

/// An event in this many parts.
fn cut(event: &Event, epoch: i64, group: i64, count: i32) -> Vec<Vec<u8>> {
    let whole = bytes(event, Stamp { epoch, ..Stamp::default() });
    let parts: Vec<Vec<u8>> = whole
        .chunks(whole.len().div_ceil(count as usize))
        .enumerate()
        .map(|(index, piece)| {
            let mut out = Vec::new();
            Part::encode((epoch, group), (index as i32, count), event.position.moment, piece, &mut out);
            out
        })
        .collect();
    assert_eq!(parts.len(), count as usize);
    parts
}

/// A partition that is written to and read at once.
struct Partition {
    intake: Intake,
    out: Gathered,
    end: i64,
}

impl Partition {
    fn new() -> Self {
        Self::claimed(0, Claim::default())
    }

    fn claimed(offset: i64, claim: Claim) -> Self {
        let collection = (CollectionId(0), NAME.into());
        let intake = Intake::new("shop.items".into(), 2, collection, offset, claim);
        Self { intake, out: Gathered::default(), end: offset }
    }

    fn raw(&mut self, value: Option<Vec<u8>>, mark: Option<Vec<u8>>) -> Result<(), EnvelopeError> {
        let raw = Raw {
            offset: self.end,
            key: Bytes::new(),
            value: value.map(Bytes::from),
            mark: mark.map(Bytes::from),
        };
        self.intake.take(&raw, &mut self.out)?;
        self.end += 1;
        Ok(())
    }

    fn value(&mut self, value: Vec<u8>) {
        self.raw(Some(value), None).expect("a record that is taken");
    }

    fn put(&mut self, op: Op, id: i32, position: Position, epoch: i64) {
        self.value(bytes(&event(op, id, position), Stamp { epoch, ..Stamp::default() }));
    }

    fn stream(&mut self, id: i32, time: u64, epoch: i64) {
        self.put(Op::Upsert, id, position(time, b"t"), epoch);
    }

    fn mark(&mut self, epoch: i64, time: u64, fence: Option<Uuid>) {
        let mut mark = Vec::new();
        Mark { epoch, time: Moment(time), at: 0, as_of: None, fence }.encode(&mut mark);
        self.raw(None, Some(mark)).expect("a mark");
    }

    /// The documents that were taken out, in order.
    fn ids(&self) -> Vec<i32> {
        let id = |event: &Event| (0..100).find(|id| key(*id) == event.key).expect("one of ours");
        self.out.events.iter().map(id).collect()
    }

    fn advance(&self) -> PartitionAdvance {
        self.intake.advance().expect("something came")
    }

    fn next(&self) -> i64 {
        self.intake.advance().map_or(self.intake.stored, |advance| advance.next_offset)
    }
}

#[test]
fn what_comes_twice_is_dropped_and_counted() {
    let mut partition = Partition::new();
    for time in [5, 6, 7] {
        partition.stream(time as i32, time, 1);
    }
    // Killed, and begun again at 5.
    partition.mark(2, 5, None);
    for time in [6, 7, 8] {
        partition.stream(time as i32, time, 2);
    }
    assert_eq!(partition.ids(), [5, 6, 7, 8]);
    let advance = partition.advance();
    assert_eq!((advance.events, advance.duplicates, advance.superseded), (4, 2, 0));
    assert_eq!(advance.position, Some(position(8, b"t")));

    // The next reader knows it by the position that was committed.
    let claim = Claim { epoch: 9, capture: 2, high: position(7, b"t") };
    let mut partition = Partition::claimed(100, claim);
    for time in [6, 7, 8] {
        partition.stream(time as i32, time, 2);
    }
    assert_eq!(partition.ids(), [8]);
    assert_eq!(partition.advance().duplicates, 2);
}

#[test]
fn changes_of_one_transaction_differ_in_their_tokens() {
    let mut partition = Partition::new();
    for token in [b"a", b"b", b"a", b"b", b"c"] {
        partition.put(Op::Upsert, 1, position(5, token), 1);
    }
    let advance = partition.advance();
    assert_eq!((advance.events, advance.duplicates), (3, 2));
    assert_eq!(advance.position, Some(position(5, b"c")));
}

#[test]
fn what_was_read_has_no_place_in_the_order_of_the_source() {
    let mut partition = Partition::new();
    partition.stream(1, 50, 1);
    // The copy, a document read again, one that was found gone, and all of it once more.
    for _ in 0..2 {
        partition.put(Op::Snapshot, 2, Position::default(), 1);
        partition.put(Op::Upsert, 3, Position::default(), 1);
        partition.put(Op::Delete, 4, Position::default(), 1);
    }
    assert_eq!(partition.ids(), [1, 2, 3, 4, 2, 3, 4]);
    let advance = partition.advance();
    assert_eq!((advance.events, advance.duplicates), (7, 0));
    assert_eq!(advance.position, Some(position(50, b"t")), "it moves no mark");
    assert_eq!(advance.applied_through, Some(Moment(49)));
}

#[test]
fn a_superseded_capture_is_not_heard() {
    let mut partition = Partition::new();
    partition.stream(1, 5, 1);
    partition.mark(2, 5, None);
    // What the first one still had in its queue.
    partition.stream(2, 9, 1);
    partition.put(Op::Snapshot, 3, Position::default(), 1);
    for part in cut(&event(Op::Snapshot, 4, Position::default()), 1, 1, 2) {
        partition.value(part);
    }
    partition.mark(1, 99, Some(Uuid::from_u128(1)));
    partition.stream(5, 6, 2);
    assert_eq!(partition.ids(), [1, 5]);
    assert!(partition.out.fences.is_empty());
    let advance = partition.advance();
    assert_eq!((advance.events, advance.superseded, advance.capture_epoch), (2, 5, 2));
    assert_eq!(advance.position, Some(position(6, b"t")));
    assert_eq!(advance.applied_through, Some(Moment(5)));
    // A third one needs no mark to be known.
    partition.stream(6, 7, 3);
    partition.stream(7, 8, 2);
    assert_eq!(partition.ids(), [1, 5, 6]);
    assert_eq!((partition.advance().superseded, partition.advance().capture_epoch), (6, 3));

    let mut partition = Partition::claimed(7, Claim { epoch: 1, capture: 3, high: Position::default() });
    partition.stream(1, 5, 2);
    assert_eq!((partition.ids(), partition.advance().superseded), (vec![], 1));
}

#[test]
fn parts_become_one_event() {
    let large = event(Op::Upsert, 1, position(5, b"t"));
    let mut partition = Partition::new();
    let parts = cut(&large, 1, 7, 3);
    for part in &parts[..2] {
        partition.value(part.clone());
        assert!(partition.out.events.is_empty() && partition.intake.advance().is_none());
    }
    partition.value(parts[2].clone());
    assert_eq!(partition.out.events, std::slice::from_ref(&large));
    assert_eq!(partition.advance().next_offset, 3);
    // A single part is the whole, and it is a duplicate as any other.
    partition.value(cut(&large, 2, 8, 1).remove(0));
    assert_eq!((partition.advance().events, partition.advance().duplicates), (1, 1));
}

#[test]
fn what_stands_between_parts_waits_for_them() {
    let mut partition = Partition::new();
    partition.stream(1, 4, 1);
    let parts = cut(&event(Op::Upsert, 2, position(5, b"t")), 1, 7, 3);
    let fence = Uuid::from_u128(3);
    partition.value(parts[0].clone());
    partition.put(Op::Snapshot, 3, Position::default(), 1);
    partition.mark(1, 5, Some(fence));
    partition.value(parts[1].clone());
    partition.raw(None, None).expect("a tombstone");
    partition.stream(4, 6, 1);
    assert_eq!(partition.ids(), [1]);
    assert!(partition.out.fences.is_empty());
    let advance = partition.advance();
    assert_eq!((advance.next_offset, advance.events), (1, 1));
    assert_eq!((advance.position, advance.applied_through), (Some(position(4, b"t")), Some(Moment(3))));
    // Committed as far as that; a second look finds nothing new.
    assert_eq!(partition.intake.committed(), Some(1));
    assert!(partition.intake.advance().is_none());
    partition.value(parts[2].clone());
    assert_eq!(partition.ids(), [1, 2, 3, 4]);
    assert_eq!(partition.out.fences.len(), 1);
    let advance = partition.advance();
    assert_eq!((advance.from_offset, advance.next_offset, advance.events), (1, 8, 3));
}

#[test]
fn a_newer_capture_voids_what_was_not_finished() {
    let mut partition = Partition::new();
    let large = event(Op::Upsert, 1, position(5, b"t"));
    let parts = cut(&large, 1, 7, 3);
    partition.value(parts[0].clone());
    partition.stream(2, 6, 1);
    partition.value(parts[1].clone());
    partition.mark(2, 4, None);
    // What came before the mark was sent by the first one while it was the newest.
    assert_eq!((partition.ids(), partition.next()), (vec![2], 4));
    partition.value(parts[2].clone());
    assert_eq!((partition.ids(), partition.advance().superseded), (vec![2], 1));
}

#[test]
fn a_voided_group_is_sent_again() {
    let mut partition = Partition::new();
    let large = event(Op::Upsert, 1, position(5, b"t"));
    partition.value(cut(&large, 1, 7, 2).remove(0));
    // The newer one gives its groups the same numbers.
    let again = cut(&large, 2, 7, 2);
    partition.value(again[0].clone());
    assert_eq!(partition.next(), 1);
    partition.value(cut(&large, 1, 7, 2).remove(1));
    partition.value(again[1].clone());
    assert_eq!((partition.ids(), partition.next(), partition.advance().superseded), (vec![1], 4, 1));
}

#[test]
fn a_rest_without_its_beginning_is_passed_by() {
    let mut partition = Partition::claimed(3, Claim::default());
    for part in cut(&event(Op::Upsert, 1, position(5, b"t")), 1, 7, 3).split_off(1) {
        partition.value(part);
    }
    assert_eq!(partition.next(), 5);
    partition.stream(2, 6, 1);
    assert_eq!((partition.ids(), partition.next()), (vec![2], 6));
    assert!(partition.out.letters.is_empty());
}

#[test]
fn two_groups_interleaved() {
    let (first, second) =
        (event(Op::Snapshot, 1, Position::default()), event(Op::Upsert, 2, position(5, b"t")));
    let (a, b) = (cut(&first, 1, 7, 2), cut(&second, 1, 8, 3));
    let records = [&a[0], &b[0], &b[1], &a[1], &b[2]];
    let mut partition = Partition::new();
    for (record, (ids, next)) in
        records.into_iter().zip([(vec![], 0), (vec![], 0), (vec![], 0), (vec![1], 1), (vec![1, 2], 5)])
    {
        partition.value(record.clone());
        assert_eq!((partition.ids(), partition.next()), (ids, next));
    }
    // A reader that begins behind the first part of the first group finds the second one.
    let mut partition = Partition::claimed(1, Claim { epoch: 1, capture: 1, high: Position::default() });
    for record in &records[1..] {
        partition.value((*record).clone());
    }
    assert_eq!((partition.ids(), partition.next()), (vec![2], 5));
}

#[test]
fn what_was_seen_is_not_taken_again() {
    let mut partition = Partition::new();
    partition.put(Op::Snapshot, 1, Position::default(), 1);
    partition.put(Op::Snapshot, 2, Position::default(), 1);
    partition.end = 0;
    partition.put(Op::Snapshot, 1, Position::default(), 1);
    partition.put(Op::Snapshot, 2, Position::default(), 1);
    partition.put(Op::Snapshot, 3, Position::default(), 1);
    assert_eq!((partition.ids(), partition.next()), (vec![1, 2, 3], 3));
}

#[test]
fn a_record_of_somebody_else_is_a_letter() {
    let mut partition = Partition::new();
    let other = doc! {"v": 1, "c": "legacy.other", "o": "d"}.to_vec().expect("a document");
    for value in [b"hunter2".to_vec(), b"{\"a\": \"hunter2\"}".to_vec(), other, Vec::new()] {
        partition.value(value);
    }
    partition.raw(None, Some(b"hunter2".to_vec())).expect("a broken mark");
    partition.stream(1, 5, 1);
    assert_eq!((partition.ids(), partition.next()), (vec![1], 6));
    let letters = &partition.out.letters;
    assert_eq!(letters.len(), 5);
    for (offset, letter) in letters.iter().enumerate() {
        assert!(letter.text.contains(&format!("shop.items/2 {offset}")), "{}", letter.text);
        assert!(!letter.text.contains("hunter2"), "{}", letter.text);
        assert_eq!((letter.collection.as_str(), letter.kind.as_str()), (NAME, "unreadable"));
        assert_eq!(letter.key.first(), Some(&0));
    }
    let keys: std::collections::HashSet<_> = letters.iter().map(|letter| &letter.key).collect();
    assert_eq!(keys.len(), 5, "each has a place of its own");
}

#[test]
fn a_letter_waits_for_parts_as_well() {
    let parts = cut(&event(Op::Upsert, 1, position(5, b"t")), 1, 7, 2);
    let mut partition = Partition::new();
    partition.value(parts[0].clone());
    partition.value(b"broken".to_vec());
    // Told now, it would be lost with a transaction that is not made, since nothing has moved.
    assert!(partition.out.letters.is_empty() && partition.intake.advance().is_none());
    partition.value(parts[1].clone());
    assert_eq!((partition.out.letters.len(), partition.ids(), partition.next()), (1, vec![1], 3));
    // Parts that make no event.
    let mut out = Vec::new();
    Part::encode((1, 8), (0, 1), Moment::default(), b"broken", &mut out);
    partition.value(out);
    assert_eq!((partition.out.letters.len(), partition.next()), (2, 4));
}

#[test]
fn a_later_format_is_no_letter() {
    let later = doc! {"v": 2, "c": NAME}.to_vec().expect("a document");
    let mut partition = Partition::new();
    partition.stream(1, 5, 1);
    assert_eq!(partition.raw(Some(later.clone()), None), Err(EnvelopeError::Version(2)));
    let mut out = Vec::new();
    Part::encode((1, 8), (0, 1), Moment::default(), &later, &mut out);
    assert_eq!(partition.raw(Some(out), None), Err(EnvelopeError::Version(2)));
    let mut partition = Partition::new();
    let mark = doc! {"v": 2}.to_vec().expect("a document");
    assert_eq!(partition.raw(None, Some(mark)), Err(EnvelopeError::Version(2)));
    assert!(partition.out.letters.is_empty());
}

#[test]
fn news_start_from_zero_with_each_commit() {
    let mut partition = Partition::claimed(10, Claim { epoch: 4, capture: 1, high: position(3, b"t") });
    assert!(partition.intake.advance().is_none());
    assert_eq!(partition.intake.committed(), None);
    partition.stream(1, 2, 1);
    partition.stream(1, 5, 1);
    let mut late = event(Op::Upsert, 2, position(6, b"t"));
    late.time = 1_700_000_000_000;
    partition.value(bytes(&late, Stamp { epoch: 1, ..Stamp::default() }));
    let advance = partition.advance();
    assert_eq!((&*advance.topic, advance.partition, advance.epoch), ("shop.items", 2, 4));
    assert_eq!((advance.from_offset, advance.next_offset), (10, 13));
    assert_eq!((advance.events, advance.duplicates, advance.capture_epoch), (2, 1, 1));
    assert_eq!(advance.applied_through, Some(Moment(5)), "another change may have the last one's time");
    assert_eq!(advance.source_time, Some(1_700_000_000_000));
    assert_eq!(partition.intake.committed(), Some(13));
    assert!(partition.intake.advance().is_none());

    // A mark is progress without events; the highest position stays known.
    partition.mark(1, 9, Some(Uuid::from_u128(5)));
    let advance = partition.advance();
    assert_eq!(
        (advance.from_offset, advance.next_offset, advance.events, advance.duplicates),
        (13, 14, 0, 0)
    );
    assert_eq!((advance.applied_through, advance.source_time), (Some(Moment(9)), None));
    assert_eq!(advance.position, Some(position(6, b"t")));
    let fence = &partition.out.fences[0];
    assert_eq!((fence.id, fence.lane.as_deref()), (Uuid::from_u128(5), Some("shop.items/2")));
    // A tombstone is neither; nothing is known of the source's time by it.
    partition.intake.committed();
    partition.raw(None, None).expect("a tombstone");
    assert_eq!((partition.advance().next_offset, partition.advance().applied_through), (15, None));
    assert!(Partition::new().intake.advance().is_none());
}

#[test]
fn copies_are_told_from_the_rest() {
    let copied = |fresh, noted, op| {
        let mut partition = Partition::new();
        let stamp = Stamp { epoch: 1, fresh, noted };
        partition.value(bytes(&event(Op::Snapshot, 1, Position::default()), stamp));
        partition.value(bytes(&event(op, 2, Position::default()), stamp));
        (partition.out.mixed, partition.out.noted)
    };
    assert_eq!(copied(true, false, Op::Snapshot), (false, vec![]));
    assert_eq!(copied(false, true, Op::Snapshot), (true, vec![CollectionId(0)]));
    assert_eq!(copied(true, false, Op::Upsert), (true, vec![]));
    let mut partition = Partition::new();
    partition.value(bytes(
        &event(Op::Snapshot, 1, Position::default()),
        Stamp { epoch: 1, fresh: true, noted: false },
    ));
    partition.mark(1, 5, None);
    assert!(!partition.out.mixed, "a mark is not a row");
}

#[test]
fn what_comes_next_tells_how_far_the_partition_is() {
    let mut partition = Partition::new();
    partition.stream(1, 5, 2);
    assert_eq!(partition.advance().applied_through, Some(Moment(4)));
    partition.intake.committed();
    let next = |op, time, epoch| {
        let value = bytes(&event(op, 2, position(time, b"t")), Stamp { epoch, ..Stamp::default() });
        Raw { offset: 1, key: Bytes::new(), value: Some(value.into()), mark: None }
    };
    let reached = |intake: &Intake, next: &[Raw]| intake.reached(next.iter()).map(|time| time.0);
    let streamed = next(Op::Delete, 9, 2);
    let superseded = next(Op::Upsert, 8, 1);
    let copied = next(Op::Snapshot, 9, 2);
    let again = next(Op::Upsert, 5, 2);
    assert_eq!(reached(&partition.intake, std::slice::from_ref(&streamed)), Some(8));
    for silent in [superseded, copied, again] {
        assert_eq!(reached(&partition.intake, std::slice::from_ref(&silent)), None);
        assert_eq!(
            reached(&partition.intake, &[silent, streamed.clone()]),
            Some(8),
            "the one behind it tells"
        );
    }
    let of_newer = [next(Op::Snapshot, 3, 3), streamed.clone(), next(Op::Upsert, 7, 3)];
    assert_eq!(reached(&partition.intake, &of_newer), Some(6), "a newer capture has spoken before");
    let next = || std::iter::once(&streamed);
    partition.intake.say_reached(next());
    let advance = partition.advance();
    assert_eq!((advance.from_offset, advance.next_offset, advance.events), (1, 1, 0));
    assert_eq!(advance.applied_through, Some(Moment(8)));
    assert_eq!(partition.intake.committed(), None, "the offset has not moved");
    partition.intake.say_reached(next());
    assert!(partition.intake.advance().is_none(), "it was said");
}

#[test]
fn parts_tell_how_far_the_partition_is() {
    let mut partition = Partition::new();
    let large = cut(&event(Op::Upsert, 1, position(5, b"t")), 1, 7, 2);
    let copied = cut(&event(Op::Snapshot, 2, Position::default()), 1, 8, 2);
    let raw =
        |value: &Vec<u8>| Raw { offset: 0, key: Bytes::new(), value: Some(value.clone().into()), mark: None };
    let (large, copied) = ([raw(&large[0]), raw(&large[1])], [raw(&copied[0]), raw(&copied[1])]);
    let reached = |intake: &Intake, next: &[Raw]| intake.reached(next.iter()).map(|time| time.0);
    assert_eq!(reached(&partition.intake, &large), Some(4));
    assert_eq!(reached(&partition.intake, &copied), None);
    let both = [copied.as_slice(), large.as_slice()].concat();
    assert_eq!(reached(&partition.intake, &both), Some(4));
    assert_eq!(partition.intake.time_of(&large[1]), Moment(5));
    assert_eq!(partition.intake.time_of(&copied[0]), Moment(0));
    // Half of it is taken: it is the one that comes next.
    partition.value(large[0].value.as_ref().expect("a value").to_vec());
    assert_eq!(reached(&partition.intake, &[]), Some(4));
}

//! Appliers: a transaction moves its partitions, or does nothing at all.

use std::sync::Arc;

use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::partitions::{Claimed, NewPartition, PartitionRow, Taken};
use slackwater_connectors::postgres::progress::{Advance, FencePass, Notes, PartitionAdvance};
use slackwater_connectors::postgres::target::rows::{TableSpec, WriteSet};
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_topics::{Moment, Position};
use uuid::Uuid;

use super::database::{Database, MIGRATION, from, ours, row, spec, taking, with};

/// Somebody waits for a lock.
pub(crate) const WAITING: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

pub(crate) const TOPIC: &str = "shop.orders";

/// Capture's connection to a migration that was begun with Kafka: one topic of three partitions, from offset 100 on.
pub(crate) async fn begun(database: &Database) -> Control {
    let mut control = Control::open(&database.url).await.expect("control");
    control.take_over(taking(MIGRATION, "hash", Uuid::nil(), "kafka"), &["main"]).await.expect("taken over");
    let partitions: Vec<NewPartition> = (0..3).map(|number| new_partition(number, 100)).collect();
    control.register_partitions(&at(1), &partitions).await.expect("registered");
    control
}

pub(crate) fn new_partition(partition: i32, begin: i64) -> NewPartition {
    NewPartition {
        topic: TOPIC.into(),
        partition,
        collection: "shop.order".into(),
        source: "shop".into(),
        begin,
    }
}

pub(crate) fn at(time: u32) -> Position {
    Position::new(Moment::of_halves(time, 1), vec![time as u8])
}

/// An applier's lane.
pub(crate) async fn lane(database: &Database, name: &str, specs: Vec<TableSpec>) -> Sink {
    let mut control = Control::open(&database.url).await.expect("control");
    let taken = control.take_lane(MIGRATION, name, Uuid::nil(), "").await.expect("taken");
    let Taken::Ours(epoch) = taken else { panic!("begun: {taken:?}") };
    Sink::open(&database.url, MIGRATION, name, epoch, Arc::new(specs)).await.expect("a sink")
}

/// Claims partitions; in the order of their numbers.
pub(crate) async fn claim(control: &mut Control, member: &str, numbers: &[i32]) -> Vec<Claimed> {
    let wanted: Vec<(Arc<str>, i32)> = numbers.iter().map(|number| (TOPIC.into(), *number)).collect();
    let mut claimed = control.claim(MIGRATION, member, &wanted).await.expect("claimed");
    claimed.sort_by_key(|claimed| claimed.partition);
    claimed
}

/// A step of a partition by ten records.
pub(crate) fn step(claimed: &Claimed) -> PartitionAdvance {
    PartitionAdvance {
        topic: claimed.topic.clone(),
        partition: claimed.partition,
        epoch: claimed.epoch,
        from_offset: claimed.next_offset,
        next_offset: claimed.next_offset + 10,
        capture_epoch: 1,
        position: None,
        applied_through: None,
        source_time: None,
        as_of: None,
        events: 7,
        duplicates: 2,
        superseded: 1,
    }
}

pub(crate) fn moving(sequence: i64, partitions: Vec<PartitionAdvance>) -> Advance {
    Advance { partitions, ..from(sequence) }
}

pub(crate) async fn partition(control: &Control, number: i32) -> PartitionRow {
    let rows = control.partitions(MIGRATION).await.expect("partitions");
    rows.into_iter().find(|row| row.partition == number).expect("registered")
}

async fn table(database: &Database) -> impl Fn() -> Vec<TableSpec> + Clone + use<> {
    let catalog = database.tables("CREATE TABLE t (id uuid PRIMARY KEY)", &["t"]).await;
    move || vec![spec(&catalog, "t", &["id"], &["id"], None)]
}

fn one(specs: &[TableSpec], id: u128, copy: bool) -> WriteSet {
    let mut writes = WriteSet::new(specs, copy);
    row(&mut writes, 0, &[ours(id)]);
    writes
}

fn revoked(error: &Error) {
    assert_eq!((error.kind, error.code.as_deref()), (Kind::Revoked, Some("SW003")), "{error}");
}

#[tokio::test]
async fn rows_lane_and_partitions_move_together() {
    with(|database| async move {
        let specs = table(&database).await;
        let mut control = begun(&database).await;
        let mut sink = lane(&database, "apply/a/0", specs()).await;
        let mut claimed = claim(&mut control, "a", &[2, 0, 7]).await;
        let found: Vec<_> = claimed.iter().map(|one| (one.partition, one.epoch, one.next_offset)).collect();
        assert_eq!(found, [(0, 1, 100), (2, 1, 100)], "what is not registered is not returned");
        assert!(claimed.iter().all(|one| one.position.is_none() && !one.lost));

        let full = PartitionAdvance {
            capture_epoch: 3,
            position: Some(at(9)),
            applied_through: Some(Moment::of_halves(8, 0)),
            source_time: Some(9000),
            as_of: Some(9100),
            ..step(&claimed[0])
        };
        let both = moving(0, vec![step(&claimed[1]), full.clone()]);
        sink.apply(&both, &one(&specs(), 1, false), &Notes::default()).await.expect("the fast path");
        let row = partition(&control, 0).await;
        assert_eq!((row.next_offset, row.capture_epoch, row.member.as_deref()), (110, 3, Some("a")));
        assert_eq!((row.position.clone(), row.source_time), (Some(at(9)), Some(9000)));
        assert_eq!(row.as_of, Some(9100));
        assert_eq!((row.applied_through, row.collection.as_str()), (full.applied_through, "shop.order"));
        assert_eq!((row.events, row.duplicates, row.superseded), (7, 2, 1));
        assert_eq!(partition(&control, 1).await.next_offset, 100);
        let row = partition(&control, 2).await;
        assert_eq!((row.next_offset, row.position, row.source_time), (110, None, None));

        // What is older, or nothing, leaves what is there.
        claimed[0].next_offset = 110;
        let older = PartitionAdvance {
            capture_epoch: 2,
            position: Some(Position::new(at(9).moment, vec![8])),
            applied_through: Some(Moment::of_halves(7, 0)),
            as_of: Some(9000),
            ..step(&claimed[0])
        };
        sink.begin(&moving(1, vec![older])).await.expect("begun");
        sink.attempt(&one(&specs(), 2, false)).await.expect("the careful path");
        sink.commit(&Notes::default()).await.expect("committed");
        let row = partition(&control, 0).await;
        assert_eq!(row.as_of, Some(9100), "it never goes back");
        assert_eq!((row.next_offset, row.capture_epoch), (120, 3));
        assert_eq!((row.position, row.applied_through), (Some(at(9)), full.applied_through));
        assert_eq!((row.source_time, row.events), (Some(9000), 14));

        claimed[0].next_offset = 120;
        let newer =
            PartitionAdvance { position: Some(Position::new(at(9).moment, vec![10])), ..step(&claimed[0]) };
        sink.copy(&moving(2, vec![newer.clone()]), &one(&specs(), 3, true), &Notes::default())
            .await
            .expect("by COPY");
        let again = claim(&mut control, "b", &[0]).await;
        assert_eq!((again[0].epoch, again[0].next_offset, again[0].capture_epoch), (2, 130, 3));
        assert_eq!((&again[0].position, again[0].applied_through), (&newer.position, full.applied_through));
        assert_eq!(database.text("SELECT count(*) FROM public.t").await, "3");
        sink.reopen().await.expect("reopened");
        assert_eq!(sink.progress().sequence, 3);
    })
    .await;
}

#[tokio::test]
async fn a_superseded_owner_writes_nothing() {
    with(|database| async move {
        let specs = table(&database).await;
        let mut control = begun(&database).await;
        let mut sink = lane(&database, "apply/a/0", specs()).await;
        let claimed = claim(&mut control, "a", &[0, 1]).await;
        claim(&mut control, "b", &[1]).await;
        let both = moving(0, claimed.iter().map(step).collect());
        for _ in 0..2 {
            let writes = one(&specs(), 1, false);
            revoked(&sink.apply(&both, &writes, &Notes::default()).await.expect_err("not ours"));
        }
        revoked(&sink.begin(&both).await.expect_err("not ours"));
        let writes = one(&specs(), 1, true);
        revoked(&sink.copy(&both, &writes, &Notes::default()).await.expect_err("not ours"));
        // Ours, but not at its place.
        for offset in [90, 110] {
            let elsewhere = PartitionAdvance { from_offset: offset, ..step(&claimed[0]) };
            let advance = moving(0, vec![elsewhere]);
            let writes = one(&specs(), 1, false);
            revoked(&sink.apply(&advance, &writes, &Notes::default()).await.expect_err("elsewhere"));
        }
        assert_eq!(database.text("SELECT count(*) FROM public.t").await, "0");
        let row = partition(&control, 0).await;
        assert_eq!((row.next_offset, row.events), (100, 0), "the one that is ours has not moved either");
        sink.reopen().await.expect("reopened");
        assert_eq!(sink.progress().sequence, 0, "nor has the lane");

        let mut still_ours = Vec::new();
        for one in &claimed {
            still_ours.push(partition(&control, one.partition).await.epoch == one.epoch);
        }
        assert_eq!(still_ours, [true, false]);
        let rest = moving(0, vec![step(&claimed[0])]);
        sink.apply(&rest, &one(&specs(), 1, false), &Notes::default()).await.expect("what is left goes on");
        assert_eq!(partition(&control, 0).await.next_offset, 110);
    })
    .await;
}

/// A gate holds the middle partition. Whoever locked in the order given would hold one end each and meet there.
#[tokio::test]
async fn opposite_orders_do_not_deadlock() {
    with(|database| async move {
        let mut control = begun(&database).await;
        let mut left = lane(&database, "apply/a/0", vec![]).await;
        let mut right = lane(&database, "apply/b/0", vec![]).await;
        let claimed = claim(&mut control, "a", &[0, 1, 2]).await;
        let forwards = moving(0, claimed.iter().map(step).collect());
        let backwards = moving(0, claimed.iter().rev().map(step).collect());
        let gate = database.client().await;
        let lock = "BEGIN; SELECT FROM slackwater.partitions WHERE partition = 1 FOR UPDATE";
        gate.batch_execute(lock).await.expect("locked");
        let none = || WriteSet { tables: vec![], copy: false };
        let write = async |sink: &mut Sink, advance: &Advance| {
            sink.apply(advance, &none(), &Notes::default()).await
        };
        let release = async {
            database
                .until("SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
                .await;
            gate.batch_execute("COMMIT").await.expect("let go");
        };
        let (first, second, ()) =
            tokio::join!(write(&mut left, &forwards), write(&mut right, &backwards), release);
        // The second one comes too late for the offsets it started from; nobody is a victim.
        match (first, second) {
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => revoked(&error),
            other => panic!("one is first: {other:?}"),
        }
        let rows = control.partitions(MIGRATION).await.expect("partitions");
        assert!(rows.iter().all(|row| row.next_offset == 110), "{rows:?}");
    })
    .await;
}

#[tokio::test]
async fn a_claim_waits_and_then_fences() {
    with(|database| async move {
        let specs = table(&database).await;
        let mut control = begun(&database).await;
        let mut sink = lane(&database, "apply/a/0", specs()).await;
        let mut claimed = claim(&mut control, "a", &[0, 1]).await;
        sink.begin(&moving(0, vec![step(&claimed[1])])).await.expect("begun");
        sink.attempt(&one(&specs(), 1, false)).await.expect("written");
        let claiming = tokio::spawn(async move {
            let taken = claim(&mut control, "b", &[0, 1, 2]).await;
            (control, taken)
        });
        database.until(WAITING).await;
        assert!(!claiming.is_finished());
        sink.commit(&Notes::default()).await.expect("still ours");
        let (control, taken) = claiming.await.expect("no panic");
        let found: Vec<_> = taken.iter().map(|one| (one.epoch, one.next_offset)).collect();
        assert_eq!(found, [(2, 100), (2, 110), (1, 100)]);
        claimed[1].next_offset = 110;
        let advance = moving(1, vec![step(&claimed[1])]);
        revoked(
            &sink.apply(&advance, &one(&specs(), 2, false), &Notes::default()).await.expect_err("fenced"),
        );
        assert_eq!(database.text("SELECT count(*) FROM public.t").await, "1");
        assert_eq!(partition(&control, 1).await.member.as_deref(), Some("b"));
    })
    .await;
}

#[tokio::test]
async fn a_lost_partition_is_marked_by_its_owner() {
    with(|database| async move {
        let mut control = begun(&database).await;
        let claimed = claim(&mut control, "a", &[0, 1]).await;
        claim(&mut control, "b", &[0]).await;
        let marked = control.mark_lost(MIGRATION, TOPIC, 0, claimed[0].epoch, "gone").await.expect("asked");
        assert!(!marked, "it belongs to another one");
        assert!(control.lost_partitions(MIGRATION).await.expect("asked").is_empty());
        let marked = control.mark_lost(MIGRATION, TOPIC, 1, claimed[1].epoch, "gone").await.expect("asked");
        assert!(marked);
        let lost = control.lost_partitions(MIGRATION).await.expect("asked");
        assert_eq!(lost.len(), 1);
        assert_eq!((&*lost[0].topic, lost[0].partition), (TOPIC, 1));
        assert_eq!((lost[0].collection.as_str(), lost[0].text.as_str()), ("shop.order", "gone"));
        let again = claim(&mut control, "c", &[0, 1]).await;
        assert_eq!((again[0].lost, again[1].lost), (false, true));
        assert_eq!(partition(&control, 1).await.lost.as_deref(), Some("gone"));
    })
    .await;
}

#[tokio::test]
async fn a_fence_is_passed_by_partition() {
    with(|database| async move {
        let control = begun(&database).await;
        let mut sink = lane(&database, "apply/a/0", vec![]).await;
        let fence = Uuid::new_v5(&Uuid::nil(), b"fence");
        assert_eq!(control.fence_passed(MIGRATION, fence).await.expect("asked"), 0);
        let pass = |lane: Option<&str>| FencePass { id: fence, lane: lane.map(str::to_owned) };
        let none = WriteSet { tables: vec![], copy: false };
        let two = vec![pass(Some("shop.orders/1")), pass(Some("shop.orders/0"))];
        let notes = Notes { fences: two, ..Notes::default() };
        sink.apply(&from(0), &none, &notes).await.expect("noted");
        // One of them again, as after a record that was delivered twice.
        let notes = Notes { fences: vec![pass(Some("shop.orders/0")), pass(None)], ..Notes::default() };
        sink.apply(&from(1), &none, &notes).await.expect("noted");
        let passes = control.fence_passes(MIGRATION, fence).await.expect("asked");
        assert_eq!(passes, ["apply/a/0", "shop.orders/0", "shop.orders/1"]);
        assert_eq!(control.fence_passed(MIGRATION, fence).await.expect("asked"), 3);
        assert_eq!(control.fence_passed("another", fence).await.expect("asked"), 0);
    })
    .await;
}

//! Capture: what it knows of a log with partitions, and how it starts a recopy.

use std::sync::Arc;

use bytes::Bytes;
use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::control::partitions::{LogPartition, Skip, Taken};
use slackwater_connectors::postgres::control::{Control, CopyState};
use slackwater_connectors::postgres::progress::{ChunkDone, DeadLetter, Notes, PartitionAdvance};
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_topics::Op;
use uuid::Uuid;

use super::database::{MIGRATION, WHY, from, taking, with};
use super::partitions::{TOPIC, WAITING, at, begun, claim, lane, moving, new_partition, partition, step};

const VERSION_ONE: &str = include_str!("../../src/postgres/control/schema/1.sql");

fn acked(pairs: &[(i32, i64)]) -> Vec<(Arc<str>, i32, i64)> {
    pairs.iter().map(|(number, offset)| (TOPIC.into(), *number, *offset)).collect()
}

fn skip(partition: i32, offset: i64) -> Skip {
    Skip { topic: TOPIC.into(), partition, offset }
}

fn acknowledged(partitions: &[LogPartition]) -> Vec<Option<i64>> {
    partitions.iter().map(|partition| partition.acked_offset).collect()
}

#[tokio::test]
async fn the_second_version_keeps_what_the_first_had() {
    with(|database| async move {
        let client = database.client().await;
        client
            .batch_execute(&format!(
                "CREATE SCHEMA slackwater;
                 CREATE TABLE slackwater.schema_version
                     (version int PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now());
                 {VERSION_ONE};
                 INSERT INTO slackwater.schema_version (version) VALUES (1);
                 INSERT INTO slackwater.migrations (name, file_hash, namespace, epoch)
                     VALUES ('{MIGRATION}', 'hash', '{}', 3);
                 INSERT INTO slackwater.lanes (migration, lane, epoch, sequence, position_time, position_token, events)
                     VALUES ('{MIGRATION}', 'stream', 3, 42, 7, '\\x01', 5);
                 INSERT INTO slackwater.collections (migration, collection, state)
                     VALUES ('{MIGRATION}', 'shop.order', 'copied')",
                Uuid::nil()
            ))
            .await
            .expect("the first version");
        let error = Control::peek(&database.url).await.err().expect("too old to look at");
        assert_eq!(error.kind, Kind::Unsuitable);
        let mut control = Control::open(&database.url).await.expect("brought up to date");
        let made = database.text("SELECT max(version) FROM slackwater.schema_version").await;
        assert_ne!(made, "1");
        let error = control.take_over(taking(MIGRATION, "hash", Uuid::nil(), "kafka"), &[]).await;
        assert_eq!(error.expect_err("it was begun without").kind, Kind::Unsuitable);
        let taken =
            control.take_over(taking(MIGRATION, "hash", Uuid::nil(), "direct"), &["capture/shop/stream"]).await.expect("taken over");
        // One for each upgrade that supersedes processes of the old version, and one for us.
        assert_eq!((taken.owner.epoch, taken.first_run), (6, false));
        let lanes = control.lanes(MIGRATION).await.expect("lanes");
        assert_eq!((lanes.len(), lanes[0].epoch, lanes[0].progress.sequence), (1, 6, 42));
        assert_eq!((lanes[0].lane.as_str(), lanes[0].source.as_deref()), ("capture/shop/stream", Some("shop")));
        assert_eq!(lanes[0].progress.events, 5);
        assert_eq!(control.collections(MIGRATION).await.expect("collections")[0].state, CopyState::Copied);
        assert!(control.partitions(MIGRATION).await.expect("none").is_empty());
    })
    .await;
}

#[tokio::test]
async fn registering_twice_changes_nothing() {
    with(|database| async move {
        let mut control = begun(&database).await;
        let claimed = claim(&mut control, "a", &[0]).await;
        let mut sink = lane(&database, "apply/a/0", vec![]).await;
        let none = WriteSet { tables: vec![], copy: false };
        sink.apply(&moving(0, vec![step(&claimed[0])]), &none, &Notes::default()).await.expect("applied");
        control.save_position(&at(5), &acked(&[(0, 120)])).await.expect("saved");
        let (log, applied) = (
            control.log_partitions(MIGRATION).await.expect("the log"),
            partition(&control, 0).await.next_offset,
        );
        assert_eq!((log.len(), log[0].begin_offset, applied), (3, 100, 110));
        let again: Vec<_> = (0..4).map(|number| new_partition(number, 500)).collect();
        control.register_partitions(&at(9), &again).await.expect("registered");
        assert_eq!(control.position(MIGRATION, "shop").await.expect("read"), Some(at(5)));
        let now = control.log_partitions(MIGRATION).await.expect("the log");
        assert_eq!(now[..3], log[..]);
        assert_eq!((now.len(), now[3].begin_offset), (4, 500), "what is new is added");
        let row = partition(&control, 0).await;
        assert_eq!((row.next_offset, row.epoch, row.acked_offset), (110, 1, Some(120)));
        assert_eq!(partition(&control, 3).await.next_offset, 500);
    })
    .await;
}

#[tokio::test]
async fn a_position_is_saved_with_what_was_acknowledged() {
    with(|database| async move {
        let mut old = begun(&database).await;
        assert_eq!(old.position(MIGRATION, "shop").await.expect("read"), Some(at(1)));
        old.save_position(&at(2), &acked(&[(0, 105), (2, 101), (0, 103)])).await.expect("saved");
        let log = old.log_partitions(MIGRATION).await.expect("the log");
        assert_eq!(acknowledged(&log), [Some(105), None, Some(101)]);
        old.save_position(&at(3), &acked(&[(0, 104), (1, 100)])).await.expect("saved");
        let log = old.log_partitions(MIGRATION).await.expect("the log");
        assert_eq!(acknowledged(&log), [Some(105), Some(100), Some(101)], "never back");
        old.save_position(&at(4), &[]).await.expect("saved");

        let mut new = Control::open(&database.url).await.expect("opened");
        new.take_over(taking(MIGRATION, "hash", Uuid::nil(), "kafka"), &["main"]).await.expect("taken over");
        let error = old.save_position(&at(9), &acked(&[(0, 900)])).await.expect_err("fenced");
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Fenced, Some("SW001")));
        let error = old.register_partitions(&at(9), &[new_partition(9, 1)]).await;
        assert_eq!(error.expect_err("fenced").kind, Kind::Fenced);
        assert_eq!(new.position(MIGRATION, "shop").await.expect("read"), Some(at(4)));
        assert_eq!(new.log_partitions(MIGRATION).await.expect("the log"), log);
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_is_lost_is_read_no_further() {
    with(|database| async move {
        let mut control = begun(&database).await;
        let claimed = claim(&mut control, "a", &[0, 1]).await;
        assert!(control.mark_lost(MIGRATION, TOPIC, 1, 1, "gone").await.expect("marked"));
        control.mark_topic_lost(TOPIC, "re-created").await.expect("marked");
        let lost = control.lost_partitions(MIGRATION).await.expect("the lost");
        let texts: Vec<&str> = lost.iter().map(|lost| lost.text.as_str()).collect();
        assert_eq!(texts, ["re-created", "gone", "re-created"], "what was said first stays");
        let mut sink = lane(&database, "apply/a/0", vec![]).await;
        let none = WriteSet { tables: vec![], copy: false };
        let error = sink.apply(&moving(0, vec![step(&claimed[0])]), &none, &Notes::default()).await;
        assert_eq!(error.expect_err("marked").kind, Kind::Revoked);
        assert!(claim(&mut control, "a", &[0]).await[0].lost);

        let mut new = Control::open(&database.url).await.expect("opened");
        new.take_over(taking(MIGRATION, "hash", Uuid::nil(), "kafka"), &["main"]).await.expect("taken over");
        let error = control.mark_topic_lost(TOPIC, "late").await.expect_err("succeeded");
        assert_eq!(error.kind, Kind::Fenced);
    })
    .await;
}

#[tokio::test]
async fn a_reload_skips_what_is_on_its_way() {
    with(|database| async move {
        let mut control = begun(&database).await;
        control.plan_chunks("shop.order", 1, &[(None, None)], 3, true).await.expect("planned");
        control.save_position(&at(5), &acked(&[(0, 149), (1, 149), (2, 149)])).await.expect("saved");
        let mut claimed = claim(&mut control, "a", &[0, 1, 2]).await;
        assert!(control.mark_lost(MIGRATION, TOPIC, 1, 1, "gone").await.expect("marked"));
        // An applier has partition 0 in hand: the reload waits for it.
        let mut sink = lane(&database, "apply/a/0", vec![]).await;
        let first = PartitionAdvance { position: Some(at(4)), ..step(&claimed[0]) };
        sink.begin(&moving(0, vec![first])).await.expect("begun");
        let reloading = tokio::spawn(async move {
            // Partition 1 goes on in the same topic, partition 0 in one that was re-created.
            control
                .start_reload(&[("shop.order", 2)], &[], &[skip(1, 150), skip(0, 20)], WHY)
                .await
                .expect("started");
            control
        });
        database.until(WAITING).await;
        assert!(!reloading.is_finished());
        sink.commit(&Notes::default()).await.expect("committed");
        let mut control = reloading.await.expect("no panic");
        let row = partition(&control, 0).await;
        assert_eq!((row.next_offset, row.epoch, row.member, row.acked_offset), (20, 2, None, None));
        assert_eq!((row.position, row.capture_epoch), (Some(at(4)), 1), "the source's order goes on");
        let row = partition(&control, 1).await;
        assert_eq!((row.next_offset, row.epoch, row.lost, row.acked_offset), (150, 2, None, Some(149)));
        let row = partition(&control, 2).await;
        assert_eq!((row.next_offset, row.epoch), (100, 1), "not skipped");
        let begins: Vec<i64> = control
            .log_partitions(MIGRATION)
            .await
            .expect("the log")
            .iter()
            .map(|partition| partition.begin_offset)
            .collect();
        assert_eq!(begins, [20, 150, 100]);

        let none = WriteSet { tables: vec![], copy: false };
        claimed[0].next_offset = 110;
        for old in [&claimed[0], &claimed[1]] {
            let advance = moving(1, vec![step(old), step(&claimed[2])]);
            let error = sink.apply(&advance, &none, &Notes::default()).await.expect_err("recopied");
            assert_eq!(error.kind, Kind::Revoked);
        }
        assert!(!control.mark_lost(MIGRATION, TOPIC, 1, 1, "late").await.expect("asked"));
        assert_eq!(claim(&mut control, "a", &[1]).await[0].next_offset, 150);
        let copy = &control.collections(MIGRATION).await.expect("collections")[0];
        assert_eq!((copy.state, copy.generation, copy.reload), (CopyState::Pending, 2, true));

        // All or nothing: a partition that nobody knows cannot be skipped.
        let error = control.start_reload(&[("shop.order", 2)], &[], &[skip(0, 30), skip(9, 30)], WHY).await;
        assert_eq!(error.expect_err("not registered").kind, Kind::Bug);
        assert_eq!(partition(&control, 0).await.next_offset, 20);
        assert_eq!(control.collections(MIGRATION).await.expect("collections")[0].generation, 2);
    })
    .await;
}

/// The new capture's own mark may be before the place to which it skips.
#[tokio::test]
async fn a_skip_shuts_older_captures_out() {
    with(|database| async move {
        begun(&database).await;
        let mut control = Control::open(&database.url).await.expect("opened");
        let taken = control
            .take_over(taking(MIGRATION, "hash", Uuid::nil(), "kafka"), &["main"])
            .await
            .expect("taken over");
        control.start_reload(&[], &[], &[skip(0, 150)], WHY).await.expect("started");
        let claimed = claim(&mut control, "a", &[0, 1]).await;
        assert_eq!((claimed[0].capture_epoch, claimed[1].capture_epoch), (taken.owner.epoch, 0));
    })
    .await;
}

#[tokio::test]
async fn a_migration_stays_with_its_log() {
    with(|database| async move {
        let mut applier = Control::open(&database.url).await.expect("opened");
        let lane = "apply/a/0";
        let taken = applier.take_lane(MIGRATION, lane, Uuid::nil(), "").await.expect("asked");
        assert_eq!(taken, Taken::NotBegun, "capture has not begun");
        let mut capture = begun(&database).await;
        let error = capture.take_over(taking(MIGRATION, "hash", Uuid::nil(), "direct"), &["main"]).await;
        let error = error.expect_err("another log");
        assert_eq!(error.kind, Kind::Unsuitable);
        assert!(error.what.contains("started with `log: kafka`"), "{error}");
        let error = applier.take_lane(MIGRATION, lane, Uuid::max(), "").await.expect_err("another namespace");
        assert_eq!(error.kind, Kind::Unsuitable);
        assert_eq!(applier.lanes(MIGRATION).await.expect("lanes").len(), 1, "no lane was made");

        let taken = applier.take_lane(MIGRATION, lane, Uuid::nil(), "").await.expect("taken");
        assert_eq!(taken, Taken::Ours(1));
        let mut first =
            Sink::open(&database.url, MIGRATION, lane, 1, Arc::new(vec![])).await.expect("a sink");
        let none = WriteSet { tables: vec![], copy: false };
        // Capture may come and go: that is no matter of the applier's.
        let takeover = capture.take_over(taking(MIGRATION, "hash", Uuid::nil(), "kafka"), &["main"]).await;
        assert_eq!(takeover.expect("taken over").owner.epoch, 2);
        first.apply(&from(0), &none, &Notes::default()).await.expect("still ours");
        let epochs: Vec<_> = capture
            .lanes(MIGRATION)
            .await
            .expect("lanes")
            .into_iter()
            .map(|lane| (lane.lane, lane.epoch))
            .collect();
        assert_eq!(epochs, [("apply/a/0".to_owned(), 1), ("main".to_owned(), 2)]);
        // Its own successor is.
        let taken = applier.take_lane(MIGRATION, lane, Uuid::nil(), "").await.expect("taken");
        assert_eq!(taken, Taken::Ours(2));
        let error = first.apply(&from(1), &none, &Notes::default()).await.expect_err("fenced");
        assert_eq!(error.kind, Kind::Fenced);
        let second = Sink::open(&database.url, MIGRATION, lane, 2, Arc::new(vec![])).await.expect("a sink");
        assert_eq!(second.progress().sequence, 1);

        applier
            .take_over(taking("another", "hash", Uuid::nil(), "direct"), &["main"])
            .await
            .expect("taken over");
        let error =
            applier.take_lane("another", lane, Uuid::nil(), "").await.expect_err("no partitions there");
        assert_eq!(error.kind, Kind::Unsuitable);
        assert!(error.what.contains("started with `log: direct`"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_chunk_is_finished_once() {
    with(|database| async move {
        let mut control = begun(&database).await;
        control.plan_chunks("shop.order", 1, &[(None, None)], 100, true).await.expect("planned");
        let id = control.open_chunks(MIGRATION).await.expect("chunks")[0].id;
        let done = |id, rest| ChunkDone { collection: "shop.order".into(), id, documents: 40, rest };
        let first = done(id, Some((Some(vec![3]), None)));
        for _ in 0..2 {
            control.finish_chunk(&first).await.expect("finished");
        }
        let open = control.open_chunks(MIGRATION).await.expect("chunks");
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].lo.as_deref(), open[0].hi.as_deref()), (Some(&[3][..]), None));
        control.finish_chunk(&done(open[0].id, None)).await.expect("finished");
        assert!(control.finish_collection("shop.order", 1).await.expect("asked"));
        let copy = &control.collections(MIGRATION).await.expect("collections")[0];
        assert_eq!((copy.documents_copied, copy.chunks_total, copy.chunks_done), (80, 2, 2));
        // Of a copy that was replaced by a recopy meanwhile.
        control.start_reload(&[("shop.order", 2)], &[], &[], WHY).await.expect("started");
        control.finish_chunk(&first).await.expect("nothing to do");
        assert!(control.open_chunks(MIGRATION).await.expect("chunks").is_empty());
    })
    .await;
}

/// The row that it refers to is most often on its way in another partition.
#[tokio::test]
async fn a_missing_reference_is_tried_again_soon() {
    with(|database| async move {
        let (control, mut sink) = database.sink(vec![]).await;
        let none = WriteSet { tables: vec![], copy: false };
        let letter = |key: &[u8], kind: &str| DeadLetter {
            collection: "shop.order".into(),
            key: key.to_vec(),
            op: Op::Upsert,
            kind: kind.into(),
            text: "no".into(),
            table: None,
            column: None,
            document: Bytes::from_static(b"doc"),
        };
        let notes = Notes {
            dead_letters: vec![letter(b"reference", "23503"), letter(b"unique", "23505")],
            ..Notes::default()
        };
        // However often it is tried, the pause goes by its age.
        let mut sequence = 0;
        for (older, tries) in [(0, 30), (60, 3), (86_400, 1)] {
            let sql = "UPDATE slackwater.dead_letters SET first_seen = now() - $1::int * interval '1 s'";
            database.client().await.execute(sql, &[&older]).await.expect("older");
            for _ in 0..tries {
                sink.apply(&from(sequence), &none, &notes).await.expect("noted");
                sequence += 1;
            }
            let letters = control.dead_letters(MIGRATION, None, 0, 2).await.expect("letters");
            assert_eq!(letters.len(), 2);
            for row in letters {
                let age = row.last_seen - row.first_seen;
                let pause = row.retry_at - row.last_seen;
                let expected = match &row.letter.key[..] {
                    b"reference" if age < 10_000 => 1_000,
                    _ => age.clamp(10_000, 3_600_000),
                };
                assert!((pause - expected).abs() <= 1, "{age} ms old: {pause} ms, not {expected} ms");
            }
        }
    })
    .await;
}

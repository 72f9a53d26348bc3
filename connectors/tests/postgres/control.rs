use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::control::ledger::Incident;
use slackwater_connectors::postgres::control::{Control, CopyState, SeenTable};
use slackwater_connectors::postgres::progress::{Advance, ChunkDone, DeadLetter, FencePass, Notes, Tally};
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_topics::{Moment, Op, Position};
use uuid::Uuid;

use super::database::{MIGRATION, V, WHY, from, ours, row, spec, taking, text, with};

#[tokio::test]
async fn four_at_once_make_the_schema_once() {
    with(|database| async move {
        assert!(Control::peek(&database.url).await.expect("looked").is_none());
        let all = tokio::join!(
            Control::open(&database.url),
            Control::open(&database.url),
            Control::open(&database.url),
            Control::open(&database.url)
        );
        for control in [all.0, all.1, all.2, all.3] {
            control.expect("opened");
        }
        let versions = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/postgres/control/schema"));
        let versions = versions.expect("a file a version").count();
        let made = database.text("SELECT count(*) FROM slackwater.schema_version").await;
        assert_eq!(made, versions.to_string());
        assert!(Control::peek(&database.url).await.expect("looked").is_some());
        let client = database.client().await;
        client
            .batch_execute("INSERT INTO slackwater.schema_version VALUES (99)")
            .await
            .expect("a later version");
        let error = Control::open(&database.url).await.err().expect("refused");
        assert_eq!(error.kind, Kind::Unsuitable);
    })
    .await;
}

#[tokio::test]
async fn chunks_of_a_copy() {
    with(|database| async move {
        let (mut control, mut sink) = database.sink(vec![]).await;
        let bounds = [(None, Some(vec![5])), (Some(vec![5]), None)];
        control.plan_chunks("legacy.user", 1, &bounds, 100, true).await.expect("planned");
        control.plan_chunks("legacy.user", 1, &bounds, 100, true).await.expect("planned again: nothing");
        let open = control.open_chunks(MIGRATION).await.expect("chunks");
        assert_eq!(open.len(), 2);
        assert_eq!(
            (open[0].hi.clone(), open[1].lo.clone(), open[1].hi.clone()),
            (Some(vec![5]), Some(vec![5]), None)
        );
        assert_eq!(control.note_read(open[0].id).await.expect("noted"), 1);
        assert_eq!(control.note_read(open[0].id).await.expect("noted"), 2);
        let done = |id: i64, rest| {
            let collection = "legacy.user".to_owned();
            Some(ChunkDone { collection, id, documents: 40, rest })
        };
        let none = WriteSet { tables: vec![], copy: false };
        let rest = Some((Some(vec![3]), Some(vec![5])));
        let step = Advance {
            chunk: done(open[0].id, rest),
            position: Some(Position::new(Moment::of_halves(7, 1), vec![1, 2])),
            source_time: Some(7000),
            events: 40,
            horizon: Moment(u64::MAX),
            ..from(0)
        };
        sink.apply(&step, &none, &Notes::default()).await.expect("applied");
        assert_eq!(control.note_read(open[0].id).await.expect("noted"), 0);
        let open = control.open_chunks(MIGRATION).await.expect("chunks");
        assert_eq!(open.len(), 2);
        assert_eq!((open[1].lo.clone(), open[1].hi.clone()), (Some(vec![3]), Some(vec![5])));
        assert!(!control.finish_collection("legacy.user", 1).await.expect("asked"));
        for (sequence, chunk) in (1..).zip(&open) {
            let step = Advance { chunk: done(chunk.id, None), ..from(sequence) };
            sink.apply(&step, &none, &Notes::default()).await.expect("applied");
        }
        assert!(control.finish_collection("legacy.user", 1).await.expect("asked"));
        let user = &control.collections(MIGRATION).await.expect("collections")[0];
        assert_eq!((user.state, user.chunks_total, user.chunks_done), (CopyState::Copied, 3, 3));
        assert_eq!((user.documents_copied, user.documents_estimate, user.fresh), (120, 100, true));
        let lane = &control.lanes(MIGRATION).await.expect("lanes")[0];
        assert_eq!(lane.progress, *sink.progress());
        assert_eq!(lane.progress.position, Some(Position::new(Moment::of_halves(7, 1), vec![1, 2])));
        assert_eq!(
            (lane.progress.sequence, lane.progress.source_time, lane.progress.events),
            (3, Some(7000), 40)
        );
        sink.reopen().await.expect("reopened");
        assert_eq!(lane.progress, *sink.progress());

        control.start_reload(&[("legacy.user", 2)], &[], &[], WHY).await.expect("started");
        let user = &control.collections(MIGRATION).await.expect("collections")[0];
        assert_eq!(
            (user.state, user.generation, user.reload, user.chunks_total),
            (CopyState::Pending, 2, true, 0)
        );
        assert!(!control.finish_collection("legacy.user", 2).await.expect("asked"));
        // Work of the generation before is not an error and marks nothing.
        sink.apply(&Advance { chunk: done(open[0].id, None), ..from(3) }, &none, &Notes::default())
            .await
            .expect("applied");
        assert!(control.open_chunks(MIGRATION).await.expect("chunks").is_empty());
        control.save_position(&Position::new(Moment(9), vec![9]), &[]).await.expect("saved");
        let saved = control.position(MIGRATION, "shop").await.expect("read");
        assert_eq!(saved, Some(Position::new(Moment(9), vec![9])));
    })
    .await;
}

#[tokio::test]
async fn notes_come_with_the_rows() {
    with(|database| async move {
        let (mut control, mut sink) = database.sink(vec![]).await;
        let long = vec![7; 10_000];
        let letter = |key: &[u8], kind: &str| DeadLetter {
            collection: "legacy.user".into(),
            key: key.to_vec(),
            op: Op::Upsert,
            kind: kind.into(),
            text: "no".into(),
            table: Some("users".into()),
            column: None,
            document: Bytes::from_static(b"doc"),
        };
        let tally = |count| Tally {
            collection: "legacy.user".into(),
            table: "users".into(),
            column: "name".into(),
            policy: "strip".into(),
            count,
            sample_key: vec![1],
        };
        let fence = Uuid::new_v5(&Uuid::nil(), b"fence");
        let mut notes = Notes {
            dead_letters: vec![letter(&long, "unique"), letter(b"b", "null"), letter(&long, "check")],
            tallies: vec![tally(2), tally(3)],
            fences: vec![FencePass { id: fence, lane: None }],
            ..Notes::default()
        };
        let none = WriteSet { tables: vec![], copy: false };
        sink.apply(&from(0), &none, &notes).await.expect("noted");
        sink.apply(&from(1), &none, &notes).await.expect("noted");
        let letters = control.dead_letters(MIGRATION, Some("legacy.user"), 0, 10).await.expect("letters");
        assert_eq!(letters.len(), 2);
        let first = letters.iter().find(|row| row.letter.key == long).expect("the long key");
        assert_eq!((first.tries, first.letter.kind.as_str(), first.letter.op), (2, "check", Op::Upsert));
        assert_eq!((first.letter.table.as_deref(), &first.letter.document[..]), (Some("users"), &b"doc"[..]));
        assert!(first.retry_at > first.last_seen + 9_000);
        assert_eq!(control.tallies(MIGRATION).await.expect("tallies")[0].count, 10);
        assert_eq!(control.fence_passes(MIGRATION, fence).await.expect("lanes"), ["main"]);
        assert_eq!(control.dead_letter_counts(MIGRATION).await.expect("counts").len(), 2);
        assert!(control.has_dead_letters(MIGRATION).await.expect("an answer"));
        assert!(!control.has_dead_letters("another").await.expect("an answer"));

        assert!(
            control
                .due_dead_letters(MIGRATION, &["legacy.user"], Duration::ZERO, 10)
                .await
                .expect("letters")
                .is_empty()
        );
        assert_eq!(control.retry_now(MIGRATION).await.expect("set"), 2);
        let due =
            control.due_dead_letters(MIGRATION, &["legacy.user"], Duration::ZERO, 10).await.expect("letters");
        assert_eq!(due.len(), 2);
        control.postpone(&[due[0].id], 60_000).await.expect("put off");
        assert_eq!(
            control
                .due_dead_letters(MIGRATION, &["legacy.user"], Duration::ZERO, 10)
                .await
                .expect("letters")
                .len(),
            1
        );
        notes = Notes { settled: vec![("legacy.user".into(), long.clone())], ..Notes::default() };
        sink.begin(&from(2)).await.expect("begun");
        sink.commit(&notes).await.expect("committed");
        assert_eq!(control.dead_letters(MIGRATION, None, 0, 10).await.expect("letters")[0].letter.key, b"b");
        control
            .end_reload(
                &[],
                Incident { kind: "history", collection: Some("legacy.user"), text: "lost an hour" },
            )
            .await
            .expect("written");
        assert_eq!(control.incidents(MIGRATION, 5).await.expect("incidents")[0].text, "lost an hour");
    })
    .await;
}

#[tokio::test]
async fn a_reload_sweeps_what_is_left_over_and_ours() {
    with(|database| async move {
        let catalog =
            database.tables("CREATE TABLE t (id uuid PRIMARY KEY, kind text, note text); ", &["t"]).await;
        let specs = || vec![spec(&catalog, "t", &["id", "kind", "note"], &["id"], None)];
        let (mut control, mut sink) = database.sink(specs()).await;
        let theirs = V::Id(0x4 << 76 | 0x8 << 60 | 1);
        let mut before = WriteSet::new(&specs(), false);
        for (id, kind, note) in [
            (ours(1), "line", "met"),
            (ours(2), "line", "left over"),
            (ours(3), "sent", "other constant"),
            (theirs, "line", "made by others"),
        ] {
            row(&mut before, 0, &[id, text(kind), text(note)]);
        }
        sink.apply(&from(0), &before, &Notes::default()).await.expect("before");
        control.plan_chunks("legacy.lineitem", 1, &[(None, None)], 3, true).await.expect("planned");
        let table = SeenTable { schema: "public".into(), name: "t".into(), key: vec!["id".into()] };
        for round in 0..2 {
            control
                .start_reload(&[("legacy.lineitem", 2)], std::slice::from_ref(&table), &[], WHY)
                .await
                .expect("started");
            let mut again = WriteSet::new(&specs(), false);
            row(&mut again, 0, &[ours(1), text("line"), text("met")]);
            let mut more = WriteSet::new(&specs(), false);
            row(&mut more, 0, &[ours(4), text("line"), text("new")]);
            let at = 1 + round * 2;
            let counts = sink
                .apply(&Advance { seen: vec![0], ..from(at) }, &again, &Notes::default())
                .await
                .expect("the fast path");
            assert_eq!(counts.upserted, 0);
            sink.begin(&Advance { seen: vec![0], ..from(at + 1) }).await.expect("begun");
            sink.attempt(&more).await.expect("the careful path");
            sink.commit(&Notes::default()).await.expect("committed");
            let swept = sink.sweep(0, &[("kind".into(), "line".into())]).await.expect("swept");
            assert_eq!(swept, 1 - round as u64);
            control.end_reload(&["legacy.lineitem"], WHY).await.expect("ended");
        }
        let rest = database.text("SELECT string_agg(note, ', ' ORDER BY note) FROM public.t").await;
        assert_eq!(rest, "made by others, met, new, other constant");
        assert_eq!(database.text("SELECT to_regclass('slackwater.seen_1')").await, "slackwater.seen_1");
        control.forget_seen().await.expect("tidied up");
        assert_eq!(database.text("SELECT to_regclass('slackwater.seen_1')").await, "NULL");
    })
    .await;
}

/// The row is being written while the sweep begins: what the sweep saw before it waited would have it deleted.
#[tokio::test]
async fn a_sweep_waits_for_writers() {
    with(|database| async move {
        let catalog = database.tables("CREATE TABLE t (id uuid PRIMARY KEY, note text)", &["t"]).await;
        let specs = || vec![spec(&catalog, "t", &["id", "note"], &["id"], None)];
        let (mut control, sink) = database.sink(vec![]).await;
        drop(sink);
        control.take_over(taking(MIGRATION, "hash", Uuid::nil(), "direct"), &["main", "second"]).await.expect("taken over");
        let open = async |lane: &str| {
            Sink::open(&database.url, MIGRATION, lane, 2, Arc::new(specs())).await.expect("a sink")
        };
        let (mut writer, mut sweeper) = (open("main").await, open("second").await);
        let one = |note: &str| {
            let mut writes = WriteSet::new(&specs(), false);
            row(&mut writes, 0, &[ours(1), text(note)]);
            writes
        };
        writer.apply(&from(0), &one("before"), &Notes::default()).await.expect("written");
        let table = SeenTable { schema: "public".into(), name: "t".into(), key: vec!["id".into()] };
        control.start_reload(&[], &[table], &[], WHY).await.expect("started");
        writer.begin(&Advance { seen: vec![0], ..from(1) }).await.expect("begun");
        writer.attempt(&one("met")).await.expect("written");
        let sweeping = tokio::spawn(async move { sweeper.sweep(0, &[]).await });
        database.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await;
        writer.commit(&Notes::default()).await.expect("committed");
        assert_eq!(sweeping.await.expect("no panic").expect("swept"), 0);
        assert_eq!(database.text("SELECT note FROM public.t").await, "met");
    })
    .await;
}

#[tokio::test]
async fn an_old_owner_changes_nothing() {
    with(|database| async move {
        let catalog = database.tables("CREATE TABLE t (id uuid PRIMARY KEY)", &["t"]).await;
        let specs = || vec![spec(&catalog, "t", &["id"], &["id"], None)];
        let (mut old, mut sink) = database.sink(specs()).await;
        let mut writes = WriteSet::new(&specs(), false);
        row(&mut writes, 0, &[ours(1)]);
        // In the middle of a transaction: the take-over waits for it.
        sink.begin(&from(0)).await.expect("begun");
        let mut new = Control::open(&database.url).await.expect("opened");
        let took = tokio::spawn(async move {
            let taken = new.take_over(taking(MIGRATION, "other", Uuid::nil(), "direct"), &["main", "second"]).await;
            (new, taken)
        });
        database.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await;
        sink.attempt(&writes).await.expect("still ours");
        assert!(!took.is_finished());
        sink.commit(&Notes::default()).await.expect("committed");
        let (new, taken) = took.await.expect("no panic");
        let taken = taken.expect("taken over");
        assert_eq!(
            (taken.owner.epoch, taken.first_run, taken.previous_file_hash.as_deref()),
            (2, false, Some("hash"))
        );
        assert_eq!(new.lanes(MIGRATION).await.expect("lanes").len(), 2);

        let mut more = WriteSet::new(&specs(), false);
        row(&mut more, 0, &[ours(2)]);
        for _ in 0..2 {
            let error = sink.apply(&from(1), &more, &Notes::default()).await.expect_err("fenced");
            assert_eq!((error.kind, error.code.as_deref()), (Kind::Fenced, Some("SW001")));
        }
        assert_eq!(sink.begin(&from(1)).await.expect_err("fenced").kind, Kind::Fenced);
        assert_eq!(
            sink.copy(&from(1), &WriteSet::new(&specs(), true), &Notes::default())
                .await
                .expect_err("fenced")
                .kind,
            Kind::Fenced
        );
        assert_eq!(sink.reopen().await.expect_err("fenced").kind, Kind::Fenced);
        let error = old.end_reload(&[], WHY).await.expect_err("fenced");
        assert_eq!(error.kind, Kind::Fenced);
        assert_eq!(old.note_read(1).await.expect_err("fenced").kind, Kind::Fenced);
        assert_eq!(database.text("SELECT count(*) FROM public.t").await, "1");
        let mut sink =
            Sink::open(&database.url, MIGRATION, "main", 2, Arc::new(specs())).await.expect("the new owner");
        assert_eq!(sink.progress().sequence, 1);
        let error = sink.apply(&from(0), &more, &Notes::default()).await.expect_err("another sequence");
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Fenced, Some("SW002")));
        sink.apply(&from(1), &more, &Notes::default()).await.expect("applied");
        let mut third = Control::open(&database.url).await.expect("opened");
        let error = third.take_over(taking(MIGRATION, "x", Uuid::max(), "direct"), &[]).await.expect_err("another namespace");
        assert_eq!(error.kind, Kind::Unsuitable);
    })
    .await;
}

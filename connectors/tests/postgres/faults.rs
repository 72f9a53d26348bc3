use std::sync::Arc;

use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::progress::Notes;
use slackwater_connectors::postgres::target::rows::{RowFormat, WriteSet};
use slackwater_connectors::postgres::target::shape::Shape;
use slackwater_connectors::postgres::target::sink::Sink;
use uuid::Uuid;

use super::database::{MIGRATION, V, from, ours, row, spec, taking, text, with};

const TABLE: &str = "CREATE TABLE t (id uuid PRIMARY KEY, name text); ";

/// Backends of this database that belong to sinks.
const SINKS: &str = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
    AND application_name = 'slackwater'";

#[tokio::test]
async fn killed_before_the_commit() {
    with(|database| async move {
        let catalog = database.tables(TABLE, &["t"]).await;
        let specs = vec![spec(&catalog, "t", &["id", "name"], &["id"], None)];
        let mut writes = WriteSet::new(&specs, false);
        row(&mut writes, 0, &[ours(1), text("ann")]);
        let (control, mut sink) = database.sink(specs).await;
        drop(control);
        sink.begin(&from(0)).await.expect("begun");
        sink.attempt(&writes).await.expect("written");
        let client = database.client().await;
        client.execute(&format!("SELECT pg_terminate_backend(pid) {SINKS}"), &[]).await.expect("killed");
        let error = sink.commit(&Notes::default()).await.expect_err("gone");
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
        let error = sink.apply(&from(0), &writes, &Notes::default()).await.expect_err("still gone");
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
        sink.reopen().await.expect("reopened");
        assert_eq!(sink.progress().sequence, 0);
        sink.apply(&from(0), &writes, &Notes::default()).await.expect("applied");
        assert_eq!(database.text("SELECT count(*) FROM public.t").await, "1");
    })
    .await;
}

/// The commit waits inside the server (for a deferred trigger that wants a lock) while the connection is cut; then it
/// is let go. The old transaction is still in hand when we ask how it ended: the answer has to wait for it.
#[tokio::test]
async fn the_reply_of_a_commit_is_lost() {
    with(|database| async move {
        let catalog = database
            .tables(
                "CREATE TABLE t (id uuid PRIMARY KEY, name text);
                 CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     PERFORM pg_advisory_xact_lock(42); RETURN NULL;
                 END $$;
                 CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION wait();",
                &["t"],
            )
            .await;
        let specs = Arc::new(vec![spec(&catalog, "t", &["id", "name"], &["id"], None)]);
        let mut writes = WriteSet::new(&specs, false);
        row(&mut writes, 0, &[ours(1), text("ann")]);
        let (_control, sink) = database.sink(vec![]).await;
        drop(sink);
        let mut sink = Sink::open(&database.url, MIGRATION, "main", 1, specs).await.expect("a sink");
        let gate = database.client().await;
        gate.batch_execute("SELECT pg_advisory_lock(42)").await.expect("locked");
        let committing = {
            let writes = &writes;
            let apply = async { sink.apply(&from(0), writes, &Notes::default()).await };
            let waiting = database.until("SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'");
            // Dropping the call is losing the reply: all of it was sent.
            tokio::select! { _ = apply => None, () = waiting => Some(()) }
        };
        assert!(committing.is_some());
        // Reopening has to wait for the old transaction, so it is let go only once that waits.
        let release = async {
            database
                .until("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%FOR NO KEY UPDATE' AND wait_event_type = 'Lock'")
                .await;
            gate.batch_execute("SELECT pg_advisory_unlock(42)").await.expect("unlocked");
        };
        let (reopened, ()) = tokio::join!(sink.reopen(), release);
        reopened.expect("reopened");
        assert_eq!(sink.progress().sequence, 1);
        assert_eq!(database.text("SELECT name FROM public.t").await, "ann");
        let counts = sink.apply(&from(1), &writes, &Notes::default()).await.expect("applied");
        assert_eq!(counts.upserted, 0);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_call_is_cleaned_up() {
    with(|database| async move {
        let catalog = database.tables(TABLE, &["t"]).await;
        let specs = vec![spec(&catalog, "t", &["id", "name"], &["id"], None)];
        let mut writes = WriteSet::new(&specs, false);
        row(&mut writes, 0, &[ours(1), text("ann")]);
        let (_control, mut sink) = database.sink(specs).await;
        {
            let none = Notes::default();
            let advance = from(0);
            let call = sink.apply(&advance, &writes, &none);
            // Polled once: everything is on its way, and nobody waits for the answer.
            tokio::select! { biased; _ = call => {}, () = std::future::ready(()) => {} }
        }
        // What was sent is committed; asking from there is refused and tells where the lane is.
        let outcome = sink.apply(&from(0), &writes, &Notes::default()).await;
        assert_eq!(outcome.expect_err("it had happened").code.as_deref(), Some("SW002"));
        assert_eq!(sink.progress().sequence, 1);
        sink.apply(&from(1), &writes, &Notes::default()).await.expect("applied");
    })
    .await;
}

#[tokio::test]
async fn a_deadlock_is_contention() {
    with(|database| async move {
        let catalog = database.tables(TABLE, &["t"]).await;
        let specs = || vec![spec(&catalog, "t", &["id", "name"], &["id"], None)];
        let (mut control, sink) = database.sink(specs()).await;
        drop(sink);
        control
            .take_over(taking(MIGRATION, "hash", Uuid::nil(), "direct"), &["main", "second"])
            .await
            .expect("taken over");
        let one = |id: u128| {
            let mut writes = WriteSet::new(&specs(), false);
            row(&mut writes, 0, &[ours(id), text("x")]);
            writes
        };
        let open = async |lane: &str| {
            Sink::open(&database.url, MIGRATION, lane, 2, Arc::new(specs())).await.expect("a sink")
        };
        let (mut left, mut right) = (open("main").await, open("second").await);
        left.begin(&from(0)).await.expect("begun");
        right.begin(&from(0)).await.expect("begun");
        left.attempt(&one(1)).await.expect("written");
        right.attempt(&one(2)).await.expect("written");
        let (first, second) = (one(2), one(1));
        let (first, second) = tokio::join!(left.attempt(&first), right.attempt(&second));
        let (lost, mut loser, mut winner) = match (first, second) {
            (Err(error), Ok(_)) => (error, left, right),
            (Ok(_), Err(error)) => (error, right, left),
            other => panic!("one has to lose: {other:?}"),
        };
        assert_eq!((lost.kind, lost.code.as_deref()), (Kind::Contention, Some("40P01")));
        winner.commit(&Notes::default()).await.expect("committed");
        // All of the loser's transaction is undone, and it can start again.
        assert_eq!(loser.commit(&Notes::default()).await.expect_err("no transaction").kind, Kind::Bug);
        loser.apply(&from(0), &one(3), &Notes::default()).await.expect("applied");
        assert_eq!(database.text("SELECT count(*) FROM public.t").await, "3");
    })
    .await;
}

/// Processes that start together make the type for rows with text in them once.
#[tokio::test]
async fn many_make_the_same_type() {
    with(|database| async move {
        let catalog =
            database.tables("CREATE TABLE t (id uuid PRIMARY KEY, length interval); ", &["t"]).await;
        let mut shaped = spec(&catalog, "t", &["id", "length"], &["id"], None);
        let shape = Shape::of(&shaped.table, &[(0, false), (1, true)], false).expect("a shape");
        shaped.record = Arc::new(RowFormat::shaped(&shape));
        shaped.shape = Some(shape);
        let (_control, sink) = database.sink(vec![]).await;
        drop(sink);
        let specs = Arc::new(vec![shaped]);
        let opened = (0..8).map(|_| Sink::open(&database.url, MIGRATION, "main", 1, Arc::clone(&specs)));
        for sink in futures_util::future::join_all(opened).await {
            sink.expect("the type is there");
        }
    })
    .await;
}

/// A trigger that is broken concerns the rows of its table, and nothing else.
#[tokio::test]
async fn a_broken_trigger_refuses_rows() {
    with(|database| async move {
        let broken = "CREATE TABLE t (id uuid PRIMARY KEY, name text);
             CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.gone = 1; RETURN NEW; END $$;
             CREATE TRIGGER broken BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION broken();";
        let catalog = database.tables(broken, &["t"]).await;
        let specs = vec![spec(&catalog, "t", &["id", "name"], &["id"], None)];
        let mut writes = WriteSet::new(&specs, false);
        row(&mut writes, 0, &[ours(1), text("ann")]);
        let (_control, mut sink) = database.sink(specs).await;
        let error = sink.apply(&from(0), &writes, &Notes::default()).await.expect_err("refused");
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Data, Some("42703")), "{error}");
    })
    .await;
}

/// A batch waits for a table whose column gets another type meanwhile. What it carries is in the old layout: it is refused, and never
/// taken for the new one. (Postgres reads what is bound before it waits, so without a lock of its own 70 000 would be 4 464.)
#[tokio::test]
async fn a_type_that_changes_while_a_batch_waits_takes_no_wrong_values() {
    with(|database| async move {
        let table = "CREATE TABLE t (id uuid PRIMARY KEY, n int, m int);";
        let catalog = database.tables(table, &["t"]).await;
        let specs = vec![spec(&catalog, "t", &["id", "n", "m"], &["id"], None)];
        let batch = |id: u128, n: i32, m: i32| {
            let mut writes = WriteSet::new(&specs, false);
            row(&mut writes, 0, &[ours(id), V::Int(n), V::Int(m)]);
            writes
        };
        let (first, second) = (batch(1, 1, 2), batch(2, 70_000, 140_000));
        let (_control, mut sink) = database.sink(specs).await;
        sink.apply(&from(0), &first, &Notes::default()).await.expect("written");
        let team = database.client().await;
        let alter = "BEGIN; ALTER TABLE public.t ALTER COLUMN n TYPE smallint, ALTER COLUMN m TYPE smallint";
        team.batch_execute(alter).await.expect("altered");
        let waits = format!("SELECT count(*) > 0 {SINKS} AND wait_event_type = 'Lock'");
        let let_go = async {
            database.until(&waits).await;
            team.batch_execute("COMMIT").await.expect("committed");
        };
        let none = Notes::default();
        let advance = from(1);
        let (outcome, ()) = tokio::join!(sink.apply(&advance, &second, &none), let_go);
        let rows =
            database.text("SELECT string_agg(concat_ws(' ', n, m), ', ' ORDER BY id) FROM public.t").await;
        assert_eq!(rows, "1 2", "nothing is there but what fits: {outcome:?}");
        assert_eq!(outcome.expect_err("refused").kind, Kind::Unsuitable);
        assert_eq!(database.text("SELECT sequence FROM slackwater.lanes").await, "1");
    })
    .await;
}

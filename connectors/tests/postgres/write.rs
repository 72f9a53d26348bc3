use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::progress::Notes;
use slackwater_connectors::postgres::target::rows::WriteSet;

use super::database::{Database, V, from, ours, refusing, row, spec, text, with};

const ODD: &str = r#"
CREATE TABLE odd (gone int, id uuid PRIMARY KEY, "Name" text, unmapped int DEFAULT 7, tags text[], extra json,
    up text GENERATED ALWAYS AS (upper("Name")) STORED, number bigint GENERATED ALWAYS AS IDENTITY);
ALTER TABLE odd DROP COLUMN gone; "#;

const NAMES: &str = "SELECT string_agg(\"Name\", ',' ORDER BY id) FROM public.odd";

async fn versions(database: &Database) -> String {
    database.text("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM public.odd").await
}

#[tokio::test]
async fn upsert_delete_and_again() {
    with(|database| async move {
        let catalog = database.tables(ODD, &["odd"]).await;
        let specs = vec![spec(&catalog, "odd", &["id", "Name", "tags", "extra"], &["id"], None)];
        let mut writes = WriteSet::new(&specs, false);
        let tags = || V::Texts(vec!["a", "b,{}"]);
        row(&mut writes, 0, &[ours(1), text("ann"), tags(), V::Json("{\"a\": 1.10}")]);
        row(&mut writes, 0, &[ours(2), text("bob"), V::Null, V::Null]);
        row(&mut writes, 0, &[ours(3), V::Null, V::Null, V::Null]);
        let mut other = WriteSet::new(&specs, false);
        row(&mut other, 0, &[ours(1), text("ann"), tags(), V::Json("{\"a\": 1.1}")]);
        row(&mut other, 0, &[ours(2), text("bob"), V::Null, V::Null]);
        ours(3).write(other.tables[0].deletes[0].push());
        ours(9).write(other.tables[0].deletes[0].push());
        let (_control, mut sink) = database.sink(specs).await;
        let counts = sink.apply(&from(0), &writes, &Notes::default()).await.expect("written");
        assert_eq!((counts.upserted, counts.deleted, counts.received), (3, 0, 3));
        let before = versions(&database).await;
        let counts = sink.apply(&from(1), &writes, &Notes::default()).await.expect("written again");
        assert_eq!((counts.upserted, counts.deleted, counts.received), (0, 0, 3));
        assert_eq!(versions(&database).await, before);
        let row = database.text("SELECT to_jsonb(o) - 'id' FROM public.odd o WHERE \"Name\" = 'ann'").await;
        assert_eq!(
            row,
            r#"{"up": "ANN", "Name": "ann", "tags": ["a", "b,{}"], "extra": {"a": 1.10}, "number": 1, "unmapped": 7}"#
        );
        let counts = sink.apply(&from(2), &other, &Notes::default()).await.expect("changed");
        assert_eq!((counts.upserted, counts.deleted), (1, 1));
        assert_eq!(counts.tables[0].deleted, 1);
        assert_eq!(database.text("SELECT extra FROM public.odd WHERE \"Name\" = 'ann'").await, "{\"a\": 1.1}");
        assert_eq!(sink.progress().sequence, 3);
        assert_eq!(database.text("SELECT sequence FROM slackwater.lanes").await, "3");
    })
    .await;
}

#[tokio::test]
async fn children_are_sets() {
    with(|database| async move {
        let catalog = database
            .tables(
                "CREATE TABLE p (id uuid PRIMARY KEY);
                 CREATE TABLE c (p uuid NOT NULL REFERENCES p, n int NOT NULL, label text, PRIMARY KEY (p, n))",
                &["p", "c"],
            )
            .await;
        let specs =
            vec![spec(&catalog, "p", &["id"], &["id"], None), spec(&catalog, "c", &["p", "n", "label"], &["p", "n"], Some("p"))];
        let mut first = WriteSet::new(&specs, false);
        for owner in 1..=3 {
            row(&mut first, 0, &[ours(owner)]);
            ours(owner).write(first.tables[1].owners.push());
            for n in 0..3 {
                row(&mut first, 1, &[ours(owner), V::Int(n), text("x")]);
            }
        }
        // One loses a child and has another changed, two loses all, three goes altogether.
        let mut second = WriteSet::new(&specs, false);
        row(&mut second, 1, &[ours(1), V::Int(0), text("x")]);
        row(&mut second, 1, &[ours(1), V::Int(2), text("y")]);
        for owner in 1..=3 {
            ours(owner).write(second.tables[1].owners.push());
        }
        ours(3).write(second.tables[0].deletes[0].push());
        let mut third = WriteSet::new(&specs, false);
        ours(1).write(third.tables[1].owners.push());
        let mut fourth = WriteSet::new(&specs, false);
        ours(2).write(fourth.tables[1].deletes[0].push());
        V::Int(1).write(fourth.tables[1].deletes[1].push());
        let (_control, mut sink) = database.sink(specs).await;
        sink.apply(&from(0), &first, &Notes::default()).await.expect("first");
        let counts = sink.apply(&from(1), &second, &Notes::default()).await.expect("second");
        assert_eq!((counts.tables[1].deleted, counts.tables[1].upserted, counts.tables[0].deleted), (7, 1, 1));
        let rest = "SELECT string_agg(n || label, ',' ORDER BY p, n) FROM public.c";
        assert_eq!(database.text(rest).await, "0x,2y");
        sink.apply(&from(2), &first, &Notes::default()).await.expect("first again");
        sink.apply(&from(3), &third, &Notes::default()).await.expect("third");
        let counts = sink.apply(&from(4), &fourth, &Notes::default()).await.expect("fourth");
        assert_eq!(counts.deleted, 1);
        assert_eq!(database.text(rest).await, "0x,2x,0x,1x,2x");
    })
    .await;
}

#[tokio::test]
async fn copies_more_than_one_piece() {
    with(|database| async move {
        let catalog = database.tables(ODD, &["odd"]).await;
        let specs = vec![spec(&catalog, "odd", &["id", "Name", "tags", "extra"], &["id"], None)];
        let long = "x".repeat(1000);
        let mut writes = WriteSet::new(&specs, true);
        let mut twice = WriteSet::new(&specs, true);
        for number in 0..1000 {
            row(&mut writes, 0, &[ours(number), text(&long), V::Null, V::Null]);
            row(&mut twice, 0, &[ours(number.min(990) + 5000), text(&long), V::Null, V::Null]);
        }
        let mut bad = WriteSet::new(&specs, true);
        for number in 0..3000 {
            let name = if number == 3 { text("a\0b") } else { text(&long) };
            row(&mut bad, 0, &[ours(number + 9000), name, V::Null, V::Null]);
        }
        let (_control, mut sink) = database.sink(specs).await;
        let counts = sink.copy(&from(0), &writes, &Notes::default()).await.expect("copied");
        assert_eq!((counts.upserted, counts.received), (1000, 1000));
        for (wrong, what) in [(&twice, "23505"), (&bad, "22021"), (&writes, "23505")] {
            let error = sink.copy(&from(1), wrong, &Notes::default()).await.expect_err("refused");
            assert_eq!((error.kind, error.code.as_deref()), (Kind::Data, Some(what)), "{error}");
        }
        assert_eq!(database.text("SELECT count(*) FROM public.odd").await, "1000");
        assert_eq!(database.text("SELECT sequence FROM slackwater.lanes").await, "1");
    })
    .await;
}

#[tokio::test]
async fn one_bad_row_leaves_the_others() {
    with(|database| async move {
        let catalog = database
            .tables(
                "CREATE TABLE p (id uuid PRIMARY KEY, name text UNIQUE);
                 CREATE TABLE c (id uuid PRIMARY KEY, p uuid REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
                &["p", "c"],
            )
            .await;
        let specs = || {
            vec![
                refusing(spec(&catalog, "p", &["id", "name"], &["id"], None)),
                refusing(spec(&catalog, "c", &["id", "p"], &["id"], None)),
            ]
        };
        let one = |table: usize, values: &[V]| {
            let mut writes = WriteSet::new(&specs(), false);
            row(&mut writes, table, values);
            writes
        };
        let (_control, mut sink) = database.sink(specs()).await;
        let mut all = WriteSet::new(&specs(), false);
        row(&mut all, 0, &[ours(1), text("ann")]);
        row(&mut all, 0, &[ours(2), text("ann")]);
        row(&mut all, 0, &[ours(3), text("carl")]);
        let error = sink.apply(&from(0), &all, &Notes::default()).await.expect_err("ann is there twice");
        assert_eq!(error.kind, Kind::Data);
        // COMMIT was sent behind the error: it must have rolled back, progress and all.
        assert_eq!(database.text("SELECT count(*) FROM public.p").await, "0");
        assert_eq!(database.text("SELECT sequence FROM slackwater.lanes").await, "0");

        sink.begin(&from(0)).await.expect("begun");
        sink.attempt(&one(0, &[ours(1), text("ann")])).await.expect("written");
        let error = sink.attempt(&one(0, &[ours(2), text("ann")])).await.expect_err("refused");
        assert_eq!(error.kind, Kind::Data);
        assert_eq!(sink.attempt(&one(0, &[ours(3), text("carl")])).await.expect("written").upserted, 1);
        sink.attempt(&one(1, &[ours(1), ours(3)])).await.expect("written");
        // A deferred reference is checked in the attempt, not in the commit.
        let error = sink.attempt(&one(1, &[ours(2), ours(2)])).await.expect_err("refused");
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Data, Some("23503")));
        sink.commit(&Notes::default()).await.expect("committed");
        assert_eq!(database.text("SELECT string_agg(name, ',' ORDER BY id) FROM public.p").await, "ann,carl");
        assert_eq!(database.text("SELECT count(*) FROM public.c").await, "1");
        assert_eq!(sink.progress().sequence, 1);

        sink.begin(&from(1)).await.expect("begun");
        sink.attempt(&one(0, &[ours(4), text("dora")])).await.expect("written");
        sink.rollback().await.expect("rolled back");
        sink.begin(&from(1)).await.expect("begun");
        sink.attempt(&one(0, &[ours(5), text("emil")])).await.expect("written");
        // Begun and never ended: the next call rolls it back first.
        sink.apply(&from(1), &one(0, &[ours(6), text("fred")]), &Notes::default()).await.expect("applied");
        assert_eq!(
            database.text("SELECT string_agg(name, ',' ORDER BY id) FROM public.p").await,
            "ann,carl,fred"
        );
    })
    .await;
}

#[tokio::test]
async fn a_deferred_reference_fails_at_commit_of_the_fast_path() {
    with(|database| async move {
        let catalog = database
            .tables(
                "CREATE TABLE c (id uuid PRIMARY KEY, p uuid REFERENCES c DEFERRABLE INITIALLY DEFERRED)",
                &["c"],
            )
            .await;
        let specs = vec![refusing(spec(&catalog, "c", &["id", "p"], &["id"], None))];
        let mut writes = WriteSet::new(&specs, false);
        row(&mut writes, 0, &[ours(1), ours(2)]);
        let (_control, mut sink) = database.sink(specs).await;
        let error = sink.apply(&from(0), &writes, &Notes::default()).await.expect_err("refused");
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Data, Some("23503")));
        assert_eq!(database.text("SELECT sequence FROM slackwater.lanes").await, "0");
    })
    .await;
}

#[tokio::test]
async fn the_same_in_the_eyes_of_equal_is_written() {
    with(|database| async move {
        let catalog = database.tables("CREATE TABLE n (id uuid PRIMARY KEY, total numeric)", &["n"]).await;
        let specs = || vec![spec(&catalog, "n", &["id", "total"], &["id"], None)];
        let number = |scale: i16| {
            let words = [1_i16, 0, 0, scale, 1];
            V::Raw(words.iter().flat_map(|word| word.to_be_bytes()).collect())
        };
        let (_control, mut sink) = database.sink(specs()).await;
        for (sequence, scale, changed) in [(0, 1, 1), (1, 1, 0), (2, 3, 1)] {
            let mut writes = WriteSet::new(&specs(), false);
            row(&mut writes, 0, &[ours(1), number(scale)]);
            let counts = sink.apply(&from(sequence), &writes, &Notes::default()).await.expect("written");
            assert_eq!(counts.upserted, changed);
        }
        assert_eq!(database.text("SELECT total FROM public.n").await, "1.000");
    })
    .await;
}

#[tokio::test]
async fn a_changed_table_is_named() {
    with(|database| async move {
        let catalog = database.tables(ODD, &["odd"]).await;
        let specs = vec![spec(&catalog, "odd", &["id", "Name"], &["id"], None)];
        let mut writes = WriteSet::new(&specs, false);
        row(&mut writes, 0, &[ours(1), text("ann")]);
        let (_control, mut sink) = database.sink(specs).await;
        sink.apply(&from(0), &writes, &Notes::default()).await.expect("written");
        let client = database.client().await;
        client.batch_execute("ALTER TABLE public.odd ADD COLUMN more text").await.expect("altered");
        let error = sink.apply(&from(1), &writes, &Notes::default()).await.expect_err("refused");
        assert_eq!(error.kind, Kind::Unsuitable, "{error}");
        assert!(error.doing.contains("public.odd"), "{error}");
        assert_eq!(database.text(NAMES).await, "ann");
    })
    .await;
}

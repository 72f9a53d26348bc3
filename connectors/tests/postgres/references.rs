//! Generated targets whose tables refer to each other in every way and have unique values of every kind, and histories in which
//! references are late, dangle and go, and unique values change places. Two lanes write at the same time; what stands in the end is
//! what follows from the documents alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::progress::Notes;
use slackwater_connectors::postgres::target::rows::{TableSpec, WriteSet};
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_migrations::Chance;
use slackwater_migrations::tangle::{self, Id, Row, Rows, Table};
use uuid::Uuid;

use crate::database::{Database, MIGRATION, V, from, ours, row, spec, taking, with};

/// The number in one of our ids.
fn number(id: &str) -> i32 {
    (id.parse::<Uuid>().expect("an id").as_u128() >> 80) as i32
}

/// What these documents are now; those that are not there are deleted.
fn writes<'a>(touched: impl Iterator<Item = &'a Id>, documents: &Rows, specs: &[TableSpec]) -> WriteSet {
    let mut writes = WriteSet::new(specs, false);
    let value = |number: i32| ours(number as u128);
    for id in touched {
        match documents.get(id) {
            Some(document) => {
                let mut values = vec![value(id.1), V::Int(document.v), V::Int(document.u)];
                values.extend(document.refers.iter().map(|to| to.map_or(V::Null, value)));
                row(&mut writes, id.0, &values);
            }
            None => value(id.1).write(writes.tables[id.0].deletes[0].push()),
        }
    }
    writes.sort();
    writes
}

async fn apply(sink: &mut Sink, writes: &WriteSet, what: &str) {
    for _ in 0..200 {
        match sink.apply(&from(sink.progress().sequence), writes, &Notes::default()).await {
            Ok(_) => return,
            Err(error) if error.kind == Kind::Contention => {}
            Err(error) => panic!("{error}, {what}"),
        }
    }
    panic!("it never comes to an end");
}

async fn one(database: Database, seed: u64) {
    let mut chance = Chance::new(seed);
    let tables = tangle::tables(&mut chance);
    let names: Vec<String> = (0..tables.len()).map(|index| format!("t{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let catalog = database.tables(&tangle::sql(&tables), &names).await;
    let specs = || {
        let spec = |(index, table): (usize, &Table)| {
            let refers: Vec<String> = (0..table.references.len()).map(|at| format!("r{at}")).collect();
            let columns: Vec<&str> =
                ["id", "v", "u"].into_iter().chain(refers.iter().map(String::as_str)).collect();
            spec(&catalog, names[index], &columns, &["id"], None)
        };
        Arc::new(tables.iter().enumerate().map(spec).collect::<Vec<_>>())
    };
    let mut control = Control::open(&database.url).await.expect("control");
    let taken = control
        .take_over(taking(MIGRATION, "hash", Uuid::nil(), "direct"), &["even", "odd"])
        .await
        .expect("taken over");
    let open = async |lane: &str| {
        Sink::open(&database.url, MIGRATION, lane, taken.owner.epoch, specs()).await.expect("a sink")
    };
    let (mut even, mut odd) = (open("even").await, open("odd").await);
    let pool = 4 + chance.below(8);
    let mut documents = Rows::new();
    let mut turn = chance.below(20) + 5;
    while turn > 0 {
        turn -= 1;
        let touched = tangle::change(&mut chance, &tables, pool, 20, &mut documents);
        let of_lane = |rest: i32| touched.iter().filter(move |id| id.1 % 2 == rest);
        let (one, other) =
            (writes(of_lane(0), &documents, &specs()), writes(of_lane(1), &documents, &specs()));
        let what = format!("seed {seed}, {turn} turns to go, {tables:?}");
        tokio::join!(apply(&mut even, &one, &what), apply(&mut odd, &other, &what));
        compare(&database, &tables, &documents, &what).await;
    }
}

async fn compare(database: &Database, tables: &[Table], documents: &Rows, what: &str) {
    let client = database.client().await;
    let mut found = Rows::new();
    for (index, table) in tables.iter().enumerate() {
        let refers: String = (0..table.references.len()).map(|at| format!(", r{at}::text")).collect();
        let sql = format!("select id::text, v, u{refers} from public.t{index}");
        for row in client.query(&sql, &[]).await.expect("rows") {
            let refers = (0..table.references.len()).map(|at| row.get::<_, Option<&str>>(3 + at).map(number));
            let refers = refers.collect();
            found.insert((index, number(row.get(0))), Row { v: row.get(1), u: row.get(2), refers });
        }
    }
    assert_eq!(found, tangle::shown(tables, documents), "{what}");
    let standing = tangle::standing(tables, documents);
    let lost = |id: &Id, at: usize, to: i32| !standing.contains(&(tables[id.0].references[at].to, to));
    let mut entries: BTreeSet<(Id, usize, i32)> = BTreeSet::new();
    for (id, document) in documents.iter().filter(|(id, _)| standing.contains(id)) {
        let refers = document.refers.iter().enumerate().filter_map(|(at, to)| Some((at, (*to)?)));
        entries.extend(refers.filter(|(at, to)| lost(id, *at, *to)).map(|(at, to)| (*id, at, to)));
    }
    let rows = client
        .query(
            "select r.table_name, w.key[1], w.held, d.constraint_name, f.wanted[1]
             from slackwater.waiting_rows w join slackwater.relations r on r.id = w.relation
             left join slackwater.waiting_for f on f.relation = w.relation and f.key = w.key
             left join slackwater.watched d on d.id = f.reference",
            &[],
        )
        .await
        .expect("what waits");
    let (mut held, mut partial) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let table: &str = row.get(0);
        let id = (table[1..].parse().expect("a number"), number(row.get(1)));
        let constraint: Option<&str> = row.get(3);
        let constraint = constraint.unwrap_or_else(|| panic!("{id:?} waits for nothing, {what}"));
        let at = constraint.trim_start_matches(&format!("{table}_r")).trim_end_matches("_fkey");
        let (at, to) = (at.parse().expect("a number"), number(row.get(4)));
        if row.get(2) {
            held.insert(id);
            assert!(lost(&id, at, to), "{id:?} need not wait for {to}, {what}");
        } else {
            partial.insert((id, at, to));
        }
    }
    let absent: BTreeSet<Id> = documents.keys().filter(|id| !standing.contains(id)).copied().collect();
    assert_eq!((held, partial), (absent, entries), "what waits, {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_schemas_and_histories() {
    let variable = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let first = variable("SLACKWATER_TEST_SEED", 1);
    for seed in first..first + variable("SLACKWATER_TEST_ROUNDS", 25) {
        println!("seed {seed}");
        with(move |database| one(database, seed)).await;
    }
}

/// Two documents that really have the same value: the one that is there stays, the other is told, with the first one's key, and
/// comes when it can.
#[tokio::test]
async fn the_second_of_two_equal_values_waits() {
    with(|database| async move {
        let schema = "create table t (id uuid primary key, mail text, note text); create unique index t_mail on t (lower(mail)) where mail <> ''";
        let catalog = database.tables(schema, &["t"]).await;
        let specs = || vec![spec(&catalog, "t", &["id", "mail"], &["id"], None)];
        let (control, mut sink) = database.sink(specs()).await;
        let mail = |id: u128, mail: &str| {
            let mut writes = WriteSet::new(&specs(), false);
            row(&mut writes, 0, &[ours(id), V::Text(mail.into())]);
            writes
        };
        let shown = "select string_agg(substr(id::text, 10, 4) || ' ' || mail, ', ' order by id) from public.t";
        apply(&mut sink, &mail(1, "Ann@example.com"), "the first").await;
        apply(&mut sink, &mail(2, "ANN@example.com"), "the second").await;
        apply(&mut sink, &mail(3, ""), "not compared").await;
        assert_eq!(database.text(shown).await, "0001 Ann@example.com, 0003 ");
        let waiting = control.waiting(MIGRATION).await.expect("what waits");
        let [one] = &waiting[..] else { panic!("{waiting:?}") };
        assert_eq!((one.unique, one.blocks, one.count, one.constraint.as_str()), (true, true, 1, "t_mail"));
        let [(key, beside)] = &one.examples[..] else { panic!("{one:?}") };
        assert_eq!((&key[9..13], &beside[9..13]), ("0002", "0001"));
        // What a person is shown holds no value.
        assert!(!format!("{waiting:?}").contains("example.com"));
        apply(&mut sink, &mail(1, "bert@example.com"), "the first changes").await;
        assert_eq!(
            database.text(shown).await,
            "0001 bert@example.com, 0002 ANN@example.com, 0003 "
        );
        apply(&mut sink, &mail(3, "BERT@example.com"), "the third wants the first's").await;
        assert_eq!(database.text(shown).await, "0001 bert@example.com, 0002 ANN@example.com");
        let mut gone = WriteSet::new(&specs(), false);
        ours(1).write(gone.tables[0].deletes[0].push());
        apply(&mut sink, &gone, "the first goes").await;
        assert_eq!(
            database.text(shown).await,
            "0002 ANN@example.com, 0003 BERT@example.com"
        );
        assert_eq!(control.waiting(MIGRATION).await.expect("what waits"), []);
        assert_eq!(database.text("select count(*) from slackwater.waiting_rows").await, "0");
    })
    .await;
}

/// What nobody maps stays with a row that leaves its table for a while.
#[tokio::test]
async fn a_row_that_comes_back_has_all_it_had() {
    with(|database| async move {
        let schema = "create table p (id uuid primary key);
            create table c (id uuid primary key, p uuid not null references p on delete cascade, number bigserial, note text default 'new');
            create table d (id uuid primary key, c uuid references c on delete set null)";
        let catalog = database.tables(schema, &["p", "c", "d"]).await;
        let specs = || {
            vec![
                spec(&catalog, "p", &["id"], &["id"], None),
                spec(&catalog, "c", &["id", "p"], &["id"], None),
                spec(&catalog, "d", &["id", "c"], &["id"], None),
            ]
        };
        let (control, mut sink) = database.sink(specs()).await;
        let mut writes = WriteSet::new(&specs(), false);
        row(&mut writes, 0, &[ours(1)]);
        row(&mut writes, 1, &[ours(2), ours(1)]);
        row(&mut writes, 2, &[ours(3), ours(2)]);
        apply(&mut sink, &writes, "all").await;
        database.client().await.execute("update public.c set note = 'by hand'", &[]).await.expect("changed");
        let before = database.text("select row(c, d)::text from public.c, public.d").await;
        let mut gone = WriteSet::new(&specs(), false);
        ours(1).write(gone.tables[0].deletes[0].push());
        apply(&mut sink, &gone, "the parent goes").await;
        assert_eq!(database.text("select count(*) from public.c").await, "0");
        assert_eq!(database.text("select c from public.d").await, "NULL");
        assert_eq!(control.waiting(MIGRATION).await.expect("what waits").len(), 2);
        let mut writes = WriteSet::new(&specs(), false);
        row(&mut writes, 0, &[ours(1)]);
        apply(&mut sink, &writes, "the parent comes").await;
        assert_eq!(database.text("select row(c, d)::text from public.c, public.d").await, before);
        assert_eq!(control.waiting(MIGRATION).await.expect("what waits"), []);
    })
    .await;
}

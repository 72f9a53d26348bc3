//! Generated targets whose tables refer to each other in every way and have unique values of every kind, and histories in which
//! references are late, dangle and go, and unique values change places. Two lanes write at the same time; what stands in the end is
//! what follows from the documents alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use slackwater_connectors::error::Kind;
use slackwater_connectors::postgres::progress::Notes;
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_migrations::Chance;
use uuid::Uuid;

use crate::database::{Database, MIGRATION, V, from, ours, row, spec, taking, with};

/// A table: what each of its references points to, and how.
#[derive(Debug)]
struct Made {
    references: Vec<Pointer>,
    /// What makes `u` unique.
    unique: &'static str,
}

#[derive(Debug)]
struct Pointer {
    to: usize,
    required: bool,
    rule: &'static str,
}

type Id = (usize, u128);

/// A document: a number, and what it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Document {
    v: i32,
    u: i32,
    refers: Vec<Option<u128>>,
}

fn schema(chance: &mut Chance) -> Vec<Made> {
    let count = 2 + chance.below(5) as usize;
    let table = |chance: &mut Chance, index: usize| {
        let pointer = |chance: &mut Chance| {
            // Half of the schemas' references go back in the order of the tables; the others may go in circles.
            let to = if chance.percent(50) { index } else { count } as u64;
            let required = chance.percent(45);
            let rules = [
                "",
                " on delete restrict",
                " on delete cascade",
                " deferrable",
                " deferrable initially deferred",
            ];
            let nullable = [" on delete set null", " on delete set default", " on update cascade"];
            let pick = chance.below(if required { 5 } else { 8 }) as usize;
            let rule = rules.get(pick).or_else(|| nullable.get(pick - 5)).expect("a rule");
            Pointer { to: chance.below(to.max(1)) as usize, required, rule }
        };
        let references: Vec<Pointer> = (0..chance.below(4)).map(|_| pointer(chance)).collect();
        let mut uniques = vec![
            "",
            "alter table T add unique (u)",
            "alter table T add unique (u) deferrable",
            "alter table T add unique (v, u)",
            "create unique index on T (u) where v < 50",
            "create unique index on T ((u * 2), abs(v)) where v is not null",
            "alter table T add exclude using gist (int4range(u, u + 1) with &&)",
        ];
        if !references.is_empty() {
            uniques.push("alter table T add unique (r0, u)");
        }
        Made { unique: uniques[chance.below(uniques.len() as u64) as usize], references }
    };
    (0..count).map(|index| table(chance, index)).collect()
}

fn sql(made: &[Made]) -> String {
    let mut sql = String::new();
    for (index, table) in made.iter().enumerate() {
        let columns: String = table
            .references
            .iter()
            .enumerate()
            .map(|(at, one)| format!(", r{at} uuid{}", if one.required { " not null" } else { "" }))
            .collect();
        // Columns that nobody maps, one that the database numbers.
        let _ = write!(
            sql,
            "create table t{index} (id uuid primary key, number bigserial, v int, u int{columns}, note text not null default 'new', \
             twice int generated always as (v * 2) stored);"
        );
    }
    for (index, table) in made.iter().enumerate() {
        let _ = write!(sql, "{};", table.unique.replace(" T ", &format!(" t{index} ")));
        for (at, one) in table.references.iter().enumerate() {
            let _ = write!(
                sql,
                "alter table t{index} add foreign key (r{at}) references t{}{};",
                one.to, one.rule
            );
        }
    }
    sql
}

/// What stands in the tables: the most rows of which each finds what it requires.
fn standing(made: &[Made], documents: &BTreeMap<Id, Document>) -> BTreeSet<Id> {
    let mut standing: BTreeSet<Id> = documents.keys().copied().collect();
    loop {
        let lacks = |(table, id): &Id| {
            let refers = &documents[&(*table, *id)].refers;
            made[*table]
                .references
                .iter()
                .zip(refers)
                .any(|(one, to)| one.required && to.is_none_or(|to| !standing.contains(&(one.to, to))))
        };
        let lost: Vec<Id> = standing.iter().filter(|id| lacks(id)).copied().collect();
        if lost.is_empty() {
            return standing;
        }
        lost.iter().for_each(|id| {
            standing.remove(id);
        });
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number << 80 | 0x5 << 76 | 0x8 << 60)
}

/// Changes after which no two documents of a collection have the same `u`: who takes it from another gives its own. One event a
/// document at most, as a lane reduces them.
fn changes(
    chance: &mut Chance,
    made: &[Made],
    pool: u64,
    documents: &mut BTreeMap<Id, Document>,
) -> BTreeMap<Id, Option<Document>> {
    let mut touched = BTreeSet::new();
    for _ in 0..=chance.below(20) {
        let table = chance.below(made.len() as u64) as usize;
        let key = (table, u128::from(chance.below(pool)));
        touched.insert(key);
        if chance.percent(25) {
            documents.remove(&key);
            continue;
        }
        let taken = |documents: &BTreeMap<Id, Document>, u: i32| {
            let has = |(id, document): (&Id, &Document)| {
                (id.0 == table && document.u == u && *id != key).then_some(*id)
            };
            documents.iter().find_map(has)
        };
        let mut u = chance.below(pool) as i32;
        if let Some(other) = taken(documents, u) {
            match documents.get(&key).map(|document| document.u) {
                Some(own) => {
                    documents.get_mut(&other).expect("it is there").u = own;
                    touched.insert(other);
                }
                None => u = (0..).find(|u| taken(documents, *u).is_none()).expect("some number"),
            }
        }
        let v = chance.below(100) as i32;
        let refers = made[table].references.iter();
        let refers =
            refers.map(|one| (one.required || chance.percent(80)).then(|| u128::from(chance.below(pool))));
        let document = Document { v, u, refers: refers.collect() };
        documents.insert(key, document);
    }
    touched.into_iter().map(|key| (key, documents.get(&key).cloned())).collect()
}

fn writes(
    batch: &BTreeMap<Id, Option<Document>>,
    sink_specs: &[slackwater_connectors::postgres::target::rows::TableSpec],
) -> WriteSet {
    let mut writes = WriteSet::new(sink_specs, false);
    let value = |number: u128| V::Id(id(number).as_u128());
    for ((table, key), event) in batch {
        match event {
            Some(document) => {
                let mut values = vec![value(*key), V::Int(document.v), V::Int(document.u)];
                values.extend(document.refers.iter().map(|to| to.map_or(V::Null, value)));
                row(&mut writes, *table, &values);
            }
            None => value(*key).write(writes.tables[*table].deletes[0].push()),
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
    let made = schema(&mut chance);
    let names: Vec<String> = (0..made.len()).map(|index| format!("t{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let catalog = database.tables(&sql(&made), &names).await;
    let specs = || {
        let spec = |(index, table): (usize, &Made)| {
            let refers: Vec<String> = (0..table.references.len()).map(|at| format!("r{at}")).collect();
            let columns: Vec<&str> =
                ["id", "v", "u"].into_iter().chain(refers.iter().map(String::as_str)).collect();
            spec(&catalog, names[index], &columns, &["id"], None)
        };
        Arc::new(made.iter().enumerate().map(spec).collect::<Vec<_>>())
    };
    let mut control =
        slackwater_connectors::postgres::control::Control::open(&database.url).await.expect("control");
    let taken = control
        .take_over(taking(MIGRATION, "hash", Uuid::nil(), "direct"), &["even", "odd"])
        .await
        .expect("taken over");
    let open = async |lane: &str| {
        Sink::open(&database.url, MIGRATION, lane, taken.owner.epoch, specs()).await.expect("a sink")
    };
    let (mut even, mut odd) = (open("even").await, open("odd").await);
    let pool = 4 + chance.below(8);
    let mut documents = BTreeMap::new();
    let mut turn = chance.below(20) + 5;
    while turn > 0 {
        turn -= 1;
        let (even_ones, odd_ones): (BTreeMap<_, _>, BTreeMap<_, _>) =
            changes(&mut chance, &made, pool, &mut documents)
                .into_iter()
                .partition(|((_, key), _)| key % 2 == 0);
        let (one, other) = (writes(&even_ones, &specs()), writes(&odd_ones, &specs()));
        let what = format!("seed {seed}, {turn} turns to go, {made:?}");
        tokio::join!(apply(&mut even, &one, &what), apply(&mut odd, &other, &what));
        compare(&database, &made, &documents, &what).await;
    }
}

async fn compare(database: &Database, made: &[Made], documents: &BTreeMap<Id, Document>, what: &str) {
    let client = database.client().await;
    let standing = standing(made, documents);
    let number = |id: &str| id.parse::<Uuid>().expect("an id").as_u128() >> 80;
    let mut entries: BTreeSet<(Id, usize, u128)> = BTreeSet::new();
    for (index, table) in made.iter().enumerate() {
        let refers: String = (0..table.references.len()).map(|at| format!(", r{at}::text")).collect();
        let rows = client
            .query(&format!("select id::text, v, u{refers} from public.t{index}"), &[])
            .await
            .expect("rows");
        let found: BTreeMap<u128, Document> = rows
            .iter()
            .map(|row| {
                let refers =
                    (0..table.references.len()).map(|at| row.get::<_, Option<&str>>(3 + at).map(number));
                (number(row.get(0)), Document { v: row.get(1), u: row.get(2), refers: refers.collect() })
            })
            .collect();
        let mut wanted = BTreeMap::new();
        for ((_, key), document) in documents.iter().filter(|((of, _), _)| *of == index) {
            if !standing.contains(&(index, *key)) {
                continue;
            }
            let mut shown = document.clone();
            for (at, (one, to)) in table.references.iter().zip(&mut shown.refers).enumerate() {
                if let Some(lost) = to.filter(|to| !standing.contains(&(one.to, *to))) {
                    entries.insert(((index, *key), at, lost));
                    *to = None;
                }
            }
            wanted.insert(*key, shown);
        }
        assert_eq!(found, wanted, "table {index}, {what}");
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
    let mut held = BTreeSet::new();
    let mut partial = BTreeSet::new();
    for row in rows {
        let table: usize = row.get::<_, &str>(0)[1..].parse().expect("a number");
        let key = (table, number(row.get(1)));
        let constraint: &str =
            row.get::<_, Option<&str>>(3).unwrap_or_else(|| panic!("{key:?} waits for nothing, {what}"));
        let at: usize = constraint
            .trim_start_matches(&format!("t{table}_r"))
            .trim_end_matches("_fkey")
            .parse()
            .expect("a number");
        let lost = number(row.get(4));
        if row.get(2) {
            held.insert(key);
            assert!(
                !standing.contains(&(made[table].references[at].to, lost)),
                "{key:?} need not wait for {lost}, {what}"
            );
        } else {
            partial.insert((key, at, lost));
        }
    }
    let absent: BTreeSet<Id> = documents.keys().filter(|key| !standing.contains(key)).copied().collect();
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

//! Generated targets whose tables refer to each other in every way and have unique values of every kind; documents whose references
//! dangle and whose unique values change places; and what follows for the tables from the documents alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::Chance;

/// A table `t0`, `t1` …, with columns `id` (a uuid), `n`, `v`, `u`, a reference `r0`, `r1` … each, and columns that nobody maps.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its references.
    pub references: Vec<Reference>,
    /// The statement that makes `u` unique; `T` stands for the table. Empty where it is not.
    pub unique: &'static str,
    /// Its key.
    pub key: Key,
    /// It has a column `w`, a range that begins with `v`.
    pub range: bool,
}

/// What a table's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A uuid, made of the document's id.
    Uuid,
    /// A number that the database hands out.
    Serial,
    /// A uuid and `v`, by which the table is partitioned. Nothing refers to it.
    Moving,
}

/// A foreign key.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The table it points to.
    pub to: usize,
    /// NOT NULL.
    pub required: bool,
    /// It may be null, but a check constraint wants it where `v` is less than fifty.
    pub checked: bool,
    /// What follows in its declaration.
    pub rule: &'static str,
}

/// The table and the number of a document.
pub type Id = (usize, i32);

/// A document, or the row that it becomes. No two documents of a table have the same `u`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Any number.
    pub v: i32,
    /// The value that may be unique.
    pub u: i32,
    /// What each reference points to.
    pub refers: Vec<Option<i32>>,
}

/// All documents.
pub type Rows = BTreeMap<Id, Row>;

/// Two to six tables.
pub fn tables(chance: &mut Chance) -> Vec<Table> {
    let count = 2 + chance.below(5) as usize;
    (0..count).map(|index| table(chance, index, count)).collect()
}

fn table(chance: &mut Chance, index: usize, count: usize) -> Table {
    let references: Vec<Reference> = (0..chance.below(4)).map(|_| reference(chance, index, count)).collect();
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
    let unique = uniques[chance.below(uniques.len() as u64) as usize];
    Table { unique, references, key: Key::Uuid, range: false }
}

/// The same with keys of every kind, and some columns that only the database can read.
pub fn tables_of_every_key(chance: &mut Chance) -> Vec<Table> {
    let mut tables = tables(chance);
    for index in 0..tables.len() {
        let referred = tables.iter().any(|table| table.references.iter().any(|one| one.to == index));
        let table = &mut tables[index];
        table.range = chance.percent(30);
        match chance.below(3) {
            0 => table.key = Key::Serial,
            1 if !referred => {
                table.key = Key::Moving;
                // A unique constraint has to contain what the table is partitioned by.
                table.unique = ["", "alter table T add unique (v, u)"][chance.below(2) as usize];
                // What a row refers to is written after it has moved.
                table.references.iter_mut().for_each(|one| one.checked = false);
            }
            _ => {}
        }
    }
    tables
}

fn reference(chance: &mut Chance, index: usize, count: usize) -> Reference {
    // Half of the references go back in the order of the tables; the others may go in circles.
    let to = if chance.percent(50) { index } else { count } as u64;
    let required = chance.percent(45);
    let rules =
        ["", " on delete restrict", " on delete cascade", " deferrable", " deferrable initially deferred"];
    let nullable = [" on delete set null", " on delete set default", " on update cascade"];
    let pick = chance.below(if required { 5 } else { 8 }) as usize;
    let rule = if pick < rules.len() { rules[pick] } else { nullable[pick - rules.len()] };
    let checked = !required && chance.percent(20);
    Reference { to: chance.below(to.max(1)) as usize, required, checked, rule }
}

/// The statements that make the tables.
pub fn sql(tables: &[Table]) -> String {
    let mut sql = String::new();
    for (index, table) in tables.iter().enumerate() {
        let column = |(at, one): (usize, &Reference)| {
            let kind = if tables[one.to].key == Key::Serial { "bigint" } else { "uuid" };
            format!(", r{at} {kind}{}", if one.required { " not null" } else { "" })
        };
        let (id, end) = match table.key {
            Key::Uuid => ("uuid primary key", ""),
            Key::Serial => ("bigint generated always as identity primary key", ""),
            Key::Moving => ("uuid", ", primary key (id, v)) partition by hash (v"),
        };
        let range = if table.range { ", w int4range" } else { "" };
        let columns: String = table.references.iter().enumerate().map(column).collect();
        let _ = write!(
            sql,
            "create table t{index} (id {id}, n int, number bigserial, v int, u int{columns}{range}, \
             note text not null default 'new', twice int generated always as (v * 2) stored{end});"
        );
        if table.key == Key::Moving {
            for part in 0..3 {
                let _ = write!(
                    sql,
                    "create table t{index}_{part} partition of t{index} for values with (modulus 3, remainder {part});"
                );
            }
        }
    }
    for (index, table) in tables.iter().enumerate() {
        if table.key == Key::Moving && table.range {
            let _ = write!(sql, "alter table t{index} add check (w is null or lower(w) = v);");
        }
        let _ = write!(sql, "{};", table.unique.replace(" T ", &format!(" t{index} ")));
        for (at, one) in table.references.iter().enumerate() {
            let _ = write!(
                sql,
                "alter table t{index} add foreign key (r{at}) references t{}{}; create index on t{index} (r{at});",
                one.to, one.rule
            );
            if one.checked {
                let _ = write!(sql, "alter table t{index} add check (r{at} is not null or v >= 50);");
            }
        }
    }
    sql
}

/// Changes up to `most` documents, and those that give a `u` to one of them for its own; which.
pub fn change(
    chance: &mut Chance,
    tables: &[Table],
    pool: u64,
    most: u64,
    documents: &mut Rows,
) -> BTreeSet<Id> {
    let mut touched = BTreeSet::new();
    for _ in 0..=chance.below(most) {
        let table = chance.below(tables.len() as u64) as usize;
        let id = (table, chance.below(pool) as i32);
        touched.insert(id);
        if chance.percent(25) {
            documents.remove(&id);
            continue;
        }
        let taken = |documents: &Rows, u: i32| {
            let has = |(other, row): (&Id, &Row)| {
                (other.0 == table && row.u == u && *other != id).then_some(*other)
            };
            documents.iter().find_map(has)
        };
        let mut u = chance.below(pool) as i32;
        if let Some(other) = taken(documents, u) {
            let own = documents.get(&id).map(|row| row.u);
            match (own, documents.get_mut(&other)) {
                (Some(own), Some(row)) => {
                    row.u = own;
                    touched.insert(other);
                }
                _ => u = (0..).find(|u| taken(documents, *u).is_none()).unwrap_or(u),
            }
        }
        let v = chance.below(100) as i32;
        let refers = tables[table].references.iter();
        let has = |one: &Reference, chance: &mut Chance| {
            one.required || one.checked && v < 50 || chance.percent(80)
        };
        let refers = refers.map(|one| has(one, chance).then(|| chance.below(pool) as i32));
        let row = Row { v, u, refers: refers.collect() };
        documents.insert(id, row);
    }
    touched
}

/// The documents whose rows are in the tables: the most of which each finds what it requires.
pub fn standing(tables: &[Table], documents: &Rows) -> BTreeSet<Id> {
    let mut standing: BTreeSet<Id> = documents.keys().copied().collect();
    loop {
        let lacks = |id: &Id| {
            let mut wants = tables[id.0].references.iter().zip(&documents[id].refers);
            wants.any(|(one, to)| match to {
                // What a check asks about is not written as null.
                Some(to) => (one.required || one.checked) && !standing.contains(&(one.to, *to)),
                None => one.required,
            })
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

/// The rows of the tables: without references to what is not there.
pub fn shown(tables: &[Table], documents: &Rows) -> Rows {
    let standing = standing(tables, documents);
    let shown = |(id, row): (&Id, &Row)| {
        let mut row = row.clone();
        for (one, to) in tables[id.0].references.iter().zip(&mut row.refers) {
            *to = to.filter(|to| standing.contains(&(one.to, *to)));
        }
        (*id, row)
    };
    documents.iter().filter(|(id, _)| standing.contains(id)).map(shown).collect()
}

//! The foreign keys between the tables that a migration fills, their unique values, and what follows from both. Pure.
//!
//! `docs/design/references.md` says what becomes of a row whose referenced row is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::postgres::target::catalog::{OnDelete, Rival, Table};
use crate::postgres::target::rows::{Missing, TableSpec};

/// The key of a row, each column as Postgres writes it as text.
pub(super) type Key = Vec<String>;

/// All references that are kept, and their tables.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Each table once, however many specs fill it; referenced tables first.
    pub(super) tables: Vec<Mapped>,
    /// Which of `tables` each spec fills.
    pub(super) of_spec: Vec<usize>,
    pub(super) all: Vec<Reference>,
    pub(super) uniques: Vec<Unique>,
}

/// A unique index or an exclusion constraint of a table that is filled.
#[derive(Debug)]
pub(super) struct Unique {
    pub(super) table: usize,
    pub(super) rival: Rival,
}

impl Unique {
    pub(super) fn name(&self) -> &str {
        self.rival.names.first().map_or("", String::as_str)
    }
}

/// A table that is filled.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) table: Arc<Table>,
    /// The columns that identify a row, as indices into `table.columns`.
    pub(super) key: Vec<usize>,
    /// The column with the id of the row that an array's elements belong to.
    pub(super) owner: Option<usize>,
    /// Tables with the same number refer to each other through required references. Others have a number of their own.
    pub(super) circle: usize,
    /// Its rows may wait only for each other.
    pub(super) circular: bool,
}

/// A reference that is kept.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) name: String,
    /// The names that errors have for it.
    names: Vec<String>,
    /// The table that refers, and the one that is referred to, as indices into `References::tables`.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Its columns, as indices into the columns of `from`, and those that they name, of `to`.
    pub(super) columns: Vec<usize>,
    pub(super) named: Vec<usize>,
    /// The columns that become null while the referenced row is missing. If there are none, the row is held.
    pub(super) nulls: Vec<usize>,
    /// Postgres itself would change or delete rows when the referenced row goes.
    pub(super) cascades: bool,
    /// What waits for it blocks the switch.
    pub(super) blocks: bool,
}

impl Reference {
    fn is_named(&self, constraint: &str) -> bool {
        self.name == constraint || self.names.iter().any(|name| name == constraint)
    }

    /// The row cannot be in its table without it.
    pub(super) fn required(&self) -> bool {
        self.nulls.is_empty()
    }
}

impl References {
    /// Of these specs, which come in the order of their references.
    pub(super) fn of(specs: &[TableSpec]) -> Self {
        let mut tables: Vec<Mapped> = Vec::new();
        let mut of_spec = Vec::with_capacity(specs.len());
        let mut split = BTreeSet::new();
        for spec in specs {
            let key: Vec<usize> = spec.key.iter().map(|at| spec.columns[*at]).collect();
            let owner = spec.owner.map(|at| spec.columns[at]);
            let known = tables.iter().position(|known| {
                (&known.table.schema, &known.table.name) == (&spec.table.schema, &spec.table.name)
            });
            let place = known.unwrap_or(tables.len());
            match known {
                Some(place) if tables[place].key != key => {
                    split.insert(place);
                }
                // A row belongs to nobody if only one of the specs says to whom.
                Some(place) if tables[place].owner != owner => tables[place].owner = None,
                Some(_) => {}
                None => {
                    let table = Arc::clone(&spec.table);
                    tables.push(Mapped { table, key, owner, circle: place, circular: false });
                }
            }
            // Who does not write a table knows nothing of its references.
            if spec.stands {
                split.insert(place);
            }
            of_spec.push(place);
        }
        let mut all = Vec::new();
        for (from, child) in tables.iter().enumerate().filter(|(place, _)| !split.contains(place)) {
            for foreign in &child.table.foreign_keys {
                let to = tables.iter().position(|parent| {
                    (&parent.table.schema, &parent.table.name) == (&foreign.table.0, &foreign.table.1)
                });
                let Some(to) = to.filter(|to| !split.contains(to)) else { continue };
                let named: Option<Vec<usize>> =
                    foreign.referenced.iter().map(|name| tables[to].table.column(name)).collect();
                let Some(named) = named.filter(|named| named.len() == foreign.columns.len()) else {
                    continue;
                };
                let missing = missing(specs, &of_spec, from, &foreign.columns);
                if missing == Missing::Reject {
                    continue;
                }
                all.push(Reference {
                    name: foreign.name.clone(),
                    names: foreign.names.clone(),
                    from,
                    to,
                    columns: foreign.columns.clone(),
                    named,
                    nulls: if missing == Missing::Wait && null_is_checked(child, &foreign.columns) {
                        Vec::new()
                    } else {
                        nulls(child, &foreign.columns, foreign.full)
                    },
                    cascades: foreign.on_delete != OnDelete::Refuse,
                    blocks: missing == Missing::Wait,
                });
            }
        }
        let mut uniques = Vec::new();
        for (table, mapped) in tables.iter().enumerate().filter(|(place, _)| !split.contains(place)) {
            let key: BTreeSet<String> =
                mapped.key.iter().map(|at| mapped.table.columns[*at].name.clone()).collect();
            for rival in &mapped.table.rivals {
                // By its own key a row is found: nobody can be in its way there.
                let own = rival.predicate.is_none()
                    && rival.operators.is_empty()
                    && rival.values.iter().map(|value| ident_of(value)).collect::<BTreeSet<_>>() == key;
                if !own {
                    uniques.push(Unique { table, rival: rival.clone() });
                }
            }
        }
        let mut references = Self { tables, of_spec, all, uniques };
        references.find_circles();
        references
    }

    /// Unique values of a table, as indices into `uniques`.
    pub(super) fn uniques_of(&self, table: usize) -> impl Iterator<Item = usize> {
        self.uniques.iter().enumerate().filter(move |(_, one)| one.table == table).map(|(place, _)| place)
    }

    /// The unique index or exclusion constraint with this name.
    pub(super) fn find_unique(&self, table: &str, constraint: &str) -> Option<usize> {
        let named = |one: &Unique| one.rival.names.iter().any(|name| name == constraint);
        let of_table = |one: &Unique| self.tables[one.table].table.name == table;
        let of_table = self.uniques.iter().position(|one| named(one) && of_table(one));
        of_table.or_else(|| self.uniques.iter().position(named))
    }

    /// References of a table, as indices into `all`.
    pub(super) fn out_of(&self, table: usize) -> impl Iterator<Item = usize> {
        self.all.iter().enumerate().filter(move |(_, one)| one.from == table).map(|(place, _)| place)
    }

    /// References to a table, as indices into `all`.
    pub(super) fn refer_to(&self, table: usize) -> impl Iterator<Item = usize> {
        self.all.iter().enumerate().filter(move |(_, one)| one.to == table).map(|(place, _)| place)
    }

    /// The reference with this constraint, which may be that of a partition, or for one.
    pub(super) fn find(&self, table: &str, constraint: &str) -> Option<usize> {
        let of_table = self
            .all
            .iter()
            .position(|one| one.is_named(constraint) && self.tables[one.from].table.name == table);
        of_table.or_else(|| self.all.iter().position(|one| one.is_named(constraint)))
    }

    fn find_circles(&mut self) {
        let count = self.tables.len();
        let mut reaches = vec![vec![false; count]; count];
        for one in self.all.iter().filter(|one| one.required()) {
            reaches[one.from][one.to] = true;
        }
        for over in 0..count {
            let through = reaches[over].clone();
            for row in reaches.iter_mut().filter(|row| row[over]) {
                row.iter_mut().zip(&through).for_each(|(reached, more)| *reached |= *more);
            }
        }
        for (place, mapped) in self.tables.iter_mut().enumerate() {
            let both = |other: &usize| reaches[place][*other] && reaches[*other][place];
            mapped.circle = (0..count).find(|other| *other == place || both(other)).unwrap_or(place);
            mapped.circular = reaches[place][place];
        }
    }
}

/// A column's name as the catalogue writes it among the values of an index, without quotes.
pub(super) fn ident_of(value: &str) -> String {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => value.to_owned(),
    }
}

/// What the migration file says of these columns; the strictest of all places that fill them.
fn missing(specs: &[TableSpec], of_spec: &[usize], table: usize, columns: &[usize]) -> Missing {
    let specs = specs.iter().zip(of_spec).filter(|(_, of)| **of == table);
    let said = specs.flat_map(|(spec, _)| {
        let filled = spec.columns.iter().zip(&spec.missing);
        filled.filter(|(column, _)| columns.contains(column)).map(|(_, missing)| *missing)
    });
    let said: BTreeSet<Missing> = said.collect();
    // A column that says nothing waits; of two columns of one key the one that says something decides.
    [Missing::Reject, Missing::Null].into_iter().find(|one| said.contains(one)).unwrap_or(Missing::Wait)
}

/// The columns to set null: those that no other reference needs, if there are such.
fn nulls(child: &Mapped, columns: &[usize], full: bool) -> Vec<usize> {
    let may = |column: &&usize| !child.table.columns[**column].not_null && !child.key.contains(column);
    let nullable: Vec<usize> = columns.iter().filter(may).copied().collect();
    if full {
        return if nullable.len() == columns.len() { nullable } else { Vec::new() };
    }
    let others = |column: &usize| {
        child.table.foreign_keys.iter().filter(|key| key.columns.contains(column)).count() > 1
    };
    let own: Vec<usize> = nullable.iter().filter(|column| !others(column)).copied().collect();
    if own.is_empty() { nullable } else { own }
}

/// A check constraint asks whether one of these columns is null, as where a comment belongs to a post or to a photo. With a null that the
/// document does not have the row might be refused, so it is held until what it refers to comes.
fn null_is_checked(child: &Mapped, columns: &[usize]) -> bool {
    columns.iter().any(|column| child.table.columns[*column].null_checked)
}

/// A row that is held: its table and key.
pub(super) type Held = (usize, Key);

/// The rows that wait only for each other: the largest set in which each row finds all that it waits for. `wants`: each held row
/// that was looked at, with what it needs.
pub(super) fn circle(wants: &BTreeMap<Held, Vec<Held>>) -> BTreeSet<Held> {
    let mut wanted_by: BTreeMap<&Held, Vec<&Held>> = BTreeMap::new();
    for (row, needed) in wants {
        for one in needed {
            wanted_by.entry(one).or_default().push(row);
        }
    }
    let mut set: BTreeSet<&Held> = wants.keys().collect();
    // What is wanted and not held is not there at all: whoever needs it, and whoever needs that, stays.
    let mut lost: Vec<&Held> = wanted_by.keys().filter(|one| !set.contains(*one)).copied().collect();
    while let Some(one) = lost.pop() {
        for row in wanted_by.get(one).into_iter().flatten() {
            if set.remove(*row) {
                lost.push(row);
            }
        }
    }
    set.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(table: usize, key: &str) -> Held {
        (table, vec![key.to_owned()])
    }

    #[test]
    fn who_waits_only_for_each_other_comes_together() {
        let (owner, org) = (held(0, "owner"), held(1, "org"));
        let (member, lost, child) = (held(0, "member"), held(1, "lost"), held(0, "child of lost"));
        let wants = BTreeMap::from([
            (owner.clone(), vec![org.clone()]),
            (org.clone(), vec![owner.clone()]),
            (member.clone(), vec![org.clone()]),
            (lost.clone(), vec![held(0, "nobody")]),
            (child, vec![lost.clone(), org.clone()]),
        ]);
        assert_eq!(circle(&wants), BTreeSet::from([owner, org, member]));
        assert!(circle(&BTreeMap::new()).is_empty());
    }
}

//! By which columns rows are found again: keys, and owners of rows made of elements.

use slackwater_connectors::postgres::target::catalog;

use super::super::plan::Take;
use super::conversions::is_foreign;
use super::table::{Built, First, Origin};
use crate::config::spelling::list;
use crate::config::{At, Findings, Levels, Rule, Table};

/// By what rows are found again.
pub(super) struct Found {
    /// The key's columns, as indices into the mapped ones.
    pub(super) key: Vec<usize>,
    /// Those of them that tell which row is a document's, where the others can change.
    pub(super) found: Option<Vec<usize>>,
    /// Nothing of the key is made of the `_id`: which row is whose is kept beside.
    pub(super) claimed: bool,
}

/// The key of a table with a row for each document. A delete brings the `_id` and nothing else, so the document's row must be found by
/// what is made of it: by the whole key, by another unique constraint, or by a part of the key. Where nothing is, we note which row is
/// whose.
pub(super) fn of_document(
    rule: &Table,
    table: &catalog::Table,
    built: &[Built],
    findings: &mut Findings,
) -> Option<Found> {
    let mapped = |columns: &[usize]| -> Option<Vec<usize>> {
        columns.iter().map(|column| built.iter().position(|built| built.column == *column)).collect()
    };
    let primary = mapped(&table.primary_key).filter(|_| !table.deferrable_key);
    if rule.key.is_empty() && !primary.is_some_and(|key| is_derivable(&key, built)) {
        let mut uniques = table.uniques.iter().filter_map(|unique| mapped(unique));
        if let Some(key) = uniques.find(|key| is_derivable(key, built)) {
            return Some(Found { key, found: None, claimed: false });
        }
    }
    let key = key(rule, table, built, findings)?;
    if is_derivable(&key, built) {
        check_collisions(rule, table, &key, built, findings);
        return Some(Found { key, found: None, claimed: false });
    }
    let found: Vec<usize> = key.iter().copied().filter(|at| is_of_id(&built[*at])).collect();
    let whole = |at: &usize| matches!(built[*at].origin, Origin::Own | Origin::Id { whole: true, .. });
    if found.iter().any(whole) {
        check_collisions(rule, table, &found, built, findings);
        check_index(table, &found, built, findings);
        return Some(Found { key, found: Some(found), claimed: false });
    }
    if key.iter().all(|at| is_of_id(&built[*at])) {
        let place = key.first().map_or(rule.into.place, |at| built[*at].place);
        let help = "one column of the key must be made of `_id`, or of another field";
        findings.error(place, "every document would become the same row", help);
        return None;
    }
    if let Some(at) = key.iter().find(|at| !table.columns[built[**at].column].not_null) {
        let name = &table.columns[built[*at].column].name;
        let message = format!("`{name}` is part of the key, and may be null: then no row is found again");
        findings.error(built[*at].place, message, format!("make `{name}` NOT NULL, or take another key"));
        return None;
    }
    Some(Found { key, found: None, claimed: true })
}

fn is_of_id(built: &Built) -> bool {
    matches!(built.origin, Origin::Own | Origin::Id { .. } | Origin::Const)
}

fn is_derivable(key: &[usize], built: &[Built]) -> bool {
    let of_id = |at: &usize| matches!(built[*at].origin, Origin::Own | Origin::Id { .. });
    !key.is_empty() && key.iter().all(|at| is_of_id(&built[*at])) && key.iter().any(of_id)
}

/// Says where documents with different ids could become the same row.
fn check_collisions(
    rule: &Table,
    table: &catalog::Table,
    key: &[usize],
    built: &[Built],
    findings: &mut Findings,
) {
    let of_id = |at: &&usize| matches!(built[**at].origin, Origin::Own | Origin::Id { .. });
    let alone = key.iter().filter(of_id).count() == 1;
    for built in key.iter().map(|at| &built[*at]) {
        let Origin::Id { whole, text } = built.origin else { continue };
        let (name, kind) = (&table.columns[built.column].name, &table.columns[built.column].kind);
        let shortened = rule.columns.iter().any(|column| match &column.rule.value {
            Rule::Value(value) => column.name.value == *name && (value.trim || value.lower),
            _ => false,
        });
        let why = match falls_together(kind) {
            _ if alone && !whole => "ids that differ elsewhere are the same in this part",
            _ if shortened => "blanks and capitals do not count",
            Some(why) => why,
            None if text => "ids of different types can have the same text",
            None => continue,
        };
        let what = if whole { "`_id`" } else { "a part of `_id`" };
        let message = format!(
            "`{name}` is made of {what} and tells rows apart, but {why}; of two such documents the last one has the row, and if one is deleted the row goes"
        );
        findings.warning(built.place, message, "`{ uuid: _id }` never collides");
    }
}

/// Why different values of a document can be the same one in a column of this type.
fn falls_together(kind: &catalog::Type) -> Option<&'static str> {
    Some(match kind.base_oid {
        _ if kind.is_citext() => "capitals do not count in citext",
        16 => "a boolean has two values",
        700 => "`real` keeps some six digits",
        869 | 650 => "an address can be written in several ways",
        1042 => "blanks at the end do not count in char(n)",
        1082 => "a date leaves the time out",
        1083 | 1266 => "a time leaves the day out",
        // The scale is kept with four more.
        1700 if kind.modifier >= 0 => "it is rounded to the scale of the column",
        1114 | 1184 if (0..3).contains(&kind.modifier) => "fractions of seconds are cut",
        _ => return None,
    })
}

/// Rows are looked for by these columns.
fn check_index(table: &catalog::Table, found: &[usize], built: &[Built], findings: &mut Findings) {
    let columns: Vec<usize> = found.iter().map(|at| built[*at].column).collect();
    let leads = |index: &Vec<usize>| index.first().is_some_and(|first| columns.contains(first));
    if !table.indexes.iter().any(leads) {
        let name = &table.columns[columns[0]].name;
        let message = format!("no index of `{}` begins with `{name}`", table.name);
        let help = format!("rows of a document are found by it: CREATE INDEX ON {} ({name})", table.name);
        findings.warning(built[found[0]].place, message, help);
    }
}

/// The key's columns as indices into the mapped ones; complaints go to the findings.
pub(super) fn key(
    rule: &Table,
    table: &catalog::Table,
    built: &[Built],
    findings: &mut Findings,
) -> Option<Vec<usize>> {
    let place = rule.key.first().map_or(rule.into.place, |first| first.place);
    let columns = if rule.key.is_empty() {
        if table.primary_key.is_empty() {
            let help = match table.uniques.first() {
                Some(unique) => {
                    format!("name a unique one, such as `key: [{}]`", names(table, unique).join(", "))
                }
                None => "give the table a primary key: without one no row can be found again".into(),
            };
            findings.error(place, format!("`{}` has no primary key", table.name), help);
            return None;
        }
        table.primary_key.clone()
    } else {
        named(rule, table, findings)?
    };
    let is_key =
        |other: &[usize]| other.len() == columns.len() && other.iter().all(|at| columns.contains(at));
    if table.deferrable_key
        && is_key(&table.primary_key)
        && !table.uniques.iter().any(|unique| is_key(unique))
    {
        let message =
            format!("the primary key of `{}` is DEFERRABLE, and rows cannot be found by it", table.name);
        let help = match table.uniques.first() {
            Some(unique) => {
                format!("name another unique one, such as `key: [{}]`", names(table, unique).join(", "))
            }
            None => "drop it and add it again without DEFERRABLE".to_owned(),
        };
        findings.error(place, message, help);
        return None;
    }
    let mut key = Vec::with_capacity(columns.len());
    for column in &columns {
        match built.iter().position(|built| built.column == *column) {
            Some(_) if is_foreign(&table.columns[*column].kind) => {
                let column = &table.columns[*column];
                let message = format!(
                    "`{}` is part of the key of `{}`, and rows cannot be found by a value of type {}",
                    column.name, table.name, column.kind.name
                );
                findings.error(place, message, "take another unique constraint: `key: […]`");
                return None;
            }
            Some(at) => key.push(at),
            None => {
                let name = &table.columns[*column].name;
                // Where the rule itself was wrong, that has been said.
                if !rule.names(name) {
                    let message =
                        format!("`{name}` is part of the key of `{}`, and nothing fills it", table.name);
                    let help = match (columns.len(), rule.each.is_some()) {
                        (1, false) => format!("add `{name}: {{ uuid: _id }}` under `columns`"),
                        (1, true) => format!("add `{name}: {{ uuid: each, by: … }}` under `columns`"),
                        _ => format!("add a rule for `{name}` under `columns`"),
                    };
                    findings.error(place, message, help);
                }
                return None;
            }
        }
    }
    Some(key)
}

fn names(table: &catalog::Table, columns: &[usize]) -> Vec<String> {
    columns.iter().map(|column| table.columns[*column].name.clone()).collect()
}

fn named(rule: &Table, table: &catalog::Table, findings: &mut Findings) -> Option<Vec<usize>> {
    let mut columns = Vec::new();
    for name in &rule.key {
        columns.push(super::table::find_column(name, table, findings)?);
    }
    let same =
        |other: &[usize]| other.len() == columns.len() && other.iter().all(|column| columns.contains(column));
    if !same(&table.primary_key) && !table.uniques.iter().any(|unique| same(unique)) {
        let known = std::iter::once(&table.primary_key).chain(&table.uniques).filter(|key| !key.is_empty());
        let known: Vec<String> = known.map(|key| format!("[{}]", names(table, key).join(", "))).collect();
        let help = match known.is_empty() {
            true => "add a unique constraint over these columns".to_owned(),
            false => format!("unique are {}", list(known.iter().map(String::as_str))),
        };
        findings.error(rule.key[0].place, format!("this key is not unique in `{}`", table.name), help);
        return None;
    }
    Some(columns)
}

/// To which row the rows of an array belong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// The column with the id of that row.
    pub(super) at: usize,
    pub(super) of: Of,
    /// Its column there.
    pub(super) parent: usize,
}

/// Which row that is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// One of the document's.
    Document(usize),
    /// One of those of the elements around.
    Element(usize),
}

/// The owner of rows made of elements: the document, if a column says which, or an element around them. `rows`: the columns of each row
/// that the document has; `elements`: those that its elements have so far.
pub(super) fn owner(
    rule: &Table,
    table: &catalog::Table,
    key: &[usize],
    built: &[Built],
    (rows, elements): (&[First<'_>], &[First<'_>]),
    findings: &mut Findings,
) -> Option<Owner> {
    let each: &At<Levels> = rule.each.as_ref()?;
    let parents: Vec<Owner> = built
        .iter()
        .enumerate()
        .filter_map(|(at, built)| match built.origin {
            Origin::Parent(row, parent) => Some(Owner { at, of: Of::Document(row), parent }),
            Origin::Above(row, parent) => Some(Owner { at, of: Of::Element(row), parent }),
            _ => None,
        })
        .collect();
    if parents.is_empty() {
        // A rule that was meant to be it and is wrong has been reported.
        let meant =
            |column: &crate::config::Column| matches!(column.rule.value, crate::config::Rule::Parent(_));
        if rule.unread.is_empty() && !rule.columns.iter().any(meant) {
            let help = "add a column with the id of the document's row: `user_id: { parent: id }`";
            let message = format!("nothing tells to which document the rows of `{}` belong", table.name);
            findings.error(each.place, message, help);
        }
        return None;
    }
    let document = |owner: &Owner| match owner.of {
        Of::Document(row) => {
            let origin = rows[row].built[owner.parent].origin;
            matches!(origin, Origin::Own | Origin::Id { whole: true, .. })
        }
        Of::Element(_) => false,
    };
    let element = |owner: &Owner| match owner.of {
        Of::Element(row) => elements[row].built[owner.parent].origin == Origin::ElementId,
        Of::Document(_) => false,
    };
    let deepest = |owner: &Owner| match owner.of {
        Of::Element(row) => elements[row].rule.each.as_ref().map_or(0, |each| each.value.depth()),
        Of::Document(_) => 0,
    };
    let of_element = || parents.iter().copied().filter(element).max_by_key(deepest);
    let Some(owner) = parents.iter().copied().find(document).or_else(of_element) else {
        let place = built[parents[0].at].place;
        let (message, help) = match parents[0].of {
            Of::Document(_) => (
                "this column of the document's row does not identify the document".to_owned(),
                "take a column that is `{ uuid: _id }` or the value of `_id`",
            ),
            Of::Element(row) => (
                format!("this column does not identify the row of `{}`", elements[row].table.name),
                "take a column that is `{ uuid: each, by: … }`, or add one with the id of the document's row",
            ),
        };
        findings.error(place, message, help);
        return None;
    };
    let own = |at: &usize| *at == owner.at || matches!(built[*at].origin, Origin::ElementId);
    if !key.iter().any(own) {
        let place = key.first().map_or(each.place, |at| built[*at].place);
        let help = format!(
            "put `{}` into the key, or make it of the element: `{{ uuid: each, by: … }}`",
            table.columns[built[owner.at].column].name
        );
        let whose = match owner.of {
            Of::Document(_) => "documents".to_owned(),
            Of::Element(row) => format!("`{}`", elements[row].table.name),
        };
        findings.error(place, format!("the key does not tell rows of different {whose} apart"), help);
    }
    told_apart(each, key, built, deepest(&owner), elements, findings);
    let column = built[owner.at].column;
    if !table.indexes.iter().any(|index| index.first() == Some(&column)) {
        let name = &table.columns[column].name;
        let message = format!("no index of `{}` begins with `{name}`", table.name);
        let help = format!("rows of a document are found by it: CREATE INDEX ON {} ({name})", table.name);
        findings.warning(built[owner.at].place, message, help);
    }
    Some(owner)
}

/// Elements of different arrays between the owner and the elements themselves: something of the key has to tell them apart, or the last
/// one has the row. `known`: how many arrays the owner is in.
fn told_apart(
    each: &At<Levels>,
    key: &[usize],
    built: &[Built],
    known: usize,
    elements: &[First<'_>],
    findings: &mut Findings,
) {
    let depth = each.value.depth();
    if depth <= known + 1 {
        return;
    }
    let tells = |at: &usize| match (&built[*at].code.take, built[*at].origin) {
        (_, Origin::ElementId) => true,
        (_, Origin::Above(row, _)) => {
            elements[row].rule.each.as_ref().is_some_and(|each| each.value.depth() > known)
        }
        (Take::Element { up, .. } | Take::Name { up, .. }, _) => (1..depth - known).contains(up),
        _ => false,
    };
    if key.iter().any(tells) {
        return;
    }
    let around = Levels(each.value.0[..depth - 1].to_vec());
    let place = key.first().map_or(each.place, |at| built[*at].place);
    let message =
        format!("elements of different `{around}` that have the same key become one row: the last one");
    let help = "if that is not meant, put an id into the key: `{ uuid: each, by: … }`, or a value of the element around: `^.field`";
    findings.warning(place, message, help);
}

//! The migration file against the target's catalogue: everything that can be known before the first row moves.

mod apart;
mod computed;
mod conversions;
mod follow;
mod history;
mod keys;
mod lookups;
mod merged;
mod nested;
mod order;
mod routes;
mod serial;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use slackwater_connectors::postgres::target::catalog::{self, Catalog, Type};
use slackwater_connectors::postgres::target::rows::{Apart, Merging, Missing, RowFormat, TableSpec};
use slackwater_connectors::postgres::target::shape::{Shape, carrier};
use slackwater_connectors::postgres::target::statements::table_name;

pub(crate) use self::computed::expressions;
use self::conversions::{Surroundings, is_foreign};
pub(crate) use self::follow::follow;
use self::keys::Found;
use self::lookups::Known;
pub(super) use self::merged::Part;
pub(super) use self::order::groups;
use self::table::{Built, Columns, First, Origin};
use super::condition::Condition;
use super::encode::IdForm;
use super::plan::{Code, CollectionPlan, ColumnCode, EachCode, Made, Owned, Plan, RowCode, Take};
use super::sensitive::Sensitive;
use super::travel::Travel;
use super::trie::Trie;
use crate::config::spelling::nearest;
use crate::config::{Collection, Diagnostics, Findings, Migration, Path, Rule, Table};
use slackwater_topics::CollectionId;

/// Compiles a migration. All mistakes come together; warnings are in the plan.
pub fn compile(file: &Migration, catalog: &Catalog) -> Result<Plan, Diagnostics> {
    let mut findings = Findings::new(file.file.clone());
    match judge(file, catalog, &mut findings) {
        Some(plan) => Ok(Plan { warnings: findings.finish(), ..plan }),
        None => Err(findings.finish()),
    }
}

/// The same for as much of a migration as could be read. None if there are errors, before or now.
pub(crate) fn judge(file: &Migration, catalog: &Catalog, findings: &mut Findings) -> Option<Plan> {
    let series = serial::all(file, catalog);
    let around = Surroundings::of(file, &series, catalog);
    let mut specs = Vec::new();
    let mut parts = Vec::new();
    let mut places = Places::new();
    let known = lookups::all(file, catalog);
    let mut collections = Vec::new();
    for collection in &file.collections {
        let compiler = Compiler {
            file,
            catalog,
            around: &around,
            specs: &mut specs,
            parts: &mut parts,
            known: &known,
            places: &mut places,
            findings,
        };
        collections.push(compiler.collection(collection));
    }
    if findings.has_errors() {
        return None;
    }
    let there: Vec<Option<&TableSpec>> = specs.iter().map(Some).collect();
    let wholes = merged::wholes(file, catalog, &parts, &there, &places, findings);
    if findings.has_errors() {
        return None;
    }
    for whole in wholes {
        let of = specs.len();
        for part in whole.whole().into_iter().flat_map(|whole| &whole.parts) {
            specs[*part].merging = Merging::Part { of };
        }
        specs.push(whole);
    }
    let mut collections: Vec<CollectionPlan> = collections.into_iter().flatten().collect();
    set_levels(&mut collections, &specs);
    let specs = in_order(specs, &mut collections, &mut parts, &mut places);
    Some(Plan {
        parts,
        places,
        migration: file.name.clone(),
        namespace: file.namespace,
        collections,
        tables: Arc::new(specs),
        series,
        warnings: Findings::new(file.file.clone()).finish(),
    })
}

/// A table that compiled.
struct Own<'a> {
    rule: &'a Table,
    table: &'a catalog::Table,
    spec: usize,
    built: Vec<Built>,
    key: Vec<usize>,
    found: Vec<usize>,
    claimed: bool,
    when: Option<Condition>,
    made: Made,
}

struct Compiler<'a, 'f> {
    file: &'a Migration,
    catalog: &'a Catalog,
    around: &'a Surroundings<'a>,
    specs: &'f mut Vec<TableSpec>,
    parts: &'f mut Vec<Part>,
    /// What has to be known of the documents of each collection.
    known: &'f BTreeMap<String, Vec<Known>>,
    places: &'f mut Places,
    findings: &'f mut Findings,
}

/// Where what is looked up in a collection's documents is kept: what is known of them, or (`true`) the parts of rows that they are.
pub(super) type Places = BTreeMap<(String, bool), usize>;

impl<'a> Compiler<'a, '_> {
    fn collection(mut self, collection: &'a Collection) -> Option<CollectionPlan> {
        let mut document = Trie::new();
        let mut complete = true;
        self.check_twice(collection);
        let (mut own, mut elements): (Vec<_>, Vec<_>) =
            collection.tables.iter().partition(|rule| rule.each.is_none());
        // The first is what elements belong to.
        own.sort_by_key(|rule| rule.history.is_some());
        // Elements take over from those around them.
        elements.sort_by_key(|rule| rule.each.as_ref().map_or(0, |each| each.value.depth()));
        let mut own_rows: Vec<Own<'_>> = Vec::new();
        for rule in own {
            let Some(table) = self.find_table(rule) else {
                complete = false;
                continue;
            };
            let mut built =
                self.columns(rule, table, (&mut document, &mut []), (Vec::new(), Vec::new()), false);
            let when = rule.when.as_ref().map(|when| Condition::compile(&when.value, &mut document, &mut []));
            if rule.history.is_some() {
                let Some(key) = history::key(rule, table, &built, self.findings) else {
                    complete = false;
                    continue;
                };
                let by = Found { key: key.clone(), found: None, claimed: false };
                let (spec, made) = self.spec((collection, rule), table, &mut built, by, None);
                let found = key.clone();
                own_rows.push(Own { rule, table, spec, built, key, found, claimed: false, when, made });
                continue;
            }
            if lookups::is_made(rule, self.around) {
                let order = self.order(rule, table, &mut document, &mut []);
                let whole = keys::key(rule, table, &built, self.findings);
                let (Some(order), Some(whole)) = (order, whole) else {
                    complete = false;
                    continue;
                };
                let (spec, made, id, _) = self.part((collection, rule), table, (&mut built, &whole), order);
                if rule.merge.is_some() && own_rows.is_empty() {
                    self.places.insert((collection.name.value.clone(), true), spec);
                }
                let (key, found) = (vec![id], vec![id]);
                own_rows.push(Own { rule, table, spec, built, key, found, claimed: false, when, made });
                continue;
            }
            let found = keys::of_document(rule, table, &built, self.findings);
            complete &= found.is_some();
            let mut row = Own {
                rule,
                table,
                spec: usize::MAX,
                built: Vec::new(),
                key: Vec::new(),
                found: Vec::new(),
                claimed: false,
                when,
                made: Made::default(),
            };
            if let Some(Found { key, found, claimed }) = found {
                row.key.clone_from(&key);
                row.found = found.clone().unwrap_or_else(|| key.clone());
                row.claimed = claimed;
                let by = Found { key, found, claimed };
                (row.spec, row.made) = self.spec((collection, rule), table, &mut built, by, None);
            }
            own_rows.push(Own { built, ..row });
        }
        let mut element_rows: Vec<(&Table, Own<'_>, Owner, Vec<Trie>)> = Vec::new();
        let mut holders = Vec::new();
        for rule in elements {
            let (Some(table), Some(each)) = (self.find_table(rule), &rule.each) else {
                complete = false;
                continue;
            };
            let mut tries: Vec<Trie> = each.value.0.iter().map(|_| Trie::new()).collect();
            let firsts = || own_rows.iter().map(First::of).collect::<Vec<_>>();
            let around = || element_rows.iter().map(|(_, row, ..)| First::of(row)).collect::<Vec<_>>();
            let mut built = self.columns(
                rule,
                table,
                (&mut document, &mut tries),
                (firsts(), around()),
                collection.incomplete || !complete,
            );
            let condition = |when: &crate::config::At<crate::config::Predicate>| {
                Condition::compile(&when.value, &mut document, &mut tries)
            };
            let when = rule.when.as_ref().map(condition);
            let key = keys::key(rule, table, &built, self.findings);
            if lookups::is_made(rule, self.around) {
                let order = self.order(rule, table, &mut document, &mut tries);
                let (Some(order), Some(whole)) = (order, key) else {
                    complete = false;
                    continue;
                };
                let (spec, made, id, document) =
                    self.part((collection, rule), table, (&mut built, &whole), order);
                let (key, found) = (vec![id], vec![id]);
                let row = Own { rule, table, spec, built, key, found, claimed: false, when, made };
                let at = document.unwrap_or(id);
                element_rows.push((rule, row, Owner::Document { at }, tries));
                continue;
            }
            let key_columns = key.as_deref().unwrap_or_default();
            let owner = keys::owner(rule, table, key_columns, &built, (&firsts(), &around()), self.findings);
            let (Some(key), Some(owner)) = (key, owner) else {
                complete = false;
                continue;
            };
            if let Some(at) = key.iter().find(|at| built[**at].expression.is_some()) {
                let name = &built[*at].code.name;
                let message =
                    format!("`{name}` is part of the key, and computed: two elements could be one row");
                let help = "take a key that is made of the element: `{ uuid: each, by: … }`";
                self.findings.error(built[*at].place, message, help);
            }
            let by = Found { key: key.clone(), found: None, claimed: false };
            let holder = match owner.of {
                keys::Of::Document(_) => None,
                keys::Of::Element(each) => {
                    Some(self.holder(collection, (each, &element_rows[each].1), owner.parent, &mut holders))
                }
            };
            let (spec, made) = self.spec((collection, rule), table, &mut built, by, Some(owner.at));
            self.specs[spec].holder = holder;
            let found = key.clone();
            let row = Own { rule, table, spec, built, key, found, claimed: false, when, made };
            element_rows.push((rule, row, Owner::Row(owner), tries));
        }
        if complete {
            routes::check(&own_rows, self.findings);
        }
        if !complete || self.findings.has_errors() {
            return None;
        }
        // Which columns of the document's rows are taken over, in the order in which they are first asked for.
        let mut parents: Vec<(usize, usize)> = Vec::new();
        let mut each_codes: Vec<EachCode> = Vec::new();
        for (rule, mut row, owner, tries) in element_rows {
            let mut place = |parent: (usize, usize)| {
                parents.iter().position(|known| *known == parent).unwrap_or_else(|| {
                    parents.push(parent);
                    parents.len() - 1
                })
            };
            for column in &mut row.built {
                if let (Take::Parent(parent), Origin::Parent(row, at)) =
                    (&mut column.code.take, column.origin)
                {
                    *parent = place((row, at));
                }
            }
            let named = row.built.iter().find_map(|built| match built.origin {
                Origin::Parent(row, _) => Some(row),
                _ => None,
            });
            let (owner, owned) = match owner {
                Owner::Row(owner) => match owner.of {
                    keys::Of::Document(row) => {
                        (owner.at, Owned::Row { row, parent: place((row, owner.parent)) })
                    }
                    keys::Of::Element(_) => (owner.at, Owned::Element),
                },
                Owner::Document { at } => (at, Owned::Document { row: named }),
            };
            let each = &rule.each.as_ref()?.value;
            let above = nested::above(&mut row, &each_codes);
            let row = row_code(row, Vec::new(), Vec::new());
            each_codes.push(EachCode {
                told: nested::told_by(&row, each),
                row,
                levels: nested::levels(each, &mut document, tries),
                path: each.stem(),
                owner,
                owned,
                above,
                encloses: false,
            });
        }
        nested::mark(&mut each_codes, &holders);
        let rivals: Vec<Vec<usize>> = (0..own_rows.len()).map(|at| routes::rivals(&own_rows, at)).collect();
        // Whichever of the alternatives is written, rows of elements take over from it.
        let of_row = |row: usize| -> Vec<(usize, usize)> {
            let column = |(of, at): &(usize, usize)| {
                let column = own_rows[*of].built[*at].column;
                let here = own_rows[row].built.iter().position(|built| built.column == column);
                here.filter(|_| *of == row || rivals[row].contains(of))
            };
            parents.iter().enumerate().filter_map(|(place, parent)| Some((column(parent)?, place))).collect()
        };
        let places: Vec<Vec<(usize, usize)>> = (0..own_rows.len()).map(of_row).collect();
        let rows = own_rows.into_iter().zip(places).zip(rivals);
        let mut row_codes: Vec<RowCode> =
            rows.map(|((own, places), rivals)| row_code(own, places, rivals)).collect();
        row_codes.extend(self.known_row(collection, &mut document));
        let takes = || row_codes.iter().chain(each_codes.iter().map(|each| &each.row));
        // As they were compiled, so that a plan for other tables has them in the same order: the document's own first.
        let mut tables: Vec<usize> =
            takes().map(|row| row.table).chain(holders.iter().map(|holder| holder.table)).collect();
        tables.sort_unstable();
        let columns = || {
            let inputs = takes().flat_map(|row| row.made.inputs.iter().map(|(_, code)| code));
            takes().flat_map(|row| &row.columns).chain(inputs)
        };
        let rest = columns().any(|column| matches!(column.take, Take::Rest(_)));
        if rest {
            self.warn_of_parts(collection);
        }
        let id_value = |row: &RowCode| {
            let of_id = |at: &usize| {
                let column = &row.columns[*at];
                matches!(column.take, Take::Document { .. })
            };
            row.found.iter().chain(row.parents.iter().map(|(at, _)| at)).any(of_id)
        };
        let id_values = row_codes.iter().any(id_value);
        let routed = row_codes.iter().any(|row| row.when.is_some());
        Some(CollectionPlan {
            name: collection.name.value.clone(),
            source: collection.source.clone(),
            collection: collection.collection.clone(),
            stands: false,
            append_only: collection.append_only.is_some(),
            level: 0,
            after: Vec::new(),
            tables,
            sensitive: Sensitive::of(collection),
            travel: Travel::of(collection, &self.file.ciphers).map(Arc::new),
            code: Code {
                document,
                rows: row_codes,
                each: each_codes,
                holders,
                rest,
                id_values,
                routed,
                reject_others: collection.reject_others.is_some(),
            },
        })
    }

    fn columns(
        &mut self,
        rule: &'a Table,
        table: &'a catalog::Table,
        (document, levels): (&mut Trie, &mut [Trie]),
        (rows, elements): (Vec<First<'_>>, Vec<First<'_>>),
        incomplete: bool,
    ) -> Vec<Built> {
        let (around, findings) = (self.around, &mut *self.findings);
        Columns { rule, table, around, document, levels, rows, elements, incomplete, findings }.build()
    }

    /// What documents of a row that is merged are ordered by. The outer none: that has mistakes.
    #[allow(clippy::option_option)]
    fn order(
        &mut self,
        rule: &'a Table,
        table: &'a catalog::Table,
        document: &mut Trie,
        levels: &mut [Trie],
    ) -> Option<Option<(Type, ColumnCode)>> {
        let Some(order) = &rule.order else { return Some(None) };
        let (around, rows, elements) = (self.around, Vec::new(), Vec::new());
        let findings = &mut *self.findings;
        let mut columns =
            Columns { rule, table, around, document, levels, rows, elements, incomplete: false, findings };
        columns.input(order).map(Some)
    }

    /// What a rule gives to rows that are merged: its table of parts, what the target computes, and the columns with the part's own id
    /// and that of its document.
    fn part(
        &mut self,
        (collection, rule): (&Collection, &Table),
        table: &catalog::Table,
        (built, whole): (&mut Vec<Built>, &[usize]),
        order: Option<(Type, ColumnCode)>,
    ) -> (usize, Made, usize, Option<usize>) {
        let ordered = order.as_ref().map(|(kind, _)| kind.clone());
        let part = (self.specs.len(), rule);
        for at in whole.iter().filter(|at| built[**at].wanted.is_some()) {
            let name = &built[*at].code.name;
            let message =
                format!("`{name}` is part of the key, and looked up: nobody knows it when the row is made");
            let help = "take a key that is made of the document, or `identity`";
            self.findings.error(built[*at].place, message, help);
        }
        let given = Part::new(part, table, (built, whole), ordered, self.findings);
        self.parts.push(given);
        let parts = merged::parts(self.file, collection, rule, table, built, whole, order);
        let by = Found { key: vec![parts.id], found: None, claimed: false };
        let (spec, made) = self.spec((collection, rule), &parts.table, built, by, parts.document);
        (spec, made, parts.id, parts.document)
    }

    /// What others look up in the collection's documents.
    fn known_row(&mut self, collection: &Collection, document: &mut Trie) -> Option<RowCode> {
        let known = self.known.get(&collection.name.value)?;
        let table = lookups::table(self.file, &collection.name.value, known);
        let mut columns = Vec::new();
        for known in known {
            columns.push(known.code(document, self.around, self.findings)?);
        }
        columns.push(lookups::own());
        let key = vec![columns.len() - 1];
        let filled: Vec<usize> = (0..columns.len()).collect();
        let texts: Vec<(usize, bool)> =
            filled.iter().map(|at| (*at, is_foreign(&table.columns[*at].kind))).collect();
        let shape = Shape::always(&table, &texts, false, Vec::new(), &[]);
        for (column, at) in columns.iter_mut().zip(&filled) {
            let element = table.columns[*at].kind.element.as_deref();
            if let (Take::Document { conv, .. }, Some(element)) = (&mut column.take, element) {
                conv.hold(carrier(element).oid);
            }
        }
        let record = RowFormat::shaped(&shape);
        let table_index = self.specs.len();
        self.places.insert((collection.name.value.clone(), false), table_index);
        self.specs.push(TableSpec {
            record: Arc::new(record),
            shape: Some(shape),
            ordered: false,
            serial: None,
            stands: false,
            source: collection.source.as_str().into(),
            apart: Apart::Alone,
            copy: Arc::new(RowFormat::copy(filled.len())),
            table: Arc::new(table),
            missing: vec![Missing::default(); filled.len()],
            columns: filled,
            found: None,
            claimed: false,
            owner: None,
            holder: None,
            merging: Merging::Known,
            key: key.clone(),
        });
        Some(RowCode {
            table: table_index,
            columns,
            found: key.clone(),
            key,
            claimed: false,
            parents: Vec::new(),
            made: Made::default(),
            when: None,
            rivals: Vec::new(),
            aside: true,
            history: false,
        })
    }

    /// Index of the new specification, and what the target computes.
    fn spec(
        &mut self,
        (collection, rule): (&Collection, &Table),
        table: &catalog::Table,
        built: &mut [Built],
        by: Found,
        owner: Option<usize>,
    ) -> (usize, Made) {
        let Found { key, found, claimed } = by;
        let (computed, types, made) = computed::taken(built);
        // A table of parts has the columns that are filled, and no other.
        let (apart, columns): (Apart, Vec<usize>) = match lookups::is_made(rule, self.around) {
            true => (Apart::Alone, (0..built.len()).collect()),
            false => (
                apart::of(self.file, &collection.source, rule, claimed, self.findings),
                built.iter().map(|built| built.column).collect(),
            ),
        };
        let text = |column: &usize| (*column, is_foreign(&table.columns[*column].kind));
        let texts: Vec<(usize, bool)> = columns.iter().map(text).collect();
        let shape = match lookups::is_made(rule, self.around) {
            true => Some(Shape::always(table, &texts, claimed, computed, &types)),
            false => Shape::computing(table, &texts, claimed, computed, &types),
        };
        // In a shape an array holds what carries its elements.
        for (built, column) in built.iter_mut().zip(&columns).filter(|_| shape.is_some()) {
            let element = table.columns[*column].kind.element.as_deref();
            if let (Take::Document { conv, .. } | Take::Element { conv, .. }, Some(element)) =
                (&mut built.code.take, element)
            {
                conv.hold(carrier(element).oid);
            }
        }
        let record = match &shape {
            Some(shape) => RowFormat::shaped(shape),
            None => RowFormat::record(table, &columns),
        };
        self.specs.push(TableSpec {
            record: Arc::new(record),
            shape,
            ordered: self.around.namespace.is_ordered(),
            serial: built.iter().position(|built| {
                matches!(
                    built.code.take,
                    Take::Own { form: IdForm::Number { .. } }
                        | Take::ElementId { form: IdForm::Number { .. }, .. }
                )
            }),
            stands: false,
            source: collection.source.as_str().into(),
            apart,
            copy: Arc::new(RowFormat::copy(columns.len())),
            table: Arc::new(table.clone()),
            missing: built.iter().map(|built| built.missing).collect(),
            columns,
            key,
            found,
            claimed,
            owner,
            holder: None,
            merging: Merging::None,
        });
        (self.specs.len() - 1, made)
    }

    fn find_table(&mut self, rule: &Table) -> Option<&'a catalog::Table> {
        let schema = rule.schema.as_deref().unwrap_or(&self.file.target.schema);
        let name = &rule.into.value;
        let place = rule.into.place;
        let Some(table) = self.catalog.tables.get(&(schema.to_owned(), name.clone())) else {
            let known = self.catalog.tables.keys().filter(|(theirs, _)| theirs == schema);
            let elsewhere = self.catalog.tables.keys().find(|(_, theirs)| theirs == name);
            let help = match (nearest(name, known.map(|(_, name)| name.as_str())), elsewhere) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some((other, _))) => format!("there is `{other}.{name}`"),
                (None, None) => format!("create it first: CREATE TABLE {schema}.{name} (…)"),
            };
            self.findings.error(place, format!("the target has no table `{schema}.{name}`"), help);
            return None;
        };
        if !table.is_table {
            self.findings.error(
                place,
                format!("`{schema}.{name}` is not a table"),
                "views and foreign tables take no copy",
            );
            return None;
        }
        if !table.lacks.is_empty() {
            let lacks: Vec<String> = table.lacks.iter().map(|right| table.named(right)).collect();
            let message =
                format!("the role may not write to `{schema}.{name}`: it lacks {}", lacks.join(", "));
            self.findings.error(place, message, table.grant());
        }
        if let Some(rewritten) = table.rules.first() {
            let message =
                format!("`{schema}.{name}` has the rule `{rewritten}`, which rewrites what is written to it");
            let help = format!("DROP RULE {rewritten} ON {schema}.{name}, and do with a trigger what it did");
            self.findings.error(place, message, help);
        }
        if let Some(candidates) = &rule.candidates {
            for name in std::iter::once(&candidates.near).chain(&candidates.same) {
                let _ = table::find_column(name, table, self.findings);
                let filled = rule.columns.iter().find(|column| column.name.value == name.value);
                if filled.is_some_and(|column| column.sensitive) {
                    let message =
                        format!("`{}` is sensitive, and the list of candidates shows its values", name.value);
                    self.findings.error(name.place, message, "compare another column");
                }
            }
        }
        Some(table)
    }

    /// Rows of an array are replaced for each document: another rule of the same collection for the same table would
    /// see its rows go.
    fn check_twice(&mut self, collection: &Collection) {
        for (index, rule) in collection.tables.iter().enumerate() {
            let same = |other: &&Table| other.schema == rule.schema && other.into.value == rule.into.value;
            let Some(other) = collection.tables[..index].iter().find(same) else { continue };
            let constant =
                |rule: &Table| rule.columns.iter().any(|column| matches!(column.rule.value, Rule::Const(_)));
            let apart = |rule: &Table| rule.when.is_some();
            let both = (constant(rule) && constant(other)) || (apart(rule) && apart(other));
            // Parts of rows that are merged stand apart.
            let made = |rule: &Table| lookups::is_made(rule, self.around);
            let merged = rule.merge.is_some() && other.merge.is_some();
            if (made(rule) || made(other)) && !merged {
                let line = self.findings.line(other.into.place, rule.into.place);
                let message =
                    format!("`{}` is filled by another rule of the collection, in {line}", rule.into.value);
                let help = "look-ups go with one rule for the table, or with `merge` in both";
                self.findings.error(rule.into.place, message, help);
                continue;
            }
            if !merged && (rule.each.is_some() || other.each.is_some() || !both) {
                let first = self.findings.line(other.into.place, rule.into.place);
                let message = format!(
                    "`{}` is filled twice by `{}`, first in {first}",
                    rule.into.value, collection.name.value
                );
                let help =
                    "each would take away the other's rows: use two tables, one rule, or `when` in both";
                self.findings.error(rule.into.place, message, help);
            }
        }
    }

    /// `rest` goes by whole fields: what else is beside a part that is taken stays behind.
    fn warn_of_parts(&mut self, collection: &Collection) {
        let paths = || {
            let mut paths: Vec<(&Path, crate::config::Place)> = Vec::new();
            for table in &collection.tables {
                let depth = table.each.as_ref().map_or(0, |each| each.value.depth());
                paths.extend(table.each.iter().filter_map(|each| Some((each.value.0.first()?, each.place))));
                for column in table.columns.iter().flat_map(|column| column.parts()) {
                    if let Rule::Value(value) = &column.rule.value
                        && value.path.value.up == depth
                    {
                        paths.push((&value.path.value, value.path.place));
                    }
                }
            }
            paths
        };
        let whole = |name: &str| {
            paths()
                .iter()
                .any(|(path, _)| path.names.len() == 1 && path.names[0] == name && path.each.is_none())
        };
        let mut told: Vec<&str> = Vec::new();
        for (path, place) in paths() {
            let [top, _, ..] = &path.names[..] else { continue };
            if top != "_id" && !whole(top) && !told.contains(&top.as_str()) {
                told.push(top);
                let message = format!("`rest` leaves `{top}` out, because `{path}` is taken from it");
                let help =
                    format!("what else it holds is not migrated; `{{ jsonb: {top} }}` keeps all of it");
                self.findings.warning(place, message, help);
            }
        }
    }
}

fn row_code(row: Own<'_>, parents: Vec<(usize, usize)>, rivals: Vec<usize>) -> RowCode {
    let history = row.rule.history.is_some();
    let Own { spec: table, built, key, found, claimed, when, made, .. } = row;
    let mut columns: Vec<_> = built.into_iter().map(|built| built.code).collect();
    for at in &key {
        // Unique constraints let nulls through, and then no row would be found again.
        columns[*at].required = true;
        if columns[*at].null == crate::config::NullPolicy::Keep {
            columns[*at].null = crate::config::NullPolicy::Reject;
        }
    }
    RowCode { table, columns, key, found, claimed, parents, made, when, rivals, aside: false, history }
}

/// To what the rows of an array belong.
enum Owner {
    /// A row of the document.
    Row(keys::Owner),
    /// The document itself, whose id is in this column.
    Document { at: usize },
}

/// The application's table that is written in the end.
fn written(specs: &[TableSpec], table: usize) -> &TableSpec {
    match specs[table].merging {
        Merging::Part { of } => &specs[of],
        Merging::None | Merging::Known | Merging::Holder | Merging::Whole(_) => &specs[table],
    }
}

fn same_table(spec: &TableSpec, name: &(String, String)) -> bool {
    spec.table.schema == name.0 && spec.table.name == name.1
}

/// A collection is above those whose tables its own refer to.
fn set_levels(collections: &mut [CollectionPlan], specs: &[TableSpec]) {
    let mut edges = vec![Vec::new(); collections.len()];
    for (from, collection) in collections.iter().enumerate() {
        let keys = collection.tables.iter().flat_map(|table| &written(specs, *table).table.foreign_keys);
        for key in keys {
            for (to, other) in collections.iter().enumerate() {
                let fills = other.tables.iter().any(|table| same_table(written(specs, *table), &key.table));
                if to != from && fills && !edges[from].contains(&to) {
                    edges[from].push(to);
                }
            }
        }
    }
    for (collection, level) in collections.iter_mut().zip(order::levels(&edges)) {
        collection.level = level;
    }
    for (from, edges) in edges.into_iter().enumerate() {
        let (source, level) = (&collections[from].source, collections[from].level);
        // In a cycle nobody is first.
        let first = |to: &usize| collections[*to].source != *source && collections[*to].level < level;
        let after: Vec<CollectionId> =
            edges.into_iter().filter(first).map(|to| CollectionId(to as u16)).collect();
        collections[from].after = after;
    }
}

/// Puts the specifications in the order of their references and tells the collections where theirs went.
fn in_order(
    mut specs: Vec<TableSpec>,
    collections: &mut [CollectionPlan],
    parts: &mut [Part],
    places: &mut Places,
) -> Vec<TableSpec> {
    let mut edges = vec![Vec::new(); specs.len()];
    for (from, spec) in specs.iter().enumerate() {
        for key in &spec.table.foreign_keys {
            let itself = (spec.table.schema.clone(), spec.table.name.clone());
            for (to, _) in specs.iter().enumerate().filter(|(_, other)| same_table(other, &key.table)) {
                if key.table != itself && !edges[from].contains(&to) {
                    edges[from].push(to);
                }
            }
        }
    }
    // What says which elements a document had is read before it is written.
    for (from, spec) in specs.iter().enumerate() {
        let holds = |other: &TableSpec| spec.holder.as_deref() == Some(&*table_name(other));
        edges[from].extend(specs.iter().position(|other| spec.holder.is_some() && holds(other)));
    }
    let order: Vec<usize> = order::groups(&edges).into_iter().flatten().collect();
    let mut place = vec![0; specs.len()];
    for (to, from) in order.iter().enumerate() {
        place[*from] = to;
    }
    for collection in collections {
        let Code { rows, each, holders, .. } = &mut collection.code;
        for row in rows.iter_mut().chain(each.iter_mut().map(|each| &mut each.row)) {
            row.table = place[row.table];
        }
        for holder in holders {
            holder.table = place[holder.table];
        }
        for table in &mut collection.tables {
            *table = place[*table];
        }
    }
    for part in parts {
        part.spec = place[part.spec];
    }
    for spec in places.values_mut() {
        *spec = place[*spec];
    }
    for spec in &mut specs {
        match &mut spec.merging {
            Merging::None | Merging::Known | Merging::Holder => {}
            Merging::Part { of } => *of = place[*of],
            Merging::Whole(whole) => {
                whole.parts.iter_mut().for_each(|part| *part = place[*part]);
                for lookup in &mut whole.lookups {
                    lookup.part = place[lookup.part];
                    lookup.known = place[lookup.known];
                }
            }
        }
    }
    let mut specs: Vec<Option<TableSpec>> = specs.into_iter().map(Some).collect();
    order.into_iter().filter_map(|from| specs[from].take()).collect()
}

//! Values of other documents.
//!
//! What rules look up in a collection's documents stands in a table of ours, a row a document: what is *known* of them. A table that looks
//! something up is made of parts, as rows that are merged are, with what each part wants in the place of the value; so it is made anew
//! when the other document changes, comes or goes.

use std::collections::BTreeMap;

use slackwater_connectors::postgres::target::catalog::{self, Catalog, Type};
use slackwater_connectors::postgres::target::merged::{part_type, prefix};
use slackwater_connectors::postgres::target::rows::PART;

use super::super::encode::{Conv, IdForm, Reference, Text};
use super::super::plan::{ColumnCode, Take};
use super::conversions::{Base, Surroundings, conversion};
use super::merged::is_merged;
use super::table::{Built, Columns, Origin};
use crate::config::spelling::{list, nearest};
use crate::config::{
    At, Column, Convert, Findings, InvalidPolicy, Migration, NullPolicy, Path, Policies, Rule, Table, Value,
    digest,
};

/// What a column looks up.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// In the documents of this collection.
    pub(super) of: String,
    /// They are parts of rows, and the value is a column of those; otherwise it is in what is known of them.
    pub(super) merged: bool,
    /// The column by which a document is found.
    pub(super) by: String,
    /// The column with the value.
    pub(super) take: String,
    /// What stands in the place of a null, as SQL.
    pub(super) for_null: Option<String>,
    /// Of what type is what the part wants.
    pub(super) kind: Type,
}

/// A column of what is known of a collection's documents.
pub(super) struct Known {
    pub(super) name: String,
    pub(super) kind: Type,
    value: Value,
    invalid: InvalidPolicy,
}

fn plain(oid: u32, name: &str) -> Type {
    Type {
        oid,
        name: name.into(),
        base_oid: oid,
        base_name: name.into(),
        modifier: -1,
        comparable: true,
        ..Type::default()
    }
}

fn uuid() -> Type {
    plain(2950, "uuid")
}

fn text() -> Type {
    plain(25, "text")
}

/// Rows of the table are made of parts: several documents make one, or something of them is looked up.
pub(super) fn is_made(rule: &Table, around: &Surroundings<'_>) -> bool {
    rule.merge.is_some() || rule.columns.iter().any(|column| of_column(column, around).is_some())
}

/// The collection in which a column looks something up.
fn of_column<'c>(column: &'c Column, around: &Surroundings<'_>) -> Option<&'c At<String>> {
    let Rule::Value(value) = &column.rule.value else { return None };
    match &value.convert {
        Convert::Lookup { of, .. } => Some(of),
        Convert::Ref { to, by, .. } if by.is_some() || is_merged(&to.value, around) => Some(to),
        _ => None,
    }
}

fn by_name(by: &Path, value: &Value) -> String {
    format!("by {}", &digest(&format!("{by}\0{}\0{}", value.trim, value.lower))[..20])
}

fn take_name(take: &Path, kind: &Type) -> String {
    format!("take {}", &digest(&format!("{take}\0{}", part_type(kind).name))[..20])
}

/// What has to be known of the documents of each collection.
pub(super) fn all(file: &Migration, catalog: &Catalog) -> BTreeMap<String, Vec<Known>> {
    let mut all: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    let mut add = |of: &str, known: Known| {
        let columns = all.entry(of.to_owned()).or_default();
        if columns.iter().all(|other| other.name != known.name) {
            columns.push(known);
        }
    };
    for rule in file.collections.iter().flat_map(|collection| &collection.tables) {
        let schema = rule.schema.as_deref().unwrap_or(&file.target.schema);
        let Some(table) = catalog.tables.get(&(schema.to_owned(), rule.into.value.clone())) else { continue };
        for column in &rule.columns {
            let (Some(at), Rule::Value(value)) = (table.column(&column.name.value), &column.rule.value)
            else {
                continue;
            };
            let field =
                |path: &At<Path>, convert: Convert| Value { path: path.clone(), convert, ..value.clone() };
            let by = |path: &At<Path>| Known {
                name: by_name(&path.value, value),
                kind: text(),
                value: field(path, Convert::Text),
                invalid: InvalidPolicy::Null,
            };
            match &value.convert {
                Convert::Lookup { of, by: found_by, take, .. } => {
                    let kind = part_type(&table.columns[at].kind);
                    let taken = Value { trim: false, lower: false, ..field(take, Convert::Auto) };
                    let invalid = column.policies.invalid;
                    add(
                        &of.value,
                        Known { name: take_name(&take.value, &kind), kind, value: taken, invalid },
                    );
                    found_by.iter().for_each(|path| add(&of.value, by(path)));
                }
                Convert::Ref { to, by: Some(path), .. } => add(&to.value, by(path)),
                _ => {}
            }
        }
    }
    all
}

/// The table of what is known of a collection's documents.
pub(super) fn table(file: &Migration, collection: &str, known: &[Known]) -> catalog::Table {
    let column = |name: &str, kind: &Type| catalog::Column {
        name: name.to_owned(),
        kind: kind.clone(),
        ..catalog::Column::default()
    };
    let mut columns: Vec<catalog::Column> =
        known.iter().map(|known| column(&known.name, &known.kind)).collect();
    columns.push(column(PART, &uuid()));
    catalog::Table {
        schema: "slackwater".into(),
        name: format!("{}known_{}", prefix(&file.name), &digest(collection)[..12]),
        primary_key: vec![columns.len() - 1],
        // Of these columns documents are found by.
        indexes: (0..known.len())
            .filter(|at| known[*at].name.starts_with("by "))
            .map(|at| vec![at])
            .collect(),
        columns,
        is_table: true,
        ..catalog::Table::default()
    }
}

impl Known {
    /// What fills it.
    pub(super) fn code(
        &self,
        document: &mut super::Trie,
        around: &Surroundings<'_>,
        findings: &mut Findings,
    ) -> Option<ColumnCode> {
        let place = self.value.path.place;
        let policies = Policies { invalid: self.invalid, ..Policies::NONE };
        let none = catalog::Table::default();
        let named = (&none, self.name.as_str());
        let conv = conversion(&self.value, &policies, named, &self.kind, place, around, findings)?;
        let path = &self.value.path.value;
        let take = Take::Document { slot: document.slot(&path.names), conv };
        let invalid = match self.invalid {
            // Another document's row has a default. Here there is no value.
            InvalidPolicy::Default => InvalidPolicy::Null,
            invalid => invalid,
        };
        Some(ColumnCode { invalid, ..column(&self.name, path.to_string(), take) })
    }
}

fn column(name: &str, path: String, take: Take) -> ColumnCode {
    ColumnCode {
        name: name.to_owned(),
        path,
        take,
        null: NullPolicy::Keep,
        invalid: InvalidPolicy::Reject,
        default: Vec::new(),
        empty_is_null: false,
        required: false,
    }
}

/// The document's own id, which what is known of it is found by.
pub(super) fn own() -> ColumnCode {
    let own = column(PART, "_id".to_owned(), Take::Own { form: IdForm::Uuid });
    ColumnCode { null: NullPolicy::Reject, required: true, ..own }
}

impl Columns<'_, '_> {
    /// A column that looks something up. The outer none: it does not.
    #[allow(clippy::option_option)]
    pub(super) fn looks_up(&mut self, rule: &Column, index: usize) -> Option<Option<Built>> {
        of_column(rule, self.around)?;
        Some(self.look_up(rule, index))
    }

    fn look_up(&mut self, rule: &Column, index: usize) -> Option<Built> {
        let Rule::Value(value) = &rule.rule.value else { return None };
        let target = &self.table.columns[index];
        let (of, hex, by, take) = match &value.convert {
            Convert::Lookup { of, hex, by, take } => (of, *hex, by.as_ref(), Some(take)),
            Convert::Ref { to, hex, by } => (to, *hex, by.as_ref(), None),
            _ => return None,
        };
        let names = || self.around.collections.iter().map(|known| known.name.value.as_str());
        if !names().any(|name| name == of.value) {
            let help = match nearest(&of.value, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("collections: {}", list(names())),
            };
            self.findings.error(of.place, format!("`{}` is not among the collections", of.value), help);
            return None;
        }
        let path = &value.path.value;
        if path.each.is_some() {
            let message = format!("`{path}` selects many values, and one is looked up");
            self.findings.error(value.path.place, message, "use `each` for a table of its own");
            return None;
        }
        let merged = is_merged(&of.value, self.around);
        let taken = match take {
            Some(take) => take_name(&take.value, &part_type(&target.kind)),
            None => self.id(target, of, merged)?,
        };
        if merged && (take.is_some() || by.is_some()) {
            let message =
                format!("documents of `{}` are parts of rows, and nothing else is known of them", of.value);
            let help = "refer to the row: `{ ref: field, to: collection }`, or by `identity`";
            self.findings.error(of.place, message, help);
            return None;
        }
        if let (NullPolicy::Reject, Some(place)) = (rule.policies.null, rule.policies.null_at) {
            let message = "what another document holds is not known when this one is refused or not";
            self.findings.error(place, message, "`default: …`, or leave `null` out");
        }
        let conv = match by {
            Some(_) => Conv::Text(Text { trim: value.trim, lower: value.lower, ..Text::default() }),
            None => Conv::Ref(Reference {
                namespace: self.around.namespace,
                collection: of.value.clone(),
                hex,
                form: IdForm::Uuid,
            }),
        };
        let take_from = self.value(path, conv);
        let invalid = match rule.policies.invalid {
            InvalidPolicy::Null | InvalidPolicy::Default => InvalidPolicy::Null,
            _ => InvalidPolicy::Reject,
        };
        let code = ColumnCode {
            invalid,
            empty_is_null: value.empty_is_null,
            ..column(&target.name, path.to_string(), take_from)
        };
        self.default(rule, target)?;
        let wanted = Wanted {
            of: of.value.clone(),
            merged,
            by: by.map_or_else(|| PART.to_owned(), |by| by_name(&by.value, value)),
            take: taken,
            for_null: self.default_sql(&rule.policies, target),
            kind: if by.is_some() { text() } else { uuid() },
        };
        let missing = self.missing(&rule.policies, index, target);
        let (place, origin) = (rule.name.place, Origin::LookedUp);
        Some(Built {
            column: index,
            place,
            origin,
            missing,
            code,
            expression: None,
            wanted: Some(Box::new(wanted)),
        })
    }

    /// Where the id of a document's row is kept, if the column can hold it.
    fn id(&mut self, target: &catalog::Column, of: &At<String>, merged: bool) -> Option<String> {
        let base = Base::of(&target.kind);
        let place = of.place;
        if !merged {
            let fits = base == Base::Uuid || matches!(base, Base::Text { .. });
            if !fits {
                let message = format!(
                    "`{}` is {}, and `ref` with `by` finds rows whose id is a UUID only",
                    target.name, target.kind.name
                );
                let help = "`ref` without `by` finds numbers of sequences, by the `_id`; a number that is a field of the document is taken by `lookup`";
                self.findings.error(place, message, help);
            }
            return fits.then(|| PART.to_owned());
        }
        let found = self.around.collections.iter().find(|found| found.name.value == of.value);
        let own = found.and_then(|found| found.tables.iter().find(|rule| rule.each.is_none()))?;
        let schema = own.schema.as_deref().unwrap_or(self.around.schema);
        let table = self.around.catalog.tables.get(&(schema.to_owned(), own.into.value.clone()))?;
        let key: Vec<usize> = match own.key.is_empty() {
            true => table.primary_key.clone(),
            false => own.key.iter().filter_map(|name| table.column(&name.value)).collect(),
        };
        let [key] = key[..] else {
            let message = format!("rows of `{}` are found by several columns", table.name);
            self.findings.error(place, message, "refer by `identity`, or give the table a key of one column");
            return None;
        };
        let kind = &table.columns[key].kind;
        if kind.base_oid != target.kind.base_oid {
            let message = format!(
                "`{}` is {}, `{}.{}` is {}",
                target.name, target.kind.name, table.name, table.columns[key].name, kind.name
            );
            self.findings.error(place, message, "give both the same type");
            return None;
        }
        Some(table.columns[key].name.clone())
    }
}

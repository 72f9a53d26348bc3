//! Rows that several documents make together: what each rule gives is kept as a part, and the row is made of all parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slackwater_connectors::postgres::target::catalog::{self, Catalog, Type};
use slackwater_connectors::postgres::target::merged::{part_type, prefix};
use slackwater_connectors::postgres::target::rows::{
    Apart, DOCUMENT, How, LookUp, Merging, Missing, ORDER, PART, RowFormat, TableSpec, Whole, wanted,
};
use slackwater_connectors::postgres::target::shape::Shape;

use super::super::encode::IdForm;
use super::super::plan::{ById, ColumnCode, Take};
use super::Places;
use super::conversions::{Base, Surroundings, is_foreign};
use super::lookups::Wanted;
use super::table::{Built, Origin};
use crate::config::spelling::{list, nearest};
use crate::config::{
    At, Collection, Convert, Findings, InvalidPolicy, Merge, Migration, NullPolicy, Place, Rule, Table,
    Value, digest,
};

/// A rule that gives parts of rows, compiled.
#[derive(Clone, Debug)]
pub(in crate::mapping) struct Part {
    /// Index of its table of parts among the specifications.
    pub(in crate::mapping) spec: usize,
    /// Schema and table of the rows.
    table: (String, String),
    /// The key, as columns of that table.
    key: Vec<usize>,
    columns: Vec<Given>,
    /// Of what type documents are ordered by.
    order: Option<Type>,
    /// None where each row has one part.
    merge: Option<Merge>,
    /// The key is made of the document's id, and of nothing else.
    by_id: Option<IdForm>,
    place: Place,
}

/// A column that a rule gives values for.
#[derive(Clone, Debug)]
struct Given {
    column: usize,
    how: How,
    missing: Missing,
    wanted: Option<Wanted>,
    /// It is what the documents of a row have in common.
    common: bool,
    place: Place,
}

/// What one rule gives: a table of ours, and what fills it.
pub(super) struct Parts {
    pub(super) table: catalog::Table,
    /// The column with the part's own id, among those that are filled.
    pub(super) id: usize,
    /// The column with the document's id, of parts that elements make.
    pub(super) document: Option<usize>,
}

/// A column is what all documents with a text have in common, and the rule does not say of which table: of its own.
pub(super) fn of_own_table(value: &Value, table: &catalog::Table) -> Option<Value> {
    let Convert::Identity { of: None } = value.convert else { return None };
    let of = At::new(format!("{}.{}", table.schema, table.name), value.path.place);
    Some(Value { convert: Convert::Identity { of: Some(of) }, ..value.clone() })
}

/// Schema and table of rows that are merged, as they are named in a rule `identity`.
pub(super) fn identified(
    of: &At<String>,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<String> {
    let full = match of.value.contains('.') {
        true => of.value.clone(),
        false => format!("{}.{}", around.schema, of.value),
    };
    let rules = || around.collections.iter().flat_map(|collection| &collection.tables);
    let name =
        |rule: &Table| format!("{}.{}", rule.schema.as_deref().unwrap_or(around.schema), rule.into.value);
    let mut found = rules().filter(|rule| name(rule) == full).peekable();
    if found.peek().is_none() {
        let names: BTreeSet<String> = rules().filter(|rule| rule.merge.is_some()).map(name).collect();
        let help = match nearest(&full, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "no table of the file has `merge`".to_owned(),
            None => format!("merged are {}", list(names.iter().map(String::as_str))),
        };
        findings.error(of.place, format!("nothing fills `{full}`"), help);
        return None;
    }
    if !found.any(|rule| rule.merge.is_some()) {
        let help = "add `merge: any` to its rules, or use `uuid` there and `ref` here";
        findings.error(of.place, format!("each row of `{full}` is of one document"), help);
        return None;
    }
    Some(full)
}

/// Documents of this collection have no row of their own.
pub(super) fn is_merged(collection: &str, around: &Surroundings<'_>) -> bool {
    let found = around.collections.iter().find(|found| found.name.value == collection);
    let own = found.and_then(|found| found.tables.iter().find(|rule| rule.each.is_none()));
    own.is_some_and(|rule| rule.merge.is_some())
}

/// Turns what fills the application's table into what fills a table of parts. `key`: of the row, among those that are filled.
pub(super) fn parts(
    file: &Migration,
    collection: &Collection,
    rule: &Table,
    table: &catalog::Table,
    built: &mut Vec<Built>,
    key: &[usize],
    order: Option<(Type, ColumnCode)>,
) -> Parts {
    for at in key {
        let code = &mut built[*at].code;
        code.required = true;
        if code.null == NullPolicy::Keep {
            code.null = NullPolicy::Reject;
        }
    }
    let column = |name: &str, kind: &Type| catalog::Column {
        name: name.to_owned(),
        kind: part_type(kind),
        ..catalog::Column::default()
    };
    let mut columns: Vec<catalog::Column> = built
        .iter()
        .map(|built| (&table.columns[built.column], &built.wanted))
        .map(|(known, looks_up)| match looks_up {
            Some(looks_up) => column(&wanted(&known.name), &looks_up.kind),
            None => column(&known.name, &known.kind),
        })
        .collect();
    let place = rule.into.place;
    let mut add = |name: &str, kind: &Type, code: ColumnCode| {
        columns.push(column(name, kind));
        // Behind all columns of the application's table: nothing there is called so.
        let beyond = table.columns.len() + columns.len();
        let missing = Missing::default();
        let origin = Origin::Other;
        built.push(Built { column: beyond, place, origin, missing, code, expression: None, wanted: None });
        built.len() - 1
    };
    if let Some((kind, code)) = order {
        add(ORDER, &kind, code);
    }
    let uuid =
        Type { oid: 2950, base_oid: 2950, name: "uuid".into(), base_name: "uuid".into(), ..Type::default() };
    let made = |name: &str, take: Take| ColumnCode {
        name: name.to_owned(),
        path: "_id".to_owned(),
        take,
        null: NullPolicy::Reject,
        invalid: InvalidPolicy::Reject,
        default: Vec::new(),
        empty_is_null: false,
        required: true,
    };
    let own = || Take::Own { form: IdForm::Uuid };
    let document = rule.each.as_ref().map(|_| add(DOCUMENT, &uuid, made(DOCUMENT, own())));
    let part = match document {
        Some(_) => {
            let depth = rule.each.as_ref().map_or(0, |each| each.value.depth());
            Take::ElementId { by: vec![ById::Index; depth].into(), form: IdForm::Uuid }
        }
        None => own(),
    };
    let id = add(PART, &uuid, made(PART, part));
    let width = columns.len();
    let name = name(file, collection, rule, table);
    let table = catalog::Table {
        schema: "slackwater".into(),
        name,
        columns,
        primary_key: vec![width - 1],
        is_table: true,
        ..catalog::Table::default()
    };
    Parts { table, id, document }
}

/// A name that no other rule of any migration has, and that stays while the rule does.
fn name(file: &Migration, collection: &Collection, rule: &Table, table: &catalog::Table) -> String {
    let about = |other: &Table| {
        let each = other.each.as_ref().map(|each| each.value.to_string());
        (other.schema.clone(), other.into.value.clone(), each)
    };
    let before = collection.tables.iter().take_while(|other| !std::ptr::eq(*other, rule));
    let number = before.filter(|other| about(other) == about(rule)).count();
    let (_, _, each) = about(rule);
    let each = each.unwrap_or_default();
    let text = format!("{}\0{}.{}\0{each}\0{number}", collection.name.value, table.schema, table.name);
    format!("{}{}", prefix(&file.name), &digest(&text)[..12])
}

impl Part {
    pub(super) fn new(
        (spec, rule): (usize, &Table),
        table: &catalog::Table,
        (built, key): (&[Built], &[usize]),
        order: Option<Type>,
        findings: &mut Findings,
    ) -> Self {
        let identities = rule.columns.iter().filter_map(|column| match &column.rule.value {
            Rule::Value(value) if matches!(value.convert, Convert::Identity { .. }) => Some(value),
            _ => None,
        });
        let identities: Vec<&Value> = identities.collect();
        let given = |built: &Built| {
            let column = table.columns.get(built.column)?;
            let rule = rule.columns.iter().find(|rule| rule.name.value == column.name)?;
            let merge = rule.merge.as_ref();
            Some(Given {
                column: built.column,
                how: merge.map(|how| how.value).unwrap_or_default(),
                missing: built.missing,
                wanted: built.wanted.as_deref().cloned(),
                common: identities.iter().any(|identity| is_same(identity, &rule.rule.value)),
                place: merge.map_or(rule.name.place, |how| how.place),
            })
        };
        let columns: Vec<Given> = built.iter().filter_map(given).collect();
        let by_id = match (key, &rule.each) {
            (&[at], None) => match &built[at].code.take {
                Take::Own { form } => Some(*form),
                _ => None,
            },
            _ => None,
        };
        let key: Vec<usize> = key.iter().map(|at| built[*at].column).collect();
        for given in &columns {
            check_how(given, key.contains(&given.column), &table.columns[given.column], findings);
        }
        let merge = rule.merge.as_ref().map(|merge| merge.value);
        let table = (table.schema.clone(), table.name.clone());
        Self { spec, table, key, columns, order, merge, by_id, place: rule.into.place }
    }
}

impl Part {
    /// The same with another number of its table.
    pub(super) fn at(self, spec: usize) -> Self {
        Self { spec, ..self }
    }
}

/// The text that the identity is made of.
fn is_same(identity: &Value, rule: &Rule) -> bool {
    let Rule::Value(value) = rule else { return false };
    let options = |value: &Value| (value.path.value.clone(), value.trim, value.lower);
    matches!(value.convert, Convert::Text | Convert::Auto) && options(identity) == options(value)
}

/// The column's type can be merged so.
fn check_how(given: &Given, in_key: bool, column: &catalog::Column, findings: &mut Findings) {
    const MONEY: u32 = 790;
    const INTERVAL: u32 = 1186;
    let (kind, name) = (&column.kind, &column.name);
    let base = Base::of(kind);
    let wanted = match given.how {
        How::Last | How::First => return,
        _ if in_key => {
            let message = format!("`{name}` is part of the key, and the same in all documents of a row");
            findings.error(given.place, message, "take `merge` out");
            return;
        }
        How::Longest if matches!(base, Base::Text { .. }) => return,
        How::Longest => "text",
        How::Min | How::Max if kind.comparable => return,
        How::Min | How::Max => "a type that can be compared",
        How::Sum
            if matches!(base, Base::Integer(_) | Base::Float4 | Base::Float8 | Base::Numeric)
                || matches!(kind.base_oid, MONEY | INTERVAL) =>
        {
            return;
        }
        How::Sum => "a number",
        How::Count if matches!(base, Base::Integer(_) | Base::Numeric) => return,
        How::Count => "integer or bigint",
        How::Union if kind.element.as_ref().is_some_and(|element| element.comparable) => return,
        How::Union => "an array",
        How::Any | How::All if base == Base::Boolean => return,
        How::Any | How::All => "boolean",
    };
    let message = format!("`{name}` is {}, and cannot be merged so", kind.name);
    findings.error(given.place, message, format!("give the column {wanted}, or take another `merge`"));
}

/// The specifications of the rows that these parts make. What does not fit together goes to the findings.
pub(super) fn wholes(
    file: &Migration,
    catalog: &Catalog,
    parts: &[Part],
    specs: &[Option<&TableSpec>],
    places: &Places,
    findings: &mut Findings,
) -> Vec<TableSpec> {
    let mut by_table: BTreeMap<&(String, String), Vec<&Part>> = BTreeMap::new();
    for part in parts {
        by_table.entry(&part.table).or_default().push(part);
    }
    let mut wholes = Vec::new();
    for (name, parts) in by_table {
        let Some(table) = catalog.tables.get(name) else { continue };
        if agree(file, table, &parts, findings) {
            wholes.push(whole(table, &parts, specs, places));
        }
    }
    wholes
}

fn agree(file: &Migration, table: &catalog::Table, parts: &[&Part], findings: &mut Findings) -> bool {
    let rules = file.collections.iter().flat_map(|collection| &collection.tables);
    let mut fine = true;
    for rule in rules {
        let schema = rule.schema.as_deref().unwrap_or(&file.target.schema);
        let merged = parts.iter().any(|part| part.merge.is_some());
        if merged && rule.into.value == table.name && schema == table.schema && rule.merge.is_none() {
            let message = format!("rows of `{}` are merged by another rule, and not by this one", table.name);
            findings.error(rule.into.place, message, "add `merge` here as well");
            fine = false;
        }
    }
    let first = parts[0];
    let place = |part: &Part, findings: &Findings| findings.line(first.place, part.place);
    let key: BTreeSet<usize> = first.key.iter().copied().collect();
    for part in &parts[1..] {
        if part.key.iter().copied().collect::<BTreeSet<_>>() != key {
            let message = format!(
                "the rules for `{}` have different keys, the first in {}",
                table.name,
                place(part, findings)
            );
            findings.error(part.place, message, "give both the same `key`");
            fine = false;
        }
        if part.merge != first.merge {
            let message = format!(
                "the rules for `{}` say different words for `merge`, the first in {}",
                table.name,
                place(part, findings)
            );
            findings.error(part.place, message, "write the same in both");
            fine = false;
        }
        if let (Some(one), Some(other)) = (&first.order, &part.order)
            && one.oid != other.oid
        {
            let message = format!(
                "`{}` is ordered by {}, and by {} in {}",
                table.name,
                other.name,
                one.name,
                place(part, findings)
            );
            findings.error(part.place, message, "order all documents of a row by values of one type");
            fine = false;
        }
        for given in &part.columns {
            let others = parts.iter().take_while(|other| !std::ptr::eq(**other, *part));
            let mut others =
                others.flat_map(|other| &other.columns).filter(|other| other.column == given.column);
            if let Some(other) = others.find(|other| other.how != given.how) {
                let name = &table.columns[given.column].name;
                let line = findings.line(other.place, given.place);
                let message = format!("`{name}` is merged in another way in {line}");
                findings.error(given.place, message, "say the same `merge` in all rules for the table");
                fine = false;
            }
        }
    }
    if first.merge == Some(Merge::All) && parts.len() == 1 {
        findings.error(first.place, "`merge: all` needs several rules for the table", "`merge: any`");
        fine = false;
    }
    let filled = |column: usize| {
        parts.iter().filter(|part| part.columns.iter().any(|given| given.column == column)).count()
    };
    for (at, column) in table.columns.iter().enumerate() {
        let free = column.has_default || column.generated || column.identity_always;
        if !column.not_null || free || filled(at) == parts.len() {
            continue;
        }
        let name = &column.name;
        if filled(at) == 0 {
            let message =
                format!("`{}.{name}` is NOT NULL, has no default, and nothing fills it", table.name);
            findings.error(first.place, message, format!("add `{name}: …` under `columns`"));
            fine = false;
        } else if first.merge == Some(Merge::Any) {
            let lacks = parts.iter().find(|part| part.columns.iter().all(|given| given.column != at));
            let message = format!("`{}.{name}` is NOT NULL, and this rule does not fill it", table.name);
            let help = "a document whose row nobody else gives a value for is refused";
            findings.warning(lacks.map_or(first.place, |part| part.place), message, help);
        }
    }
    // Rows with one part have nothing to choose.
    let ordered = first.merge.is_none() || parts.iter().any(|part| part.order.is_some());
    let chosen = parts.iter().flat_map(|part| &part.columns).find(|given| {
        matches!(given.how, How::Last | How::First) && !key.contains(&given.column) && !given.common
    });
    if let Some(given) = chosen.filter(|_| !ordered) {
        let name = &table.columns[given.column].name;
        let message = format!("nothing says which document is the last one, so `{name}` is of any of them");
        let help = "add `order: { timestamp: updatedAt }` to the table, or another `merge` to the column";
        findings.warning(given.place, message, help);
    }
    fine
}

fn whole(
    table: &catalog::Table,
    parts: &[&Part],
    specs: &[Option<&TableSpec>],
    places: &Places,
) -> TableSpec {
    let mut given: BTreeMap<usize, &Given> = BTreeMap::new();
    for one in parts.iter().flat_map(|part| &part.columns) {
        given.entry(one.column).or_insert(one);
    }
    let columns: Vec<usize> = given.keys().copied().collect();
    let text = |column: &usize| (*column, is_foreign(&table.columns[*column].kind));
    let shape = Shape::of(table, &columns.iter().map(text).collect::<Vec<_>>(), false);
    let record = match &shape {
        Some(shape) => RowFormat::shaped(shape),
        None => RowFormat::record(table, &columns),
    };
    let key = parts[0].key.iter().filter_map(|column| columns.iter().position(|known| known == column));
    let place = |column: usize| columns.iter().position(|known| *known == column).unwrap_or_default();
    let lookup = |part: &Part, given: &Given| {
        let looks_up = given.wanted.as_ref()?;
        let known = places.get(&(looks_up.of.clone(), looks_up.merged)).copied()?;
        Some(LookUp {
            column: place(given.column),
            part: part.spec,
            wanted: wanted(&table.columns[given.column].name),
            known,
            by: looks_up.by.clone(),
            take: looks_up.take.clone(),
            for_null: looks_up.for_null.clone(),
        })
    };
    let lookups: Vec<LookUp> =
        parts.iter().flat_map(|part| part.columns.iter().filter_map(|given| lookup(part, given))).collect();
    // As long as the other document is not there, neither is the row.
    let all = parts.iter().flat_map(|part| &part.columns);
    let not_null = all.filter(|given| table.columns[given.column].not_null);
    let mut required: Vec<(usize, String)> =
        not_null.filter_map(|given| Some((place(given.column), given.wanted.as_ref()?.of.clone()))).collect();
    required.sort_unstable();
    required.dedup_by_key(|(column, _)| *column);
    // Of rows with one part nothing has to be chosen.
    let by_id = match parts {
        [part] if part.merge.is_none() => part.by_id,
        _ => None,
    };
    let merging = Whole {
        single: by_id.is_some(),
        by_part: by_id.is_some_and(|form| matches!(form, IdForm::Uuid)),
        parts: parts.iter().map(|part| part.spec).collect(),
        how: given.values().map(|given| given.how).collect(),
        all: parts[0].merge == Some(Merge::All),
        lookups,
        required,
    };
    let feeds = || merging.parts.iter().map(|part| specs.get(*part).copied().flatten());
    TableSpec {
        record: Arc::new(record),
        copy: Arc::new(RowFormat::copy(columns.len())),
        table: Arc::new(table.clone()),
        missing: given.values().map(|given| given.missing).collect(),
        shape,
        ordered: false,
        serial: None,
        stands: feeds().all(|spec| spec.is_none_or(|spec| spec.stands)),
        source: "".into(),
        apart: Apart::Alone,
        key: key.collect(),
        columns,
        found: None,
        claimed: false,
        owner: None,
        holder: None,
        merging: Merging::Whole(merging),
    }
}

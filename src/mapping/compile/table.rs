//! One table of one collection: its columns, checked and compiled.

use slackwater_connectors::postgres::target::catalog::{self, OnDelete, Type};
use slackwater_connectors::postgres::target::rows::Missing;

use super::super::encode::{Conv, IdForm, Json};
use super::super::plan::{ById, ColumnCode, Take};
use super::super::trie::Trie;
use super::conversions::{self, Base, Surroundings};
use super::lookups::Wanted;
use super::{history, merged, serial};
use crate::config::spelling::{list, nearest};
use crate::config::{
    At, By, ChangeOf, Column, Convert, Findings, InvalidPolicy, Levels, NullPolicy, Path, Place, Policies,
    Rule, Table,
};

/// What a column is made of, as far as keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The hash of the document's id.
    Own,
    /// A value of the id; `whole`: the id itself, not a part; `text`: as text.
    Id {
        whole: bool,
        text: bool,
    },
    Const,
    ElementId,
    /// Which of the document's rows, and the index into its mapped columns.
    Parent(usize, usize),
    /// The same of the rows of elements that enclose this one.
    Above(usize, usize),
    /// The target makes it of the inputs: nothing is known of it here.
    Computed,
    /// It is in another document.
    LookedUp,
    Other,
}

/// A compiled column.
pub(super) struct Built {
    /// Index into the table's columns.
    pub(super) column: usize,
    pub(super) place: Place,
    pub(super) origin: Origin,
    /// What becomes of the row if what the column refers to is not there.
    pub(super) missing: Missing,
    pub(super) code: ColumnCode,
    /// Where the target computes it.
    pub(super) expression: Option<Expression>,
    /// Where it is looked up; `code` is for what is looked for.
    pub(super) wanted: Option<Box<Wanted>>,
}

/// An expression, and its inputs.
pub(super) struct Expression {
    pub(super) sql: String,
    /// Each as if it were a column: what the expression calls it, what it is, and how it is written.
    pub(super) inputs: Vec<(Column, Type, ColumnCode)>,
    /// What stands in the place of a null, as SQL.
    pub(super) for_null: Option<String>,
    /// What stands there where nothing can be computed, as SQL.
    pub(super) otherwise: String,
}

/// A row that rows of elements may belong to, as far as they need it.
#[derive(Clone, Copy)]
pub(super) struct First<'a> {
    pub(super) rule: &'a Table,
    pub(super) table: &'a catalog::Table,
    pub(super) built: &'a [Built],
}

impl<'a> First<'a> {
    pub(super) fn of(row: &'a super::Own<'_>) -> Self {
        Self { rule: row.rule, table: row.table, built: &row.built }
    }
}

pub(super) struct Columns<'a, 'f> {
    pub(super) rule: &'a Table,
    pub(super) table: &'a catalog::Table,
    pub(super) around: &'a Surroundings<'a>,
    pub(super) document: &'a mut Trie,
    /// What is read in elements, the innermost last.
    pub(super) levels: &'a mut [Trie],
    /// The rows that the document has, in the order of the file.
    pub(super) rows: Vec<First<'a>>,
    /// The rows that its elements have so far.
    pub(super) elements: Vec<First<'a>>,
    /// A table of the collection could not be read; that has been reported.
    pub(super) incomplete: bool,
    pub(super) findings: &'f mut Findings,
}

/// The column of this name, or a complaint.
pub(super) fn find_column(
    name: &At<String>,
    table: &catalog::Table,
    findings: &mut Findings,
) -> Option<usize> {
    let found = table.column(&name.value);
    if found.is_none() {
        let names = || table.columns.iter().map(|column| column.name.as_str());
        let help = match nearest(&name.value, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("columns: {}", list(names())),
        };
        findings.error(name.place, format!("`{}` has no column `{}`", table.name, name.value), help);
    }
    found
}

impl Columns<'_, '_> {
    /// All columns, in the order of the table.
    pub(super) fn build(mut self) -> Vec<Built> {
        let rule = self.rule;
        let mut built: Vec<Built> = rule.columns.iter().filter_map(|column| self.column(column)).collect();
        built.extend(self.handed_out());
        built.sort_by_key(|built| built.column);
        for (index, column) in self.table.columns.iter().enumerate() {
            let filled = rule.names(&column.name) || self.is_meant(&column.name);
            let free = column.has_default || column.generated || column.identity_always;
            // What is missing in the key is said where the key is looked at.
            let in_key = rule.key.is_empty() && self.table.primary_key.contains(&index);
            // Of rows that are merged another rule may fill it.
            let alone = rule.merge.is_none();
            if alone && column.not_null && !free && !filled && !in_key {
                let name = &column.name;
                let message =
                    format!("`{}.{name}` is NOT NULL, has no default, and nothing fills it", self.table.name);
                self.findings.error(rule.into.place, message, format!("add `{name}: …` under `columns`"));
            }
        }
        built
    }

    /// A rule names a column that is not there, and this one is what it looks like. That has been reported.
    fn is_meant(&self, column: &str) -> bool {
        let names = || self.table.columns.iter().map(|column| column.name.as_str());
        let wrong = self.rule.columns.iter().filter(|rule| self.table.column(&rule.name.value).is_none());
        wrong.into_iter().any(|rule| nearest(&rule.name.value, names()) == Some(column))
    }

    /// The key that nothing fills, because the database hands it out.
    fn handed_out(&mut self) -> Option<Built> {
        let index = serial::unstated(self.rule, self.table)?;
        let place = self.rule.into.place;
        let name = At::new(self.table.columns[index].name.clone(), place);
        let rule = At::new(Rule::Own { serial: true }, place);
        self.column(&Column {
            name,
            rule,
            policies: Policies::NONE,
            sensitive: false,
            merge: None,
            travels: None,
        })
    }

    fn column(&mut self, rule: &Column) -> Option<Built> {
        let index = find_column(&rule.name, self.table, self.findings)?;
        let column = &self.table.columns[index];
        let name = &column.name;
        if column.generated {
            let message = format!("`{name}` is generated by the database and cannot be written");
            self.findings.error(rule.name.place, message, "take the rule out");
            return None;
        }
        if let Rule::Sql(sql) = &rule.rule.value {
            return self.computed(rule, sql, index);
        }
        if let Some(looked_up) = self.looks_up(rule, index) {
            return looked_up;
        }
        let (take, origin, path) = self.take(rule, column)?;
        let default = self.default(rule, column)?;
        let required = column.not_null;
        let empty_is_null = matches!(&rule.rule.value, Rule::Value(value) if value.empty_is_null);
        let null = self.null_policy(&rule.policies, column);
        let missing = self.missing(&rule.policies, index, column);
        self.check_invalid(&rule.policies, column);
        if let Rule::Value(value) = &rule.rule.value
            && let Convert::Enum { unknown: crate::config::Unknown::Null, .. } = value.convert
            && column.not_null
        {
            let message = format!("`{name}` may not be null, so unknown labels cannot become null");
            self.findings.error(
                rule.rule.place,
                message,
                "`unknown: reject`, or `unknown: { default: label }`",
            );
        }
        let code = ColumnCode {
            name: name.clone(),
            path,
            take,
            null,
            invalid: rule.policies.invalid,
            default,
            empty_is_null,
            required,
        };
        let place = rule.name.place;
        Some(Built { column: index, place, origin, missing, code, expression: None, wanted: None })
    }

    pub(super) fn missing(&mut self, policies: &Policies, index: usize, column: &catalog::Column) -> Missing {
        let mut keys = self.table.foreign_keys.iter().filter(|key| key.columns.contains(&index)).peekable();
        let refers = keys.peek().is_some();
        let cascades = keys.any(|key| key.on_delete != OnDelete::Refuse);
        let Some(place) = policies.missing_at else {
            // A word for the whole file is for the columns that it fits.
            return match policies.missing {
                Missing::Null if column.not_null => Missing::Wait,
                Missing::Reject if cascades => Missing::Wait,
                missing => missing,
            };
        };
        let name = &column.name;
        if !refers {
            let message = format!("`{name}` has no foreign key, so nothing can be missing");
            self.findings.error(place, message, "take `missing` out, or add the foreign key to the table");
        } else if policies.missing == Missing::Null && column.not_null {
            let message = format!("`{name}` may not be null, so it cannot be null until the other row comes");
            self.findings.error(place, message, "`missing: wait` or `missing: reject`");
        } else if policies.missing == Missing::Reject && cascades {
            let message = format!(
                "when the other row is deleted, the foreign key of `{name}` deletes or changes this one, and nothing would be rejected"
            );
            self.findings.error(place, message, "`missing: wait`, or a foreign key without ON DELETE");
        }
        policies.missing
    }

    pub(super) fn null_policy(&mut self, policies: &Policies, column: &catalog::Column) -> NullPolicy {
        if policies.null == NullPolicy::Keep && column.not_null {
            if let Some(place) = policies.null_at {
                let message = format!("`{}` may not be null, so nulls cannot be kept", column.name);
                self.findings.error(place, message, "`null: reject`, or `default: …`");
            }
            return NullPolicy::Reject;
        }
        policies.null
    }

    pub(super) fn check_invalid(&mut self, policies: &Policies, column: &catalog::Column) {
        if policies.invalid == InvalidPolicy::Null
            && column.not_null
            && let Some(place) = policies.invalid_at
        {
            let message = format!("`{}` may not be null, so invalid values cannot become null", column.name);
            self.findings.error(place, message, "`invalid: reject`, or `invalid: default` with `default: …`");
        }
    }

    pub(super) fn default(&mut self, rule: &Column, column: &catalog::Column) -> Option<Vec<u8>> {
        let Some(default) = &rule.policies.default else { return Some(Vec::new()) };
        if default.value.is_null() && column.not_null {
            let message = format!("`{}` may not be null", column.name);
            self.findings.error(default.place, message, "give another default");
            return None;
        }
        self.constant(default, column)
    }

    pub(super) fn constant(
        &mut self,
        scalar: &At<crate::config::Scalar>,
        column: &catalog::Column,
    ) -> Option<Vec<u8>> {
        match conversions::constant(&scalar.value, &column.kind) {
            Ok(field) => Some(field),
            Err(message) => {
                let labels = column.kind.enum_labels.as_deref().unwrap_or_default();
                let help = match labels.is_empty() {
                    true => format!("write a value that {} takes", column.kind.name),
                    false => format!("labels: {}", list(labels.iter().map(String::as_str))),
                };
                self.findings.error(scalar.place, message, help);
                None
            }
        }
    }

    pub(super) fn take(&mut self, rule: &Column, column: &catalog::Column) -> Option<(Take, Origin, String)> {
        let (name, place) = (&column.name, rule.rule.place);
        let base = Base::of(&column.kind);
        let refuse = |findings: &mut Findings, word: &str, wanted: &str| {
            let message = format!("`{word}` cannot fill `{name}`, which is {}", column.kind.name);
            findings.error(place, message, format!("give the column the type {wanted}"));
        };
        let form = match base {
            Base::Uuid => Some(IdForm::Uuid),
            Base::Text { limit, pad: false } if limit.is_none_or(|limit| limit >= 36) => Some(IdForm::Text),
            _ => None,
        };
        let number = || match base {
            Base::Integer(bytes) => {
                let series = serial::number(self.around.series, &self.table.schema, &self.table.name)?;
                Some(IdForm::Number { series, bytes })
            }
            _ => None,
        };
        match &rule.rule.value {
            Rule::Own { serial: true } | Rule::Element { serial: true, .. }
                if number().is_none() || serial::next(column).is_none() =>
            {
                let message = format!("`serial` cannot fill `{name}`, which has no sequence");
                let help =
                    "make it an identity: ALTER TABLE … ALTER COLUMN … ADD GENERATED BY DEFAULT AS IDENTITY";
                self.findings.error(place, message, help);
                None
            }
            Rule::Own { serial: true } | Rule::Element { serial: true, .. } if column.cycles => {
                let message =
                    format!("the sequence of `{name}` is CYCLE: it gives numbers again that rows have");
                self.findings.error(place, message, "ALTER SEQUENCE … NO CYCLE");
                None
            }
            Rule::Own { serial } => match if *serial { number() } else { form } {
                Some(form) => {
                    // Read from the event's key, but read: `rest` must not bring it again.
                    self.document.slot(&["_id".to_owned()]);
                    Some((Take::Own { form }, Origin::Own, "_id".into()))
                }
                None => {
                    refuse(self.findings, "uuid", "uuid");
                    None
                }
            },
            Rule::Element { by, serial } => {
                let Some(form) = (if *serial { number() } else { form }) else {
                    refuse(self.findings, "uuid", "uuid");
                    return None;
                };
                let (by, path) = self.told_by(by);
                Some((Take::ElementId { by, form }, Origin::ElementId, path))
            }
            Rule::Parent(parent) => self.parent(parent, column),
            Rule::Rest => match base {
                Base::Json { binary } => {
                    let json = Json { binary, quote: true };
                    Some((Take::Rest(json), Origin::Other, String::new()))
                }
                _ => {
                    refuse(self.findings, "rest", "jsonb");
                    None
                }
            },
            Rule::Const(scalar) => {
                if scalar.value.is_null() && column.not_null {
                    self.findings.error(scalar.place, format!("`{name}` may not be null"), "give it a value");
                    return None;
                }
                let field = self.constant(scalar, column)?;
                Some((Take::Const(field), Origin::Const, String::new()))
            }
            Rule::Index { from } => match base {
                Base::Integer(bytes) => {
                    let conv = Conv::Integer { bytes };
                    Some((Take::Index { from: *from, conv }, Origin::Other, "index".into()))
                }
                _ => {
                    refuse(self.findings, "index", "integer");
                    None
                }
            },
            Rule::Key { up } => {
                let levels = self.rule.each.iter().flat_map(|each| &each.value.0);
                if !levels.rev().nth(*up).is_some_and(|level| level.fields) {
                    let help = "`each: prices{}` goes through the fields of an object; the place in an array is `index`";
                    self.findings.error(place, "elements of an array have no names", help);
                    return None;
                }
                let conv = conversions::of_text(&column.kind);
                Some((Take::Name { up: *up, conv }, Origin::Other, "key".into()))
            }
            // It has a way of its own.
            Rule::Sql(_) => None,
            Rule::Change(of) => self.change(*of, column, place, form),
            Rule::Value(value) => {
                let own = merged::of_own_table(value, self.table);
                let conv = conversions::conversion(
                    own.as_ref().unwrap_or(value),
                    &rule.policies,
                    (self.table, name),
                    &column.kind,
                    place,
                    self.around,
                    self.findings,
                )?;
                let path = &value.path.value;
                let text = path.to_string();
                if path.up < self.levels.len() {
                    return Some((self.value(path, conv), Origin::Other, text));
                }
                let from_id = path.names.first().is_some_and(|name| name == "_id");
                let whole = path.names.len() == 1;
                if from_id && whole && base == Base::Uuid && matches!(value.convert, Convert::Auto) {
                    let message = format!("`{name}` takes `_id` as it is, which must then be a UUID");
                    self.findings.warning(
                        value.path.place,
                        message,
                        "an ObjectId becomes a UUID by `{ uuid: _id }`",
                    );
                }
                let origin = match from_id {
                    true => Origin::Id { whole, text: matches!(conv, Conv::Text(_)) },
                    false => Origin::Other,
                };
                Some((self.value(path, conv), origin, text))
            }
        }
    }

    /// Takes a value of the document, or of one of the elements.
    pub(super) fn value(&mut self, path: &Path, conv: Conv) -> Take {
        let at = self.levels.len().checked_sub(path.up + 1);
        match at.and_then(|at| self.levels.get_mut(at)) {
            Some(level) => {
                let slot = (!path.is_element()).then(|| level.slot(&path.names));
                Take::Element { up: path.up, slot, conv }
            }
            None => Take::Document { slot: self.document.slot(&path.names), conv },
        }
    }

    /// What tells the elements of each level apart. Where the rule says it of the innermost alone, those around it are told apart as
    /// their own tables say; where they have none, by name or place.
    fn told_by(&mut self, by: &[By]) -> (Box<[ById]>, String) {
        let Some(each) = &self.rule.each else { return (Box::default(), String::new()) };
        let depth = each.value.depth();
        let mut told: Vec<ById> = Vec::with_capacity(depth);
        let mut path = String::new();
        for level in 0..depth {
            let fields = each.value.0[level].fields;
            let own = (level + by.len()).checked_sub(depth).and_then(|at| by.get(at));
            let (by, text) = match own.or_else(|| said_around(&self.elements, &each.value, level)) {
                Some(By::Index) => (ById::Index, "index".to_owned()),
                Some(By::Path(path)) if fields && path.value.names == ["key"] => (ById::Name, "key".into()),
                Some(By::Path(path)) if path.value.is_element() => (ById::Itself, ".".into()),
                Some(By::Path(path)) => {
                    (ById::Slot(self.levels[level].slot(&path.value.names)), path.value.to_string())
                }
                None if fields => (ById::Name, String::new()),
                None => (ById::Index, String::new()),
            };
            told.push(by);
            path = text;
        }
        (told.into(), path)
    }

    /// Something of the change that made a version.
    fn change(
        &mut self,
        of: ChangeOf,
        column: &catalog::Column,
        place: Place,
        form: Option<IdForm>,
    ) -> Option<(Take, Origin, String)> {
        let name = &column.name;
        if self.rule.history.is_none() {
            let message =
                format!("`{name}` is of a change, and the table has one row for all versions of a document");
            self.findings.error(place, message, "add `history: true` beside `into`");
            return None;
        }
        let take = match (of, form) {
            (ChangeOf::Id, form) => form.map(|form| Take::ChangeId { form }),
            _ if !history::fits(of, &column.kind) => None,
            _ => Some(Take::Change { of, conv: conversions::of_text(&column.kind) }),
        };
        if take.is_none() {
            let wanted = match of {
                ChangeOf::Id => "uuid",
                ChangeOf::Time => "timestamptz",
                ChangeOf::Kind => "text, or an enum with copy, insert, update and delete",
                ChangeOf::Number => "bigint",
            };
            let message = format!("`change` cannot fill `{name}`, which is {}", column.kind.name);
            self.findings.error(place, message, format!("give the column the type {wanted}"));
        }
        Some((take?, Origin::Other, "change".into()))
    }

    /// `column` of the row that the elements belong to, or `table.column`.
    fn parent(&mut self, parent: &At<String>, column: &catalog::Column) -> Option<(Take, Origin, String)> {
        let around: Vec<usize> =
            (0..self.elements.len()).filter(|at| self.encloses(&self.elements[*at])).collect();
        if self.rows.is_empty() && around.is_empty() {
            if self.incomplete {
                return None;
            }
            let help = "put a table without `each` before it: its rows are what the elements belong to";
            self.findings.error(parent.place, "the collection has no row that this could belong to", help);
            return None;
        }
        let named =
            |rows: &[First<'_>], table: &str| rows.iter().position(|row| row.rule.into.value == table);
        let (row, name) = match parent.value.split_once('.') {
            Some((table, name)) => {
                let above = named(&self.elements, table);
                match (above.filter(|at| around.contains(at)), named(&self.rows, table)) {
                    (Some(at), _) => (Owning::Above(at), name),
                    (None, Some(at)) => (Owning::Document(at), name),
                    (None, None) if self.incomplete => return None,
                    (None, None) => {
                        self.no_owner(parent, (table, name), &around);
                        return None;
                    }
                }
            }
            None => (self.nearest_owner(&around), parent.value.as_str()),
        };
        let theirs = match row {
            Owning::Document(at) => self.rows[at],
            Owning::Above(at) => self.elements[at],
        };
        if theirs.rule.history.is_some() {
            let message = format!(
                "`{}` has a row for each version, so nothing can belong to its rows",
                theirs.table.name
            );
            let help = "name a table without `history`; if there is none, put one before it";
            self.findings.error(parent.place, message, help);
            return None;
        }
        let names = || theirs.built.iter().map(|built| built.code.name.as_str());
        let Some(at) = names().position(|known| known == name) else {
            if theirs.rule.names(name) {
                return None;
            }
            let table = &theirs.table.name;
            let help = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("filled are {}", list(names())),
            };
            let message = format!("nothing fills a column `{name}` of `{table}`");
            self.findings.error(parent.place, message, help);
            return None;
        };
        if theirs.built[at].expression.is_some() || theirs.built[at].wanted.is_some() {
            let message = format!("`{name}` is made by the target, and not known where rows are made");
            self.findings.error(parent.place, message, "compute it here as well, from `^.field`");
            return None;
        }
        let kind = &theirs.table.columns[theirs.built[at].column].kind;
        if kind.base_oid != column.kind.base_oid {
            let message = format!(
                "`{}` is {}, `{}.{name}` is {}",
                column.name, column.kind.name, theirs.table.name, kind.name
            );
            self.findings.error(parent.place, message, "give both the same type");
            return None;
        }
        // The index among the parents, or the rows above, is put in when all of them are known.
        let (take, origin) = match row {
            Owning::Document(row) => (Take::Parent(at), Origin::Parent(row, at)),
            Owning::Above(each) => (Take::Above { above: each, column: at }, Origin::Above(each, at)),
        };
        Some((take, origin, parent.value.clone()))
    }

    /// The elements of this table are inside those of the other.
    fn encloses(&self, other: &First<'_>) -> bool {
        let (Some(own), Some(theirs)) = (&self.rule.each, &other.rule.each) else { return false };
        theirs.value.encloses(&own.value)
    }

    /// What is meant where no table is named: the first of those that enclose the elements most closely.
    fn nearest_owner(&self, around: &[usize]) -> Owning {
        let depth = |at: usize| self.elements[at].rule.each.as_ref().map_or(0, |each| each.value.depth());
        let deepest = around.iter().map(|at| depth(*at)).max();
        let nearest = around.iter().copied().find(|at| Some(depth(*at)) == deepest);
        nearest.map_or(Owning::Document(0), Owning::Above)
    }

    /// A table that holds nothing of these elements.
    fn no_owner(&mut self, parent: &At<String>, (table, name): (&str, &str), around: &[usize]) {
        let tables = || {
            let elements = around.iter().map(|at| &self.elements[*at]);
            self.rows.iter().chain(elements).map(|row| row.rule.into.value.as_str())
        };
        let near = nearest(table, tables()).map(|near| format!("did you mean `{near}.{name}`?"));
        let owners = || format!("its rows can belong to {}", list(tables()));
        let mine = |rules: &&[Table]| rules.iter().any(|rule| std::ptr::eq(rule, self.rule));
        let rules = self.around.collections.iter().map(|collection| &collection.tables[..]).find(mine);
        let named = rules.into_iter().flatten().find(|rule| rule.into.value == table);
        let each = named.and_then(|rule| rule.each.as_ref()).zip(self.rule.each.as_ref());
        let (message, help) = match each {
            Some((theirs, own)) => (
                format!(
                    "rows of `{table}` are made of `{}`, which does not enclose `{}`",
                    theirs.value, own.value
                ),
                near.unwrap_or_else(owners),
            ),
            None if around.is_empty() => (
                format!("no document of the collection becomes a row of `{table}`"),
                near.unwrap_or_else(|| format!("its documents become rows of {}", list(tables()))),
            ),
            None => (
                format!("no document and no element around it becomes a row of `{table}`"),
                near.unwrap_or_else(owners),
            ),
        };
        self.findings.error(parent.place, message, help);
    }
}

/// What the first table that is made of the elements of this level says of them, or of those inside them that says it of all levels.
fn said_around<'a>(elements: &[First<'a>], each: &Levels, level: usize) -> Option<&'a By> {
    let said = elements.iter().filter_map(|of| {
        let theirs = &of.rule.each.as_ref()?.value;
        let around = theirs.encloses(each) && theirs.depth() > level;
        let by = of.rule.columns.iter().find_map(|column| match &column.rule.value {
            Rule::Element { by, .. } => Some(by),
            _ => None,
        });
        let at = (level + by?.len()).checked_sub(theirs.depth())?;
        by?.get(at).filter(|_| around)
    });
    said.into_iter().next()
}

/// A row that elements belong to.
#[derive(Clone, Copy)]
enum Owning {
    /// One of the document's.
    Document(usize),
    /// One of those of elements around them.
    Above(usize),
}

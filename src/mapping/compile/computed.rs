//! Columns that the target computes: an expression of SQL, and inputs that are mapped as columns are.

use slackwater_connectors::postgres::target::catalog::{self, Type};
use slackwater_connectors::postgres::target::expressions;
use slackwater_connectors::postgres::target::shape::Computed;
use slackwater_connectors::postgres::target::statements::element_type;

use super::super::plan::{ColumnCode, Made, Take};
use super::table::{Built, Columns, Expression, Origin};
use crate::config::{At, Column, Convert, InvalidPolicy, Migration, NullPolicy, Policies, Rule, Sql, Value};

/// The expressions of a file, for the target to try.
pub(crate) fn expressions(file: &Migration) -> Vec<expressions::Expression> {
    let rules = file.collections.iter().flat_map(|collection| &collection.tables);
    let columns = rules.flat_map(|rule| rule.columns.iter().map(move |column| (rule, column)));
    columns
        .filter_map(|(rule, column)| {
            let Rule::Sql(sql) = &column.rule.value else { return None };
            let inputs = sql.with.iter().map(|input| {
                let kind = input_type(&input.rule.value);
                (input.name.value.clone(), kind.name)
            });
            Some(expressions::Expression {
                schema: rule.schema.clone().unwrap_or_else(|| file.target.schema.clone()),
                table: rule.into.value.clone(),
                column: column.name.value.clone(),
                sql: sql.text.value.clone(),
                inputs: inputs.collect(),
            })
        })
        .collect()
}

/// Of what type an input is. A bare path is text.
fn input_type(rule: &Rule) -> Type {
    const TYPES: [(&str, u32); 10] = [
        ("bigint", 20),
        ("numeric", 1700),
        ("double precision", 701),
        ("boolean", 16),
        ("timestamp with time zone", 1184),
        ("date", 1082),
        ("time without time zone", 1083),
        ("bytea", 17),
        ("jsonb", 3802),
        ("uuid", 2950),
    ];
    let plain = |oid: u32, name: &str| Type {
        oid,
        name: name.to_owned(),
        base_oid: oid,
        base_name: name.to_owned(),
        modifier: -1,
        enum_labels: None,
        element: None,
        comparable: true,
    };
    let of = |name: &str| {
        let known = TYPES.iter().find(|(known, _)| *known == name);
        known.map_or_else(|| plain(25, "text"), |(name, oid)| plain(*oid, name))
    };
    let array = |element: Type, oid: u32| {
        let name = format!("{}[]", element.name);
        Type { element: Some(Box::new(element)), ..plain(oid, &name) }
    };
    match rule {
        // Where a table of history has expressions that is told elsewhere.
        Rule::Own { .. } | Rule::Element { .. } | Rule::Change(_) => of("uuid"),
        Rule::Index { .. } => of("bigint"),
        Rule::Rest => of("jsonb"),
        Rule::Value(Value { path, convert, .. }) => match convert {
            Convert::Ref { .. } | Convert::Identity { .. } if path.value.each.is_some() => {
                array(of("uuid"), 2951)
            }
            Convert::Ref { .. } | Convert::Identity { .. } => of("uuid"),
            Convert::Array => array(of("text"), 1009),
            Convert::Auto | Convert::Enum { .. } | Convert::Cipher { .. } if path.value.each.is_some() => {
                array(of("text"), 1009)
            }
            Convert::Integer => of("bigint"),
            Convert::Numeric => of("numeric"),
            Convert::Float => of("double precision"),
            Convert::Boolean => of("boolean"),
            Convert::Timestamp => of("timestamp with time zone"),
            Convert::Date => of("date"),
            Convert::Time => of("time without time zone"),
            Convert::Bytea => of("bytea"),
            Convert::Jsonb => of("jsonb"),
            Convert::Text
            | Convert::Auto
            | Convert::Enum { .. }
            | Convert::Lookup { .. }
            | Convert::Cipher { .. } => of("text"),
        },
        Rule::Key { .. } | Rule::Parent(_) | Rule::Const(_) | Rule::Sql(_) => of("text"),
    }
}

impl Columns<'_, '_> {
    pub(super) fn computed(&mut self, rule: &Column, sql: &Sql, index: usize) -> Option<Built> {
        let column = &self.table.columns[index];
        let place = rule.rule.place;
        if column.identity_always {
            let message = format!("`{}` is an identity, and cannot be computed", column.name);
            self.findings.error(place, message, "take the rule out: the database fills it");
            return None;
        }
        let name = [&self.table.schema, &self.table.name, &column.name, &sql.text.value].map(Clone::clone);
        if let Some(complaint) = self.around.complaints.get(&name) {
            let message = format!("`{}`: {}", column.name, complaint.message);
            self.findings.error(sql.text.place, message, complaint.help.clone());
            return None;
        }
        let mut inputs = Vec::new();
        let mut complete = true;
        for input in &sql.with {
            match self.input(input) {
                Some((kind, code)) => inputs.push((input.clone(), kind, code)),
                None => complete = false,
            }
        }
        let policies = &rule.policies;
        if policies.null == NullPolicy::Reject
            && !column.not_null
            && let Some(place) = policies.null_at
        {
            let message = format!("`{}` takes null, so a computed null refuses nobody", column.name);
            let help = "make the column NOT NULL, or use `null: reject` for an input";
            self.findings.error(place, message, help);
        }
        if let (InvalidPolicy::Clamp | InvalidPolicy::Strip, Some(place)) =
            (policies.invalid, policies.invalid_at)
        {
            let help = "`reject`, `null` or `default`; an input may be clamped and stripped";
            self.findings.error(place, "what cannot be computed cannot be adjusted", help);
        }
        self.check_invalid(policies, column);
        self.default(rule, column)?;
        let default = self.default_sql(policies, column);
        let null = self.null_policy(policies, column);
        let missing = self.missing(policies, index, column);
        let code = ColumnCode {
            name: column.name.clone(),
            path: "sql".into(),
            take: Take::Computed,
            null: NullPolicy::Keep,
            invalid: match policies.invalid {
                InvalidPolicy::Null | InvalidPolicy::Default => policies.invalid,
                _ => InvalidPolicy::Reject,
            },
            default: Vec::new(),
            empty_is_null: false,
            required: column.not_null,
        };
        let otherwise = match policies.invalid {
            InvalidPolicy::Default => default.clone(),
            _ => None,
        };
        let expression = Expression {
            sql: sql.text.value.clone(),
            inputs,
            for_null: default.filter(|_| null == NullPolicy::Default),
            otherwise: otherwise.unwrap_or_else(|| format!("NULL::{}", element_type(&column.kind))),
        };
        let built = Built {
            column: index,
            place: rule.name.place,
            origin: Origin::Computed,
            missing,
            code,
            expression: Some(expression),
            wanted: None,
        };
        complete.then_some(built)
    }

    /// The default as SQL: text that the column's type reads.
    pub(super) fn default_sql(&self, policies: &Policies, column: &catalog::Column) -> Option<String> {
        let default = policies.default.as_ref()?;
        let cast = element_type(&column.kind);
        Some(match default.value.is_null() {
            true => format!("NULL::{cast}"),
            false => format!("'{}'::{cast}", default.value.text.replace('\'', "''")),
        })
    }

    pub(super) fn input(&mut self, input: &Column) -> Option<(Type, ColumnCode)> {
        let kind = input_type(&input.rule.value);
        let column =
            catalog::Column { name: input.name.value.clone(), kind: kind.clone(), ..Default::default() };
        let (take, _, path) = self.take(input, &column)?;
        let default = match &input.policies.default {
            Some(default) => self.constant(default, &column)?,
            None => Vec::new(),
        };
        let empty_is_null = matches!(&input.rule.value, Rule::Value(value) if value.empty_is_null);
        let code = ColumnCode {
            name: input.name.value.clone(),
            path,
            take,
            null: input.policies.null,
            invalid: input.policies.invalid,
            default,
            empty_is_null,
            required: false,
        };
        Some((kind, code))
    }
}

/// Takes the expressions out of the columns: how the target computes them, the types of all inputs, and how those are written.
/// What several expressions take is written once.
pub(super) fn taken(built: &mut [Built]) -> (Vec<Computed>, Vec<Type>, Made) {
    let (mut computed, mut types, mut codes) = (Vec::<Computed>::new(), Vec::new(), Vec::new());
    let mut known: Vec<Column> = Vec::new();
    for (at, built) in built.iter_mut().enumerate() {
        let Some(expression) = &mut built.expression else { continue };
        let mut inputs = Vec::new();
        for (rule, kind, code) in std::mem::take(&mut expression.inputs) {
            let place = known.iter().position(|other| same(other, &rule)).unwrap_or_else(|| {
                known.push(rule.clone());
                types.push(kind);
                codes.push((at, code));
                known.len() - 1
            });
            inputs.push((rule.name.value, place));
        }
        computed.push(Computed {
            column: at,
            sql: expression.sql.clone(),
            inputs,
            for_null: expression.for_null.clone(),
            otherwise: expression.otherwise.clone(),
        });
    }
    let places = |computed: &Computed| computed.inputs.iter().map(|(_, at)| *at).collect();
    let made = computed.iter().map(|computed| (computed.column, places(computed))).collect();
    (computed, types, Made { inputs: codes, computed: made })
}

/// Two inputs that are always the same, whatever they are called.
fn same(one: &Column, other: &Column) -> bool {
    let (Rule::Value(a), Rule::Value(b)) = (&one.rule.value, &other.rule.value) else { return false };
    let simple = |value: &Value| {
        !matches!(value.convert, Convert::Enum { .. } | Convert::Ref { .. } | Convert::Cipher { .. })
    };
    let options = |value: &Value| (value.trim, value.lower, value.empty_is_null, value.unit);
    let policies = |column: &Column| {
        let Policies { null, invalid, default, .. } = &column.policies;
        (*null, *invalid, default.as_ref().map(|At { value, .. }| value.clone()))
    };
    simple(a)
        && simple(b)
        && a.path.value == b.path.value
        && a.convert.word() == b.convert.word()
        && options(a) == options(b)
        && policies(one) == policies(other)
}

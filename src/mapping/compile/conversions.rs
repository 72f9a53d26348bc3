//! Which rule can fill which type, and with what conversion.

use std::collections::BTreeMap;
use std::sync::Arc;

use slackwater_connectors::postgres::target::catalog::{Catalog, Complaint, Table, Type};
use slackwater_connectors::postgres::target::serial::Series;

use super::super::encode::{
    Ciphered, Conv, Enum, Foreign, Form as TextForm, IdForm, Identity, Json, Lenient, NumericShape, Opener,
    Reference, Scratch, Sealer, Text, Unit, Unknown, form_of,
};
use super::{merged, serial};
use crate::config::spelling::{list, nearest};
use crate::config::{self, Convert, Findings, Place, Scalar};
use slackwater_topics::{Namespace, Value};

/// What is under a column's type, as far as writing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Boolean,
    Integer(u8),
    Float4,
    Float8,
    Numeric,
    Text {
        limit: Option<usize>,
        pad: bool,
    },
    Uuid,
    Timestamp,
    Date,
    Time,
    Json {
        binary: bool,
    },
    Bytea,
    Inet {
        cidr: bool,
    },
    Enum,
    Array,
    /// Written as text, which its own input function reads.
    Foreign,
}

impl Base {
    pub(super) fn of(kind: &Type) -> Self {
        if kind.enum_labels.is_some() {
            return Self::Enum;
        }
        if let Some(element) = &kind.element {
            return if Self::of(element) == Self::Foreign { Self::Foreign } else { Self::Array };
        }
        let limit = (kind.modifier > 4).then(|| (kind.modifier - 4) as usize);
        match kind.base_oid {
            16 => Self::Boolean,
            17 => Self::Bytea,
            20 => Self::Integer(8),
            21 => Self::Integer(2),
            23 => Self::Integer(4),
            25 => Self::Text { limit: None, pad: false },
            114 => Self::Json { binary: false },
            650 => Self::Inet { cidr: true },
            700 => Self::Float4,
            701 => Self::Float8,
            869 => Self::Inet { cidr: false },
            1042 => Self::Text { limit, pad: limit.is_some() },
            1043 => Self::Text { limit, pad: false },
            1082 => Self::Date,
            1083 => Self::Time,
            1114 | 1184 => Self::Timestamp,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            3802 => Self::Json { binary: true },
            _ if kind.is_citext() => Self::Text { limit: None, pad: false },
            _ => Self::Foreign,
        }
    }

    /// Rules that fill it, the most usual first.
    fn rules(&self) -> &'static [&'static str] {
        match self {
            Self::Boolean => &["boolean"],
            Self::Integer(_) => &["integer", "numeric", "float", "ref"],
            Self::Float4 | Self::Float8 => &["float", "numeric", "integer"],
            Self::Numeric => &["numeric", "integer", "float"],
            Self::Text { .. } => &["text", "enum", "ref", "identity"],
            Self::Uuid => &["ref", "identity"],
            Self::Timestamp => &["timestamp", "date"],
            Self::Date => &["date", "timestamp"],
            Self::Time => &["time"],
            Self::Json { .. } => &["jsonb"],
            Self::Bytea => &["bytea"],
            Self::Inet { .. } => &[],
            Self::Foreign => &["text", "array"],
            Self::Enum => &["enum"],
            Self::Array => &["array"],
        }
    }
}

/// What a conversion needs to know beside the rule.
pub(super) struct Surroundings<'a> {
    pub(super) namespace: Namespace,
    /// Of tables that say no other.
    pub(super) schema: &'a str,
    pub(super) collections: &'a [config::Collection],
    pub(super) file: &'a config::Migration,
    /// Keys that come from sequences.
    pub(super) series: &'a [Series],
    /// What the target has against expressions.
    pub(super) complaints: &'a BTreeMap<[String; 4], Complaint>,
    pub(super) catalog: &'a Catalog,
}

impl<'a> Surroundings<'a> {
    /// What is in the file.
    pub(super) fn of(file: &'a config::Migration, series: &'a [Series], catalog: &'a Catalog) -> Self {
        Self {
            namespace: file.namespace,
            schema: &file.target.schema,
            collections: &file.collections,
            file,
            series,
            complaints: &catalog.complaints,
            catalog,
        }
    }
}

/// The conversion of a rule's value into a column; complaints go to the findings.
pub(super) fn conversion(
    value: &config::Value,
    policies: &config::Policies,
    (table, column): (&Table, &str),
    kind: &Type,
    place: Place,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Conv> {
    // A rule for many values is a rule for each of them.
    let many = value.path.value.each.is_some()
        && matches!(value.convert, Convert::Ref { .. } | Convert::Enum { .. } | Convert::Identity { .. });
    if many && let Some(element) = kind.element.as_deref().filter(|element| !is_foreign(element)) {
        let of_each = config::Value {
            path: config::At::new(config::Path { each: None, ..value.path.value.clone() }, value.path.place),
            ..value.clone()
        };
        let conv = conversion(&of_each, policies, (table, column), element, place, around, findings)?;
        return Some(Conv::array(conv, element.oid, inner_names(value)));
    }
    let base = Base::of(kind);
    let word = value.convert.word();
    if let Convert::Cipher { from, to } = &value.convert {
        return ciphered(value, (from.as_ref(), to.as_ref()), (table, column), kind, place, around, findings);
    }
    let fits_all = matches!(value.convert, Convert::Auto | Convert::Lookup { .. });
    if !fits_all && !base.rules().contains(&word) {
        let rules = list(base.rules().iter().copied().chain(["from"]));
        let help = match (&value.convert, &base) {
            (Convert::Array, _) => format!("give the column the type {}[], or use {rules}", kind.name),
            _ => format!("use {rules}"),
        };
        findings.error(place, format!("`{word}` cannot fill `{column}`, which is {}", kind.name), help);
        return None;
    }
    if value.path.value.each.is_some() && kind.element.is_none() {
        let message = format!("`{}` selects many values, `{column}` is {}", value.path.value, kind.name);
        findings.error(value.path.place, message, "use an array column, or `each` for a table of its own");
        return None;
    }
    if matches!(base, Base::Integer(_)) && matches!(value.convert, Convert::Float | Convert::Numeric) {
        let message = format!("`{column}` is {}: a number with a fraction does not fit", kind.name);
        let help = match policies.invalid {
            config::InvalidPolicy::Strip => "`invalid: strip` cuts the fraction off, and counts it",
            _ => "such documents go by the column's `invalid` policy; `strip` cuts the fraction off",
        };
        findings.warning(place, message, help);
    }
    let unit = value.unit.map(|unit| match unit {
        config::Unit::Seconds => Unit::Seconds,
        config::Unit::Millis => Unit::Millis,
    });
    match &value.convert {
        Convert::Enum { map, unknown } => labels(value, map.as_deref(), unknown, column, kind, findings),
        Convert::Identity { of } => {
            let of = merged::identified(of.as_ref()?, around, findings)?;
            Some(Conv::Identity(Box::new(Identity {
                namespace: around.namespace,
                of: format!("identity {of}"),
                text: Text { trim: value.trim, lower: value.lower, ..Text::default() },
                form: if base == Base::Uuid { IdForm::Uuid } else { IdForm::Text },
            })))
        }
        Convert::Lookup { of: other, .. } | Convert::Ref { to: other, by: Some(_), .. } => {
            let message = "what is looked up is known to the target alone";
            findings.error(other.place, message, "make it a column of its own");
            None
        }
        Convert::Ref { to, hex, by: None } => {
            if merged::is_merged(&to.value, around) {
                let message =
                    format!("documents of `{}` have no row of their own: several make one", to.value);
                let help = "refer by what makes them one: `{ identity: field, of: table }`";
                findings.error(to.place, message, help);
                return None;
            }
            let names = || around.collections.iter().map(|known| known.name.value.as_str());
            if !names().any(|name| name == to.value) {
                let left = around.file.leaves_behind(&to.value);
                let help = match nearest(&to.value, names()) {
                    _ if left => "it is not migrated, so there will be no row to point at".to_owned(),
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("collections: {}", list(names())),
                };
                findings.error(to.place, format!("`{}` is not among the collections", to.value), help);
                return None;
            }
            let form = match base {
                Base::Uuid => IdForm::Uuid,
                Base::Integer(bytes) => {
                    let target = around.collections.iter().find(|known| known.name.value == to.value);
                    let series =
                        target.and_then(|target| serial::of_collection(around.series, target, around.schema));
                    let Some(series) = series else {
                        if target.is_some_and(|target| target.incomplete) {
                            return None;
                        }
                        let message = format!(
                            "`{column}` is {}, and rows of `{}` have no numbers",
                            kind.name, to.value
                        );
                        let help = "give the key of its table a sequence (`serial` or an identity) and fill it by `{ serial: _id }`";
                        findings.error(to.place, message, help);
                        return None;
                    };
                    IdForm::Number { series, bytes }
                }
                _ => IdForm::Text,
            };
            Some(Conv::Ref(Reference {
                namespace: around.namespace,
                collection: to.value.clone(),
                hex: *hex,
                form,
            }))
        }
        _ => {
            let own_words = policies.invalid_at.is_some();
            let quote = !own_words
                || matches!(policies.invalid, config::InvalidPolicy::Strip | config::InvalidPolicy::Clamp);
            let inner = inner_names(value);
            let form = Form { trim: value.trim, lower: value.lower, unit, quote };
            Some(by_type(kind, &form, inner))
        }
    }
}

/// Decrypted, encrypted, or both; of many values each by itself. Whether there are such ciphers was looked at when the file was read.
fn ciphered(
    value: &config::Value,
    (from, to): (Option<&config::At<String>>, Option<&config::At<String>>),
    (table, column): (&Table, &str),
    kind: &Type,
    place: Place,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Conv> {
    let word = value.convert.word();
    let path = &value.path.value;
    let many = path.each.is_some();
    let one = match (many, kind.element.as_deref()) {
        (false, _) => kind,
        (true, Some(element)) => element,
        (true, None) => {
            let message = format!("`{path}` selects many values, `{column}` is {}", kind.name);
            let help = "give the column the type text[] or bytea[], or use `each` for a table of its own";
            findings.error(value.path.place, message, help);
            return None;
        }
    };
    let text = match Base::of(one) {
        Base::Text { limit, pad } => Some(Text { limit, pad, ..Text::default() }),
        Base::Bytea => None,
        base => {
            let message = format!("`{word}` cannot fill `{column}`, which is {}", kind.name);
            let help = match (many, to) {
                (false, _) if base == Base::Array => {
                    format!("write `{path}[]`: each element is a value of its own")
                }
                (true, _) => "give the column the type text[] or bytea[]".to_owned(),
                (false, Some(_)) => "give the column the type text or bytea".to_owned(),
                (false, None) => {
                    "give the column the type text or bytea, or compute it: `{ sql: \"v::integer\", with: { v: { decrypt: … } } }`".to_owned()
                }
            };
            findings.error(place, message, help);
            return None;
        }
    };
    let cipher =
        |name: &config::At<String>| around.file.ciphers.iter().find(|cipher| cipher.name == name.value);
    let from = from.map(|name| cipher(name).and_then(Opener::new).map(Arc::new));
    let to = to.map(|name| cipher(name).and_then(Sealer::new).map(Arc::new));
    // One that could not be read has been told of.
    let (from, to) =
        (from.map_or(Some(None), |from| from.map(Some))?, to.map_or(Some(None), |to| to.map(Some))?);
    // No name has a zero byte in it, so no column is called as an array is here.
    let end = if many { "\0" } else { "" };
    let column = format!("{}.{}.{column}{end}", table.schema, table.name).into();
    let conv = Conv::Ciphered(Box::new(Ciphered { from, to, column, text }));
    Some(if many { Conv::array(conv, one.oid, inner_names(value)) } else { conv })
}

/// The names to follow within each element.
fn inner_names(value: &config::Value) -> Vec<Box<[u8]>> {
    value.path.value.each.iter().flatten().map(|name| name.as_bytes().into()).collect()
}

/// Text, such as a field's name, as a value of this type.
pub(super) fn of_text(kind: &Type) -> Conv {
    by_type(kind, &Form { trim: false, lower: false, unit: None, quote: true }, Vec::new())
}

/// What a rule says beside its path.
pub(super) struct Form {
    trim: bool,
    lower: bool,
    unit: Option<Unit>,
    quote: bool,
}

/// The conversion that the type asks for. `inner`: names to follow within each element of an array.
fn by_type(kind: &Type, form: &Form, inner: Vec<Box<[u8]>>) -> Conv {
    let precision = u8::try_from(kind.modifier).ok();
    let unit = form.unit;
    match Base::of(kind) {
        Base::Boolean => Conv::Boolean,
        Base::Integer(bytes) => Conv::Integer { bytes },
        Base::Float4 => Conv::Float4,
        Base::Float8 => Conv::Float8,
        Base::Numeric => Conv::Numeric(NumericShape::of_modifier(kind.modifier)),
        Base::Text { limit, pad } => Conv::Text(Text { trim: form.trim, lower: form.lower, limit, pad }),
        Base::Uuid => Conv::Uuid,
        Base::Timestamp => Conv::Timestamp { unit, precision },
        Base::Date => Conv::Date { unit },
        Base::Time => Conv::Time { precision },
        Base::Json { binary } => Conv::Json(Json { binary, quote: form.quote }),
        Base::Bytea => Conv::Bytea,
        Base::Inet { cidr } => Conv::Inet { cidr },
        Base::Enum => Conv::Enum(Enum {
            trim: form.trim,
            lower: form.lower,
            labels: identity(kind.enum_labels.as_deref().unwrap_or_default()),
            unknown: Unknown::Reject,
        }),
        Base::Array | Base::Foreign => {
            if let (Base::Array, Some(element)) = (Base::of(kind), kind.element.as_deref()) {
                return Conv::array(by_type(element, form, Vec::new()), element.oid, inner);
            }
            Conv::Foreign(Box::new(Foreign {
                oid: kind.oid,
                name: kind.name.as_str().into(),
                text: Text { trim: form.trim, lower: form.lower, ..Text::default() },
                unit: form.unit.filter(|_| is_interval(kind)),
                form: if kind.element.is_some() { TextForm::Array(inner) } else { form_of(&kind.base_name) },
            }))
        }
    }
}

fn is_interval(kind: &Type) -> bool {
    const INTERVAL: u32 = 1186;
    kind.element.as_deref().unwrap_or(kind).base_oid == INTERVAL
}

/// Some column of this table is written as text, so its rows travel in a shape.
pub(super) fn is_foreign(kind: &Type) -> bool {
    Base::of(kind) == Base::Foreign
}

fn identity(labels: &[String]) -> Vec<(Box<str>, Box<str>)> {
    let mut labels: Vec<(Box<str>, Box<str>)> =
        labels.iter().map(|label| (label.as_str().into(), label.as_str().into())).collect();
    labels.sort();
    labels
}

fn labels(
    value: &config::Value,
    map: Option<&[(config::At<String>, config::At<String>)]>,
    unknown: &config::Unknown,
    column: &str,
    kind: &Type,
    findings: &mut Findings,
) -> Option<Conv> {
    let known = kind.enum_labels.as_deref();
    let mut all_known = true;
    let mut check = |label: &config::At<String>| {
        let Some(known) = known else { return };
        if known.contains(&label.value) {
            return;
        }
        all_known = false;
        let help = match nearest(&label.value, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("labels: {}", list(known.iter().map(String::as_str))),
        };
        findings.error(label.place, format!("{} has no label `{}`", kind.name, label.value), help);
    };
    let labels = match (map, known) {
        (Some(map), _) => {
            let mut labels: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(map.len());
            for (written, label) in map {
                check(label);
                labels.push((written.value.as_str().into(), label.value.as_str().into()));
            }
            labels.sort();
            labels
        }
        (None, Some(known)) => identity(known),
        (None, None) => {
            let message = format!("`{column}` is {}, so the labels are not known", kind.name);
            findings.error(value.path.place, message, "add `map`, or use `text`");
            return None;
        }
    };
    let unknown = match unknown {
        config::Unknown::Reject => Unknown::Reject,
        config::Unknown::Null => Unknown::Null,
        config::Unknown::Default(label) => {
            check(label);
            Unknown::Label(label.value.as_str().into())
        }
    };
    all_known.then_some(Conv::Enum(Enum { trim: value.trim, lower: value.lower, labels, unknown }))
}

/// The field (length and bytes) of a constant out of the file, or why it does not fit.
pub(super) fn constant(scalar: &Scalar, kind: &Type) -> Result<Vec<u8>, String> {
    if scalar.is_null() {
        return Ok((-1_i32).to_be_bytes().to_vec());
    }
    // Nothing is adjusted.
    let form = Form { trim: false, lower: false, unit: None, quote: true };
    let conv = by_type(kind, &form, Vec::new());
    let text = Value::String(scalar.text.as_bytes());
    let value = match Base::of(kind) {
        // In JSON a word without quotes is a number or a truth.
        Base::Json { .. } if !scalar.quoted => match scalar.text.as_str() {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            other => other.parse().map_or(text, Value::Int64),
        },
        _ => text,
    };
    let mut field = vec![0; 4];
    conv.write(value, Lenient::No, &mut field, &mut Scratch::default())
        .map_err(|problem| format!("`{}` does not fit {}: {}", scalar.text, kind.name, problem.text))?;
    let length = (field.len() - 4) as i32;
    field[..4].copy_from_slice(&length.to_be_bytes());
    Ok(field)
}

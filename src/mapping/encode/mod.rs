//! Raw BSON to Postgres' binary form, one conversion a column type.
//!
//! A conversion appends the bytes of one value, without their length, or says why it cannot. What it appended before it
//! failed is taken back by the caller. Nothing here keeps or prints a value.

mod array;
mod cipher;
mod foreign;
mod integer;
mod json;
mod number;
mod numeric;
mod text;
mod time;
mod uuid;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use slackwater_topics::{Key, Namespace, Value};

pub(super) use array::follow;
pub(super) use cipher::{Ciphered, Opener, Sealer, part as place_part};
pub(crate) use foreign::Texts;
pub(super) use foreign::{Foreign, Form, form_of};
pub(super) use integer::float as as_float;
pub(super) use json::Json;
pub(super) use numeric::Shape as NumericShape;
pub(super) use text::{Enum, Text, Unknown};
pub(super) use time::{Unit, parse as micros_of_text};

use super::rejection::Reason;

/// Why a value cannot be written. The text names types and limits, never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: Reason,
    pub(super) text: Cow<'static, str>,
    /// Nothing is wrong with the value, so no policy for invalid ones applies.
    pub(super) blameless: bool,
}

impl Problem {
    pub(super) fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, text: text.into(), blameless: false }
    }

    /// This type has no meaning here.
    fn of_type(value: &Value<'_>, wanted: &str) -> Self {
        Self::new(Reason::Type, format!("a value of type {} is not {wanted}", value.type_name()))
    }

    pub(super) fn malformed() -> Self {
        Self::new(Reason::Malformed, "the document's bytes are broken here")
    }
}

impl From<slackwater_topics::Malformed> for Problem {
    fn from(_: slackwater_topics::Malformed) -> Self {
        Self::malformed()
    }
}

/// How far a value may be adjusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lenient {
    /// Not at all.
    No,
    /// To the nearest that fits.
    Clamp,
    /// By taking out what does not fit.
    Strip,
}

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Exact,
    Clamped,
    Stripped,
    /// NaN or an infinity became text in JSON.
    Quoted,
    /// An unknown label became NULL: nothing was appended.
    UnknownNull,
    /// An unknown label became the one given for that case.
    UnknownLabel,
}

/// Memory that conversions use again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    digits: Vec<u8>,
    text: Vec<u8>,
    /// Where in the source the value at hand is, as nonces know it: collection, document, element, and of one of many its place.
    pub(super) place: Vec<u8>,
    pub(super) reading: foreign::Reading,
    pub(super) computing: Computing,
    pub(super) numbers: Numbers,
}

/// Inputs of computed columns, as fields: by table of the plan and column of the mapping.
pub(crate) type Inputs = HashMap<(usize, usize), HashSet<Vec<Vec<u8>>>>;

/// What is known of expressions that the target computes.
#[derive(Debug, Default)]
pub(super) struct Computing {
    /// The target fails to compute anything of these.
    pub(super) refused: Inputs,
    /// What was written, where somebody wants to know.
    pub(super) written: Option<Inputs>,
}

/// How the id of a document or an element is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdForm {
    Uuid,
    Text,
    /// The number that a sequence gave to it.
    Number {
        /// Index into the plan's series.
        series: u16,
        bytes: u8,
    },
}

impl IdForm {
    pub(super) fn length(self) -> i32 {
        match self {
            Self::Uuid => 16,
            Self::Text => 36,
            Self::Number { bytes, .. } => i32::from(bytes),
        }
    }
}

/// The numbers that sequences gave, by series and id.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) known: HashMap<(u16, ::uuid::Uuid), i64>,
    /// Asked for and not known: a zero was written, and the documents have to be mapped again.
    pub(super) wanted: HashSet<(u16, ::uuid::Uuid)>,
    /// The target gives none, and why.
    pub(super) refused: HashMap<(u16, ::uuid::Uuid), Arc<str>>,
}

/// Appends an id.
pub(super) fn append_id(
    id: ::uuid::Uuid,
    form: IdForm,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    let (series, bytes) = match form {
        IdForm::Uuid | IdForm::Text => {
            uuid::append(id, form == IdForm::Text, out);
            return Ok(());
        }
        IdForm::Number { series, bytes } => (series, bytes),
    };
    let numbers = &mut scratch.numbers;
    let number = match (numbers.known.get(&(series, id)), numbers.refused.get(&(series, id))) {
        (Some(number), _) => *number,
        (None, Some(why)) => {
            let text = format!("there is no number for it: {why}");
            return Err(Problem { blameless: true, ..Problem::new(Reason::Range, text) });
        }
        (None, None) => {
            numbers.wanted.insert((series, id));
            0
        }
    };
    let none = || {
        Problem::new(
            Reason::Range,
            "the sequence has given a number that the column cannot hold; give the column a wider type",
        )
    };
    match bytes {
        2 => out.extend_from_slice(&i16::try_from(number).map_err(|_| none())?.to_be_bytes()),
        4 => out.extend_from_slice(&i32::try_from(number).map_err(|_| none())?.to_be_bytes()),
        _ => out.extend_from_slice(&number.to_be_bytes()),
    }
    Ok(())
}

/// A conversion into one column type.
#[derive(Clone, Debug)]
pub(super) enum Conv {
    Boolean,
    Integer { bytes: u8 },
    Float4,
    Float8,
    Numeric(Option<NumericShape>),
    Text(Text),
    Uuid,
    Timestamp { unit: Option<Unit>, precision: Option<u8> },
    Date { unit: Option<Unit> },
    Time { precision: Option<u8> },
    Json(Json),
    Bytea,
    Inet { cidr: bool },
    Enum(Enum),
    Array(Box<array::Array>),
    Foreign(Box<Foreign>),
    Ref(Reference),
    Identity(Box<Identity>),
    Ciphered(Box<Ciphered>),
}

/// The id of the row that all documents with one text make together.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) namespace: Namespace,
    /// `identity` and the table, which no collection is called.
    pub(super) of: String,
    pub(super) text: Text,
    pub(super) form: IdForm,
}

impl Identity {
    fn write(
        &self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let start = out.len();
        let fit = self.text.write(value, lenient, out, scratch)?;
        let id = self.namespace.id(&self.of, &Key::of(Value::String(&out[start..]))?);
        out.truncate(start);
        append_id(id, self.form, scratch, out)?;
        Ok(fit)
    }
}

/// The id of another document.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) namespace: Namespace,
    pub(super) collection: String,
    pub(super) hex: bool,
    pub(super) form: IdForm,
}

impl Conv {
    /// An array of what `element` makes. `inner`: names to follow within each element.
    pub(super) fn array(element: Conv, oid: u32, inner: Vec<Box<[u8]>>) -> Self {
        Self::Array(Box::new(array::Array { element, oid, inner }))
    }

    /// An array holds elements of this type.
    pub(super) fn hold(&mut self, oid: u32) {
        if let Self::Array(array) = self {
            array.oid = oid;
        }
    }

    /// What it writes depends on where in the source the value is.
    pub(super) fn is_ciphered(&self) -> bool {
        match self {
            Self::Ciphered(_) => true,
            Self::Array(array) => array.element.is_ciphered(),
            _ => false,
        }
    }

    /// Appends the value. `value` is neither null nor undefined.
    pub(super) fn write(
        &self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        match self {
            Self::Boolean => boolean(value, out),
            Self::Integer { bytes } => integer::write(value, *bytes, lenient, out, scratch),
            Self::Float8 => integer::float8(value, out, scratch),
            Self::Float4 => integer::float4(value, lenient, out, scratch),
            Self::Numeric(shape) => numeric::write(value, *shape, lenient, out, scratch),
            Self::Text(form) => form.write(value, lenient, out, scratch),
            Self::Uuid => uuid::write(value, out),
            Self::Timestamp { unit, precision } => {
                time::timestamp(value, *unit, *precision, lenient, out, scratch)
            }
            Self::Date { unit } => time::date(value, *unit, lenient, out, scratch),
            Self::Time { precision } => time::time(value, *precision, out),
            Self::Json(form) => form.write(value, lenient, out, scratch),
            Self::Bytea => match value {
                Value::Binary { subtype, bytes } => {
                    out.extend_from_slice(payload(subtype, bytes));
                    Ok(Fit::Exact)
                }
                other => Err(Problem::of_type(&other, "binary data")),
            },
            Self::Inet { cidr } => text::inet(value, *cidr, out),
            Self::Enum(form) => form.write(value, out, scratch),
            Self::Array(form) => form.write(value, lenient, out, scratch),
            Self::Foreign(form) => form.write(value, lenient, out, scratch),
            Self::Ref(form) => form.write(value, out, scratch),
            Self::Identity(form) => form.write(value, lenient, out, scratch),
            Self::Ciphered(form) => form.write(value, lenient, out, scratch),
        }
    }
}

impl Reference {
    fn write(&self, value: Value<'_>, out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<Fit, Problem> {
        let id = self.namespace.id(&self.collection, &self.key(value)?);
        append_id(id, self.form, scratch, out)?;
        Ok(Fit::Exact)
    }

    fn key(&self, value: Value<'_>) -> Result<Key, Problem> {
        let value = match value {
            // The old form of a reference within the document.
            Value::Document(document) => match document.elements().next() {
                Some(Ok((b"$ref", _))) => document
                    .get(b"$id")?
                    .ok_or_else(|| Problem::new(Reason::Type, "a DBRef without `$id` points nowhere"))?,
                _ => value,
            },
            Value::DbPointer { id, .. } => Value::ObjectId(id),
            other => other,
        };
        match value {
            Value::String(text) if self.hex && text.len() == 24 => {
                let mut id = [0; 12];
                for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
                    let digit = |letter: u8| char::from(letter).to_digit(16);
                    match (digit(pair[0]), digit(pair[1])) {
                        (Some(high), Some(low)) => *byte = (high << 4 | low) as u8,
                        _ => return Ok(Key::of(value)?),
                    }
                }
                Ok(Key::of(Value::ObjectId(&id))?)
            }
            // MongoDB takes neither as an `_id`, so nothing can be meant.
            Value::Array(_) | Value::Regex { .. } | Value::Undefined | Value::Null => {
                Err(Problem::of_type(&value, "the id of a document"))
            }
            other => Ok(Key::of(other)?),
        }
    }
}

/// Binary data without the length that its old form (subtype 2) has once more within.
fn payload(subtype: u8, bytes: &[u8]) -> &[u8] {
    match bytes.split_first_chunk::<4>() {
        Some((length, rest)) if subtype == 2 && u32::from_le_bytes(*length) as usize == rest.len() => rest,
        _ => bytes,
    }
}

/// Every odd form that yes and no take.
fn boolean(value: Value<'_>, out: &mut Vec<u8>) -> Result<Fit, Problem> {
    const YES: [&[u8]; 6] = [b"true", b"t", b"yes", b"y", b"on", b"1"];
    const NO: [&[u8]; 6] = [b"false", b"f", b"no", b"n", b"off", b"0"];
    let none = || Problem::new(Reason::Range, "this is neither yes nor no");
    let truth = match value {
        Value::Boolean(truth) => truth,
        Value::String(text) | Value::Symbol(text) => {
            let text = text.trim_ascii();
            let among = |words: [&[u8]; 6]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
            if among(YES) {
                true
            } else if among(NO) {
                false
            } else {
                return Err(none());
            }
        }
        Value::Int32(_) | Value::Int64(_) | Value::Double(_) | Value::Decimal128(_) => {
            match number::whole(value) {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(none()),
            }
        }
        other => return Err(Problem::of_type(&other, "a boolean")),
    };
    out.push(u8::from(truth));
    Ok(Fit::Exact)
}

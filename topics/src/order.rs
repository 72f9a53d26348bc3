//! The order in which MongoDB keeps values of any type, as its `_id` index has it (no collation).
//!
//! Snapshot chunks are ranges of `_id`, and capture has to know which range a changed document lies in
//! without asking the server.

use std::cmp::Ordering;

use crate::decimal::{Decimal, Magnitude};
use crate::value::{Document, Value};

/// Compares two values as MongoDB's `_id` index does: by type first, numbers among each other whatever their type.
pub fn compare(a: Value<'_>, b: Value<'_>) -> Ordering {
    class(&a).cmp(&class(&b)).then_with(|| within(a, b))
}

/// MongoDB's order of types.
fn class(value: &Value<'_>) -> u8 {
    match value {
        Value::MinKey => 0,
        Value::Undefined => 1,
        Value::Null => 5,
        Value::Int32(_) | Value::Int64(_) | Value::Double(_) | Value::Decimal128(_) => 10,
        Value::String(_) | Value::Symbol(_) => 15,
        Value::Document(_) => 20,
        Value::Array(_) => 25,
        Value::Binary { .. } => 30,
        Value::ObjectId(_) => 35,
        Value::Boolean(_) => 40,
        Value::DateTime(_) => 45,
        Value::Timestamp { .. } => 47,
        Value::Regex { .. } => 50,
        Value::DbPointer { .. } => 55,
        Value::JavaScript(_) => 60,
        Value::JavaScriptWithScope { .. } => 65,
        Value::MaxKey => 127,
    }
}

fn within(a: Value<'_>, b: Value<'_>) -> Ordering {
    match (a, b) {
        (Value::String(a) | Value::Symbol(a), Value::String(b) | Value::Symbol(b))
        | (Value::JavaScript(a), Value::JavaScript(b)) => a.cmp(b),
        (Value::Document(a), Value::Document(b)) | (Value::Array(a), Value::Array(b)) => documents(a, b),
        (Value::Binary { subtype: a_type, bytes: a }, Value::Binary { subtype: b_type, bytes: b }) => {
            (a.len(), a_type, a).cmp(&(b.len(), b_type, b))
        }
        (Value::ObjectId(a), Value::ObjectId(b)) => a.cmp(b),
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(&b),
        (Value::DateTime(a), Value::DateTime(b)) => a.cmp(&b),
        (
            Value::Timestamp { seconds, increment },
            Value::Timestamp { seconds: b_seconds, increment: b_increment },
        ) => (seconds, increment).cmp(&(b_seconds, b_increment)),
        (Value::Regex { pattern, options }, Value::Regex { pattern: b_pattern, options: b_options }) => {
            (pattern, options).cmp(&(b_pattern, b_options))
        }
        (Value::DbPointer { namespace, id }, Value::DbPointer { namespace: b_namespace, id: b_id }) => {
            (namespace.len(), namespace, id).cmp(&(b_namespace.len(), b_namespace, b_id))
        }
        (
            Value::JavaScriptWithScope { code, scope },
            Value::JavaScriptWithScope { code: b_code, scope: b_scope },
        ) => code.cmp(b_code).then_with(|| documents(scope, b_scope)),
        (Value::Int32(a), Value::Int32(b)) => a.cmp(&b),
        (Value::Int64(a), Value::Int64(b)) => a.cmp(&b),
        _ => numbers(a, b),
    }
}

/// Element by element: type, then name, then value; what ends first is smaller.
fn documents(a: Document<'_>, b: Document<'_>) -> Ordering {
    let mut a = a.elements();
    let mut b = b.elements();
    loop {
        let ((a_name, a), (b_name, b)) = match (a.next(), b.next()) {
            (Some(Ok(a)), Some(Ok(b))) => (a, b),
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            // Ids come from the server, which keeps no broken document; any fixed answer will do.
            (Some(Err(_)), _) => return Ordering::Less,
            (_, Some(Err(_))) => return Ordering::Greater,
        };
        let order = class(&a).cmp(&class(&b)).then_with(|| a_name.cmp(b_name)).then_with(|| within(a, b));
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The place of a number: not-a-number is below minus infinity.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    NaN,
    MinusInfinity,
    Finite(Magnitude),
    Infinity,
}

fn place(value: Value<'_>) -> Place {
    let infinity = |negative| {
        if negative { Place::MinusInfinity } else { Place::Infinity }
    };
    match value {
        Value::Int32(number) => Place::Finite(Magnitude::from_i64(i64::from(number))),
        Value::Int64(number) => Place::Finite(Magnitude::from_i64(number)),
        Value::Double(number) if number.is_infinite() => infinity(number < 0.0),
        Value::Double(number) if number.is_finite() => Place::Finite(Magnitude::from_f64(number)),
        Value::Decimal128(bytes) => match Decimal::from_bytes(bytes) {
            Decimal::NaN => Place::NaN,
            Decimal::Infinity { negative } => infinity(negative),
            Decimal::Finite { negative, coefficient, exponent } => {
                Place::Finite(Magnitude::from_integer(negative, coefficient, exponent))
            }
        },
        _ => Place::NaN,
    }
}

fn numbers(a: Value<'_>, b: Value<'_>) -> Ordering {
    let integer = |value| match value {
        Value::Int32(number) => Some(i64::from(number)),
        Value::Int64(number) => Some(number),
        _ => None,
    };
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        return a.cmp(&b);
    }
    if let (Value::Double(a), Value::Double(b)) = (a, b)
        && let Some(order) = a.partial_cmp(&b)
    {
        return order;
    }
    place(a).cmp(&place(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};

    #[test]
    fn the_order_is_mongodbs() {
        let decimal = |text: &str| Bson::Decimal128(text.parse().expect("a decimal"));
        let binary = |bytes: &[u8]| {
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: bytes.into() })
        };
        let ascending: Vec<Bson> = vec![
            Bson::MinKey,
            Bson::Null,
            f64::NAN.into(),
            f64::NEG_INFINITY.into(),
            i64::MIN.into(),
            (-1.5).into(),
            0_i32.into(),
            decimal("0.1"),
            0.1.into(),
            1_i64.into(),
            9_007_199_254_740_992.0.into(),
            9_007_199_254_740_993_i64.into(),
            1e300.into(),
            decimal("1E400"),
            f64::INFINITY.into(),
            "".into(),
            "a".into(),
            "aa".into(),
            "b".into(),
            doc! {}.into(),
            doc! {"b": 1}.into(),
            doc! {"a": "x"}.into(),
            doc! {"a": "x", "b": 1}.into(),
            binary(&[9]),
            binary(&[1, 1]),
            bson::oid::ObjectId::from_bytes([1; 12]).into(),
            false.into(),
            true.into(),
            bson::DateTime::from_millis(-1).into(),
            bson::DateTime::from_millis(1).into(),
            Bson::Timestamp(bson::Timestamp { time: 1, increment: 9 }),
            Bson::MaxKey,
        ];
        let raws: Vec<Vec<u8>> =
            ascending.iter().map(|value| doc! {"": value.clone()}.to_vec().expect("a document")).collect();
        let values: Vec<_> = raws
            .iter()
            .map(|raw| {
                let document = Document::new(raw).expect("well formed");
                document.get(b"").expect("well formed").expect("a value")
            })
            .collect();
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                assert_eq!(compare(*a, *b), i.cmp(&j), "{} {i} and {} {j}", a.type_name(), b.type_name());
            }
        }
    }
}

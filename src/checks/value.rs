//! Values of both sides, and whether two of them agree. Pure.
//!
//! Numbers are decimals without loss. Where one of the two is a floating-point number, the last digits that such a number holds do not
//! count. No value, of either side, agrees with none and with zero.

use std::fmt;

use slackwater_connectors::postgres::target::checks::{Cell, CellKind};
use slackwater_topics::{self as topics, Decimal as Decimal128};
use uuid::Uuid;

use crate::config::Within;
use crate::decimal::Decimal;

/// Digits that a floating-point number holds.
const FLOAT_DIGITS: i32 = 15;
/// Text is shown so far.
const MOST_LETTERS: usize = 100;

/// A value of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// No document, no row, null.
    Nothing,
    /// `exact`: not a floating-point number.
    Number {
        number: Decimal,
        exact: bool,
    },
    Text(String),
    Boolean(bool),
    /// Microseconds since 1970.
    Time(i64),
}

impl Value {
    pub(crate) fn whole(number: u64) -> Self {
        Self::number(&number.to_string(), true)
    }

    /// What is no number is a word, such as `NaN`.
    fn number(text: &str, exact: bool) -> Self {
        match Decimal::parse(text) {
            Some(number) => Self::Number { number, exact },
            None => Self::Text(text.to_owned()),
        }
    }

    /// Of the source; the kind of the value where it cannot be compared.
    pub(crate) fn of_source(value: topics::Value<'_>) -> Result<Self, &'static str> {
        use topics::Value as Bson;
        Ok(match value {
            Bson::Null | Bson::Undefined => Self::Nothing,
            Bson::Int32(number) => Self::number(&number.to_string(), true),
            Bson::Int64(number) => Self::number(&number.to_string(), true),
            Bson::Double(number) if number.is_nan() => Self::Text("NaN".to_owned()),
            Bson::Double(number) if number.is_infinite() => Self::infinity(number < 0.0),
            Bson::Double(number) => Self::number(&format!("{number:?}"), false),
            Bson::Decimal128(bytes) => match Decimal128::from_bytes(bytes) {
                Decimal128::NaN => Self::Text("NaN".to_owned()),
                Decimal128::Infinity { negative } => Self::infinity(negative),
                Decimal128::Finite { negative, coefficient, exponent } => {
                    let sign = if negative { "-" } else { "" };
                    Self::number(&format!("{sign}{coefficient}e{exponent}"), true)
                }
            },
            Bson::String(text) | Bson::Symbol(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            Bson::Boolean(value) => Self::Boolean(value),
            Bson::DateTime(millis) => Self::Time(millis.saturating_mul(1_000)),
            Bson::ObjectId(id) => Self::Text(id.iter().map(|byte| format!("{byte:02x}")).collect()),
            Bson::Binary { subtype: 3 | 4, bytes } => match Uuid::from_slice(bytes) {
                Ok(id) => Self::Text(id.to_string()),
                Err(_) => return Err("binary data"),
            },
            Bson::Binary { .. } => return Err("binary data"),
            Bson::Document(_) => return Err("an object"),
            Bson::Array(_) => return Err("an array"),
            _ => return Err("a value of a rare type"),
        })
    }

    fn infinity(negative: bool) -> Self {
        Self::Text(if negative { "-Infinity" } else { "Infinity" }.to_owned())
    }

    /// Of the target.
    pub(crate) fn of_target(cell: Cell) -> Self {
        let Some(text) = cell.text else { return Self::Nothing };
        match cell.kind {
            CellKind::Exact => Self::number(&text, true),
            CellKind::Float => Self::number(&text, false),
            CellKind::Boolean => Self::Boolean(text == "true"),
            CellKind::Time => text.parse().map_or(Self::Text(text), Self::Time),
            CellKind::Text => Self::Text(text),
        }
    }

    /// As JSON: numbers as text, so that nothing is lost.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Nothing => serde_json::Value::Null,
            Self::Boolean(value) => (*value).into(),
            _ => self.to_string().into(),
        }
    }

    /// As a key that both sides write in the same way.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Nothing => "(none)".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Number { number, .. } => write!(f, "{number}"),
            Self::Text(text) => match text.char_indices().nth(MOST_LETTERS) {
                Some((end, _)) => write!(f, "{}…", &text[..end]),
                None => f.write_str(text),
            },
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Time(micros) => match jiff::Timestamp::from_microsecond(*micros) {
                Ok(time) => write!(f, "{time}"),
                Err(_) => write!(f, "{micros} µs"),
            },
        }
    }
}

/// Whether the target says what the source says.
pub(crate) fn agree(source: &Value, target: &Value, within: &Within) -> bool {
    use Value::{Nothing, Number};
    let zero = &Number { number: Decimal::default(), exact: true };
    match (source, target) {
        (Nothing, Nothing) => true,
        (Nothing, Number { .. }) => agree(zero, target, within),
        (Number { .. }, Nothing) => agree(source, zero, within),
        (Number { number: source, exact: a }, Number { number: target, exact: b }) => {
            let apart = source.distance(target);
            let close = match within {
                Within::Amount(amount) => apart <= *amount,
                Within::Percent(percent) => apart.shifted(2) <= percent.times(&source.abs()),
            };
            let float = !(*a && *b);
            close || (float && apart.shifted(FLOAT_DIGITS) <= source.abs().max(target.abs()))
        }
        _ => source == target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Value {
        Value::number(text, true)
    }

    fn float(text: &str) -> Value {
        Value::number(text, false)
    }

    fn amount(text: &str) -> Within {
        Within::Amount(Decimal::parse(text).expect("a number"))
    }

    fn percent(text: &str) -> Within {
        Within::Percent(Decimal::parse(text).expect("a number"))
    }

    #[test]
    fn numbers_agree_by_their_digits() {
        let none = amount("0");
        for (source, target, same) in [
            (exact("12.50"), exact("12.5"), true),
            (exact("12.50"), exact("12.51"), false),
            (
                exact("99999999999999999999999999999999.01"),
                exact("99999999999999999999999999999999.02"),
                false,
            ),
            (float("0.30000000000000004"), exact("0.30"), true),
            (float("0.30000000000000004"), float("0.3"), true),
            (exact("0.30000000000000004"), exact("0.30"), false),
            (float("1000000000.01"), exact("1000000000.02"), false),
            (float("5400.0"), exact("5400"), true),
        ] {
            assert_eq!(agree(&source, &target, &none), same, "{source} {target}");
            assert_eq!(agree(&target, &source, &none), same, "{source} {target}");
        }
    }

    #[test]
    fn a_tolerance_is_one_of_numbers() {
        for (source, target, within, same) in [
            ("100", "101", amount("1"), true),
            ("100", "101.01", amount("1"), false),
            ("100", "99", percent("1"), true),
            ("100", "98.99", percent("1"), false),
            ("-200", "-202", percent("1"), true),
            ("-200", "-202.5", percent("1"), false),
            ("0", "0.01", percent("50"), false),
        ] {
            assert_eq!(agree(&exact(source), &exact(target), &within), same, "{source} {target} {within:?}");
        }
        let text = |text: &str| Value::Text(text.into());
        assert!(!agree(&text("a"), &text("b"), &percent("100")));
        assert!(!agree(&Value::Time(1), &Value::Time(2), &amount("5")));
    }

    #[test]
    fn nothing_is_zero_and_no_text() {
        let none = amount("0");
        let text = Value::Text(String::new());
        for (source, target, same) in [
            (Value::Nothing, Value::Nothing, true),
            (Value::Nothing, exact("0.00"), true),
            (exact("0"), Value::Nothing, true),
            (Value::Nothing, exact("0.01"), false),
            (Value::Nothing, text.clone(), false),
            (Value::Boolean(false), Value::Nothing, false),
        ] {
            assert_eq!(agree(&source, &target, &none), same, "{source} {target}");
        }
        assert!(agree(&Value::Nothing, &exact("3"), &amount("3")));
    }

    #[test]
    fn other_values_agree_with_their_like() {
        let none = amount("0");
        let time = Value::of_source(topics::Value::DateTime(1_772_359_200_123)).expect("a time");
        let cell = |kind, text: &str| Value::of_target(Cell { kind, text: Some(text.into()) });
        assert!(agree(&time, &cell(CellKind::Time, "1772359200123000"), &none));
        assert!(!agree(&time, &cell(CellKind::Time, "1772359200123001"), &none));
        assert_eq!(time.to_string(), "2026-03-01T10:00:00.123Z");
        assert!(agree(&Value::Boolean(true), &cell(CellKind::Boolean, "true"), &none));
        assert!(!agree(&Value::Boolean(true), &cell(CellKind::Text, "true"), &none));
        assert!(!agree(&exact("5"), &cell(CellKind::Text, "5"), &none), "text is no number");
        let id = Value::of_source(topics::Value::ObjectId(&[0xab; 12])).expect("an id");
        assert_eq!(id.key(), "abababababababababababab");
        assert_eq!(
            cell(CellKind::Exact, "NaN"),
            Value::of_source(topics::Value::Double(f64::NAN)).expect("a word")
        );
    }
}

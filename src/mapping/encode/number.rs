//! A number of any BSON type, or written as text, without loss.

use slackwater_topics::{Decimal, Value};

use super::{Problem, Scratch};
use crate::mapping::rejection::Reason;

/// A number taken apart. Finite ones that are no 64-bit integer leave their digits in the scratch memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    /// `digits × 10^exponent`, most significant digit first, 0 to 9 each.
    Digits {
        negative: bool,
        exponent: i32,
    },
    Infinity {
        negative: bool,
    },
    NaN,
}

/// Takes a number apart, or text that is one.
pub(super) fn read(value: Value<'_>, scratch: &mut Scratch) -> Result<Number, Problem> {
    match value {
        Value::Int32(number) => Ok(Number::Whole(i64::from(number))),
        Value::Int64(number) => Ok(Number::Whole(number)),
        Value::Double(number) => Ok(double(number, &mut scratch.digits)),
        Value::Decimal128(bytes) => Ok(match Decimal::from_bytes(bytes) {
            Decimal::NaN => Number::NaN,
            Decimal::Infinity { negative } => Number::Infinity { negative },
            Decimal::Finite { negative, coefficient, exponent } => {
                spread(coefficient, &mut scratch.digits);
                Number::Digits { negative, exponent }
            }
        }),
        Value::String(text) | Value::Symbol(text) => parse(text.trim_ascii(), &mut scratch.digits)
            .ok_or_else(|| Problem::new(Reason::Type, "this text is not a number")),
        other => Err(Problem::of_type(&other, "a number")),
    }
}

/// A number of a number's type that is whole and small; for yes and no.
pub(super) fn whole(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int32(number) => Some(i64::from(number)),
        Value::Int64(number) => Some(number),
        Value::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i64),
        Value::Decimal128(bytes) => match Decimal::from_bytes(bytes) {
            Decimal::Finite { negative, coefficient, exponent } => {
                slackwater_topics::Magnitude::from_integer(negative, coefficient, exponent).to_i64()
            }
            _ => None,
        },
        _ => None,
    }
}

fn spread(mut coefficient: u128, digits: &mut Vec<u8>) {
    digits.clear();
    while coefficient > 0 {
        // Nineteen digits at a time: division of 128 bits is slow.
        let mut part = (coefficient % 10_000_000_000_000_000_000) as u64;
        coefficient /= 10_000_000_000_000_000_000;
        for _ in 0..19 {
            if part == 0 && coefficient == 0 {
                break;
            }
            digits.push((part % 10) as u8);
            part /= 10;
        }
    }
    digits.reverse();
}

/// The shortest digits that are this double and no other: what a person sees when it is printed.
fn double(number: f64, digits: &mut Vec<u8>) -> Number {
    if number.is_nan() {
        return Number::NaN;
    }
    let negative = number.is_sign_negative();
    if number.is_infinite() {
        return Number::Infinity { negative };
    }
    let size = number.abs();
    // Money and measures have few places. Where the quotient of a whole number under 10^15 and a power of ten is the
    // double itself, those are its shortest digits: no two decimals of 15 digits share a double.
    for (places, power) in [1.0, 10.0, 100.0, 1000.0, 10_000.0].into_iter().enumerate() {
        let scaled = (size * power).round();
        if scaled < 1e15 && scaled / power == size {
            spread(scaled as u128, digits);
            return Number::Digits { negative: negative && size > 0.0, exponent: -(places as i32) };
        }
    }
    parse(format!("{number:e}").as_bytes(), digits).unwrap_or(Number::NaN)
}

/// `[+-]digits[.digits][e[+-]digits]`, `NaN`, `Infinity`, as Postgres takes them.
pub(super) fn parse(text: &[u8], digits: &mut Vec<u8>) -> Option<Number> {
    digits.clear();
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if text.eq_ignore_ascii_case(b"infinity") || text.eq_ignore_ascii_case(b"inf") {
        return Some(Number::Infinity { negative });
    }
    if text.eq_ignore_ascii_case(b"nan") {
        return Some(Number::NaN);
    }
    let mut exponent = 0_i32;
    let mut seen = false;
    let mut point = false;
    let mut letters = text.iter().enumerate();
    for (at, letter) in letters.by_ref() {
        match letter {
            b'0'..=b'9' => {
                seen = true;
                // Leading zeros say nothing, save for places behind the point.
                if *letter != b'0' || !digits.is_empty() {
                    digits.push(letter - b'0');
                }
                exponent -= i32::from(point);
            }
            b'.' if !point => point = true,
            b'e' | b'E' if seen => {
                let power: i32 = std::str::from_utf8(&text[at + 1..]).ok()?.parse().ok()?;
                if power.unsigned_abs() > 1_000_000 {
                    return None;
                }
                return Some(Number::Digits { negative, exponent: exponent.checked_add(power)? });
            }
            _ => return None,
        }
    }
    seen.then_some(Number::Digits { negative, exponent })
}

/// A finite number as text, for parsers of doubles and for people.
pub(super) fn digits_text(negative: bool, digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    if negative {
        out.push(b'-');
    }
    let letters = |digits: &[u8], out: &mut Vec<u8>| out.extend(digits.iter().map(|digit| b'0' + digit));
    let places = -i64::from(exponent);
    if digits.is_empty() {
        out.push(b'0');
        if (1..=34).contains(&places) {
            out.push(b'.');
            out.extend(std::iter::repeat_n(b'0', places as usize));
        }
    } else if exponent == 0 {
        letters(digits, out);
    } else if (1..=40).contains(&places) {
        let places = places as usize;
        if digits.len() > places {
            letters(&digits[..digits.len() - places], out);
            out.push(b'.');
            letters(&digits[digits.len() - places..], out);
        } else {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', places - digits.len()));
            letters(digits, out);
        }
    } else {
        letters(&digits[..1], out);
        if digits.len() > 1 {
            out.push(b'.');
            letters(&digits[1..], out);
        }
        let power = i64::from(exponent) + digits.len() as i64 - 1;
        out.extend_from_slice(if power < 0 { b"E-" } else { b"E+" });
        out.extend_from_slice(itoa::Buffer::new().format(power.unsigned_abs()).as_bytes());
    }
}

//! Integers of 2, 4 and 8 bytes, and floating point.

use slackwater_topics::Value;

use super::number::{self, Number};
use super::{Fit, Lenient, Problem, Scratch};
use crate::mapping::rejection::Reason;

/// An integer. A fraction is invalid, and cut off where `strip` allows it; a number past the range is invalid, and
/// the range's end where `clamp` allows it.
pub(super) fn write(
    value: Value<'_>,
    bytes: u8,
    lenient: Lenient,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Fit, Problem> {
    let (least, most) = match bytes {
        2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let mut fit = Fit::Exact;
    let number = match number::read(value, scratch)? {
        Number::Whole(number) => i128::from(number),
        Number::NaN => return Err(Problem::new(Reason::Range, "NaN is not an integer")),
        Number::Infinity { negative } => {
            if negative {
                i128::MIN
            } else {
                i128::MAX
            }
        }
        Number::Digits { negative, exponent } => {
            let (whole, fraction) = truncated(&scratch.digits, exponent);
            if fraction {
                if lenient != Lenient::Strip {
                    return Err(Problem::new(Reason::Range, "a number with a fraction is not an integer"));
                }
                fit = Fit::Stripped;
            }
            if negative { -whole } else { whole }
        }
    };
    let kept = number.clamp(i128::from(least), i128::from(most));
    if kept != number {
        if lenient != Lenient::Clamp {
            return Err(Problem::new(
                Reason::Range,
                format!("the number is past the range of {bytes} bytes"),
            ));
        }
        fit = Fit::Clamped;
    }
    match bytes {
        2 => out.extend_from_slice(&(kept as i16).to_be_bytes()),
        4 => out.extend_from_slice(&(kept as i32).to_be_bytes()),
        _ => out.extend_from_slice(&(kept as i64).to_be_bytes()),
    }
    Ok(fit)
}

/// The whole part, which stops at the largest there is, and whether there was anything behind the point.
pub(super) fn truncated(digits: &[u8], exponent: i32) -> (i128, bool) {
    let places = (digits.len() as i64 + i64::from(exponent)).clamp(0, 200);
    if digits.is_empty() {
        return (0, false);
    }
    let mut whole = 0_i128;
    for place in 0..places as usize {
        let digit = digits.get(place).copied().unwrap_or(0);
        whole = whole.saturating_mul(10).saturating_add(i128::from(digit));
    }
    let fraction = digits.get(places as usize..).is_some_and(|rest| rest.iter().any(|digit| *digit != 0));
    (whole, fraction)
}

/// The nearest double.
pub(in crate::mapping) fn float(value: Value<'_>, scratch: &mut Scratch) -> Result<f64, Problem> {
    if let Value::Double(number) = value {
        return Ok(number);
    }
    Ok(match number::read(value, scratch)? {
        Number::Whole(number) => number as f64,
        Number::NaN => f64::NAN,
        Number::Infinity { negative } => {
            if negative {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            }
        }
        Number::Digits { negative, exponent } => {
            scratch.text.clear();
            number::digits_text(negative, &scratch.digits, exponent, &mut scratch.text);
            let text = std::str::from_utf8(&scratch.text).unwrap_or_default();
            let number: f64 =
                text.parse().map_err(|_| Problem::new(Reason::Type, "this text is not a number"))?;
            if number.is_infinite() {
                return Err(Problem::new(Reason::Range, "the number is past the range of a double"));
            }
            number
        }
    })
}

/// A double. Decimals are rounded to the nearest one.
pub(super) fn float8(value: Value<'_>, out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<Fit, Problem> {
    out.extend_from_slice(&float(value, scratch)?.to_be_bytes());
    Ok(Fit::Exact)
}

/// A float of 4 bytes; a finite number that would become infinite is invalid.
pub(super) fn float4(
    value: Value<'_>,
    lenient: Lenient,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Fit, Problem> {
    let number = float(value, scratch)?;
    let mut short = number as f32;
    let mut fit = Fit::Exact;
    if short.is_infinite() && number.is_finite() {
        if lenient != Lenient::Clamp {
            return Err(Problem::new(Reason::Range, "the number is past the range of 4 bytes"));
        }
        short = f32::MAX.copysign(short);
        fit = Fit::Clamped;
    }
    out.extend_from_slice(&short.to_be_bytes());
    Ok(fit)
}

//! `numeric`: the wire form, written from the digits themselves.
//!
//! Groups of four digits around the decimal point, the place of the first group, the sign, and how many places are
//! shown. All of Decimal128 fits; so do NaN and, without a precision, the infinities (Postgres 14 and later).

use slackwater_topics::Value;

use super::number::{self, Number};
use super::{Fit, Lenient, Problem, Scratch};
use crate::mapping::rejection::Reason;

/// `numeric(precision, scale)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) precision: i32,
    pub(crate) scale: i32,
}

impl Shape {
    /// From Postgres' modifier; none for plain `numeric`.
    pub(crate) fn of_modifier(modifier: i32) -> Option<Self> {
        if modifier < 4 {
            return None;
        }
        let bits = modifier - 4;
        // The scale has eleven bits and a sign since Postgres 15.
        let scale = ((bits & 0x7ff) ^ 1024) - 1024;
        Some(Self { precision: (bits >> 16) & 0xffff, scale })
    }
}

const LARGEST_PLACES_BEFORE: i64 = 131_072;
const LARGEST_PLACES_BEHIND: i64 = 16_383;

pub(super) fn write(
    value: Value<'_>,
    shape: Option<Shape>,
    lenient: Lenient,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Fit, Problem> {
    let special = |sign: u16, out: &mut Vec<u8>| {
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        Ok(Fit::Exact)
    };
    let (negative, mut exponent) = match number::read(value, scratch)? {
        Number::NaN => return special(0xc000, out),
        Number::Infinity { negative } => {
            let Some(shape) = shape else { return special(if negative { 0xf000 } else { 0xd000 }, out) };
            return largest(negative, shape, lenient, out, scratch);
        }
        Number::Whole(number) => {
            whole(number.unsigned_abs(), &mut scratch.digits);
            (number < 0, 0)
        }
        Number::Digits { negative, exponent } => (negative, exponent),
    };
    let digits = &mut scratch.digits;
    if let Some(shape) = shape {
        round(digits, &mut exponent, shape.scale);
        if !digits.is_empty() && digits.len() as i32 + exponent > shape.precision - shape.scale {
            return largest(negative, shape, lenient, out, scratch);
        }
        append(negative, digits, exponent, shape.scale.max(0), out);
        return Ok(Fit::Exact);
    }
    let before = digits.len() as i64 + i64::from(exponent);
    let behind = (-i64::from(exponent)).max(0);
    if !digits.is_empty() && before > LARGEST_PLACES_BEFORE || behind > LARGEST_PLACES_BEHIND {
        return Err(Problem::new(Reason::Range, "the number has more digits than numeric holds"));
    }
    append(negative, digits, exponent, behind as i32, out);
    Ok(Fit::Exact)
}

fn whole(mut number: u64, digits: &mut Vec<u8>) {
    digits.clear();
    while number > 0 {
        digits.push((number % 10) as u8);
        number /= 10;
    }
    digits.reverse();
}

fn largest(
    negative: bool,
    shape: Shape,
    lenient: Lenient,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Fit, Problem> {
    if lenient != Lenient::Clamp {
        let Shape { precision, scale } = shape;
        let text = format!("the number is past the range of numeric({precision},{scale})");
        return Err(Problem::new(Reason::Range, text));
    }
    scratch.digits.clear();
    scratch.digits.resize(shape.precision.max(0) as usize, 9);
    append(negative, &scratch.digits, -shape.scale, shape.scale.max(0), out);
    Ok(Fit::Clamped)
}

/// Rounds half away from zero, as Postgres does.
fn round(digits: &mut Vec<u8>, exponent: &mut i32, scale: i32) {
    let surplus = -i64::from(*exponent) - i64::from(scale);
    if surplus <= 0 {
        return;
    }
    *exponent = -scale;
    let kept = digits.len() as i64 - surplus;
    if kept < 0 {
        digits.clear();
        return;
    }
    let kept = kept as usize;
    let up = digits[kept..].first().is_some_and(|digit| *digit >= 5);
    digits.truncate(kept);
    if !up {
        return;
    }
    for digit in digits.iter_mut().rev() {
        if *digit < 9 {
            *digit += 1;
            return;
        }
        *digit = 0;
    }
    digits.insert(0, 1);
}

fn append(negative: bool, digits: &[u8], exponent: i32, shown: i32, out: &mut Vec<u8>) {
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = &digits[zeros..];
    let end = digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
    // Places before the point; the groups are counted from there.
    let point = digits.len() as i32 + exponent;
    let digits = &digits[..end];
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    if digits.is_empty() {
        out[start + 6..].copy_from_slice(&(shown as u16).to_be_bytes());
        return;
    }
    let weight = (point + 3).div_euclid(4) - 1;
    // The first group has its left places empty where the number of digits before the point is not a multiple of four.
    let lead = (weight + 1) * 4 - point;
    let (mut group, mut filled) = (0_i16, lead);
    for digit in digits {
        group = group * 10 + i16::from(*digit);
        filled += 1;
        if filled == 4 {
            out.extend_from_slice(&group.to_be_bytes());
            (group, filled) = (0, 0);
        }
    }
    if filled > 0 {
        for _ in filled..4 {
            group *= 10;
        }
        out.extend_from_slice(&group.to_be_bytes());
    }
    let groups = (out.len() - start - 8) / 2;
    out[start..start + 2].copy_from_slice(&(groups as i16).to_be_bytes());
    out[start + 2..start + 4].copy_from_slice(&(weight as i16).to_be_bytes());
    out[start + 4..start + 6].copy_from_slice(&(if negative { 0x4000_u16 } else { 0 }).to_be_bytes());
    out[start + 6..start + 8].copy_from_slice(&(shown as u16).to_be_bytes());
}

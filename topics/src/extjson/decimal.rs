//! Decimal128 as text and back, in the form that the standard gives it: no digit is lost and none is made up.

use std::io::Write;

use crate::decimal::Decimal;

const NAN: u128 = 0b1_1111 << 122;
const INFINITY: u128 = 0b1_1110 << 122;
const DIGITS: usize = 34;
const LARGEST_EXPONENT: i64 = 6111;
const SMALLEST_EXPONENT: i64 = -6176;

fn pack(negative: bool, exponent: i64, coefficient: u128) -> u128 {
    u128::from(negative) << 127 | ((exponent - SMALLEST_EXPONENT) as u128) << 113 | coefficient
}

/// Appends the number. False where other bytes say the same number: the text means those.
pub(super) fn write(bytes: &[u8; 16], out: &mut Vec<u8>) -> bool {
    let bits = u128::from_le_bytes(*bytes);
    match Decimal::from_bytes(bytes) {
        Decimal::NaN => {
            out.extend_from_slice(b"NaN");
            bits == NAN
        }
        Decimal::Infinity { negative } => {
            out.extend_from_slice(if negative { b"-Infinity" } else { b"Infinity" });
            bits & !(1 << 127) == INFINITY
        }
        Decimal::Finite { negative, coefficient, exponent } => {
            if negative {
                out.push(b'-');
            }
            finite(coefficient, exponent, out);
            bits == pack(negative, i64::from(exponent), coefficient)
        }
    }
}

fn finite(coefficient: u128, exponent: i32, out: &mut Vec<u8>) {
    let start = out.len();
    let _ = write!(out, "{coefficient}");
    let length = (out.len() - start) as i32;
    let adjusted = exponent + length - 1;
    if exponent > 0 || adjusted < -6 {
        if length > 1 {
            out.insert(start + 1, b'.');
        }
        let _ = write!(out, "E{adjusted:+}");
    } else if exponent < 0 {
        let point = length + exponent;
        if point <= 0 {
            let zeros = (1 - point) as usize;
            out.splice(start..start, std::iter::repeat_n(b'0', zeros));
            out.insert(start + 1, b'.');
        } else {
            out.insert(start + point as usize, b'.');
        }
    }
}

/// `None` for what is not a number, or one that 34 digits and the exponent cannot hold exactly.
pub(super) fn read(text: &[u8]) -> Option<[u8; 16]> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let sign = u128::from(negative) << 127;
    let bits = match unsigned {
        b"NaN" => NAN,
        b"Infinity" | b"Inf" => INFINITY | sign,
        _ => number(negative, unsigned)?,
    };
    Some(bits.to_le_bytes())
}

fn number(negative: bool, text: &[u8]) -> Option<u128> {
    let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let mut exponent = 0_i64;
    if let Some(power) = text.get(end + 1..) {
        exponent = std::str::from_utf8(power).ok()?.parse().ok()?;
        if exponent.abs() > 1_000_000_000 {
            return None;
        }
    }
    let (mut coefficient, mut digits, mut zeros) = (0_u128, 0_usize, 0_i64);
    let (mut any, mut point) = (false, false);
    for byte in &text[..end] {
        match byte {
            b'.' if !point => {
                point = true;
                continue;
            }
            b'0'..=b'9' => {}
            _ => return None,
        }
        any = true;
        exponent -= i64::from(point);
        if digits >= DIGITS {
            // Past the last digit that fits only zeros change nothing but the exponent.
            if *byte != b'0' {
                return None;
            }
            zeros += 1;
            continue;
        }
        coefficient = coefficient * 10 + u128::from(byte - b'0');
        digits += usize::from(coefficient > 0);
    }
    if !any {
        return None;
    }
    fit(coefficient, exponent + zeros).map(|(coefficient, exponent)| pack(negative, exponent, coefficient))
}

/// Moves zeros between the digits and the exponent until the exponent is in range.
fn fit(mut coefficient: u128, mut exponent: i64) -> Option<(u128, i64)> {
    if coefficient == 0 {
        return Some((0, exponent.clamp(SMALLEST_EXPONENT, LARGEST_EXPONENT)));
    }
    while exponent > LARGEST_EXPONENT {
        coefficient *= 10;
        if coefficient >= 10_u128.pow(DIGITS as u32) {
            return None;
        }
        exponent -= 1;
    }
    while exponent < SMALLEST_EXPONENT {
        if !coefficient.is_multiple_of(10) {
            return None;
        }
        coefficient /= 10;
        exponent += 1;
    }
    Some((coefficient, exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8; 16]) -> (String, bool) {
        let mut out = Vec::new();
        let faithful = write(bytes, &mut out);
        (String::from_utf8(out).expect("text"), faithful)
    }

    #[test]
    fn golden() {
        for number in [
            "0",
            "-0",
            "1",
            "-1",
            "1.10",
            "0.001234",
            "0.0000012",
            "1.2E-7",
            "1E+3",
            "1.23E+45",
            "0E+3",
            "0E-6176",
            "0.000000",
            "0E-7",
            "9.999999999999999999999999999999999E+6144",
            "1E-6176",
            "Infinity",
            "-Infinity",
            "NaN",
            "1234567890123456789012345678901234",
        ] {
            let bytes = read(number.as_bytes()).expect(number);
            assert_eq!(text(&bytes), (number.to_owned(), true));
        }
    }

    #[test]
    fn other_spellings_are_read() {
        for (other, number) in [
            ("+1", "1"),
            ("1e3", "1E+3"),
            ("01", "1"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1E6112", "1.0E+6112"),
            ("10E-6177", "1E-6176"),
            ("0E9999", "0E+6111"),
            ("10000000000000000000000000000000000", "1.000000000000000000000000000000000E+34"),
        ] {
            assert_eq!(text(&read(other.as_bytes()).expect(other)).0, number);
        }
        for nothing in [
            "",
            ".",
            "-",
            "e1",
            "1e",
            "1..2",
            "1.2.3",
            "x",
            "1e9999",
            "1E-6177",
            "12345678901234567890123456789012345",
            "1e99999999999999999999",
            "- 1",
            "nan(1)",
        ] {
            assert_eq!(read(nothing.as_bytes()), None, "{nothing}");
        }
    }

    proptest::proptest! {
        /// Any bits: told as faithful exactly if they come back, and the text is the one other programs write.
        #[test]
        fn is_what_the_driver_says(bits: u128, exponent in 0_u128..=12287, coefficient in 0_u128..10_u128.pow(34), small in 0_u32..114) {
            for bits in [bits, exponent << 113 | coefficient, exponent << 113 | coefficient >> small | 1 << 127] {
                let bytes = bits.to_le_bytes();
                let (text, faithful) = text(&bytes);
                proptest::prop_assert_eq!(read(text.as_bytes()) == Some(bytes), faithful, "{}", text);
                if faithful {
                    proptest::prop_assert_eq!(&text, &bson::Decimal128::from_bytes(bytes).to_string());
                }
            }
        }
    }
}

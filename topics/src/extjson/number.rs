//! Doubles as text and back: the shortest text that reads to the same bits.

use std::io::Write;

/// Appends the number. False for a not-a-number that carries bits of its own.
pub(super) fn write(value: f64, out: &mut Vec<u8>) -> bool {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return value.to_bits() == f64::NAN.to_bits();
    }
    if value.is_infinite() {
        out.extend_from_slice(if value < 0.0 { b"-Infinity" } else { b"Infinity" });
    } else {
        // The debug form has a point or an exponent, so the text is never taken for a whole number.
        let _ = write!(out, "{value:?}");
    }
    true
}

pub(super) fn read(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
        _ => None,
    }
}

/// Where JSON is stricter than Rust: no zero in front, digits on both sides of the point.
pub(super) fn is_json(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let fraction = text[whole..].strip_prefix('.');
    whole > 0 && (whole == 1 || !text.starts_with('0')) && fraction.is_none_or(|text| digits(text) > 0)
}

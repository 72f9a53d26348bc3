//! Text, labels of enums, network addresses.

use slackwater_topics::{Decimal, Value};

use super::number;
use super::time::iso_text;
use super::{Fit, Lenient, Problem, Scratch};
use crate::mapping::rejection::Reason;

/// How text is written.
#[derive(Clone, Debug, Default)]
pub(in crate::mapping) struct Text {
    pub(in crate::mapping) trim: bool,
    pub(in crate::mapping) lower: bool,
    /// Characters, for `varchar(n)` and `char(n)`.
    pub(in crate::mapping) limit: Option<usize>,
    /// `char(n)`: blanks up to the limit, as Postgres keeps it.
    pub(in crate::mapping) pad: bool,
}

impl Text {
    pub(super) fn write(
        &self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let (text, mut fit) = of(value, lenient, &mut scratch.text)?;
        let text = if self.trim { text.trim() } else { text };
        let start = out.len();
        if !self.lower {
            out.extend_from_slice(text.as_bytes());
        } else if text.is_ascii() {
            out.extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
        } else {
            out.extend_from_slice(text.to_lowercase().as_bytes());
        }
        let Some(limit) = self.limit else { return Ok(fit) };
        let mut length = out.len() - start;
        // Bytes are never fewer than characters, so most text need not be counted.
        if length > limit {
            let written = std::str::from_utf8(&out[start..]).map_err(|_| Problem::malformed())?;
            if let Some((at, _)) = written.char_indices().nth(limit) {
                // Blanks past the end are cut in silence, as SQL has it.
                if written[at..].trim_end_matches(' ').is_empty() {
                } else if lenient == Lenient::Clamp {
                    fit = Fit::Clamped;
                } else {
                    let text = format!("the text has more than {limit} characters");
                    return Err(Problem::new(Reason::Length, text));
                }
                length = at;
                out.truncate(start + at);
            }
        }
        if self.pad && length < limit * 4 {
            let characters = std::str::from_utf8(&out[start..]).map_or(limit, |text| text.chars().count());
            out.extend(std::iter::repeat_n(b' ', limit.saturating_sub(characters)));
        }
        Ok(fit)
    }
}

/// The text of a value. Postgres takes neither NUL nor what is no UTF-8.
pub(super) fn of<'b>(
    value: Value<'b>,
    lenient: Lenient,
    buffer: &'b mut Vec<u8>,
) -> Result<(&'b str, Fit), Problem> {
    let (Value::String(raw) | Value::Symbol(raw) | Value::JavaScript(raw)) = value else {
        buffer.clear();
        scalar(value, buffer)?;
        return Ok((std::str::from_utf8(buffer).map_err(|_| Problem::malformed())?, Fit::Exact));
    };
    match std::str::from_utf8(raw) {
        Ok(text) if !raw.contains(&0) => Ok((text, Fit::Exact)),
        _ if lenient == Lenient::Strip => {
            buffer.clear();
            strip(raw, buffer);
            Ok((std::str::from_utf8(buffer).map_err(|_| Problem::malformed())?, Fit::Stripped))
        }
        Ok(_) => Err(Problem::new(Reason::Text, "the text holds a NUL character, which Postgres refuses")),
        Err(_) => Err(Problem::new(Reason::Text, "the text is not valid UTF-8")),
    }
}

/// What is left of text without NUL, lone surrogates and other bytes that are no UTF-8.
pub(super) fn strip(raw: &[u8], out: &mut Vec<u8>) {
    for chunk in raw.utf8_chunks() {
        out.extend(chunk.valid().bytes().filter(|byte| *byte != 0));
    }
}

fn scalar(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Problem> {
    match value {
        Value::ObjectId(id) => hex(id, out),
        Value::Int32(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Int64(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Double(number) => double(number, out),
        Value::Decimal128(bytes) => decimal(bytes, out),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::DateTime(millis) => {
            if !iso_text(millis, out) {
                return Err(Problem::new(Reason::Range, "the date's year has no four digits"));
            }
        }
        Value::Binary { subtype: 3 | 4, bytes } if bytes.len() == 16 => {
            let mut id = [0; 16];
            id.copy_from_slice(bytes);
            super::uuid::append(uuid::Uuid::from_bytes(id), true, out);
        }
        other => return Err(Problem::of_type(&other, "text")),
    }
    Ok(())
}

pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place > chunk.len() { b'=' } else { letter });
        }
    }
}

/// A double as people write it; the shortest digits that are this double and no other.
fn double(number: f64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let size = number.abs();
    // Writing into memory cannot fail.
    let _ = if number.is_nan() {
        write!(out, "NaN")
    } else if number.is_infinite() {
        write!(out, "{}", if number > 0.0 { "Infinity" } else { "-Infinity" })
    } else if number == 0.0 || (1e-5..1e15).contains(&size) {
        write!(out, "{}", if number == 0.0 { 0.0 } else { number })
    } else {
        write!(out, "{number:e}")
    };
}

pub(super) fn decimal(bytes: &[u8; 16], out: &mut Vec<u8>) {
    match Decimal::from_bytes(bytes) {
        Decimal::NaN => out.extend_from_slice(b"NaN"),
        Decimal::Infinity { negative: false } => out.extend_from_slice(b"Infinity"),
        Decimal::Infinity { negative: true } => out.extend_from_slice(b"-Infinity"),
        Decimal::Finite { negative, coefficient, exponent } => {
            let mut digits = [0; 39];
            let mut at = digits.len();
            let mut rest = coefficient;
            while rest > 0 {
                at -= 1;
                digits[at] = (rest % 10) as u8;
                rest /= 10;
            }
            number::digits_text(negative && coefficient > 0, &digits[at..], exponent, out);
        }
    }
}

/// Labels of an enum, from what is written in the document.
#[derive(Clone, Debug)]
pub(in crate::mapping) struct Enum {
    pub(in crate::mapping) trim: bool,
    pub(in crate::mapping) lower: bool,
    /// Sorted by what is written.
    pub(in crate::mapping) labels: Vec<(Box<str>, Box<str>)>,
    pub(in crate::mapping) unknown: Unknown,
}

/// What happens to a value that has no label.
#[derive(Clone, Debug)]
pub(in crate::mapping) enum Unknown {
    Reject,
    Null,
    Label(Box<str>),
}

impl Enum {
    pub(super) fn write(
        &self,
        value: Value<'_>,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let (text, _) = of(value, Lenient::No, &mut scratch.text)?;
        let text = if self.trim { text.trim() } else { text };
        let lowered;
        let text = if self.lower {
            lowered = text.to_lowercase();
            lowered.as_str()
        } else {
            text
        };
        if let Ok(at) = self.labels.binary_search_by(|(written, _)| (**written).cmp(text)) {
            out.extend_from_slice(self.labels[at].1.as_bytes());
            return Ok(Fit::Exact);
        }
        match &self.unknown {
            Unknown::Reject => Err(Problem::new(Reason::Label, "no label is known for this value")),
            Unknown::Null => Ok(Fit::UnknownNull),
            Unknown::Label(label) => {
                out.extend_from_slice(label.as_bytes());
                Ok(Fit::UnknownLabel)
            }
        }
    }
}

/// `inet` and `cidr`, from text such as `10.0.0.1` or `10.0.0.0/8`.
pub(super) fn inet(value: Value<'_>, cidr: bool, out: &mut Vec<u8>) -> Result<Fit, Problem> {
    let (Value::String(text) | Value::Symbol(text)) = value else {
        return Err(Problem::of_type(&value, "a network address"));
    };
    let none = || Problem::new(Reason::Type, "this text is not a network address");
    let text = std::str::from_utf8(text).map_err(|_| none())?.trim();
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| none())?)),
        None => (text, None),
    };
    let address: std::net::IpAddr = address.parse().map_err(|_| none())?;
    let (family, bytes): (u8, Vec<u8>) = match address {
        std::net::IpAddr::V4(address) => (2, address.octets().to_vec()),
        std::net::IpAddr::V6(address) => (3, address.octets().to_vec()),
    };
    let most = (bytes.len() * 8) as u8;
    let bits = bits.unwrap_or(most);
    if bits > most {
        return Err(none());
    }
    if cidr {
        let value = bytes.iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
        let host = u32::from(most - bits);
        if host > 0 && value & (u128::MAX >> (128 - host)) != 0 {
            return Err(Problem::new(Reason::Range, "the network has bits set to the right of its mask"));
        }
    }
    out.extend_from_slice(&[family, bits, u8::from(cidr), bytes.len() as u8]);
    out.extend_from_slice(&bytes);
    Ok(Fit::Exact)
}

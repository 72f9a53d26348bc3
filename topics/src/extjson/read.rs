//! From text to raw BSON, in one pass: the containers that are open are a list of where each began.
//!
//! Canonical text and relaxed text are read; keys keep their order and may occur twice.

use std::fmt;
use std::io::Write;

use super::WRAPPERS;
use super::number;

/// The text is no Extended JSON, from this byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Offset in the text.
    pub at: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the extended JSON is broken at byte {}: expected {}", self.at, self.expected)
    }
}

impl std::error::Error for Unreadable {}

/// Reads a document. At the top a key such as `$oid` is a key like any other.
pub fn read(text: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut out = Vec::with_capacity(text.len());
    let mut reader = Reader::new(text, &mut out)?;
    reader.space();
    reader.expect(b'{', "an object")?;
    reader.enter(Kind::Object);
    reader.run()?;
    Ok(out)
}

/// Reads one value and appends it as a BSON element (type, name, value) of that name, which has no zero byte.
/// After an error `out` ends with a piece of it.
pub fn read_value(text: &[u8], name: &str, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let mut reader = Reader::new(text, out)?;
    let element = reader.out.len();
    reader.out.push(0);
    reader.out.extend_from_slice(name.as_bytes());
    reader.out.push(0);
    reader.space();
    reader.value(element)?;
    reader.run()
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Object,
    /// With the index that comes next.
    Array(usize),
    /// The scope of JavaScript, with the place of the whole value's length.
    Scope(usize),
}

struct Open {
    kind: Kind,
    /// Where the length goes when it is known.
    start: usize,
}

pub(super) struct Reader<'t, 'o> {
    text: &'t str,
    at: usize,
    pub(super) out: &'o mut Vec<u8>,
    open: Vec<Open>,
    /// The text that [`Reader::string`] read last.
    pub(super) word: Vec<u8>,
}

impl<'t, 'o> Reader<'t, 'o> {
    fn new(text: &'t [u8], out: &'o mut Vec<u8>) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(text)
            .map_err(|error| Unreadable { at: error.valid_up_to(), expected: "UTF-8" })?;
        Ok(Self { text, at: 0, out, open: Vec::new(), word: Vec::new() })
    }

    pub(super) fn fail<T>(&self, expected: &'static str) -> Result<T, Unreadable> {
        Err(Unreadable { at: self.at, expected })
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// This byte, and the space behind it.
    pub(super) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Unreadable> {
        if self.peek() != Some(byte) {
            return self.fail(expected);
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    pub(super) fn enter(&mut self, kind: Kind) {
        self.open.push(Open { kind, start: self.out.len() });
        self.out.extend_from_slice(&[0; 4]);
    }

    fn run(&mut self) -> Result<(), Unreadable> {
        while let Some(Open { kind, start }) = self.open.last_mut() {
            let (kind, start) = (*kind, *start);
            let end = if let Kind::Array(_) = kind { b']' } else { b'}' };
            if self.peek() == Some(end) {
                self.at += 1;
                self.leave(kind, start)?;
                self.space();
                continue;
            }
            if self.out.len() > start + 4 {
                self.expect(b',', "a comma or the end of what is open")?;
            }
            let element = self.out.len();
            self.out.push(0);
            self.name(kind)?;
            self.value(element)?;
        }
        self.space();
        if self.at < self.text.len() {
            return self.fail("nothing more");
        }
        Ok(())
    }

    fn name(&mut self, kind: Kind) -> Result<(), Unreadable> {
        if let Kind::Array(index) = kind {
            let _ = write!(self.out, "{index}");
            if let Some(open) = self.open.last_mut() {
                open.kind = Kind::Array(index + 1);
            }
        } else {
            self.string()?;
            if self.word.contains(&0) {
                return self.fail("a key without a zero character");
            }
            self.out.extend_from_slice(&self.word);
            self.expect(b':', "a colon")?;
        }
        self.out.push(0);
        Ok(())
    }

    fn leave(&mut self, kind: Kind, start: usize) -> Result<(), Unreadable> {
        self.open.pop();
        self.out.push(0);
        self.length(start, start)?;
        if let Kind::Scope(whole) = kind {
            self.length(whole, whole)?;
            self.space();
            self.expect(b'}', "the end of the JavaScript")?;
        }
        Ok(())
    }

    /// Writes how much is behind `from` into the four bytes at `place`.
    pub(super) fn length(&mut self, place: usize, from: usize) -> Result<(), Unreadable> {
        let Ok(length) = i32::try_from(self.out.len() - from) else { return self.fail("less than 2 GiB") };
        self.out[place..place + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Appends [`Reader::word`] as a BSON string.
    pub(super) fn put_word(&mut self) -> Result<(), Unreadable> {
        let place = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(&self.word);
        self.out.push(0);
        self.length(place, place + 4)
    }

    /// Reads a JSON string into [`Reader::word`], and the space behind it.
    pub(super) fn string(&mut self) -> Result<(), Unreadable> {
        let mut word = std::mem::take(&mut self.word);
        word.clear();
        let read = self.decode(&mut word);
        self.word = word;
        self.space();
        read
    }

    fn decode(&mut self, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        if self.peek() != Some(b'"') {
            return self.fail("a quote");
        }
        self.at += 1;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain =
                rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match rest.get(plain) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape(out)?,
                _ => return self.fail("the end of the text in quotes"),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let plain = match self.text.as_bytes().get(self.at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'u') => {
                let unit = self.unit()?;
                let letter = match char::from_u32(unit) {
                    Some(letter) => letter,
                    // Half of a pair; the other half has to follow.
                    None => {
                        let low = self.unit()?;
                        let pair = [unit as u16, low as u16];
                        match char::decode_utf16(pair).next() {
                            Some(Ok(letter)) => letter,
                            _ => return self.fail("the other half of the character"),
                        }
                    }
                };
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return self.fail("a known escape"),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    /// `\uXXXX`.
    fn unit(&mut self) -> Result<u32, Unreadable> {
        let digits = self.text.get(self.at..self.at + 6).and_then(|text| text.strip_prefix("\\u"));
        let unit = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(unit) = unit else { return self.fail("four hexadecimal digits") };
        self.at += 6;
        Ok(unit)
    }

    /// The characters of a JSON number, whatever their order, and the space behind them.
    pub(super) fn digits(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let is_number = |byte: u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let length = rest.bytes().take_while(|byte| is_number(*byte)).count();
        self.at += length;
        self.space();
        &rest[..length]
    }

    pub(super) fn literal(&mut self, text: &str, expected: &'static str) -> Result<(), Unreadable> {
        if !self.text[self.at..].starts_with(text) {
            return self.fail(expected);
        }
        self.at += text.len();
        self.space();
        Ok(())
    }

    /// Sets the type of the element that began at `element`.
    pub(super) fn is(&mut self, element: usize, kind: u8) {
        self.out[element] = kind;
    }

    /// Reads what follows a key. A container is only opened; [`Reader::run`] goes on with it.
    fn value(&mut self, element: usize) -> Result<(), Unreadable> {
        match self.peek() {
            Some(b'"') => {
                self.string()?;
                self.is(element, 0x02);
                self.put_word()
            }
            Some(b'{') => self.object(element),
            Some(b'[') => {
                self.at += 1;
                self.space();
                self.is(element, 0x04);
                self.enter(Kind::Array(0));
                Ok(())
            }
            Some(b't') => {
                self.is(element, 0x08);
                self.out.push(1);
                self.literal("true", "true")
            }
            Some(b'f') => {
                self.is(element, 0x08);
                self.out.push(0);
                self.literal("false", "false")
            }
            Some(b'n') => {
                self.is(element, 0x0a);
                self.literal("null", "null")
            }
            Some(b'0'..=b'9' | b'-') => self.number(element),
            _ => self.fail("a value"),
        }
    }

    fn object(&mut self, element: usize) -> Result<(), Unreadable> {
        self.at += 1;
        self.space();
        let before = self.at;
        // An escape may spell a dollar sign too.
        if let [b'"', b'$' | b'\\', ..] = self.text.as_bytes()[self.at..] {
            self.string()?;
            if WRAPPERS.contains(&self.word.as_slice()) {
                self.expect(b':', "a colon")?;
                return self.wrapper(element);
            }
            self.at = before;
        }
        self.is(element, 0x03);
        self.enter(Kind::Object);
        Ok(())
    }

    fn number(&mut self, element: usize) -> Result<(), Unreadable> {
        let start = self.at;
        let text = self.digits();
        let float = number::read(text).filter(|_| number::is_json(text));
        match (text.parse::<i32>(), text.parse::<i64>(), float) {
            (Ok(value), _, Some(_)) => {
                self.is(element, 0x10);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            (_, Ok(value), Some(_)) => {
                self.is(element, 0x12);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            (_, _, Some(value)) => {
                self.is(element, 0x01);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            _ => {
                self.at = start;
                return self.fail("a number");
            }
        }
        Ok(())
    }
}

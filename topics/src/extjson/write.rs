//! From raw BSON to text.
//!
//! The spacing is that of MongoDB's Java driver without line breaks (`{"a": 1,"b": 2}`), because Debezium's keys are
//! compared as text.

use std::io::Write;

use super::{WRAPPERS, decimal, number};
use crate::ascii;
use crate::json;
use crate::value::{Document, Elements, Malformed, Value};

/// Whether the text reads back to the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faithful {
    /// [`super::read`] gives the bytes that were written.
    Yes,
    /// The text says it as nearly as it can; who needs the bytes has to keep them.
    No,
}

/// Appends a document as canonical Extended JSON. After an error `out` ends with a piece of text.
pub fn write(document: Document<'_>, out: &mut Vec<u8>) -> Result<Faithful, Malformed> {
    let mut writer = Writer::new(out, false);
    writer.open(Kind::Object, document);
    writer.run()
}

/// Appends one value as canonical Extended JSON; [`super::read_value`] reads it.
pub fn write_value(value: Value<'_>, out: &mut Vec<u8>) -> Result<Faithful, Malformed> {
    let mut writer = Writer::new(out, false);
    writer.value(value);
    writer.run()
}

/// Appends one value as relaxed Extended JSON, where numbers and dates look as people write them.
/// It is faithful as long as no number changes its type by that.
pub fn write_relaxed(value: Value<'_>, out: &mut Vec<u8>) -> Result<Faithful, Malformed> {
    let mut writer = Writer::new(out, true);
    writer.value(value);
    writer.run()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Object,
    Array,
    /// The scope of JavaScript, whose wrapper is still open.
    Scope,
}

struct Open<'a> {
    kind: Kind,
    document: Document<'a>,
    elements: Elements<'a>,
    count: usize,
}

impl Open<'_> {
    /// True where the element that was just read has the bytes that its text reads back to, as far as the value
    /// alone does not tell.
    fn is_plain(&self, name: &[u8], value: Value<'_>) -> bool {
        let end = self.elements.offset();
        let bytes = self.document.as_bytes();
        let plain = match value {
            Value::Boolean(_) => bytes[end - 1] <= 1,
            Value::JavaScriptWithScope { code, scope } => {
                let length = 4 + 4 + code.len() + 1 + scope.as_bytes().len();
                bytes[end - length..].starts_with(&(length as i32).to_le_bytes())
            }
            _ => true,
        };
        plain && (self.kind != Kind::Array || is_index(name, self.count))
    }
}

fn is_index(name: &[u8], index: usize) -> bool {
    let mut rest = index;
    for (place, digit) in name.iter().rev().enumerate() {
        if (rest == 0 && place > 0) || *digit != b'0' + (rest % 10) as u8 {
            return false;
        }
        rest /= 10;
    }
    rest == 0 && !name.is_empty()
}

/// A sub-document that a reader takes for a value of another type.
fn looks_like_wrapper(document: Document<'_>) -> bool {
    let Some(name @ [b'$', ..]) = document.as_bytes().get(5..) else { return false };
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    WRAPPERS.contains(&&name[..length])
}

struct Writer<'a, 'o> {
    out: &'o mut Vec<u8>,
    relaxed: bool,
    faithful: bool,
    open: Vec<Open<'a>>,
}

impl<'a, 'o> Writer<'a, 'o> {
    fn new(out: &'o mut Vec<u8>, relaxed: bool) -> Self {
        Self { out, relaxed, faithful: true, open: Vec::new() }
    }

    fn open(&mut self, kind: Kind, document: Document<'a>) {
        self.put(if kind == Kind::Array { "[" } else { "{" });
        self.open.push(Open { kind, document, elements: document.elements(), count: 0 });
    }

    fn run(mut self) -> Result<Faithful, Malformed> {
        while let Some(open) = self.open.last_mut() {
            let Some(element) = open.elements.next() else {
                let end = match open.kind {
                    Kind::Object => "}",
                    Kind::Array => "]",
                    Kind::Scope => "}}",
                };
                self.open.pop();
                self.put(end);
                continue;
            };
            let (name, value) = element?;
            self.faithful &= open.is_plain(name, value);
            if open.count > 0 {
                self.out.push(b',');
            }
            open.count += 1;
            if open.kind != Kind::Array {
                self.faithful &= json::string(name, self.out);
                self.out.extend_from_slice(b": ");
            }
            self.value(value);
        }
        Ok(if self.faithful { Faithful::Yes } else { Faithful::No })
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, bytes: &[u8]) {
        self.faithful &= json::string(bytes, self.out);
    }

    fn object_id(&mut self, id: &[u8; 12]) {
        self.put(r#"{"$oid": ""#);
        ascii::hex(id, self.out);
        self.put(r#""}"#);
    }

    fn double(&mut self, value: f64) {
        if self.relaxed && value.is_finite() {
            number::write(value, self.out);
            return;
        }
        self.put(r#"{"$numberDouble": ""#);
        self.faithful &= number::write(value, self.out);
        self.put(r#""}"#);
    }

    fn date(&mut self, millis: i64) {
        // Only dates from 1970 to 9999 have a text that everybody reads.
        if self.relaxed
            && millis >= 0
            && let Ok(time) = jiff::Timestamp::from_millisecond(millis)
        {
            let digits = if millis % 1000 == 0 { 0 } else { 3 };
            let _ = write!(self.out, r#"{{"$date": "{time:.digits$}"}}"#);
            return;
        }
        let _ = write!(self.out, r#"{{"$date": {{"$numberLong": "{millis}"}}}}"#);
    }

    fn binary(&mut self, subtype: u8, bytes: &[u8]) {
        // The old subtype 2 repeats its length inside, which the text leaves out.
        let inner = match bytes.split_first_chunk::<4>() {
            Some((length, rest)) if i32::from_le_bytes(*length) as usize == rest.len() => Some(rest),
            _ => None,
        };
        self.faithful &= subtype != 2 || inner.is_some();
        self.put(r#"{"$binary": {"base64": ""#);
        ascii::base64(inner.filter(|_| subtype == 2).unwrap_or(bytes), self.out);
        let _ = write!(self.out, r#"","subType": "{subtype:02x}"}}}}"#);
    }

    fn value(&mut self, value: Value<'a>) {
        match value {
            Value::Double(value) => self.double(value),
            Value::String(text) => self.text(text),
            Value::Document(document) => {
                self.faithful &= !looks_like_wrapper(document);
                self.open(Kind::Object, document);
            }
            Value::Array(document) => self.open(Kind::Array, document),
            Value::Binary { subtype, bytes } => self.binary(subtype, bytes),
            Value::Undefined => self.put(r#"{"$undefined": true}"#),
            Value::ObjectId(id) => self.object_id(id),
            Value::Boolean(value) => self.put(if value { "true" } else { "false" }),
            Value::DateTime(millis) => self.date(millis),
            Value::Null => self.put("null"),
            Value::Regex { pattern, options } => {
                self.put(r#"{"$regularExpression": {"pattern": "#);
                self.text(pattern);
                self.put(r#","options": "#);
                self.text(options);
                self.put("}}");
            }
            Value::DbPointer { namespace, id } => {
                self.put(r#"{"$dbPointer": {"$ref": "#);
                self.text(namespace);
                self.put(r#","$id": "#);
                self.object_id(id);
                self.put("}}");
            }
            Value::JavaScript(code) => {
                self.put(r#"{"$code": "#);
                self.text(code);
                self.put("}");
            }
            Value::Symbol(text) => {
                self.put(r#"{"$symbol": "#);
                self.text(text);
                self.put("}");
            }
            Value::JavaScriptWithScope { code, scope } => {
                self.put(r#"{"$code": "#);
                self.text(code);
                self.put(r#","$scope": "#);
                self.open(Kind::Scope, scope);
            }
            Value::Int32(value) => {
                let _ = if self.relaxed {
                    write!(self.out, "{value}")
                } else {
                    write!(self.out, r#"{{"$numberInt": "{value}"}}"#)
                };
            }
            Value::Int64(value) => {
                let _ = if self.relaxed {
                    self.faithful &= i32::try_from(value).is_err();
                    write!(self.out, "{value}")
                } else {
                    write!(self.out, r#"{{"$numberLong": "{value}"}}"#)
                };
            }
            Value::Timestamp { seconds, increment } => {
                let _ = write!(self.out, r#"{{"$timestamp": {{"t": {seconds},"i": {increment}}}}}"#);
            }
            Value::Decimal128(bytes) => {
                self.put(r#"{"$numberDecimal": ""#);
                self.faithful &= decimal::write(bytes, self.out);
                self.put(r#""}"#);
            }
            Value::MinKey => self.put(r#"{"$minKey": 1}"#),
            Value::MaxKey => self.put(r#"{"$maxKey": 1}"#),
        }
    }
}

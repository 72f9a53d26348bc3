//! `jsonb` and `json`: the text of a BSON value, with nothing lost that JSON can say.
//!
//! Numbers keep their digits. Dates are ISO text, ObjectIds hexadecimal text, UUIDs as they are always written, other binary base64
//! text. What has no JSON of its own (regular expressions, timestamps, code, …) is MongoDB's relaxed extended JSON. NaN and the
//! infinities, which JSON does not know, become text.

use slackwater_topics::{Decimal, Value};

use super::time::iso_text;
use super::{Fit, Lenient, Problem, Scratch, text};
use crate::mapping::rejection::Reason;

/// Postgres takes thousands of levels; nobody means more than these.
pub(super) const DEEPEST: usize = 200;

/// How JSON is written.
#[derive(Clone, Copy, Debug)]
pub(in crate::mapping) struct Json {
    /// For a column of `jsonb`, not `json`.
    pub(in crate::mapping) binary: bool,
    /// NaN and the infinities become text; else they are invalid.
    pub(in crate::mapping) quote: bool,
}

impl Json {
    pub(super) fn write(
        self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        _scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let mut writer = self.begin(lenient, out);
        writer.value(value, 0)?;
        Ok(writer.fit)
    }

    /// An object of these fields.
    pub(in crate::mapping) fn write_object<'a>(
        self,
        fields: impl Iterator<Item = (&'a [u8], Value<'a>)>,
        lenient: Lenient,
        out: &mut Vec<u8>,
    ) -> Result<Fit, Problem> {
        let mut writer = self.begin(lenient, out);
        writer.out.push(b'{');
        for (index, (name, value)) in fields.enumerate() {
            writer.member(index, name, value, 0)?;
        }
        writer.out.push(b'}');
        Ok(writer.fit)
    }

    fn begin(self, lenient: Lenient, out: &mut Vec<u8>) -> Writer<'_> {
        if self.binary {
            // The version of jsonb's wire form; text follows.
            out.push(1);
        }
        Writer { out, form: self, strip: lenient == Lenient::Strip, fit: Fit::Exact }
    }
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    form: Json,
    strip: bool,
    fit: Fit,
}

impl Writer<'_> {
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn value(&mut self, value: Value<'_>, depth: usize) -> Result<(), Problem> {
        if depth >= DEEPEST {
            let text = format!("the value is nested more than {DEEPEST} levels deep");
            return Err(Problem::new(Reason::Depth, text));
        }
        match value {
            Value::Null => self.raw("null"),
            Value::Boolean(true) => self.raw("true"),
            Value::Boolean(false) => self.raw("false"),
            Value::Int32(number) => self.raw(itoa::Buffer::new().format(number)),
            Value::Int64(number) => self.raw(itoa::Buffer::new().format(number)),
            Value::Double(number) => self.double(number)?,
            Value::Decimal128(bytes) => match Decimal::from_bytes(bytes) {
                Decimal::NaN => self.quoted("\"NaN\"")?,
                Decimal::Infinity { negative } => {
                    self.quoted(if negative { "\"-Infinity\"" } else { "\"Infinity\"" })?;
                }
                Decimal::Finite { .. } => text::decimal(bytes, self.out),
            },
            Value::String(text) => self.string(text)?,
            Value::ObjectId(id) => self.object_id(id),
            Value::DateTime(millis) => self.date(millis),
            Value::Binary { subtype: 3 | 4, bytes } if bytes.len() == 16 => self.uuid(bytes),
            Value::Binary { subtype, bytes } => self.base64(super::payload(subtype, bytes)),
            Value::Document(document) => {
                self.out.push(b'{');
                for (index, element) in document.elements().enumerate() {
                    let (name, value) = element?;
                    self.member(index, name, value, depth)?;
                }
                self.out.push(b'}');
            }
            Value::Array(array) => {
                self.out.push(b'[');
                for (index, element) in array.elements().enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    self.value(element?.1, depth + 1)?;
                }
                self.out.push(b']');
            }
            other => self.extended(other, depth)?,
        }
        Ok(())
    }

    fn member(&mut self, index: usize, name: &[u8], value: Value<'_>, depth: usize) -> Result<(), Problem> {
        if index > 0 {
            self.out.push(b',');
        }
        self.string(name)?;
        self.out.push(b':');
        self.value(value, depth + 1)
    }

    /// Types that JSON has no word for.
    fn extended(&mut self, value: Value<'_>, depth: usize) -> Result<(), Problem> {
        match value {
            Value::Undefined => self.raw("{\"$undefined\":true}"),
            Value::MinKey => self.raw("{\"$minKey\":1}"),
            Value::MaxKey => self.raw("{\"$maxKey\":1}"),
            Value::Symbol(text) => self.wrapped("$symbol", text)?,
            Value::JavaScript(code) => self.wrapped("$code", code)?,
            Value::Regex { pattern, options } => {
                self.raw("{\"$regularExpression\":{\"pattern\":");
                self.string(pattern)?;
                self.raw(",\"options\":");
                self.string(options)?;
                self.raw("}}");
            }
            Value::Timestamp { seconds, increment } => {
                self.raw("{\"$timestamp\":{\"t\":");
                self.raw(itoa::Buffer::new().format(seconds));
                self.raw(",\"i\":");
                self.raw(itoa::Buffer::new().format(increment));
                self.raw("}}");
            }
            Value::JavaScriptWithScope { code, scope } => {
                self.raw("{\"$code\":");
                self.string(code)?;
                self.raw(",\"$scope\":");
                self.value(Value::Document(scope), depth + 1)?;
                self.raw("}");
            }
            Value::DbPointer { namespace, id } => {
                self.raw("{\"$dbPointer\":{\"$ref\":");
                self.string(namespace)?;
                self.raw(",\"$id\":{\"$oid\":");
                self.object_id(id);
                self.raw("}}}");
            }
            other => return Err(Problem::of_type(&other, "JSON")),
        }
        Ok(())
    }

    fn wrapped(&mut self, name: &str, text: &[u8]) -> Result<(), Problem> {
        self.raw("{\"");
        self.raw(name);
        self.raw("\":");
        self.string(text)?;
        self.raw("}");
        Ok(())
    }

    fn quoted(&mut self, word: &str) -> Result<(), Problem> {
        if !self.form.quote {
            return Err(Problem::new(Reason::Range, "JSON knows neither NaN nor infinity"));
        }
        self.raw(word);
        if self.fit == Fit::Exact {
            self.fit = Fit::Quoted;
        }
        Ok(())
    }

    fn double(&mut self, number: f64) -> Result<(), Problem> {
        use std::io::Write as _;
        if number.is_nan() {
            return self.quoted("\"NaN\"");
        }
        if number.is_infinite() {
            return self.quoted(if number > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
        }
        let size = number.abs();
        // jsonb has no minus zero; it must not look like a difference later.
        let number = if size == 0.0 && self.form.binary { 0.0 } else { number };
        // Writing into memory cannot fail. `{:?}` keeps the point of whole doubles: 1.0 is not the integer 1.
        let _ = if size == 0.0 || (1e-5..1e16).contains(&size) {
            write!(self.out, "{number:?}")
        } else {
            write!(self.out, "{number:e}")
        };
        Ok(())
    }

    fn object_id(&mut self, id: &[u8; 12]) {
        self.out.push(b'"');
        text::hex(id, self.out);
        self.out.push(b'"');
    }

    fn date(&mut self, millis: i64) {
        self.out.push(b'"');
        if iso_text(millis, self.out) {
            self.out.push(b'"');
            return;
        }
        self.out.pop();
        self.raw("{\"$date\":{\"$numberLong\":\"");
        self.raw(itoa::Buffer::new().format(millis));
        self.raw("\"}}");
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        text::base64(bytes, self.out);
        self.out.push(b'"');
    }

    /// Both kinds with their bytes in their order: who wrote subtype 3 in another order is not known.
    fn uuid(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        let mut id = [0; 16];
        id.copy_from_slice(bytes);
        super::uuid::append(uuid::Uuid::from_bytes(id), true, self.out);
        self.out.push(b'"');
    }

    fn string(&mut self, raw: &[u8]) -> Result<(), Problem> {
        self.out.push(b'"');
        match std::str::from_utf8(raw) {
            Ok(text) => self.escaped(text)?,
            Err(_) if self.strip => {
                self.fit = Fit::Stripped;
                for chunk in raw.utf8_chunks() {
                    self.escaped(chunk.valid())?;
                }
            }
            Err(_) => return Err(Problem::new(Reason::Text, "a text in it is not valid UTF-8")),
        }
        self.out.push(b'"');
        Ok(())
    }

    fn escaped(&mut self, text: &str) -> Result<(), Problem> {
        let bytes = text.as_bytes();
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            self.out.extend_from_slice(&bytes[from..at]);
            from = at + 1;
            match byte {
                b'"' => self.raw("\\\""),
                b'\\' => self.raw("\\\\"),
                b'\n' => self.raw("\\n"),
                b'\r' => self.raw("\\r"),
                b'\t' => self.raw("\\t"),
                // `json` would take it now and fail whoever reads it later.
                0 if self.strip => self.fit = Fit::Stripped,
                0 => {
                    let text = "a text in it holds a NUL character, which Postgres refuses";
                    return Err(Problem::new(Reason::Text, text));
                }
                control => {
                    self.raw("\\u00");
                    text::hex(&[*control], self.out);
                }
            }
        }
        self.out.extend_from_slice(&bytes[from..]);
        Ok(())
    }
}

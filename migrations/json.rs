//! JSON compared as what it says, not as it is written: fields in any order, numbers by their exact value.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use crate::rendering::{Number, iso};

/// What a JSON text says. Numbers are in the form of [`Number::normal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Boolean(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// What a value of a document is in jsonb.
    pub(crate) fn of(value: &Bson) -> Self {
        match value {
            Bson::Null | Bson::Undefined => Self::Null,
            Bson::Boolean(value) => Self::Boolean(*value),
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => {
                Number::of(value).map_or(Self::Null, |number| Self::Number(number.normal()))
            }
            Bson::ObjectId(id) => Self::Text(id.to_hex()),
            Bson::DateTime(time) => Self::Text(iso(time.timestamp_millis())),
            Bson::Binary(binary) => Self::Text(base64(&binary.bytes)),
            Bson::String(text) | Bson::Symbol(text) => Self::Text(text.clone()),
            Bson::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Bson::Document(document) => Self::document(document),
            // No example makes other types; a text that equals nothing shows where one slipped in.
            other => Self::Text(format!("no rule for {:?}", other.element_type())),
        }
    }

    /// What a document is in jsonb.
    pub(crate) fn document(document: &Document) -> Self {
        Self::Object(document.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
    }

    /// Reads JSON text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value()?;
        reader.space();
        (reader.at == text.len()).then_some(value)
    }

    /// One text for everything that is equal.
    pub(crate) fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.push_str(number),
            Self::Text(text) => out.push_str(&format!("{text:?}")),
            Self::List(items) => {
                out.push('[');
                for item in items {
                    item.write(out);
                    out.push(',');
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (name, value) in fields {
                    out.push_str(&format!("{name:?}:"));
                    value.write(out);
                    out.push(',');
                }
                out.push('}');
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn value(&mut self) -> Option<Json> {
        if self.take("null") {
            return Some(Json::Null);
        }
        if self.take("true") {
            return Some(Json::Boolean(true));
        }
        if self.take("false") {
            return Some(Json::Boolean(false));
        }
        if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                if !items.is_empty() && !self.take(",") {
                    return None;
                }
                items.push(self.value()?);
            }
            return Some(Json::List(items));
        }
        if self.take("{") {
            let mut fields = BTreeMap::new();
            while !self.take("}") {
                if !fields.is_empty() && !self.take(",") {
                    return None;
                }
                self.space();
                let name = self.string()?;
                if !self.take(":") {
                    return None;
                }
                fields.insert(name, self.value()?);
            }
            return Some(Json::Object(fields));
        }
        if self.rest().starts_with('"') {
            return self.string().map(Json::Text);
        }
        let length = self
            .rest()
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(self.rest().len());
        let number = Number::parse(&self.rest()[..length])?;
        self.at += length;
        Some(Json::Number(number.normal()))
    }

    fn string(&mut self) -> Option<String> {
        let mut characters = self.rest().char_indices();
        if characters.next()?.1 != '"' {
            return None;
        }
        let mut text = String::new();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += index + 1;
                    return Some(text);
                }
                '\\' => text.push(match characters.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    // jsonb writes code points past ASCII as themselves; only control characters come like this.
                    'u' => {
                        let digits: String = characters.by_ref().take(4).map(|(_, digit)| digit).collect();
                        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
                    }
                    other => other,
                }),
                other => text.push(other),
            }
        }
        None
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn the_same_said_in_two_ways_is_equal() {
        let document = doc! {
            "b": [1_i32, 2.5, "x\"\n\u{1}é"], "a": {"n": Bson::Null, "t": true},
            "d": bson::DateTime::from_millis(5), "m": "1.10".parse::<bson::Decimal128>().expect("a decimal"),
        };
        let text = "{\"a\": {\"n\": null, \"t\": true}, \"b\": [1, 2.50, \"x\\\"\\n\\u0001é\"], \
                    \"d\": \"1970-01-01T00:00:00.005Z\", \"m\": 1.1}";
        assert_eq!(Json::parse(text), Some(Json::document(&document)));
        assert_eq!(Json::parse("[ ]"), Some(Json::List(vec![])));
        for broken in ["[1 2]", "{\"a\" 1}", "[", "\"x", "1 1", ""] {
            assert_eq!(Json::parse(broken), None, "{broken}");
        }
        assert_ne!(Json::parse("1"), Json::parse("\"1\""));
        assert_ne!(Json::Text("1".into()).canonical(), Json::parse("1").expect("a number").canonical());
    }

    #[test]
    fn base64_has_its_padding() {
        let of = |text: &str| base64(text.as_bytes());
        assert_eq!(
            [of(""), of("f"), of("fo"), of("foo"), of("foob")],
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }
}

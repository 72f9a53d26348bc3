//! JSON text into raw BSON, with every digit that the text has.
//!
//! NocoDB computes in doubles, so what it sends has lost digits beyond the sixteenth already. Nothing more is lost here.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// JSON that nests deeper than BSON may.
const DEEPEST: usize = 100;

/// The text is not what it should be, or BSON cannot hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit(pub(super) &'static str);

type Outcome = Result<(), Unfit>;

/// A BSON document in the making.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        Self(vec![0; 4])
    }

    /// Type and name of what is written next.
    fn head(&mut self, kind: u8, name: &str) {
        self.0.push(kind);
        // A name ends with its first zero, so it can hold none.
        match name.contains('\0') {
            true => self.0.extend_from_slice(name.replace('\0', "\u{fffd}").as_bytes()),
            false => self.0.extend_from_slice(name.as_bytes()),
        }
        self.0.push(0);
    }

    pub(super) fn null(&mut self, name: &str) {
        self.head(0x0a, name);
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.head(0x08, name);
        self.0.push(value.into());
    }

    pub(super) fn whole(&mut self, name: &str, value: i64) {
        if let Ok(value) = i32::try_from(value) {
            self.head(0x10, name);
            self.0.extend_from_slice(&value.to_le_bytes());
        } else {
            self.head(0x12, name);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn date_time(&mut self, name: &str, millis: i64) {
        self.head(0x09, name);
        self.0.extend_from_slice(&millis.to_le_bytes());
    }

    pub(super) fn text(&mut self, name: &str, text: &str) -> Outcome {
        self.head(0x02, name);
        let length = i32::try_from(text.len() + 1).map_err(|_| LARGE)?;
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        Ok(())
    }

    /// The number that this text writes, as Decimal128. False where it holds no such number.
    pub(super) fn decimal(&mut self, name: &str, text: &str) -> bool {
        let Ok(decimal) = text.trim().parse::<bson::Decimal128>() else { return false };
        self.head(0x13, name);
        self.0.extend_from_slice(&decimal.bytes());
        true
    }

    /// A document or an array; `inside` writes what is in it.
    pub(super) fn nested(
        &mut self,
        name: &str,
        array: bool,
        inside: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        self.head(if array { 0x04 } else { 0x03 }, name);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        inside(self)?;
        self.close(start)
    }

    fn close(&mut self, start: usize) -> Outcome {
        self.0.push(0);
        let length = i32::try_from(self.0.len() - start).map_err(|_| LARGE)?;
        self.0[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Any JSON.
    pub(super) fn value(&mut self, name: &str, json: &RawValue) -> Outcome {
        self.deep(name, json, 0)
    }

    fn deep(&mut self, name: &str, json: &RawValue, depth: usize) -> Outcome {
        if depth > DEEPEST {
            return Err(Unfit("JSON that nests too deep"));
        }
        match json.get().as_bytes().first() {
            Some(b'{') => {
                let members = members(json)?;
                self.nested(name, false, |writer| {
                    members.iter().try_for_each(|(name, value)| writer.deep(name, value, depth + 1))
                })
            }
            Some(b'[') => {
                let items = items(json)?;
                self.nested(name, true, |writer| {
                    items
                        .iter()
                        .enumerate()
                        .try_for_each(|(n, item)| writer.deep(&n.to_string(), item, depth + 1))
                })
            }
            Some(b'"') => self.text(name, &text(json)?),
            Some(b't' | b'f') => {
                self.boolean(name, json.get() == "true");
                Ok(())
            }
            Some(b'n') => {
                self.null(name);
                Ok(())
            }
            _ => self.number(name, json.get()),
        }
    }

    /// A whole number, a double, or where neither holds what the text says a Decimal128.
    fn number(&mut self, name: &str, text: &str) -> Outcome {
        if let Ok(whole) = text.parse() {
            self.whole(name, whole);
            return Ok(());
        }
        let double: f64 = text.parse().map_err(|_| Unfit("a number that cannot be read"))?;
        if (!double.is_finite() || digits(text) != digits(&format!("{double:e}"))) && self.decimal(name, text)
        {
            return Ok(());
        }
        self.head(0x01, name);
        self.0.extend_from_slice(&double.to_le_bytes());
        Ok(())
    }

    pub(super) fn end(mut self) -> Result<Vec<u8>, Unfit> {
        self.close(0)?;
        Ok(self.0)
    }
}

const LARGE: Unfit = Unfit("a record that is larger than BSON may be");

/// The digits that count: without sign, point, power, and zeros at either end.
fn digits(text: &str) -> String {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

/// The members of an object, in their order.
fn members(json: &RawValue) -> Result<Vec<(String, &RawValue)>, Unfit> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json.get());
    serde::Deserializer::deserialize_map(&mut reader, Members).map_err(|_| Unfit("JSON that cannot be read"))
}

/// The members of an object, by name.
pub(super) fn object(json: &RawValue) -> Result<HashMap<String, &RawValue>, Unfit> {
    serde_json::from_str(json.get()).map_err(|_| Unfit("a record that is no object"))
}

/// The items of an array.
pub(super) fn items(json: &RawValue) -> Result<Vec<&RawValue>, Unfit> {
    serde_json::from_str(json.get()).map_err(|_| Unfit("JSON that cannot be read"))
}

/// The text that a JSON string writes.
pub(super) fn text(json: &RawValue) -> Result<String, Unfit> {
    serde_json::from_str(json.get()).map_err(|_| Unfit("text that cannot be read"))
}

/// A whole number, be it written as one or as text.
pub(super) fn whole(json: &RawValue) -> Option<i64> {
    json.get().trim_matches('"').parse().ok()
}

pub(super) fn is_null(json: &RawValue) -> bool {
    json.get() == "null"
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, Document, doc};

    fn read(json: &str) -> Bson {
        let raw: Box<RawValue> = serde_json::from_str(json).expect("JSON");
        let mut writer = Writer::new();
        writer.value("v", &raw).expect("it fits");
        let bytes = writer.end().expect("it fits");
        Document::from_reader(bytes.as_slice()).expect("a document").remove("v").expect("a value")
    }

    #[test]
    fn numbers_keep_their_digits() {
        assert_eq!(read("7"), Bson::Int32(7));
        assert_eq!(read("-2147483649"), Bson::Int64(-2_147_483_649));
        assert_eq!(read("9007199254740993"), Bson::Int64(9_007_199_254_740_993));
        assert_eq!(read("0.1"), Bson::Double(0.1));
        assert_eq!(read("1e21"), Bson::Double(1e21));
        assert_eq!(read("1.50"), Bson::Double(1.5));
        let decimal = |text: &str| Bson::Decimal128(text.parse().expect("a decimal"));
        assert_eq!(read("12345678901234567000"), Bson::Double(12_345_678_901_234_567_000.0), "of a double");
        assert_eq!(read("12345678901234567891"), decimal("12345678901234567891"));
        assert_eq!(read("0.12345678901234567891"), decimal("0.12345678901234567891"));
        assert_eq!(read("1e400"), decimal("1e400"));
        // More than Decimal128 holds: the nearest that there is.
        let long = format!("0.{}", "123456789".repeat(5));
        assert!(matches!(read(&long), Bson::Double(_) | Bson::Decimal128(_)));
    }

    #[test]
    fn everything_else_is_what_it_was() {
        let json = r#"{"a": [1, "zwei\n\u00e9", null, true, {"$oid": "x"}], "": {}, "b": []}"#;
        let same = doc! {"a": [1, "zwei\né", Bson::Null, true, {"$oid": "x"}], "": {}, "b": []};
        assert_eq!(read(json), Bson::Document(same));
        assert_eq!(read(r#"{"a\u0000b": 1}"#), Bson::Document(doc! {"a\u{fffd}b": 1}));
    }

    #[test]
    fn what_nests_too_deep_is_refused() {
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        let raw: Box<RawValue> = serde_json::from_str(&deep).expect("JSON");
        assert_eq!(Writer::new().value("v", &raw), Err(Unfit("JSON that nests too deep")));
    }
}

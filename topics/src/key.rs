//! The key of a document: canonical bytes for any `_id`.
//!
//! Two `_id`s that MongoDB holds to be equal have the same bytes (1, 1.0, `NumberLong(1)` and `Decimal128("1.00")` are
//! one key), and two that differ have different bytes. The bytes can be turned back into a value that
//! finds the document. They must never change: identifiers in the target are made of them.
//!
//! Layout: one tag, then the content. Numbers: whole and within 64 bits as big-endian `i64`; other doubles by
//! their bits; what neither holds as sign, power and decimal digits. Text and binary carry their
//! length; objects list tag, name and value of each element and end with a zero.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::decimal::{Decimal, Magnitude};
use crate::value::{Document, Malformed, Value};

const INLINE: usize = 22;

/// Canonical bytes of an `_id`. Short ones (an ObjectId has 13 bytes) live in the value itself.
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

mod tag {
    pub(super) const END: u8 = 0x00;
    pub(super) const MIN_KEY: u8 = 0x01;
    pub(super) const UNDEFINED: u8 = 0x02;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const NAN: u8 = 0x0f;
    pub(super) const WHOLE: u8 = 0x10;
    pub(super) const DOUBLE: u8 = 0x11;
    pub(super) const DECIMAL: u8 = 0x12;
    pub(super) const INFINITY: u8 = 0x13;
    pub(super) const STRING: u8 = 0x20;
    pub(super) const OBJECT: u8 = 0x30;
    pub(super) const ARRAY: u8 = 0x38;
    pub(super) const BINARY: u8 = 0x40;
    pub(super) const OBJECT_ID: u8 = 0x50;
    pub(super) const BOOLEAN: u8 = 0x58;
    pub(super) const DATE: u8 = 0x60;
    pub(super) const TIMESTAMP: u8 = 0x68;
    pub(super) const REGEX: u8 = 0x70;
    pub(super) const DB_POINTER: u8 = 0x78;
    pub(super) const CODE: u8 = 0x80;
    pub(super) const CODE_WITH_SCOPE: u8 = 0x88;
    pub(super) const MAX_KEY: u8 = 0xff;
}

/// Objects as `_id` nest this deep at most; MongoDB itself stops at 100.
const DEEPEST: usize = 200;

impl Key {
    /// The key of a value.
    pub fn of(value: Value<'_>) -> Result<Self, Malformed> {
        if let Value::ObjectId(id) = value {
            let mut bytes = [0; INLINE];
            bytes[0] = tag::OBJECT_ID;
            bytes[1..13].copy_from_slice(id);
            return Ok(Self(Repr::Inline { length: 13, bytes }));
        }
        let mut bytes = Vec::with_capacity(32);
        write(value, &mut bytes, 0)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Takes canonical bytes that were kept somewhere.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE {
            let mut inline = [0; INLINE];
            inline[..bytes.len()].copy_from_slice(bytes);
            return Self(Repr::Inline { length: bytes.len() as u8, bytes: inline });
        }
        Self(Repr::Heap(bytes.into()))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Repr::Heap(bytes) => bytes,
        }
    }

    /// Appends a BSON element (type, name, value) that is equal to the `_id` in MongoDB's eyes, to find the document by.
    pub fn write_element(&self, name: &str, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut reader = Reader { bytes: self.as_bytes(), at: 0 };
        reader.element(name.as_bytes(), out, 0)?;
        if reader.at != reader.bytes.len() {
            return Err(Malformed { at: reader.at });
        }
        Ok(())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    /// Of the bytes: a fixed order to lock rows in, not MongoDB's order.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl fmt::Display for Key {
    /// As a person would look for it: ObjectIds and whole numbers as themselves, all others by their bytes. Text ids
    /// can be e-mail addresses, so they are not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_bytes() {
            [tag::WHOLE, number @ ..] if number.len() == 8 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(number);
                write!(f, "{}", i64::from_be_bytes(bytes))
            }
            [tag::OBJECT_ID, rest @ ..] => hex(rest, f),
            bytes if bytes.len() <= 40 => {
                f.write_str("x")?;
                hex(bytes, f)
            }
            bytes => {
                f.write_str("x")?;
                hex(&bytes[..32], f)?;
                write!(f, "… ({} bytes)", bytes.len())
            }
        }
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn whole(value: i64, out: &mut Vec<u8>) {
    out.push(tag::WHOLE);
    out.extend_from_slice(&value.to_be_bytes());
}

fn double(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.push(tag::NAN);
    } else if value.is_infinite() {
        out.extend_from_slice(&[tag::INFINITY, u8::from(value < 0.0)]);
    } else if value.trunc() == value && (-9.2e18..=9.2e18).contains(&value) {
        whole(value as i64, out);
    } else if let Some(value) = (value.abs() < 1e19).then(|| Magnitude::from_f64(value).to_i64()).flatten() {
        whole(value, out);
    } else {
        out.push(tag::DOUBLE);
        out.extend_from_slice(&value.to_bits().to_be_bytes());
    }
}

fn decimal(bytes: &[u8; 16], out: &mut Vec<u8>) {
    let number = match Decimal::from_bytes(bytes) {
        Decimal::NaN => return out.push(tag::NAN),
        Decimal::Infinity { negative } => {
            return out.extend_from_slice(&[tag::INFINITY, u8::from(negative)]);
        }
        Decimal::Finite { negative, coefficient, exponent } => {
            Magnitude::from_integer(negative, coefficient, exponent)
        }
    };
    if let Some(value) = number.to_i64() {
        whole(value, out);
    } else if let Some(value) = number.to_f64() {
        double(value, out);
    } else {
        out.extend_from_slice(&[tag::DECIMAL, u8::from(number.negative)]);
        out.extend_from_slice(&number.point.to_be_bytes());
        out.push(number.digits.len() as u8);
        out.extend_from_slice(&number.digits);
    }
}

fn elements(document: Document<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
    for element in document.elements() {
        let (name, value) = element?;
        let start = out.len();
        write(value, out, depth + 1)?;
        // The name follows the tag, so that an object's end (a zero where a tag would be) cannot be mistaken.
        let content = out.split_off(start + 1);
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(&content);
    }
    out.push(tag::END);
    Ok(())
}

fn write(value: Value<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
    if depth > DEEPEST {
        return Err(Malformed { at: 0 });
    }
    match value {
        Value::MinKey => out.push(tag::MIN_KEY),
        Value::Undefined => out.push(tag::UNDEFINED),
        Value::Null => out.push(tag::NULL),
        Value::Int32(number) => whole(i64::from(number), out),
        Value::Int64(number) => whole(number, out),
        Value::Double(number) => double(number, out),
        Value::Decimal128(bytes) => decimal(bytes, out),
        Value::String(text) | Value::Symbol(text) => sized(tag::STRING, text, out),
        Value::Document(document) => {
            out.push(tag::OBJECT);
            elements(document, out, depth)?;
        }
        Value::Array(document) => {
            out.push(tag::ARRAY);
            elements(document, out, depth)?;
        }
        Value::Binary { subtype, bytes } => {
            sized(tag::BINARY, bytes, out);
            out.push(subtype);
        }
        Value::ObjectId(id) => {
            out.push(tag::OBJECT_ID);
            out.extend_from_slice(id);
        }
        Value::Boolean(value) => out.extend_from_slice(&[tag::BOOLEAN, u8::from(value)]),
        Value::DateTime(millis) => {
            out.push(tag::DATE);
            out.extend_from_slice(&millis.to_be_bytes());
        }
        Value::Timestamp { seconds, increment } => {
            out.push(tag::TIMESTAMP);
            out.extend_from_slice(&seconds.to_be_bytes());
            out.extend_from_slice(&increment.to_be_bytes());
        }
        Value::Regex { pattern, options } => {
            sized(tag::REGEX, pattern, out);
            sized(tag::REGEX, options, out);
        }
        Value::DbPointer { namespace, id } => {
            sized(tag::DB_POINTER, namespace, out);
            out.extend_from_slice(id);
        }
        Value::JavaScript(code) => sized(tag::CODE, code, out),
        Value::JavaScriptWithScope { code, scope } => {
            sized(tag::CODE_WITH_SCOPE, code, out);
            elements(scope, out, depth)?;
        }
        Value::MaxKey => out.push(tag::MAX_KEY),
    }
    Ok(())
}

/// Turns canonical bytes back into BSON.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let broken = Malformed { at: self.at };
        let end = self.at.checked_add(length).ok_or(broken)?;
        let taken = self.bytes.get(self.at..end).ok_or(broken)?;
        self.at = end;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut chunk = [0; N];
        chunk.copy_from_slice(self.take(N)?);
        Ok(chunk)
    }

    fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let length = u32::from_be_bytes(self.chunk()?);
        self.take(length as usize)
    }

    fn cstring(&mut self) -> Result<&'a [u8], Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0).ok_or(Malformed { at: self.at })?;
        let text = self.take(length)?;
        self.take(1)?;
        Ok(text)
    }

    fn element(&mut self, name: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        let [tag] = self.chunk()?;
        self.content(tag, name, out, depth)
    }

    fn inner(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        loop {
            let [tag] = self.chunk()?;
            if tag == tag::END {
                break;
            }
            let name = self.cstring()?;
            self.content(tag, name, out, depth + 1)?;
        }
        out.push(0);
        let length = (out.len() - start) as i32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    fn content(&mut self, tag: u8, name: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        let at = self.at;
        if depth > DEEPEST {
            return Err(Malformed { at });
        }
        let mut head = |kind: u8| {
            out.push(kind);
            out.extend_from_slice(name);
            out.push(0);
        };
        match tag {
            tag::MIN_KEY => head(0xff),
            tag::MAX_KEY => head(0x7f),
            tag::UNDEFINED => head(0x06),
            tag::NULL => head(0x0a),
            tag::NAN => {
                head(0x01);
                out.extend_from_slice(&f64::NAN.to_le_bytes());
            }
            tag::INFINITY => {
                head(0x01);
                let [negative] = self.chunk()?;
                let value = if negative == 1 { f64::NEG_INFINITY } else { f64::INFINITY };
                out.extend_from_slice(&value.to_le_bytes());
            }
            tag::WHOLE => {
                head(0x12);
                out.extend_from_slice(&i64::from_be_bytes(self.chunk()?).to_le_bytes());
            }
            tag::DOUBLE => {
                head(0x01);
                out.extend_from_slice(&u64::from_be_bytes(self.chunk()?).to_le_bytes());
            }
            tag::DECIMAL => {
                head(0x13);
                let [negative] = self.chunk()?;
                let point = i32::from_be_bytes(self.chunk()?);
                let [length] = self.chunk()?;
                let digits = self.take(usize::from(length))?;
                let coefficient = digits.iter().fold(0_u128, |sum, digit| sum * 10 + u128::from(*digit));
                // At the upper end the exponent has to come down and the coefficient to take up the zeros.
                let mut exponent = point - i32::from(length);
                let mut coefficient = coefficient;
                while exponent > 6111 {
                    coefficient *= 10;
                    exponent -= 1;
                }
                let bits = (u128::from(negative) << 127) | (((exponent + 6176) as u128) << 113) | coefficient;
                out.extend_from_slice(&bits.to_le_bytes());
            }
            tag::STRING | tag::CODE => {
                head(if tag == tag::STRING { 0x02 } else { 0x0d });
                string(self.sized()?, out);
            }
            tag::OBJECT | tag::ARRAY => {
                head(if tag == tag::OBJECT { 0x03 } else { 0x04 });
                self.inner(out, depth)?;
            }
            tag::BINARY => {
                head(0x05);
                let bytes = self.sized()?;
                out.extend_from_slice(&(bytes.len() as i32).to_le_bytes());
                out.push(self.chunk::<1>()?[0]);
                out.extend_from_slice(bytes);
            }
            tag::OBJECT_ID => {
                head(0x07);
                out.extend_from_slice(self.take(12)?);
            }
            tag::BOOLEAN => {
                head(0x08);
                out.extend_from_slice(self.take(1)?);
            }
            tag::DATE => {
                head(0x09);
                out.extend_from_slice(&i64::from_be_bytes(self.chunk()?).to_le_bytes());
            }
            tag::TIMESTAMP => {
                head(0x11);
                let seconds = u32::from_be_bytes(self.chunk()?);
                let increment = u32::from_be_bytes(self.chunk()?);
                out.extend_from_slice(&increment.to_le_bytes());
                out.extend_from_slice(&seconds.to_le_bytes());
            }
            tag::REGEX => {
                head(0x0b);
                out.extend_from_slice(self.sized()?);
                out.push(0);
                self.take(1)?;
                out.extend_from_slice(self.sized()?);
                out.push(0);
            }
            tag::DB_POINTER => {
                head(0x0c);
                string(self.sized()?, out);
                out.extend_from_slice(self.take(12)?);
            }
            tag::CODE_WITH_SCOPE => {
                head(0x0f);
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                string(self.sized()?, out);
                self.inner(out, depth)?;
                let length = (out.len() - start) as i32;
                out[start..start + 4].copy_from_slice(&length.to_le_bytes());
            }
            _ => return Err(Malformed { at }),
        }
        Ok(())
    }
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as i32 + 1).to_le_bytes());
    out.extend_from_slice(text);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};

    fn key(value: impl Into<Bson>) -> Key {
        let raw = doc! {"_id": value.into()}.to_vec().expect("a document");
        let document = Document::new(&raw).expect("well formed");
        Key::of(document.get(b"_id").expect("well formed").expect("an _id")).expect("a key")
    }

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse().expect("a decimal"))
    }

    fn text(key: &Key) -> String {
        key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Identifiers in targets are made of these bytes. If this test fails the code is wrong, never the test.
    #[test]
    fn golden() {
        let cases: Vec<(Bson, &str)> = vec![
            (bson::oid::ObjectId::from_bytes([0xab; 12]).into(), "50abababababababababababab"),
            (1_i32.into(), "100000000000000001"),
            ((-1_i64).into(), "10ffffffffffffffff"),
            (1.5.into(), "113ff8000000000000"),
            (1e300.into(), "117e37e43c8800759c"),
            (decimal("0.1"), "1200000000000101"),
            (f64::NAN.into(), "0f"),
            (f64::NEG_INFINITY.into(), "1301"),
            ("a\u{e9}".into(), "200000000361c3a9"),
            (Bson::Null, "05"),
            (true.into(), "5801"),
            (bson::DateTime::from_millis(1).into(), "600000000000000001"),
            (Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 }), "680000000100000002"),
            (Bson::MinKey, "01"),
            (Bson::MaxKey, "ff"),
            (
                doc! {"a": 1, "b": "x"}.into(),
                "30106100000000000000000120620000000001780 0".replace(' ', "").leak(),
            ),
            (
                Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![1, 2] }),
                "4000000002010204",
            ),
        ];
        for (value, golden) in cases {
            assert_eq!(text(&key(value.clone())), golden, "{value:?}");
        }
    }

    #[test]
    fn equal_numbers_are_one_key() {
        for same in [Bson::Int64(1), Bson::Double(1.0), decimal("1"), decimal("1.000"), decimal("0.1E1")] {
            assert_eq!(key(same.clone()), key(1_i32), "{same:?}");
        }
        assert_eq!(key(-0.0), key(0_i32));
        assert_eq!(key(decimal("0.5")), key(0.5));
        assert_eq!(key(decimal("-Infinity")), key(f64::NEG_INFINITY));
        assert_eq!(key(decimal("NaN")), key(f64::NAN));
        assert_ne!(key(decimal("0.1")), key(0.1));
        assert_ne!(key(9_007_199_254_740_993_i64), key(9_007_199_254_740_992.0));
        assert_eq!(key(-9_223_372_036_854_775_808.0), key(i64::MIN));
        assert_ne!(key(9_223_372_036_854_775_808.0), key(i64::MAX));
        assert_eq!(key(doc! {"a": 1_i32}), key(doc! {"a": 1.0}));
        assert_ne!(key(doc! {"a": 1, "b": 2}), key(doc! {"b": 2, "a": 1}));
        assert_ne!(key("1"), key(1));
    }

    fn any_value() -> impl proptest::strategy::Strategy<Value = Bson> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            any::<i32>().prop_map(Bson::Int32),
            any::<i64>().prop_map(Bson::Int64),
            any::<f64>().prop_map(Bson::Double),
            ".{0,40}".prop_map(Bson::String),
            any::<bool>().prop_map(Bson::Boolean),
            any::<[u8; 12]>().prop_map(|id| bson::oid::ObjectId::from_bytes(id).into()),
            any::<i64>().prop_map(|millis| bson::DateTime::from_millis(millis).into()),
            any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(bson::Decimal128::from_bytes(bytes))),
            Just(Bson::Null),
            Just(Bson::MinKey),
            (any::<u32>(), any::<u32>())
                .prop_map(|(time, increment)| Bson::Timestamp(bson::Timestamp { time, increment })),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
                proptest::collection::vec(("[a-z.$]{0,6}", inner), 0..4)
                    .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
            ]
        })
    }

    proptest::proptest! {
        /// What is found by the key has the same key, and compares as equal in MongoDB's order.
        #[test]
        fn comes_back(value in any_value()) {
            let key = key(value.clone());
            let mut raw = vec![0; 4];
            key.write_element("_id", &mut raw).expect("a key of our own");
            raw.push(0);
            let length = raw.len() as i32;
            raw[..4].copy_from_slice(&length.to_le_bytes());
            let back = Document::new(&raw).expect("well formed").get(b"_id").expect("well formed").expect("an _id");
            proptest::prop_assert_eq!(Key::of(back).expect("a key"), key);
            let original = doc! {"_id": value}.to_vec().expect("a document");
            let original = Document::new(&original).expect("well formed").get(b"_id").expect("well formed").expect("an _id");
            proptest::prop_assert_eq!(crate::compare(original, back), std::cmp::Ordering::Equal);
        }
    }
}

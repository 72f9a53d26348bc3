//! A reader of raw BSON that borrows everything and copies nothing.
//!
//! Only the frame is checked while walking (lengths, terminators, known types). Text stays bytes until
//! somebody needs it as text, because most columns are read by one encoder that checks it once.

use std::fmt;

/// A BSON document, as the bytes that MongoDB sent: length, elements, terminator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Document<'a>(&'a [u8]);

/// One value of a document. Text is bytes: BSON promises UTF-8, and documents in the wild break the promise.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    Double(f64),
    String(&'a [u8]),
    Document(Document<'a>),
    Array(Document<'a>),
    Binary {
        subtype: u8,
        bytes: &'a [u8],
    },
    Undefined,
    ObjectId(&'a [u8; 12]),
    Boolean(bool),
    /// Milliseconds since 1970.
    DateTime(i64),
    Null,
    Regex {
        pattern: &'a [u8],
        options: &'a [u8],
    },
    DbPointer {
        namespace: &'a [u8],
        id: &'a [u8; 12],
    },
    JavaScript(&'a [u8]),
    Symbol(&'a [u8]),
    JavaScriptWithScope {
        code: &'a [u8],
        scope: Document<'a>,
    },
    Int32(i32),
    Timestamp {
        seconds: u32,
        increment: u32,
    },
    Int64(i64),
    /// The sixteen bytes of the wire, little endian; see [`crate::Decimal`].
    Decimal128(&'a [u8; 16]),
    MinKey,
    MaxKey,
}

/// The document's frame is broken at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset from the start of the document that was being walked.
    pub at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the BSON document is broken at byte {}", self.at)
    }
}

impl std::error::Error for Malformed {}

impl fmt::Debug for Document<'_> {
    /// Never the content: a document that is printed by mistake must not tell what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.0.len())
    }
}

impl<'a> Document<'a> {
    /// Takes bytes that hold exactly one document.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let length =
            bytes.first_chunk::<4>().map(|head| i32::from_le_bytes(*head)).ok_or(Malformed { at: 0 })?;
        if usize::try_from(length).ok() != Some(bytes.len()) || bytes.len() < 5 || bytes[bytes.len() - 1] != 0
        {
            return Err(Malformed { at: 0 });
        }
        Ok(Self(bytes))
    }

    /// The bytes, length and terminator included.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Walks the elements in their order.
    pub fn elements(self) -> Elements<'a> {
        Elements { bytes: self.0, at: 4 }
    }

    /// The first element of that name: where a name occurs twice, MongoDB reads the first too.
    pub fn get(self, name: &[u8]) -> Result<Option<Value<'a>>, Malformed> {
        for element in self.elements() {
            let (found, value) = element?;
            if found == name {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// True for a document with no element.
    pub fn is_empty(self) -> bool {
        self.0.len() <= 5
    }
}

/// Iterator over the elements of a [`Document`]: name and value. Stops after the first error.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    /// Where the next element starts, in bytes from the start of the document.
    pub fn offset(&self) -> usize {
        self.at
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        // The last byte of a document is its terminator and belongs to no element.
        let end = self.at.checked_add(length).ok_or(Malformed { at: self.at })?;
        if end >= self.bytes.len() {
            return Err(Malformed { at: self.at });
        }
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let at = self.at;
        self.take(N)?.first_chunk::<N>().ok_or(Malformed { at })
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.chunk::<4>().map(|bytes| i32::from_le_bytes(*bytes))
    }

    fn length(&mut self, least: usize) -> Result<usize, Malformed> {
        let at = self.at;
        let length = usize::try_from(self.i32()?).map_err(|_| Malformed { at })?;
        if length < least {
            return Err(Malformed { at });
        }
        Ok(length)
    }

    fn cstring(&mut self) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == 0).ok_or(Malformed { at: self.at })?;
        let text = self.take(length)?;
        self.take(1)?;
        Ok(text)
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length(1)?;
        let at = self.at;
        match self.take(length)? {
            [text @ .., 0] => Ok(text),
            _ => Err(Malformed { at }),
        }
    }

    fn document(&mut self) -> Result<Document<'a>, Malformed> {
        let start = self.at;
        let length = self.length(5)?;
        self.at = start;
        let bytes = self.take(length)?;
        Document::new(bytes).map_err(|_| Malformed { at: start })
    }

    fn value(&mut self, kind: u8) -> Result<Value<'a>, Malformed> {
        let at = self.at;
        Ok(match kind {
            0x01 => Value::Double(f64::from_le_bytes(*self.chunk()?)),
            0x02 => Value::String(self.string()?),
            0x03 => Value::Document(self.document()?),
            0x04 => Value::Array(self.document()?),
            0x05 => {
                let length = self.length(0)?;
                let [subtype] = *self.chunk::<1>()?;
                let bytes = self.take(length)?;
                Value::Binary { subtype, bytes }
            }
            0x06 => Value::Undefined,
            0x07 => Value::ObjectId(self.chunk()?),
            0x08 => Value::Boolean(self.chunk::<1>()?[0] != 0),
            0x09 => Value::DateTime(i64::from_le_bytes(*self.chunk()?)),
            0x0a => Value::Null,
            0x0b => Value::Regex { pattern: self.cstring()?, options: self.cstring()? },
            0x0c => Value::DbPointer { namespace: self.string()?, id: self.chunk()? },
            0x0d => Value::JavaScript(self.string()?),
            0x0e => Value::Symbol(self.string()?),
            0x0f => {
                self.length(14)?;
                Value::JavaScriptWithScope { code: self.string()?, scope: self.document()? }
            }
            0x10 => Value::Int32(self.i32()?),
            0x11 => {
                let increment = u32::from_le_bytes(*self.chunk()?);
                let seconds = u32::from_le_bytes(*self.chunk()?);
                Value::Timestamp { seconds, increment }
            }
            0x12 => Value::Int64(i64::from_le_bytes(*self.chunk()?)),
            0x13 => Value::Decimal128(self.chunk()?),
            0xff => Value::MinKey,
            0x7f => Value::MaxKey,
            _ => return Err(Malformed { at }),
        })
    }

    fn step(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Malformed> {
        if self.at + 1 >= self.bytes.len() {
            return Ok(None);
        }
        let [kind] = *self.chunk::<1>()?;
        let name = self.cstring()?;
        Ok(Some((name, self.value(kind)?)))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<(&'a [u8], Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.at = self.bytes.len();
        }
        step.transpose()
    }
}

impl Value<'_> {
    /// The name people know the type by, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Document(_) => "object",
            Value::Array(_) => "array",
            Value::Binary { .. } => "binary",
            Value::Undefined => "undefined",
            Value::ObjectId(_) => "objectId",
            Value::Boolean(_) => "bool",
            Value::DateTime(_) => "date",
            Value::Null => "null",
            Value::Regex { .. } => "regex",
            Value::DbPointer { .. } => "dbPointer",
            Value::JavaScript(_) => "javascript",
            Value::Symbol(_) => "symbol",
            Value::JavaScriptWithScope { .. } => "javascriptWithScope",
            Value::Int32(_) => "int",
            Value::Timestamp { .. } => "timestamp",
            Value::Int64(_) => "long",
            Value::Decimal128(_) => "decimal",
            Value::MinKey => "minKey",
            Value::MaxKey => "maxKey",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};

    fn bytes(document: &bson::Document) -> Vec<u8> {
        document.to_vec().expect("a document")
    }

    #[test]
    fn walks_every_type() {
        let document = doc! {
            "double": 1.5, "string": "é", "object": {"a": 1}, "array": [1, "b"],
            "binary": Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 2] }),
            "undefined": Bson::Undefined, "oid": bson::oid::ObjectId::from_bytes([7; 12]), "bool": true,
            "date": bson::DateTime::from_millis(-5), "null": Bson::Null,
            "code": Bson::JavaScriptCode("x".into()), "symbol": Bson::Symbol("s".into()),
            "int": 3_i32, "long": 4_i64, "min": Bson::MinKey, "max": Bson::MaxKey,
            "ts": Bson::Timestamp(bson::Timestamp { time: 9, increment: 2 }),
            "decimal": "1.10".parse::<bson::Decimal128>().expect("decimal"),
        };
        let raw = bytes(&document);
        let read = Document::new(&raw).expect("well formed");
        let names: Vec<_> = read
            .elements()
            .map(|element| {
                let (name, value) = element.expect("well formed");
                (String::from_utf8_lossy(name).into_owned(), value.type_name())
            })
            .collect();
        assert_eq!(names.len(), document.len());
        assert_eq!(names[3], ("array".into(), "array"));
        assert_eq!(read.get(b"long"), Ok(Some(Value::Int64(4))));
        assert_eq!(read.get(b"ts"), Ok(Some(Value::Timestamp { seconds: 9, increment: 2 })));
        assert_eq!(read.get(b"absent"), Ok(None));
    }

    proptest::proptest! {
        /// Whatever the bytes, the reader ends, and says where it stopped.
        #[test]
        fn never_panics(mut noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 5..200)) {
            let length = noise.len() as i32;
            noise[..4].copy_from_slice(&length.to_le_bytes());
            *noise.last_mut().expect("five bytes") = 0;
            if let Ok(document) = Document::new(&noise) {
                for element in document.elements() {
                    if let Ok((_, Value::Document(inner) | Value::Array(inner))) = element {
                        let _ = inner.elements().count();
                    }
                }
            }
        }

        /// Every cut of a good document is refused or read as a shorter whole, never past its end.
        #[test]
        fn cut_documents_are_refused(cut in 5_usize..60) {
            let raw = bytes(&doc! {"a": "some text", "b": {"c": [1, 2, 3]}, "d": 5_i64});
            let cut = cut.min(raw.len() - 1);
            proptest::prop_assert!(Document::new(&raw[..cut]).is_err());
        }
    }
}

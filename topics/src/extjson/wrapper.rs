//! The objects that represent a value of another type: `{"$oid": "…"}` and its like.

use super::read::{Kind, Reader, Unreadable};
use super::{decimal, number};
use crate::ascii;

impl Reader<'_, '_> {
    /// Reads the rest of a wrapper, whose name is in `word` and whose colon has been read.
    pub(super) fn wrapper(&mut self, element: usize) -> Result<(), Unreadable> {
        // The names are short; a copy of one lets the text behind it be read.
        let name = std::mem::take(&mut self.word);
        let kind = match name.as_slice() {
            b"$oid" => {
                self.object_id()?;
                0x07
            }
            b"$symbol" => {
                self.string()?;
                self.put_word()?;
                0x0e
            }
            b"$numberInt" => {
                let value: i32 = self.parsed("a 32-bit integer in quotes")?;
                self.out.extend_from_slice(&value.to_le_bytes());
                0x10
            }
            b"$numberLong" => {
                let value: i64 = self.parsed("a 64-bit integer in quotes")?;
                self.out.extend_from_slice(&value.to_le_bytes());
                0x12
            }
            b"$numberDouble" => {
                self.string()?;
                let value = std::str::from_utf8(&self.word).ok().and_then(number::read);
                let Some(value) = value else { return self.fail("a number in quotes") };
                self.out.extend_from_slice(&value.to_le_bytes());
                0x01
            }
            b"$numberDecimal" => {
                self.string()?;
                let Some(bytes) = decimal::read(&self.word) else { return self.fail("a decimal in quotes") };
                self.out.extend_from_slice(&bytes);
                0x13
            }
            b"$binary" => {
                self.binary()?;
                0x05
            }
            b"$uuid" => {
                self.uuid()?;
                0x05
            }
            b"$timestamp" => {
                self.timestamp()?;
                0x11
            }
            b"$regularExpression" => {
                self.regex()?;
                0x0b
            }
            b"$dbPointer" => {
                self.db_pointer()?;
                0x0c
            }
            b"$date" => {
                let millis = self.date()?;
                self.out.extend_from_slice(&millis.to_le_bytes());
                0x09
            }
            b"$minKey" => {
                self.literal("1", "1")?;
                0xff
            }
            b"$maxKey" => {
                self.literal("1", "1")?;
                0x7f
            }
            b"$undefined" => {
                self.literal("true", "true")?;
                0x06
            }
            b"$code" => return self.code(element),
            _ => return self.fail("`$code` before `$scope`"),
        };
        self.is(element, kind);
        self.expect(b'}', "the end of the wrapper")
    }

    fn parsed<T: std::str::FromStr>(&mut self, expected: &'static str) -> Result<T, Unreadable> {
        self.string()?;
        match std::str::from_utf8(&self.word).ok().and_then(|text| text.parse().ok()) {
            Some(value) => Ok(value),
            None => self.fail(expected),
        }
    }

    fn object_id(&mut self) -> Result<(), Unreadable> {
        self.string()?;
        if self.word.len() != 24 || ascii::from_hex(&self.word, self.out).is_none() {
            return self.fail("24 hexadecimal digits");
        }
        Ok(())
    }

    /// The two fields of an inner object, in either order: their names in the order of the BSON.
    fn pair(
        &mut self,
        names: [&'static str; 2],
        mut field: impl FnMut(&mut Self, usize) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        self.expect(b'{', "an object of two fields")?;
        let mut first = None;
        for turn in 0..2 {
            if turn == 1 {
                self.expect(b',', "an object of two fields")?;
            }
            self.string()?;
            let which = names.iter().position(|name| name.as_bytes() == self.word);
            let Some(which) = which.filter(|which| Some(*which) != first) else {
                return self.fail("the two fields of this type");
            };
            first = Some(which);
            self.expect(b':', "a colon")?;
            field(self, which)?;
        }
        self.expect(b'}', "an object of two fields")
    }

    fn binary(&mut self) -> Result<(), Unreadable> {
        let mut subtype = 0;
        let mut bytes = Vec::new();
        self.pair(["base64", "subType"], |reader, which| {
            reader.string()?;
            if which == 0 {
                return match ascii::from_base64(&reader.word, &mut bytes) {
                    Some(()) => Ok(()),
                    None => reader.fail("base64"),
                };
            }
            let text = std::str::from_utf8(&reader.word).ok();
            let text =
                text.filter(|text| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
            match text.and_then(|text| u8::from_str_radix(text, 16).ok()) {
                Some(value) => subtype = value,
                None => return reader.fail("a subtype of two hexadecimal digits"),
            }
            Ok(())
        })?;
        self.put_binary(subtype, &bytes)
    }

    fn put_binary(&mut self, subtype: u8, bytes: &[u8]) -> Result<(), Unreadable> {
        let place = self.out.len();
        self.out.extend_from_slice(&[0, 0, 0, 0, subtype]);
        let inner = self.out.len();
        if subtype == 2 {
            self.out.extend_from_slice(&[0; 4]);
        }
        self.out.extend_from_slice(bytes);
        if subtype == 2 {
            self.length(inner, inner + 4)?;
        }
        self.length(place, inner)
    }

    fn uuid(&mut self) -> Result<(), Unreadable> {
        self.string()?;
        match uuid::Uuid::try_parse_ascii(&self.word) {
            Ok(uuid) => self.put_binary(4, uuid.as_bytes()),
            Err(_) => self.fail("a UUID"),
        }
    }

    fn timestamp(&mut self) -> Result<(), Unreadable> {
        let mut halves = [0_u32; 2];
        self.pair(["i", "t"], |reader, which| {
            let Ok(value) = reader.digits().parse() else { return reader.fail("a 32-bit integer") };
            halves[which] = value;
            Ok(())
        })?;
        halves.iter().for_each(|half| self.out.extend_from_slice(&half.to_le_bytes()));
        Ok(())
    }

    fn regex(&mut self) -> Result<(), Unreadable> {
        let mut texts = [Vec::new(), Vec::new()];
        self.pair(["pattern", "options"], |reader, which| {
            reader.string()?;
            if reader.word.contains(&0) {
                return reader.fail("text without a zero character");
            }
            texts[which] = std::mem::take(&mut reader.word);
            Ok(())
        })?;
        for text in &texts {
            self.out.extend_from_slice(text);
            self.out.push(0);
        }
        Ok(())
    }

    fn db_pointer(&mut self) -> Result<(), Unreadable> {
        let mut namespace = Vec::new();
        let mut id = Vec::new();
        self.pair(["$ref", "$id"], |reader, which| {
            if which == 0 {
                reader.string()?;
                namespace = std::mem::take(&mut reader.word);
                return Ok(());
            }
            reader.expect(b'{', "an ObjectId")?;
            reader.string()?;
            if reader.word != b"$oid" {
                return reader.fail("an ObjectId");
            }
            reader.expect(b':', "a colon")?;
            let start = reader.out.len();
            reader.object_id()?;
            id = reader.out.split_off(start);
            reader.expect(b'}', "the end of the ObjectId")
        })?;
        self.word = namespace;
        self.put_word()?;
        self.out.extend_from_slice(&id);
        Ok(())
    }

    fn date(&mut self) -> Result<i64, Unreadable> {
        if self.peek() == Some(b'"') {
            let time: jiff::Timestamp = self.parsed("a time of RFC 3339")?;
            return Ok(time.as_millisecond());
        }
        self.expect(b'{', "a time of RFC 3339 or a number of milliseconds")?;
        self.string()?;
        if self.word != b"$numberLong" {
            return self.fail("`$numberLong`");
        }
        self.expect(b':', "a colon")?;
        let millis = self.parsed("a 64-bit integer in quotes")?;
        self.expect(b'}', "the end of the number")?;
        Ok(millis)
    }

    /// The scope is opened like a document of its own; what was begun here ends with it.
    fn code(&mut self, element: usize) -> Result<(), Unreadable> {
        self.string()?;
        if self.peek() == Some(b'}') {
            self.is(element, 0x0d);
            self.put_word()?;
            return self.expect(b'}', "the end of the JavaScript");
        }
        self.is(element, 0x0f);
        let whole = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.put_word()?;
        self.expect(b',', "`$scope` or the end of the JavaScript")?;
        self.string()?;
        if self.word != b"$scope" {
            return self.fail("`$scope`");
        }
        self.expect(b':', "a colon")?;
        self.expect(b'{', "an object")?;
        self.enter(Kind::Scope(whole));
        Ok(())
    }
}

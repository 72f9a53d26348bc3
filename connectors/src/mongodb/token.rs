//! Resume tokens as bytes that compare in the order of the stream.
//!
//! A token is `{_data: hex, _typeBits: binary?}`. The hex text is a sortable key whose first part is the cluster
//! time; kept as bytes it is half as long and compares the same. The type bits, which the server adds for
//! some kinds of numbers in `_id`, are kept behind it: a sortable key is never the start of another, so they
//! take no part in the order.

use bson::spec::BinarySubtype;
use bson::{Binary, RawDocumentBuf, cstr};
use bytes::Bytes;
use slackwater_topics::{Document, Malformed, Moment, Value};

const TIMESTAMP: u8 = 0x82;
/// A sortable key ends in 0x04, so this at the end says that type bits follow the key.
const WITH_TYPE_BITS: u8 = 0xff;

/// The bytes of a token.
pub(super) fn token_of(resume: Document<'_>) -> Result<Bytes, Malformed> {
    let broken = Malformed { at: 0 };
    let mut token = Vec::new();
    let mut type_bits: &[u8] = &[];
    for element in resume.elements() {
        match element? {
            (b"_data", Value::String(hex)) => token = unhex(hex).ok_or(broken)?,
            (b"_typeBits", Value::Binary { bytes, .. }) => type_bits = bytes,
            _ => {}
        }
    }
    if token.is_empty() {
        return Err(broken);
    }
    if !type_bits.is_empty() {
        token.extend_from_slice(type_bits);
        token.extend_from_slice(&u16::try_from(type_bits.len()).map_err(|_| broken)?.to_be_bytes());
        token.push(WITH_TYPE_BITS);
    }
    Ok(token.into())
}

/// The document to resume from; `None` where the bytes are not a token.
pub fn resume_document(token: &[u8]) -> Option<RawDocumentBuf> {
    let (key, type_bits) = parts(token)?;
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_data"), hex(key).as_str());
    if !type_bits.is_empty() {
        let binary = Binary { subtype: BinarySubtype::Generic, bytes: type_bits.to_vec() };
        document.append(cstr!("_typeBits"), binary);
    }
    Some(document)
}

/// The cluster time of a token.
pub fn token_time(token: &[u8]) -> Option<Moment> {
    match token {
        [TIMESTAMP, rest @ ..] => rest.first_chunk().map(|time| Moment(u64::from_be_bytes(*time))),
        _ => None,
    }
}

/// True for a token that belongs to no event: everything at or before its time has been seen.
pub fn is_high_water_mark(token: &[u8]) -> bool {
    // After the time: the version as a one-byte number, then the kind, which is zero for a mark.
    token.get(9) == Some(&0x2b) && token.get(11) == Some(&0x29)
}

/// The token of an event, from that of one of its fragments, the first being number zero: less the fragment's number, which is
/// the last part of the key. `None` where it does not end so.
pub(super) fn of_event(token: &[u8], fragment: u32) -> Option<Bytes> {
    let (key, _) = parts(token)?;
    let number: &[u8] = match fragment {
        0 => &[0x29],
        // A number of one byte is kept twice as large.
        1..64 => &[0x2b, u8::try_from(fragment * 2).ok()?],
        _ => return None,
    };
    let event = key.strip_suffix(&[0x04])?.strip_suffix(number)?;
    Some([event, &[0x04], &token[key.len()..]].concat().into())
}

fn parts(token: &[u8]) -> Option<(&[u8], &[u8])> {
    match token {
        [] => None,
        [rest @ .., high, low, WITH_TYPE_BITS] => {
            rest.len().checked_sub(usize::from(u16::from_be_bytes([*high, *low]))).map(|at| rest.split_at(at))
        }
        key => Some((key, &[])),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn token(document: &bson::Document) -> Option<Bytes> {
        let raw = document.to_vec().expect("a document");
        token_of(Document::new(&raw).expect("well formed")).ok()
    }

    #[test]
    fn comes_back_with_and_without_type_bits() {
        let bits = Binary { subtype: BinarySubtype::Generic, bytes: vec![0x42, 0xff, 0x00] };
        for document in [
            doc! {"_data": "8200000005000000012B0229296E04"},
            doc! {"_data": "8200000005000000012B022C0100296E04", "_typeBits": bits},
        ] {
            let token = token(&document).expect("a token");
            let back = resume_document(&token).expect("a document");
            assert_eq!(back.as_bytes(), document.to_vec().expect("a document"));
            assert_eq!(token_time(&token), Some(Moment::of_halves(5, 1)));
        }
    }

    #[test]
    fn knows_marks_from_events() {
        let is_mark = |data: &str| is_high_water_mark(&token(&doc! {"_data": data}).expect("a token"));
        assert!(is_mark("8200000005000000012B0229296E04"));
        assert!(is_mark("8200000005000000012B0429296E1404"));
        assert!(!is_mark("8200000005000000012B022C0100296E04"));
    }

    #[test]
    fn a_fragment_has_the_token_of_its_event() {
        let bits = Binary { subtype: BinarySubtype::Generic, bytes: vec![0x42] };
        for (fragment, number) in [(0, "29"), (1, "2B02"), (2, "2B04"), (63, "2B7E")] {
            for bits in [None, Some(bits.clone())] {
                let of = |data: String| {
                    let mut document = doc! {"_data": data};
                    document.extend(bits.clone().map(|bits| ("_typeBits".to_owned(), bits.into())));
                    token(&document).expect("a token")
                };
                let cut = of(format!("8200000005000000012B042C0100296E{number}04"));
                let whole = of("8200000005000000012B042C0100296E04".into());
                assert_eq!(of_event(&cut, fragment), Some(whole.clone()), "{number}");
                assert_eq!(of_event(&whole, fragment), None, "{number}");
                assert_eq!(of_event(&cut, fragment + 1), None, "{number}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_token() {
        for document in
            [doc! {}, doc! {"_data": ""}, doc! {"_data": "8"}, doc! {"_data": "8g"}, doc! {"_data": 1}]
        {
            assert_eq!(token(&document), None, "{document}");
        }
        assert!(resume_document(b"").is_none());
        assert!(resume_document(&[1, 0, 9, WITH_TYPE_BITS]).is_none());
        assert_eq!(token_time(&[1, 2, 3]), None);
    }
}

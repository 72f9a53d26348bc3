//! Bytes as ASCII: base64 (RFC 4648, padded) and hexadecimal, appended to what is there.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * place)) as usize & 0x3f];
            out.push(if place <= group.len() { letter } else { b'=' });
        }
    }
}

/// The bytes of base64 text, with its padding; `None` for anything that no encoder writes.
pub fn from_base64(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let pad = text.iter().rev().take(2).take_while(|letter| **letter == b'=').count();
    out.reserve(text.len() / 4 * 3);
    for group in text[..text.len() - pad].chunks(4) {
        let mut word = 0_u32;
        for letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            word = word << 6 | u32::from(value);
        }
        word <<= 6 * (4 - group.len());
        let bytes = word.to_be_bytes();
        out.extend_from_slice(&bytes[1..group.len()]);
        // Bits beyond the last byte would get lost.
        if bytes[group.len()..].iter().any(|byte| *byte != 0) {
            return None;
        }
    }
    Some(())
}

pub(crate) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// `None` for an odd number of digits or what is not a digit; both cases are read.
pub(crate) fn from_hex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digit = |letter: u8| char::from(letter).to_digit(16).map(|digit| digit as u8);
    for pair in text.chunks(2) {
        let [high, low] = *pair else { return None };
        out.push(digit(high)? << 4 | digit(low)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parse: fn(&[u8], &mut Vec<u8>) -> Option<()>, text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        parse(text.as_bytes(), &mut out).map(|()| out)
    }

    #[test]
    fn golden() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            let mut out = Vec::new();
            base64(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
        let mut out = Vec::new();
        base64(&[0xfb, 0xff, 0xfe], &mut out);
        hex(&[0, 0xa9, 0xff], &mut out);
        assert_eq!(out, b"+//+00a9ff");
    }

    #[test]
    fn what_was_not_written_so_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm-v", "Zm 9"] {
            assert_eq!(read(from_base64, text), None, "{text}");
        }
        assert_eq!(read(from_hex, "0"), None);
        assert_eq!(read(from_hex, "0g"), None);
        assert_eq!(read(from_hex, "+1"), None);
        assert_eq!(read(from_hex, "aAFf"), Some(vec![0xaa, 0xff]));
    }

    proptest::proptest! {
        #[test]
        fn comes_back(bytes: Vec<u8>) {
            let (mut text, mut digits) = (Vec::new(), Vec::new());
            base64(&bytes, &mut text);
            hex(&bytes, &mut digits);
            let (mut back, mut again) = (Vec::new(), Vec::new());
            proptest::prop_assert_eq!(from_base64(&text, &mut back), Some(()));
            proptest::prop_assert_eq!(from_hex(&digits, &mut again), Some(()));
            proptest::prop_assert_eq!(&back, &bytes);
            proptest::prop_assert_eq!(&again, &bytes);
        }
    }
}

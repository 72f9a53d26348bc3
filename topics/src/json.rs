//! JSON strings, written without building them first.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends bytes as a JSON string. False where they are not UTF-8: U+FFFD replaces what is not.
pub(crate) fn string(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let mut whole = true;
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        escape(chunk.valid().as_bytes(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
            whole = false;
        }
    }
    out.push(b'"');
    whole
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for (at, byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&text[from..at]);
        from = at + 1;
        if short == 0 {
            let low = DIGITS[usize::from(byte & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', DIGITS[usize::from(byte >> 4)], low]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&text[from..]);
}

/// Turns JSON text that was written from `start` on into the inside of a JSON string, in place: such text has
/// no control characters left, so only quotes and backslashes grow.
pub(crate) fn escape_tail(out: &mut Vec<u8>, start: usize) {
    let special = |byte: &u8| matches!(byte, b'"' | b'\\');
    let mut from = out.len();
    let extra = out[start..].iter().filter(|byte| special(byte)).count();
    out.resize(from + extra, 0);
    let mut to = out.len();
    // From the end, so that nothing is overwritten before it has moved.
    while to > from {
        (from, to) = (from - 1, to - 1);
        out[to] = out[from];
        if special(&out[from]) {
            to -= 1;
            out[to] = b'\\';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn is_what_serde_json_says(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
            let mut out = Vec::new();
            proptest::prop_assert!(string(text.as_bytes(), &mut out));
            proptest::prop_assert_eq!(&out, &serde_json::to_vec(&text).expect("a string"));
            let inner = out.clone();
            out.insert(0, b'"');
            escape_tail(&mut out, 1);
            out.push(b'"');
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("a string").into_bytes(), inner);
        }
    }

    #[test]
    fn broken_text_is_mended_and_told() {
        let mut out = Vec::new();
        assert!(!string(b"a\xff\xc3b\xf0\x9f", &mut out));
        assert_eq!(String::from_utf8(out).expect("mended"), "\"a\u{fffd}\u{fffd}b\u{fffd}\"");
    }
}

//! The file's text as it may be shown: stars in place of what may be a password.
//!
//! Byte for byte, so that every span stays right, and by the text alone, since a file that is no YAML is shown as well.
//! In doubt too much is blotted out.

use std::ops::Range;

pub(super) fn blot_secrets(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let lower = text.to_ascii_lowercase();
    let places =
        user_and_password(text).chain(in_connection_string(text, &lower)).chain(settings(text, &lower));
    places.for_each(|place| blot(&mut bytes, place));
    String::from_utf8(bytes).unwrap_or_default()
}

/// The same for a value whose place is known.
pub(super) fn blot_value(text: &str, place: Range<usize>) -> String {
    let Some(value) = text.get(place.clone()) else { return text.to_owned() };
    let inner = value.trim_matches(['"', '\'']);
    let from = place.start + value.find(inner).unwrap_or_default();
    let mut bytes = text.as_bytes().to_vec();
    blot(&mut bytes, without_name(text, from..from + inner.len()));
    String::from_utf8(bytes).unwrap_or_default()
}

fn blot(bytes: &mut [u8], place: Range<usize>) {
    for byte in &mut bytes[place] {
        if !b"\n\r".contains(byte) {
            *byte = b'*';
        }
    }
}

/// What comes from outside shows nothing but its name.
fn without_name(text: &str, place: Range<usize>) -> Range<usize> {
    let shown = match &text[place.clone()] {
        value if value.starts_with("${") => value.find('}').map_or(0, |end| end + 1),
        _ => 0,
    };
    place.start + shown..place.end
}

/// `scheme://user:password@host`.
fn user_and_password(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(start, _)| {
        let from = start + 3;
        let length = until(&text[from..], b"\n\r\"'");
        let at = text[from..from + length].rfind('@')?;
        Some(from..from + at)
    })
}

/// `host=x password=y`.
fn in_connection_string(text: &str, lower: &str) -> impl Iterator<Item = Range<usize>> {
    lower.match_indices("password=").map(|(start, found)| {
        let from = start + found.len();
        from..from + until(&text[from..], b"\n\r\"' &")
    })
}

/// The values of `sasl.password: x`, `ssl.key.pem: |` and the like.
fn settings(text: &str, lower: &str) -> impl Iterator<Item = Range<usize>> {
    const NAMES: [&str; 3] = [".password", ".secret", ".pem"];
    NAMES.iter().flat_map(move |name| lower.match_indices(name)).filter_map(|(start, name)| {
        let behind = text[start + name.len()..].trim_start_matches(['"', '\'']).trim_start_matches(' ');
        let value = behind.strip_prefix(':')?.trim_start_matches(' ');
        let from = text.len() - value.len();
        let (from, length) = match value.bytes().next() {
            Some(b'"') => (from + 1, quoted(&value[1..])),
            Some(b'\'') => (from + 1, until(&value[1..], b"'")),
            _ => (from, plain(value, indent(line_of(text, start)))),
        };
        Some(without_name(text, from..from + length))
    })
}

/// How much comes before the first of these.
fn until(text: &str, ends: &[u8]) -> usize {
    text.bytes().position(|byte| ends.contains(&byte)).unwrap_or(text.len())
}

/// How much comes before the closing `"`.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.unwrap_or(text.len())
}

/// The rest of the line, and the lines after it that are indented deeper than its first one.
fn plain(text: &str, above: usize) -> usize {
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().map_or(0, str::len);
    let deeper = |line: &&str| line.trim().is_empty() || indent(line) > above;
    first + lines.take_while(deeper).map(str::len).sum::<usize>()
}

fn line_of(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    &text[start..]
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let text = "target: { postgres: { uri: \"postgres://me:p@ss:wörd@db/x\" } }\nb: host=x password=hush port=1\n";
        let shown = blot_secrets(text);
        assert!(!shown.contains("ss:w") && !shown.contains("hush"), "{shown}");
        assert!(shown.contains("@db/x") && shown.contains("port=1"), "{shown}");
        assert_eq!(shown.len(), text.len());
    }

    #[test]
    fn a_value_in_its_place() {
        for (text, value, shown) in [
            ("a: hüsh, b", "hüsh", "a: *****, b"),
            ("a: \"hush\", b", "\"hush\"", "a: \"****\", b"),
            ("a: '${A}'", "'${A}'", "a: '${A}'"),
            ("a: \"${A}hu\nsh\"", "\"${A}hu\nsh\"", "a: \"${A}**\n**\""),
            ("a: ${A", "${A", "a: ***"),
        ] {
            let from = text.find(value).expect("it is in there");
            assert_eq!(blot_value(text, from..from + value.len()), shown);
        }
    }

    #[test]
    fn nor_are_those_of_a_client() {
        let text = r#"
options: { "ssl.key.password" : "hu\"hush", x.secret: "${A}hush", acks: 1 }
options: { sasl.password: hush,hush }
b:
  ssl.key.pem: |
    -----hush

    hush
  ssl.keystore.password: hush
    hush
  users: { password: user.password, b: c }
  ssl.key.password: 'hush }, hush"#;
        let shown = blot_secrets(text);
        assert!(!shown.contains("hu"), "{shown}");
        for kept in ["\"********\"", "\"${A}****\", acks: 1 }", "{ password: user.password, b: c }"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert_eq!(shown.lines().count(), text.lines().count());
        assert_eq!(shown.len(), text.len());
    }
}

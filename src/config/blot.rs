//! The file's text as it may be shown: stars in place of what may be a secret.
//!
//! A file that is not valid YAML is shown as well, so this looks at the text alone, and byte for byte, so that every span stays
//! right. Sections that have no room for a secret are open: only what looks like a password is blotted out there. All other
//! sections are closed: nothing is shown but their known words, punctuation and the names in `${…}`. When the file could be read,
//! its keys and some harmless values are shown again.

use std::ops::Range;

use super::diagnostics::At;
use super::tree::{Node, Shape};

/// Sections without secrets.
const OPEN: [&str; 9] = [
    "migration",
    "namespace",
    "ids",
    "snapshot",
    "defaults",
    "collections",
    "not_migrated",
    "checks",
    "include",
];

/// What is shown of closed sections even where the file cannot be read.
const WORDS: [&str; 70] = [
    "sources",
    "target",
    "mongodb",
    "postgres",
    "nocodb",
    "uri",
    "database",
    "schema",
    "log",
    "direct",
    "kafka",
    "brokers",
    "values",
    "bson",
    "debezium",
    "schemas",
    "topics",
    "prefix",
    "partitions",
    "replication",
    "retention",
    "compact",
    "config",
    "group",
    "writers",
    "options",
    "producer",
    "consumer",
    "security.protocol",
    "sasl.mechanisms",
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.key.pem",
    "ssl.key.password",
    "verify",
    "throttle",
    "cutover",
    "max_lag",
    "verified_within",
    "deadline",
    "freeze",
    "unfreeze",
    "before",
    "after",
    "open",
    "sql",
    "name",
    "command",
    "webhook",
    "sequences",
    "mongodb_block_writes",
    "on_drop",
    "park",
    "follow",
    "url",
    "token",
    "base",
    "every",
    "sweep",
    "requests_per_second",
    "include",
    "ciphers",
    "aes-256-cbc",
    "aes-256-gcm",
    "key",
    "iv",
    "encoding",
    "base64",
];

/// Keys of closed sections whose values are no secrets.
const HARMLESS: [&str; 17] = [
    "database",
    "schema",
    "values",
    "schemas",
    "prefix",
    "partitions",
    "replication",
    "retention",
    "compact",
    "group",
    "writers",
    "throttle",
    "max_lag",
    "verified_within",
    "deadline",
    "freeze",
    "encoding",
];

/// Stands for a key that may be a piece of a secret.
const HIDDEN_KEY: &str = "…";

pub(super) fn blot_secrets(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let lower = text.to_ascii_lowercase();
    let places =
        user_and_password(text).chain(in_connection_string(text, &lower)).chain(settings(text, &lower));
    places.for_each(|place| blot(&mut bytes, place));
    let (mut open, mut start) = (false, 0);
    for line in text.split_inclusive('\n') {
        open = begins(line).unwrap_or(open);
        if !open {
            let place = start..start + line.len();
            bytes[place.clone()].copy_from_slice(line.as_bytes());
            close(&mut bytes[place], line);
        }
        start += line.len();
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// Shows again what is harmless in a file that could be read: keys, and the values of some of them.
pub(super) fn reveal(shown: &str, text: &str, root: &Node) -> String {
    let mut bytes = shown.as_bytes().to_vec();
    let mut entries: Vec<&(At<String>, Node)> = closed(root).collect();
    while let Some((key, value)) = entries.pop() {
        let mut harmless = Vec::new();
        if !may_be_secret(&key.value, value) {
            harmless.push(key.place);
        }
        match &value.shape {
            Shape::Scalar(_) if HARMLESS.contains(&key.value.as_str()) => harmless.push(value.place),
            _ => entries.extend(value.entries()),
        }
        for place in harmless {
            let place = place.offset..place.offset + place.length;
            let written = text.get(place.clone()).unwrap_or_default();
            if is_name(written.trim_matches(['"', '\''])) {
                bytes[place].copy_from_slice(written.as_bytes());
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// The closed sections of a file.
fn closed(root: &Node) -> impl Iterator<Item = &(At<String>, Node)> {
    let sections: &[_] = match &root.shape {
        Shape::Map(sections) => sections,
        Shape::Scalar(_) | Shape::Seq(_) => &[],
    };
    sections.iter().filter(|(key, _)| !OPEN.contains(&key.value.as_str()))
}

/// Takes out of the closed sections every key that may be a piece of a secret, because messages name keys: what is behind an
/// unquoted comma becomes a key without a value.
pub(super) fn hide_keys(root: &mut Node) {
    fn hide(node: &mut Node) {
        match &mut node.shape {
            Shape::Scalar(_) => {}
            Shape::Seq(list) => list.iter_mut().for_each(hide),
            Shape::Map(entries) => {
                for (key, value) in entries {
                    if may_be_secret(&key.value, value) {
                        key.value = HIDDEN_KEY.to_owned();
                    }
                    hide(value);
                }
            }
        }
    }
    let Shape::Map(sections) = &mut root.shape else { return };
    for (key, value) in sections.iter_mut().filter(|(key, _)| !OPEN.contains(&key.value.as_str())) {
        if may_be_secret(&key.value, value) {
            key.value = HIDDEN_KEY.to_owned();
        }
        hide(value);
    }
}

fn may_be_secret(key: &str, value: &Node) -> bool {
    let empty = matches!(&value.shape, Shape::Scalar(scalar) if scalar.is_null());
    !is_name(key) || (empty && !WORDS.contains(&key))
}

/// As names of ours, of Kafka's settings and of databases are made.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(in_name)
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

/// Whether a line begins a section, and whether that is an open one.
fn begins(line: &str) -> Option<bool> {
    let first = line.bytes().next()?;
    if first.is_ascii_whitespace() || b"#-}]".contains(&first) {
        return None;
    }
    let key = line.split_once(':').map_or("", |(key, _)| key.trim_end().trim_matches(['"', '\'']));
    Some(OPEN.contains(&key))
}

/// Blots out everything in a line of a closed section that may not be shown.
fn close(bytes: &mut [u8], line: &str) {
    let mut at = 0;
    while at < line.len() {
        let rest = &line.as_bytes()[at..];
        let word = rest.iter().take_while(|byte| in_name(**byte)).count();
        let (length, shown) = match reference(&line[at..]) {
            Some(length) => (length, true),
            None if word > 0 => (word, WORDS.contains(&&line[at..at + word]) || &line[at..at + word] == "-"),
            None => {
                let length = line[at..].chars().next().map_or(1, char::len_utf8);
                (length, b" \t\r\n{}[],:\"'#".contains(&rest[0]))
            }
        };
        if !shown {
            blot(bytes, at..at + length);
        }
        at += length;
    }
}

/// The length of the `${NAME}` or `${file:/path}` that the text begins with.
fn reference(text: &str) -> Option<usize> {
    let name = text.strip_prefix("${")?;
    let length = name.find('}')?;
    let name = &name[..length];
    let path = name.strip_prefix("file:");
    let fits = match path {
        Some(path) => path.bytes().all(|byte| in_name(byte) || byte == b'/'),
        None => is_variable(name),
    };
    fits.then_some(length + 3)
}

/// As the names of environment variables are made.
pub(super) fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(fits) && !name.as_bytes()[0].is_ascii_digit()
}

fn blot(bytes: &mut [u8], place: Range<usize>) {
    for byte in &mut bytes[place] {
        if !b"\n\r".contains(byte) {
            *byte = b'*';
        }
    }
}

/// `scheme://user:password@host`.
fn user_and_password(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(start, _)| {
        let from = start + 3;
        let at = text[from..from + until(&text[from..], b"\n\r")].rfind('@')?;
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

/// What comes from outside shows nothing but its name.
fn without_name(text: &str, place: Range<usize>) -> Range<usize> {
    place.start + reference(&text[place.clone()]).unwrap_or(0)..place.end
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
    fn passwords_are_never_shown_in_open_sections_either() {
        let text = "checks:\n  a: \"postgres://me:p@ss:wörd@db/x\"\n  b: host=x password=hush port=1\n  uri: website\n";
        let shown = blot_secrets(text);
        assert!(!shown.contains("ss:w") && !shown.contains("hush"), "{shown}");
        assert!(shown.contains("@db/x") && shown.contains("port=1") && shown.contains("website"), "{shown}");
        assert_eq!(shown.len(), text.len());
    }

    #[test]
    fn nor_are_those_of_a_client() {
        let text = r#"
collections:
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

    #[test]
    fn closed_sections_show_their_words_only() {
        let text = "target: { postgres: { uri: \"postgres://me:wörd@db\", password: hush-y, schema: x } } # hüsh\n\
                    log:\n  kafka:\n    brokers: \"${BROKERS}\"\n    options: { a: \"${file:/run/a.b}hush\", b: ${hush }\n\
                    hush: hush\nmigration: shown # shown\n  shown\nhush\n";
        let shown = "target: { postgres: { uri: \"postgres:****:********\", ********: ******, schema: * } } # *****\n\
                     log:\n  kafka:\n    brokers: \"${BROKERS}\"\n    options: { *: \"${file:/run/a.b}****\", *: *{**** }\n\
                     ****: ****\nmigration: shown # shown\n  shown\n****\n";
        assert_eq!(blot_secrets(text), shown);
    }
}

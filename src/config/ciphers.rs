//! The section `ciphers`: with what values are decrypted and encrypted. Keys come from outside, so that the file can be shown to anybody.

use std::collections::BTreeMap;

use slackwater_connectors::secret::Secret;
use slackwater_topics::from_base64;

use super::diagnostics::{At, Findings, Place};
use super::fields::{self, Fields};
use super::migration::{Collection, Convert, Rule};
use super::outside::{Outside, secret};
use super::spelling::{list, nearest};
use super::tree::{Node, Shape};

const CBC: &str = "aes-256-cbc";
const GCM: &str = "aes-256-gcm";

/// A cipher, and its key.
#[derive(Clone, Debug)]
pub struct Cipher {
    /// What rules call it.
    pub name: String,
    /// How it works.
    pub algorithm: Algorithm,
    /// How encrypted bytes are written as text.
    pub encoding: Encoding,
    /// 32 bytes.
    pub key: CipherKey,
}

/// How a cipher works.
#[derive(Clone, Debug)]
pub enum Algorithm {
    /// AES-256-CBC with the padding of PKCS #7. Nothing is authenticated.
    Cbc(Iv),
    /// AES-256-GCM: nonce, encrypted bytes, tag.
    Gcm,
}

/// Where the first block of CBC comes from.
#[derive(Clone, Debug)]
pub enum Iv {
    /// It is the same for all values: 16 bytes.
    Fixed(CipherKey),
    /// It is the first 16 bytes of each value.
    Prefix,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As in RFC 4648, with `+`, `/` and padding.
    Base64,
    /// Two digits a byte.
    Hex,
}

/// Bytes that nobody may see, as the text that they were given in.
#[derive(Clone, Debug)]
pub struct CipherKey(Secret);

impl CipherKey {
    /// The bytes. The right number of them, because that was looked at when the file was read.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        bytes_of(self.0.expose()).unwrap_or_default()
    }
}

/// The section, as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) ciphers: Vec<Cipher>,
    /// All names, those with mistakes too.
    names: Vec<String>,
}

impl Section {
    pub(super) fn read(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Self {
        let Some(fields) = Fields::of(node, "`ciphers`", findings) else { return Self::default() };
        let mut section = Self::default();
        for (name, node) in fields.into_entries() {
            if is_name(&name.value) {
                section.names.push(name.value.clone());
            }
            section.ciphers.extend(cipher(name, node, outside, findings));
        }
        section
    }

    /// What rows depend on, by cipher. Never the key: a digest of it would let everybody try keys who may read our tables.
    pub(super) fn forms(&self) -> BTreeMap<String, String> {
        let form = |cipher: &Cipher| {
            let how = match &cipher.algorithm {
                Algorithm::Cbc(Iv::Fixed(_)) => "aes-256-cbc iv",
                Algorithm::Cbc(Iv::Prefix) => "aes-256-cbc prefix",
                Algorithm::Gcm => "aes-256-gcm nonce 1",
            };
            (cipher.name.clone(), format!("{} {how} {:?}", cipher.name, cipher.encoding))
        };
        self.ciphers.iter().map(form).collect()
    }

    /// Rules name ciphers that there are, each for what it can do.
    pub(super) fn check(&self, collections: &[Collection], findings: &mut Findings) {
        let columns = collections.iter().flat_map(|collection| &collection.tables);
        let parts = columns.flat_map(|table| table.columns.iter().flat_map(|column| column.parts()));
        for part in parts {
            if let Some(name) = &part.travels {
                self.known(name, findings);
                self.writes(name, findings);
            }
            let Rule::Value(value) = &part.rule.value else { continue };
            let Convert::Cipher { from, to } = &value.convert else { continue };
            for name in from.iter().chain(to) {
                self.known(name, findings);
            }
            if let Some(to) = to {
                self.writes(to, findings);
            }
        }
    }

    /// It is a cipher to encrypt with.
    fn writes(&self, name: &At<String>, findings: &mut Findings) {
        let found = self.ciphers.iter().find(|cipher| cipher.name == name.value);
        if matches!(found, Some(Cipher { algorithm: Algorithm::Cbc(_), .. })) {
            let message = format!("`{}` is {CBC}, which is for reading only", name.value);
            let help = "it does not notice when somebody changes what it protects: encrypt with a cipher of `aes-256-gcm`";
            findings.error(name.place, message, help);
        }
    }

    fn known(&self, name: &At<String>, findings: &mut Findings) {
        if self.names.contains(&name.value) {
            return;
        }
        let names = || self.names.iter().map(String::as_str);
        let help = match nearest(&name.value, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.names.is_empty() => {
                format!(
                    "add a section: `ciphers: {{ {}: {{ {GCM}: {{ key: \"${{NAME}}\" }} }} }}`",
                    name.value
                )
            }
            None => format!("ciphers: {}", list(names())),
        };
        findings.error(name.place, format!("there is no cipher `{}`", name.value), help);
    }
}

fn cipher(name: &At<String>, node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Option<Cipher> {
    if !is_name(&name.value) {
        let help = "letters, digits, `_`, `-` and `.`: `member_pin`";
        findings.error(name.place, "this is no name for a cipher", help);
        return None;
    }
    let mut fields = Fields::of(node, "a cipher", findings)?;
    let found = (fields.take(CBC), fields.take(GCM));
    let misspelt = fields.names().next().is_some();
    fields.finish(&[CBC, GCM], findings);
    let (node, is_cbc) = match found {
        (Some((_, node)), None) => (node, true),
        (None, Some((_, node))) => (node, false),
        (Some(_), Some((second, _))) => {
            let message = format!("`{}` is two ciphers", name.value);
            findings.error(second.place, message, "keep one of them, or give the other a name of its own");
            return None;
        }
        (None, None) if misspelt => return None,
        (None, None) => {
            let help = format!(
                "write `{GCM}: {{ key: \"${{NAME}}\" }}`, or `{CBC}: {{ key: \"${{NAME}}\", iv: prefix }}`"
            );
            findings.error(node.place, "nothing says what cipher it is", help);
            return None;
        }
    };
    let what = if is_cbc { "`aes-256-cbc`" } else { "`aes-256-gcm`" };
    let mut fields = Fields::of(node, what, findings)?;
    let key = fields.require("key", "write `key: \"${NAME}\"`", findings);
    let key = key.and_then(|(_, node)| key_of(node, "`key`", 32, outside, findings));
    let algorithm = match is_cbc {
        true => {
            let help = "write `iv: \"${NAME}\"`, or `iv: prefix` where each value begins with its own";
            let iv = fields.require("iv", help, findings);
            iv.and_then(|(_, node)| iv_of(node, outside, findings)).map(Algorithm::Cbc)
        }
        false => {
            if let Some((at, _)) = fields.take("iv") {
                let help = "its nonce is made of the key, the place and the value, and stands before it: leave `iv` out";
                findings.error(at.place, "`iv` does not go with `aes-256-gcm`", help);
            }
            Some(Algorithm::Gcm)
        }
    };
    let encodings = [("base64", Encoding::Base64), ("hex", Encoding::Hex)];
    let encoding = fields.take("encoding");
    let encoding = encoding.map(|(_, node)| fields::choice(node, "`encoding`", &encodings, findings));
    let known: &[&str] = if is_cbc { &["key", "iv", "encoding"] } else { &["key", "encoding"] };
    fields.finish(known, findings);
    let encoding = encoding.unwrap_or(Some(Encoding::Base64))?;
    Some(Cipher { name: name.value.clone(), algorithm: algorithm?, encoding, key: key? })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter))
}

fn iv_of(node: &Node, outside: &Outside<'_>, findings: &mut Findings) -> Option<Iv> {
    if matches!(&node.shape, Shape::Scalar(scalar) if scalar.text == "prefix") {
        return Some(Iv::Prefix);
    }
    key_of(node, "`iv`", 16, outside, findings).map(Iv::Fixed)
}

/// Bytes from outside. Messages never show what was found, nor how it begins.
fn key_of(
    node: &Node,
    what: &str,
    length: usize,
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Option<CipherKey> {
    let text = fields::text(node, what, findings)?;
    if !is_from_outside(&text.value) {
        let message = format!("{what} stands in the file itself");
        let help = "whoever reads the file could decrypt: write `\"${NAME}\"` or `\"${file:/path}\"`, and use another key from now on";
        findings.error(node.place, message, help);
        return None;
    }
    let secret = secret(node, what, outside, findings)?;
    let message = match bytes_of(secret.expose()) {
        Some(bytes) if bytes.len() == length => return Some(CipherKey(secret)),
        Some(bytes) => format!("{what} has {} bytes, and {length} are needed", bytes.len()),
        None => format!("{what} is neither hexadecimal digits nor base64"),
    };
    let help = format!(
        "{length} bytes are {} hexadecimal digits, such as `openssl rand -hex {length}` prints, or base64",
        length * 2
    );
    findings.error(node.place, message, help);
    None
}

/// `${…}` and nothing else.
fn is_from_outside(text: &str) -> bool {
    let mut rest = text.trim();
    while let Some(inside) = rest.strip_prefix("${") {
        // One that is not closed is told of by who reads it.
        rest = inside.split_once('}').map_or("", |(_, behind)| behind);
    }
    rest.is_empty()
}

/// Hexadecimal digits where they are as many as a key has, else base64.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().as_bytes();
    let is_hex = matches!(text.len(), 32 | 64) && text.iter().all(u8::is_ascii_hexdigit);
    if is_hex { unhex(text) } else { unbase64(text) }
}

/// The bytes that hexadecimal digits stand for.
pub(crate) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |letter: u8| char::from(letter).to_digit(16);
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}

/// The bytes that base64 stands for; the padding may be left out.
pub(crate) fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    let mut padded = text.to_vec();
    if !text.contains(&b'=') {
        padded.resize(text.len().next_multiple_of(4), b'=');
    }
    let mut bytes = Vec::new();
    from_base64(&padded, &mut bytes).map(|()| bytes)
}

/// What `encrypt`, `decrypt` and `reencrypt` say beside the path.
pub(super) fn convert(
    word: &str,
    place: Place,
    fields: &mut Fields<'_>,
    findings: &mut Findings,
) -> Option<Convert> {
    let mut side = |option: &str, wanted: bool, help: &str| {
        if wanted {
            return named(option, word, place, fields, findings).map(Some);
        }
        if let Some((at, _)) = fields.take(option) {
            findings.error(at.place, format!("`{option}` does not go with `{word}`"), help);
        }
        Some(None)
    };
    let from = side("from", word != "encrypt", "`encrypt` takes plain text; `reencrypt` has `from` and `to`");
    let to = side("to", word != "decrypt", "`decrypt` leaves plain text; `reencrypt` has `from` and `to`");
    Some(Convert::Cipher { from: from?, to: to? })
}

/// The cipher that `option` names.
fn named(
    option: &str,
    word: &str,
    place: Place,
    fields: &mut Fields<'_>,
    findings: &mut Findings,
) -> Option<At<String>> {
    let Some((_, node)) = fields.take(option) else {
        let help = format!("name a cipher of the section `ciphers`: `{option}: member_pin`");
        findings.error(place, format!("`{word}` has no `{option}`"), help);
        return None;
    };
    fields::text(node, &format!("`{option}`"), findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_it_is_written() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zg", b"f"),
            ("Zm8=", b"fo"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
        ] {
            assert_eq!(unbase64(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm 9", "=", "Zg==Zg==", "-_-_"] {
            assert_eq!(unbase64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn digits_are_read_in_either_case() {
        assert_eq!(unhex(b"00fFaB").as_deref(), Some(&[0, 0xff, 0xab][..]));
        assert_eq!((unhex(b"0"), unhex(b"0g"), unhex(b"")), (None, None, Some(Vec::new())));
    }

    #[test]
    fn keys_are_digits_or_base64() {
        assert_eq!(bytes_of(&"0".repeat(64)).map(|bytes| bytes.len()), Some(32));
        assert_eq!(bytes_of(&"0".repeat(32)).map(|bytes| bytes.len()), Some(16));
        assert_eq!(bytes_of(&format!("{}=\n", "A".repeat(43))).map(|bytes| bytes.len()), Some(32));
        assert!(is_from_outside("${A}") && is_from_outside("${A}${file:/b}"));
        assert!(!is_from_outside("a${A}") && !is_from_outside("${A}b"));
    }
}

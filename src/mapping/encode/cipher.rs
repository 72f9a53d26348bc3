//! Values that are decrypted, encrypted, or the one and then the other.
//!
//! A replay must write the same bytes, so a nonce is not random. It is made of the key, the place that the value is written to and the
//! value itself: the same value in the same place gives the same bytes, and in any other place others. Two values with one nonce would need a
//! collision of 96 bits of HMAC-SHA256. `docs/design/ciphers.md` says what that costs.
//!
//! No message here says more than which cipher failed: how it failed would help somebody who guesses.

use std::fmt;
use std::sync::Arc;

use aes::Aes256;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use slackwater_topics::Value;

use super::{Fit, Lenient, Problem, Scratch, Text, text};
use crate::config::{self, Algorithm, Encoding, Iv, unbase64, unhex};
use crate::mapping::rejection::Reason;

const NONCE: usize = 12;
const BLOCK: usize = 16;
/// Says that a key makes nonces, and by which rule.
const NONCES: &[u8] = b"slackwater nonce 1";

/// What becomes of a value between the document and its column.
#[derive(Clone, Debug)]
pub(in crate::mapping) struct Ciphered {
    /// With what it was encrypted.
    pub(in crate::mapping) from: Option<Arc<Opener>>,
    /// With what it is encrypted.
    pub(in crate::mapping) to: Option<Arc<Sealer>>,
    /// The column, as nonces know it: `schema.table.column`.
    pub(in crate::mapping) column: Box<str>,
    /// How text is written; none for a column of bytes.
    pub(in crate::mapping) text: Option<Text>,
}

impl Ciphered {
    pub(super) fn write(
        &self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let mut fit = Fit::Exact;
        let plain = match &self.from {
            Some(from) => from.open(&from.stored(value)?)?,
            None => match value {
                Value::Binary { subtype, bytes } => super::payload(subtype, bytes).to_vec(),
                _ => {
                    let (text, how) = text::of(value, lenient, &mut scratch.text)?;
                    fit = how;
                    text.as_bytes().to_vec()
                }
            },
        };
        let Some(to) = &self.to else {
            return match &self.text {
                Some(text) => text.write(Value::String(&plain), lenient, out, scratch),
                None => {
                    out.extend_from_slice(&plain);
                    Ok(Fit::Exact)
                }
            };
        };
        let sealed = to.seal(&self.column, &scratch.place, &plain)?;
        let Some(form) = &self.text else {
            out.extend_from_slice(&sealed);
            return Ok(fit);
        };
        let mut written = Vec::with_capacity(sealed.len() * 2);
        match to.encoding {
            Encoding::Base64 => text::base64(&sealed, &mut written),
            Encoding::Hex => text::hex(&sealed, &mut written),
        }
        // What is cut cannot be decrypted, so nothing is ever clamped.
        form.write(Value::String(&written), Lenient::No, out, scratch)?;
        Ok(fit)
    }
}

/// A cipher that decrypts.
pub(in crate::mapping) struct Opener {
    name: String,
    encoding: Encoding,
    key: OpenerKey,
}

enum OpenerKey {
    Cbc { key: [u8; 32], iv: Option<[u8; BLOCK]> },
    Gcm(Box<Aes256Gcm>),
}

impl Opener {
    pub(in crate::mapping) fn new(cipher: &config::Cipher) -> Option<Self> {
        let key = <[u8; 32]>::try_from(cipher.key.bytes()).ok()?;
        let key = match &cipher.algorithm {
            Algorithm::Cbc(Iv::Prefix) => OpenerKey::Cbc { key, iv: None },
            Algorithm::Cbc(Iv::Fixed(iv)) => {
                OpenerKey::Cbc { key, iv: Some(<[u8; BLOCK]>::try_from(iv.bytes()).ok()?) }
            }
            Algorithm::Gcm => OpenerKey::Gcm(Box::new(Aes256Gcm::new(&key.into()))),
        };
        Some(Self { name: cipher.name.clone(), encoding: cipher.encoding, key })
    }

    /// The encrypted bytes.
    fn stored(&self, value: Value<'_>) -> Result<Vec<u8>, Problem> {
        let text = match value {
            Value::Binary { subtype, bytes } => return Ok(super::payload(subtype, bytes).to_vec()),
            Value::String(text) | Value::Symbol(text) => text.trim_ascii(),
            other => return Err(Problem::of_type(&other, "encrypted data")),
        };
        let (bytes, encoding) = match self.encoding {
            Encoding::Base64 => (unbase64(text), "base64"),
            Encoding::Hex => (unhex(text), "hexadecimal digits"),
        };
        bytes.ok_or_else(|| {
            let text = format!("the text is not {encoding}, as `{}` has it", self.name);
            Problem::new(Reason::Cipher, text)
        })
    }

    pub(in crate::mapping) fn open(&self, stored: &[u8]) -> Result<Vec<u8>, Problem> {
        let opened = match &self.key {
            OpenerKey::Cbc { key, iv: Some(iv) } => cbc(key, iv, stored),
            OpenerKey::Cbc { key, iv: None } => {
                stored.split_first_chunk::<BLOCK>().and_then(|(iv, rest)| cbc(key, iv, rest))
            }
            OpenerKey::Gcm(cipher) => stored
                .split_first_chunk::<NONCE>()
                .and_then(|(nonce, rest)| cipher.decrypt(&(*nonce).into(), rest).ok()),
        };
        opened.ok_or_else(|| {
            let text = format!("it cannot be decrypted with `{}`", self.name);
            Problem::new(Reason::Cipher, text)
        })
    }
}

fn cbc(key: &[u8; 32], iv: &[u8; BLOCK], stored: &[u8]) -> Option<Vec<u8>> {
    let whole = !stored.is_empty() && stored.len().is_multiple_of(BLOCK);
    let cipher = whole.then(|| cbc::Decryptor::<Aes256>::new(&(*key).into(), &(*iv).into()))?;
    cipher.decrypt_padded_vec::<Pkcs7>(stored).ok()
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({})", self.name)
    }
}

/// A cipher that encrypts.
pub(in crate::mapping) struct Sealer {
    name: String,
    encoding: Encoding,
    cipher: Box<Aes256Gcm>,
    /// What makes nonces: a key of its own, so that no nonce says anything of the other.
    nonces: Hmac<Sha256>,
}

impl Sealer {
    /// None for a cipher that does not authenticate.
    pub(in crate::mapping) fn new(cipher: &config::Cipher) -> Option<Self> {
        let Algorithm::Gcm = cipher.algorithm else { return None };
        let key = <[u8; 32]>::try_from(cipher.key.bytes()).ok()?;
        let mut derived = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        derived.update(NONCES);
        let derived: [u8; 32] = derived.finalize().into_bytes().into();
        Some(Self {
            name: cipher.name.clone(),
            encoding: cipher.encoding,
            cipher: Box::new(Aes256Gcm::new(&key.into())),
            nonces: Hmac::new_from_slice(&derived).ok()?,
        })
    }

    /// Nonce, encrypted bytes, tag. `place` is of the document, `column` of the target.
    pub(in crate::mapping) fn seal(
        &self,
        column: &str,
        place: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, Problem> {
        let mut nonces = self.nonces.clone();
        nonces.update(&(column.len() as u64).to_be_bytes());
        nonces.update(column.as_bytes());
        nonces.update(place);
        nonces.update(plain);
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&nonces.finalize().into_bytes()[..NONCE]);
        let sealed = self.cipher.encrypt(&nonce.into(), plain).map_err(|_| {
            // 64 GiB, which no document has.
            Problem::new(Reason::Cipher, format!("it is too long for `{}`", self.name))
        })?;
        Ok([&nonce[..], &sealed].concat())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.name)
    }
}

/// Appends a part of a place, so that no two places are the same bytes.
pub(in crate::mapping) fn part(bytes: &[u8], place: &mut Vec<u8>) {
    place.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    place.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "migration: m
sources: { m: { mongodb: { uri: x, database: d } } }
target: { postgres: { uri: x } }
collections: { m.a: { into: a, columns: { id: { uuid: _id } } } }
ciphers:
";

    fn ciphers(text: &str) -> Vec<config::Cipher> {
        let environment = |name: &str| {
            Some(match name {
                "KEY" => "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".into(),
                "IV" => "8PHy8/T19vf4+fr7/P3+/w==".into(),
                "NIST" => "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308".into(),
                _ => "0".repeat(64),
            })
        };
        let read = config::parse("m.yaml", &format!("{HEAD}{text}"), &environment);
        read.unwrap_or_else(|found| panic!("{found}")).ciphers
    }

    fn opener(text: &str) -> Opener {
        Opener::new(&ciphers(text)[0]).expect("a cipher")
    }

    fn opened(cipher: &Opener, digits: &str) -> Option<String> {
        let stored = unhex(digits.as_bytes()).expect("digits");
        cipher.open(&stored).ok().map(|plain| String::from_utf8(plain).expect("text"))
    }

    /// Test cases 13, 14 and 15 of the specification of GCM.
    #[test]
    fn gcm_is_what_its_specification_says() {
        const PLAIN: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
                             b16aedf5aa0de657ba637b391aafd255";
        const SEALED: &str = "cafebabefacedbaddecaf888522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3d\
                              a7b08b1056828838c5f61e6393ba7a0abcc9f662898015adb094dac5d93471bdec1a502270e3cc6c";
        let zeros = opener("  z: { aes-256-gcm: { key: \"${ZEROS}\" } }\n");
        let nonce = "0".repeat(24);
        assert_eq!(opened(&zeros, &format!("{nonce}530f8afbc74536b9a963b4f1c4cb738b")).as_deref(), Some(""));
        let one = format!("{nonce}cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
        assert_eq!(opened(&zeros, &one), Some("\0".repeat(16)));
        let nist = opener("  n: { aes-256-gcm: { key: \"${NIST}\" } }\n");
        let sealed = unhex(SEALED.as_bytes()).expect("digits");
        assert_eq!(nist.open(&sealed).ok(), unhex(PLAIN.as_bytes()));
        // Whatever is changed of it, is noticed.
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(nist.open(&changed).is_err() && nist.open(&sealed[..at]).is_err(), "{at}");
        }
    }

    /// As `openssl enc -aes-256-cbc` has encrypted them.
    #[test]
    fn cbc_is_what_openssl_makes() {
        let fixed = opener("  f: { aes-256-cbc: { key: \"${KEY}\", iv: \"${IV}\" } }\n");
        let prefix = opener("  p: { aes-256-cbc: { key: \"${KEY}\", iv: prefix } }\n");
        let iv = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
        for (plain, stored) in [
            ("", "edaf9e57d045ac857f023f9dc238b14e"),
            ("4711", "0cfa6705d73e22f678756f07f20787fe"),
            ("sixteen letters!", "5621111eb9b68cca22492d552295f53138d52293e9ff25743b9af782107ceeea"),
        ] {
            assert_eq!(opened(&fixed, stored).as_deref(), Some(plain));
            assert_eq!(opened(&prefix, &format!("{iv}{stored}")).as_deref(), Some(plain));
        }
        for broken in ["", "00", iv, "0cfa6705d73e22f678756f07f20787ff", "0cfa6705d73e22f678756f07f207"] {
            assert!(opened(&fixed, broken).is_none(), "{broken}");
            assert!(opened(&prefix, broken).is_none(), "{broken}");
        }
    }

    /// As another program makes it of the same place by what `docs/design/ciphers.md` says.
    #[test]
    fn a_nonce_is_made_as_it_is_written() {
        let cipher = ciphers("  m: { aes-256-gcm: { key: \"${KEY}\" } }\n");
        let sealer = Sealer::new(&cipher[0]).expect("a cipher");
        let mut place = Vec::new();
        part(b"m.users", &mut place);
        part(b"\x20id", &mut place);
        part(b"", &mut place);
        let sealed = sealer.seal("public.users.pin", &place, b"4711").expect("sealed");
        let expected = "5828ab24e9182661c54c905eab6708e550531415d68a272bc187699e6a18f8f2";
        assert_eq!(Some(&sealed), unhex(expected.as_bytes()).as_ref());
        let opener = Opener::new(&cipher[0]).expect("a cipher");
        assert_eq!(opener.open(&sealed).expect("opened"), b"4711");
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        let all = ciphers(
            "  f: { aes-256-cbc: { key: \"${KEY}\", iv: \"${IV}\" } }\n  m: { aes-256-gcm: { key: \"${KEY}\" } }\n",
        );
        let (fixed, gcm) = (Opener::new(&all[0]), (Opener::new(&all[1]), Sealer::new(&all[1])));
        let said = format!("{all:?} {fixed:?} {gcm:?}");
        for bytes in ["000102", "f0f1", "8PHy", "[0, 1, 2", "240, 241"] {
            assert!(!said.contains(bytes), "{said}");
        }
        assert!(said.ends_with("Some(Opener(f)) (Some(Opener(m)), Some(Sealer(m)))"), "{said}");
        assert!(Sealer::new(&all[0]).is_none(), "CBC is for reading only");
    }
}

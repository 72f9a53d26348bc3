//! A server's certificate, as far as rustls does not read it for us.
//!
//! Many servers of Postgres have certificates as its own manual makes them: of version 1, or with the host's name in the subject
//! only. libpq takes them, and the web's rules, which rustls keeps, do not. SCRAM also needs to know how a certificate was signed.

use ring::digest;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};

/// See the module. Each is a slice of the certificate.
#[derive(Debug)]
pub(super) struct Certificate<'c> {
    /// What is signed.
    signed: &'c [u8],
    /// Of the first version, which has no extensions.
    pub(super) is_first_version: bool,
    issuer: &'c [u8],
    subject: &'c [u8],
    not_before: u64,
    not_after: u64,
    /// Algorithm and bits.
    key: (&'c [u8], &'c [u8]),
    signature: (&'c [u8], &'c [u8]),
    has_other_names: bool,
}

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const OTHER_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// DER, value by value.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// The next value: its tag, its content, and both with the length between them.
    fn next(&mut self) -> Option<(u8, &'d [u8], &'d [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            let (digits, rest) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        };
        let (content, after) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some((tag, content, whole))
    }

    fn expect(&mut self, expected: u8) -> Option<&'d [u8]> {
        self.next().filter(|(tag, ..)| *tag == expected).map(|(_, content, _)| content)
    }

    /// Takes the next value if it has this tag.
    fn optional(&mut self, expected: u8) -> Option<&'d [u8]> {
        if self.0.first() == Some(&expected) { self.expect(expected) } else { None }
    }

    /// The bits of a BIT STRING that ends with a whole byte.
    fn bits(&mut self) -> Option<&'d [u8]> {
        self.expect(0x03)?.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
    }
}

impl<'c> Certificate<'c> {
    pub(super) fn read(der: &'c CertificateDer<'_>) -> Option<Self> {
        let mut certificate = Der(Der(der).expect(SEQUENCE)?);
        let (_, body, signed) = certificate.next()?;
        let algorithm = certificate.expect(SEQUENCE)?;
        let signature = certificate.bits()?;
        let mut body = Der(body);
        let version = body.optional(0xa0);
        body.expect(0x02)?;
        body.expect(SEQUENCE)?;
        let issuer = body.expect(SEQUENCE)?;
        let mut validity = Der(body.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        let subject = body.expect(SEQUENCE)?;
        let mut key = Der(body.expect(SEQUENCE)?);
        let key = (key.expect(SEQUENCE)?, key.bits()?);
        body.optional(0x81);
        body.optional(0x82);
        let mut has_other_names = false;
        if let Some(extensions) = body.optional(0xa3) {
            let mut extensions = Der(Der(extensions).expect(SEQUENCE)?);
            while let Some(extension) = extensions.optional(SEQUENCE) {
                has_other_names |= Der(extension).expect(OBJECT)? == OTHER_NAMES;
            }
        }
        Some(Self {
            signed,
            is_first_version: version.is_none(),
            issuer,
            subject,
            not_before,
            not_after,
            key,
            signature: (algorithm, signature),
            has_other_names,
        })
    }

    /// Whether it is valid now; `Err` says whether it is over, or yet to begin.
    pub(super) fn is_current(&self, now: UnixTime) -> Result<(), rustls::CertificateError> {
        match now.as_secs() {
            now if now < self.not_before => Err(rustls::CertificateError::NotValidYet),
            now if now > self.not_after => Err(rustls::CertificateError::Expired),
            _ => Ok(()),
        }
    }

    /// Whether the holder of this other certificate has signed it.
    pub(super) fn is_signed_by(
        &self,
        issuer: &Certificate<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        self.issuer == issuer.subject
            && algorithms.iter().any(|algorithm| {
                *algorithm.signature_alg_id() == *self.signature.0
                    && issuer.has_signed(*algorithm, self.signed, self.signature.1)
            })
    }

    /// It names itself as the one that has signed it.
    pub(super) fn has_signed_itself(&self) -> bool {
        self.issuer == self.subject
    }

    /// Whether the signature under the message was made with the key of this certificate.
    pub(super) fn has_signed(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        *algorithm.public_key_alg_id() == *self.key.0
            && algorithm.verify_signature(self.key.1, message, signature).is_ok()
    }

    /// Whether it is for this host by the name in its subject, which counts if there are no other names.
    pub(super) fn is_named(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        !self.has_other_names
            && self.common_names().is_some_and(|names| names.iter().any(|name| covers(name, &host)))
    }

    fn common_names(&self) -> Option<Vec<String>> {
        let mut names = Vec::new();
        let mut sets = Der(self.subject);
        while !sets.0.is_empty() {
            let mut attributes = Der(sets.expect(0x31)?);
            while !attributes.0.is_empty() {
                let mut attribute = Der(attributes.expect(SEQUENCE)?);
                if attribute.expect(OBJECT)? == COMMON_NAME {
                    // UTF8String, PrintableString, IA5String, T61String. A host's name is ASCII in each.
                    let (tag, text, _) = attribute.next()?;
                    if matches!(tag, 0x0c | 0x13 | 0x16 | 0x14) && text.is_ascii() {
                        names.push(String::from_utf8_lossy(text).to_ascii_lowercase());
                    }
                }
            }
        }
        Some(names)
    }

    /// What SCRAM binds a channel with (`tls-server-end-point`, RFC 5929): the digest of the certificate, by the hash that it was
    /// signed with. `None` where that is not defined, as for Ed25519.
    pub(super) fn end_point(&self, der: &CertificateDer<'_>) -> Option<Vec<u8>> {
        let mut algorithm = Der(self.signature.0);
        let object = algorithm.expect(OBJECT)?;
        let hash = match object {
            // RSA of PKCS #1 with MD5 and SHA-1 (for which the RFC says SHA-256), and with the others.
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, which] => match which {
                4 | 5 | 11 => &digest::SHA256,
                10 => pss_hash(algorithm)?,
                12 => &digest::SHA384,
                13 => &digest::SHA512,
                _ => return None,
            },
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] => &digest::SHA256,
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, which] => match which {
                2 => &digest::SHA256,
                3 => &digest::SHA384,
                4 => &digest::SHA512,
                _ => return None,
            },
            _ => return None,
        };
        Some(digest::digest(hash, der).as_ref().to_vec())
    }
}

/// The hash that RSASSA-PSS names in its parameters; without a name it is SHA-1.
fn pss_hash(mut algorithm: Der<'_>) -> Option<&'static digest::Algorithm> {
    let parameters = algorithm.expect(SEQUENCE).unwrap_or_default();
    let Some(hash) = Der(parameters).optional(0xa0) else { return Some(&digest::SHA256) };
    match Der(Der(hash).expect(SEQUENCE)?).expect(OBJECT)? {
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] | [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 1] => {
            Some(&digest::SHA256)
        }
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 2] => Some(&digest::SHA384),
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 3] => Some(&digest::SHA512),
        _ => None,
    }
}

/// `*.example.com` is for every host of one more label.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => name == host,
    }
}

/// Seconds since 1970 of a UTCTime or a GeneralizedTime, both `…MMDDhhmmssZ`.
fn time(der: &mut Der<'_>) -> Option<u64> {
    let (tag, text, _) = der.next()?;
    let digits = text.strip_suffix(b"Z")?;
    let pair = |at: usize| -> Option<u64> {
        let pair = std::str::from_utf8(digits.get(at..at + 2)?).ok()?;
        pair.parse().ok()
    };
    let (year, rest) = match (tag, digits.len()) {
        (0x17, 12) => (pair(0)?, 2),
        (0x18, 14) => (pair(0)? * 100 + pair(2)?, 4),
        _ => return None,
    };
    let year = match tag {
        0x17 if year < 50 => 2000 + year,
        0x17 => 1900 + year,
        _ => year,
    };
    let (month, day) = (pair(rest)?, pair(rest + 2)?);
    let seconds = pair(rest + 4)? * 3600 + pair(rest + 6)? * 60 + pair(rest + 8)?;
    if year < 1970 || !(1..=12).contains(&month) || day < 1 {
        // Before 1970 is long ago, whatever else it is.
        return (year < 1970).then_some(0);
    }
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let mut days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    days += BEFORE[month as usize - 1] + u64::from(month > 2 && leap(year)) + day - 1;
    Some(days * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (tag, text, seconds) in [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "000229120000Z", Some(951_825_600)),
            (0x17, "241231235959Z", Some(1_735_689_599)),
            (0x18, "21000301000000Z", Some(4_107_542_400)),
            (0x17, "491231000000Z", Some(2_524_521_600)),
            (0x17, "500101000000Z", Some(0)),
            (0x17, "20010100000Z", None),
            (0x16, "700101000000Z", None),
        ] {
            let mut der = vec![tag, text.len() as u8];
            der.extend_from_slice(text.as_bytes());
            assert_eq!(time(&mut Der(&der)), seconds, "{text}");
        }
    }

    #[test]
    fn names() {
        for (name, host, expected) in [
            ("db.example.com", "db.example.com", true),
            ("db.example.com", "other.example.com", false),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
        ] {
            assert_eq!(covers(name, host), expected, "{name} {host}");
        }
    }

    /// Bytes of any kind are read or refused, and never end the process.
    #[test]
    fn broken_bytes() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000_usize {
            let bytes: Vec<u8> = (0..round % 90)
                .map(|place| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    if place % 2 == 0 && state.is_multiple_of(3) {
                        SEQUENCE
                    } else {
                        (state >> 32) as u8 % 140
                    }
                })
                .collect();
            let der = CertificateDer::from(bytes);
            if let Some(certificate) = Certificate::read(&der) {
                certificate.is_named("localhost");
                certificate.end_point(&der);
            }
        }
    }
}

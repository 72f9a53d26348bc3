//! The old cipher and the new one, made of the crates that others use too: the application's side of what slackwater does on the way.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};

const LEGACY_KEY: [u8; 32] = [0x42; 32];
const LEGACY_IV: [u8; 16] = [0x17; 16];
const MEMBER_KEY: [u8; 32] = [0x5a; 32];
const WIRE_KEY: [u8; 32] = [0x6b; 32];

/// The variables that the migration file asks for.
pub fn variables() -> Vec<(&'static str, String)> {
    vec![
        ("LEGACY_KEY", hex(&LEGACY_KEY)),
        ("LEGACY_IV", hex(&LEGACY_IV)),
        ("MEMBER_KEY", hex(&MEMBER_KEY)),
        ("WIRE_KEY", hex(&WIRE_KEY)),
    ]
}

/// As the old application has it in its documents: hexadecimal.
pub(super) fn seal(plain: &str) -> String {
    let cipher = cbc::Encryptor::<aes::Aes256>::new(&LEGACY_KEY.into(), &LEGACY_IV.into());
    hex(&cipher.encrypt_padded_vec::<Pkcs7>(plain.as_bytes()))
}

/// What a document holds; none where it cannot be decrypted.
pub(super) fn opened_old(sealed: &str) -> Option<String> {
    let cipher = cbc::Decryptor::<aes::Aes256>::new(&LEGACY_KEY.into(), &LEGACY_IV.into());
    let plain = cipher.decrypt_padded_vec::<Pkcs7>(&unhex(sealed)?).ok()?;
    String::from_utf8(plain).ok()
}

/// What a column holds; none where it cannot be decrypted.
pub(super) fn opened(sealed: &[u8]) -> Option<String> {
    let (nonce, rest) = sealed.split_at_checked(12)?;
    let nonce: [u8; 12] = nonce.try_into().ok()?;
    let plain = Aes256Gcm::new(&MEMBER_KEY.into()).decrypt(&nonce.into(), rest).ok()?;
    String::from_utf8(plain).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

//! The few BSON elements that records are made of; every name has one letter.

use crate::envelope::EnvelopeError;
use crate::position::Moment;

pub(crate) const VERSION: i32 = 1;
pub(crate) const GENERIC: u8 = 0;
pub(crate) const UUID: u8 = 4;

pub(crate) fn check(version: i32) -> Result<(), EnvelopeError> {
    if version == VERSION { Ok(()) } else { Err(EnvelopeError::Version(version)) }
}

/// Leaves room for the length; [`end`] fills it in.
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    start
}

pub(crate) fn end(start: usize, out: &mut Vec<u8>) {
    out.push(0);
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn head(kind: u8, name: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind, name, 0]);
}

pub(crate) fn version(out: &mut Vec<u8>) {
    int(b'v', VERSION, out);
}

pub(crate) fn int(name: u8, value: i32, out: &mut Vec<u8>) {
    head(0x10, name, out);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn long(name: u8, value: i64, out: &mut Vec<u8>) {
    head(0x12, name, out);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn truth(name: u8, out: &mut Vec<u8>) {
    head(0x08, name, out);
    out.push(1);
}

pub(crate) fn timestamp(name: u8, time: Moment, out: &mut Vec<u8>) {
    head(0x11, name, out);
    out.extend_from_slice(&time.0.to_le_bytes());
}

pub(crate) fn date(name: u8, millis: i64, out: &mut Vec<u8>) {
    head(0x09, name, out);
    out.extend_from_slice(&millis.to_le_bytes());
}

pub(crate) fn text(name: u8, text: &str, out: &mut Vec<u8>) {
    head(0x02, name, out);
    out.extend_from_slice(&(text.len() as i32 + 1).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

pub(crate) fn binary(name: u8, subtype: u8, bytes: &[u8], out: &mut Vec<u8>) {
    head(0x05, name, out);
    out.extend_from_slice(&(bytes.len() as i32).to_le_bytes());
    out.push(subtype);
    out.extend_from_slice(bytes);
}

pub(crate) fn document(name: u8, document: &[u8], out: &mut Vec<u8>) {
    head(0x03, name, out);
    out.extend_from_slice(document);
}

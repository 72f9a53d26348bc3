//! `uuid`, from binary and from text.

use slackwater_topics::Value;
use uuid::Uuid;

use super::{Fit, Problem};
use crate::mapping::rejection::Reason;

/// Binary of subtype 4, or 3 with its bytes in their order, or text in any usual form.
pub(super) fn write(value: Value<'_>, out: &mut Vec<u8>) -> Result<Fit, Problem> {
    match value {
        Value::Binary { subtype: 3 | 4, bytes } if bytes.len() == 16 => out.extend_from_slice(bytes),
        Value::Binary { .. } => {
            return Err(Problem::new(Reason::Type, "this binary is no UUID (16 bytes of subtype 4 or 3)"));
        }
        Value::String(text) | Value::Symbol(text) => {
            let uuid = Uuid::try_parse_ascii(text.trim_ascii())
                .map_err(|_| Problem::new(Reason::Type, "this text is no UUID"))?;
            out.extend_from_slice(uuid.as_bytes());
        }
        other => return Err(Problem::of_type(&other, "a UUID")),
    }
    Ok(Fit::Exact)
}

/// Appends a UUID, for a column of its own type or of text.
pub(crate) fn append(id: Uuid, as_text: bool, out: &mut Vec<u8>) {
    if as_text {
        let mut text = [0; 36];
        out.extend_from_slice(id.hyphenated().encode_lower(&mut text).as_bytes());
    } else {
        out.extend_from_slice(id.as_bytes());
    }
}

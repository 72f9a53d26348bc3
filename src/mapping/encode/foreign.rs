//! Types that we do not write ourselves: a value becomes text, which the type's own input function reads in the target.
//!
//! What that function refuses is known only there. The first attempt sends the texts as they are. If a batch fails, its texts are
//! collected, the target is asked which of them it refuses, and the documents are mapped again: a refused text is then as
//! invalid as any other value, and the column's policy decides.

use std::collections::{HashMap, HashSet};

use slackwater_topics::Value;

use super::{Fit, Json, Lenient, Problem, Scratch, Text, Unit, array};
use crate::mapping::rejection::Reason;

/// A column of such a type.
#[derive(Clone, Debug)]
pub(in crate::mapping) struct Foreign {
    /// OID of the column's type.
    pub(in crate::mapping) oid: u32,
    /// What it is called.
    pub(in crate::mapping) name: Box<str>,
    pub(in crate::mapping) text: Text,
    /// Of a number that is an interval.
    pub(in crate::mapping) unit: Option<Unit>,
    pub(in crate::mapping) form: Form,
}

/// What a value's text looks like.
#[derive(Clone, Debug)]
pub(in crate::mapping) enum Form {
    /// Text as it is; a document or an array is JSON, which some types read.
    Plain,
    /// A document's fields are pairs of an hstore.
    Pairs,
    /// An array; these names are followed within each element.
    Array(Vec<Box<[u8]>>),
}

/// Texts, by the OID of the type.
pub(crate) type Texts = HashMap<u32, HashSet<Vec<u8>>>;

/// What is known of texts that the target has to read.
#[derive(Debug, Default)]
pub(in crate::mapping) struct Reading {
    /// The target refuses these.
    pub(in crate::mapping) refused: Texts,
    /// What was written, where somebody wants to know.
    pub(in crate::mapping) written: Option<Texts>,
}

impl Foreign {
    pub(super) fn write(
        &self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let start = out.len();
        let fit = match &self.form {
            Form::Array(inner) => self.array(value, inner, lenient, out, scratch)?,
            Form::Pairs if matches!(value, Value::Document(_)) => pairs(value, lenient, out, scratch)?,
            Form::Plain | Form::Pairs => self.plain(value, lenient, out, scratch)?,
        };
        let written = &out[start..];
        let refused = &scratch.reading.refused;
        if !refused.is_empty() && refused.get(&self.oid).is_some_and(|texts| texts.contains(written)) {
            let text = format!("the database does not take this as {}", self.name);
            return Err(Problem::new(Reason::Type, text));
        }
        if let Some(texts) = &mut scratch.reading.written {
            texts.entry(self.oid).or_default().insert(written.to_vec());
        }
        Ok(fit)
    }

    fn plain(
        &self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let json = Json { binary: false, quote: true };
        match value {
            Value::Document(_) | Value::Array(_) => json.write(value, lenient, out, scratch),
            _ => {
                let fit = self.text.write(value, lenient, out, scratch)?;
                if let Some(unit) = self.unit
                    && is_number(value)
                {
                    out.extend_from_slice(match unit {
                        Unit::Seconds => b" seconds",
                        Unit::Millis => b" milliseconds",
                    });
                }
                Ok(fit)
            }
        }
    }

    fn array(
        &self,
        value: Value<'_>,
        inner: &[Box<[u8]>],
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let Value::Array(elements) = value else { return Err(Problem::of_type(&value, "an array")) };
        let mut fit = Fit::Exact;
        let mut one = Vec::new();
        out.push(b'{');
        for (index, element) in elements.elements().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let Some(element) = array::follow(element?.1, inner)? else {
                out.extend_from_slice(b"NULL");
                continue;
            };
            one.clear();
            let written = match element {
                Value::Document(_) if matches!(self.text_of_elements(), Form::Pairs) => {
                    pairs(element, lenient, &mut one, scratch)?
                }
                _ => self.plain(element, lenient, &mut one, scratch)?,
            };
            if written != Fit::Exact {
                fit = written;
            }
            quoted(&one, out);
        }
        out.push(b'}');
        Ok(fit)
    }

    fn text_of_elements(&self) -> Form {
        form_of(self.name.trim_end_matches("[]"))
    }
}

/// What the text of a type with this name looks like.
pub(in crate::mapping) fn form_of(name: &str) -> Form {
    if name == "hstore" || name.ends_with(".hstore") { Form::Pairs } else { Form::Plain }
}

/// The text of an hstore.
fn pairs(
    value: Value<'_>,
    lenient: Lenient,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Fit, Problem> {
    let Value::Document(document) = value else { return Err(Problem::of_type(&value, "a document")) };
    let (json, plain) = (Json { binary: false, quote: true }, Text::default());
    let mut fit = Fit::Exact;
    let mut one = Vec::new();
    for (index, element) in document.elements().enumerate() {
        let (name, value) = element?;
        if index > 0 {
            out.push(b',');
        }
        one.clear();
        plain.write(Value::String(name), lenient, &mut one, scratch)?;
        quoted(&one, out);
        out.extend_from_slice(b"=>");
        one.clear();
        let written = match value {
            Value::Null | Value::Undefined => {
                out.extend_from_slice(b"NULL");
                continue;
            }
            Value::Document(_) | Value::Array(_) => json.write(value, lenient, &mut one, scratch)?,
            _ => plain.write(value, lenient, &mut one, scratch)?,
        };
        if written != Fit::Exact {
            fit = written;
        }
        quoted(&one, out);
    }
    Ok(fit)
}

fn is_number(value: Value<'_>) -> bool {
    matches!(value, Value::Int32(_) | Value::Int64(_) | Value::Double(_) | Value::Decimal128(_))
}

/// In quotes, as arrays and hstores have it.
fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};
    use slackwater_topics::Document;

    fn foreign(name: &str, form: Form, unit: Option<Unit>) -> Foreign {
        Foreign { oid: 1, name: name.into(), text: Text::default(), unit, form }
    }

    fn text(foreign: &Foreign, value: impl Into<Bson>) -> Result<String, Problem> {
        let bytes = doc! {"v": value.into()}.to_vec().expect("a document");
        let value = Document::new(&bytes).expect("a document").get(b"v").expect("readable").expect("a value");
        let mut out = Vec::new();
        foreign.write(value, Lenient::No, &mut out, &mut Scratch::default())?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn texts() {
        let plain = |name: &str| foreign(name, Form::Plain, None);
        let interval = foreign("interval", Form::Plain, Some(Unit::Millis));
        let pairs = foreign("public.hstore", Form::Pairs, None);
        let array = |name: &str| foreign(name, Form::Array(Vec::new()), None);
        let millis = |number: i64| text(&interval, Bson::Int64(number)).expect("text");
        assert_eq!(millis(1500), "1500 milliseconds");
        assert_eq!(text(&interval, "2 days").as_deref(), Ok("2 days"));
        assert_eq!(text(&plain("money"), 12.5).as_deref(), Ok("12.5"));
        assert_eq!(text(&plain("vector"), vec![1.0, 2.5]).as_deref(), Ok("[1.0,2.5]"));
        let point = doc! {"type": "Point", "coordinates": [1, 2]};
        assert_eq!(text(&plain("geometry"), point).as_deref(), Ok(r#"{"type":"Point","coordinates":[1,2]}"#));
        let map = doc! {"a": "x\"y\\", "b": Bson::Null, "c": 1, "d": [true]};
        assert_eq!(
            text(&pairs, map.clone()).as_deref(),
            Ok(r#""a"=>"x\"y\\","b"=>NULL,"c"=>"1","d"=>"[true]""#)
        );
        let values = vec![Bson::from("1 day"), Bson::Null, Bson::from("a\"b")];
        assert_eq!(text(&array("interval[]"), values).as_deref(), Ok(r#"{"1 day",NULL,"a\"b"}"#));
        assert_eq!(
            text(&array("public.hstore[]"), vec![doc! {"a": 1}]).as_deref(),
            Ok(r#"{"\"a\"=>\"1\""}"#)
        );
        assert!(text(&array("interval[]"), "1 day").is_err());
    }

    #[test]
    fn what_the_target_refused_is_invalid() {
        let foreign = foreign("public.ltree", Form::Plain, None);
        let mut scratch = Scratch::default();
        scratch.reading.written = Some(Texts::new());
        let mut write = |text: &str| {
            foreign.write(Value::String(text.as_bytes()), Lenient::No, &mut Vec::new(), &mut scratch)
        };
        assert_eq!(write("a.b"), Ok(Fit::Exact));
        assert_eq!(write("a..b"), Ok(Fit::Exact));
        let written = scratch.reading.written.take().expect("asked for");
        assert_eq!(written[&1].len(), 2);
        scratch.reading.refused.entry(1).or_default().insert(b"a..b".to_vec());
        let mut write = |text: &str| {
            foreign.write(Value::String(text.as_bytes()), Lenient::No, &mut Vec::new(), &mut scratch)
        };
        assert_eq!(write("a.b"), Ok(Fit::Exact));
        let problem = write("a..b").expect_err("refused");
        assert_eq!(problem.text, "the database does not take this as public.ltree");
    }
}

//! Array columns: one dimension, from the elements of a BSON array.

use slackwater_topics::Value;

use super::{Conv, Fit, Lenient, Problem, Scratch, place_part};

/// An array of what `element` makes.
#[derive(Clone, Debug)]
pub(in crate::mapping) struct Array {
    pub(super) element: Conv,
    pub(super) oid: u32,
    /// Names to follow within each element.
    pub(super) inner: Vec<Box<[u8]>>,
}

impl Array {
    pub(super) fn write(
        &self,
        value: Value<'_>,
        lenient: Lenient,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Fit, Problem> {
        let Value::Array(array) = value else { return Err(Problem::of_type(&value, "an array")) };
        let start = out.len();
        out.extend_from_slice(&[0; 20]);
        let (mut count, mut nulls, mut fit) = (0_i32, false, Fit::Exact);
        let place = self.element.is_ciphered().then_some(scratch.place.len());
        for (index, element) in array.elements().enumerate() {
            let (_, element) = element?;
            if let Some(array) = place {
                // Equal values of one array are not to look equal.
                scratch.place.truncate(array);
                place_part(&(index as u64).to_be_bytes(), &mut scratch.place);
            }
            let at = out.len();
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            match follow(element, &self.inner)? {
                None => nulls = true,
                Some(value) => match self.element.write(value, lenient, out, scratch) {
                    Ok(Fit::UnknownNull) => {
                        nulls = true;
                        fit = Fit::UnknownNull;
                    }
                    Ok(adjusted) => {
                        if adjusted != Fit::Exact {
                            fit = adjusted;
                        }
                        let length = (out.len() - at - 4) as i32;
                        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
                    }
                    // To strip an array is to take out the elements that do not fit.
                    Err(_) if lenient == Lenient::Strip => {
                        out.truncate(at);
                        fit = Fit::Stripped;
                        continue;
                    }
                    Err(problem) => return Err(problem),
                },
            }
            count += 1;
        }
        let mut head = |place: usize, number: i32| {
            let at = start + 4 * place;
            out[at..at + 4].copy_from_slice(&number.to_be_bytes());
        };
        head(1, i32::from(nulls));
        head(2, self.oid.cast_signed());
        if count == 0 {
            // An empty array has no dimension at all.
            out.truncate(start + 12);
        } else {
            head(0, 1);
            head(3, count);
            head(4, 1);
        }
        // An element that became NULL is a NULL inside the array, not instead of it.
        Ok(if fit == Fit::UnknownNull { Fit::Stripped } else { fit })
    }
}

/// What is at the end of these names, unless it is null or not there.
pub(in crate::mapping) fn follow<'a>(
    mut value: Value<'a>,
    names: &[Box<[u8]>],
) -> Result<Option<Value<'a>>, Problem> {
    for name in names {
        value = match value {
            Value::Document(document) | Value::Array(document) => match document.get(name)? {
                Some(value) => value,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
    }
    Ok((!matches!(value, Value::Null | Value::Undefined)).then_some(value))
}

//! Values that are in Postgres' binary form already, bound as they are.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use postgres_types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::Statement;

use crate::postgres::target::rows::{Rows, Values};

/// An array whose elements (each its length and bytes) are encoded already.
struct Array<'a> {
    /// OID of the elements' type as the server expects it.
    element: u32,
    elements: Elements<'a>,
}

/// Where the elements lie.
enum Elements<'a> {
    /// Sent in their own order.
    Rows(&'a Rows),
    Values(&'a Values),
}

impl Elements<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Values(values) => values.len(),
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.as_bytes().len(),
            Self::Values(values) => values.as_bytes().len(),
        }
    }
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes are values of records.
        write!(f, "Array({} of type {})", self.elements.count(), self.element)
    }
}

impl ToSql for Array<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.reserve(20 + self.elements.byte_len());
        if self.elements.count() == 0 {
            out.put_i32(0);
            out.put_i32(0);
            out.put_u32(self.element);
            return Ok(IsNull::No);
        }
        out.put_i32(1);
        out.put_i32(1); // May hold nulls.
        out.put_u32(self.element);
        out.put_i32(i32::try_from(self.elements.count())?);
        out.put_i32(1);
        match self.elements {
            Elements::Rows(rows) => rows.in_order().for_each(|row| out.extend_from_slice(row)),
            Elements::Values(values) => out.extend_from_slice(values.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// What is bound.
pub(super) type Parameter<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Rows for the parameter at `place`.
pub(super) fn rows<'a>(statement: &Statement, place: usize, rows: &'a Rows) -> Parameter<'a> {
    Box::new(Array { element: element(statement, place), elements: Elements::Rows(rows) })
}

/// Values of a column for it.
pub(super) fn values<'a>(statement: &Statement, place: usize, values: &'a Values) -> Parameter<'a> {
    Box::new(Array { element: element(statement, place), elements: Elements::Values(values) })
}

/// OID of the elements of a parameter that is an array.
fn element(statement: &Statement, place: usize) -> u32 {
    let element = statement.params().get(place).map(|kind| match kind.kind() {
        Kind::Array(element) => element.oid(),
        _ => kind.oid(),
    });
    element.unwrap_or(0)
}

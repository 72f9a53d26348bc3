//! Values that are in Postgres' binary form already, bound as they are.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use postgres_types::{IsNull, ToSql, Type, to_sql_checked};

/// An array whose elements (each its length and bytes) are encoded already.
pub(super) struct Array<'a> {
    /// OID of the elements' type as the server expects it.
    pub(super) element: u32,
    pub(super) count: usize,
    pub(super) elements: &'a [u8],
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes are values of records.
        write!(f, "Array({} of type {})", self.count, self.element)
    }
}

impl ToSql for Array<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.reserve(20 + self.elements.len());
        if self.count == 0 {
            out.put_i32(0);
            out.put_i32(0);
            out.put_u32(self.element);
            return Ok(IsNull::No);
        }
        out.put_i32(1);
        out.put_i32(1); // May hold nulls.
        out.put_u32(self.element);
        out.put_i32(i32::try_from(self.count)?);
        out.put_i32(1);
        out.extend_from_slice(self.elements);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

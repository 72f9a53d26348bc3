//! Rows with columns that we do not know how to write in Postgres' binary form: intervals, ranges, types of extensions.
//!
//! Such a column travels as text, and its type's own input function reads it. The rows of its table then are not an array of the
//! table's row type, but of a type of ours with text in those places: a *shape*. A statement reads a shape through
//! [`Shape::source`], which casts each column to what it really is, so the rest of the statement is the same as for any table.
//!
//! **Invariant**: a shape is made of types that every server has, and of nothing of the target's. It never stands in the way of a
//! team that changes or drops a type of its own, its name tells what is in it, and so it is made once and never changed.

use std::hash::Hasher as _;

use super::catalog::{Table, Type};
use super::statements::{element_type, quote};

/// What a column of a shape is, on the wire and by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// OID of the type.
    pub oid: u32,
    /// OID of its array type.
    pub array: u32,
    /// Its name.
    pub name: &'static str,
}

const TEXT: Carrier = Carrier { oid: 25, array: 1009, name: "text" };

/// What has a binary form that we write.
const CARRIERS: [Carrier; 20] = [
    TEXT,
    Carrier { oid: 16, array: 1000, name: "boolean" },
    Carrier { oid: 17, array: 1001, name: "bytea" },
    Carrier { oid: 20, array: 1016, name: "bigint" },
    Carrier { oid: 21, array: 1005, name: "smallint" },
    Carrier { oid: 23, array: 1007, name: "integer" },
    Carrier { oid: 114, array: 199, name: "json" },
    Carrier { oid: 650, array: 651, name: "cidr" },
    Carrier { oid: 700, array: 1021, name: "real" },
    Carrier { oid: 701, array: 1022, name: "double precision" },
    Carrier { oid: 869, array: 1041, name: "inet" },
    Carrier { oid: 1042, array: 1014, name: "bpchar" },
    Carrier { oid: 1043, array: 1015, name: "varchar" },
    Carrier { oid: 1082, array: 1182, name: "date" },
    Carrier { oid: 1083, array: 1183, name: "time" },
    Carrier { oid: 1114, array: 1115, name: "timestamp" },
    Carrier { oid: 1184, array: 1185, name: "timestamptz" },
    Carrier { oid: 1700, array: 1231, name: "numeric" },
    Carrier { oid: 2950, array: 2951, name: "uuid" },
    Carrier { oid: 3802, array: 3807, name: "jsonb" },
];

const MONEY: u32 = 790;

/// What carries a value of this type, which is no array. Enums and types of extensions are their own text.
pub fn carrier(kind: &Type) -> Carrier {
    CARRIERS.into_iter().find(|known| known.oid == kind.base_oid).unwrap_or(TEXT)
}

/// One column of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    carrier: Carrier,
    /// An array of what carries its elements.
    array: bool,
    /// Written as text, for the type's input function to read.
    text: bool,
}

impl Place {
    fn of(kind: &Type, text: bool) -> Self {
        match kind.element.as_deref() {
            _ if text => Self { carrier: TEXT, array: false, text },
            Some(element) => Self { carrier: carrier(element), array: true, text },
            None => Self { carrier: carrier(kind), array: false, text },
        }
    }

    fn oid(&self) -> u32 {
        if self.array { self.carrier.array } else { self.carrier.oid }
    }

    fn name(&self) -> String {
        format!("{}{}", self.carrier.name, if self.array { "[]" } else { "" })
    }
}

/// How the rows of one table travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    places: Vec<Place>,
    /// After the columns come the document's id, and its name for people.
    document: bool,
}

/// The columns of a shape's rows that say whose they are. No table has such names.
pub(super) const DOCUMENT_ID: &str = "\"slackwater document id\"";
pub(super) const DOCUMENT_NAME: &str = "\"slackwater document name\"";
const DOCUMENT: [Carrier; 2] = [Carrier { oid: 2950, array: 2951, name: "uuid" }, TEXT];

impl Shape {
    /// For these columns of a table, in their order; `true` for those that are written as text. `document`: the rows say of which
    /// document they are. None where neither is so.
    pub fn of(table: &Table, columns: &[(usize, bool)], document: bool) -> Option<Self> {
        let place = |(column, text): &(usize, bool)| Place::of(&table.columns[*column].kind, *text);
        let needed = document || columns.iter().any(|(_, text)| *text);
        needed.then(|| Self { places: columns.iter().map(place).collect(), document })
    }

    /// What says whose a row is.
    fn document(&self) -> impl Iterator<Item = Carrier> {
        DOCUMENT.into_iter().filter(|_| self.document)
    }

    /// OIDs of its columns.
    pub(super) fn oids(&self) -> impl Iterator<Item = u32> {
        self.places.iter().map(Place::oid).chain(self.document().map(|carrier| carrier.oid))
    }

    /// Which columns are written as text.
    pub fn texts(&self) -> impl Iterator<Item = usize> {
        self.places.iter().enumerate().filter(|(_, place)| place.text).map(|(at, _)| at)
    }

    fn attributes(&self) -> String {
        let names =
            self.places.iter().map(Place::name).chain(self.document().map(|carrier| carrier.name.to_owned()));
        let named = names.enumerate().map(|(at, name)| format!("c{at} {name}"));
        named.collect::<Vec<_>>().join(", ")
    }

    /// Schema and name.
    pub(super) fn name(&self) -> String {
        // FNV-1a, so that the name is the same in every version.
        struct Fnv(u64);
        impl std::hash::Hasher for Fnv {
            fn finish(&self) -> u64 {
                self.0
            }
            fn write(&mut self, bytes: &[u8]) {
                for byte in bytes {
                    self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
        }
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        hash.write(self.attributes().as_bytes());
        format!("slackwater.shape_{}_{:016x}", self.oids().count(), hash.finish())
    }

    /// Makes the type, unless it is there. Two processes may do so at once: the second waits for the first, and finds it made.
    pub(super) fn create(&self) -> String {
        let name = self.name();
        format!(
            "DO $make$ BEGIN IF to_regtype('{name}') IS NULL THEN CREATE TYPE {name} AS ({}); END IF; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $make$",
            self.attributes()
        )
    }

    /// The rows of parameter `number`, as the table has them.
    pub(super) fn source(&self, table: &Table, columns: &[usize], number: usize) -> String {
        let listed = self.places.iter().zip(columns).enumerate().map(|(at, (place, column))| {
            let column = &table.columns[*column];
            let carried = format!("s.c{at}");
            let value = match place.text {
                true => read(&carried, &column.kind),
                false if place.oid() == column.kind.oid => carried,
                false => format!("{carried}::{}", element_type(&column.kind)),
            };
            format!("{value} AS {}", quote(&column.name))
        });
        let names =
            [DOCUMENT_ID, DOCUMENT_NAME].into_iter().zip(self.places.len()..).filter(|_| self.document);
        let listed: Vec<String> =
            listed.chain(names.map(|(name, at)| format!("s.c{at} AS {name}"))).collect();
        format!("(SELECT {} FROM unnest(${number}::{}[]) AS s)", listed.join(", "), self.name())
    }
}

/// Text as a value of this type, as far as a cast goes. Money is read as people of the server's locale write it; a number is one
/// everywhere.
pub(super) fn read(text: &str, kind: &Type) -> String {
    let cast = element_type(kind);
    if kind.base_oid != MONEY {
        return format!("{text}::{cast}");
    }
    format!(
        "CASE WHEN {text} ~ '^\\s*[-+]?[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?\\s*$' \
         THEN {text}::pg_catalog.numeric::pg_catalog.money ELSE {text}::pg_catalog.money END::{cast}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(oid: u32, name: &str) -> Type {
        Type { oid, name: name.into(), base_oid: oid, base_name: name.into(), ..Type::default() }
    }

    #[test]
    fn the_name_says_what_is_in_it_and_stays() {
        let tree = kind(90_000, "public.ltree");
        let number = kind(23, "integer");
        let array = Type { element: Some(Box::new(number.clone())), ..kind(1007, "integer[]") };
        let shape = Shape { places: vec![Place::of(&tree, true), Place::of(&array, false)], document: false };
        assert_eq!(shape.attributes(), "c0 text, c1 integer[]");
        assert_eq!(shape.oids().collect::<Vec<_>>(), [25, 1007]);
        assert_eq!(shape.name(), shape.clone().name());
        let other =
            Shape { places: vec![Place::of(&tree, true), Place::of(&number, false)], document: false };
        assert_ne!(shape.name(), other.name());
        assert!(shape.name().len() < 63, "{}", shape.name());
    }

    #[test]
    fn a_cast_has_no_length() {
        assert_eq!(read("x", &Type { name: "bit(3)".into(), ..kind(1560, "bit") }), "x::pg_catalog.\"bit\"");
        assert_eq!(
            read("x", &Type { name: "bit(3)[]".into(), ..kind(1561, "bit[]") }),
            "x::pg_catalog.\"bit\"[]"
        );
    }
}

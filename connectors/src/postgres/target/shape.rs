//! Rows with columns that we do not know how to write in Postgres' binary form: intervals, ranges, types of extensions.
//!
//! Such a column travels as text, and its type's own input function reads it. The rows of its table then are not an array of the
//! table's row type, but of a type of ours with text in those places: a *shape*. A statement reads a shape through
//! [`Shape::source`], which casts each column to what it really is, so the rest of the statement is the same as for any table.
//!
//! A column that is computed travels as a boolean, whether to compute it, and what its expression is made of travels behind the columns.
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
const BOOLEAN: Carrier = Carrier { oid: 16, array: 1000, name: "boolean" };

/// What has a binary form that we write.
const CARRIERS: [Carrier; 20] = [
    TEXT,
    BOOLEAN,
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

/// A column that an expression makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computed {
    /// The column, as an index into those that are filled.
    pub column: usize,
    /// The expression.
    pub sql: String,
    /// What it calls its inputs, and which of the shape's inputs those are.
    pub inputs: Vec<(String, usize)>,
    /// What stands in the place of a null, as SQL.
    pub for_null: Option<String>,
    /// What stands there where nothing is to be computed, as SQL.
    pub otherwise: String,
}

/// How the rows of one table travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    places: Vec<Place>,
    computed: Vec<Computed>,
    /// What expressions are made of, behind the columns.
    inputs: Vec<Place>,
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
        Self::computing(table, columns, document, Vec::new(), &[])
    }

    /// The same, with columns that are made of `inputs`.
    pub fn computing(
        table: &Table,
        columns: &[(usize, bool)],
        document: bool,
        computed: Vec<Computed>,
        inputs: &[Type],
    ) -> Option<Self> {
        let needed = document || !computed.is_empty() || columns.iter().any(|(_, text)| *text);
        needed.then(|| Self::always(table, columns, document, computed, inputs))
    }

    /// The same whether something asks for it or not: tables of ours get columns, and keep those that nothing fills any more.
    pub fn always(
        table: &Table,
        columns: &[(usize, bool)],
        document: bool,
        computed: Vec<Computed>,
        inputs: &[Type],
    ) -> Self {
        let place = |(at, (column, text)): (usize, &(usize, bool))| match computed
            .iter()
            .any(|computed| computed.column == at)
        {
            true => Place { carrier: BOOLEAN, array: false, text: false },
            false => Place::of(&table.columns[*column].kind, *text),
        };
        let places = columns.iter().enumerate().map(place).collect();
        let inputs = inputs.iter().map(|kind| Place::of(kind, false)).collect();
        Self { places, computed, inputs, document }
    }

    /// The type in which this column travels.
    pub(super) fn carried_as(&self, at: usize) -> Option<String> {
        self.places.get(at).map(Place::name)
    }

    /// The columns that are computed.
    pub fn computed(&self) -> &[Computed] {
        &self.computed
    }

    /// What says whose a row is.
    fn document(&self) -> impl Iterator<Item = Carrier> {
        DOCUMENT.into_iter().filter(|_| self.document)
    }

    /// Columns, then inputs.
    fn carried(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().chain(&self.inputs)
    }

    /// OIDs of its columns.
    pub(super) fn oids(&self) -> impl Iterator<Item = u32> {
        self.carried().map(Place::oid).chain(self.document().map(|carrier| carrier.oid))
    }

    /// Which columns are written as text.
    pub fn texts(&self) -> impl Iterator<Item = usize> {
        self.places.iter().enumerate().filter(|(_, place)| place.text).map(|(at, _)| at)
    }

    fn attributes(&self) -> String {
        let names =
            self.carried().map(Place::name).chain(self.document().map(|carrier| carrier.name.to_owned()));
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
        let computes = |at: usize| self.computed.iter().find(|computed| computed.column == at);
        let listed = self.places.iter().zip(columns).enumerate().map(|(at, (place, column))| {
            let column = &table.columns[*column];
            let carried = format!("s.c{at}");
            let value = match place.text {
                _ if computes(at).is_some() => format!("x{at}.v"),
                true => read(&carried, &column.kind),
                false if place.oid() == column.kind.oid => carried,
                false => format!("{carried}::{}", element_type(&column.kind)),
            };
            format!("{value} AS {}", quote(&column.name))
        });
        let behind = self.places.len() + self.inputs.len();
        let names = [DOCUMENT_ID, DOCUMENT_NAME].into_iter().zip(behind..).filter(|_| self.document);
        let listed: Vec<String> =
            listed.chain(names.map(|(name, at)| format!("s.c{at} AS {name}"))).collect();
        let made: String = self
            .computed
            .iter()
            .map(|computed| {
                let kind = &table.columns[columns[computed.column]].kind;
                format!(", LATERAL ({}) AS x{}", self.expression(computed, kind), computed.column)
            })
            .collect();
        format!("(SELECT {} FROM unnest(${number}::{}[]) AS s{made})", listed.join(", "), self.name())
    }

    /// The value `v` of one computed column, of a row `s`.
    fn expression(&self, computed: &Computed, kind: &Type) -> String {
        let Computed { column, sql, inputs, for_null, otherwise } = computed;
        let behind = self.places.len();
        let named: Vec<String> =
            inputs.iter().map(|(name, at)| format!("s.c{} AS {}", behind + at, quote(name))).collect();
        let cast = element_type(kind);
        // A comment may end the expression.
        let value = match for_null {
            Some(default) => format!("coalesce(({sql}\n)::{cast}, {default})"),
            None => format!("({sql}\n)::{cast}"),
        };
        format!(
            "SELECT CASE WHEN s.c{column} THEN {value} ELSE {otherwise} END AS v FROM (SELECT {}) AS w",
            named.join(", ")
        )
    }

    /// How many of the rows of `$1` have a value in this computed column, once it was computed and given the column's length.
    pub(super) fn try_computed(&self, table: &Table, columns: &[usize], computed: &Computed) -> String {
        const PADDED: u32 = 1042;
        const VARYING: u32 = 1043;
        let kind = &table.columns[columns[computed.column]].kind;
        let value = match kind.base_oid {
            PADDED if kind.modifier > 0 => {
                format!("pg_catalog.bpchar(x.v::pg_catalog.bpchar, {}, false)", kind.modifier)
            }
            VARYING if kind.modifier > 0 => {
                format!("pg_catalog.varchar(x.v::pg_catalog.varchar, {}, false)", kind.modifier)
            }
            // A cast to a number with places or to a domain does what an assignment does.
            _ if kind.element.is_none() && !is_bits(kind) => format!("x.v::{}", kind.name),
            _ => "x.v".to_owned(),
        };
        format!(
            "SELECT count({value}) FROM unnest($1::{}[]) AS s, LATERAL ({}) AS x",
            self.name(),
            self.expression(computed, kind)
        )
    }

    /// Where the inputs of a computed column are in a row, in the order in which it names them.
    pub fn inputs_of(&self, computed: &Computed) -> Vec<usize> {
        computed.inputs.iter().map(|(_, at)| self.places.len() + at).collect()
    }
}

fn is_bits(kind: &Type) -> bool {
    matches!(kind.base_oid, 1560 | 1562)
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
        let of = |places| Shape { places, computed: Vec::new(), inputs: Vec::new(), document: false };
        let shape = of(vec![Place::of(&tree, true), Place::of(&array, false)]);
        assert_eq!(shape.attributes(), "c0 text, c1 integer[]");
        assert_eq!(shape.oids().collect::<Vec<_>>(), [25, 1007]);
        assert_eq!(shape.name(), shape.clone().name());
        let other = of(vec![Place::of(&tree, true), Place::of(&number, false)]);
        assert_ne!(shape.name(), other.name());
        assert!(shape.name().len() < 63, "{}", shape.name());
    }

    #[test]
    fn a_computed_column_is_made_of_inputs_behind_the_columns() {
        let column = |name: &str, kind: Type| crate::postgres::target::catalog::Column {
            name: name.into(),
            kind,
            ..Default::default()
        };
        let table = Table {
            schema: "public".into(),
            name: "people".into(),
            columns: vec![column("id", kind(2950, "uuid")), column("full \"name\"", kind(25, "text"))],
            ..Table::default()
        };
        let computed = Computed {
            column: 1,
            sql: "concat_ws(' ', first, last) -- done".into(),
            inputs: vec![("last".into(), 1), ("first".into(), 0)],
            for_null: Some("'none'::text".into()),
            otherwise: "NULL".into(),
        };
        let inputs = [kind(25, "text"), kind(20, "bigint")];
        let shape = Shape::computing(&table, &[(0, false), (1, false)], true, vec![computed], &inputs)
            .expect("a shape");
        assert_eq!(shape.attributes(), "c0 uuid, c1 boolean, c2 text, c3 bigint, c4 uuid, c5 text");
        assert_eq!(
            shape.source(&table, &[0, 1], 1),
            format!(
                "(SELECT s.c0 AS \"id\", x1.v AS \"full \"\"name\"\"\", s.c4 AS \"slackwater document id\", s.c5 AS \
                 \"slackwater document name\" FROM unnest($1::{}[]) AS s, LATERAL (SELECT CASE WHEN s.c1 THEN \
                 coalesce((concat_ws(' ', first, last) -- done\n)::text, 'none'::text) ELSE NULL END AS v FROM (SELECT \
                 s.c3 AS \"last\", s.c2 AS \"first\") AS w) AS x1)",
                shape.name()
            )
        );
        assert_eq!(shape.inputs_of(&shape.computed()[0]), [3, 2]);
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

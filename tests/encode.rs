//! What the mapping writes, read by a real Postgres: the binary form of every value must be the value that Postgres
//! itself makes of the text.

use std::cell::RefCell;
use std::error::Error;
use std::sync::Arc;

use bson::{Bson, doc};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use slackwater::config;
use slackwater::mapping::{Mapper, Rejection, compile};
use slackwater_connectors::postgres::target::catalog::{Catalog, Column, Table, Type};
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_topics::{CollectionId, Event, Key, Op, Position, Value};
use tokio_postgres::types::{Format, IsNull, ToSql, private::BytesMut};

fn kind(name: &str, oid: u32, modifier: i32) -> Type {
    let (enum_labels, element) = (None, None);
    let base_name = name.into();
    Type {
        oid,
        name: name.into(),
        base_oid: oid,
        base_name,
        modifier,
        enum_labels,
        element,
        comparable: true,
    }
}

fn numeric(precision: i32, scale: i32) -> Type {
    kind(&format!("numeric({precision},{scale})"), 1700, ((precision << 16) | (scale & 0x7ff)) + 4)
}

fn array(element: Type, oid: u32) -> Type {
    Type { element: Some(Box::new(element.clone())), ..kind(&format!("{}[]", element.name), oid, -1) }
}

/// Maps `{_id: 1, v: value}` into a column of this type and gives its bytes; none for null.
struct Encoder(RefCell<(Mapper, WriteSet)>);

impl Encoder {
    fn new(kind: Type, rule: &str) -> Self {
        let column = |name: &str, kind: Type| Column {
            name: name.into(),
            kind,
            not_null: false,
            has_default: false,
            default: None,
            cycles: false,
            generated: false,
            identity_always: false,
            null_checked: false,
        };
        let id = Type { name: "uuid".into(), ..kind.clone() };
        let id = Type { oid: 2950, base_oid: 2950, modifier: -1, element: None, ..id };
        let table = Table {
            schema: "public".into(),
            name: "t".into(),
            columns: vec![column("id", id), column("v", kind)],
            primary_key: vec![0],
            uniques: Vec::new(),
            rivals: Vec::new(),
            indexes: vec![vec![0]],
            foreign_keys: Vec::new(),
            judges: false,
            is_table: true,
            lacks: Vec::new(),
            estimated_rows: -1,
            triggers: Vec::new(),
            ..Table::default()
        };
        let tables = [(("public".to_owned(), "t".to_owned()), table)].into();
        let catalog = Catalog { tables, ..Catalog::default() };
        let file = format!(
            "migration: t\nsources: {{ m: {{ mongodb: {{ uri: x, database: d }} }} }}\ntarget: {{ postgres: {{ uri: x }} }}\ncollections:\n  m.t: {{ into: t, columns: {{ id: {{ uuid: _id }}, v: {rule} }} }}\n"
        );
        let file = config::parse("t.yaml", &file, &|_| None).expect("a file");
        let plan = Arc::new(compile(&file, &catalog).expect("a plan"));
        let write = WriteSet::new(&plan.tables, true);
        Self(RefCell::new((Mapper::new(plan), write)))
    }

    fn encode(&self, value: impl Into<Bson>) -> Result<Option<Vec<u8>>, Rejection> {
        self.encode_raw(doc! {"_id": 1, "v": value.into()}.to_vec().expect("a document"))
    }

    fn encode_raw(&self, document: Vec<u8>) -> Result<Option<Vec<u8>>, Rejection> {
        let event = Event {
            collection: CollectionId(0),
            key: Key::of(Value::Int32(1)).expect("a key"),
            op: Op::Snapshot,
            document: document.into(),
            position: Position::default(),
            time: 0,
        };
        let (mapper, write) = &mut *self.0.borrow_mut();
        write.tables[0].rows.clear();
        mapper.map(&event, write)?;
        // The count of fields, the id with its length, the length of the value.
        let bytes = &write.tables[0].rows.as_bytes()[2 + 4 + 16..];
        let length = i32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
        Ok((length >= 0).then(|| bytes[4..].to_vec()))
    }
}

/// Bytes in Postgres' binary form, sent as they are.
#[derive(Debug)]
struct Binary(Vec<u8>);

impl ToSql for Binary {
    fn to_sql(
        &self,
        _: &tokio_postgres::types::Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }

    fn encode_format(&self, _: &tokio_postgres::types::Type) -> Format {
        Format::Binary
    }

    tokio_postgres::types::to_sql_checked!();
}

struct Server {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Server {
    fn connect() -> Self {
        let url =
            std::env::var("SLACKWATER_POSTGRES_URL").expect("SLACKWATER_POSTGRES_URL: see dev/services env");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("a connection");
            tokio::spawn(connection);
            client.batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 1").await.expect("settings");
            client
        });
        Self { runtime, client }
    }

    /// What Postgres makes of the bytes, and of the text, both as text.
    fn both(
        &self,
        kind: &str,
        bytes: Vec<u8>,
        text: &str,
    ) -> Result<(String, String), tokio_postgres::Error> {
        // Ours without the modifier: Postgres must not round or cut what we should have.
        let plain = match kind.split_once('(') {
            Some((plain, rest)) => format!("{plain}{}", rest.split_once(')').map_or("", |(_, rest)| rest)),
            None => kind.to_owned(),
        };
        let query = format!("SELECT $1::{plain}::text, $2::text::{kind}::text");
        self.runtime.block_on(async {
            let row = self.client.query_one(&query, &[&Binary(bytes), &text]).await?;
            Ok((row.get(0), row.get(1)))
        })
    }
}

fn same(server: &Server, kind: &str, bytes: Option<Vec<u8>>, text: &str) -> Result<(), TestCaseError> {
    let bytes = bytes.ok_or_else(|| TestCaseError::fail("null"))?;
    let (ours, theirs) = server
        .both(kind, bytes, text)
        .map_err(|error| TestCaseError::fail(format!("{kind} {text}: {error:?}")))?;
    prop_assert_eq!(ours, theirs, "{} {}", kind, text);
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    // No file of past failures: the seed is printed.
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) })
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().expect("a decimal"))
}

#[test]
fn each_type_by_example() {
    let server = Server::connect();
    let uuid = "0b0e7e0c-1111-4222-8333-444455556666";
    let binary = |subtype, bytes: &[u8]| Bson::Binary(bson::Binary { subtype, bytes: bytes.to_vec() });
    let generic = bson::spec::BinarySubtype::Generic;
    let date = |millis| Bson::DateTime(bson::DateTime::from_millis(millis));
    let cases: Vec<(Type, &str, Bson, &str)> = vec![
        (kind("bool", 16, -1), "v", true.into(), "true"),
        (kind("bool", 16, -1), "v", " Off ".into(), "false"),
        (kind("bool", 16, -1), "v", 1.0.into(), "true"),
        (kind("int2", 21, -1), "v", (-32_768_i64).into(), "-32768"),
        (kind("int4", 23, -1), "v", " +42.0 ".into(), "42"),
        (kind("int4", 23, -1), "{ integer: v, invalid: strip }", (-1.9).into(), "-1"),
        (kind("int8", 20, -1), "v", decimal("9223372036854775807"), "9223372036854775807"),
        (kind("int8", 20, -1), "{ integer: v, invalid: clamp }", 1e30.into(), "9223372036854775807"),
        (kind("float4", 700, -1), "v", 0.1.into(), "0.1"),
        (kind("float4", 700, -1), "{ float: v, invalid: clamp }", 1e300.into(), "3.4028235e38"),
        (kind("float8", 701, -1), "v", decimal("0.1"), "0.1"),
        (kind("float8", 701, -1), "v", f64::NEG_INFINITY.into(), "-Infinity"),
        (kind("float8", 701, -1), "v", (-0.0).into(), "-0"),
        (kind("numeric", 1700, -1), "v", decimal("NaN"), "NaN"),
        (kind("numeric", 1700, -1), "v", decimal("-Infinity"), "-Infinity"),
        (kind("numeric", 1700, -1), "v", decimal("1E6111"), "1E6111"),
        (kind("numeric", 1700, -1), "v", decimal("9999999999999999999999999999999999E-6176"), "9999999999999999999999999999999999E-6176"),
        (kind("numeric", 1700, -1), "v", "-0.000".into(), "-0.000"),
        (numeric(5, 2), "v", decimal("NaN"), "NaN"),
        (numeric(5, 2), "v", 999.994.into(), "999.994"),
        (numeric(5, 2), "v", (-0.005).into(), "-0.005"),
        (numeric(5, 2), "{ numeric: v, invalid: clamp }", decimal("-Infinity"), "-999.99"),
        (numeric(3, -2), "v", 12_350.into(), "12350"),
        (numeric(2, 4), "v", "0.00994".into(), "0.0099"),
        (kind("text", 25, -1), "v", "naïve \u{1f600}".into(), "naïve \u{1f600}"),
        (kind("text", 25, -1), "v", decimal("1.10"), "1.10"),
        (kind("text", 25, -1), "v", date(1_700_000_000_123), "2023-11-14T22:13:20.123Z"),
        (kind("varchar(3)", 1043, 7), "v", "abc   ".into(), "abc"),
        (kind("varchar(3)", 1043, 7), "{ text: v, invalid: clamp }", "éèêë".into(), "éèê"),
        (kind("bpchar(3)", 1042, 7), "v", "é".into(), "é"),
        (kind("uuid", 2950, -1), "v", uuid.to_uppercase().into(), uuid),
        (kind("uuid", 2950, -1), "v", binary(bson::spec::BinarySubtype::Uuid, &[0xab; 16]), "abababab-abab-abab-abab-abababababab"),
        (kind("timestamptz", 1184, -1), "v", date(0), "1970-01-01 00:00:00+00"),
        (kind("timestamptz", 1184, -1), "v", "2024-02-29T23:59:60+05:30".into(), "2024-02-29T23:59:60+05:30"),
        (kind("timestamptz", 1184, -1), "v", "294276-12-31T23:59:59.999999Z".into(), "294276-12-31 23:59:59.999999+00"),
        (kind("timestamptz", 1184, -1), "{ timestamp: v, invalid: clamp }", date(i64::MAX), "294276-12-31 23:59:59.999999+00"),
        (kind("timestamptz", 1184, -1), "{ timestamp: v, invalid: clamp }", date(i64::MIN), "4714-11-24 00:00:00+00 BC"),
        (kind("timestamptz", 1184, -1), "{ timestamp: v, unit: s }", 1.5.into(), "1970-01-01 00:00:01.5+00"),
        (kind("timestamptz", 1184, -1), "{ timestamp: v, unit: ms }", "1500".into(), "1970-01-01 00:00:01.5+00"),
        (kind("timestamptz", 1184, -1), "v", bson::oid::ObjectId::from_bytes([0; 12]).into(), "1970-01-01 00:00:00+00"),
        // The year before the year 1, which MongoDB calls 0.
        (kind("timestamp", 1114, -1), "v", date(-62_135_596_800_001), "0001-12-31 23:59:59.999 BC"),
        (kind("timestamp(0)", 1114, 0), "v", date(1_500), "1970-01-01 00:00:01.5"),
        (kind("date", 1082, -1), "v", date(-1), "1969-12-31"),
        (kind("date", 1082, -1), "{ date: v, invalid: clamp }", date(i64::MIN), "4714-11-24 BC"),
        (kind("date", 1082, -1), "v", "2024-02-29".into(), "2024-02-29"),
        (kind("time", 1083, -1), "v", "24:00".into(), "24:00"),
        (kind("time", 1083, -1), "v", date(-1), "23:59:59.999"),
        (kind("bytea", 17, -1), "v", binary(generic, b"\0\xff"), "\\x00ff"),
        (kind("inet", 869, -1), "v", "10.1.2.3/8".into(), "10.1.2.3/8"),
        (kind("inet", 869, -1), "v", "::1".into(), "::1"),
        (kind("cidr", 650, -1), "v", "10.0.0.0/8".into(), "10.0.0.0/8"),
        (array(kind("text", 25, -1), 1009), "{ array: v[].n }", Bson::Array(vec![doc! {"n": "a,\"b"}.into(), doc! {}.into()]), r#"{"a,\"b",NULL}"#),
        (array(kind("int4", 23, -1), 1007), "{ array: v[] }", Bson::Array(vec![]), "{}"),
        (array(numeric(5, 2), 1231), "v", Bson::Array(vec![1.005.into(), 2.into()]), "{1.01,2.00}"),
        (kind("jsonb", 3802, -1), "v", "\u{1}\"\\\n\u{7f}é".into(), "\"\\u0001\\\"\\\\\\n\u{7f}é\""),
        (kind("jsonb", 3802, -1), "v", doc! {"": [f64::NAN, -0.0, 1e300, decimal("1.10"), 9_007_199_254_740_993_i64, Bson::Null], "$a.b": true}.into(),
            r#"{"": ["NaN", 0.0, 1e300, 1.10, 9007199254740993, null], "$a.b": true}"#),
        (kind("jsonb", 3802, -1), "v", doc! {"d": date(-1), "far": date(i64::MAX), "b": binary(generic, b"abcd"), "m": Bson::MinKey}.into(),
            r#"{"d": "1969-12-31T23:59:59.999Z", "far": {"$date": {"$numberLong": "9223372036854775807"}}, "b": "YWJjZA==", "m": {"$minKey": 1}}"#),
        (kind("json", 114, -1), "v", doc! {"a": -0.0}.into(), r#"{"a":-0.0}"#),
        (kind("jsonb", 3802, -1), "{ jsonb: v, invalid: strip }", "a\0b".into(), "\"ab\""),
    ];
    for (kind, rule, value, text) in cases {
        let name = kind.name.clone();
        let rule = if rule == "v" { "v".to_owned() } else { rule.to_owned() };
        let bytes = Encoder::new(kind, &rule)
            .encode(value)
            .unwrap_or_else(|refused| panic!("{name} {text}: {refused}"));
        same(&server, &name, bytes, text).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_decimal_is_the_number_it_was() {
    let server = Server::connect();
    let plain = Encoder::new(kind("numeric", 1700, -1), "v");
    let shapes = [(38, 10), (5, 2), (3, 0), (4, 6), (10, -3)];
    let shaped: Vec<_> = shapes.iter().map(|(p, s)| Encoder::new(numeric(*p, *s), "v")).collect();
    let strategy = (any::<bool>(), "[0-9]{1,34}", prop_oneof![-40..40_i32, -6176..6000_i32], 0..shapes.len());
    runner(400)
        .run(&strategy, |(negative, digits, exponent, shape)| {
            let text = format!("{}{digits}E{exponent}", if negative { "-" } else { "" });
            let value: bson::Decimal128 =
                text.parse().map_err(|_| TestCaseError::reject("past the range of Decimal128"))?;
            let refused = |refused: Rejection| TestCaseError::fail(refused.to_string());
            let bytes = plain.encode(Bson::Decimal128(value)).map_err(refused)?;
            same(&server, "numeric", bytes, &text)?;
            same(&server, "numeric", plain.encode(text.as_str()).map_err(refused)?, &text)?;
            let (precision, scale) = shapes[shape];
            let name = format!("numeric({precision},{scale})");
            match shaped[shape].encode(Bson::Decimal128(value)) {
                Ok(bytes) => same(&server, &name, bytes, &text),
                // Ours says no: so does Postgres.
                Err(_) => {
                    let query = format!("SELECT $1::text::{name}");
                    let refused = server.runtime.block_on(server.client.query_one(&query, &[&text]));
                    let refused = refused.expect_err("out of range");
                    prop_assert_eq!(refused.code().map(|code| code.code()), Some("22003"));
                    Ok(())
                }
            }
        })
        .expect("all decimals");
}

#[test]
fn every_double_is_its_shortest_digits() {
    let server = Server::connect();
    let numeric = Encoder::new(kind("numeric", 1700, -1), "v");
    let json = Encoder::new(kind("jsonb", 3802, -1), "v");
    let cents = (-1_000_000_000_i64..1_000_000_000, 0..5_u32)
        .prop_map(|(number, places)| number as f64 / 10_f64.powi(places as i32));
    let any = proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO;
    runner(400)
        .run(&prop_oneof![cents, any], |number| {
            let text = format!("{number:e}");
            let refused = |refused: Rejection| TestCaseError::fail(refused.to_string());
            // The number of places shown is no part of the value.
            let bytes = numeric.encode(number).map_err(refused)?.unwrap_or_default();
            let query = "SELECT $1::numeric = $2::text::numeric";
            let row = server.runtime.block_on(server.client.query_one(query, &[&Binary(bytes), &text]));
            prop_assert!(row.expect("compared").get::<_, bool>(0), "{}", text);
            let bytes = json.encode(number).map_err(refused)?.unwrap_or_default();
            let query = "SELECT $1::jsonb = $2::text::jsonb";
            let row = server.runtime.block_on(server.client.query_one(query, &[&Binary(bytes), &text]));
            prop_assert!(row.expect("compared").get::<_, bool>(0), "{}", text);
            Ok(())
        })
        .expect("all doubles");
}

#[test]
fn every_moment_is_the_moment_it_was() {
    let server = Server::connect();
    let zoned = Encoder::new(kind("timestamptz", 1184, -1), "v");
    let short = Encoder::new(kind("timestamptz(1)", 1184, 1), "v");
    let day = Encoder::new(kind("date", 1082, -1), "v");
    runner(300)
        .run(&(-62_135_596_800_000_i64..253_402_300_800_000), |millis| {
            let text = jiff::Timestamp::from_millisecond(millis).expect("in range").to_string();
            let refused = |refused: Rejection| TestCaseError::fail(refused.to_string());
            let value = Bson::DateTime(bson::DateTime::from_millis(millis));
            same(&server, "timestamptz", zoned.encode(value.clone()).map_err(refused)?, &text)?;
            same(&server, "timestamptz", zoned.encode(text.as_str()).map_err(refused)?, &text)?;
            same(&server, "timestamptz(1)", short.encode(value.clone()).map_err(refused)?, &text)?;
            same(&server, "date", day.encode(value).map_err(refused)?, &text)
        })
        .expect("all moments");
}

#[test]
fn every_json_is_the_json_it_was() {
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[^\0]{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::vec(("[^\0]{0,4}", inner), 0..6)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }
    fn to_bson(value: &serde_json::Value) -> Bson {
        match value {
            serde_json::Value::Null => Bson::Null,
            serde_json::Value::Bool(truth) => (*truth).into(),
            serde_json::Value::Number(number) => number.as_i64().expect("whole").into(),
            serde_json::Value::String(text) => text.clone().into(),
            serde_json::Value::Array(list) => Bson::Array(list.iter().map(to_bson).collect()),
            serde_json::Value::Object(fields) => {
                Bson::Document(fields.iter().map(|(name, value)| (name.clone(), to_bson(value))).collect())
            }
        }
    }
    let server = Server::connect();
    let jsonb = Encoder::new(kind("jsonb", 3802, -1), "v");
    runner(300)
        .run(&any_json(), |value| {
            let bytes =
                jsonb.encode(to_bson(&value)).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
            match bytes {
                None => prop_assert!(value.is_null()),
                bytes => same(&server, "jsonb", bytes, &value.to_string())?,
            }
            Ok(())
        })
        .expect("all of JSON");
    // Where a name occurs twice, Postgres keeps the last.
    let twice =
        [&[19, 0, 0, 0][..], &[0x10, b'a', 0, 1, 0, 0, 0], &[0x10, b'a', 0, 2, 0, 0, 0], &[0]].concat();
    let mut document = doc! {"_id": 1}.to_vec().expect("a document");
    document.pop();
    document.extend_from_slice(&[0x03, b'v', 0]);
    document.extend_from_slice(&twice);
    document.push(0);
    let length = document.len() as i32;
    document[..4].copy_from_slice(&length.to_le_bytes());
    let bytes = jsonb.encode_raw(document).expect("mapped");
    same(&server, "jsonb", bytes, r#"{"a": 2}"#).expect("the last");
    // As deep as is taken at all.
    let deep = (0..199).fold(Bson::Null, |inner, _| Bson::Array(vec![inner]));
    let text = format!("{}null{}", "[".repeat(199), "]".repeat(199));
    same(&server, "jsonb", jsonb.encode(deep).expect("mapped"), &text).expect("deep");
}

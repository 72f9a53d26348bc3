use std::sync::Arc;

use bson::{Bson, doc};
use slackwater_connectors::postgres::target::catalog::{Catalog, Column, ForeignKey, OnDelete, Table, Type};
use slackwater_connectors::postgres::target::rows::Missing;
use slackwater_connectors::postgres::target::rows::{TableSpec, Values, WriteSet};
use slackwater_topics::{CollectionId, Document, Event, Key, Namespace, Op, Position, Value};

use super::*;
use crate::config;

mod ciphers;
mod computed;
mod counted;
mod files;
mod history;
mod merged;
mod nested;
mod noise;
mod routes;

const HEAD: &str = "migration: test\nsources: { m: { mongodb: { uri: x, database: d } } }\ntarget: { postgres: { uri: x } }\ncollections:\n";

fn plain(name: &str, oid: u32, modifier: i32) -> Type {
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

/// `name type [not null] [default] [generated]`, as much of SQL as tests need.
fn column(text: &str) -> Column {
    let mut words = text.split(' ');
    let (name, kind) = (words.next().expect("a name"), words.next().expect("a type"));
    let rest: Vec<&str> = words.collect();
    let base = |kind: &str| match kind {
        "uuid" => plain(kind, 2950, -1),
        "text" => plain(kind, 25, -1),
        "varchar(5)" => plain(kind, 1043, 9),
        "char(5)" => plain(kind, 1042, 9),
        "smallint" => plain(kind, 21, -1),
        "integer" => plain(kind, 23, -1),
        "bigint" => plain(kind, 20, -1),
        "numeric" => plain(kind, 1700, -1),
        "numeric(5,2)" => plain(kind, 1700, (5 << 16 | 2) + 4),
        "double" => plain(kind, 701, -1),
        "boolean" => plain(kind, 16, -1),
        "timestamptz" => plain(kind, 1184, -1),
        "date" => plain(kind, 1082, -1),
        "jsonb" => plain(kind, 3802, -1),
        "json" => plain(kind, 114, -1),
        "bytea" => plain(kind, 17, -1),
        "interval" => plain(kind, 1186, -1),
        "mood" => Type { enum_labels: Some(vec!["good".into(), "bad".into()]), ..plain(kind, 70_000, -1) },
        other => panic!("no type {other}"),
    };
    let kind = match kind.strip_suffix("[]") {
        Some(element) => Type { element: Some(Box::new(base(element))), ..plain(kind, 1009, -1) },
        None => base(kind),
    };
    Column {
        name: name.into(),
        kind,
        not_null: rest.contains(&"not") || rest.contains(&"key"),
        has_default: rest.contains(&"default"),
        default: None,
        cycles: false,
        generated: rest.contains(&"generated"),
        identity_always: false,
        null_checked: false,
    }
}

/// A table of such columns; `key` among the words of a column puts it into the primary key.
pub(crate) fn table(name: &str, columns: &[&str]) -> Table {
    let key: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].ends_with(" key")).collect();
    Table {
        schema: "public".into(),
        name: name.into(),
        columns: columns.iter().map(|text| column(text)).collect(),
        indexes: vec![key.clone()],
        primary_key: key,
        uniques: Vec::new(),
        rivals: Vec::new(),
        foreign_keys: Vec::new(),
        judges: false,
        is_table: true,
        lacks: Vec::new(),
        estimated_rows: -1,
        triggers: Vec::new(),
        ..Table::default()
    }
}

fn refers(mut from: Table, column: &str, to: &str) -> Table {
    let columns = vec![from.column(column).expect("a column")];
    let name = format!("{}_{column}_fkey", from.name);
    from.foreign_keys.push(ForeignKey {
        name,
        columns,
        table: ("public".into(), to.into()),
        referenced: vec!["id".into()],

        full: false,
        on_delete: OnDelete::Refuse,
        names: Vec::new(),
    });
    from
}

pub(crate) fn catalog(tables: Vec<Table>) -> Catalog {
    let named = |table: Table| ((table.schema.clone(), table.name.clone()), table);
    Catalog { tables: tables.into_iter().map(named).collect(), ..Catalog::default() }
}

fn try_plan(collections: &str, tables: Vec<Table>) -> Result<Plan, config::Diagnostics> {
    let file = config::parse("m.yaml", &format!("{HEAD}{collections}"), &|_| None)?;
    compile(&file, &catalog(tables))
}

fn plan(collections: &str, tables: Vec<Table>) -> Arc<Plan> {
    match try_plan(collections, tables) {
        Ok(plan) => Arc::new(plan),
        Err(found) => panic!("{found}"),
    }
}

fn event(collection: u16, op: Op, document: &bson::Document) -> Event {
    let raw = document.to_vec().expect("a document");
    let read = Document::new(&raw).expect("a document");
    let key = Key::of(read.get(b"_id").expect("well formed").unwrap_or(Value::Null)).expect("a key");
    raw_event(collection, op, key, raw)
}

fn raw_event(collection: u16, op: Op, key: Key, raw: Vec<u8>) -> Event {
    let document = if op == Op::Delete { Vec::new() } else { raw };
    let position = Position::default();
    Event { collection: CollectionId(collection), key, op, document: document.into(), position, time: 0 }
}

/// Fields of every row: none for null. Panics where the framing is not what Postgres reads.
fn rows(
    write: &slackwater_connectors::postgres::target::rows::TableWrite,
    spec: &TableSpec,
    copy: bool,
) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut bytes = write.rows.as_bytes();
    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (head, rest) = bytes.split_at(length);
        *bytes = rest;
        head
    }
    fn number(bytes: &mut &[u8]) -> i32 {
        i32::from_be_bytes(take(bytes, 4).try_into().expect("four bytes"))
    }
    fn field(bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let length = number(bytes);
        usize::try_from(length).ok().map(|length| take(bytes, length).to_vec())
    }
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let mut row = Vec::new();
        if copy {
            let count = i16::from_be_bytes(take(&mut bytes, 2).try_into().expect("two bytes"));
            assert_eq!(usize::try_from(count).expect("a count"), spec.columns.len());
            row.extend((0..count).map(|_| field(&mut bytes)));
        } else {
            let length = usize::try_from(number(&mut bytes)).expect("a length");
            let mut inner = take(&mut bytes, length);
            assert_eq!(usize::try_from(number(&mut inner)).expect("a count"), spec.table.columns.len());
            for (at, column) in spec.table.columns.iter().enumerate() {
                assert_eq!(number(&mut inner).cast_unsigned(), column.kind.oid);
                let value = field(&mut inner);
                if spec.columns.contains(&at) {
                    row.push(value);
                } else {
                    assert_eq!(value, None);
                }
            }
            assert!(inner.is_empty());
        }
        rows.push(row);
    }
    assert_eq!(rows.len(), write.rows.len());
    rows
}

fn values(values: &Values) -> Vec<Vec<u8>> {
    let mut bytes = values.as_bytes();
    let mut list = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (value, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        list.push(value.to_vec());
        bytes = rest;
    }
    assert_eq!(list.len(), values.len());
    list
}

fn map_one(plan: &Arc<Plan>, document: &bson::Document) -> Result<Vec<Option<Vec<u8>>>, Rejection> {
    let mut out = WriteSet::new(&plan.tables, false);
    Mapper::new(Arc::clone(plan)).map(&event(0, Op::Upsert, document), &mut out)?;
    Ok(rows(&out.tables[0], &plan.tables[0], false).remove(0))
}

fn users_and_places() -> (Arc<Plan>, Vec<Table>) {
    let mut places = table("user_places", &["user_id uuid key", "place_id uuid key", "position integer"]);
    places = refers(refers(places, "user_id", "users"), "place_id", "places");
    let tables = vec![
        table("users", &["id uuid key", "skipped text default", "name text", "rest jsonb"]),
        places,
        table("places", &["id uuid key"]),
        refers(table("lines", &["id uuid key", "user_id uuid", "sku text"]), "user_id", "users"),
    ];
    let file = "
  m.users:
    - into: users
      columns: { id: { uuid: _id }, name: name, rest: { rest: jsonb } }
    - into: user_places
      each: places[]
      columns: { user_id: { parent: id }, place_id: { ref: ., to: m.places }, position: { index: 0 } }
    - into: lines
      each: order.lines[]
      columns: { id: { uuid: each, by: sku }, user_id: { parent: id }, sku: sku }
  m.places: { into: places, columns: { id: { uuid: _id } } }
";
    (plan(file, tables.clone()), tables)
}

#[test]
fn tables_and_collections_in_order_of_their_references() {
    let (plan, _) = users_and_places();
    let names: Vec<&str> = plan.tables.iter().map(|spec| spec.table.name.as_str()).collect();
    assert_eq!(names, ["users", "places", "user_places", "lines"]);
    assert_eq!(plan.collections[0].tables, [0, 2, 3]);
    assert_eq!((plan.collections[0].level, plan.collections[1].level), (1, 0));
    // `lines` has no index for its owner, and `rest` does not take what else is in `order`.
    assert_eq!(plan.warnings.list().len(), 2, "{}", plan.warnings);
}

#[test]
fn a_document_becomes_its_rows() {
    let (plan, _) = users_and_places();
    let id = bson::oid::ObjectId::from_bytes([1; 12]);
    let (a, b) = (bson::oid::ObjectId::from_bytes([2; 12]), bson::oid::ObjectId::from_bytes([3; 12]));
    let document = doc! {
        "_id": id, "name": "Ann", "places": [a, b, a], "extra": {"x": 1.0},
        "order": {"lines": [{"sku": "p"}, {"sku": "q"}]},
    };
    let key = |id: &bson::oid::ObjectId| Key::of(Value::ObjectId(&id.bytes())).expect("a key");
    let user = plan.namespace.id("m.users", &key(&id)).as_bytes().to_vec();
    let place = |id| plan.namespace.id("m.places", &key(id)).as_bytes().to_vec();
    for copy in [false, true] {
        let mut out = WriteSet::new(&plan.tables, copy);
        let mut mapper = Mapper::new(Arc::clone(&plan));
        mapper.map(&event(0, Op::Snapshot, &document), &mut out).expect("mapped");
        let of = |table: usize| rows(&out.tables[table], &plan.tables[table], copy);
        let rest = b"\x01{\"extra\":{\"x\":1.0}}".to_vec();
        assert_eq!(of(0), [[Some(user.clone()), Some(b"Ann".to_vec()), Some(rest)]]);
        // The place that occurs twice is one row, and the last of the two.
        let row = |id, at: i32| [Some(user.clone()), Some(place(id)), Some(at.to_be_bytes().to_vec())];
        assert_eq!(of(2), [row(&b, 1), row(&a, 2)]);
        let sku = Key::of(Value::String(b"q")).expect("a key");
        let line = plan.namespace.element_id("m.users", &key(&id), "order.lines", &sku);
        assert_eq!(of(3)[1], [Some(line.as_bytes().to_vec()), Some(user.clone()), Some(b"q".to_vec())]);
        let owners = if copy { Vec::new() } else { vec![user.clone()] };
        assert_eq!(values(&out.tables[2].owners), owners);
        assert_eq!(values(&out.tables[3].owners), owners);
        assert!(mapper.take_tallies().is_empty());
    }
}

#[test]
fn a_delete_takes_the_row_and_all_that_belongs_to_it() {
    let (plan, _) = users_and_places();
    let mut out = WriteSet::new(&plan.tables, false);
    let event = event(0, Op::Delete, &doc! {"_id": 7});
    Mapper::new(Arc::clone(&plan)).map(&event, &mut out).expect("mapped");
    let user = plan.namespace.id("m.users", &event.key).as_bytes().to_vec();
    assert_eq!(values(&out.tables[0].deletes[0]), std::slice::from_ref(&user));
    assert_eq!(values(&out.tables[2].owners), std::slice::from_ref(&user));
    assert_eq!(values(&out.tables[3].owners), [user]);
    assert!(out.tables.iter().all(|table| table.rows.is_empty()));
}

#[test]
fn a_refused_document_leaves_nothing() {
    let (plan, _) = users_and_places();
    let mut out = WriteSet::new(&plan.tables, false);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    mapper.map(&event(0, Op::Upsert, &doc! {"_id": 1, "places": [1]}), &mut out).expect("mapped");
    let before: Vec<_> = out.tables.iter().map(|table| (table.rows.mark(), table.owners.mark())).collect();
    let document =
        doc! {"_id": 2, "name": "Bob", "places": [1, 2], "order": {"lines": [{"sku": "a"}, {"x": 1}]}};
    let refused = mapper.map(&event(0, Op::Upsert, &document), &mut out).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "public.lines.id: the element has no value to be told apart by (from `sku`)"
    );
    assert_eq!(refused.kind, Reason::Null);
    let after: Vec<_> = out.tables.iter().map(|table| (table.rows.mark(), table.owners.mark())).collect();
    assert_eq!(before, after);
    let refused = mapper.map(&event(0, Op::Upsert, &doc! {"_id": 2, "places": "none"}), &mut out);
    assert_eq!(refused.expect_err("refused").path, "places[]");
}

#[test]
fn keys_made_of_the_id_are_the_same_in_rows_and_deletes() {
    let file = "  m.a: { into: a, columns: { code: { text: _id }, kind: { const: x } } }\n";
    let plan = plan(file, vec![table("a", &["kind text key", "code text key"])]);
    assert!(plan.warnings.list()[0].message.contains("same text"), "{}", plan.warnings);
    for (id, text) in [
        (Bson::Double(1.0), "1"),
        (Bson::Int32(1), "1"),
        (Bson::Double(1.5), "1.5"),
        (Bson::String("é".into()), "é"),
        (Bson::Decimal128("1.50".parse().expect("a decimal")), "1.5"),
    ] {
        let document = doc! {"_id": id};
        let mut out = WriteSet::new(&plan.tables, false);
        let mut mapper = Mapper::new(Arc::clone(&plan));
        mapper.map(&event(0, Op::Upsert, &document), &mut out).expect("mapped");
        mapper.map(&event(0, Op::Delete, &document), &mut out).expect("mapped");
        let row = [Some(b"x".to_vec()), Some(text.as_bytes().to_vec())];
        assert_eq!(rows(&out.tables[0], &plan.tables[0], false), [row]);
        assert_eq!(values(&out.tables[0].deletes[1]), [text.as_bytes()]);
    }
    // A document whose id gives no key was refused, and its delete finds nothing to do.
    let mut out = WriteSet::new(&plan.tables, false);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    mapper.map(&event(0, Op::Upsert, &doc! {"_id": {"a": 1}}), &mut out).expect_err("refused");
    mapper.map(&event(0, Op::Delete, &doc! {"_id": {"a": 1}}), &mut out).expect("mapped");
    assert!(out.is_empty());
}

#[test]
fn policies_are_followed_and_counted() {
    let file = "
  m.a:
    into: a
    columns:
      id: { uuid: _id }
      age: { integer: age, invalid: clamp }
      name: { text: name, trim: true, lower: true, empty: null, invalid: strip, default: nobody }
      code: { text: code, invalid: clamp }
      mood: { enum: mood, map: { A: good, B: bad }, unknown: { default: bad } }
      mood2: { enum: mood, unknown: null }
      born: { date: born, invalid: null }
      n: { numeric: n, invalid: default, default: 0.5, null: keep }
      tags: { array: tags[].name, invalid: strip }
      extra: { jsonb: extra }
";
    let columns = [
        "id uuid key",
        "age smallint",
        "name text",
        "code varchar(5)",
        "mood mood",
        "mood2 mood",
        "born date",
        "n numeric(5,2)",
        "tags text[]",
        "extra jsonb",
    ];
    let plan = plan(file, vec![table("a", &columns)]);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    let mut out = WriteSet::new(&plan.tables, false);
    let text = |text: &str| Some(text.as_bytes().to_vec());
    for document in [
        doc! {"_id": 1, "age": 99_999, "name": " A\0NN ", "code": "ééééééé", "mood": "C", "born": "x", "n": "y",
        "tags": [{"name": "t"}, {"name": {}}, {}, 5], "extra": [f64::NAN, -0.0, 9_007_199_254_740_993_i64]},
        doc! {"_id": 2, "name": "  ", "mood": "A", "n": 1.005},
    ] {
        mapper.map(&event(0, Op::Upsert, &document), &mut out).expect("mapped");
    }
    let rows = rows(&out.tables[0], &plan.tables[0], false);
    assert_eq!(rows[0][1], Some(32_767_i16.to_be_bytes().to_vec()));
    assert_eq!(rows[0][2..7], [text("ann"), text("ééééé"), text("bad"), None, None]);
    assert_eq!(rows[0][7], Some(vec![0, 1, 255, 255, 0, 0, 0, 2, 19, 136]));
    let array = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, b't'];
    assert_eq!(rows[0][8], Some([&array[..], &[255; 8]].concat()));
    assert_eq!(rows[0][9], text("\u{1}[\"NaN\",0.0,9007199254740993]"));
    assert_eq!(rows[1][2], text("nobody"));
    assert_eq!(rows[1][4..6], [text("good"), None]);
    let tallies: Vec<_> = mapper
        .take_tallies()
        .into_iter()
        .map(|tally| format!("{} {} {} {:?}", tally.column, tally.what.word(), tally.count, tally.samples))
        .collect();
    insta::assert_snapshot!("tallies", tallies.join("\n"));
    assert!(mapper.take_tallies().is_empty());
}

#[test]
fn what_does_not_fit_is_refused_without_its_value() {
    let file = "
  m.a:
    into: a
    columns:
      id: { uuid: _id }
      name: { text: name }
      code: { text: code }
      age: { integer: age }
      n: { numeric: n }
      at: { timestamp: at }
      extra: { jsonb: extra }
      mood: { enum: mood }
      yes: { boolean: yes }
      bytes: { bytea: bytes }
      other: { ref: other, to: m.a, hex: true }
";
    let columns = [
        "id uuid key",
        "name text not null",
        "code varchar(5)",
        "age integer",
        "n numeric(5,2)",
        "at timestamptz",
        "extra jsonb",
        "mood mood",
        "yes boolean",
        "bytes bytea",
        "other uuid",
    ];
    let plan = plan(file, vec![table("a", &columns)]);
    let good = doc! {"_id": 1, "name": "secret"};
    assert!(map_one(&plan, &good).is_ok());
    let deep =
        Document::new(&encode_nested(250)).map(|document| document.as_bytes().to_vec()).expect("a document");
    let deep: bson::Document = bson::Document::from_reader(&deep[..]).expect("a document");
    let mut lines = Vec::new();
    for (name, value) in [
        ("name", Bson::Null),
        ("name", "secret\0".into()),
        ("name", Bson::Array(vec![])),
        ("code", "secret".into()),
        ("age", 1.5.into()),
        ("age", 3_000_000_000_i64.into()),
        ("age", "secret".into()),
        ("age", f64::NAN.into()),
        ("n", 999.995.into()),
        ("n", f64::INFINITY.into()),
        ("at", bson::DateTime::from_millis(i64::MAX).into()),
        ("at", 5.into()),
        ("at", "secret".into()),
        ("at", "0000-01-01".into()),
        ("extra", doc! {"x": "\0"}.into()),
        ("extra", deep.into()),
        ("mood", "secret".into()),
        ("yes", 2.into()),
        ("yes", "secret".into()),
        ("bytes", "secret".into()),
        ("other", Bson::Array(vec![])),
    ] {
        let mut document = good.clone();
        document.insert(name, value);
        let refused = map_one(&plan, &document).expect_err(name);
        assert!(!refused.to_string().contains("secret"));
        lines.push(format!("{} {refused}", refused.kind.word()));
    }
    insta::assert_snapshot!("rejections", lines.join("\n"));
}

fn encode_nested(levels: usize) -> Vec<u8> {
    (1..levels).fold(vec![5, 0, 0, 0, 0], |inner, _| {
        let length = (inner.len() + 8) as i32;
        [&length.to_le_bytes()[..], &[0x03, b'a', 0], &inner, &[0]].concat()
    })
}

#[test]
fn references_take_the_forms_they_have() {
    let file = "
  m.a: { into: a, columns: { id: { uuid: _id }, r: { ref: r, to: m.a, hex: true }, s: { ref: r, to: m.a } } }
";
    let plan = plan(file, vec![table("a", &["id uuid key", "r uuid", "s uuid"])]);
    let oid = bson::oid::ObjectId::from_bytes([0xab; 12]);
    let id = plan.namespace.id("m.a", &Key::of(Value::ObjectId(&oid.bytes())).expect("a key"));
    let id = Some(id.as_bytes().to_vec());
    let row = |value: Bson| map_one(&plan, &doc! {"_id": 1, "r": value}).expect("mapped");
    assert_eq!(row(oid.into())[1..], [id.clone(), id.clone()]);
    assert_eq!(row(doc! {"$ref": "a", "$id": oid}.into())[1..], [id.clone(), id.clone()]);
    let text = row(oid.to_hex().into());
    assert_eq!(text[1], id);
    assert_ne!(text[2], id);
    // The same id whatever the type of the number.
    assert_eq!(row(5.into())[1], row(5.0.into())[1]);
}

#[test]
fn tables_that_would_not_take_rows_as_they_are() {
    let said = |change: fn(&mut Table)| {
        let mut a = table("a", &["id integer not null default key", "code text not null"]);
        a.columns[0].default = Some("nextval('public.a_id_seq'::regclass)".into());
        change(&mut a);
        let file = "  m.a: { into: a, columns: { id: { serial: _id }, code: code } }\n";
        try_plan(file, vec![a]).map(drop).map_err(|found| found.to_string())
    };
    assert_eq!(said(|_| {}), Ok(()));
    let refused = |change, text: &str| {
        let found = said(change).expect_err(text);
        assert!(found.contains(text), "{found}");
    };
    refused(|a| a.deferrable_key = true, "the primary key of `a` is DEFERRABLE");
    refused(|a| a.rules.push("r".into()), "`public.a` has the rule `r`");
    refused(|a| a.columns[0].cycles = true, "the sequence of `id` is CYCLE");
}

#[test]
fn compile_reports_all_mistakes() {
    let mut view = table("view", &["id uuid key"]);
    view.is_table = false;
    let mut locked = table("locked", &["id uuid key"]);
    locked.lacks = vec!["INSERT".into(), "USAGE".into()];
    let tables = vec![
        table(
            "users",
            &[
                "id uuid key",
                "name text not null",
                "age integer",
                "full text generated",
                "mood mood",
                "length interval",
                "born date not null",
                "gone mood not null",
            ],
        ),
        table("lines", &["id uuid key", "user_id uuid", "n bigint"]),
        table("keyless", &["id uuid"]),
        table("pairs", &["a uuid key", "b text key"]),
        view,
        locked,
    ];
    let file = "
  m.users:
    - into: users
      columns:
        id: { uuid: _id }
        age: { text: age }
        nmae: name
        full: full
        mood: { enum: mood, map: { A: goood }, unknown: { default: ugly } }
        length: length
        born: { date: born, null: keep, invalid: null }
        gone: { enum: mood, unknown: null }
    - into: user
      columns: { id: { uuid: _id } }
    - into: lines
      each: lines[]
      columns: { id: { uuid: each, by: index }, n: n }
    - into: pairs
      each: pairs[]
      columns: { a: { parent: idd }, b: b }
    - into: pairs
      each: others[]
      columns: { a: { ref: ., to: m.usres }, b: { parent: name } }
  m.logs: { into: keyless, columns: { id: { uuid: _id } } }
  m.views: { into: view, columns: { id: { uuid: _id } } }
  m.locked: { into: locked, columns: { id: { from: other } } }
  m.pairs: { into: pairs, key: [b], columns: { a: { uuid: _id }, b: { const: x } } }
  m.more: { into: pairs, columns: { a: { uuid: _id } } }
  m.names: { into: users, columns: { id: { const: nonsense }, name: { rest: jsonb }, born: { const: 2020-02-30 }, age: { integer: _id, default: many } } }
";
    insta::assert_snapshot!(try_plan(file, tables).expect_err("mistakes"));
}

#[test]
fn compile_warns() {
    let a = refers(table("a", &["id uuid key", "b_id uuid", "n integer", "rest jsonb"]), "b_id", "b");
    let b = refers(refers(table("b", &["id uuid key", "a_id uuid", "up uuid"]), "a_id", "a"), "up", "b");
    let c = refers(table("c", &["id text key", "a_id uuid", "up text"]), "up", "c");
    let file = "
  m.a: { into: a, columns: { id: _id, b_id: { ref: b, to: m.b }, n: { float: x.y }, rest: { rest: jsonb } } }
  m.b: { into: b, columns: { id: { uuid: _id }, a_id: { ref: a, to: m.a } } }
  m.c: { into: c, columns: { id: { text: _id } } }
";
    let plan = plan(file, vec![a, b, c]);
    assert_eq!(plan.collections.iter().map(|collection| collection.level).collect::<Vec<_>>(), [0, 0, 0]);
    insta::assert_snapshot!(plan.warnings);
}

#[test]
fn what_becomes_of_missing_rows() {
    let tables = || {
        let users = table("users", &["id uuid key", "a uuid", "b uuid not", "c uuid"]);
        vec![refers(refers(users, "a", "users"), "b", "users")]
    };
    let file = |columns: &str| {
        format!("\n  m.users: {{ into: users, columns: {{ id: {{ uuid: _id }}, {columns} }} }}\n")
    };
    let plan = |columns: &str| try_plan(&file(columns), tables());
    let good = plan("a: { ref: a, to: m.users, missing: null }, b: { ref: b, to: m.users, missing: reject }");
    let good = good.expect("a plan");
    assert_eq!(good.tables[0].missing, [Missing::Wait, Missing::Null, Missing::Reject]);
    let mistakes = plan(
        "a: { ref: a, to: m.users, missing: never }, b: { ref: b, to: m.users, missing: null }, c: { ref: c, to: m.users, missing: wait }",
    );
    let mistakes = mistakes.expect_err("mistakes").to_string();
    assert!(mistakes.contains("`missing`"), "{mistakes}");
    let mistakes =
        plan("b: { ref: b, to: m.users, missing: null }, c: { ref: c, to: m.users, missing: wait }");
    let mistakes = mistakes.expect_err("mistakes").to_string();
    assert!(mistakes.contains("`b` may not be null"), "{mistakes}");
    assert!(mistakes.contains("`c` has no foreign key"), "{mistakes}");
    // What Postgres takes away by itself cannot be rejected.
    let cascading = || {
        let mut tables = tables();
        tables[0].foreign_keys[0].on_delete = OnDelete::Cascade;
        tables
    };
    let mistakes = try_plan(
        &file("a: { ref: a, to: m.users, missing: reject }, b: { ref: b, to: m.users }"),
        cascading(),
    );
    let mistakes = mistakes.expect_err("mistakes").to_string();
    assert!(mistakes.contains("nothing would be rejected"), "{mistakes}");
}

#[test]
fn what_a_schema_asks() {
    let file = "  m.orgs: { into: orgs, columns: { id: { uuid: _id }, owner: { ref: owner, to: m.users } } }\n  \
                m.users:\n    - { into: users, columns: { id: { uuid: _id }, org: { ref: org, to: m.orgs }, email: email } }\n  \
                m.events: { into: events, columns: { id: { uuid: _id }, at: at, length: length } }\n";
    let mut users =
        refers(table("users", &["id uuid key", "org uuid not null", "email text"]), "org", "orgs");
    users.foreign_keys[0].on_delete = OnDelete::Cascade;
    users.rivals.push(slackwater_connectors::postgres::target::catalog::Rival {
        names: vec!["users_email".into()],
        values: vec!["email".into()],
        operators: vec![],
        predicate: None,
        nulls_equal: false,
    });
    users.triggers.push("audit".into());
    let orgs = refers(table("orgs", &["id uuid key", "owner uuid"]), "owner", "users");
    let events = table("events", &["id uuid key", "at timestamptz key", "length interval"]);
    let plan = plan(file, vec![orgs, users, events]);
    let said: Vec<String> =
        asks(&plan).into_iter().map(|ask| format!("{}: {}", ask.kind, ask.text)).collect();
    insta::assert_snapshot!(said.join("\n"));
}

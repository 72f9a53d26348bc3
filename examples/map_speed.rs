//! How long the mapping takes: a flat document of 12 fields and 366 bytes into 12 columns.
//!
//! `cargo run --release --example map_speed`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bson::doc;
use slackwater::config;
use slackwater::mapping::{Mapper, compile};
use slackwater_connectors::postgres::target::catalog::{Catalog, Column, Table, Type};
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_topics::{CollectionId, Event, Key, Op, Position, Value};

const FILE: &str = "
migration: speed
sources: { m: { mongodb: { uri: x, database: d } } }
target: { postgres: { uri: x } }
collections:
  m.users:
    into: users
    columns:
      id: { uuid: _id }
      email: { text: email, trim: true, lower: true }
      name: { text: name }
      age: { integer: age }
      balance: { numeric: balance }
      active: { boolean: active }
      created_at: { timestamp: createdAt }
      updated_at: { timestamp: updatedAt }
      status: { enum: status, map: { A: active, B: blocked, C: closed } }
      organisation_id: { ref: organisation, to: m.users }
      notes: { text: notes }
      city: { text: city }
";

#[allow(clippy::print_stdout)]
fn main() {
    let columns = [
        ("id", 2950),
        ("email", 25),
        ("name", 25),
        ("age", 23),
        ("balance", 1700),
        ("active", 16),
        ("created_at", 1184),
        ("updated_at", 1184),
        ("status", 25),
        ("organisation_id", 2950),
        ("notes", 25),
        ("city", 25),
    ];
    let column = |(name, oid): &(&str, u32)| Column {
        name: (*name).to_owned(),
        kind: Type {
            oid: *oid,
            name: (*oid).to_string(),
            base_oid: *oid,
            base_name: (*oid).to_string(),
            modifier: -1,
            enum_labels: None,
            element: None,
            comparable: true,
        },
        not_null: false,
        has_default: false,
        default: None,
        cycles: false,
        generated: false,
        identity_always: false,
        null_checked: false,
    };
    let table = Table {
        schema: "public".into(),
        name: "users".into(),
        columns: columns.iter().map(column).collect(),
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
    let tables = [(("public".to_owned(), "users".to_owned()), table)].into();
    let catalog = Catalog { tables, ..Catalog::default() };
    let file = config::parse("speed.yaml", FILE, &|_| None).expect("a file");
    let plan = Arc::new(compile(&file, &catalog).expect("a plan"));
    let events: Vec<Event> = (0..1000_u32)
        .map(|number| {
            let mut id = [7; 12];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let oid = bson::oid::ObjectId::from_bytes(id);
            let status = ["A", "B", "C"][number as usize % 3];
            let document = doc! {
                "_id": oid,
                "email": format!("Person.{number:05}@Example.com"),
                "name": format!("Person Number {number:05}"),
                "age": 18 + (number % 60) as i32,
                "balance": f64::from(number) * 12.37,
                "active": number % 3 == 0,
                "createdAt": bson::DateTime::from_millis(1_700_000_000_000 + i64::from(number)),
                "updatedAt": bson::DateTime::from_millis(1_710_000_000_000 + i64::from(number)),
                "status": status,
                "organisation": bson::oid::ObjectId::from_bytes([number as u8; 12]),
                "notes": "x".repeat(133),
                "city": "Kirkcaldy",
            };
            Event {
                collection: CollectionId(0),
                key: Key::of(Value::ObjectId(&id)).expect("a key"),
                op: Op::Upsert,
                document: document.to_vec().expect("a document").into(),
                position: Position::default(),
                time: 0,
            }
        })
        .collect();
    println!("{} bytes a document", events[500].document.len());
    for copy in [false, true] {
        let mut mapper = Mapper::new(Arc::clone(&plan));
        let mut out = WriteSet::new(&plan.tables, copy);
        let mut best = f64::MAX;
        for _ in 0..200 {
            out.tables[0].rows.clear();
            let start = Instant::now();
            for event in &events {
                mapper.map(black_box(event), &mut out).expect("mapped");
            }
            best = best.min(start.elapsed().as_nanos() as f64 / events.len() as f64);
            black_box(out.byte_len());
        }
        let form = if copy { "copy" } else { "record" };
        println!("{form}: {best:.0} ns a document, {:.2} million a second", 1000.0 / best);
    }
}

//! Rows of several documents, and look-ups: what a file may say.

use super::*;

fn tables() -> Vec<Table> {
    vec![
        table(
            "people",
            &[
                "id uuid key",
                "name text",
                "age integer",
                "tags text[]",
                "vip boolean",
                "born date not null default",
            ],
        ),
        table("firms", &["id uuid key", "name text not null"]),
        table("links", &["a uuid key", "b uuid key"]),
        refers(
            table("orders", &["id uuid key", "person_id uuid", "n integer", "type text"]),
            "person_id",
            "people",
        ),
    ]
}

/// A rule for `people`, with this at its end.
fn people(more: &str) -> String {
    format!("  m.a: {{ into: people, merge: any, columns: {{ id: {{ identity: mail }}, {more} }} }}\n")
}

#[test]
fn mistakes_are_told() {
    const ORDERS: &str = "  m.o: { into: orders, columns: { id: { uuid: _id }, ";
    let files = [
        people("name: { text: name, merge: sum }"),
        people("age: { integer: age, merge: union }"),
        people("age: { integer: age, merge: longest }"),
        people("vip: { boolean: vip, merge: count }"),
        people("tags: { array: tags[], merge: any }"),
        people("name: { text: name, merge: biggest }"),
        "  m.a: { into: people, columns: { id: { uuid: _id }, name: { text: name, merge: last } } }\n".into(),
        "  m.a: { into: people, order: { timestamp: at }, columns: { id: { uuid: _id } } }\n".into(),
        "  m.a: { into: people, merge: any, order: at, columns: { id: { identity: mail } } }\n".into(),
        "  m.a: { into: people, merge: all, columns: { id: { identity: mail } } }\n".into(),
        "  m.a: { into: people, merge: any, columns: { id: { identity: mail, merge: max } } }\n".into(),
        "  m.a: { into: people, merge: any, columns: { name: name } }\n".into(),
        "  m.a: { into: firms, merge: any, columns: { id: { identity: mail } } }\n".into(),
        people("name: name") + "  m.b: { into: people, columns: { id: { uuid: _id } } }\n",
        people("name: name") + "  m.b: { into: people, merge: any, columns: { id: { identity: mail }, name: { text: n, merge: longest } } }\n",
        people("name: name")
            + "  m.b: { into: people, merge: all, columns: { id: { identity: mail } } }\n",
        "  m.a: { into: links, merge: any, columns: { a: { uuid: _id }, b: { identity: b, of: links } } }\n".to_owned()
            + "  m.b: { into: links, merge: any, order: { date: d }, columns: { a: { uuid: _id }, b: { identity: b, of: peeple } } }\n",
        "  m.a: { into: firms, columns: { id: { uuid: _id }, name: name } }\n".to_owned()
            + "  m.b: { into: people, merge: any, columns: { id: { identity: mail, of: firms } } }\n",
        people("name: name") + ORDERS + "n: { integer: n }, person_id: { ref: p, to: m.a, by: mail } } }\n",
        people("name: name") + ORDERS + "n: { ref: p, to: m.a } } }\n",
        ORDERS.to_owned() + "type: { lookup: t, of: m.typs, take: name } } }\n  m.types: []\n",
        ORDERS.to_owned() + "type: { lookup: t, take: name } } }\n",
        ORDERS.to_owned() + "type: { lookup: t[], of: m.o, take: name } } }\n",
        ORDERS.to_owned() + "type: { lookup: t, of: m.o, take: ^.name, null: reject } } }\n",
        ORDERS.to_owned() + "type: { lookup: t, of: m.o, take: name, trim: true } } }\n",
        ORDERS.to_owned() + "n: { ref: t, to: m.o, by: name } } }\n",
        ORDERS.to_owned() + "type: { sql: upper(t), with: { t: { lookup: t, of: m.o, take: name } } } } }\n",
        "  m.o: { into: orders, columns: { id: { lookup: t, of: m.o, take: name } } }\n".to_owned(),
        "  m.o:\n    - { into: orders, when: { a: 1 }, columns: { id: { uuid: _id }, type: { lookup: t, of: m.o, take: name } } }\n".to_owned()
            + "    - { into: orders, when: { a: 2 }, columns: { id: { uuid: _id }, type: { const: x } } }\n",
        "  m.o: []\n".to_owned(),
    ];
    let said: Vec<String> = files
        .iter()
        .map(|file| {
            let found = try_plan(file, tables());
            format!("{}\n{}", file.trim_end(), found.expect_err(file))
        })
        .collect();
    insta::assert_snapshot!("merged_mistakes", said.join("\n"));
}

/// Which specification is for which table, and the ids of a document in them.
#[test]
fn a_document_gives_parts_and_what_is_looked_up() {
    let file = "
  m.types: []
  m.a:
    - { into: people, merge: any, order: { integer: at }, columns: { id: { identity: mail, lower: true }, name: name } }
    - { into: links, each: bs[], merge: any, columns: { a: { parent: id }, b: { identity: ., of: people } } }
  m.o: { into: orders, columns: { id: { uuid: _id }, n: { integer: n }, person_id: { ref: p, to: m.a }, type: { lookup: t, of: m.types, take: name } } }
";
    let plan = plan(file, tables());
    let ours: Vec<&TableSpec> = plan.tables.iter().filter(|spec| spec.is_part()).collect();
    assert_eq!((ours.len(), plan.tables.len()), (4, 7));
    assert!(ours.iter().all(|spec| spec.table.schema == "slackwater" && spec.table.name.len() < 50));
    let whole = |name: &str| {
        let found = plan.tables.iter().find(|spec| spec.table.name == name).expect("a table");
        found.whole().expect("made of parts").clone()
    };
    let orders = whole("orders");
    assert_eq!(orders.lookups.len(), 2);
    // A row of orders can be there without either.
    assert!(orders.required.is_empty());
    let parts = whole("people").parts;
    assert_eq!(orders.lookups.iter().filter(|lookup| parts.contains(&lookup.known)).count(), 1);
    let document = doc! {"_id": 1, "mail": "Ann", "at": 1, "bs": ["x", "x", "y"]};
    let mut out = WriteSet::new(&plan.tables, false);
    Mapper::new(Arc::clone(&plan)).map(&event(1, Op::Upsert, &document), &mut out).expect("mapped");
    let counts = |out: &WriteSet, name: &str| {
        let parts = whole(name).parts;
        let write = &out.tables[parts[0]];
        (write.rows.len(), write.deletes[0].len(), write.owners.len())
    };
    // Each element is a part of its own: the row counts both.
    assert_eq!((counts(&out, "people"), counts(&out, "links")), ((1, 0, 0), (3, 0, 1)));
    let mut out = WriteSet::new(&plan.tables, false);
    Mapper::new(Arc::clone(&plan)).map(&event(1, Op::Delete, &document), &mut out).expect("mapped");
    assert_eq!((counts(&out, "people"), counts(&out, "links")), ((0, 1, 0), (0, 0, 1)));
    // The id is of the text alone.
    let id = |mail: &str| {
        let document = doc! {"_id": mail, "mail": mail};
        let mut out = WriteSet::new(&plan.tables, false);
        Mapper::new(Arc::clone(&plan)).map(&event(1, Op::Upsert, &document), &mut out).expect("mapped");
        let place = whole("people").parts[0];
        rows(&out.tables[place], &plan.tables[place], false)[0][0].clone()
    };
    assert_eq!(id("ANN"), id("ann"));
    assert_ne!(id("ann"), id("bob"));
    let text = Key::of(Value::String(b"ann")).expect("a key");
    let expected = Namespace::of_migration("test").id("identity public.people", &text);
    assert_eq!(id("ann"), Some(expected.as_bytes().to_vec()));
}

/// A document that fits no table is refused, whether others look something up in it or not.
#[test]
fn what_is_looked_up_is_no_table() {
    let file = "
  m.a:
    - { into: people, when: { kind: person }, columns: { id: { uuid: _id }, name: name } }
    - otherwise: reject
  m.o: { into: orders, columns: { id: { uuid: _id }, type: { lookup: t, of: m.a, take: name } } }
";
    let plan = plan(file, tables());
    let mut out = WriteSet::new(&plan.tables, false);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    mapper.map(&event(0, Op::Upsert, &doc! {"_id": 1, "kind": "ghost"}), &mut out).expect_err("refused");
    assert!(out.is_empty());
    mapper.map(&event(0, Op::Upsert, &doc! {"_id": 1, "kind": "person"}), &mut out).expect("mapped");
    assert_eq!(out.tables.iter().map(|write| write.rows.len()).sum::<usize>(), 2);
}

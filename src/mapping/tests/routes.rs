//! Conditions, alternatives, and elements that are fields of an object.

use super::*;

fn parties(otherwise: &str) -> Arc<Plan> {
    let tables = vec![
        table("people", &["id uuid key", "name text"]),
        table("companies", &["id uuid key", "name text"]),
        refers(table("phones", &["person_id uuid key", "number text key"]), "person_id", "people"),
        refers(
            table("branches", &["company_id uuid key", "town text key", "open boolean"]),
            "company_id",
            "companies",
        ),
    ];
    let file = format!(
        "
  m.parties:
    - {{ into: people, when: {{ kind: person, deletedAt: {{ exists: false }} }}, columns: {{ id: {{ uuid: _id }}, name: name }} }}
    - {{ into: companies, when: {{ kind: {{ in: [company, partner] }} }}, columns: {{ id: {{ uuid: _id }}, name: name }} }}
    - {{ into: phones, each: phones[], columns: {{ person_id: {{ parent: id }}, number: {{ text: . }} }} }}
    - into: branches
      each: branches{{}}
      when: {{ closed: {{ not: true }}, ^.hidden: {{ exists: false }} }}
      columns: {{ company_id: {{ parent: companies.id }}, town: {{ key: each }}, open: {{ boolean: open }} }}
{otherwise}"
    );
    plan(&file, tables)
}

fn counts(plan: &Arc<Plan>, document: &bson::Document) -> Vec<(usize, usize, usize)> {
    let mut out = WriteSet::new(&plan.tables, false);
    Mapper::new(Arc::clone(plan)).map(&event(0, Op::Upsert, document), &mut out).expect("mapped");
    out.tables.iter().map(|write| (write.rows.len(), write.deletes[0].len(), write.owners.len())).collect()
}

/// In the order people, companies, phones, branches.
fn by_table(plan: &Arc<Plan>, document: &bson::Document) -> Vec<(usize, usize, usize)> {
    let counts = counts(plan, document);
    let place = |name: &str| plan.tables.iter().position(|spec| spec.table.name == name).expect("a table");
    ["people", "companies", "phones", "branches"].map(|name| counts[place(name)]).to_vec()
}

#[test]
fn a_document_is_where_it_fits_and_nowhere_else() {
    let plan = parties("");
    let person =
        doc! {"_id": 1, "kind": "person", "phones": ["1", "2"], "branches": {"Rome": {"open": true}}};
    assert_eq!(by_table(&plan, &person), [(1, 0, 0), (0, 1, 0), (2, 0, 1), (0, 0, 1)]);
    let mut deleted = person.clone();
    deleted.insert("deletedAt", bson::DateTime::from_millis(0));
    assert_eq!(by_table(&plan, &deleted), [(0, 1, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1)]);
    let company = doc! {
        "_id": 1, "kind": "partner", "phones": ["1"],
        "branches": {"Rome": {"open": true}, "Oslo": {"closed": true}, "Bonn": {"closed": false}},
    };
    assert_eq!(by_table(&plan, &company), [(0, 1, 0), (1, 0, 0), (0, 0, 1), (2, 0, 1)]);
    let mut hidden = company.clone();
    hidden.insert("hidden", true);
    assert_eq!(by_table(&plan, &hidden)[3], (0, 0, 1));
    // In a first copy nothing can be there.
    let mut out = WriteSet::new(&plan.tables, true);
    Mapper::new(Arc::clone(&plan)).map(&event(0, Op::Snapshot, &company), &mut out).expect("mapped");
    assert!(out.tables.iter().all(|write| write.owners.is_empty() && write.deletes[0].is_empty()));
}

#[test]
fn the_name_of_a_field_is_a_value() {
    let plan = parties("");
    let company = doc! {"_id": 1, "kind": "company", "branches": {"Rome": {"open": true}, "Bonn": {}}};
    let mut out = WriteSet::new(&plan.tables, false);
    Mapper::new(Arc::clone(&plan)).map(&event(0, Op::Upsert, &company), &mut out).expect("mapped");
    let at = plan.tables.iter().position(|spec| spec.table.name == "branches").expect("a table");
    let towns: Vec<_> = rows(&out.tables[at], &plan.tables[at], false);
    let towns: Vec<_> = towns.into_iter().map(|row| (row[1].clone(), row[2].clone())).collect();
    assert_eq!(towns, [(Some(b"Rome".to_vec()), Some(vec![1])), (Some(b"Bonn".to_vec()), None)]);
    let array = doc! {"_id": 1, "kind": "company", "branches": []};
    let refused = Mapper::new(Arc::clone(&plan)).map(&event(0, Op::Upsert, &array), &mut out);
    let refused = refused.expect_err("refused");
    assert_eq!(
        (refused.path.as_str(), &*refused.text),
        ("branches{}", "a value of type array is not an object")
    );
    assert!(refused.to_string().starts_with("public.branches: "), "no column is at fault: {refused}");
}

#[test]
fn what_fits_nowhere_is_refused_where_the_file_says_so() {
    let stranger = doc! {"_id": 1, "kind": "ghost"};
    assert_eq!(by_table(&parties(""), &stranger)[..2], [(0, 1, 0), (0, 1, 0)]);
    let plan = parties("    - otherwise: reject\n");
    let mut out = WriteSet::new(&plan.tables, false);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    let refused = mapper.map(&event(0, Op::Upsert, &stranger), &mut out).expect_err("refused");
    assert_eq!(refused.kind, Reason::Route);
    assert!(out.is_empty());
    // A delete does not ask where the document was.
    mapper.map(&event(0, Op::Delete, &stranger), &mut out).expect("mapped");
    assert!(out.tables[..2].iter().all(|write| write.deletes[0].len() == 1));
}

#[test]
fn of_several_rules_for_one_table_the_first_that_fits_is_written() {
    let file = "
  m.a:
    - { into: a, when: { v: { above: 10 } }, columns: { id: { uuid: _id }, size: { const: large }, v: v } }
    - { into: a, when: { v: { above: 5 } }, columns: { id: { uuid: _id }, size: { const: middle }, v: { const: null } } }
";
    let tables = || vec![table("a", &["id uuid key", "size text", "v integer"])];
    let plan = plan(file, tables());
    let written = |v: i32| {
        let counts = counts(&plan, &doc! {"_id": 1, "v": v});
        counts.iter().map(|(rows, deletes, _)| (*rows, *deletes)).collect::<Vec<_>>()
    };
    // A row that another rule writes is not taken away first.
    assert_eq!(written(20), [(1, 0), (0, 0)]);
    assert_eq!(written(7), [(0, 0), (1, 0)]);
    assert_eq!(written(1), [(0, 1), (0, 0)]);
    let lacking = file.replace(", v: { const: null }", "");
    let found = try_plan(&lacking, tables()).expect_err("they differ").to_string();
    assert!(found.contains("fills `v` as well"), "{found}");
    let without = file.replace(" when: { v: { above: 5 } },", "");
    let found = try_plan(&without, tables()).expect_err("one has no condition").to_string();
    assert!(found.contains("is filled twice"), "{found}");
}

#[test]
fn conditions_see_values_as_they_are() {
    let id = bson::oid::ObjectId::from_bytes([0xab; 12]);
    let document = doc! {
        "_id": 1, "text": "INV-7", "n": 5, "long": 5_i64, "half": 2.5, "price": Bson::Decimal128("19.90".parse().expect("a decimal")),
        "yes": true, "at": bson::DateTime::from_millis(1_700_000_000_000), "id": id, "null": Bson::Null, "empty": "",
        "tags": ["a", "b"], "lines": [{"sku": "x", "n": 1}, {"sku": "y"}], "nested": {"a": {"b": 1}},
    };
    for (condition, expected) in [
        ("{ text: INV-7 }", true),
        ("{ text: inv-7 }", false),
        ("{ text: { matches: '^INV-[0-9]+$' } }", true),
        ("{ n: { matches: '5' } }", false),
        ("{ n: 5 }", true),
        ("{ n: 5.0 }", true),
        ("{ n: \"5\" }", false),
        ("{ long: 5, half: 2.5 }", true),
        ("{ price: 19.9 }", true),
        ("{ price: { at_least: 19.90, below: 20 } }", true),
        ("{ price: { above: 19.9 } }", false),
        ("{ n: { at_most: 4 } }", false),
        ("{ text: { above: 1 } }", true),
        ("{ yes: true }", true),
        ("{ yes: \"true\" }", false),
        ("{ at: { above: 2023-01-01, below: '2024-01-01T00:00:00Z' } }", true),
        ("{ at: { above: soon } }", false),
        ("{ id: abababababababababababab }", true),
        ("{ null: null, missing: null }", true),
        ("{ null: { exists: false } }", true),
        ("{ missing: { exists: true } }", false),
        ("{ missing: { in: [a, null] } }", true),
        ("{ missing: { not: a } }", true),
        ("{ empty: \"\" }", true),
        ("{ empty: null }", false),
        ("{ empty: { exists: true } }", true),
        ("{ 'tags[]': b }", true),
        ("{ tags[]: c }", false),
        ("{ tags[]: { not: c } }", true),
        ("{ not: { tags[]: b } }", false),
        ("{ tags: b }", false),
        ("{ lines[].sku: y }", true),
        ("{ lines[].n: { exists: false } }", false),
        ("{ lines[].z: { exists: false } }", true),
        ("{ lines.-1.sku: y, lines.0.sku: x }", true),
        ("{ nested.a.b: 1 }", true),
        ("{ any: [ { n: 6 }, { all: [ { n: 5 }, { yes: true } ] } ] }", true),
        ("{ any: [ { n: 6 }, { yes: false } ] }", false),
        ("{ not: { n: 6, yes: true } }", true),
    ] {
        let file = format!("  m.a: {{ into: a, when: {condition}, columns: {{ id: {{ uuid: _id }} }} }}\n");
        let plan = plan(&file, vec![table("a", &["id uuid key"])]);
        assert_eq!(
            counts(&plan, &document),
            [(usize::from(expected), usize::from(!expected), 0)],
            "{condition}"
        );
    }
}

#[test]
fn what_a_condition_looks_at_is_still_left_over() {
    let file = "  m.a: { into: a, when: { kind: x, deep.y: 1 }, columns: { id: { uuid: _id }, rest: { rest: jsonb } } }\n";
    let plan = plan(file, vec![table("a", &["id uuid key", "rest jsonb"])]);
    let row = map_one(&plan, &doc! {"_id": 1, "kind": "x", "deep": {"y": 1}}).expect("mapped");
    assert_eq!(row[1].as_deref(), Some(&b"\x01{\"kind\":\"x\",\"deep\":{\"y\":1}}"[..]));
}

#[test]
fn arrays_of_ids_and_of_labels() {
    let file = "
  m.a:
    into: a
    columns:
      id: { uuid: _id }
      friends: { ref: friends[], to: m.a }
      moods: { enum: moods[].m, map: { g: good, b: bad } }
";
    let plan = plan(file, vec![table("a", &["id uuid key", "friends uuid[]", "moods mood[]"])]);
    let row =
        map_one(&plan, &doc! {"_id": 1, "friends": [2, Bson::Null], "moods": [{"m": "b"}]}).expect("mapped");
    let friend = plan.namespace.id("m.a", &Key::of(Value::Int32(2)).expect("a key"));
    let field = row[1].clone().expect("an array");
    assert_eq!(field[8..12], 2950_u32.to_be_bytes());
    assert_eq!(field[20..40], [&16_u32.to_be_bytes()[..], friend.as_bytes()].concat());
    assert_eq!(field[40..], (-1_i32).to_be_bytes());
    assert!(row[2].clone().expect("an array").ends_with(b"\0\0\0\x03bad"));
    assert_eq!(map_one(&plan, &doc! {"_id": 1}).expect("mapped")[1], None);
}

#[test]
fn mistakes_in_conditions() {
    let tables =
        || vec![table("a", &["id uuid key", "n integer"]), table("e", &["a_id uuid key", "x text key"])];
    for (rule, expected) in [
        ("when: {}", "the condition says nothing"),
        ("when: x", "must be a mapping"),
        ("when: { a: { is_not: 1 } }", "there is no test `is_not`"),
        ("when: { a: { matchs: x } }", "did you mean `matches`?"),
        ("when: { a: { matches: '(' } }", "this pattern cannot be read"),
        ("when: { a: { in: [] } }", "`in` names no value"),
        ("when: { ^.a: 1 }", "has a meaning only in a table with `each`"),
        ("when: { a..b: 1 }", "is not a path"),
        ("when: { any: [] }", "the list of conditions is empty"),
    ] {
        let file = format!("  m.a: {{ into: a, {rule}, columns: {{ id: {{ uuid: _id }} }} }}\n");
        let found = try_plan(&file, tables()).expect_err(rule).to_string();
        assert!(found.contains(expected), "{rule}: {found}");
    }
    let file = "
  m.a:
    - { into: a, columns: { id: { uuid: _id } } }
    - { into: e, each: l[], columns: { a_id: { parent: b.id }, x: { key: each } } }
    - otherwise: reject
";
    let found = try_plan(file, tables()).expect_err("three mistakes").to_string();
    assert!(found.contains("every document of `m.a` fits some table"), "{found}");
    let found = try_plan(&file.replace("    - otherwise: reject\n", ""), tables()).expect_err("two mistakes");
    for expected in
        ["no document of the collection becomes a row of `b`", "elements of an array have no names"]
    {
        assert!(found.to_string().contains(expected), "{found}");
    }
}

//! Elements inside elements: rows, ids, owners, mistakes; and any documents at all against a plain recomputation.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const FILE: &str = "
  m.customers:
    - { into: customers, columns: { id: { uuid: _id }, name: name } }
    - into: notes
      each: orders[].lines[].notes[]
      columns: { line_id: { parent: id }, place: { index: 1 }, text: ., sku: ^.sku, order_no: ^^.no, name: ^^^.name }
    - into: lines
      each: orders[].lines[]
      when: { n: { not: 0 }, ^.closed: { not: true } }
      columns: { id: { uuid: each, by: sku }, order_id: { parent: id }, sku: sku, n: { integer: n }, order_no: { parent: orders.no } }
    - into: orders
      each: orders[]
      when: { void: { not: true } }
      columns: { id: { uuid: each, by: no }, customer_id: { parent: id }, no: no }
    - into: prices
      each: towns{}.prices{}[]
      columns: { customer_id: { parent: id }, town: { key: ^^ }, code: { key: ^ }, place: { index: 0 }, cents: { integer: . } }
    - into: members
      each: teams[].members[]
      columns: { customer_id: { parent: customers.id }, team: ^.name, user_id: { ref: ., to: m.customers } }
";

fn nested_tables() -> Vec<Table> {
    vec![
        table("customers", &["id uuid key", "name text"]),
        refers(
            table(
                "notes",
                &[
                    "line_id uuid key",
                    "place integer key",
                    "text text",
                    "sku text",
                    "order_no text",
                    "name text",
                ],
            ),
            "line_id",
            "lines",
        ),
        refers(
            table("lines", &["id uuid key", "order_id uuid", "sku text", "n integer", "order_no text"]),
            "order_id",
            "orders",
        ),
        refers(table("orders", &["id uuid key", "customer_id uuid", "no text"]), "customer_id", "customers"),
        table(
            "prices",
            &["customer_id uuid key", "town text key", "code text key", "place integer key", "cents integer"],
        ),
        table("members", &["customer_id uuid key", "team text key", "user_id uuid key"]),
    ]
}

/// The index of a table of the application, or of the table of ours that says which rows of it a document has.
fn place(plan: &Plan, name: &str) -> usize {
    plan.tables.iter().position(|spec| spec.table.name == name).expect("a table")
}

/// The same with names, of one write set.
fn named(plan: &Plan, out: &WriteSet, name: &str) -> Vec<Vec<Option<Vec<u8>>>> {
    let at = place(plan, name);
    rows(&out.tables[at], &plan.tables[at], out.copy)
}

fn upserted(plan: &Arc<Plan>, document: &bson::Document, copy: bool) -> Result<WriteSet, Rejection> {
    let mut out = WriteSet::new(&plan.tables, copy);
    Mapper::new(Arc::clone(plan)).map(&event(0, Op::Upsert, document), &mut out)?;
    Ok(out)
}

fn string_key(text: &str) -> Key {
    Key::of(Value::String(text.as_bytes())).expect("a key")
}

/// As `docs/migration-file.md` says that ids of elements inside elements are made.
fn id_of(plan: &Plan, document: &Key, path: &str, keys: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let key = string_key(key);
        if at + 1 < keys.len() {
            bytes.extend_from_slice(&u32::try_from(key.as_bytes().len()).expect("short").to_be_bytes());
        }
        bytes.extend_from_slice(key.as_bytes());
    }
    plan.namespace.element_id("m.customers", document, path, &Key::from_bytes(&bytes)).as_bytes().to_vec()
}

fn text(value: &str) -> Option<Vec<u8>> {
    Some(value.as_bytes().to_vec())
}

#[test]
fn elements_inside_elements_become_rows() {
    let plan = plan(FILE, nested_tables());
    let document = doc! {
        "_id": 7, "name": "Ann",
        "orders": [
            {"no": "a", "lines": [{"sku": "x", "n": 1, "notes": ["n1", "n2"]}, {"sku": "y", "n": 0, "notes": ["lost"]}]},
            {"no": "b", "lines": [{"sku": "x", "n": 2}]},
            {"no": "c", "void": true, "lines": [{"sku": "x", "n": 3, "notes": ["lost"]}]},
            {"no": "d", "closed": true, "lines": [{"sku": "x", "n": 4, "notes": ["lost"]}]},
        ],
        "towns": {"Rome": {"prices": {"p": [5, 6]}}, "Oslo": {"prices": {}}, "Bonn": 3},
        "teams": [{"name": "t", "members": [1, 2, 1]}, {"name": "u", "members": [1]}],
    };
    let key = Key::of(Value::Int32(7)).expect("a key");
    let customer = plan.namespace.id("m.customers", &key).as_bytes().to_vec();
    let id = |path: &str, keys: &[&str]| Some(id_of(&plan, &key, path, keys));
    let int = |n: i32| Some(n.to_be_bytes().to_vec());
    for copy in [false, true] {
        let out = upserted(&plan, &document, copy).expect("mapped");
        let orders: Vec<_> =
            ["a", "b", "d"].map(|no| vec![id("orders", &[no]), Some(customer.clone()), text(no)]).into();
        assert_eq!(named(&plan, &out, "orders"), orders);
        // Two orders hold a line with the same number: two rows.
        let line = |no: &str, n: i32| {
            vec![id("orders[].lines", &[no, "x"]), id("orders", &[no]), text("x"), int(n), text(no)]
        };
        assert_eq!(named(&plan, &out, "lines"), [line("a", 1), line("b", 2)]);
        let note = |at: i32, note: &str| {
            vec![id("orders[].lines", &["a", "x"]), int(at), text(note), text("x"), text("a"), text("Ann")]
        };
        assert_eq!(named(&plan, &out, "notes"), [note(1, "n1"), note(2, "n2")]);
        let price =
            |at: i32, cents: i32| vec![Some(customer.clone()), text("Rome"), text("p"), int(at), int(cents)];
        assert_eq!(named(&plan, &out, "prices"), [price(0, 5), price(1, 6)]);
        assert_eq!(named(&plan, &out, "members").len(), 3);
        // Which elements the document has: those that others belong to.
        let holders: Vec<usize> = (0..plan.tables.len()).filter(|at| plan.tables[*at].is_ours()).collect();
        let held = |at: &usize| rows(&out.tables[*at], &plan.tables[*at], copy);
        let held: Vec<_> = holders.iter().flat_map(held).collect();
        assert_eq!(held.len(), 2);
        for row in held {
            let own = plan.namespace.id("m.customers", &key).as_bytes().to_vec();
            assert_eq!(row[1], Some(own));
            let ids = row[0].clone().expect("an array");
            let wanted: Vec<Vec<u8>> = match ids.len() {
                80 => ["a", "b", "d"].iter().filter_map(|no| id("orders", &[no])).collect(),
                _ => ["a", "b"].iter().filter_map(|no| id("orders[].lines", &[no, "x"])).collect(),
            };
            let framed = wanted.iter().flat_map(|id| [&16_u32.to_be_bytes()[..], id].concat());
            assert_eq!(ids[20..], framed.collect::<Vec<u8>>());
            assert_eq!(ids[..20], [1, 0, 2950, wanted.len() as u32, 1].map(u32::to_be_bytes).concat());
        }
        let own = if copy { Vec::new() } else { vec![customer.clone()] };
        for name in ["orders", "lines", "notes", "prices", "members"] {
            assert_eq!(values(&out.tables[place(&plan, name)].owners), own, "{name}");
        }
    }
}

#[test]
fn tables_of_ours_come_before_the_rows_that_are_found_by_them() {
    let plan = plan(FILE, nested_tables());
    let of = |name: &str| {
        let spec = &plan.tables[place(&plan, name)];
        let holder = |holder: &str| {
            plan.tables.iter().position(|other| format!("\"slackwater\".\"{}\"", other.table.name) == holder)
        };
        spec.holder.as_deref().map(|name| holder(name).expect("a table"))
    };
    assert!(
        of("lines").expect("one") < place(&plan, "lines")
            && of("notes").expect("one") < place(&plan, "notes")
    );
    assert_ne!(of("lines"), of("notes"));
    assert_eq!((of("orders"), of("prices"), of("members")), (None, None, None));
    assert_eq!(plan.collections[0].tables.len(), 8);
    assert_eq!(plan.collections[0].own_tables(), [place(&plan, "customers")]);
}

#[test]
fn a_delete_finds_all_by_the_id() {
    let plan = plan(FILE, nested_tables());
    let mut out = WriteSet::new(&plan.tables, false);
    let event = event(0, Op::Delete, &doc! {"_id": 7});
    Mapper::new(Arc::clone(&plan)).map(&event, &mut out).expect("mapped");
    let own = plan.namespace.id("m.customers", &event.key).as_bytes().to_vec();
    for (write, spec) in out.tables.iter().zip(plan.tables.iter()) {
        let deletes = spec.is_ours() || spec.table.name == "customers";
        assert_eq!(write.deletes[0].len(), usize::from(deletes), "{}", spec.table.name);
        assert_eq!(
            values(&write.owners),
            if deletes { Vec::new() } else { vec![own.clone()] },
            "{}",
            spec.table.name
        );
        assert!(write.rows.is_empty());
    }
}

#[test]
fn of_two_elements_with_one_key_the_last_brings_what_it_holds() {
    let plan = plan(FILE, nested_tables());
    let document = doc! {"_id": 7, "orders": [
        {"no": "a", "lines": [{"sku": "x", "n": 1}, {"sku": "y", "n": 1, "notes": ["lost"]}]},
        {"no": "a", "lines": [{"sku": "x", "n": 2}, {"sku": "x", "n": 3, "notes": ["n"]}]},
    ]};
    let out = upserted(&plan, &document, false).expect("mapped");
    assert_eq!(named(&plan, &out, "orders").len(), 1);
    let lines = named(&plan, &out, "lines");
    assert_eq!((lines.len(), lines[0][3].clone()), (1, Some(3_i32.to_be_bytes().to_vec())));
    assert_eq!(named(&plan, &out, "notes").len(), 1);
}

#[test]
fn what_is_no_array_is_refused_where_it_is_looked_into() {
    let plan = plan(FILE, nested_tables());
    for (document, path) in [
        (doc! {"_id": 1, "orders": 5}, "orders[]"),
        (doc! {"_id": 1, "orders": {"a": 1}}, "orders[]"),
        (doc! {"_id": 1, "orders": [{"no": "a", "lines": "x"}]}, "orders[].lines[]"),
        (doc! {"_id": 1, "towns": []}, "towns{}.prices{}[]"),
        (doc! {"_id": 1, "towns": {"a": {"prices": {"p": 5}}}}, "towns{}.prices{}[]"),
    ] {
        let path =
            if path.starts_with("towns") && document.get_array("towns").is_ok() { "towns{}" } else { path };
        let refused = upserted(&plan, &document, false).expect_err(path);
        assert_eq!(refused.path, path);
    }
    // Nobody looks into an order that has no row, nor into elements that are no objects.
    for fine in [
        doc! {"_id": 1, "orders": [{"no": "a", "void": true, "lines": "x"}, {"no": "b", "lines": [{"sku": "x", "n": 1}]}]},
        doc! {"_id": 1, "orders": Bson::Null, "towns": {"a": Bson::Null, "b": {"prices": Bson::Null}}},
        doc! {"_id": 1, "orders": [], "teams": [5, "x", Bson::Null]},
    ] {
        upserted(&plan, &fine, false).expect("mapped");
    }
    // Nothing is left of a document that is refused for an element far inside.
    let mut out = WriteSet::new(&plan.tables, false);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    let bad = doc! {"_id": 1, "orders": [{"no": "a", "lines": [{"sku": "x", "n": "many"}]}]};
    let refused = mapper.map(&event(0, Op::Upsert, &bad), &mut out).expect_err("refused");
    assert_eq!((refused.table.as_str(), refused.column.as_str()), ("public.lines", "n"));
    assert!(out.is_empty());
}

#[test]
fn what_tells_the_outer_elements_apart() {
    let tables = || {
        vec![
            table("a", &["id uuid key"]),
            table("o", &["id uuid key", "a_id uuid"]),
            table("l", &["id uuid key", "a_id uuid", "sku text"]),
        ]
    };
    let document = doc! {"_id": 7, "o": [{"no": "p", "l": [{"sku": "x"}]}, {"no": "q", "l": [{"sku": "y"}, {"sku": "x"}]}]};
    let key = Key::of(Value::Int32(7)).expect("a key");
    let ids = |outer: &str, by: &str| {
        let file = format!(
            "  m.customers:\n    - {{ into: a, columns: {{ id: {{ uuid: _id }} }} }}\n{outer}    - {{ into: l, each: 'o[].l[]', \
             columns: {{ id: {{ uuid: each, by: {by} }}, a_id: {{ parent: a.id }}, sku: sku }} }}\n"
        );
        let plan = plan(&file, tables());
        let out = upserted(&plan, &document, false).expect("mapped");
        let ids: Vec<_> = named(&plan, &out, "l").into_iter().filter_map(|row| row[0].clone()).collect();
        let by_no: Vec<_> = [["p", "x"], ["q", "y"], ["q", "x"]]
            .iter()
            .map(|keys| id_of(&plan, &key, "o[].l", keys))
            .collect();
        (ids, by_no)
    };
    let outer =
        "    - { into: o, each: 'o[]', columns: { id: { uuid: each, by: no }, a_id: { parent: id } } }\n";
    let (said, by_no) = ids(outer, "sku");
    assert_eq!(said, by_no);
    let (listed, by_no) = ids("", "[no, sku]");
    assert_eq!(listed, by_no);
    // Without a word by their places.
    let (placed, by_no) = ids("", "sku");
    assert_ne!(placed, by_no);
    assert_eq!(placed.len(), 3);
}

#[test]
fn mistakes_in_nested_rules() {
    for (from, to, expected) in [
        (
            "parent: orders.no",
            "parent: prices.town",
            "rows of `prices` are made of `towns{}.prices{}[]`, which does not enclose `orders[].lines[]`",
        ),
        ("parent: orders.no", "parent: order.no", "did you mean `orders.no`?"),
        ("parent: orders.no", "parent: orders.nr", "nothing fills a column `nr` of `orders`"),
        (
            "order_id: { parent: id }",
            "order_id: { parent: orders.no }",
            "`order_id` is uuid, `orders.no` is text",
        ),
        ("^^^.name", "^^^^.name", "`^^^^.name` goes further out than the document"),
        ("^.closed", "^^^.closed", "`^^^.closed` goes further out than the document"),
        ("town: { key: ^^ }", "town: { key: ^^^ }", "`key` is of an element"),
        ("place: { index: 0 }", "place: { key: each }", "elements of an array have no names"),
        ("by: sku", "by: [sku]", "`by` has 1 entries, and `each` goes through 2"),
        ("by: sku", "by: [no, ^.sku]", "`by` must be a value in the element"),
        ("each: orders[].lines[]\n", "each: orders[].lines\n", "`each` must be an array"),
        ("each: orders[].lines[]\n", "each: orders[]lines[]\n", "`each` must be an array"),
        (
            "id: { uuid: each, by: no }",
            "id: { ref: no, to: m.customers }",
            "the key does not tell rows of different documents apart",
        ),
        (
            "id: { uuid: each, by: sku }",
            "id: { ref: sku, to: m.customers }",
            "the key does not tell rows of different `orders` apart",
        ),
        (
            "line_id: { parent: id }, place",
            "line_id: { ref: ., to: m.customers }, place",
            "nothing tells to which document the rows of `notes` belong",
        ),
    ] {
        assert!(FILE.contains(from), "{from}");
        let file = FILE.replacen(from, to, 1);
        let found = try_plan(&file, nested_tables()).expect_err(to);
        assert!(found.to_string().contains(expected), "{to}: {found}");
        // At the line that is wrong; what is missing is told where the array is named, in the line before.
        let wrong = format!("{HEAD}{}", &FILE[..FILE.find(from).expect("the place")]).lines().count();
        let missing = usize::from(expected.starts_with("nothing tells"));
        let line = found.list().iter().find(|one| format!("{one:?}").contains(expected)).map(|one| one.line);
        let told = line.or_else(|| found.list().iter().map(|one| one.line).find(|line| *line == wrong));
        assert_eq!(told, Some(wrong - missing), "{to}: {found}");
    }
    // A column of a row around that does not say which row it is.
    let mut tables = nested_tables();
    tables[2] =
        table("lines", &["id uuid key", "order_id text key", "sku text", "n integer", "order_no text"]);
    let file = FILE.replacen("order_id: { parent: id }", "order_id: { parent: orders.no }", 1);
    let found = try_plan(&file, tables).expect_err("not told apart").to_string();
    assert!(found.contains("this column does not identify the row of `orders`"), "{found}");
}

#[test]
fn elements_that_are_not_told_apart_are_warned_of() {
    let file = FILE.replace("team: ^.name, ", "");
    let mut tables = nested_tables();
    tables[5] = table("members", &["customer_id uuid key", "user_id uuid key"]);
    let one = plan(&file, tables);
    let found = one.warnings.to_string();
    assert!(
        found.contains("elements of different `teams[]` that have the same key become one row"),
        "{found}"
    );
    let found = plan(FILE, nested_tables()).warnings.to_string();
    assert!(!found.contains("become one row"), "{found}");
}

/// Tables keep their numbers when one of them has changed, those of ours among them; and a file of which some table was not there at first.
#[test]
fn tables_that_change_keep_their_numbers() {
    let file = FILE.to_owned()
        + "  m.o: { into: others, columns: { id: { uuid: _id }, name: { lookup: c, of: m.customers, take: name } } }\n";
    let mut tables = nested_tables();
    tables.push(table("others", &["id uuid key", "name text"]));
    let file = config::parse("m.yaml", &format!("{HEAD}{file}"), &|_| None).expect("a file");
    let first = compile(&file, &catalog(tables.clone())).expect("a plan");
    let names =
        |plan: &Plan| -> Vec<String> { plan.tables.iter().map(|spec| spec.table.name.clone()).collect() };
    let mut changed = tables.clone();
    changed[2].columns.push(column("more text"));
    let (next, mistakes) = follow(&file, &catalog(changed), Some(&first));
    assert!(mistakes.is_empty(), "{mistakes:?}");
    assert_eq!(names(&next), names(&first));
    // A table is away, and comes back.
    let without: Vec<Table> = tables.iter().filter(|table| table.name != "notes").cloned().collect();
    for before in [Some(&first), None] {
        let (still, mistakes) = follow(&file, &catalog(without.clone()), before);
        assert_eq!(mistakes.len(), 1);
        assert!(still.collections[0].stands);
        let (again, mistakes) = follow(&file, &catalog(tables.clone()), Some(&still));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let again = Arc::new(again);
        let document =
            doc! {"_id": 7, "orders": [{"no": "a", "lines": [{"sku": "x", "n": 1, "notes": ["n"]}]}]};
        let out = upserted(&again, &document, false).expect("mapped");
        for (write, spec) in out.tables.iter().zip(again.tables.iter()) {
            let rows = match (spec.table.name.as_str(), &spec.merging) {
                ("customers" | "orders" | "lines" | "notes", _) => 1,
                (_, slackwater_connectors::postgres::target::rows::Merging::Holder) => 1,
                _ if spec.table.name == known_name(&first) => 1,
                _ => 0,
            };
            assert_eq!(write.rows.len(), rows, "{}", spec.table.name);
            let holder = |name: &str| again.tables.iter().position(|other| name.contains(&other.table.name));
            if let Some(holder) = spec.holder.as_deref().and_then(holder) {
                let own = again.tables.iter().position(|other| std::ptr::eq(other, spec));
                assert!(Some(holder) < own, "{}", spec.table.name);
            }
        }
    }
}

/// The table of ours with what is looked up.
fn known_name(plan: &Plan) -> String {
    let known =
        |spec: &&TableSpec| spec.merging == slackwater_connectors::postgres::target::rows::Merging::Known;
    plan.tables.iter().find(known).map(|spec| spec.table.name.clone()).expect("a table")
}

/// A value that is there, missing, null, or of another type.
fn odd(value: impl Strategy<Value = Bson> + 'static, odds: u32) -> impl Strategy<Value = Option<Bson>> {
    prop_oneof![
        20 => value.prop_map(Some),
        odds => Just(None),
        odds => Just(Some(Bson::Null)),
    ]
}

fn word() -> impl Strategy<Value = Bson> {
    (0..4_u8).prop_map(|n| Bson::String(char::from(b'a' + n).into()))
}

fn object(fields: Vec<(&'static str, Option<Bson>)>) -> Bson {
    Bson::Document(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn any_line() -> impl Strategy<Value = Bson> {
    let notes = odd(proptest::collection::vec(word(), 0..3).prop_map(Bson::Array), 2);
    (word(), 0..4_i32, notes).prop_map(|(sku, n, notes)| {
        object(vec![("sku", Some(sku)), ("n", Some(Bson::Int32(n))), ("notes", notes)])
    })
}

fn any_order() -> impl Strategy<Value = Bson> {
    let lines = odd(proptest::collection::vec(any_line(), 0..4).prop_map(Bson::Array), 2);
    (word(), lines, any::<bool>(), 0..4_u8).prop_map(|(no, lines, void, closed)| {
        let flag = |holds: bool| holds.then_some(Bson::Boolean(true));
        object(vec![("no", Some(no)), ("lines", lines), ("void", flag(void)), ("closed", flag(closed == 0))])
    })
}

fn any_towns() -> impl Strategy<Value = Bson> {
    let cents = proptest::collection::vec((0..9_i32).prop_map(Bson::Int32), 0..3).prop_map(Bson::Array);
    let prices = proptest::collection::btree_map("[pq]", odd(cents, 2), 0..3).prop_map(|prices| {
        Bson::Document(prices.into_iter().filter_map(|(code, cents)| Some((code, cents?))).collect())
    });
    let town = odd(prices, 2).prop_map(|prices| object(vec![("prices", prices)]));
    proptest::collection::btree_map("[RO]", town, 0..3)
        .prop_map(|towns| Bson::Document(towns.into_iter().collect()))
}

fn array<'d>(document: &'d bson::Document, name: &str) -> &'d [Bson] {
    document.get_array(name).map(Vec::as_slice).unwrap_or_default()
}

fn inner(value: &Bson) -> &bson::Document {
    value.as_document().expect("an object")
}

/// Rows as text by table, in the order of their keys: what the file says, in plain words.
fn recomputed(document: &bson::Document) -> BTreeMap<&'static str, Vec<String>> {
    let mut orders: BTreeMap<String, &bson::Document> = BTreeMap::new();
    for order in array(document, "orders").iter().map(inner) {
        if !order.contains_key("void") {
            orders.insert(order.get_str("no").expect("a number").into(), order);
        }
    }
    let (mut lines, mut notes) = (BTreeMap::new(), Vec::new());
    for (no, order) in &orders {
        let mut of_order: BTreeMap<String, &bson::Document> = BTreeMap::new();
        for line in array(order, "lines").iter().map(inner) {
            if line.get_i32("n").expect("a number") != 0 && !order.contains_key("closed") {
                of_order.insert(line.get_str("sku").expect("a number").into(), line);
            }
        }
        for (sku, line) in of_order {
            lines
                .insert(format!("{no}{sku}"), format!("{no} {sku} {}", line.get_i32("n").expect("a number")));
            for (at, note) in array(line, "notes").iter().enumerate() {
                notes.push(format!("{no} {sku} {} {}", at + 1, note.as_str().expect("text")));
            }
        }
    }
    let mut prices = Vec::new();
    for (town, value) in document.get_document("towns").into_iter().flatten() {
        for (code, cents) in inner(value).get_document("prices").into_iter().flatten() {
            for (at, cents) in cents.as_array().into_iter().flatten().enumerate() {
                prices.push(format!("{town} {code} {at} {}", cents.as_i32().expect("a number")));
            }
        }
    }
    let mut all = BTreeMap::from([
        ("orders", orders.into_keys().collect()),
        ("lines", lines.into_values().collect::<Vec<_>>()),
        ("notes", notes),
        ("prices", prices),
    ]);
    all.values_mut().for_each(|rows| rows.sort());
    all
}

/// What was mapped, in the same words; every `parent` is the id of a row that is there.
fn mapped(plan: &Plan, out: &WriteSet) -> BTreeMap<&'static str, Vec<String>> {
    let text = |field: &Option<Vec<u8>>| String::from_utf8(field.clone().expect("a value")).expect("text");
    let int = |field: &Option<Vec<u8>>| {
        i32::from_be_bytes(field.clone().expect("a value").try_into().expect("four bytes"))
    };
    let orders = named(plan, out, "orders");
    let lines = named(plan, out, "lines");
    let order_of = |id: &Option<Vec<u8>>| {
        text(&orders.iter().find(|order| order[0] == *id).expect("the order of a line")[2])
    };
    let line_of =
        |id: &Option<Vec<u8>>| lines.iter().find(|line| line[0] == *id).expect("the line of a note");
    let mut all = BTreeMap::from([
        ("orders", orders.iter().map(|row| text(&row[2])).collect::<Vec<_>>()),
        (
            "lines",
            lines
                .iter()
                .map(|row| format!("{} {} {}", order_of(&row[1]), text(&row[2]), int(&row[3])))
                .collect(),
        ),
        (
            "notes",
            named(plan, out, "notes")
                .iter()
                .map(|row| {
                    let line = line_of(&row[0]);
                    assert_eq!((&line[2], text(&row[4])), (&row[3], order_of(&line[1])));
                    format!("{} {} {} {}", order_of(&line[1]), text(&line[2]), int(&row[1]), text(&row[2]))
                })
                .collect(),
        ),
        (
            "prices",
            named(plan, out, "prices")
                .iter()
                .map(|row| format!("{} {} {} {}", text(&row[1]), text(&row[2]), int(&row[3]), int(&row[4])))
                .collect(),
        ),
    ]);
    all.values_mut().for_each(|rows| rows.sort());
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_nested_document_is_what_the_file_says(
        documents in proptest::collection::vec(
            (odd(proptest::collection::vec(any_order(), 0..5).prop_map(Bson::Array), 1), odd(any_towns(), 1)), 1..5),
        copy: bool,
    ) {
        static PLAN: std::sync::LazyLock<Arc<Plan>> = std::sync::LazyLock::new(|| plan(FILE, nested_tables()));
        let plan = Arc::clone(&PLAN);
        // One mapper: nothing of a document is left for the next.
        let mut mapper = Mapper::new(Arc::clone(&plan));
        for (orders, towns) in documents {
            let mut document = doc! {"_id": 1, "name": "Ann"};
            document.extend(inner(&object(vec![("orders", orders), ("towns", towns)])).clone());
            let mut out = WriteSet::new(&plan.tables, copy);
            mapper.map(&event(0, Op::Upsert, &document), &mut out).expect("mapped");
            prop_assert_eq!(mapped(&plan, &out), recomputed(&document), "{}", document);
        }
    }
}

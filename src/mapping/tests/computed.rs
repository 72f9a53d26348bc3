//! Columns that the target computes: what is sent for them, and what becomes of inputs that it fails on.

use super::*;

const FILE: &str = "
  m.people:
    - into: people
      columns:
        id: { uuid: _id }
        full: { sql: \"concat_ws(' ', first, last)\", with: { first: name.first, last: { text: name.last, trim: true } } }
        sorted: { sql: \"last || ', ' || given\", with: { given: name.first, last: { text: name.last, trim: true } }, invalid: null }
        ratio: { sql: a / b, with: { a: { integer: a }, b: { integer: b } }, default: 0, invalid: default }
";

fn people() -> Arc<Plan> {
    plan(FILE, vec![table("people", &["id uuid key", "full text not", "sorted text", "ratio integer not"])])
}

/// The fields of the only row, in the order in which they travel.
fn sent(out: &WriteSet) -> Vec<Option<Vec<u8>>> {
    let mut bytes = out.tables[0].rows.as_bytes();
    let mut number = || {
        let (head, rest) = bytes.split_first_chunk::<4>().expect("four bytes");
        bytes = rest;
        i32::from_be_bytes(*head)
    };
    let (_, count) = (number(), number());
    let mut fields = Vec::new();
    for _ in 0..count {
        let (head, rest) = bytes.split_first_chunk::<8>().expect("a field");
        bytes = rest;
        let length = i32::from_be_bytes(head[4..].try_into().expect("four bytes"));
        fields.push(usize::try_from(length).ok().map(|length| {
            let (value, rest) = bytes.split_at(length);
            bytes = rest;
            value.to_vec()
        }));
    }
    assert!(bytes.is_empty());
    fields
}

fn text(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

#[test]
fn inputs_travel_once_and_the_columns_say_whether_to_compute() {
    let plan = people();
    let document = doc! {"_id": 1, "name": {"first": "Ann", "last": " Lee "}, "a": 7, "b": 0};
    let mut out = WriteSet::new(&plan.tables, false);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    let event = event(0, Op::Upsert, &document);
    mapper.keep_texts();
    mapper.map(&event, &mut out).expect("mapped");
    let yes = Some(vec![1]);
    let number = |n: i64| Some(n.to_be_bytes().to_vec());
    let id = Some(plan.namespace.id("m.people", &event.key).as_bytes().to_vec());
    let behind = [text("Ann"), text("Lee"), number(7), number(0)];
    let expected = |flags: [bool; 3]| {
        let flags = flags.map(|flag| Some(vec![u8::from(flag)]));
        [id.clone()].into_iter().chain(flags).chain(behind.clone()).collect::<Vec<_>>()
    };
    assert_eq!(sent(&out), expected([true; 3]));
    assert_eq!(sent(&out)[1], yes);
    let (_, written) = mapper.take_texts();
    assert_eq!(written.len(), 3);
    // The target has said that these inputs cannot be computed.
    let refuse = |columns: &[usize]| -> Inputs {
        columns.iter().map(|column| ((0, *column), written[&(0, *column)].clone())).collect()
    };
    mapper.refuse(Texts::new(), refuse(&[2, 3]));
    out.clear();
    mapper.map(&event, &mut out).expect("mapped");
    assert_eq!(sent(&out), expected([true, false, false]));
    let tallied: Vec<_> = mapper.take_tallies().into_iter().map(|tally| (tally.column, tally.what)).collect();
    let expected = [("ratio", Adjustment::InvalidToDefault), ("sorted", Adjustment::InvalidToNull)]
        .map(|(a, b)| (a.to_owned(), b));
    assert_eq!(tallied, expected);
    mapper.refuse(Texts::new(), refuse(&[1]));
    out.clear();
    let refused = mapper.map(&event, &mut out).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "public.people.full: the target cannot compute it of these inputs (from `sql`)"
    );
    assert!(out.is_empty());
}

#[test]
fn an_input_that_cannot_be_read_is_told_with_its_column() {
    let plan = people();
    let mut out = WriteSet::new(&plan.tables, false);
    let document = doc! {"_id": 1, "a": "seven"};
    let refused = Mapper::new(plan).map(&event(0, Op::Upsert, &document), &mut out).expect_err("refused");
    assert_eq!((refused.column.as_str(), refused.path.as_str()), ("a", "a"));
}

#[test]
fn a_complaint_of_the_target_stands_at_the_expression() {
    let file = config::parse("m.yaml", &format!("{HEAD}{FILE}"), &|_| None).expect("a file");
    let mut catalog =
        catalog(vec![table("people", &["id uuid key", "full text", "sorted text", "ratio integer"])]);
    let all = expressions(&file);
    assert_eq!(all.len(), 3);
    assert_eq!(all[2].inputs, [("a".into(), "bigint".into()), ("b".into(), "bigint".into())]);
    let complaint = slackwater_connectors::postgres::target::catalog::Complaint {
        message: "no".into(),
        help: "do".into(),
    };
    let named = ["public", "people", "ratio", "a / b"].map(str::to_owned);
    catalog.complaints.insert(named, complaint);
    let found = compile(&file, &catalog).expect_err("a complaint");
    assert_eq!(found.list().len(), 1, "{found}");
    assert!(found.to_string().contains("`ratio`: no"), "{found}");
}

#[test]
fn mistakes_beside_an_expression() {
    let tables = || {
        vec![table("people", &["id uuid key", "full text"]), table("e", &["id uuid key", "p uuid", "x text"])]
    };
    for (rule, expected) in [
        ("{ sql: \"\" }", "`sql` is empty"),
        ("{ sql: x, with: { x: { const: 1 } } }", "`x` cannot be an input"),
        ("{ sql: x, with: { x: { ref: y, to: m.nobody } } }", "`m.nobody` is not among the collections"),
        ("{ sql: x, trim: true }", "`trim` does not go with `sql`"),
        ("{ sql: x, invalid: clamp }", "what cannot be computed cannot be adjusted"),
        ("{ sql: x, null: reject }", "a computed null refuses nobody"),
        ("{ text: x, with: {} }", "`with` does not go with `text`"),
    ] {
        let file =
            format!("  m.people: {{ into: people, columns: {{ id: {{ uuid: _id }}, full: {rule} }} }}\n");
        let found = try_plan(&file, tables()).expect_err(rule).to_string();
        assert!(found.contains(expected), "{rule}: {found}");
    }
    let file = "
  m.people:
    - { into: people, columns: { id: { uuid: _id } } }
    - { into: e, each: l[], columns: { id: { sql: x, with: { x: x } }, p: { parent: id } } }
";
    let found = try_plan(file, tables()).expect_err("a key that is computed").to_string();
    assert!(found.contains("is part of the key, and computed"), "{found}");
}

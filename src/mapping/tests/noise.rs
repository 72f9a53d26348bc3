//! Any document at all, whole, cut short or with a byte changed.

use super::*;
use proptest::prelude::*;

fn any_bson() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        Just(Bson::Null),
        Just(Bson::Undefined),
        Just(Bson::MinKey),
        any::<bool>().prop_map(Bson::Boolean),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<f64>().prop_map(Bson::Double),
        "\\PC{0,8}".prop_map(Bson::String),
        "[0-9eE.+:TZ-]{0,24}".prop_map(Bson::String),
        Just(Bson::String("a\0b".into())),
        any::<i64>().prop_map(|millis| Bson::DateTime(bson::DateTime::from_millis(millis))),
        any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(bson::oid::ObjectId::from_bytes(id))),
        any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(bson::Decimal128::from_bytes(bytes))),
        any::<(u32, u32)>()
            .prop_map(|(time, increment)| Bson::Timestamp(bson::Timestamp { time, increment })),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Bson::Array),
            proptest::collection::vec(("[a-d.$]{0,2}", inner), 0..5)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

fn any_plan(invalid: &str) -> Arc<Plan> {
    let file = format!(
            "
  m.a:
    - into: a
      columns:
        id: {{ uuid: _id }}
        t: {{ text: t, lower: true, trim: true, invalid: {invalid} }}
        v: {{ text: v, invalid: {invalid} }}
        c: {{ text: c, invalid: {invalid} }}
        s: {{ integer: s, invalid: {invalid} }}
        n: {{ numeric: n, invalid: {invalid} }}
        p: {{ numeric: p, invalid: {invalid} }}
        d: {{ float: d, invalid: {invalid} }}
        b: {{ boolean: b, invalid: {invalid} }}
        at: {{ timestamp: at, unit: s, invalid: {invalid} }}
        day: {{ date: day, unit: ms, invalid: {invalid} }}
        j: {{ jsonb: j, invalid: {invalid} }}
        k: {{ jsonb: k, invalid: {invalid} }}
        x: {{ bytea: x, invalid: {invalid} }}
        l: {{ array: l[].a, invalid: {invalid} }}
        m: {{ enum: m, invalid: {invalid} }}
        r: {{ rest: jsonb }}
    - into: e
      each: e[]
      columns: {{ id: {{ uuid: each, by: . }}, a_id: {{ parent: id }}, x: {{ jsonb: a.b, invalid: {invalid} }}, y: {{ text: ^.t, invalid: {invalid} }} }}
    - into: f
      each: e[].b{{}}
      columns: {{ e_id: {{ parent: id }}, k: {{ key: each }}, x: {{ jsonb: ., invalid: {invalid} }}, y: {{ text: ^^.t, invalid: {invalid} }} }}
"
        );
    let columns = [
        "id uuid key",
        "t text",
        "v varchar(5)",
        "c char(5)",
        "s smallint",
        "n numeric",
        "p numeric(5,2)",
        "d double",
        "b boolean",
        "at timestamptz",
        "day date",
        "j jsonb",
        "k json",
        "x bytea",
        "l numeric[]",
        "m mood",
        "r jsonb",
    ];
    let elements = table("e", &["id uuid key", "a_id uuid", "x jsonb", "y text"]);
    let inner = table("f", &["e_id uuid key", "k text key", "x jsonb", "y text"]);
    plan(&file, vec![table("a", &columns), elements, inner])
}

const NAMES: [&str; 18] =
    ["t", "v", "c", "s", "n", "p", "d", "b", "at", "day", "j", "k", "x", "l", "m", "e", "other", "_id"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a document holds, it is refused as a whole or becomes well framed rows.
    #[test]
    fn any_document(fields in proptest::collection::vec((0..NAMES.len(), any_bson()), 0..20), policy in 0..4_usize, cut in 0..400_usize, at in 0..400_usize, byte: u8) {
        let plan = any_plan(["reject", "null", "clamp", "strip"][policy]);
        let mut mapper = Mapper::new(Arc::clone(&plan));
        let document: bson::Document =
            fields.into_iter().map(|(name, value)| (NAMES[name].to_owned(), value)).collect();
        let raw = document.to_vec().expect("a document");
        let key = Key::of(Value::Int32(1)).expect("a key");
        let mut broken = raw.clone();
        broken.truncate(cut.max(1));
        let mut noisy = raw.clone();
        let place = at % noisy.len();
        noisy[place] = byte;
        for bytes in [raw, broken, noisy] {
            for op in [Op::Snapshot, Op::Delete] {
                for copy in [false, true] {
                    let mut out = WriteSet::new(&plan.tables, copy);
                    let event = raw_event(0, op, key.clone(), bytes.clone());
                    let done = mapper.map(&event, &mut out);
                    prop_assert!(done.is_ok() || out.is_empty());
                    let mut count = 0;
                    for (write, spec) in out.tables.iter().zip(plan.tables.iter()) {
                        count += rows(write, spec, copy).len();
                        values(&write.owners);
                    }
                    prop_assert_eq!(count > 0, done.is_ok() && op == Op::Snapshot);
                    // What was said of policies must not disturb the next document.
                    mapper.take_tallies();
                    let mut again = WriteSet::new(&plan.tables, copy);
                    prop_assert_eq!(mapper.map(&event, &mut again), done);
                    prop_assert_eq!(again.tables[0].rows.as_bytes(), out.tables[0].rows.as_bytes());
                }
            }
        }
    }

    #[test]
    fn namespaces_are_those_of_the_file(name in "[a-z]{1,8}") {
        let text = format!("{HEAD}  m.a: {{ into: a, columns: {{ id: {{ uuid: _id }} }} }}\n").replace("test", &name);
        let file = config::parse("m.yaml", &text, &|_| None).expect("a file");
        prop_assert_eq!(file.namespace, Namespace::of_migration(&name));
    }
}

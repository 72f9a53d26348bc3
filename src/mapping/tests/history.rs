//! Tables with a row for each version of a document.

use super::*;

const FILE: &str = "
  m.users:
    - { into: users, columns: { id: { uuid: _id }, name: name } }
    - into: log
      history: true
      columns: { user_id: { uuid: _id }, number: { change: number }, name: { text: name, null: reject }, kind: { change: kind }, at: { change: time } }
    - { into: tags, each: tags[], columns: { user_id: { parent: id }, tag: . } }
";

fn tables() -> Vec<Table> {
    let log = ["user_id uuid key", "number bigint key", "name text", "kind text not null", "at timestamptz"];
    let names = ["id uuid key", "user_id uuid not null", "name text"];
    vec![
        table("users", &["id uuid key", "name text"]),
        table("log", &log),
        table("tags", &["user_id uuid key", "tag text key"]),
        table("names", &names),
    ]
}

/// Rows and deletes of each table, in the order users, log, tags.
fn counts(plan: &Arc<Plan>, out: &WriteSet) -> Vec<(usize, usize)> {
    let place = |name: &str| plan.tables.iter().position(|spec| spec.table.name == name).expect("a table");
    let of = |name| &out.tables[place(name)];
    ["users", "log", "tags"].map(|name| (of(name).rows.len(), of(name).deletes[0].len())).to_vec()
}

#[test]
fn a_version_is_a_row_beside_the_others_or_alone() {
    let plan = plan(FILE, tables());
    let change = |kind| Some(Change { kind, number: 3, time: 1_000 });
    let document = doc! {"_id": 1, "name": "Ann", "tags": ["a", "b"]};
    let map = |op, what| {
        let mut out = WriteSet::new(&plan.tables, false);
        let mapped = Mapper::new(Arc::clone(&plan)).map_version(&event(0, op, &document), what, &mut out);
        mapped.expect("mapped");
        counts(&plan, &out)
    };
    let both = What { current: true, version: change(ChangeKind::Update) };
    assert_eq!(map(Op::Upsert, both), [(1, 0), (1, 0), (2, 0)]);
    assert_eq!(map(Op::Upsert, What { current: false, ..both }), [(0, 0), (1, 0), (0, 0)]);
    assert_eq!(map(Op::Upsert, What::CURRENT), [(1, 0), (0, 0), (2, 0)]);
    // `name` has no value then, whatever its policy says of others.
    let gone = What { current: true, version: change(ChangeKind::Delete) };
    assert_eq!(map(Op::Delete, gone), [(0, 1), (1, 0), (0, 0)]);
    assert_eq!(map(Op::Delete, What { current: false, ..gone }), [(0, 0), (1, 0), (0, 0)]);
}

#[test]
fn what_a_table_of_history_cannot_have() {
    let one = |rule: &str| format!("\n  m.users: {{ into: names, history: true, columns: {{ {rule} }} }}\n");
    let id = "id: { uuid: change }, user_id: { uuid: _id }";
    assert!(try_plan(&one(&format!("{id}, name: name")), tables()).is_ok());
    let mut strict = tables();
    strict[3].columns[2].not_null = true;
    let mut referring = tables();
    let names = referring.remove(3);
    referring.push(refers(names, "user_id", "users"));
    let cases = [
        (one("id: { uuid: _id }, user_id: { uuid: _id }"), tables(), "does not tell the versions"),
        (one(&format!("{id}, name: name")), strict, "the row of a delete has no value"),
        (one(&format!("{id}, name: name")), referring, "refers to another table"),
        (one(&format!("{id}, name: {{ sql: n, with: {{ n: name }} }}")), tables(), "is made by the target"),
        (
            one("id: { uuid: change }, user_id: { uuid: _id }, name: { change: number }"),
            tables(),
            "cannot fill `name`",
        ),
        (FILE.replace("history: true", "history: false"), tables(), "one row for all versions"),
        (
            FILE.replace("history: true", "history: true\n      when: { name: x }"),
            tables(),
            "`when` does not go with `history`",
        ),
        (FILE.replace("parent: id", "parent: log.user_id"), tables(), "nothing can belong to its rows"),
        (FILE.replace("into: users,", "into: users, append_only: true,"), tables(), "have no history"),
    ];
    for (file, tables, says) in cases {
        let found = try_plan(&file, tables).expect_err(says);
        assert!(found.to_string().contains(says), "{says}: {found}");
    }
}

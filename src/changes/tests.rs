use std::collections::BTreeMap;

use slackwater_connectors::postgres::control::mapping::RecordedMapping;

use super::count::Rows;
use super::*;
use crate::config;
use crate::mapping::compile;
use crate::mapping::tests::{catalog, table};

const HEAD: &str = "migration: test
sources: { m: { mongodb: { uri: x, database: d } } }
target: { postgres: { uri: x } }
";

const GOOD: &str = "
defaults: { invalid: null }
collections:
  m.users:
    - into: users
      columns: { id: { uuid: _id }, name: { text: name, trim: true }, age: age, raw: { rest: jsonb } }
    - into: tags
      key: [user_id, tag]
      each: tags[]
      columns: { user_id: { parent: id }, tag: . }
  m.orgs: { into: orgs, set: { kind: x }, columns: { id: { uuid: _id }, name: name } }
";

fn read(text: &str) -> Migration {
    match config::parse("m.yaml", &format!("{HEAD}{text}"), &|_| None) {
        Ok(migration) => migration,
        Err(found) => panic!("{found}"),
    }
}

fn plan(migration: &Migration) -> Plan {
    let mut tables = vec![
        table("users", &["id uuid key", "name text", "age integer", "raw jsonb", "nick text not default"]),
        table("tags", &["user_id uuid key", "tag text key", "note text"]),
        table("orgs", &["id uuid key", "kind text", "name text"]),
        table("people", &["id uuid key", "name text"]),
        table("versions", &["user_id uuid key", "n bigint key", "name text", "note text"]),
        table("more", &["user_id uuid key", "n bigint key"]),
    ];
    tables[0].uniques.push(vec![4]);
    tables[1].uniques.push(vec![0, 2]);
    match compile(migration, &catalog(tables)) {
        Ok(plan) => plan,
        Err(found) => panic!("{found}"),
    }
}

/// What is kept after a start with this file.
fn recorded(text: &str) -> Recorded {
    let migration = read(text);
    let plan = plan(&migration);
    let mappings = kept(&migration, &plan, None);
    Recorded {
        digest: Some(digest_of(&migration)),
        file_hash: String::new(),
        namespace: plan.namespace.as_uuid(),
        collections: mappings
            .into_iter()
            .map(|(name, mapping)| (name, RecordedMapping { mapping, is_out: false }))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn between(before: &str, after: &str) -> Changes {
    let migration = read(after);
    compare(&migration, &plan(&migration), Some(&recorded(before)))
}

/// The lines that people see.
fn lines(after: &str) -> Vec<String> {
    let changes = between(GOOD, after);
    assert_eq!(changes.refused, [], "nothing is refused");
    changes.list.iter().map(|change| change.text(Some(Rows::Exactly(20_417)))).collect()
}

fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replace(old, new)
}

#[test]
fn the_same_in_other_words_changes_nothing() {
    let same = [
        with("id: { uuid: _id }, name", "# a comment\n      id: {uuid: \"_id\"}, name").replace(
            "columns: { # a comment\n",
            "columns: {\n",
        ),
        with("trim: true }, age: age", "trim: true, null: keep }, age: { from: age, empty: keep }"),
        with("{ text: name, trim: true }", "{ trim: true, text: name, sensitive: true, lower: false, invalid: null }"),
        with("key: [user_id, tag]", "key: [tag, user_id]"),
        with("into: users", "into: public.users"),
        with("defaults: { invalid: null }", "defaults: { invalid: null, null: keep }\nsnapshot: { workers: 1 }"),
        GOOD.replace("defaults", "checks: []\ncutover: { max_lag: 9s }\nnot_migrated: [m.logs]\ndefaults"),
        with("  m.orgs: { into: orgs, set: { kind: x }, columns: { id: { uuid: _id }, name: name } }\n", "").replace(
            "collections:\n",
            "collections:\n  m.orgs: [ { columns: { name: name, id: { uuid: _id }, kind: { const: 'x' } }, into: orgs } ]\n",
        ),
    ];
    for text in same {
        let (before, after) = (digest_of(&read(GOOD)), digest_of(&read(&text)));
        assert_eq!(lines(&text), [""; 0], "{text}");
        assert_eq!(before, after, "{text}");
    }
}

#[test]
fn a_change_says_what_it_means() {
    for (old, new, expected) in [
        ("trim: true }", "trim: true, lower: true }", &["users.name: 20 417 rows to be written again"][..]),
        ("age: age", "age: years", &["users.age: 20 417 rows to be written again"]),
        ("age: age, ", "", &["users.age is not filled any more: its values stay as they are"]),
        ("tag: . }", "tag: ., note: { const: x } }", &["tags.note: 20 417 rows to be written again"]),
        (
            "each: tags[]",
            "each: labels[]",
            &[
                "tags: other rows are made of m.users; 20 417 rows to be written again, those that are not made any more go",
            ],
        ),
        ("set: { kind: x }", "set: { kind: y }", &["orgs.kind: 20 417 rows to be written again"]),
    ] {
        let mut said = lines(&with(old, new));
        // What other columns take is not among the rest; that is so for whatever is changed beside it.
        said.retain(|line| !line.starts_with("users.raw"));
        assert_eq!(said, expected, "{new}");
    }
    let raw = "users.raw: 20 417 rows to be written again".to_owned();
    assert!(lines(&with("age: age, ", "")).contains(&raw), "a field that nobody takes is among the rest");
    // A policy of the whole file is one of each column that has none.
    let said = lines(&with("invalid: null", "invalid: reject"));
    assert_eq!(said.len(), 5, "{said:?}");
}

/// Versions that are rows are never made again, so nothing is copied for them.
#[test]
fn of_a_history_only_what_comes_is_another() {
    const KEPT: &str = "
collections:
  m.users:
    - { into: users, columns: { id: { uuid: _id }, name: name } }
    - into: versions
      history: true
      columns: { user_id: { uuid: _id }, n: { change: number }, name: name }
";
    let list = |after: &str| {
        let changes = between(KEPT, after);
        assert_eq!(changes.refused, [], "{after}");
        let text = |change: &Change| change.text(Some(Rows::Exactly(20_417)));
        (changes.list.iter().map(text).collect::<Vec<_>>(), changes.recopies().len())
    };
    let with = |old: &str, new: &str| {
        assert!(KEPT.contains(old), "{old}");
        KEPT.replace(old, new)
    };
    let from_now_on = "holds for versions that come; the 20 417 rows stay as they were made";
    let rule = with("number }, name: name", "number }, name: { text: name, trim: true }");
    assert_eq!(list(&rule), (vec![format!("versions.name: it {from_now_on}")], 0));
    let column = with("number }, name: name", "number }, name: name, note: x");
    assert_eq!(list(&column), (vec![format!("versions.note: it {from_now_on}")], 0));
    // What is beside it is copied again as ever.
    let other =
        with("{ id: { uuid: _id }, name: name }", "{ id: { uuid: _id }, name: { text: name, trim: true } }");
    assert_eq!(list(&other), (vec!["users.name: 20 417 rows to be written again".to_owned()], 1));
    let more =
        "    - { into: more, history: true, columns: { user_id: { uuid: _id }, n: { change: number } } }\n";
    let second =
        "more is filled from m.users now, with the versions that come: those that were are not made again";
    assert_eq!(list(&format!("{KEPT}{more}")), (vec![second.to_owned()], 0));
    // The first one gets each document as it is.
    let first = KEPT.find("    - into: versions").expect("a table");
    let changes = between(&KEPT[..first], KEPT);
    let text = changes.list[0].text(None);
    assert_eq!(text, "versions is filled from m.users now: its rows are made by copying it again");
    assert_eq!(changes.recopies().len(), 1);
}

#[test]
fn collections_and_tables_come_and_go() {
    let orgs = "  m.orgs: { into: orgs, set: { kind: x }, columns: { id: { uuid: _id }, name: name } }\n";
    let changes = between(GOOD, &with(orgs, ""));
    assert_eq!(changes.out(), ["m.orgs"]);
    assert_eq!(changes.left, [("public".to_owned(), "orgs".to_owned())]);
    assert_eq!(changes.recopies(), []);
    let people = format!("{orgs}  m.people: {{ into: people, columns: {{ id: {{ uuid: _id }} }} }}\n");
    assert_eq!(lines(&with(orgs, &people)), ["m.people is new: it is copied"]);
    // One that was there has missed changes.
    let migration = read(GOOD);
    let mut before = recorded(GOOD);
    if let Some(orgs) = before.collections.get_mut("m.orgs") {
        orgs.is_out = true;
    }
    before.digest = Some("of the file without it".into());
    let changes = compare(&migration, &plan(&migration), Some(&before));
    assert_eq!(
        changes.recopies(),
        [("m.orgs".to_owned(), "the migration file has changed: it is in the file again".to_owned())]
    );
    let tags = &GOOD[GOOD.find("    - into: tags").expect("tags")..GOOD.find("  m.orgs").expect("orgs")];
    let changes = between(GOOD, &with(tags, ""));
    let whats: Vec<What> = changes.list.iter().map(|change| change.what).collect();
    assert_eq!(whats, [What::Rule, What::TableOut], "{:?}", changes.list);
    assert_eq!(changes.left, [("public".to_owned(), "tags".to_owned())]);
}

#[test]
fn what_makes_rows_that_are_not_found_again_is_refused() {
    for (old, new, said, line) in [
        ("key: [user_id, tag]", "key: [user_id, note]", "found by `tag`, `user_id` until now", 11),
        ("tag: . }", "tag: { text: ., lower: true } }", "found by `tag`, and it is made by another rule", 13),
        (
            "    - into: users\n      columns: { id: { uuid: _id }",
            "    - into: users\n      key: [nick]\n      columns: { nick: nick, id: { uuid: _id }",
            "would be found by `nick`",
            9,
        ),
    ] {
        let text = with(old, new).replace("tag: . }", "tag: ., note: x }");
        let changes = between(GOOD, &text);
        let [(place, message, help)] = &changes.refused[..] else { panic!("{new}: {:?}", changes.refused) };
        assert!(message.contains(said), "{message}");
        assert!(help.contains("slackwater reset FILE --rows"), "{help}");
        assert_eq!(place.line, line, "{message}");
    }
    // What happens to a value that does not fit makes no other key.
    let changes = between(GOOD, &with("tag: . }", "tag: { from: ., null: reject } }"));
    assert_eq!(changes.refused, []);
    let mut before = recorded(GOOD);
    before.namespace = uuid::Uuid::max();
    let migration = read(GOOD);
    assert_eq!(compare(&migration, &plan(&migration), Some(&before)).refused.len(), 1);
}

#[test]
fn what_an_older_version_wrote_is_not_known() {
    let migration = read(GOOD);
    let before = Recorded { digest: None, collections: BTreeMap::new(), ..recorded(GOOD) };
    let changes = compare(&migration, &plan(&migration), Some(&before));
    assert!(changes.unknown && changes.list.is_empty());
}

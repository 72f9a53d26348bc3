use std::path::Path;

use super::super::{Diagnostics, Migration, Outside, parse_with};

const MAIN: &str = "migration: crm
sources: { legacy: { mongodb: { uri: x, database: d } } }
target: { postgres: { uri: x } }
include: [users.yaml, billing/*.yaml]
collections:
  legacy.orgs: { into: orgs, columns: { id: { uuid: _id } } }
";
const USERS: &str = "# the people
collections:
  legacy.users: { into: users, columns: { id: { uuid: _id }, name: name } }
not_migrated: [ legacy.logs ]
";
const INVOICES: &str = "collections: { legacy.invoices: { into: invoices, columns: { id: { uuid: _id } } } }
checks: [ { name: lines, returns_nothing: select 1 } ]
";
const PAID: &str = "collections: { legacy.payments: { into: payments, columns: { id: { uuid: _id } } } }\n";

/// The file `dir/m.yaml`, with these beside it.
fn read(main: &str, files: &[(&str, &str)]) -> Result<Migration, Diagnostics> {
    let file = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == super::plain(path));
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let folder = |folder: &Path| {
        let inside = files.iter().filter(|(name, _)| Path::new(name).parent() == Some(&super::plain(folder)));
        let names =
            inside.filter_map(|(name, _)| Some(Path::new(name).file_name()?.to_string_lossy().into_owned()));
        Ok(names.collect())
    };
    parse_with("dir/m.yaml", main, &Outside { environment: &|_| None, file: &file, folder: &folder })
}

const FILES: [(&str, &str); 5] = [
    ("dir/users.yaml", USERS),
    ("dir/billing/paid.yaml", PAID),
    ("dir/billing/invoices.yaml", INVOICES),
    ("dir/billing/.hidden.yaml", "nonsense: true"),
    ("dir/billing/notes.txt", "nonsense: true"),
];

fn with(name: &str, text: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> =
        FILES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    files.retain(|(known, _)| known != name);
    files.push((name.to_owned(), text.to_owned()));
    files
}

fn said(main: &str, files: &[(String, String)]) -> String {
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    read(main, &files).expect_err("it has mistakes").to_string()
}

#[test]
fn the_parts_are_one_file() {
    let migration = read(MAIN, &FILES).unwrap_or_else(|found| panic!("{found}"));
    let names: Vec<&str> = migration.collections.iter().map(|found| found.name.value.as_str()).collect();
    assert_eq!(names, ["legacy.orgs", "legacy.users", "legacy.invoices", "legacy.payments"]);
    assert_eq!((migration.not_migrated.len(), migration.checks.len()), (1, 1));
    let whole = MAIN.replace("include: [users.yaml, billing/*.yaml]\n", "");
    let alone = read(&whole, &[]).unwrap_or_else(|found| panic!("{found}"));
    assert_ne!(alone.fingerprint, migration.fingerprint);
    let other = with("dir/users.yaml", &USERS.replace("people", "users"));
    let files: Vec<(&str, &str)> = other.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let other = read(MAIN, &files).unwrap_or_else(|found| panic!("{found}"));
    assert_ne!(other.fingerprint, migration.fingerprint, "the text of a part counts");
    assert_eq!(
        crate::changes::digest_of(&other),
        crate::changes::digest_of(&migration),
        "a comment makes no other rows"
    );
}

#[test]
fn mistakes_name_their_file() {
    let files = with("dir/users.yaml", &USERS.replace("name: name", "name: { txt: name }"));
    let found = said(MAIN, &files);
    assert!(found.starts_with("dir/users.yaml:3:70: error: a column knows no `txt`"), "{found}");
    let files = with("dir/users.yaml", &USERS.replace("legacy.users", "legacy.orgs"));
    let found = said(MAIN, &files);
    assert_eq!(
        found,
        "dir/users.yaml:3:3: error: `legacy.orgs` is written twice, first in dir/m.yaml, line 6\n    help: keep one of them"
    );
    let files = with("dir/users.yaml", &USERS.replace("legacy.logs", "legacy.payments"));
    let found = said(MAIN, &files);
    let expected = "dir/users.yaml:4:17: error: `legacy.payments` is mapped in dir/billing/paid.yaml, line 1 and not migrated as well";
    assert!(found.starts_with(expected), "{found}");
    let files = with("dir/users.yaml", "collections: [");
    assert!(
        said(MAIN, &files).starts_with("dir/users.yaml:2:1: error: this is no YAML")
            || said(MAIN, &files).starts_with("dir/users.yaml:1:")
    );
}

#[test]
fn a_part_holds_parts_only() {
    let files = with(
        "dir/users.yaml",
        &format!("{USERS}target: {{ postgres: {{ uri: \"postgres://u:hush@h\" }} }}\ninclude: more.yaml\n"),
    );
    let found = said(MAIN, &files);
    assert!(
        found.contains("dir/users.yaml:5:1: error: `target` cannot stand in an included file"),
        "{found}"
    );
    assert!(
        found.contains("dir/users.yaml:6:1: error: `include` cannot stand in an included file"),
        "{found}"
    );
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let shown = read(MAIN, &files).expect_err("mistakes").report(false);
    assert!(shown.contains("dir/users.yaml:5:1") && !shown.contains("hush"), "{shown}");
    for (text, expected) in [
        (
            "- a list",
            "dir/users.yaml:1:1: error: an included file must be a mapping (`key: value`), this is a list",
        ),
        ("collections: []", "`collections` is a list here, and a mapping in dir/m.yaml, line 6"),
    ] {
        let found = said(MAIN, &with("dir/users.yaml", text));
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn what_cannot_be_included_is_said() {
    let files = with("dir/m.yaml", MAIN);
    for (named, expected) in [
        ("none.yaml", "dir/m.yaml:4:10: error: `dir/none.yaml` cannot be read"),
        ("none/*.yaml", "no file is named like `none/*.yaml`"),
        ("'*/paid.yaml'", "`*` stands for letters of a file's name, not of a folder's"),
        ("'*.yaml'", "`*.yaml` is the migration file itself"),
        ("[billing/../billing/paid.yaml, ./billing/p*.yaml]", "is included twice, first in line 4"),
        ("{ a: b }", "an included file must be a single value, this is a mapping"),
    ] {
        let found = said(&MAIN.replace("[users.yaml, billing/*.yaml]", named), &files);
        assert!(found.contains(expected), "{named}: {found}");
    }
}

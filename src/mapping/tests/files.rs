//! Random migration files and random documents: a file compiles or its mistakes are named, a document becomes rows or is refused, and nothing
//! panics. `SLACKWATER_TEST_FILES` says how many files, `SLACKWATER_TEST_SEED` which.

#![allow(clippy::print_stdout, reason = "random tests tell their seed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bson::{Bson, doc};
use slackwater_connectors::postgres::control::mapping::{Recorded, RecordedMapping};

use super::*;
use crate::changes::{compare, digest_of, kept};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a whole number in the environment"))
}

/// Chance by a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn percent(&mut self, hundredths: usize) -> bool {
        self.below(100) < hundredths
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// Columns of every type, with rules that may fill them.
const COLUMNS: [(&str, &[&str]); 14] = [
    ("t text", &["text", "from", "const", "enum", "encrypt", "reencrypt"]),
    ("v varchar(5)", &["text", "from", "const"]),
    ("s smallint", &["integer", "numeric", "const", "index", "from"]),
    ("i integer", &["integer", "from", "index"]),
    ("n numeric(5,2)", &["numeric", "integer", "from"]),
    ("d double", &["float", "from"]),
    ("b boolean", &["boolean", "from"]),
    ("at timestamptz", &["timestamp", "from", "date"]),
    ("day date", &["date", "timestamp", "from"]),
    ("j jsonb", &["jsonb", "rest", "from"]),
    ("x bytea", &["bytea", "from", "decrypt"]),
    ("l text[]", &["array", "from"]),
    ("m mood", &["enum", "from", "const"]),
    ("r uuid", &["ref", "from", "uuid", "parent"]),
];
const NAMES: [&str; 14] = ["t", "v", "s", "i", "n", "d", "b", "at", "day", "j", "x", "l", "m", "r"];
const GOOD_PATHS: [&str; 6] = ["t", "a.b", "n", "x", "a.0", "other"];
const PATHS: [&str; 17] = [
    "^^.t",
    "t",
    "a.b",
    "l[]",
    "l[].a",
    "_id",
    "_id.a",
    ".",
    "^.t",
    "a.0",
    "x[].y[].z",
    "\"a\\\\.b\"",
    "\"\"",
    "n",
    "^._id",
    "e",
    "'$'",
];

fn tables() -> Vec<Table> {
    let own: Vec<&str> =
        std::iter::once("id uuid key").chain(COLUMNS.iter().map(|(text, _)| *text)).collect();
    let mut each = own.clone();
    each.push("owner uuid");
    let mut pairs = vec!["owner uuid key", "t text key"];
    pairs.extend(COLUMNS.iter().map(|(text, _)| *text).filter(|text| *text != "t text"));
    vec![table("a", &own), table("b", &own), refers(table("e", &each), "owner", "a"), table("p", &pairs)]
}

/// A value of an option: one that fits, or any.
fn value(chance: &mut Chance, option: &str) -> String {
    let fits: &[&str] = match option {
        "null" => &["reject", "keep"],
        "invalid" => &["reject", "null", "clamp", "strip"],
        "missing" => &["wait", "null", "reject"],
        "default" => &["1", "x", "null", "good", "2026-01-01", "true"],
        "trim" | "lower" | "hex" | "sensitive" => &["true", "false"],
        "empty" => &["null", "keep"],
        "unit" => &["s", "ms"],
        "map" => &["{ a: good, b: bad }", "{ a: good }"],
        "unknown" => &["reject", "null", "{ default: good }"],
        "to" => &["m.a", "m.a", "m.b", "m.none"],
        "by" => &["index", ".", "a", "^.t", "b.c", "[a, index]", "[index, ., a]", "key"],
        _ => &["1"],
    };
    if chance.percent(96) {
        return chance.pick(fits).to_owned();
    }
    chance
        .pick(&[
            "[]",
            "{}",
            "~",
            "[1, { a: b }]",
            "'",
            "99999999999999999999",
            "é",
            "*x",
            "- a",
            "{ a: { b: [c] } }",
        ])
        .to_owned()
}

fn rule(chance: &mut Chance, fitting: &[&str]) -> String {
    let words = config::rule_words();
    // Most are right, so that whole files are.
    let path = |chance: &mut Chance| match chance.percent(93) {
        true => chance.pick(&GOOD_PATHS).to_owned(),
        false => chance.pick(&PATHS).to_owned(),
    };
    if chance.percent(15) {
        return path(chance);
    }
    let word = if chance.percent(97) { chance.pick(fitting) } else { chance.pick(&words) };
    let argument = match word {
        "uuid" | "serial" if chance.percent(90) => "_id".to_owned(),
        "uuid" | "serial" => chance.pick(&["each", "t"]).to_owned(),
        "parent" if chance.percent(90) => chance.pick(&["id", "id", "id", "e.id", "a.id"]).to_owned(),
        "parent" => chance.pick(&["t", "none"]).to_owned(),
        "rest" if chance.percent(90) => "jsonb".to_owned(),
        "rest" => chance.pick(&["json", "text"]).to_owned(),
        "const" => "good".to_owned(),
        "index" => chance.pick(&["0", "1", "2"]).to_owned(),
        "array" => chance.pick(&["l[]", "l[].a", "x"]).to_owned(),
        _ => path(chance),
    };
    let mut text = format!("{{ {word}: {argument}");
    let expected = match word {
        "ref" => &["to"][..],
        "uuid" | "serial" if argument == "each" => &["by"],
        _ => &[],
    };
    if chance.percent(95) {
        text += match word {
            "encrypt" => ", to: new",
            "decrypt" => chance.pick(&[", from: old", ", from: new"]),
            "reencrypt" => ", from: old, to: new",
            _ => "",
        };
    }
    for option in expected {
        if chance.percent(95) {
            let _ = write!(text, ", {option}: {}", value(chance, option));
        }
    }
    for option in ["null", "invalid", "default", "trim", "unit", "missing"] {
        let fits =
            matches!(option, "null" | "invalid" | "default") || (option, word) == ("unit", "timestamp");
        if chance.percent(if fits { 5 } else { 1 })
            && !matches!(word, "uuid" | "parent" | "rest" | "const" | "index")
        {
            let _ = write!(text, ", {option}: {}", value(chance, option));
        }
    }
    if chance.percent(1) {
        let option = chance.pick(&words);
        let _ = write!(text, ", {option}: {}", value(chance, option));
    }
    text + " }"
}

fn one_table(chance: &mut Chance, own: &str, first: bool) -> String {
    let each = !first && chance.percent(70);
    let into = if first { own } else { chance.pick(&["e", "p", "b", "e", "p"]) };
    let mut text = format!("    - into: {into}\n");
    if each {
        let _ = writeln!(
            text,
            "      each: {}",
            match chance.below(100) {
                0..70 => "l[]",
                70..95 => chance.pick(&["l[].e[]", "l[].b{}", "l[].e[].t[]", "a{}.e[]", "l[][]"]),
                _ => chance.pick(&["e[]", "a.e[]", "l", "^.l[]", "l[].e", "l[]e[]"]),
            }
        );
    }
    if chance.percent(6) {
        let _ =
            writeln!(text, "      key: {}", chance.pick(&["[id]", "id", "[t]", "[id, t]", "[none]", "{}"]));
    }
    if chance.percent(12) {
        let _ = writeln!(
            text,
            "      set: {}",
            chance.pick(&["{ v: x }", "{ t: ~ }", "{ s: 70000 }", "{ id: 1 }", "[]"])
        );
    }
    text += "      columns:\n";
    match into {
        "p" if each => text += "        owner: { parent: id }\n",
        "e" if each => text += "        owner: { parent: id }\n        id: { uuid: each, by: index }\n",
        _ => text += "        id: { uuid: _id }\n",
    }
    for (place, (_, fitting)) in COLUMNS.iter().enumerate() {
        if chance.percent(15) || (into == "p" && place == 0) {
            let fitting: Vec<&str> = match each {
                true => fitting.iter().copied().filter(|word| *word != "rest").collect(),
                false => {
                    fitting.iter().copied().filter(|word| !matches!(*word, "index" | "parent")).collect()
                }
            };
            let _ = writeln!(text, "        {}: {}", NAMES[place], rule(chance, &fitting));
        }
    }
    text
}

fn file(chance: &mut Chance) -> String {
    let mut text = String::from(
        "migration: noise\nsources: { m: { mongodb: { uri: x, database: d } } }\ntarget: { postgres: { uri: x } }\n\
         ciphers: { old: { aes-256-cbc: { key: \"${K}\", iv: prefix } }, new: { aes-256-gcm: { key: \"${K}\" } } }\n",
    );
    if chance.percent(20) {
        let _ = writeln!(
            text,
            "defaults: {{ null: {}, invalid: {} }}",
            value(chance, "null"),
            value(chance, "invalid")
        );
    }
    text += "collections:\n";
    for own in ["a", "b"] {
        if chance.percent(75) {
            let _ = writeln!(text, "  m.{own}:");
            text += &one_table(chance, own, true);
            for _ in 0..chance.below(3) {
                text += &one_table(chance, own, false);
            }
        }
    }
    if chance.percent(10) {
        // A slip of the hand: a character goes, comes, or is another.
        let letters: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let at = letters[chance.below(letters.len())];
        match chance.below(3) {
            0 => drop(text.remove(at)),
            1 => {
                text.insert_str(at, chance.pick(&["{", "]", ":", "\t", "'", "#", "\n", "é", "[]", "&", "%"]))
            }
            _ => text.truncate(at),
        }
    }
    text
}

fn bson(chance: &mut Chance, depth: usize) -> Bson {
    match chance.below(if depth == 0 { 11 } else { 14 }) {
        0 => Bson::Null,
        1 => Bson::Int32(chance.below(100_000) as i32 - 50_000),
        2 => Bson::Int64(chance.below(usize::MAX) as i64),
        3 => Bson::Double([0.5, f64::NAN, f64::INFINITY, -0.0, 1e300][chance.below(5)]),
        4 => Bson::String(
            chance.pick(&["", " x ", "good", "12", "1e9", "2026-11-29T01:02:03Z", "yes", "a\0b", "ü"]).into(),
        ),
        5 => Bson::Boolean(chance.percent(50)),
        6 => Bson::DateTime(bson::DateTime::from_millis(chance.below(usize::MAX) as i64)),
        7 => Bson::ObjectId(bson::oid::ObjectId::from_bytes([chance.below(256) as u8; 12])),
        8 => Bson::Decimal128(bson::Decimal128::from_bytes([chance.below(256) as u8; 16])),
        9 => Bson::Undefined,
        10 => Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: vec![1; chance.below(20)],
        }),
        11 => Bson::Array((0..chance.below(4)).map(|_| bson(chance, depth - 1)).collect()),
        12 => Bson::Array(
            (0..chance.below(4))
                .map(|n| {
                    Bson::Document(doc! {"a": n as i32, "b": {"c": "x"}, "e": [{"a": n as i32, "t": [1]}, 2]})
                })
                .collect(),
        ),
        _ => {
            let fields = (0..chance.below(4))
                .map(|_| (chance.pick(&["a", "b", "t", "e", "0", ""]).to_owned(), bson(chance, depth - 1)));
            Bson::Document(fields.collect())
        }
    }
}

fn document(chance: &mut Chance) -> bson::Document {
    let mut document = doc! {"_id": bson(chance, 1)};
    for _ in 0..chance.below(8) {
        let name = chance.pick(&["t", "a", "l", "n", "e", "x", "a.b", "other"]);
        document.insert(name, bson(chance, 3));
    }
    document
}

/// Reads, compiles, maps, and compares with the file before; whether it compiled, and how many documents became rows.
fn try_one(chance: &mut Chance, text: &str, before: &mut Option<Recorded>) -> (bool, usize) {
    let read = config::parse("m.yaml", text, &|name| (name == "K").then(|| "0".repeat(64)));
    let compiled = read.and_then(|migration| {
        let plan = compile(&migration, &catalog(tables()))?;
        Ok((migration, plan))
    });
    let (migration, plan) = match compiled {
        Ok(compiled) => compiled,
        Err(found) => {
            assert!(found.errors() > 0, "refused without a reason");
            for mistake in found.list() {
                assert!(mistake.line > 0 && mistake.column > 0 && !mistake.message.is_empty(), "{mistake:?}");
            }
            assert!(!found.report(false).is_empty());
            return (false, 0);
        }
    };
    let changes = compare(&migration, &plan, before.as_ref());
    let collections: BTreeMap<_, _> = kept(&migration, &plan, before.as_ref())
        .into_iter()
        .map(|(name, mapping)| (name, RecordedMapping { mapping, is_out: false }))
        .collect();
    let now = Recorded {
        digest: Some(digest_of(&migration)),
        file_hash: String::new(),
        namespace: plan.namespace.as_uuid(),
        collections,
    };
    let same = compare(&migration, &plan, Some(&now));
    assert!(same.list.is_empty() && same.refused.is_empty(), "a file differs from itself: {same:?}");
    drop(changes);
    *before = Some(now);
    let plan = Arc::new(plan);
    let mut mapper = Mapper::new(Arc::clone(&plan));
    let mut mapped = 0;
    for _ in 0..4 {
        let document = document(chance);
        for collection in 0..plan.collections.len() as u16 {
            for op in [Op::Snapshot, Op::Delete] {
                let mut out = WriteSet::new(&plan.tables, chance.percent(50));
                let done = mapper.map(&event(collection, op, &document), &mut out);
                assert!(done.is_ok() || out.is_empty(), "a refused document leaves nothing");
                mapped += usize::from(done.is_ok());
            }
        }
    }
    (true, mapped)
}

#[test]
fn any_file_compiles_or_names_its_mistakes() {
    let (seed, files) = (number("SLACKWATER_TEST_SEED", 5), number("SLACKWATER_TEST_FILES", 400));
    println!("seed {seed}, {files} files");
    let (mut compiled, mut rows) = (0, 0);
    let mut before = None;
    for number in 0..files {
        let mut chance = Chance(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let text = file(&mut chance);
        let tried = catch_unwind(AssertUnwindSafe(|| try_one(&mut chance, &text, &mut before)));
        let Ok((fits, mapped)) = tried else { panic!("seed {seed}, file {number}:\n{text}") };
        compiled += u64::from(fits);
        rows += mapped;
    }
    println!("{compiled} of {files} files compiled, {rows} documents became rows or deletes");
    assert!(compiled * 10 > files && rows as u64 > compiled, "the files are too wrong to be of use");
}

//! Values that are encrypted anew on their way: the target is decrypted by somebody else, a recopy changes no byte, what is broken is a
//! letter, and neither plain text nor a key is in anything that is said or left behind.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeEncrypt as _, KeyIvInit as _};
use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use bson::{Bson, Document, doc};

use crate::lag::address;
use crate::letters::letters;
use crate::secrets::{EVERYTHING, Traces, listen, path};
use crate::stage::records::Topics;
use crate::stage::{PATIENCE, Slackwater, Stage, broker, state, until};

const SCHEMA: &str = "
CREATE TABLE users (id uuid PRIMARY KEY, n bigint NOT NULL, pin text NOT NULL, token bytea, secret varchar(100), note text CHECK (note NOT LIKE '%no'),
                    size integer, codes text[]);
CREATE TABLE cards (user_id uuid REFERENCES users ON DELETE CASCADE, place integer, number text NOT NULL, PRIMARY KEY (user_id, place));";

const FILE: &str = r#"migration: ciphers
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
ciphers:
  fixed: { aes-256-cbc: { key: "${LEGACY_KEY}", iv: "${LEGACY_IV}" } }
  prefix: { aes-256-cbc: { key: "${LEGACY_KEY}", iv: prefix, encoding: hex } }
  member: { aes-256-gcm: { key: "${MEMBER_KEY}" } }
cutover: { max_lag: 10s, freeze: { command: { freeze: [ "true" ], unfreeze: [ "true" ] } } }
collections:
  legacy.users:
    - into: users
      columns:
        id: { uuid: _id }
        n: { integer: _id }
        pin: { reencrypt: pin, from: fixed, to: member }
        token: { reencrypt: token, from: prefix, to: member, invalid: null }
        secret: { encrypt: secret, to: member }
        note: { decrypt: note, from: prefix, default: none }
        size: { sql: "length(v)", with: { v: { decrypt: pin, from: fixed } } }
        codes: { reencrypt: "codes[]", from: fixed, to: member }
    - into: cards
      each: cards[]
      columns: { user_id: { parent: id }, place: { index: 0 }, number: { reencrypt: number, from: fixed, to: member } }
"#;

/// As base64, all of it but the ends: whoever shows a key shows a canary.
const LEGACY_KEY: &str = "kanarikanarikanarikanarikanarikanarikanariA=";
const LEGACY_IV: &str = "kanarikanarikanarikanA==";
const MEMBER_KEY: &str = "kanaribanarikanarikanaribanarikanarikanariA=";

fn unbase64(text: &str) -> Vec<u8> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = text.trim_end_matches('=').bytes().map(|letter| LETTERS.bytes().position(|l| l == letter));
    let bits: Vec<u8> = letters
        .flat_map(|value| {
            let value = value.expect("a letter of base64");
            (0..6).rev().map(move |bit| (value >> bit & 1) as u8)
        })
        .collect();
    bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let letter = |bits: &[u8]| {
        let value = (0..6).fold(0, |value, at| value << 1 | usize::from(*bits.get(at).unwrap_or(&0)));
        char::from(LETTERS[value])
    };
    let text: String = bits.chunks(6).map(letter).collect();
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    text + &padding
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cbc(iv: &[u8; 16], plain: &str) -> Vec<u8> {
    let key: [u8; 32] = unbase64(LEGACY_KEY).try_into().expect("32 bytes");
    let cipher = cbc::Encryptor::<aes::Aes256>::new(&key.into(), &(*iv).into());
    cipher.encrypt_padded_vec::<Pkcs7>(plain.as_bytes())
}

/// As the old application has stored it with the cipher `fixed`.
fn fixed(plain: &str) -> String {
    base64(&cbc(&unbase64(LEGACY_IV).try_into().expect("16 bytes"), plain))
}

/// With the cipher `prefix`.
fn prefix(seed: u8, plain: &str) -> Vec<u8> {
    let iv = [seed; 16];
    [&iv[..], &cbc(&iv, plain)].concat()
}

/// Plain text: pin, token, secret, note, numbers of cards.
type Person = (String, Option<String>, String, String, Vec<String>);

fn person(id: i64) -> Person {
    // Two neighbours have the same.
    let v = id / 2;
    let cards = (0..v % 4).map(|_| format!("kanari card {v}")).collect();
    (
        format!("kanari {v}"),
        Some(format!("kanari token {v}")),
        format!("kanari secret {v}"),
        format!("note {v} kanari"),
        cards,
    )
}

/// Those of one document are all the same, and each has to look different.
fn codes(id: i64) -> Vec<String> {
    (0..=id % 3).map(|_| format!("kanari code {}", id / 2)).collect()
}

fn stored(id: i64) -> Document {
    let (pin, token, secret, note, cards) = person(id);
    let cards: Vec<Document> = cards.iter().map(|number| doc! {"number": fixed(number)}).collect();
    let token = token.map(|token| prefix(id as u8, &token)).unwrap_or_default();
    doc! {
        "_id": id, "pin": fixed(&pin), "secret": secret, "note": hex(&prefix(3, &note)), "cards": cards,
        "token": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: token },
        "codes": codes(id).iter().map(|code| fixed(code)).collect::<Vec<_>>(),
    }
}

/// What is broken, by number: the field, what is there instead, and the reason.
fn broken() -> Vec<(i64, &'static str, Bson, &'static str)> {
    let (_, _, _, note, _) = person(0);
    let cut = fixed("kanari, and so many letters that it takes more than one block");
    vec![
        (900, "pin", "kanari, no base64".into(), "cipher"),
        (901, "pin", cut[..24].into(), "cipher"),
        (902, "pin", 5.into(), "type"),
        (903, "pin", Bson::Null, "null"),
        (904, "secret", "kanari".repeat(30).into(), "length"),
        (905, "secret", doc! {"kanari": "kanari"}.into(), "type"),
        (906, "note", hex(&prefix(1, "kanari no")).into(), "23514"),
        (907, "note", hex(note.as_bytes()).into(), "cipher"),
        (908, "cards", vec![doc! {"number": "kanari"}].into(), "cipher"),
        (909, "codes", vec![fixed("kanari"), "kanari".to_owned()].into(), "cipher"),
    ]
}

/// How the columns of the target are written.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    pin: String,
    token: Option<Vec<u8>>,
    secret: String,
    note: String,
    size: i32,
    cards: Vec<String>,
    codes: Vec<String>,
    version: String,
}

async fn rows(stage: &Stage) -> BTreeMap<i64, Row> {
    let sql = "SELECT n, pin, token, secret, note, size, (SELECT coalesce(array_agg(number ORDER BY place), '{}') FROM cards WHERE user_id = id),
                      codes, xmin::text FROM users";
    let Ok(rows) = stage.target.query(sql, &[]).await else { return BTreeMap::new() };
    let row = |row: &tokio_postgres::Row| Row {
        pin: row.get(1),
        token: row.get(2),
        secret: row.get(3),
        note: row.get(4),
        size: row.get(5),
        cards: row.get(6),
        codes: row.get(7),
        version: row.get(8),
    };
    rows.iter().map(|found| (found.get(0), row(found))).collect()
}

fn opened(sealed: &[u8]) -> String {
    let key: [u8; 32] = unbase64(MEMBER_KEY).try_into().expect("32 bytes");
    let nonce: [u8; 12] = sealed[..12].try_into().expect("a nonce");
    let plain = Aes256Gcm::new(&key.into()).decrypt(&nonce.into(), &sealed[12..]);
    String::from_utf8(plain.expect("it can be decrypted")).expect("text")
}

fn plain(row: &Row) -> Person {
    let text = |text: &String| opened(&unbase64(text));
    let token = row.token.as_ref().map(|token| opened(token));
    (text(&row.pin), token, text(&row.secret), row.note.clone(), row.cards.iter().map(text).collect())
}

/// Decrypts by another library, where Python has it: one hexadecimal value a line.
fn opened_by_python(sealed: &[Vec<u8>]) -> Option<Vec<String>> {
    const PROGRAM: &str = "
import sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
key = AESGCM(bytes.fromhex(sys.stdin.readline()))
for line in sys.stdin:
    sealed = bytes.fromhex(line)
    print(key.decrypt(sealed[:12], sealed[12:], None).decode())
";
    let python = |arguments: &[&str]| {
        let mut command = std::process::Command::new("python3");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let there = python(&["-c", "import cryptography"]).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("Python has no `cryptography` here");
        return None;
    }
    let mut child = python(&["-c", PROGRAM]).spawn().expect("Python starts");
    let mut lines = hex(&unbase64(MEMBER_KEY));
    for sealed in sealed {
        lines += &format!("\n{}", hex(sealed));
    }
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "Python cannot decrypt it");
    Some(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect())
}

/// Waits until the rows of exactly these documents are there, and as many letters.
async fn settled(
    stage: &Stage,
    process: &mut Slackwater,
    numbers: &[i64],
    letters_wanted: usize,
) -> BTreeMap<i64, Row> {
    let mut last = (0, Vec::new());
    until("all are written or refused", PATIENCE, async || {
        process.still_runs();
        let (rows, letters) = (rows(stage).await, letters(stage).await);
        let now = (rows.len(), letters.clone());
        if now != last {
            println!("{now:?}");
            last = now;
        }
        let count: i64 = letters.iter().map(|(_, _, count)| count).sum();
        (rows.keys().copied().eq(numbers.iter().copied()) && count as usize == letters_wanted).then_some(rows)
    })
    .await
}

async fn put(stage: &Stage, document: &Document) {
    let id = doc! {"_id": document.get_i64("_id").expect("an id")};
    let collection = stage.source.collection::<Document>("users");
    collection.replace_one(id, document).upsert(true).await.expect("it can be replaced");
}

/// A recopy by hand, to its end.
async fn recopied(stage: &Stage, traces: &mut Traces, process: &mut Slackwater, file: &str) {
    let (code, said) = traces.command(stage, &["recopy", file, "legacy.users"]).await;
    assert_eq!(code, Some(0), "{said}");
    copied_again(stage, process).await;
}

async fn copied_again(stage: &Stage, process: &mut Slackwater) {
    const OPEN: &str = "SELECT 1 FROM slackwater.recopies
                        UNION ALL SELECT 1 FROM slackwater.collections WHERE state <> 'copied' OR reload";
    until("it is copied again", PATIENCE, async || {
        process.still_runs();
        state::rows(&stage.target, OPEN).await.is_empty().then_some(())
    })
    .await;
}

async fn way(kafka: bool) {
    let name = if kafka { "ciphers_kafka" } else { "ciphers" };
    let mut stage = Stage::new(name).await;
    stage.variables = vec![
        ("RUST_LOG", EVERYTHING.into()),
        ("RUST_BACKTRACE", "full".into()),
        ("LEGACY_KEY", LEGACY_KEY.into()),
        ("LEGACY_IV", LEGACY_IV.into()),
        ("MEMBER_KEY", MEMBER_KEY.into()),
    ];
    stage.target.batch_execute(SCHEMA).await.expect("tables can be created");
    let broken = broken();
    for id in 0..40_i64 {
        put(&stage, &stored(id)).await;
    }
    let bad = |(id, field, value, _): &(i64, &str, Bson, &str)| {
        let mut document = stored(*id);
        document.insert(*field, value.clone());
        document
    };
    for broken in &broken[..5] {
        put(&stage, &bad(broken)).await;
    }
    let mut traces = Traces::default();
    let topics_prefix = format!("sw.{}", stage.name);
    let topics = kafka.then(|| Topics::new(&broker::shared(), &topics_prefix));
    let log = format!(
        "log:\n  kafka:\n    brokers: \"{}\"\n    group: {topics_prefix}\n    \
         topics: {{ prefix: {topics_prefix}, partitions: 2, replication: 1 }}\n",
        broker::shared()
    );
    let file = stage.file("migration.yaml", &if kafka { format!("{FILE}{log}") } else { FILE.to_owned() });
    let file = path(&file);
    if let Some(topics) = &topics {
        topics.delete().await;
        assert_eq!(traces.command(&stage, &["topics", "apply", file]).await.0, Some(0));
    }
    let (code, said) = traces.command(&stage, &["check", file]).await;
    assert_eq!(code, Some(0), "{said}");
    let listening = address();
    let mut run = stage.start(&["run", file, "--listen", &listening], "run");
    let first: Vec<i64> = (0..40).collect();
    settled(&stage, &mut run, &first, 5).await;
    for id in 40..60_i64 {
        put(&stage, &stored(id)).await;
    }
    for broken in &broken[5..] {
        put(&stage, &bad(broken)).await;
    }
    // A token that is broken becomes null.
    let mut no_token = stored(60);
    no_token.insert("token", "kanari");
    put(&stage, &no_token).await;
    let all: Vec<i64> = (0..=60).collect();
    let there = settled(&stage, &mut run, &all, broken.len()).await;

    for (id, row) in &there {
        let mut wanted = person(*id);
        if *id == 60 {
            wanted.1 = None;
        }
        assert_eq!(plain(row), wanted, "{id}");
        assert_eq!(row.codes.iter().map(|code| opened(&unbase64(code))).collect::<Vec<_>>(), codes(*id));
        assert_eq!(row.size as usize, wanted.0.chars().count());
    }
    let mut sealed: Vec<Vec<u8>> = Vec::new();
    for row in there.values() {
        sealed.extend([unbase64(&row.pin), unbase64(&row.secret)]);
        sealed.extend(row.token.clone());
        sealed.extend(row.cards.iter().chain(&row.codes).map(|number| unbase64(number)));
    }
    if let Some(opened_there) = opened_by_python(&sealed) {
        assert_eq!(opened_there, sealed.iter().map(|sealed| opened(sealed)).collect::<Vec<_>>());
    }
    let count = sealed.len();
    sealed.sort();
    sealed.dedup();
    assert_eq!(sealed.len(), count, "equal values in two places are different bytes");

    let sql = "SELECT kind, reason, encode(key, 'escape'), document FROM slackwater.dead_letters";
    let mut kinds: Vec<String> = Vec::new();
    for letter in state::rows(&stage.target, sql).await {
        let (kind, reason): (String, String) = (letter.get(0), letter.get(1));
        assert!(!reason.is_empty());
        let document = Document::from_reader(letter.get::<_, &[u8]>(3)).expect("a document");
        for field in ["pin", "token", "secret", "note"] {
            assert_eq!(document.get_str(field).ok(), Some("(sensitive)"), "{document}");
        }
        kinds.push(kind);
    }
    let mut expected: Vec<&str> = broken.iter().map(|(.., kind)| *kind).collect();
    expected.sort_unstable();
    kinds.sort();
    assert_eq!(kinds, expected);

    listen(&mut traces, &listening).await;
    if kafka {
        let tail =
            ["topics", "tail", file, "legacy.users", "--from", "beginning", "--limit", "60", "--documents"];
        for arguments in [&tail[..], &[&tail[..], &["--json"]].concat()] {
            let (code, said) = traces.command(&stage, arguments).await;
            assert!(code == Some(0) && said.contains("(sensitive)"), "{said}");
        }
    }
    let report = stage.folder.join("report");
    for arguments in [
        &["check", file, "--json"][..],
        &["status", file],
        &["status", file, "--json"],
        &["cutover", file, "--plan"],
        &["cutover", file, "--report", path(&report)],
    ] {
        let (code, said) = traces.command(&stage, arguments).await;
        assert!(matches!(code, Some(0 | 8)), "{arguments:?}: {said}");
    }
    traces.state(&stage).await;

    // A recopy makes the same bytes, so it writes nothing.
    recopied(&stage, &mut traces, &mut run, file).await;
    assert_eq!(rows(&stage).await, there, "not a row was written again");

    for (id, ..) in &broken {
        put(&stage, &stored(*id)).await;
    }
    let mended: Vec<i64> = all.iter().copied().chain(broken.iter().map(|(id, ..)| *id)).collect();
    let rows = settled(&stage, &mut run, &mended, 0).await;
    assert!(broken.iter().all(|(id, ..)| plain(&rows[id]) == person(*id)));
    run.stop().await;

    // Another way to write the same bytes: told beforehand, and done by itself.
    let hexadecimal = FILE.replace("{ key: \"${MEMBER_KEY}\" }", "{ key: \"${MEMBER_KEY}\", encoding: hex }");
    stage.file("migration.yaml", &if kafka { format!("{hexadecimal}{log}") } else { hexadecimal });
    let (code, said) = traces.command(&stage, &["check", file]).await;
    assert!(code == Some(0) && said.contains("users.pin: 71 rows"), "{said}");
    assert!(!said.contains("users.note") && !said.contains("users.n:"), "{said}");
    let mut run = stage.start(&["run", file, "--listen", &listening], "run");
    until("all are written in another way", PATIENCE, async || {
        run.still_runs();
        let now = self::rows(&stage).await;
        let same = |(before, after): (&Row, &Row)| hex(&unbase64(&before.pin)) == after.pin;
        rows.values().zip(now.values()).all(same).then_some(())
    })
    .await;
    copied_again(&stage, &mut run).await;
    let (code, said) = traces.command(&stage, &["cutover", file, "--report", path(&report), "--json"]).await;
    assert_eq!(code, Some(0), "{said}");
    until("the process ends by itself", PATIENCE, async || run.ended()).await;
    assert!(run.said("DEBUG"), "more than usual is logged");
    traces.folder(&stage.folder, &["log", "json", "html", "csv"]);
    for what in ["run.log", "report.json", "report.html", "dead_letters, bytes", "/metrics"] {
        assert!(traces.all(what) > 0, "there is no trace of {what}");
    }
    traces.verdict();
    if let Some(topics) = topics {
        topics.delete().await;
    }
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_encrypted_anew_direct() {
    way(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_encrypted_anew_over_kafka() {
    way(true).await;
}

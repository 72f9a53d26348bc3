//! The section `ciphers`, and the rules that name them.

use super::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn environment(name: &str) -> Option<String> {
    Some(match name {
        "KEY" => KEY.into(),
        "KEY64" => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(),
        "OTHER" => "f".repeat(64),
        "IV" => "8PHy8/T19vf4+fr7/P3+/w==".into(),
        "SHORT" => "a0b0c0d0e0f0".into(),
        "ODD" => "hush-hush, not base64".into(),
        "EMPTY" => String::new(),
        "MONGO" | "PG" => "x".into(),
        _ => return None,
    })
}

fn try_read(text: &str) -> Result<Migration, Diagnostics> {
    let file = |path: &std::path::Path| match path.to_str() {
        Some("/run/secrets/key") => Ok(format!("{KEY}\n")),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let folder = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    parse_with("migration.yaml", text, &Outside { environment: &environment, file: &file, folder: &folder })
}

const HEAD: &str = "migration: m
sources: { legacy: { mongodb: { uri: \"${MONGO}\", database: d } } }
target: { postgres: { uri: \"${PG}\", schema: s } }
";

fn file(ciphers: &str, columns: &str) -> String {
    format!(
        "{HEAD}ciphers:\n{ciphers}collections:\n  legacy.people:\n    into: people\n    columns:\n      id: {{ uuid: _id }}\n{columns}"
    )
}

#[test]
fn ciphers_are_read() {
    let ciphers = "  a: { aes-256-cbc: { key: \"${KEY}\", iv: \"${IV}\", encoding: hex } }
  b: { aes-256-cbc: { key: \"${KEY64}\", iv: prefix } }
  c: { aes-256-gcm: { key: \"${file:/run/secrets/key}\" } }
";
    let columns = "      p: { reencrypt: p, from: a, to: c }
      q: { encrypt: q, to: c, sensitive: true }
      r: { decrypt: r, from: b, empty: null, invalid: null }
      t: { from: t }
";
    let migration = try_read(&file(ciphers, columns)).expect("a good file");
    let [a, b, c] = &migration.ciphers[..] else { panic!("three ciphers") };
    assert!(matches!(&a.algorithm, Algorithm::Cbc(Iv::Fixed(iv)) if iv.bytes()[..2] == [0xf0, 0xf1]));
    assert!(matches!(b.algorithm, Algorithm::Cbc(Iv::Prefix)) && matches!(c.algorithm, Algorithm::Gcm));
    let encodings = [Encoding::Hex, Encoding::Base64, Encoding::Base64];
    assert_eq!([a.encoding, b.encoding, c.encoding], encodings);
    assert!([a, b, c].iter().all(|cipher| cipher.key.bytes() == (0..32).collect::<Vec<u8>>()));
    let shown = format!("{migration:?}");
    assert!(!shown.contains("000102") && !shown.contains("AAEC") && !shown.contains("8PHy"), "{shown}");
    let columns = &migration.collections[0].tables[0].columns[1..];
    let words: Vec<(&str, bool)> = columns
        .iter()
        .map(|column| match &column.rule.value {
            Rule::Value(value) => (value.convert.word(), column.sensitive),
            _ => panic!("a value"),
        })
        .collect();
    assert_eq!(words, [("reencrypt", true), ("encrypt", true), ("decrypt", true), ("from", false)]);
}

/// Each mistake of the section and of the rules, with its place and what to do, and nothing of a key.
#[test]
fn mistakes_in_ciphers() {
    let ciphers = format!(
        "  literal: {{ aes-256-gcm: {{ key: {KEY} }} }}
  half: {{ aes-256-gcm: {{ key: \"${{SHORT}}{KEY}\" }} }}
  short: {{ aes-256-gcm: {{ key: \"${{SHORT}}\" }} }}
  odd: {{ aes-256-cbc: {{ key: \"${{ODD}}\", iv: \"${{KEY}}\" }} }}
  unset: {{ aes-256-gcm: {{ key: \"${{NOBODY}}\" }} }}
  open: {{ aes-256-gcm: {{ key: \"${{KEY\" }} }}
  empty: {{ aes-256-gcm: {{ key: \"${{EMPTY}}\" }} }}
  no_iv: {{ aes-256-cbc: {{ key: \"${{KEY}}\" }} }}
  iv_here: {{ aes-256-cbc: {{ key: \"${{KEY}}\", iv: f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff }} }}
  needless: {{ aes-256-gcm: {{ key: \"${{KEY}}\", iv: prefix, encoding: hx }} }}
  no_key: {{ aes-256-gcm: {{ kye: \"${{KEY}}\" }} }}
  unknown: {{ aes-128-gcm: {{ key: \"${{KEY}}\" }} }}
  both: {{ aes-256-gcm: {{ key: \"${{KEY}}\" }}, aes-256-cbc: {{ key: \"${{KEY}}\", iv: prefix }} }}
  nothing: {{ }}
  a name: {{ aes-256-gcm: {{ key: \"${{KEY}}\" }} }}
  old: {{ aes-256-cbc: {{ key: \"${{KEY}}\", iv: prefix }} }}
  new: {{ aes-256-gcm: {{ key: \"${{KEY}}\" }} }}
"
    );
    let columns = "      a: { encrypt: a, from: old, to: new }
      b: { decrypt: b, from: old, to: new }
      c: { reencrypt: c, to: new }
      d: { encrypt: d }
      e: { encrypt: e, to: old }
      f: { decrypt: f, from: odl }
      g: { reencrypt: g, from: old, to: unset }
      h: { encrypt: h, to: new, sensitive: false }
      i: { encrypt: _id, to: new }
      j: { encrypt: j, decrypt: j, to: new }
      k: { text: k, from: old }
      l: { text: l, to: new }
      m: { decrypt: \"m[]\" }
      n: { encrypt: n, to: new, trim: true }
      o: { sql: x, with: { x: { decrypt: o, from: nobody } } }
";
    let found = try_read(&file(&ciphers, columns)).expect_err("mistakes");
    let report = found.report(false);
    for secret in ["000102", "f0f1f2", "a0b0", "hush"] {
        assert!(!report.contains(secret) && !found.to_string().contains(secret), "{secret}: {report}");
    }
    assert!(found.list().iter().all(|found| found.help.is_some()), "{found}");
    insta::assert_snapshot!(found);
}

#[test]
fn without_a_section_it_is_said_how_to_begin() {
    let text = file("", "      a: { encrypt: a, to: pins }\n").replace("ciphers:\n", "");
    let found = try_read(&text).expect_err("a mistake");
    assert_eq!(found.list().len(), 1, "{found}");
    assert_eq!((found.list()[0].line, found.list()[0].column), (9, 28));
    assert!(
        found
            .to_string()
            .contains("add a section: `ciphers: { pins: { aes-256-gcm: { key: \"${NAME}\" } } }`"),
        "{found}"
    );
}

/// Another cipher means other rows; another key under the same name is nobody's to see in what is kept.
#[test]
fn the_form_knows_ciphers_and_no_keys() {
    let forms = |cipher: &str, columns: &str| {
        let text =
            file(&format!("  pins: {cipher}\n  more: {{ aes-256-gcm: {{ key: \"${{KEY}}\" }} }}\n"), columns);
        let migration = try_read(&text).unwrap_or_else(|found| panic!("{found}"));
        migration.collections[0].form.clone()
    };
    let decrypt = "      p: { decrypt: p, from: pins }\n";
    let sql = "      p: { sql: x, with: { x: { decrypt: p, from: pins } } }\n";
    let gcm = "{ aes-256-gcm: { key: \"${KEY}\" } }";
    for columns in [decrypt, sql] {
        let form = forms(gcm, columns);
        for same in [
            "{ aes-256-gcm: { key: \"${OTHER}\" } }",
            "{ aes-256-gcm: { encoding: base64, key: \"${file:/run/secrets/key}\" } }",
        ] {
            assert_eq!(forms(same, columns), form, "{same}");
        }
        let others = [
            "{ aes-256-gcm: { key: \"${KEY}\", encoding: hex } }",
            "{ aes-256-cbc: { key: \"${KEY}\", iv: prefix } }",
            "{ aes-256-cbc: { key: \"${KEY}\", iv: \"${IV}\" } }",
        ];
        let mut all = vec![form.clone()];
        all.extend(others.map(|other| forms(other, columns)));
        all.push(forms(gcm, &columns.replace("from: pins", "from: more")));
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one), "{columns} {at}");
        }
        let text = format!("{form:?}");
        assert!(!text.contains("000102") && !text.contains("aes"), "digests only: {text}");
    }
    // What a cipher is, is no part of collections that do not use it.
    let plain = "      p: { text: p }\n";
    assert_eq!(forms(gcm, plain), forms("{ aes-256-cbc: { key: \"${KEY}\", iv: prefix } }", plain));
}

#[test]
fn what_travels_encrypted() {
    let gcm = "  wire: { aes-256-gcm: { key: \"${KEY}\" } }\n  old: { aes-256-cbc: { key: \"${KEY}\", iv: prefix } }\n";
    let read = |rule: &str| try_read(&file(gcm, &format!("      p: {rule}\n")));
    let fine = read("{ text: p, travels: wire }").expect("no mistake");
    let column = &fine.collections[0].tables[0].columns[1];
    assert!(column.sensitive && column.travels.as_ref().is_some_and(|name| name.value == "wire"));
    assert!(read("{ rest: jsonb, travels: wire }").is_ok());
    // Rows do not depend on it.
    let plain = read("{ text: p }").expect("no mistake");
    assert_eq!(plain.collections[0].form, fine.collections[0].form);
    for (rule, says) in [
        ("{ text: p, travels: wires }", "there is no cipher `wires`"),
        ("{ text: p, travels: old }", "is aes-256-cbc, which is for reading only"),
        ("{ text: _id, travels: wire }", "the id of a document cannot be sensitive"),
        ("{ const: 1, travels: wire }", "`travels` does not go with `const`"),
        ("{ text: p, travels: wire, sensitive: false }", "always sensitive"),
    ] {
        let found = read(rule).expect_err(rule);
        assert!(found.errors() == 1 && found.list()[0].message.contains(says), "{rule}: {found}");
    }
}

//! Canaries in every place of the file where a secret can be, and every way to break the file at that place: none of them is in
//! anything that is shown.

#![allow(clippy::print_stdout, reason = "a test tells what it found")]

use super::*;

/// All secrets begin like that.
const CANARY: &str = "kanari";

/// Where a value belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Source,
    Target,
    Webhook,
    Option,
    Cipher,
}

const VALUES: &[(Of, &str)] = &[
    (
        Of::Source,
        "mongodb://kanariuser:kanaripass@db.example:27017/?replicaSet=rs0&tlsCertificateKeyFilePassword=kanarioption\
         &authMechanismProperties=AWS_SESSION_TOKEN:kanaritoken",
    ),
    (Of::Source, "mongodb+srv://kanariuser:kanari@pass@db.example"),
    (Of::Source, "mongodb://kanariuser:kanaripass"),
    (Of::Target, "postgres://kanariuser:kanari%20pass@db.example/app?sslpassword=kanarioption"),
    (Of::Target, "postgres://kanariuser:kanari?pass/kanari@db.example/app"),
    (Of::Target, "host=db.example user=kanariuser password=kanaripass dbname=app"),
    (Of::Target, "host=db.example user = kanariuser password = kanaripass"),
    (Of::Webhook, "https://hooks.example/services/kanaripath?token=kanariquery"),
    (Of::Webhook, "https://kanariuser:kanaripass@hooks.example/kanaripath"),
    (Of::Webhook, "hooks.example/services/kanaripath"),
    (Of::Option, "kanaripass"),
    (Of::Option, "kanari pass"),
    (Of::Cipher, "kanarikanarikanarikanarikanarikanarikanariA="),
    (Of::Cipher, "kanari+kanari/kanari=="),
    (Of::Cipher, "kanarikey"),
];

/// Ways to write a value: as it should be, and as it should not.
fn ways(value: &str) -> Vec<String> {
    let (start, end) = value.split_at(value.find(CANARY).unwrap_or_default() + 3);
    let mut ways = vec![
        format!("\"{value}\""),
        format!("'{value}'"),
        value.to_owned(),
        format!("\"{value}"),
        format!("'{value}"),
        format!("{value}\""),
        format!("\"{start}\"{end}kanari\""),
        format!("'{start}'{end}kanari'"),
        format!("\"{value}\" kanarimore"),
        format!("\"{value}\", kanarimore"),
        format!("{value}, kanarimore"),
        format!("{value} # kanarimore"),
        format!("{value}: kanarimore"),
        format!("\"{value}\": kanarimore"),
        format!("\"{start}\\q{end}\""),
        format!("\"{start}\\\n          {end}kanari\""),
        format!("\"{start}\n\n          {end}kanari\""),
        format!("|\n          {value}\n          kanarimore"),
        format!(">-\n          {value}\n\n          kanarimore"),
        format!("|\n  {value}"),
        format!("{value}\n            kanarimore"),
        format!("{value}\n\t kanarimore"),
        format!("${{NOBODY}}{value}"),
        format!("${{{value}"),
        format!("{value}${{"),
        format!("\"${{PG}}{value}\""),
        format!("[ {value} ]"),
        format!("[ {value}, "),
        format!("{{ {value} }}"),
        format!("{{ \"{value}\" }}"),
        format!("{{ password: {value} }}"),
        format!("{{ a: {{ user: kanariuser, b: [ {value} ] }} }}"),
        format!("{{ {value}"),
        format!("\n          {value}"),
        format!("\n          - {value}"),
        format!("\n          passwort: {value}"),
        format!("\u{0}{value}"),
        format!("\u{7}{value}"),
    ];
    for sign in ["*", "&", "!", "!!", "@", "`", "%", "? ", "- ", ": ", ">", "|", "\\", "#", "<<: *", "&a *"] {
        ways.push(format!("{sign}{value}"));
        ways.push(format!("{sign}{CANARY} {value}"));
    }
    ways
}

/// Files with a value where it belongs, and with mistakes around it so that its line is shown.
fn files(of: Of, written: &str) -> Vec<String> {
    let (keys, around): (&[&str], &[(&str, &str)]) = match of {
        Of::Source => (
            &["uri: ", "uri ", "uri:", "uir: ", "url: ", "password: ", ""],
            &[
                ("sources:\n  legacy:\n    mongodb:\n      one: 1\n      ", "\n      two: 2\n"),
                ("sources:\n  legacy: { mongodb: { one: 1, ", ", two: 2 } }\n"),
                ("sources: { legacy: { mongo: { one: 1, ", ", two: 2 } } }\n"),
                ("sources:\n  legacy:\n    one: 1\n    ", "\n    two: 2\n"),
                ("sources:\n  one: 1\n  ", "\n  two: 2\n"),
            ],
        ),
        Of::Target => (
            &["uri: ", "uri ", "uri:", "url: ", "password: ", ""],
            &[
                ("target:\n  postgres:\n    one: 1\n    ", "\n    two: 2\n"),
                ("target: { postgres: { one: 1, ", ", two: 2 } }\n"),
                ("target: { ", " }\n"),
                ("target:\n  one: 1\n  ", "\n  two: 2\n"),
            ],
        ),
        Of::Webhook => (
            &["webhook: ", "webhook ", "webhook:", "webhok: ", "token: ", ""],
            &[
                ("cutover:\n  open:\n    - one: 1\n      ", "\n      two: 2\n"),
                ("cutover: { one: 1, open: [ { ", " } ], two: 2 }\n"),
                ("cutover: { one: 1, open: { ", " }, two: 2 }\n"),
                ("cutover: { one: 1, open: [ { command: [ ./tell, --loud, ", " ], one: 1 } ] }\n"),
            ],
        ),
        Of::Option => (
            &["sasl.password: ", "sasl.password ", "sasl.password:", "sasl.pasword: ", "ssl.key.pem: ", ""],
            &[
                (
                    "log:\n  kafka:\n    brokers: one\n    options:\n      acks: 1\n      ",
                    "\n      acks: 2\n    one: 1\n",
                ),
                ("log: { kafka: { brokers: one, producer: { acks: 1, ", ", acks: 1 }, one: 1 } }\n"),
                ("log: { kafka: { brokers: one, one: 1, consumer: [ ", " ], one: 1 } }\n"),
                ("log: { kafka: { brokers: one, one: 1, optoins: { ", " }, two: 1 } }\n"),
                ("log:\n  kafka:\n    brokers: one\n    ", "\n    one: 1\n"),
            ],
        ),
        Of::Cipher => (
            &["key: ", "key ", "key:", "iv: ", "kye: ", ""],
            &[
                ("ciphers:\n  pin:\n    aes-256-cbc:\n      one: 1\n      ", "\n      two: 2\n"),
                ("ciphers: { pin: { aes-256-gcm: { one: 1, ", ", two: 2 } } }\n"),
                ("ciphers: { pin: { aes-128-gcm: { one: 1, ", ", two: 2 } } }\n"),
                ("ciphers:\n  pin:\n    one: 1\n    ", "\n    two: 2\n"),
                ("ciphers:\n  one: 1\n  ", "\n  two: 2\n"),
            ],
        ),
    };
    let mut files = Vec::new();
    for (before, after) in around {
        // A word of its own before a colon is a key, and messages name keys.
        let is_key = written.contains(": kanarimore");
        for key in keys.iter().filter(|key| !(key.is_empty() && is_key)) {
            files.push(format!("migration: crm\n{before}{key}{written}{after}collections: {{}}\n"));
        }
    }
    files
}

/// What shows the canary.
fn leaks(text: &str) -> Option<String> {
    // Where nothing is wrong nothing is shown but the migration itself.
    let shown = match read(text) {
        Ok(migration) => format!("{migration:?}\n{migration:#?}"),
        Err(found) => {
            assert!(found.errors() > 0);
            format!("{}{found}{}", found.report(false), found.to_json())
        }
    };
    shown.to_lowercase().contains(CANARY).then_some(shown)
}

#[test]
fn no_secret_is_shown_however_the_file_is_broken() {
    let (mut tried, mut leaky) = (0, Vec::new());
    for (number, (of, value)) in VALUES.iter().enumerate() {
        for (way, written) in ways(value).iter().enumerate() {
            // Values take turns, the first of each kind more often: there are many places.
            let first = VALUES.iter().position(|(other, _)| other == of) == Some(number);
            let files = files(*of, written);
            let every = if first { 3 } else { 7 };
            let chosen = files.iter().enumerate().filter(|(place, _)| (place + way + number) % every == 0);
            for (_, file) in chosen {
                tried += 1;
                leaky.extend(leaks(file).map(|shown| (file.clone(), shown)));
            }
        }
    }
    assert!(tried > 3_000, "{tried}");
    for (file, shown) in leaky.iter().take(12) {
        let lines = shown.lines().filter(|line| line.to_lowercase().contains(CANARY)).take(3);
        println!("--- {file}\n--- shows\n{}\n", lines.collect::<Vec<_>>().join("\n"));
    }
    assert!(leaky.is_empty(), "{} of {tried} files show a secret", leaky.len());
}

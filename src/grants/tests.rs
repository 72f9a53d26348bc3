//! Golden texts: one for each shape of a migration.

use super::kafka::Users;
use super::{Grants, Names};
use crate::config;

const FILE: &str = r#"migration: shop
sources:
  legacy: { mongodb: { uri: "mongodb://app:canary@db/?replicaSet=rs0", database: crm } }
target: { postgres: { uri: "postgres://app:canary@db/shop", schema: public } }
collections:
  legacy.users: { into: users, columns: { id: { uuid: _id }, name: name } }
  legacy.orders:
    - into: billing.orders
      columns: { id: { uuid: _id } }
    - into: billing.lines
      each: lines[]
      columns: { id: { uuid: each, by: index }, order_id: { parent: id } }
"#;

fn grants(more: &str, capture: &str, apply: &str) -> Grants {
    let text = format!("{FILE}{more}");
    let migration = config::parse("shop.yaml", &text, &|_| None).unwrap_or_else(|found| panic!("{found}"));
    let names = Names {
        role: "slackwater".into(),
        user: "slackwater".into(),
        kafka: Users { capture: capture.into(), apply: apply.into(), topics: "topics".into() },
    };
    Grants::of(&migration, "shop", &names).unwrap_or_else(|failure| panic!("{failure}"))
}

fn golden(name: &str, grants: &Grants) {
    let (text, json) = (grants.text(), format!("{:#}", grants.json()));
    assert!(!text.contains("canary") && !json.contains("canary"), "a password is shown");
    insta::assert_snapshot!(name, text);
}

#[test]
fn direct() {
    golden("direct", &grants("", "capture", "apply"));
}

#[test]
fn over_kafka() {
    let log = "log: { kafka: { brokers: \"k1:9092,k2:9092\" } }\n";
    golden("kafka", &grants(log, "capture", "apply"));
    let one = grants(log, "app", "app").json();
    let acls = one["kafka"]["acls"].as_array().expect("a list");
    let of_one: Vec<String> = acls
        .iter()
        .filter(|acl| acl["principal"] == "User:app")
        .map(|acl| format!("{} {}", acl["resource"], acl["operation"]).replace('"', ""))
        .collect();
    assert_eq!(of_one, ["topic Write", "topic DescribeConfigs", "topic Read", "group Read"]);
}

#[test]
fn frozen_by_a_command() {
    let cutover = "checks: [ { name: orphans, returns_nothing: select 1 } ]
cutover:
  freeze: { command: { freeze: [ ./stop.sh ], unfreeze: [ ./start.sh ] } }
  before: [ { name: statistics, sql: analyze } ]
";
    golden("command", &grants(cutover, "capture", "apply"));
}

#[test]
fn serial_keys_without_moved_sequences() {
    let numbers = "  legacy.tickets: { into: tickets, columns: { id: { serial: _id }, title: title } }
cutover: { after: [ { name: search, sql: refresh materialized view search } ] }
";
    golden("serial", &grants(numbers, "capture", "apply"));
}

#[test]
fn the_commands_are_whole() {
    let json = grants("", "capture", "apply").json();
    let commands = json["mongodb"][0]["commands"].as_array().expect("a list");
    assert_eq!(commands[0]["createRole"], "slackwater");
    assert_eq!(
        commands[0]["privileges"][0].to_string(),
        r#"{"actions":["find","changeStream","listCollections"],"resource":{"collection":"","db":"crm"}}"#
    );
    assert_eq!(commands[1]["createUser"], "slackwater");
    // The server takes the first name of a document for the command's.
    for command in commands {
        let first = command.as_object().and_then(|command| command.keys().next()).expect("a name");
        assert!(first.starts_with("create"), "{command}");
    }
}

//! `checks`: what a check may ask, and every mistake with its place.

use slackwater_topics::{Document, extjson};

use super::*;
use crate::decimal::Decimal;

fn file(checks: &str) -> String {
    format!(
        "migration: m
sources: {{ legacy: {{ mongodb: {{ uri: \"${{MONGO}}\", database: d }} }}, base: {{ nocodb: {{ url: \"http://h\", token: t, base: b }} }} }}
target: {{ postgres: {{ uri: \"${{PG}}\" }} }}
collections:
  legacy.users: {{ into: users, columns: {{ id: {{ uuid: _id }} }} }}
checks:
{checks}"
    )
}

fn good(checks: &str) -> Vec<Check> {
    read(&file(checks)).unwrap_or_else(|found| panic!("{found}")).checks
}

fn both(check: &Check) -> &Both {
    match &check.asks {
        Asks::Both(both) => both,
        Asks::Nothing(_) => panic!("it has a source"),
    }
}

fn stages(check: &Check) -> String {
    let mut text = Vec::new();
    let bytes = both(check).stages.as_deref().expect("stages");
    extjson::write(Document::new(bytes).expect("BSON"), &mut text).expect("BSON");
    String::from_utf8(text).expect("text")
}

#[test]
fn reads_every_form() {
    let checks = good(
        "  - { name: a, returns_nothing: select 1, every: 1h, rollback: true }
  - { name: b, source: { collection: legacy.users }, target: select 2, at: 3:05 }
  - { name: c, source: { collection: base.Berths }, target: select 3 }
  - { name: d, source: { collection: legacy.a.b, filter: { paid: true } }, target: select 4, by: user, of: legacy.users, within: 0.5% }
  - name: e
    source:
      collection: legacy.users
      aggregate: [ { $match: { n: { $gt: 1.5 }, t: \"7\", d: { $date: 2026-03-01T00:00:00Z }, i: { $oid: 65f1a0b2c3d4e5f60718293a }, m: { $numberDecimal: 1.10 },
                               x: null, y: [ true, text, 5_000, -7, 3000000000 ] } }, { $count: n } ]
    target: select 5
    within: 2
",
    );
    assert!(matches!(&checks[0].asks, Asks::Nothing(sql) if sql.value == "select 1") && checks[0].rollback);
    assert_eq!(checks[0].schedule, Some(Schedule::Every(std::time::Duration::from_secs(3600))));
    assert_eq!(checks[1].schedule, Some(Schedule::At(185)));
    let count = r#"{"pipeline": [{"$group": {"_id": null,"count": {"$sum": {"$numberInt": "1"}}}}]}"#;
    assert_eq!(stages(&checks[1]), count);
    assert_eq!((both(&checks[2]).source.as_str(), &both(&checks[2]).stages), ("base", &None));
    let d = both(&checks[3]);
    assert_eq!(
        (d.collection.value.as_str(), d.by.as_deref(), d.of.as_deref()),
        ("a.b", Some("user"), Some("legacy.users"))
    );
    assert_eq!(d.within, Within::Percent(Decimal::parse("0.5").expect("a number")));
    let grouped = r#"{"pipeline": [{"$match": {"paid": true}},{"$group": {"_id": "$user","count": {"$sum": {"$numberInt": "1"}}}}]}"#;
    assert_eq!(stages(&checks[3]), grouped);
    let e = r#"{"pipeline": [{"$match": {"n": {"$gt": {"$numberDouble": "1.5"}},"t": "7","d": {"$date": {"$numberLong": "1772323200000"}},"i": {"$oid": "65f1a0b2c3d4e5f60718293a"},"m": {"$numberDecimal": "1.10"},"x": null,"y": [true,"text","5_000",{"$numberInt": "-7"},{"$numberLong": "3000000000"}]}},{"$count": "n"}]}"#;
    assert_eq!(stages(&checks[4]), e);
    assert_eq!(both(&checks[4]).within, Within::Amount(Decimal::parse("2").expect("a number")));
    assert!(!format!("{checks:?}").contains("hush"));
}

#[test]
fn every_mistake_has_its_place() {
    let found = read(&file(
        "  - { returns_nothing: select 1 }
  - { name: a }
  - { name: b, returns_nothing: select 1, source: { collection: legacy.users }, within: 1 }
  - { name: c, source: { collection: legacy.users } }
  - { name: d, target: select 1 }
  - { name: e, source: { collection: users }, target: select 1 }
  - { name: f, source: { collection: lgacy.users }, target: select 1 }
  - { name: g, source: { collection: legacy.users, aggregate: [ { $out: x } ] }, target: select 1 }
  - { name: h, source: { collection: legacy.users, aggregate: [ { $facet: { a: [ { $merge: x } ] } } ] }, target: select 1 }
  - { name: i, source: { collection: legacy.users, aggregate: [ { $changeStream: { a: 1 } } ] }, target: select 1 }
  - { name: j, source: { collection: legacy.users, aggregate: [] }, target: select 1 }
  - { name: k, source: { collection: legacy.users, aggregate: { $count: n } }, target: select 1 }
  - { name: l, source: { collection: legacy.users, aggregate: [ { match: 1 } ] }, target: select 1 }
  - { name: m, source: { collection: legacy.users, aggregate: [ { $match: { i: { $oid: short } } } ] }, target: select 1 }
  - { name: n, source: { collection: legacy.users, aggregate: [ { $match: { a: 1, a: 2 } } ] }, target: select 1 }
  - { name: o, source: { collection: legacy.users, aggregate: [ { $count: n } ], filter: { a: 1 } }, target: select 1 }
  - { name: p, source: { collection: legacy.users, filter: [ a ] }, target: select 1 }
  - { name: q, source: { collection: legacy.users, agregate: [ { $count: n } ] }, target: select 1 }
  - { name: r, source: { collection: legacy.users }, target: select 1, within: 1 percent }
  - { name: s, source: { collection: legacy.users }, target: select 1, within: -1 }
  - { name: t, source: { collection: legacy.users }, target: select 1, of: legacy.users }
  - { name: u, source: { collection: legacy.users }, target: select 1, every: 1h, at: 03:00 }
  - { name: v, source: { collection: legacy.users }, target: select 1, at: 24:00 }
  - { name: w, source: { collection: legacy.users }, target: select 1, every: soon, rollback: perhaps }
  - { name: x, source: { collection: base.Berths, filter: { a: 1 } }, target: select 1 }
  - { name: y, source: { collection: base.Berths }, target: select 1, by: a }
  - { name: z, returns_nothing: select 1 }
  - { name: z, returns_nothing: select 1, evry: 1h }
  - { name: zz, source: { collection: legacy.users, aggregate: [ { $match: { n: 99999999999999999999 } } ] }, target: select 1 }
",
    ))
    .expect_err("mistakes");
    assert!(!found.report(false).contains("hush"));
    insta::assert_snapshot!(found);
}

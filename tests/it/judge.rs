//! The judges are judged: the oracle finds what is planted, the watcher sees a row go back, writers lose nothing.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use slackwater_migrations::Watcher;
use slackwater_migrations::crm_demo::{self, Kind, Pace, Writers};
use tokio::sync::watch;

use crate::stage::{PATIENCE, Stage, until};

/// Writes the rows that the oracle expects, one by one: correct by definition, and slow.
async fn load_naively(stage: &Stage) {
    let target = &stage.target;
    target.batch_execute("BEGIN").await.expect("a transaction");
    for kind in Kind::ALL {
        let collection = stage.source.collection::<Document>(kind.collection());
        let mut documents = collection.find(doc! {}).await.expect("documents can be read");
        while let Some(document) = documents.try_next().await.expect("documents can be read") {
            for (shape, rows) in crm_demo::expected(kind, &document).expect("documents of the example") {
                let quote = |cell: &Option<String>, column: &&str| match cell {
                    None => "NULL".into(),
                    // The oracle's own form of JSON is not JSON: the document is asked again.
                    Some(_) if shape.json.contains(column) => json(&document, column),
                    Some(text) => format!("'{}'", text.replace('\'', "''")),
                };
                for row in rows {
                    let cells: Vec<String> =
                        row.iter().zip(shape.columns).map(|(cell, column)| quote(cell, column)).collect();
                    let updated: Vec<_> =
                        shape.columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
                    let statement = format!(
                        "INSERT INTO {} VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
                        shape.table,
                        cells.join(", "),
                        shape.columns[..shape.key].join(", "),
                        updated.join(", ")
                    );
                    target.batch_execute(&statement).await.expect("a row that the schema takes");
                }
            }
        }
    }
    target.batch_execute("COMMIT").await.expect("a transaction");
}

/// The document's field, or the fields that no column takes, as JSON by other means than the oracle's.
fn json(document: &Document, column: &str) -> String {
    fn value(inner: &bson::Bson) -> serde_json::Value {
        use serde_json::Value;
        match inner {
            bson::Bson::Document(document) => {
                document.iter().map(|(name, inner)| (name.clone(), value(inner))).collect()
            }
            bson::Bson::Array(items) => items.iter().map(value).collect(),
            bson::Bson::String(text) => Value::String(text.clone()),
            bson::Bson::Boolean(flag) => (*flag).into(),
            bson::Bson::Int32(number) => (*number).into(),
            bson::Bson::Int64(number) => (*number).into(),
            bson::Bson::Double(number) => (*number).into(),
            bson::Bson::Decimal128(number) => number.to_string().parse::<f64>().expect("a number").into(),
            bson::Bson::ObjectId(id) => Value::String(id.to_hex()),
            bson::Bson::DateTime(time) => {
                let days = jiff::Timestamp::from_millisecond(time.timestamp_millis()).expect("a time");
                Value::String(days.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
            }
            // Printed as `Binary(0x0, base64)`.
            bson::Bson::Binary(binary) => {
                let printed = binary.to_string();
                let (_, text) = printed.split_once(", ").expect("a subtype, then the bytes");
                Value::String(text.trim_end_matches(')').into())
            }
            _ => Value::Null,
        }
    }
    let rest = ["source", "size", "remarks", "about", "score", "nick", "terms", "remark"];
    let json = match column {
        "extra" => document
            .iter()
            .filter(|(name, _)| rest.contains(&name.as_str()))
            .map(|(name, inner)| (name.clone(), value(inner)))
            .collect(),
        column => document.get(column).map_or(serde_json::Value::Null, value),
    };
    format!("'{}'", json.to_string().replace('\'', "''"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oracle_finds_what_is_planted() {
    let (stage, _) = Stage::crm("oracle", 11, 2_000).await;
    assert!(!stage.crm_compare().await.is_equal(), "empty tables are not equal");
    load_naively(&stage).await;
    let report = stage.crm_compare().await;
    assert!(report.is_equal(), "{report}");
    assert_eq!(report.documents, 2_000);
    let rows = report.rows();
    stage
        .target
        .batch_execute(
            "UPDATE users SET balance = balance + 0.01 WHERE id = (SELECT min(id::text)::uuid FROM users);
             UPDATE users SET settings = settings || '{\"theme\": \"odd\"}', full_name = full_name || ' '
               WHERE id = (SELECT max(id::text)::uuid FROM users);
             UPDATE ledger_entries SET amount = amount, flags = flags;
             DELETE FROM booking_guests WHERE ctid = (SELECT min(ctid) FROM booking_guests);
             UPDATE booking_slots SET starts_at = starts_at + interval '1 millisecond'
               WHERE ctid IN (SELECT ctid FROM booking_slots LIMIT 3);
             INSERT INTO organisations SELECT gen_random_uuid(), code || '+', team, name, kind, address_street,
               address_city, address_zip, address_country, founded_on, vat_id, credit_limit, domains, active,
               created_at, meta, extra, version FROM organisations LIMIT 2",
        )
        .await
        .expect("differences can be planted");
    let report = stage.crm_compare().await;
    println!("{report}");
    let table = |name| report.tables.iter().find(|table| table.table == name).expect("a table");
    assert_eq!(table("users").different, 2);
    let mut columns = table("users").columns.clone();
    columns.sort_unstable();
    assert_eq!(columns, [("balance", 1), ("full_name", 1), ("settings", 1)]);
    assert_eq!(table("booking_guests").missing, 1);
    assert_eq!(
        (table("booking_slots").different, &*table("booking_slots").columns),
        (3, &[("starts_at", 3)][..])
    );
    assert_eq!(table("organisations").extra, 2);
    assert!(table("ledger_entries").is_equal() && table("invoices").is_equal());
    assert_eq!(report.rows(), rows - 2 - 1 - 3);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watcher_sees_a_row_go_back() {
    let (stage, _) = Stage::crm("watcher", 12, 500).await;
    load_naively(&stage).await;
    Watcher::lay_tripwires(&stage.target, crm_demo::WATCHED).await.expect("tripwires can be laid");
    let (stop, stopped) = watch::channel(false);
    let watcher = Watcher::spawn(stage.postgres.clone(), crm_demo::WATCHED, stopped);
    let looked = "SELECT coalesce(sum(seq_scan + idx_scan), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'users'";
    let before: i64 = stage.target.query_one(looked, &[]).await.expect("statistics").get(0);
    until("the watcher has looked", PATIENCE, async || {
        let row = stage.target.query_one(looked, &[]).await.expect("statistics");
        (row.get::<_, i64>(0) > before).then_some(())
    })
    .await;
    let one = "(SELECT min(id::text)::uuid FROM invoices)";
    for change in ["version = 9", "version = 8", "version = 10"] {
        let update = format!("UPDATE invoices SET {change} WHERE id = {one}");
        stage.target.batch_execute(&update).await.expect("a row can be changed");
    }
    // Gone and back with an older version: no trigger sees that, the last look does.
    let again = "BEGIN; CREATE TEMPORARY TABLE kept AS SELECT * FROM ledger_entries LIMIT 1;
                 DELETE FROM ledger_entries WHERE id = (SELECT id FROM kept); UPDATE kept SET version = 0;
                 INSERT INTO ledger_entries SELECT * FROM kept; COMMIT";
    stage.target.batch_execute(again).await.expect("a row can be changed");
    stop.send(true).expect("the watcher listens");
    let watcher = watcher.await.expect("a task").expect("the target can be read");
    println!("{watcher}");
    let tripped =
        watcher.backwards.iter().any(|found| found.table == "invoices" && (found.was, found.now) == (9, 8));
    let polled = watcher.backwards.iter().any(|found| found.table == "ledger_entries" && found.now == 0);
    assert!(tripped && polled && watcher.verdict().is_err(), "{:?}", watcher.backwards);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_know_what_they_wrote() {
    let (stage, _) = Stage::crm("writers", 13, 2_000).await;
    for seed in [1, 2] {
        let (stop, stopped) = watch::channel(false);
        let pace = Pace { writers: 3, rate: None };
        let writers = Writers::learn(&stage.source, seed, pace).await.expect("documents can be read");
        let writing = tokio::spawn(writers.write(stopped));
        let streamed = stage.source.collection::<Document>("ledger");
        let until_v = doc! {"v": {"$gte": 3 + 2 * seed as i64}};
        until("a ledger entry was changed often", Duration::from_secs(60), async || {
            streamed.find_one(until_v.clone()).await.expect("documents can be read")
        })
        .await;
        stop.send(true).expect("the writers listen");
        let written = writing.await.expect("a task").expect("writers write");
        println!("{written}");
        assert!(written.until.is_some() && written.operations.len() >= 8, "{written}");
        stage.target.batch_execute("TRUNCATE organisations CASCADE").await.expect("an empty target");
        load_naively(&stage).await;
        let lost = written.lost(&stage.target).await.expect("rows can be read");
        assert!(lost.is_empty(), "{} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
        let report = stage.crm_compare().await;
        assert!(report.is_equal(), "{report}");
        stage.target.batch_execute("DELETE FROM ledger_entries").await.expect("rows can be deleted");
        assert!(!written.lost(&stage.target).await.expect("rows can be read").is_empty());
    }
    stage.clear().await;
}

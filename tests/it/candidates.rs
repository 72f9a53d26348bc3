//! Rows that may mean the same are listed for a person: the right pairs, in CSV that reads back, also among many rows. Nothing is changed.

use std::time::{Duration, Instant};

use crate::stage::{Stage, number};

const SCHEMA: &str = "CREATE TABLE public.clients (id uuid PRIMARY KEY, name text, city text, phone text);";

const FILE: &str = r#"migration: near
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.clients:
    into: clients
    candidates: { near: name, within: 2, same: [city] }
    columns: { id: { uuid: _id }, name: name, city: city, phone: phone }
"#;

async fn listed(stage: &Stage, file: &str) -> (Vec<String>, String) {
    let output = stage.output(&["candidates", file, "--out", "-"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (text.split_terminator("\r\n").map(str::to_owned).collect(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn near_matches_are_listed_and_nothing_is_merged() {
    let stage = Stage::new("candidates").await;
    stage.target.batch_execute(SCHEMA).await.expect("a table");
    let rows = "INSERT INTO public.clients (id, name, city) VALUES
        ('00000000-0000-0000-0000-000000000001', 'Ann \"A\", O''Neil', 'Oslo'), ('00000000-0000-0000-0000-000000000002', 'anna A O Neil', ' OSLO'),
        ('00000000-0000-0000-0000-000000000003', 'Ann A ONeil', 'Rome'), ('00000000-0000-0000-0000-000000000004', NULL, 'Oslo'),
        ('00000000-0000-0000-0000-000000000005', 'Bob', 'Oslo')";
    stage.target.batch_execute(rows).await.expect("rows");
    let file = stage.file("migration.yaml", FILE);
    let path = file.to_str().expect("a path in UTF-8");
    let (lines, said) = listed(&stage, path).await;
    let id = |n: u8| format!("00000000-0000-0000-0000-00000000000{n}");
    let wanted = format!("public.clients,1,{},{},\"Ann \"\"A\"\", O'Neil\",anna A O Neil,Oslo", id(1), id(2));
    assert_eq!(lines, ["table,distance,id,other id,name,other name,city", &wanted]);
    assert!(said.contains("public.clients: 1 candidates among 5 rows"), "{said}");
    let count: i64 =
        stage.target.query_one("SELECT count(*) FROM public.clients", &[]).await.expect("a count").get(0);
    assert_eq!(count, 5);
    // Columns that are not there, and values that are shown to nobody.
    for (from, to, says) in [
        ("near: name", "near: nmae", "has no column `nmae`"),
        ("name: name,", "name: { text: name, sensitive: true },", "`name` is sensitive"),
    ] {
        let file = stage.file("wrong.yaml", &FILE.replace(from, to));
        let output = stage.output(&["candidates", file.to_str().expect("a path in UTF-8")]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains(says), "{said}");
    }
    // Many names in one city: each has one near it, and the time does not grow with the square.
    let many = number("SLACKWATER_TEST_NAMES", 10_000);
    let more = format!(
        "TRUNCATE public.clients; INSERT INTO public.clients (id, name, city)
         SELECT gen_random_uuid(), substr(md5(n::text), 1, 16) || CASE e WHEN 0 THEN '' ELSE 'x' END, 'Oslo'
         FROM generate_series(1, {}) AS n, generate_series(0, 1) AS e",
        many / 2
    );
    stage.target.batch_execute(&more).await.expect("rows");
    let begun = Instant::now();
    let output =
        tokio::time::timeout(Duration::from_secs(300), stage.output(&["candidates", path, "--out", "-"]))
            .await;
    let text = String::from_utf8(output.expect("it ends").stdout).expect("UTF-8");
    println!("{many} rows in {:?}", begun.elapsed());
    assert_eq!(text.split_terminator("\r\n").count() as u64, many / 2 + 1);
    stage.clear().await;
}

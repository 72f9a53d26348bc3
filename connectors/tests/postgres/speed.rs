//! Rows per second, to be run by hand: `cargo test --release -p slackwater-connectors --test postgres speed -- --ignored
//! --nocapture`.

use std::time::{Duration, Instant};

use slackwater_connectors::postgres::progress::{Counts, Notes};
use slackwater_connectors::postgres::rows::WriteSet;

use super::database::{V, from, ours, row, spec, text, with};

const WIDE: &str =
    "CREATE TABLE t (id uuid PRIMARY KEY, org uuid NOT NULL, name text, email text, active bool, n int,
    total numeric(20,2), ratio float8, created timestamptz, updated timestamptz, tags text[], extra jsonb)";
const COLUMNS: [&str; 12] =
    ["id", "org", "name", "email", "active", "n", "total", "ratio", "created", "updated", "tags", "extra"];
const BATCH: u128 = 1000;

fn wide(number: u128, version: i32) -> [V; 12] {
    let words = [2_i16, 0, 0, 2, (number % 9999) as i16, 1200];
    let at = V::Raw((700_000_000_000_000 + number as i64).to_be_bytes().to_vec());
    let scattered = u128::from((number as u32).wrapping_mul(2_654_435_761)) << 16;
    [
        ours(scattered),
        ours(number / 7),
        text(format!("User number {number} v{version}")),
        text(format!("user{number}@example.com")),
        V::Raw(vec![1]),
        V::Int(version),
        V::Raw(words.iter().flat_map(|word| word.to_be_bytes()).collect()),
        V::Raw((number as f64).to_be_bytes().to_vec()),
        at.clone(),
        at,
        V::Texts(vec!["red", "green"]),
        V::Raw(format!("\u{1}{{\"a\":{number},\"b\":\"hello\",\"v\":{version}}}").into_bytes()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "it is what the measurement is for")]
async fn speed() {
    with(|database| async move {
        let catalog = database.tables(WIDE, &["t"]).await;
        let specs = || vec![spec(&catalog, "t", &COLUMNS, &["id"], None)];
        let (_control, mut sink) = database.sink(specs()).await;
        let client = database.client().await;
        let mut sequence = 0;
        for batch in [BATCH, 10 * BATCH] {
            for (what, version, copy) in [
                ("apply, new", 0, false),
                ("apply, changed", 1, false),
                ("apply, same", 1, false),
                ("copy", 0, true),
            ] {
                if version == 0 {
                    client.batch_execute("TRUNCATE public.t").await.expect("emptied");
                    client.batch_execute("CHECKPOINT").await.expect("written");
                }
                let mut spent = Duration::ZERO;
                let batches = 100 * BATCH / batch;
                for part in 0..batches {
                    let mut writes = WriteSet::new(&specs(), copy);
                    for number in part * batch..(part + 1) * batch {
                        row(&mut writes, 0, &wide(number, version));
                    }
                    let start = Instant::now();
                    let counts: Counts = if copy {
                        sink.copy(&from(sequence), &writes, &Notes::default()).await.expect("copied")
                    } else {
                        sink.apply(&from(sequence), &writes, &Notes::default()).await.expect("applied")
                    };
                    spent += start.elapsed();
                    sequence += 1;
                    assert_eq!(counts.received, batch as u64);
                }
                let rate = (batches * batch) as f64 / spent.as_secs_f64();
                println!("{what}, batches of {batch}: {rate:.0} rows/s");
            }
        }
    })
    .await;
}

/// Child sets: 1 000 owners with 5 of 6 children kept, many times over so that a generic plan would be chosen.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "it is what the measurement is for")]
async fn speed_of_child_sets() {
    with(|database| async move {
        let catalog = database
            .tables(
                "CREATE TABLE c (id uuid PRIMARY KEY, p uuid NOT NULL, label text); CREATE INDEX ON c (p)",
                &["c"],
            )
            .await;
        let specs = || vec![spec(&catalog, "c", &["id", "p", "label"], &["id"], Some("p"))];
        let (_control, mut sink) = database.sink(specs()).await;
        for sequence in 0..20 {
            let mut writes = WriteSet::new(&specs(), false);
            let kept = if sequence % 2 == 0 { 6 } else { 5 };
            for owner in 0..1000 {
                ours(owner).write(writes.tables[0].owners.push());
                for child in 0..kept {
                    row(&mut writes, 0, &[ours(owner * 10 + child), ours(owner), text("x")]);
                }
            }
            let start = Instant::now();
            let counts = sink.apply(&from(sequence), &writes, &Notes::default()).await.expect("applied");
            println!("{sequence}: {:?}, {} deleted", start.elapsed(), counts.deleted);
        }
    })
    .await;
}

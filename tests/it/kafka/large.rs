//! Documents of 1 MB, 5 MB and just under 16 MB that cannot be compressed, copied and streamed, through a broker with the
//! settings it brings along: they arrive byte for byte.

use std::collections::BTreeMap;

use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use slackwater_migrations::Chance;

use crate::stage::broker::Broker;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::CATCH_UP;
use crate::stage::{Slackwater, Stage, number, until};

const SCHEMA: &str = "CREATE TABLE files (id uuid PRIMARY KEY, n bigint NOT NULL, body bytea, words text,
                      version bigint NOT NULL)";

const FILE: &str = r#"migration: files
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.files:
    - into: files
      columns:
        id: { uuid: _id }
        n: { integer: n }
        body: { bytea: body }
        words: { text: words }
        version: v
"#;

/// MongoDB takes 16 MiB; the rest of the document needs little.
const SIZES: [usize; 4] = [1_000, 1 << 20, 5 << 20, (16 << 20) - 200];

fn noise(chance: &mut Chance, size: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(size + 8);
    while noise.len() < size {
        noise.extend_from_slice(&chance.below(u64::MAX).to_le_bytes());
    }
    noise.truncate(size);
    noise
}

/// The contents of a document, or of a row: by number, version and contents.
type Files = BTreeMap<i64, (i64, Vec<u8>, String)>;

/// One of each size: binary, and one of text.
async fn write(stage: &Stage, chance: &mut Chance, numbers: i64, version: i64, files: &mut Files) {
    let collection = stage.source.collection::<Document>("files");
    for (place, size) in SIZES.iter().chain([&(3 << 20)]).enumerate() {
        let n = numbers + place as i64;
        let (mut body, mut words) = (noise(chance, *size), String::new());
        if place == SIZES.len() {
            // Hexadecimal digits: half of it is noise.
            words = std::mem::take(&mut body).iter().map(|byte| format!("{byte:02x}")).collect();
        }
        let bytes = Binary { subtype: BinarySubtype::Generic, bytes: body.clone() };
        let document = doc! {"_id": n, "n": n, "body": bytes, "words": &words, "v": version};
        let replaced = collection.replace_one(doc! {"_id": n}, document).upsert(true).await;
        replaced.expect("a document can be written");
        files.insert(n, (version, body, words));
    }
}

async fn equal(stage: &Stage, processes: &mut [Slackwater], files: &Files) {
    until("the files are the same, byte for byte", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        // The versions first: they take little to read.
        let rows = stage.target.query("SELECT n, version FROM files", &[]).await.expect("rows can be read");
        let versions: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let wanted = files.iter().map(|(n, (version, ..))| (*n, *version));
        versions.iter().map(|(n, version)| (*n, *version)).eq(wanted).then_some(())
    })
    .await;
    for (n, (_, body, words)) in files {
        let row = stage.target.query_one("SELECT body, words FROM files WHERE n = $1", &[n]).await;
        let row = row.expect("a row can be read");
        assert!(row.get::<_, Vec<u8>>(0) == *body && row.get::<_, String>(1) == *words, "file {n} differs");
    }
}

async fn through(name: &str, more: &'static str) -> i64 {
    let seed = number("SLACKWATER_TEST_SEED", 10);
    let mut chance = Chance::of(seed, 0, 0);
    let broker = Broker::start(name).await;
    let stage = Stage::new(name).await;
    stage.target.batch_execute(SCHEMA).await.expect("the table can be created");
    let mut files = Files::new();
    // Two of each are there before the start, as many come later, and some are written over.
    write(&stage, &mut chance, 0, 1, &mut files).await;
    write(&stage, &mut chance, 100, 1, &mut files).await;
    let pipeline = Pipeline::on(stage, FILE, &Log { more, ..Log::at(&broker.address()) }).await;
    let mut processes =
        vec![pipeline.apply("one", None), pipeline.apply("two", None), pipeline.capture("capture")];
    equal(&pipeline.stage, &mut processes, &files).await;
    write(&pipeline.stage, &mut chance, 200, 1, &mut files).await;
    write(&pipeline.stage, &mut chance, 100, 2, &mut files).await;
    let small = pipeline.stage.source.collection::<Document>("files");
    // Without its image in the stream it is looked up.
    let change = doc! {"$set": {"v": 3_i64}};
    small.update_many(doc! {"n": {"$lt": 100}}, change).await.expect("documents can be changed");
    files.iter_mut().filter(|(n, _)| **n < 100).for_each(|(_, (version, ..))| *version = 3);
    small.delete_one(doc! {"n": 203}).await.expect("a document can be deleted");
    files.remove(&203);
    equal(&pipeline.stage, &mut processes, &files).await;
    processes.pop().expect("the capture").stop().await;
    let standing = pipeline.counted_exactly(CATCH_UP).await;
    println!("{name}: {standing:?}");
    for applier in &mut processes {
        let memory = applier.memory();
        println!("applier {}: {memory} MB", applier.name());
    }
    for applier in processes {
        applier.stop().await;
    }
    pipeline.clear().await;
    standing.parts
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_travel_in_parts() {
    let parts = through("large_bson", "").await;
    assert!(parts > 100, "a megabyte a record: {parts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_travel_in_debeziums_format() {
    through("large_dbz", "values: debezium").await;
}

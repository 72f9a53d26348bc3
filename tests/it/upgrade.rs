//! What a version before left behind when it was killed in the middle of its copy: a start brings the control schema up to date
//! and goes on from there. And a schema that is newer than the program is left alone.
//!
//! `tests/upgrade/dump` wrote the state down with the program of that version. What belongs to a server is put in here: the
//! stream's position, and the topics with their offsets. `tests/upgrade/run` does the same with the program itself.

use std::collections::BTreeMap;
use std::path::Path;

use bson::doc;

use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, broker, items, postgres, state, until};

/// What a version has left: its control schema, and the rows of either log.
#[derive(Debug)]
struct Before {
    version: i32,
    schema: &'static str,
    direct: &'static str,
    kafka: &'static str,
}

/// Before there were several sources.
const FOUR: Before = Before {
    version: 4,
    schema: include_str!("../upgrade/schema-4.sql"),
    direct: include_str!("../upgrade/direct-4.sql"),
    kafka: include_str!("../upgrade/kafka-4.sql"),
};
/// With sources, mappings that are kept, and tables that are known by their number.
const TWELVE: Before = Before {
    version: 12,
    schema: include_str!("../upgrade/schema-12.sql"),
    direct: include_str!("../upgrade/direct-12.sql"),
    kafka: include_str!("../upgrade/kafka-12.sql"),
};

/// As documented: source or target is not what the migration needs.
const UNSUITABLE: i32 = 4;

/// The items that there were; every tenth had been changed.
const ITEMS: i64 = 600;

/// The migration file that the state belongs to.
fn text() -> String {
    items::FILE.replace("workers: 4, chunk_documents: 1000", "workers: 1, chunk_documents: 50")
}

/// The source and the target as they were left, but for what belongs to a server.
async fn restore(stage: &Stage, before: &Before, rows: &str) {
    items::insert(stage, 0..ITEMS).await;
    change(stage, 7).await;
    stage.target.batch_execute(items::SCHEMA).await.expect("the table can be created");
    // Over a connection of its own: what the files set is not for ours.
    let other = postgres(&stage.postgres).await;
    other.batch_execute(before.schema).await.expect("the old schema can be made");
    other.batch_execute(rows).await.expect("the old rows can be written");
    if before.version >= TWELVE.version {
        // What tells that a table is the one that was there.
        let known = "UPDATE slackwater.tables SET oid = 'public.items'::regclass::oid::bigint";
        assert_eq!(stage.target.execute(known, &[]).await.expect("the table can be put in"), 1);
    }
    assert_eq!(version(stage).await, before.version);
}

/// Changes the items whose numbers end in this digit.
async fn change(stage: &Stage, digit: i64) {
    let change = doc! {"$inc": {"v": 1_i64}};
    let changed = items::collection(stage).update_many(doc! {"n": {"$mod": [10, digit]}}, change).await;
    changed.expect("items can be changed");
}

/// What happened while nobody ran, in chunks that are done and in others: only who goes on from the position learns of it.
async fn meanwhile(stage: &Stage) {
    items::insert(stage, ITEMS..ITEMS + 40).await;
    change(stage, 3).await;
    let gone = items::collection(stage).delete_many(doc! {"n": {"$mod": [50, 8]}}).await;
    gone.expect("items can be deleted");
}

async fn version(stage: &Stage) -> i32 {
    let row = stage.target.query_one("SELECT max(version) FROM slackwater.schema_version", &[]).await;
    row.expect("the version can be read").get(0)
}

/// The position of a stream that has seen everything up to now: time, token, and the time in milliseconds.
async fn position(stage: &Stage) -> (i64, Vec<u8>, i64) {
    // A cursor can be read in the session that opened it only.
    let mut session = stage.source.client().start_session().await.expect("a session");
    let open = doc! {"aggregate": 1, "pipeline": [{"$changeStream": {}}], "cursor": {}};
    let opened =
        stage.source.run_command(open).session(&mut session).await.expect("a change stream can be opened");
    let id = opened.get_document("cursor").and_then(|cursor| cursor.get_i64("id")).expect("a cursor's id");
    // The token of an event, because before the first one a stream is a moment ahead of its server; an event of this collection,
    // because the program's stream shows no other. No column is made of the field.
    let touch = items::collection(stage).update_one(doc! {"n": 0}, doc! {"$set": {"touched": true}}).await;
    touch.expect("an item can be touched");
    let event = until("the event comes", PATIENCE, async || {
        let more = doc! {"getMore": id, "collection": "$cmd.aggregate"};
        let more = stage
            .source
            .run_command(more)
            .session(&mut session)
            .await
            .expect("the change stream can be read");
        let cursor = more.get_document("cursor").expect("a cursor");
        cursor.get_array("nextBatch").expect("a batch").first().and_then(|event| event.as_document().cloned())
    })
    .await;
    let close = doc! {"killCursors": "$cmd.aggregate", "cursors": [id]};
    stage.source.run_command(close).await.expect("it can be closed");
    let hex = event.get_document("_id").and_then(|token| token.get_str("_data")).expect("a token is text");
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("a token is in hex");
    let token: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
    // One byte of type, then seconds and counter.
    let time = i64::from_be_bytes(token[1..9].try_into().expect("a token begins with its time"));
    (time, token, (time >> 32) * 1_000)
}

/// A chunk: how many documents, how often it was read, which copy it belongs to. None while it is not done.
type Chunks = BTreeMap<i64, Option<(i64, i32, i32)>>;

/// What a later version has to go on from.
#[derive(Debug)]
struct Left {
    chunks: Chunks,
    lanes: i64,
    events: i64,
}

impl Left {
    async fn read(stage: &Stage) -> Self {
        let rows = state::rows(
            &stage.target,
            "SELECT id, done, documents, reads, generation FROM slackwater.chunks",
        )
        .await;
        let chunk = |row: &tokio_postgres::Row| {
            let done = row.get::<_, bool>(1).then(|| (row.get(2), row.get(3), row.get(4)));
            (row.get(0), done)
        };
        let chunks = rows.iter().map(chunk).collect();
        let statement =
            "SELECT count(*), sum(events)::bigint FROM slackwater.lanes WHERE lane NOT LIKE 'apply/%'";
        let lanes = &state::rows(&stage.target, statement).await[0];
        Self { chunks, lanes: lanes.get(0), events: lanes.get(1) }
    }

    /// Nothing that was done was done again, and everything is done now.
    async fn went_on(&self, stage: &Stage, file: &Path, before: &Before) {
        let now = Self::read(stage).await;
        println!("{self:?}\n{now:?}");
        assert!(version(stage).await > before.version, "the schema was brought up to date");
        let done = self.chunks.iter().filter(|(_, chunk)| chunk.is_some());
        for (id, chunk) in done {
            assert_eq!(now.chunks.get(id), Some(chunk), "chunk {id} was done");
        }
        assert!(now.chunks.values().all(Option::is_some), "the copy went on: {:?}", now.chunks);
        let incidents = state::incidents(&stage.target).await;
        assert!(incidents.is_empty(), "{incidents:?}");
        assert_eq!(state::dead_letters(&stage.target).await, 0);
        assert_eq!(now.lanes, self.lanes, "no lane was made beside an old one");
        assert!(now.events >= self.events, "counters go on");
        let named =
            "SELECT lane FROM slackwater.lanes WHERE lane IN ('stream', 'capture') OR lane LIKE 'copy/%'";
        let named: Vec<String> =
            state::rows(&stage.target, named).await.iter().map(|row| row.get(0)).collect();
        assert!(named.is_empty(), "lanes with their old names: {named:?}");
        let status = stage.status(file).await;
        let lanes = status["lanes"].as_array().expect("lanes");
        let ours = lanes.iter().filter(|lane| !lane["name"].as_str().expect("a name").starts_with("apply/"));
        let epochs: Vec<_> = ours.map(|lane| lane["epoch"].as_i64().expect("an epoch")).collect();
        assert!(
            !epochs.is_empty() && epochs.iter().all(|epoch| *epoch > 1),
            "a process of before is locked out: {epochs:?}"
        );
    }
}

/// A look says that the schema is older, and does not change it.
async fn only_looks(stage: &Stage, file: &Path, before: &Before) {
    let output = stage.output(&["status", file.to_str().expect("a path in UTF-8")]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNSUITABLE), "{said}");
    assert!(said.contains(&format!("it has version {}, older than this program", before.version)), "{said}");
    assert_eq!(version(stage).await, before.version);
}

async fn copied(stage: &Stage, process: &mut Slackwater) {
    until("it is copied", PATIENCE, async || {
        process.still_runs();
        state::copied(&stage.target).await.then_some(())
    })
    .await;
}

async fn goes_on(before: &Before) {
    let stage = Stage::new(&format!("upgrade_direct_{}", before.version)).await;
    let file = stage.file("migration.yaml", &text());
    restore(&stage, before, before.direct).await;
    let (time, token, millis) = position(&stage).await;
    let put = "UPDATE slackwater.lanes SET position_time = $1, position_token = $2, applied_through = $1, horizon = $1, \
               source_time = $3, as_of = $3 WHERE position_time IS NOT NULL";
    let put = stage.target.execute(put, &[&time, &token, &millis]).await.expect("the position can be put in");
    assert_eq!(put, 1, "the stream has a position");
    let left = Left::read(&stage).await;
    only_looks(&stage, &file, before).await;
    meanwhile(&stage).await;
    let mut process = stage.run(&file);
    items::equal(&stage, &mut process, PATIENCE).await;
    copied(&stage, &mut process).await;
    left.went_on(&stage, &file, before).await;
    process.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_version_four_goes_on() {
    goes_on(&FOUR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_version_twelve_goes_on() {
    goes_on(&TWELVE).await;
}

/// It begins as any other, although it comes first in the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_new_with_the_upgrade_takes_nothing_over() {
    let stage = Stage::new("upgrade_added").await;
    stage.target.batch_execute("CREATE TABLE others (id uuid PRIMARY KEY)").await.expect("a table");
    let added = "sources:\n  added: { mongodb: { uri: \"${SLACKWATER_MONGODB_URI}\", database: \"${SOURCE_DATABASE}_added\" } }\n";
    let text = text().replace("sources:\n", added)
        + "  added.others: { into: others, columns: { id: { uuid: _id } } }\n";
    let file = stage.file("migration.yaml", &text);
    restore(&stage, &FOUR, FOUR.direct).await;
    let (time, token, millis) = position(&stage).await;
    let put = "UPDATE slackwater.lanes SET position_time = $1, position_token = $2, applied_through = $1, horizon = $1, \
               source_time = $3, as_of = $3 WHERE position_time IS NOT NULL";
    stage.target.execute(put, &[&time, &token, &millis]).await.expect("the position can be put in");
    let left = Left::read(&stage).await;
    let mut process = stage.run(&file);
    copied(&stage, &mut process).await;
    items::equal(&stage, &mut process, PATIENCE).await;
    let now = Left::read(&stage).await;
    for (id, chunk) in left.chunks.iter().filter(|(_, chunk)| chunk.is_some()) {
        assert_eq!(now.chunks.get(id), Some(chunk), "chunk {id} was done");
    }
    let sql = "SELECT count(*) FROM slackwater.lanes WHERE source = 'legacy'";
    let lanes = &state::rows(&stage.target, sql).await[0];
    assert_eq!(lanes.get::<_, i64>(0), left.lanes, "the lanes are those of the one that had them");
    process.stop().await;
    stage.clear().await;
}

async fn goes_on_through_kafka(before: &Before) {
    let stage = Stage::new(&format!("upgrade_kafka_{}", before.version)).await;
    let log = Log { partitions: 2, ..Log::at(&broker::shared()) };
    let pipeline = Pipeline::on(stage, &text(), &log).await;
    let stage = &pipeline.stage;
    restore(stage, before, before.kafka).await;
    let (time, token, millis) = position(stage).await;
    let names = pipeline.topics.names().await;
    let topic = names.keys().next().expect("a topic");
    // All that was sent was applied, so it is as if nothing had been sent.
    let put = "UPDATE slackwater.log_partitions SET topic = $1, begin_offset = 0, acked_offset = NULL";
    assert_eq!(stage.target.execute(put, &[topic]).await.expect("topics can be put in"), 2);
    let put = "UPDATE slackwater.partitions SET topic = $1, next_offset = 0, position_time = $2, position_token = $3, \
               applied_through = $2, source_time = $4, as_of = $4";
    let applied = stage.target.execute(put, &[topic, &time, &token, &millis]).await;
    assert_eq!(applied.expect("offsets can be put in"), 2);
    let put = "UPDATE slackwater.positions SET position_time = $1, position_token = $2";
    assert_eq!(stage.target.execute(put, &[&time, &token]).await.expect("the position can be put in"), 1);
    let (left, partitions) = (Left::read(stage).await, pipeline.partitions().await);
    only_looks(stage, &pipeline.file, before).await;
    meanwhile(stage).await;
    let mut processes = [pipeline.capture("capture"), pipeline.apply("one", Some("one"))];
    items::equal(stage, &mut processes[0], PATIENCE).await;
    copied(stage, &mut processes[0]).await;
    pipeline.applied_to_the_end(&[], PATIENCE).await;
    left.went_on(stage, &pipeline.file, before).await;
    let after = pipeline.partitions().await;
    for (place, was) in &partitions {
        let now = &after[place];
        println!("{place:?}: {was:?}, {now:?}");
        assert!(now.epoch > was.epoch && now.capture_epoch > was.capture_epoch, "{place:?} has new owners");
        assert!(now.counts.events > was.counts.events, "{place:?}: its counter goes on");
        assert_eq!((&now.lost, after.len()), (&None, partitions.len()));
    }
    for process in processes {
        process.stop().await;
    }
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_version_four_through_kafka_goes_on() {
    goes_on_through_kafka(&FOUR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_version_twelve_through_kafka_goes_on() {
    goes_on_through_kafka(&TWELVE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_left_alone() {
    let stage = Stage::new("upgrade_newer").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..10).await;
    let mut process = stage.run(&file);
    items::equal(&stage, &mut process, PATIENCE).await;
    process.stop().await;
    let newer = version(&stage).await + 1;
    let made = stage.target.execute("INSERT INTO slackwater.schema_version VALUES ($1)", &[&newer]).await;
    made.expect("a later version can be written down");
    items::insert(&stage, 10..20).await;
    let path = file.to_str().expect("a path in UTF-8");
    for arguments in [&["run", path][..], &["status", path], &["cutover", path, "--plan"], &["cutover", path]]
    {
        let output = stage.output(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(UNSUITABLE), "{arguments:?}: {said}");
        let says = format!("it has version {newer}, made by a newer slackwater");
        assert!(said.contains(&says) && said.contains("run the newer one"), "{arguments:?}: {said}");
    }
    let row = stage.target.query_one("SELECT count(*) FROM items", &[]).await.expect("rows can be read");
    assert_eq!(row.get::<_, i64>(0), 10, "nothing was written");
    stage.clear().await;
}

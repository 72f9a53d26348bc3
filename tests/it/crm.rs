//! The CRM that grew, with the direct log and over Kafka: people edit, and delete what others point at, while the processes are killed
//! again and again. In the end every row of all 40 tables is what the documents foretell, nothing is a dead letter, and what
//! waits is exactly what lacks something. Then all that was deleted comes back, and so do the rows that hung on it.
//!
//! By hand: `SLACKWATER_TEST_DOCUMENTS` (of each of the 30 models), `_EDITS`, `_RATE` (edits a second; 0: as fast as it goes), `_KILLS`,
//! `_CHUNK` (documents), `_PATIENCE` (seconds), `_APPLIERS` (up to three), `_SEED` and `_ROUNDS`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::doc;
use slackwater_migrations::crm::{self, Editor, Model, Verdict, Want, World};
use slackwater_migrations::{Chance, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::letters::letters;
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::{applied, patience};
use crate::stage::{Slackwater, Stage, number, postgres, state, until};

/// Edits until there were so many, as far as `limit` allows; how many there were is counted.
fn edit(
    stage: &Stage,
    world: World,
    edits: u64,
    mut limit: watch::Receiver<u64>,
    made: Arc<AtomicU64>,
) -> JoinHandle<Result<Editor>> {
    let database = stage.source.clone();
    let rate = number("SLACKWATER_TEST_RATE", 120);
    tokio::spawn(async move {
        let mut editor = Editor::new(world);
        let mut session = database.client().start_session().await?;
        let mut pace = (rate > 0).then(|| tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64)));
        for edit in 0..edits {
            limit.wait_for(|limit| edit < *limit).await.expect("the test goes on");
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            editor.edit(&database, &mut session).await?;
            made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(editor)
    })
}

/// Whether every collection is copied. A collection is known as soon as its turn comes.
async fn copied_all(stage: &Stage) -> bool {
    let statement = "SELECT count(*) FROM slackwater.collections WHERE state = 'copied' AND NOT reload";
    let copied = state::rows(&stage.target, statement).await.first().map(|row| row.get::<_, i64>(0));
    copied == Some(Model::all().count() as i64)
}

/// When the source's last operation was.
async fn last_operation(stage: &Stage) -> u64 {
    let hello = stage.source.run_command(doc! {"hello": 1}).await.expect("the source answers");
    let time = hello.get_document("lastWrite").and_then(|last| last.get_document("opTime"));
    let time = time.and_then(|time| time.get_timestamp("ts")).expect("the source tells its operation time");
    u64::from(time.time) << 32 | u64::from(time.increment)
}

/// Where it runs.
enum Way {
    Direct(Box<Stage>, PathBuf),
    Kafka(Box<Pipeline>),
}

impl Way {
    async fn new(stage: Stage, snapshot: &str, kafka: bool) -> Self {
        let text = format!("{}\nsnapshot: {snapshot}\n", crm::MIGRATION_FILE);
        if kafka {
            let log = Log { partitions: 3, ..Log::at(&shared()) };
            return Self::Kafka(Box::new(Pipeline::on(stage, &text, &log).await));
        }
        let file = stage.file("slackwater.yaml", &text);
        Self::Direct(Box::new(stage), file)
    }

    fn stage(&self) -> &Stage {
        match self {
            Self::Direct(stage, _) => stage,
            Self::Kafka(pipeline) => &pipeline.stage,
        }
    }

    fn file(&self) -> &Path {
        match self {
            Self::Direct(_, file) => file,
            Self::Kafka(pipeline) => &pipeline.file,
        }
    }

    fn start(&self, which: usize) -> Slackwater {
        match (self, which) {
            (Self::Direct(stage, file), _) => stage.run(file),
            (Self::Kafka(pipeline), 0) => pipeline.capture("capture"),
            (Self::Kafka(pipeline), 1) => pipeline.apply("one", None),
            (Self::Kafka(pipeline), 2) => pipeline.apply("two", None),
            (Self::Kafka(pipeline), _) => pipeline.apply("three", None),
        }
    }

    fn processes(&self) -> usize {
        match self {
            Self::Direct(..) => 1,
            Self::Kafka(_) => 1 + number("SLACKWATER_TEST_APPLIERS", 2).min(3) as usize,
        }
    }

    async fn clear(self) {
        match self {
            Self::Direct(stage, _) => stage.clear().await,
            Self::Kafka(pipeline) => pipeline.clear().await,
        }
    }

    /// Waits until status says that the last edit is applied; then one look has to be enough. How many rows stand and wait.
    async fn settled(&self, what: &str, processes: &mut [Slackwater]) -> (u64, usize) {
        let begun = Instant::now();
        let stage = self.stage();
        applied(stage, self.file(), processes, last_operation(stage).await).await;
        if let Self::Kafka(pipeline) = self {
            // What was copied after the last edit has no place in the source's time.
            pipeline.applied_to_the_end(&[], patience()).await;
        }
        let told = begun.elapsed();
        let waits = state::waiting(stage).await;
        let mut client = postgres(&stage.postgres).await;
        let verdict = crm::compare(&stage.source, &mut client).await.expect("both sides can be read");
        let compared = begun.elapsed();
        let held = verdict.waiting.values().filter(|waiting| waiting.held).count();
        println!(
            "{what}: applied after {told:?}, compared after {compared:?}: {} documents, {} rows as they should be, {} wait, {held} \
             of them held",
            verdict.report.documents,
            verdict.report.rows(),
            verdict.waiting.len()
        );
        if !verdict.report.is_equal() {
            println!("{}", verdict.report);
            panic!("{what}: both sides differ");
        }
        compare_waiting(what, &waits, &verdict);
        assert_eq!(letters(stage).await, [], "{what}: no document is refused");
        assert_eq!(state::incidents(&stage.target).await, Vec::<String>::new(), "{what}: nothing was lost");
        (verdict.report.rows(), verdict.waiting.len())
    }
}

/// What waits is what has to, and for what it lacks. Of a held row something that it requires is enough: the rest is looked for when
/// that comes.
fn compare_waiting(what: &str, waits: &state::Waits, verdict: &Verdict) {
    let mut wrong = Vec::new();
    for (place, waiting) in &verdict.waiting {
        let text = |wants: &BTreeSet<Want>| -> BTreeSet<(String, String)> {
            wants.iter().map(|(column, id)| ((*column).to_owned(), id.to_string())).collect()
        };
        let (lacks, requires) = (text(&waiting.lacks), text(&waiting.requires));
        match waits.get(place) {
            None => wrong.push(format!("{place:?} should wait: {waiting:?}")),
            Some((held, _)) if *held != waiting.held => {
                wrong.push(format!("{place:?}: held {held}, should be {waiting:?}"));
            }
            Some((true, wants)) if !wants.is_subset(&lacks) || wants.is_disjoint(&requires) => {
                wrong.push(format!("{place:?} waits for {wants:?}, lacks {lacks:?}"));
            }
            Some((false, wants)) if *wants != lacks => {
                wrong.push(format!("{place:?} waits for {wants:?}, lacks {lacks:?}"));
            }
            Some(_) => {}
        }
    }
    let unexpected = waits.keys().filter(|place| !verdict.waiting.contains_key(*place));
    wrong.extend(unexpected.map(|place| format!("{place:?} waits for nothing")));
    wrong.iter().take(20).for_each(|wrong| println!("{wrong}"));
    assert!(wrong.is_empty(), "{what}: {} rows do not wait as they should", wrong.len());
}

async fn one(seed: u64, kafka: bool) {
    let documents = number("SLACKWATER_TEST_DOCUMENTS", 100) as u32;
    let edits = number("SLACKWATER_TEST_EDITS", 1_500);
    let kills = number("SLACKWATER_TEST_KILLS", 10);
    let name = if kafka { "kafka" } else { "direct" };
    println!("seed {seed}, {name}, {documents} documents of each model, {edits} edits, {kills} kills");
    let stage = Stage::new(&format!("crm_{name}")).await;
    stage.target.batch_execute(crm::SCHEMA).await.expect("the tables can be created");
    let world = World::new(seed, documents);
    let loaded = crm::load(&stage.source, world).await.expect("the documents can be loaded");
    // Small chunks, so that kills fall between them too.
    let chunk = number("SLACKWATER_TEST_CHUNK", 40);
    let way = Way::new(stage, &format!("{{ workers: 3, chunk_documents: {chunk} }}"), kafka).await;
    let stage = way.stage();
    let begun = Instant::now();
    let mut processes: Vec<Slackwater> = (0..way.processes()).map(|which| way.start(which)).collect();
    let made = Arc::new(AtomicU64::new(0));
    // One half of the edits and the kills while it copies, the other half afterwards.
    let (limit, limited) = watch::channel(edits / 2);
    let editor = edit(stage, world, edits, limited, Arc::clone(&made));
    let mut chance = Chance::of(seed, u64::MAX, 1);
    let (mut copied, mut in_copy) = (None, 0);
    for kill in 0..=kills {
        // The last is none: then the edits come to their end.
        let share = edits / (kills + 1);
        let moment = if kill < kills { kill * share + chance.below(share.max(1)) } else { edits };
        until("the edits go on", patience(), async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            if copied.is_none() && copied_all(stage).await {
                copied = Some(begun.elapsed());
                limit.send(edits).expect("the editor listens");
            }
            (made.load(Ordering::Relaxed) >= moment || editor.is_finished()).then_some(())
        })
        .await;
        if kill == kills {
            break;
        }
        let which = chance.below(processes.len() as u64) as usize;
        let victim = processes.remove(which);
        println!("edit {}: {} is killed, copied: {copied:?}", made.load(Ordering::Relaxed), victim.name());
        victim.kill().await;
        in_copy += u64::from(copied.is_none());
        processes.insert(which, way.start(which));
    }
    let mut editor = editor.await.expect("a task").expect("edits can be made");
    println!("{editor}; {in_copy} of {kills} kills in the copy of {loaded} documents, which took {copied:?}");
    let (rows, waiting) = way.settled("after the last edit", &mut processes).await;
    assert!(rows > 0 && waiting > 0, "nothing waits: take another seed");
    let back = editor.restore(&stage.source).await.expect("documents can be made");
    println!("{back} documents are back");
    let (all, _) = way.settled("after all is back", &mut processes).await;
    assert!(all > rows, "what came back brought no rows");
    for process in processes {
        process.stop().await;
    }
    way.clear().await;
}

async fn many(kafka: bool) {
    let first = number("SLACKWATER_TEST_SEED", 1);
    for seed in first..first + number("SLACKWATER_TEST_ROUNDS", 1) {
        Box::pin(one(seed, kafka)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_edits_with_the_direct_log() {
    many(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_edits_over_kafka() {
    many(true).await;
}

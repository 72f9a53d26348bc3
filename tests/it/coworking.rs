//! The coworking application's 88 collections, with the direct log and over Kafka: people edit, book into the ledger, change what is looked
//! up, and delete what others point at, while the processes are killed again and again. In the end every row of all 53 tables is what
//! the documents foretell, PINs and tokens open with the new key, what is refused and what waits is exactly what has to, and every
//! balance is the sum of the ledger. Then all that was deleted comes back; the daily checks hold, and find one cent that is wrong.
//!
//! By hand: `SLACKWATER_TEST_DOCUMENTS` (of each model), `_EDITS`, `_RATE` (edits a second; 0: as fast as it goes), `_KILLS`, `_CHUNK`
//! (documents), `_PATIENCE` (seconds), `_SEED` and `_ROUNDS`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use slackwater_migrations::coworking::{self, Editor, Verdict, Want, World};
use slackwater_migrations::{Chance, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::letters::letters;
use crate::secrets::Traces;
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::patience;
use crate::stage::{Slackwater, Stage, number, postgres, state, until};

/// Edits until there were so many, as far as `limit` allows; how many there were is counted. Who allows all of them knows that everything
/// is copied.
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
            let copied = *limit.borrow() == edits;
            editor.edit(&database, &mut session, copied).await?;
            made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(editor)
    })
}

/// Whether every collection is copied. A collection is known as soon as its turn comes.
async fn copied_all(stage: &Stage) -> bool {
    let statement = "SELECT count(*) FROM slackwater.collections WHERE state = 'copied' AND NOT reload";
    let copied = state::rows(&stage.target, statement).await.first().map(|row| row.get::<_, i64>(0));
    copied == Some(coworking::collections() as i64)
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
        let text = format!("{}\nsnapshot: {snapshot}\n", coworking::MIGRATION_FILE);
        for (name, text) in coworking::INCLUDED {
            stage.file(name, text);
        }
        if kafka {
            let log = Log { partitions: 2, ..Log::at(&shared()) };
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
            (Self::Kafka(pipeline), _) => pipeline.apply("two", None),
        }
    }

    fn processes(&self) -> usize {
        match self {
            Self::Direct(..) => 1,
            Self::Kafka(_) => 3,
        }
    }

    async fn clear(self) {
        match self {
            Self::Direct(stage, _) => stage.clear().await,
            Self::Kafka(pipeline) => pipeline.clear().await,
        }
    }

    /// Waits until everything is copied and status says that what the source has done is applied.
    async fn applied(&self, processes: &mut [Slackwater]) {
        let (stage, mut last, mut logged) = (self.stage(), last_operation(self.stage()).await, false);
        until("status says that the last write is applied", patience(), async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            let status = stage.status(self.file()).await;
            if matches!(self, Self::Kafka(_)) && !logged && status["copied"] == true {
                // What was copied is in the log; what the source shows from now on comes behind it.
                logged = true;
                last = status["source_operation_time"].as_u64().expect("the source answers").max(last);
            }
            let applied = status["applied_through"].as_u64().is_some_and(|applied| applied >= last);
            (applied && status["copied"] == true).then_some(())
        })
        .await;
        if let Self::Kafka(pipeline) = self {
            // What was copied after the last edit has no place in the source's time.
            pipeline.applied_to_the_end(&[], patience()).await;
        }
    }

    /// When everything is applied, one look has to be enough. How many rows stand and wait.
    async fn settled(&self, what: &str, processes: &mut [Slackwater], editor: &Editor) -> (u64, usize) {
        let begun = Instant::now();
        let stage = self.stage();
        self.applied(processes).await;
        let told = begun.elapsed();
        let waits = state::waiting(stage).await;
        let mut client = postgres(&stage.postgres).await;
        let firsts: Vec<&Document> = editor.firsts().collect();
        let verdict = coworking::compare(&stage.source, &mut client, &firsts).await;
        let verdict = verdict.expect("both sides can be read");
        let held = verdict.waiting.values().filter(|waiting| waiting.held).count();
        println!(
            "{what}: applied after {told:?}, compared after {:?}: {} documents, {} rows as they should be, {} secrets opened, {} wait, {held} \
             of them held, {} lack a value, {} are refused",
            begun.elapsed(),
            verdict.report.documents,
            verdict.report.rows(),
            verdict.opened,
            verdict.waiting.len(),
            verdict.lacking,
            verdict.refused
        );
        if !verdict.report.is_equal() {
            println!("{}", verdict.report);
            panic!("{what}: both sides differ");
        }
        assert_eq!(verdict.secrets, Vec::<String>::new(), "{what}: secrets are what they were");
        compare_waiting(what, &waits, &verdict);
        let lacking = state::rows(&stage.target, "SELECT count(*) FROM slackwater.lacking").await;
        assert_eq!(lacking[0].get::<_, i64>(0), verdict.lacking as i64, "{what}: rows that lack a value");
        // Notes about what has no table.
        let refused = [("legacy.crmnote".to_owned(), "route".to_owned(), verdict.refused as i64)];
        assert_eq!(letters(stage).await, refused, "{what}: only what fits nowhere is refused");
        let mut incidents = state::incidents(&stage.target).await;
        incidents.retain(|incident| !incident.contains(r#""kind": "append_only""#));
        assert_eq!(incidents, Vec::<String>::new(), "{what}: nothing was lost");
        let changed = state::rows(&stage.target, "SELECT DISTINCT id FROM slackwater.breaches").await;
        assert_eq!(changed.len(), firsts.len(), "{what}: every change of the ledger is listed");
        (verdict.report.rows(), verdict.waiting.len())
    }

    /// The daily checks: the code, and what is said.
    async fn checks(&self) -> (Option<i32>, String) {
        let path = self.file().to_str().expect("a path in UTF-8");
        let output = self.stage().output(&["checks", path]).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said + &String::from_utf8_lossy(&output.stderr))
    }
}

/// What waits is what has to, and for what it lacks. Of a held row something that it requires is enough: the rest is looked for when
/// that comes.
fn compare_waiting(what: &str, waits: &state::Waits, verdict: &Verdict) {
    let mut wrong = Vec::new();
    for (place, waiting) in &verdict.waiting {
        let text = |wants: &BTreeSet<Want>| -> BTreeSet<(String, String)> {
            wants.iter().map(|(column, id)| ((*column).to_owned(), id.clone())).collect()
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
    let documents = number("SLACKWATER_TEST_DOCUMENTS", 60) as u32;
    let edits = number("SLACKWATER_TEST_EDITS", 1_500);
    let kills = number("SLACKWATER_TEST_KILLS", 10);
    let name = if kafka { "kafka" } else { "direct" };
    println!("seed {seed}, {name}, {documents} documents of each model, {edits} edits, {kills} kills");
    let mut stage = Stage::new(&format!("coworking_{name}")).await;
    stage.variables = coworking::variables();
    stage.target.batch_execute(coworking::SCHEMA).await.expect("the tables can be created");
    let world = World::new(seed, documents);
    let loaded = coworking::load(&stage.source, world).await.expect("the documents can be loaded");
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
    let (rows, waiting) = way.settled("after the last edit", &mut processes, &editor).await;
    assert!(rows > 0 && waiting > 0, "nothing waits: take another seed");
    let back = editor.restore(&stage.source).await.expect("documents can be made");
    println!("{back} documents are back");
    let (all, _) = way.settled("after all is back", &mut processes, &editor).await;
    assert!(all > rows, "what came back brought no rows");
    let verifying = Instant::now();
    stage.verifies(way.file()).await;
    println!("verified in {:?}", verifying.elapsed());

    let (code, said) = way.checks().await;
    assert_eq!(code, Some(0), "{said}");
    // A cached balance that is a cent off: one user of all.
    let cent = doc! {"$inc": {"amount": "0.01".parse::<bson::Decimal128>().expect("a number")}};
    let balances = stage.source.collection::<Document>("balance");
    balances.update_one(doc! {}, cent).await.expect("a balance can be changed");
    // Both sides are read as they were at one moment, which may be shortly before.
    until("one cent is found", patience(), async || {
        let (code, said) = way.checks().await;
        let found = said
            .lines()
            .any(|line| line.contains("balance of every user's wallet") && !line.contains("agree"));
        (code != Some(0) && found).then_some(())
    })
    .await;

    let mut traces = Traces::default();
    traces.folder(&stage.folder, &["log"]);
    traces.state(stage).await;
    traces.verdict();
    for process in processes {
        process.stop().await;
    }
    println!("seed {seed}, {name}: {:?}", begun.elapsed());
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

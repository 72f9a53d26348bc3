//! The report of a run, and what an operator accepts although it blocks.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bson::doc;
use serde_json::Value;

use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::{PATIENCE, Slackwater, Stage, items, state, until};

/// The smallest migration with a document that cannot be a row, and a process that follows.
struct Small {
    stage: Stage,
    run: Slackwater,
    _mongod: Mongod,
}

const CHECK: &str = "\nchecks:\n  - { name: no version is negative, returns_nothing: \"select from items where version < 0\" }\n";

impl Small {
    /// `broken`: whether there is such a document.
    async fn set(name: &str, broken: bool) -> Self {
        Self::with(name, broken, "").await
    }

    /// `more`: a section of the file.
    async fn with(name: &str, broken: bool, more: &str) -> Self {
        let mongod = Mongod::start(name, Flavour::Replica).await;
        let stage = Stage::at(&format!("cutover_{name}"), &mongod.uri()).await;
        items::prepare(&stage).await;
        items::insert(&stage, 0..300).await;
        if broken {
            let nameless = doc! {"_id": 1_000_i64, "n": 1_000_i64, "v": 1_i64};
            items::collection(&stage).insert_one(nameless).await.expect("a document");
        }
        stage.file("migration.yaml", &format!("{}{CHECK}{more}", items::FILE));
        let mut run = stage.run(&stage.folder.join("migration.yaml"));
        until("everything is copied", PATIENCE, async || {
            run.still_runs();
            let letters = i64::from(broken);
            let there =
                state::copied(&stage.target).await && state::dead_letters(&stage.target).await == letters;
            there.then_some(())
        })
        .await;
        let small = Self { stage, run, _mongod: mongod };
        until("it follows closely", PATIENCE, async || {
            let (_, status) = small.json(&["status", "migration.yaml"]).await;
            status["lag_ms"].as_i64().is_some_and(|lag| lag < 1_500).then_some(())
        })
        .await;
        small
    }

    /// A command with `--json`: code and answer.
    async fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let output = self.stage.output(&[arguments, &["--json"]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = serde_json::from_slice(&output.stdout);
        (output.status.code(), json.unwrap_or_else(|_| panic!("no JSON: {said}")))
    }

    /// A switch for which this machine was quick enough.
    async fn switch(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let all = [&["cutover"], arguments].concat();
        until("this machine is quick enough for a switch", super::LONG, async || {
            let (code, said) = self.json(&all).await;
            super::slow(&said).is_none().then_some((code, said))
        })
        .await
    }

    /// It is refused for its arguments, with this in the message.
    async fn refused(&self, arguments: &[&str], with: &str) {
        let output = self.stage.output(&[&["cutover", "migration.yaml"], arguments].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(with), "{said}");
    }

    /// The reports in a folder.
    fn reports(&self, folder: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.stage.folder.join(folder)) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    }

    async fn records(&self) -> i64 {
        state::rows(&self.stage.target, "SELECT count(*) FROM slackwater.cutovers").await[0].get(0)
    }

    async fn end(mut self) {
        until("the process ends by itself", PATIENCE, async || self.run.ended()).await;
        let Self { stage, run, .. } = self;
        drop(run);
        super::thaw(&stage).await;
        stage.clear().await;
    }
}

fn text(report: &Path, name: &str) -> String {
    let path = report.join(name);
    let about = format!("{}", path.display());
    let file = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{about}: {error}"));
    assert_eq!(file.permissions().mode() & 0o777, 0o444, "{about}");
    std::fs::read_to_string(&path).expect("text")
}

/// Everything that is in a report; its JSON.
fn whole(report: &Path, files: &[&str]) -> Value {
    let mut there: Vec<String> = std::fs::read_dir(report)
        .expect("a report")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    there.sort();
    assert_eq!(there, files);
    for name in files {
        assert!(!text(report, name).contains("item 7"), "{name}: a value of a document");
    }
    serde_json::from_str(&text(report, "report.json")).expect("JSON")
}

const FILES: [&str; 6] =
    ["dead_letters.csv", "incidents.csv", "report.html", "report.json", "steps.csv", "tables.csv"];

#[tokio::test(flavor = "multi_thread")]
async fn a_blocker_that_is_accepted_is_in_the_report() {
    let small = Small::set("accepted", true).await;
    // A verification has one too, and the switch says later what it was.
    let (code, said) = small.json(&["verify", "migration.yaml", "--report", "verified"]).await;
    assert_eq!((code, &said["equal"]), (Some(10), &false.into()), "{said:#}");
    let [verified] = small.reports("verified").try_into().expect("one report");
    assert_eq!(small.stage.folder.join(said["report_folder"].as_str().expect("a folder")), verified);
    let name = verified.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("items-verify-2") && name.ends_with('Z'), "{name}");
    let mut files: Vec<&str> = FILES.iter().copied().filter(|name| *name != "steps.csv").collect();
    files.insert(1, "findings.csv");
    let report = whole(&verified, &files);
    assert_eq!((&report["kind"], &report["dead_letters"]), (&"verification".into(), &1.into()), "{report:#}");
    assert_eq!(report["moved"][0]["verified_rows"], 300, "{report:#}");

    // Nothing is accepted by itself, and not everything can be.
    until("the letter alone blocks it", PATIENCE, async || {
        let (code, said) = small.json(&["cutover", "migration.yaml"]).await;
        assert_eq!(code, Some(8), "{said:#}");
        let blockers = said["blockers"].as_array().expect("blockers");
        (blockers.len() == 1 && blockers[0]["blocker"] == "dead_letters").then_some(())
    })
    .await;
    small.refused(&["--accept", "snapshot_unfinished", "--reason", "x"], "can never be accepted").await;
    small.refused(&["--accept", "dead_leters", "--reason", "x"], "dangling_references, dead_letters").await;
    small.refused(&["--accept", "dead_letters"], "--reason").await;
    small.refused(&["--accept", "dead_letters", "--reason", "  "], "say why").await;
    let because = "the thousandth is <test> data";
    let letters = ["migration.yaml", "--accept", "dead_letters", "--reason", because];
    let (code, plan) = small.json(&[&["cutover", "--plan"], &letters[..]].concat()).await;
    assert_eq!((code, plan["blockers"].as_array().map(Vec::len)), (Some(0), Some(0)), "{plan:#}");
    assert_eq!(plan["accepted"][0]["blocker"], "dead_letters", "{plan:#}");
    assert!(
        plan["accepted"][0]["what"].as_str().is_some_and(|what| what.contains("legacy.items")),
        "{plan:#}"
    );
    assert_eq!((small.records().await, small.reports("reports").len()), (0, 0), "nothing was changed");

    // A table that lacks a row has a name of its own.
    let (code, said) = small.switch(&letters).await;
    assert_eq!((code, &said["state"]), (Some(9), &"reverted".into()), "{said:#}");
    assert!(said["reason"].as_str().is_some_and(|reason| reason.starts_with("count_differs: ")), "{said:#}");
    let reverted = small.reports("reports").pop().expect("a report");
    let mut files = FILES.to_vec();
    files.insert(1, "findings.csv");
    let report = whole(&reverted, &files);
    assert_eq!((&report["state"], &report["moved"][0]["counts_agree"]), (&"reverted".into(), &false.into()));
    assert!(
        text(&reverted, "report.html").contains("count_differs: public.items has 300 rows for 301 documents")
    );

    let before = small.reports("reports").len();
    let (code, said) = small.switch(&[&letters[..], &["--accept", "count_differs"]].concat()).await;
    assert_eq!((code, &said["state"]), (Some(0), &"open".into()), "{said:#}");
    let folder = small.stage.folder.join(said["report_folder"].as_str().expect("a folder"));
    let report = whole(&folder, &files);
    let table = &report["moved"][0];
    assert_eq!((&table["documents"], &table["rows"]), (&301.into(), &300.into()), "{report:#}");
    let rows: i64 = state::rows(&small.stage.target, "SELECT count(*) FROM items").await[0].get(0);
    assert_eq!(table["rows"], rows);
    assert_eq!(report["not_moved"]["dead_letters_total"], 1, "{report:#}");
    assert_eq!(report["verification"]["report"]["dead_letters"], 1, "{report:#}");
    assert_eq!(report["versions"]["sources"][0]["kind"], "mongodb", "{report:#}");
    assert!(report["versions"]["postgres"]["version"].is_string(), "{report:#}");
    assert_eq!(report["migration_file"][0]["sha256"].as_str().map(str::len), Some(64), "{report:#}");
    assert_eq!(report["checks"][0]["holds"], true, "{report:#}");
    let names: Vec<&str> = report["accepted"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["blocker"].as_str())
        .collect();
    assert_eq!(names, ["dead_letters", "count_differs"]);
    assert_eq!(report["accepted"][1]["reason"], because);
    assert!(
        report["accepted"][1]["what"].as_str().is_some_and(|what| what.contains("300 rows")),
        "{report:#}"
    );
    let page = text(&folder, "report.html");
    assert!(
        page.contains("the thousandth is &lt;test&gt; data") && page.contains("<code>count_differs</code>")
    );
    let lines = text(&folder, "dead_letters.csv");
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("legacy.items,1000,null,"), "{lines}");
    assert!(text(&folder, "steps.csv").contains("\r\nopen,"), "{}", text(&folder, "steps.csv"));
    let stored = "SELECT accepted, accepted_reason, report FROM slackwater.cutovers WHERE state = 'open'";
    let stored = &state::rows(&small.stage.target, stored).await[0];
    assert_eq!(stored.get::<_, Vec<String>>(0), ["dead_letters", "count_differs"]);
    assert_eq!(stored.get::<_, &str>(1), because);
    assert!(stored.get::<_, &str>(2).contains("count_differs"), "the record has what the run says");

    // Once more does no harm, and makes no second report of the same switch.
    let there = small.reports("reports").len();
    let (code, again) = small.switch(&["migration.yaml"]).await;
    assert_eq!((code, &again["report_folder"]), (Some(0), &said["report_folder"]), "{again:#}");
    assert_eq!(small.reports("reports").len(), there);
    assert!(there > before);
    // Who was killed before the report was written gets it so.
    let (_, again) = small.switch(&["migration.yaml", "--report", "later"]).await;
    let later = small.stage.folder.join(again["report_folder"].as_str().expect("a folder"));
    assert_eq!(whole(&later, &files)["accepted"], report["accepted"]);
    small.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_a_warning() {
    let small = Small::set("unwritable", false).await;
    let output = until("this machine is quick enough for a switch", super::LONG, async || {
        let arguments = ["cutover", "migration.yaml", "--report", "migration.yaml/reports"];
        let output = small.stage.output(&arguments).await;
        output.status.success().then_some(output)
    })
    .await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("the report of this run cannot be written into migration.yaml/reports: "),
        "{said}"
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("is switched"),
        "the switch is made all the same"
    );
    let none = small.json(&["cutover", "migration.yaml", "--report", "none"]).await.1;
    assert_eq!(none["report_folder"], Value::Null, "{none:#}");
    assert!(small.reports("reports").is_empty() && small.reports("none").is_empty());
    small.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_accepts_what_was_accepted() {
    let small = Small::set("resumed", true).await;
    let plain = format!("{}{CHECK}cutover:\n  deadline: 100s\n", items::FILE);
    small
        .stage
        .file("armed.yaml", &format!("{plain}  before: [ {{ name: hold, sql: select pg_sleep(600) }} ]\n"));
    small
        .stage
        .file("frozen.yaml", &format!("{plain}  after: [ {{ name: hold, sql: select pg_sleep(90) }} ]\n"));
    small.stage.file("plain.yaml", &plain);
    let accepted = ["--accept", "dead_letters", "--accept", "count_differs", "--reason", "known"];
    let killed = async |file: &str, more: &[&str], when: &str| {
        let arguments = [&["cutover", file], more].concat();
        let mut leader = small.stage.start(&arguments, "leader");
        until("the leader is that far", super::LONG, async || {
            if leader.ended().is_some() {
                println!("once more: {}", leader.tail());
                leader = small.stage.start(&arguments, "leader");
            }
            let rows = state::rows(&small.stage.target, when).await;
            (!rows.is_empty()).then_some(())
        })
        .await;
        leader.kill().await;
    };
    killed("armed.yaml", &accepted, "SELECT FROM slackwater.cutovers WHERE state = 'armed'").await;
    // Nobody says any more that something is accepted; the record does.
    let held = "SELECT FROM slackwater.cutovers c WHERE state = 'frozen' AND EXISTS (SELECT FROM pg_stat_activity \
                WHERE query LIKE '%pg_sleep(90)%' AND pid <> pg_backend_pid() AND datname = current_database())";
    killed("frozen.yaml", &[], held).await;
    let (code, said) = small.json(&["cutover", "plain.yaml"]).await;
    assert_eq!((code, &said["state"]), (Some(0), &"open".into()), "{said:#}");
    let report = small.stage.folder.join(said["report_folder"].as_str().expect("a folder"));
    let report: Value = serde_json::from_str(&text(&report, "report.json")).expect("JSON");
    let of =
        |at: usize| (report["accepted"][at]["blocker"].clone(), report["accepted"][at]["reason"].clone());
    assert_eq!(of(0), ("dead_letters".into(), "known".into()), "{report:#}");
    assert_eq!(of(1), ("count_differs".into(), "known".into()), "{report:#}");
    let (_, status) = small.json(&["status", "plain.yaml"]).await;
    assert_eq!(status["cutover"]["accepted"][1], "count_differs", "{status:#}");
    small.end().await;
}

/// The team's last statement waits for a lock until the deadline has passed. What it would have done is not done behind everybody's back when the lock is
/// given back, and the reason names it.
#[tokio::test(flavor = "multi_thread")]
async fn last_steps_end_with_the_cutover_that_is_taken_back() {
    let after = "cutover: { max_lag: 10s, deadline: 3s, after: [ { name: first, sql: \"update items set version = version + 1000 where n = 7\" }, \
                 { name: stamp, sql: \"update items set name = 'after' where n < 10\" } ] }\n";
    let small = Small::with("last_steps", false, after).await;
    let lock = "BEGIN; SELECT FROM items WHERE n = 5 FOR UPDATE";
    small.stage.target.batch_execute(lock).await.expect("a row can be locked");
    let reason = until("it gets as far as the last steps", super::LONG, async || {
        let (code, said) = small.json(&["cutover", "migration.yaml"]).await;
        assert_ne!(code, Some(0), "{said:#}");
        said["reason"]
            .as_str()
            .filter(|reason| reason.contains("`stamp` of `cutover.after`"))
            .map(str::to_owned)
    })
    .await;
    assert!(reason.contains("which waits for a lock that session"), "{reason}");
    small.stage.target.batch_execute("ROLLBACK").await.expect("the lock is given back");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'update items%' AND state <> 'idle'";
    let changed = "SELECT count(*) FROM items WHERE name = 'after' OR version > 1000";
    let count = async |sql: &str| -> i64 { state::rows(&small.stage.target, sql).await[0].get(0) };
    assert_eq!((count(sessions).await, count(changed).await), (0, 0));
    let (code, said) = small.switch(&["migration.yaml"]).await;
    assert_eq!((code, &said["state"]), (Some(0), &"open".into()), "{said:#}");
    assert_eq!(count(changed).await, 10);
    small.end().await;
}

/// A statement that wants no transaction is run as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_step_may_want_no_transaction() {
    let after = "cutover: { max_lag: 10s, after: [ { name: first, sql: \"update items set version = version + 1000 where n = 7\" }, \
                 { name: tidy, sql: vacuum items } ] }\n";
    let small = Small::with("no_transaction", false, after).await;
    let (code, said) = small.switch(&["migration.yaml"]).await;
    assert_eq!((code, &said["state"]), (Some(0), &"open".into()), "{said:#}");
    let warnings = said["warnings"].to_string();
    assert!(warnings.contains("cannot be part of a transaction"), "{warnings}");
    let steps: Vec<&Value> =
        said["steps"].as_array().expect("steps").iter().filter(|step| step["step"] == "finishing").collect();
    assert_eq!(steps.len(), 2, "{said:#}");
    let changed = "SELECT count(*) FROM items WHERE version > 1000 AND version < 2000";
    assert_eq!(state::rows(&small.stage.target, changed).await[0].get::<_, i64>(0), 1);
    small.end().await;
}

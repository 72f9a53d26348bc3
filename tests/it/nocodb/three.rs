//! A base of NocoDB and two servers of MongoDB in one migration: whatever is killed, cut or stopped, the target ends equal, one that is
//! away leaves the others alone, and the switch takes all three.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Database;
use serde_json::Value;
use slackwater_migrations::Chance;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::base::Base;
use super::marina::{Marina, SCHEMA};
use super::server::Server;
use crate::stage::broker::shared;
use crate::stage::gate::Gate;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{Slackwater, Stage, number, until, variable};

pub(super) const LONG: Duration = Duration::from_secs(600);

/// Kinds of faults; two of them are the same, because that one matters most.
const KINDS: u64 = 7;

/// People of a MongoDB, as their writer made them.
pub(super) type People = BTreeMap<i32, i32>;

/// A task that writes, and what was acknowledged to it.
pub(super) struct Writer {
    stop: watch::Sender<bool>,
    task: JoinHandle<People>,
}

impl Writer {
    /// Until it is told to stop, or is refused.
    pub(super) fn start(database: Database, seed: u64) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let people = database.collection::<Document>("people");
            let (mut chance, mut written) = (Chance::new(seed), People::new());
            for n in 0.. {
                if *stopped.borrow_and_update() {
                    break;
                }
                let id = if n < 50 || chance.percent(40) { n } else { chance.below(n as u64) as i32 };
                let v = chance.below(1_000_000) as i32;
                // Frozen, or stopped for a while. Then it is written again: what was not acknowledged may have been written all the same.
                let frozen = loop {
                    match people.replace_one(doc! {"_id": id}, doc! {"v": v}).upsert(true).await {
                        Ok(_) => break false,
                        Err(error) if error.to_string().contains("User writes blocked") => break true,
                        Err(_) if *stopped.borrow() => break true,
                        Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                    }
                };
                if frozen {
                    break;
                }
                written.insert(id, v);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            written
        });
        Self { stop, task }
    }

    pub(super) async fn end(self) -> People {
        self.stop.send_replace(true);
        self.task.await.expect("a task")
    }
}

pub(super) struct Three {
    pub(super) marina: Marina,
    pub(super) stage: Stage,
    pub(super) second: Mongod,
    /// A NocoDB of its own, where one is to suffer.
    server: Option<Server>,
    gate: Gate,
    pub(super) file: std::path::PathBuf,
    kafka: Option<(crate::stage::records::Topics, String)>,
}

impl Three {
    pub(super) async fn set(name: &str, first: &str, kafka: bool, freeze: &str) -> Self {
        Self::on(None, name, first, kafka, freeze).await
    }

    async fn on(server: Option<Server>, name: &str, first: &str, kafka: bool, freeze: &str) -> Self {
        let (url, token) = match &server {
            Some(server) => (server.url(), server.token().to_owned()),
            None => (variable("SLACKWATER_NOCODB_URL"), variable("SLACKWATER_NOCODB_TOKEN")),
        };
        let marina = Marina::on(Base::at(url.clone(), token.clone()).await).await;
        let second = Mongod::start(name, Flavour::Replica).await;
        let gate = Gate::to(url.trim_start_matches("http://").trim_end_matches('/')).await;
        let mut stage = Stage::at(name, first).await;
        stage.variables.push(("SLACKWATER_NOCODB_TOKEN", token));
        stage.variables.push(("SLACKWATER_NOCODB_URL", format!("http://127.0.0.1:{}", gate.port())));
        stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
        let people = "CREATE TABLE people (id uuid PRIMARY KEY, tenant text NOT NULL, n integer NOT NULL, v integer NOT NULL)";
        stage.target.batch_execute(people).await.expect("a table");
        let mut text = marina.file().replace(
            "sources:\n",
            &format!(
                "sources:\n  a: {{ mongodb: {{ uri: \"${{SLACKWATER_MONGODB_URI}}\", database: \"${{SOURCE_DATABASE}}\" }} }}\n  \
                 b: {{ mongodb: {{ uri: \"{}\", database: \"${{SOURCE_DATABASE}}\" }} }}\n",
                second.uri()
            ),
        );
        if !freeze.is_empty() {
            let begin = text.find("freeze:").expect("the section");
            let end = begin + text[begin..].find('\n').expect("its end");
            text.replace_range(begin..end, freeze);
        }
        for source in ["a", "b"] {
            text += &format!(
                "  {source}.people: {{ into: people, columns: {{ id: {{ uuid: _id }}, tenant: {{ const: {source} }}, n: {{ integer: _id }}, v: {{ integer: v }} }} }}\n"
            );
        }
        let (stage, file, kafka) = if kafka {
            let pipeline = Pipeline::on(stage, &text, &Log { partitions: 2, ..Log::at(&shared()) }).await;
            let Pipeline { stage, file, topics, group } = pipeline;
            (stage, file, Some((topics, group)))
        } else {
            let file = stage.file("migration.yaml", &text);
            (stage, file, None)
        };
        Self { marina, stage, second, server, gate, file, kafka }
    }

    pub(super) fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    fn start(&self, which: usize) -> Slackwater {
        match (self.kafka.is_some(), which) {
            (false, _) => self.stage.run(&self.file),
            (true, 0) => self.stage.start(&["capture", self.path()], "capture"),
            (true, 1) => self.stage.start(&["apply", self.path(), "--member", "one"], "one"),
            (true, _) => self.stage.start(&["apply", self.path(), "--member", "two"], "two"),
        }
    }

    pub(super) fn start_all(&self) -> Vec<Slackwater> {
        (0..if self.kafka.is_some() { 3 } else { 1 }).map(|which| self.start(which)).collect()
    }

    pub(super) async fn other(&self) -> Database {
        let client = mongodb::Client::with_uri_str(self.second.uri()).await.expect("a URI");
        client.database(&self.stage.name)
    }

    async fn rows(&self, tenant: &str) -> People {
        let rows = self.stage.target.query("SELECT n, v FROM people WHERE tenant = $1", &[&tenant]).await;
        rows.expect("rows").iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// How the target differs from what was written, if it does.
    pub(super) async fn differs(&self, people: [&People; 2]) -> Option<String> {
        for (tenant, people) in ["a", "b"].into_iter().zip(people) {
            let rows = self.rows(tenant).await;
            if let Some((n, v)) = people.iter().find(|(n, v)| rows.get(n) != Some(v)) {
                return Some(format!("{n} of {tenant} should be {v}, is {:?}", rows.get(n)));
            }
            if rows.len() != people.len() {
                return Some(format!("{} rows of {tenant}, should be {}", rows.len(), people.len()));
            }
        }
        self.marina.differs(&self.stage.target).await
    }

    async fn lag_of(&self, name: &str) -> Option<i64> {
        let status = self.stage.status(&self.file).await;
        let sources = status["sources"].as_array()?;
        sources.iter().find(|source| source["name"] == name)?["lag_ms"].as_i64()
    }

    pub(super) async fn clear(self, processes: Vec<Slackwater>) {
        drop(processes);
        drop(self.marina);
        if let Some(server) = self.server {
            server.clear().await;
        }
        if let Some((topics, group)) = self.kafka {
            topics.delete().await;
            topics.delete_group(&group).await;
        }
        self.stage.clear().await;
    }
}

async fn faults(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 17);
    let faults = number("SLACKWATER_TEST_FAULTS", 10);
    println!("seed {seed}, {faults} faults");
    let mut chance = Chance::new(seed);
    let name = if kafka { "three_kafka" } else { "three_direct" };
    let server = Some(Server::start(name).await);
    let mut three = Three::on(server, name, &variable("SLACKWATER_MONGODB_URI"), kafka, "").await;
    three.marina.fill(&mut chance, 100).await;
    let writers =
        [Writer::start(three.stage.source.clone(), seed), Writer::start(three.other().await, seed + 1)];
    let count = if kafka { 3 } else { 1 };
    let mut processes = three.start_all();
    let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
    for fault in 0..faults {
        for _ in 0..6 {
            three.marina.edit(&mut chance).await;
        }
        let pause = Duration::from_millis(chance.between(200, 2_000) as u64);
        // Each kind once, then by chance.
        let kind = if fault < KINDS { fault } else { chance.below(KINDS) };
        let what = match kind {
            0 | 1 => {
                let which = chance.below(count as u64) as usize;
                processes.remove(which).kill().await;
                processes.insert(which, three.start(which));
                "process killed"
            }
            2 => {
                three.gate.shut();
                // The random time is the fault; nothing is waited for.
                tokio::time::sleep(pause).await;
                three.gate.open();
                "NocoDB away"
            }
            3 => {
                three.server.as_mut().expect("a server of its own").restart().await;
                "NocoDB killed"
            }
            4 => {
                three.server.as_mut().expect("a server of its own").lose_database(pause).await;
                "NocoDB's database away"
            }
            5 => {
                three.second.signal("STOP").await;
                tokio::time::sleep(pause).await;
                three.second.signal("CONT").await;
                "MongoDB stopped"
            }
            _ => {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                           WHERE application_name = 'slackwater' AND datname = current_database()";
                three.stage.target.query_one(sql, &[]).await.expect("backends can be ended");
                "Postgres' sessions ended"
            }
        };
        println!("{fault}: {what}");
        *counted.entry(what).or_default() += 1;
        processes.iter_mut().for_each(Slackwater::still_runs);
    }
    println!("{counted:?}");
    let [a, b] = writers;
    let (a, b) = (a.end().await, b.end().await);
    println!("{} and {} people", a.len(), b.len());
    let mut last = String::new();
    until("the target is what was written", LONG, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let differs = three.differs([&a, &b]).await;
        if let Some(differs) = differs.as_ref().filter(|differs| **differs != last) {
            println!("{differs}");
            last.clone_from(differs);
        }
        differs.is_none().then_some(())
    })
    .await;
    for process in processes {
        process.stop().await;
    }
    three.clear(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_it_ends_equal() {
    faults(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_it_ends_equal_over_kafka() {
    faults(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_leaves_the_others_alone() {
    let away = Duration::from_secs(number("SLACKWATER_TEST_AWAY_SECONDS", 6));
    let mut chance = Chance::new(3);
    let mut three = Three::set("three_away", &variable("SLACKWATER_MONGODB_URI"), false, "").await;
    three.marina.fill(&mut chance, 40).await;
    let writers = [Writer::start(three.stage.source.clone(), 1), Writer::start(three.other().await, 2)];
    let mut processes = vec![three.start(0)];
    until("it follows closely", LONG, async || {
        processes[0].still_runs();
        let status = three.stage.status(&three.file).await;
        (status["copied"] == true && status["lag_ms"].as_i64().is_some_and(|lag| lag < 9_000)).then_some(())
    })
    .await;
    for gone in ["b", "base"] {
        if gone == "b" {
            three.second.signal("STOP").await
        } else {
            three.gate.shut()
        }
        let (begun, mut most) = (Instant::now(), BTreeMap::<&str, i64>::new());
        while begun.elapsed() < away {
            for other in ["a", "b", "base"].into_iter().filter(|name| *name != gone) {
                let lag = three.lag_of(other).await.unwrap_or(i64::MAX);
                let known = most.entry(other).or_default();
                *known = lag.max(*known);
            }
        }
        println!("{gone} away for {away:?}: the others were behind by at most {most:?} ms");
        let trouble = three.stage.status(&three.file).await["troubles"].to_string();
        assert!(trouble.contains(&format!("source {gone} has not answered")), "{trouble}");
        if gone == "b" {
            three.second.signal("CONT").await
        } else {
            three.gate.open()
        }
        until("it is back", LONG, async || {
            processes[0].still_runs();
            three.lag_of(gone).await.is_some_and(|lag| lag < 9_000).then_some(())
        })
        .await;
    }
    let [a, b] = writers;
    let (a, b) = (a.end().await, b.end().await);
    until("the target is what was written", LONG, async || {
        three.differs([&a, &b]).await.is_none().then_some(())
    })
    .await;
    processes.remove(0).stop().await;
    three.clear(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_are_switched_under_load() {
    let (seed, rounds) = (number("SLACKWATER_TEST_SEED", 23), number("SLACKWATER_TEST_CUTOVERS", 1));
    let first = Mongod::start("three_switch_first", Flavour::Replica).await;
    let mut gaps = Vec::new();
    let mut refused = 0;
    for round in 0..rounds {
        let mut chance = Chance::new(seed + round);
        // The editor of the base is told to stop, and says when its last edit is done.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let tell = |word: &str| {
            format!(
                "exec 3<>/dev/tcp/127.0.0.1/{port}; echo {word} >&3; read answer <&3; test \\\"$answer\\\" = done"
            )
        };
        let words = ["freeze", "unfreeze"].map(|word| format!("{word}: [ bash, -c, \"{}\" ]", tell(word)));
        let freeze = format!("freeze: {{ command: {{ {} }} }}", words.join(", "));
        let mut three = Three::set("three_switch", &first.uri(), false, &freeze).await;
        three.marina.fill(&mut chance, number("SLACKWATER_TEST_BOATS", 60)).await;
        let writers =
            [Writer::start(three.stage.source.clone(), seed), Writer::start(three.other().await, seed + 1)];
        let mut processes = vec![three.start(0)];
        until("it follows closely", LONG, async || {
            processes[0].still_runs();
            let status = three.stage.status(&three.file).await;
            (status["copied"] == true && status["lag_ms"].as_i64().is_some_and(|lag| lag < 9_000))
                .then_some(())
        })
        .await;
        // Edits go on until the freeze comes; the switch is made beside them.
        let (path, stage) = (three.path().to_owned(), &three.stage);
        let switching = async {
            until("this machine is quick enough for a switch", LONG, async || {
                let output = stage.output(&["cutover", &path, "--json"]).await;
                let said = String::from_utf8_lossy(&output.stdout);
                let report: Value = serde_json::from_str(&said)
                    .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
                if output.status.code() == Some(0) {
                    return Some(report);
                }
                println!("once more: {}", report["reason"]);
                None
            })
            .await
        };
        let marina = &mut three.marina;
        let mut tries = 0;
        let answer = async |stream: TcpStream| {
            let (mut stream, mut word) = (BufReader::new(stream), String::new());
            stream.read_line(&mut word).await.expect("a word");
            stream.get_mut().write_all(b"done\n").await.expect("an answer");
            word.trim().to_owned()
        };
        let editing = async {
            loop {
                // Between two edits: one that is under way is finished first.
                if let Ok(called) = tokio::time::timeout(Duration::ZERO, listener.accept()).await
                    && answer(called.expect("a call").0).await == "freeze"
                {
                    tries += 1;
                    // Nobody edits until it is let go.
                    answer(listener.accept().await.expect("a call").0).await;
                }
                marina.edit(&mut chance).await;
            }
        };
        let report = tokio::select! {
            report = switching => report,
            () = editing => panic!("it edits for ever"),
        };
        refused += tries - 1;
        assert_eq!(report["state"], "open", "{report:#}");
        let gap = report["gap_ms"].as_f64().expect("a gap");
        let [a, b] = writers;
        let (a, b) = (a.end().await, b.end().await);
        assert_eq!(three.differs([&a, &b]).await, None, "round {round}");
        let steps = report["steps"].as_array().expect("steps").iter();
        let steps = steps.filter(|step| step["at_ms"].as_f64() >= Some(0.0));
        let steps: Vec<String> = steps.map(|step| format!("{} {}", step["step"], step["took_ms"])).collect();
        println!(
            "{round}: freeze to open {gap} ms ({}), {} and {} people",
            steps.join(", "),
            a.len(),
            b.len()
        );
        gaps.push(gap);
        let thaw = doc! {"setUserWriteBlockMode": 1, "global": false};
        three.stage.source.client().database("admin").run_command(thaw).await.expect("it can be unfrozen");
        three.clear(processes).await;
    }
    gaps.sort_by(f64::total_cmp);
    let at = |share: f64| gaps[((gaps.len() as f64 * share).ceil() as usize).clamp(1, gaps.len()) - 1];
    println!(
        "{rounds} switches, {refused} refused or reverted before: p50 {} ms, p99 {} ms",
        at(0.5),
        at(0.99)
    );
}

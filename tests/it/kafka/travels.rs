//! Fields that travel encrypted: they are in no record of the topic, in no letter and in nothing that is shown, and the rows are right.

use bson::{Document, doc};

use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, state, until};

const SCHEMA: &str = "
CREATE TABLE public.members (id uuid PRIMARY KEY, n bigint NOT NULL, mail text NOT NULL, salary integer, phones text[]);
CREATE TABLE public.cards (member_id uuid REFERENCES public.members, position integer, pin text, PRIMARY KEY (member_id, position));";

const FILE: &str = r#"migration: travels
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
ciphers: { wire: { aes-256-gcm: { key: "${WIRE_KEY}" } } }
snapshot: { workers: 2, chunk_documents: 50 }
collections:
  legacy.members:
    - into: members
      columns:
        id: { uuid: _id }
        n: { integer: _id }
        mail: { text: contact.mail, travels: wire }
        salary: { integer: salary, travels: wire }
        phones: { array: "phones[]", travels: wire }
    - into: cards
      each: cards[]
      columns: { member_id: { parent: id }, position: { index: 0 }, pin: { text: pin, travels: wire } }
"#;

const KEY: &str = "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100";

/// The secret of everything that may not be seen.
const CANARY: &str = "kanari";

fn member(id: i64, round: i64) -> Document {
    let secret = |what: &str| format!("{CANARY}-{what}-{id}-{round}");
    doc! {
        "_id": id, "contact": {"mail": secret("mail"), "city": "seen"}, "salary": 30_000 + id + round,
        "phones": [secret("p1"), secret("p2")], "cards": [{"pin": secret("pin"), "kind": "seen"}],
    }
}

async fn shown(stage: &Stage) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', m.n, m.mail, m.salary, m.phones, c.pin) FROM public.members m
               LEFT JOIN public.cards c ON c.member_id = m.id ORDER BY m.n";
    state::rows(&stage.target, sql).await.iter().map(|row| row.get(0)).collect()
}

fn wanted(rounds: &[i64]) -> Vec<String> {
    let row = |(id, round): (usize, &i64)| {
        let secret = |what: &str| format!("{CANARY}-{what}-{id}-{round}");
        let phones = format!("{{{},{}}}", secret("p1"), secret("p2"));
        format!("{id} {} {} {phones} {}", secret("mail"), 30_000 + id as i64 + round, secret("pin"))
    };
    rounds.iter().enumerate().map(row).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

async fn way(name: &str, more: &'static str) {
    let mut stage = Stage::new(name).await;
    stage.variables = vec![
        ("WIRE_KEY", KEY.into()),
        ("OTHER_KEY", "9".repeat(64)),
        ("RUST_LOG", "slackwater=trace".into()),
    ];
    stage.target.batch_execute(SCHEMA).await.expect("tables can be created");
    let members = stage.source.collection::<Document>("members");
    let mut rounds = vec![0_i64; 200];
    members.insert_many((0..200).map(|id| member(id, 0))).await.expect("members");
    let log = Log { more, partitions: 2, ..Log::at(&shared()) };
    let pipeline = Pipeline::on(stage, FILE, &log).await;
    let stage = &pipeline.stage;
    let members = stage.source.collection::<Document>("members");
    let mut processes = vec![pipeline.capture("capture"), pipeline.apply("one", Some("one"))];
    let equal = async |rounds: &[i64], processes: &mut Vec<Slackwater>| {
        until("the rows are right", PATIENCE, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            (shown(stage).await == wanted(rounds)).then_some(())
        })
        .await;
    };
    equal(&rounds, &mut processes).await;
    for id in 0..60 {
        rounds[id as usize] = 1;
        members.replace_one(doc! {"_id": id}, member(id, 1)).await.expect("replaced");
    }
    // What is there in the place of a secret may be one.
    members
        .insert_one(doc! {"_id": 900_i64, "contact": format!("{CANARY}-whole"), "phones": []})
        .await
        .expect("a member");
    equal(&rounds, &mut processes).await;
    until("it is a dead letter", PATIENCE, async || {
        (state::dead_letters(&stage.target).await == 1).then_some(())
    })
    .await;
    members.delete_one(doc! {"_id": 900_i64}).await.expect("deleted");
    until("the letter is settled", PATIENCE, async || {
        (state::dead_letters(&stage.target).await == 0).then_some(())
    })
    .await;
    let stored = pipeline.topics.read().await;
    assert!(stored.len() > 260, "{} records", stored.len());
    for record in &stored {
        let seen = record.value.as_ref().is_some_and(|value| holds(value, CANARY));
        assert!(
            !seen && !holds(&record.key, CANARY),
            "{}/{} {}",
            record.topic,
            record.partition,
            record.offset
        );
    }
    assert!(stored.iter().any(|record| record.value.as_ref().is_some_and(|value| holds(value, "seen"))));
    let file = pipeline.file.to_str().expect("a path in UTF-8");
    let tail =
        ["topics", "tail", file, "legacy.members", "--from", "beginning", "--limit", "100", "--documents"];
    let tailed = stage.output(&tail).await;
    let tailed = String::from_utf8_lossy(&tailed.stdout).into_owned();
    assert!(tailed.contains("(sensitive)") && !tailed.contains(CANARY), "{tailed}");
    // An applier with another key opens nothing: letters, which say of what, and which are mended by the right key.
    processes.pop().expect("an applier").stop().await;
    let text = std::fs::read_to_string(&pipeline.file).expect("the file");
    let other = stage.file("other.yaml", &text.replace("${WIRE_KEY}", "${OTHER_KEY}"));
    let mut other =
        stage.start(&["apply", other.to_str().expect("a path in UTF-8"), "--member", "one"], "other");
    rounds[7] = 2;
    members.replace_one(doc! {"_id": 7_i64}, member(7, 2)).await.expect("replaced");
    until("it does not open", PATIENCE, async || {
        other.still_runs();
        let letters = "SELECT kind, reason, document FROM slackwater.dead_letters";
        let letters = state::rows(&stage.target, letters).await;
        let letter = letters.first()?;
        let (kind, reason): (String, String) = (letter.get(0), letter.get(1));
        assert!(
            kind == "cipher" && reason.contains("does not open") && reason.contains("`wire`"),
            "{kind} {reason}"
        );
        assert!(!holds(letter.get(2), CANARY), "the letter shows no secret");
        Some(())
    })
    .await;
    other.stop().await;
    processes.push(pipeline.apply("one", Some("one")));
    equal(&rounds, &mut processes).await;
    until("the letter is settled", PATIENCE, async || {
        (state::dead_letters(&stage.target).await == 0).then_some(())
    })
    .await;
    for process in processes {
        process.stop().await;
    }
    for entry in std::fs::read_dir(&stage.folder).expect("the folder").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = std::fs::read(&path).expect("a log");
            assert!(!holds(&text, CANARY) && !holds(&text, KEY), "{}", path.display());
        }
    }
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_our_own_format() {
    way("travels", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_debezium_writes() {
    way("travels_debezium", "values: { debezium: { schemas: false } }").await;
}

//! Keys beyond `_id`: partitioned tables, numbers of sequences, other unique constraints. Rows move with their keys, deletes find them,
//! and kills change nothing.

use std::collections::BTreeMap;

use bson::{Document, doc};
use slackwater_migrations::Chance;

use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::rounds::{Shown, change_and_kill, ends_as};
use crate::stage::{Slackwater, Stage, followed, number};

const SCHEMA: &str = "
CREATE TABLE public.events (id uuid NOT NULL, at timestamptz NOT NULL, v bigint, org_id bigint, own text DEFAULT 'theirs',
                            PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE public.events_3 PARTITION OF public.events DEFAULT;
CREATE TABLE public.orgs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, external_id text NOT NULL UNIQUE, v bigint);
CREATE TABLE public.users (id serial PRIMARY KEY, email text UNIQUE, v bigint, org_id bigint NOT NULL REFERENCES public.orgs,
                           friend_id integer REFERENCES public.users);
CREATE TABLE public.tags (id smallserial PRIMARY KEY, user_id integer NOT NULL REFERENCES public.users ON DELETE CASCADE, name text NOT NULL);
CREATE INDEX ON public.tags (user_id);
CREATE TABLE public.things (code text PRIMARY KEY, mongo_id text NOT NULL UNIQUE, v bigint);
ALTER TABLE public.events ADD FOREIGN KEY (org_id) REFERENCES public.orgs;";

const FILE: &str = r#"migration: keys
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.events: { into: events, columns: { id: { uuid: _id }, at: at, v: v, org_id: { ref: org, to: legacy.orgs } } }
  legacy.orgs: { into: orgs, columns: { external_id: _id, v: v } }
  legacy.users:
    - into: users
      columns: { id: { serial: _id }, email: email, v: v, org_id: { ref: org, to: legacy.orgs }, friend_id: { ref: friend, to: legacy.users } }
    - into: tags
      each: tags[]
      columns: { id: { serial: each, by: . }, user_id: { parent: id }, name: { from: . } }
  legacy.things: { into: things, columns: { code: code, mongo_id: _id, v: v } }
"#;

type Documents = BTreeMap<(&'static str, i64), Document>;

/// Changes some documents, in the source and in our books.
async fn change(stage: &Stage, chance: &mut Chance, documents: &mut Documents) {
    let names = ["events", "orgs", "users", "things"];
    let name = names[chance.below(4) as usize];
    let id = chance.below(25) as i64;
    let text = |kind: &str, id: i64| format!("{kind}-{id}");
    let collection = stage.source.collection::<Document>(name);
    if chance.below(4) == 0 {
        collection.delete_one(doc! {"_id": text(name, id)}).await.expect("it can be deleted");
        documents.remove(&(name, id));
        return;
    }
    let v = chance.below(1_000) as i64;
    let org = text("orgs", chance.below(25) as i64);
    let mut document = doc! {"_id": text(name, id), "v": v};
    match name {
        "events" => {
            let day = chance.below(80) as i64;
            document.insert("at", bson::DateTime::from_millis(1_704_067_200_000 + day * 86_400_000));
            document.insert("org", org);
        }
        "users" => {
            document.insert("email", format!("{id}@{v}"));
            document.insert("org", org);
            document.insert("friend", text("users", chance.below(25) as i64));
            let tags: Vec<String> =
                (0..chance.below(4)).map(|_| format!("tag {}", chance.below(9))).collect();
            document.insert("tags", tags);
        }
        "things" => {
            document.insert("code", format!("{id}/{}", chance.below(5)));
        }
        _ => {}
    }
    let replaced = collection.replace_one(doc! {"_id": text(name, id)}, document.clone()).upsert(true).await;
    replaced.expect("it can be replaced");
    documents.insert((name, id), document);
}

/// What the tables must show, and how many rows must wait.
fn wanted(documents: &Documents) -> Shown {
    let of = |name: &'static str| {
        documents.iter().filter(move |((of, _), _)| *of == name).map(|(_, document)| document)
    };
    let has = |name: &str, id: &str| {
        documents.values().any(|document| document.get_str("_id").ok() == Some(id)) && id.starts_with(name)
    };
    let (mut rows, mut held) = (Vec::new(), 0);
    for event in of("events") {
        let org = event.get_str("org").expect("an organisation");
        let at = event.get_datetime("at").expect("a date").timestamp_millis();
        let org = if has("orgs", org) { org } else { "" };
        rows.push(format!("events {} {at} {org}", event.get_i64("v").expect("v")));
    }
    rows.extend(
        of("orgs")
            .map(|org| format!("orgs {} {}", org.get_str("_id").expect("id"), org.get_i64("v").expect("v"))),
    );
    for user in of("users") {
        let org = user.get_str("org").expect("an organisation");
        let mut tags: Vec<&str> =
            user.get_array("tags").expect("tags").iter().filter_map(bson::Bson::as_str).collect();
        tags.sort_unstable();
        tags.dedup();
        if !has("orgs", org) {
            held += 1 + tags.len();
            continue;
        }
        let friend = user.get_str("friend").expect("a friend");
        let there = of("users").find(|other| other.get_str("_id").ok() == Some(friend));
        let there = there.filter(|other| has("orgs", other.get_str("org").expect("an organisation")));
        let friend = there.map_or("", |other| other.get_str("email").expect("an address"));
        rows.push(format!("users {} {org} {friend}", user.get_str("email").expect("an address")));
        rows.extend(
            tags.iter().map(|tag| format!("tags {} {tag}", user.get_str("email").expect("an address"))),
        );
    }
    rows.extend(of("things").map(|thing| {
        format!(
            "things {} {} {}",
            thing.get_str("code").expect("a code"),
            thing.get_str("_id").expect("id"),
            thing.get_i64("v").expect("v")
        )
    }));
    rows.sort();
    (rows, held)
}

async fn shown(stage: &Stage) -> Vec<String> {
    const SHOWN: &str = "
SELECT concat_ws(' ', 'events', v, (extract(epoch FROM at) * 1000)::bigint, coalesce((SELECT external_id FROM orgs WHERE orgs.id = org_id), '')) FROM events
UNION ALL SELECT concat_ws(' ', 'orgs', external_id, v) FROM orgs
UNION ALL SELECT concat_ws(' ', 'users', email, (SELECT external_id FROM orgs WHERE orgs.id = org_id),
                           coalesce((SELECT f.email FROM users f WHERE f.id = users.friend_id), '')) FROM users
UNION ALL SELECT concat_ws(' ', 'tags', (SELECT email FROM users WHERE users.id = user_id), name) FROM tags
UNION ALL SELECT concat_ws(' ', 'things', code, mongo_id, v) FROM things";
    let rows = stage.target.query(SHOWN, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn play(
    stage: &Stage,
    documents: &mut Documents,
    chance: &mut Chance,
    processes: &mut Vec<Slackwater>,
    start: impl Fn(usize) -> Slackwater,
) {
    change_and_kill(stage, chance, processes, start, async |chance| change(stage, chance, documents).await)
        .await;
    ends_as(&wanted(documents), stage, processes, async || shown(stage).await).await;
    let theirs = stage
        .target
        .query("SELECT FROM events WHERE own IS DISTINCT FROM 'theirs'", &[])
        .await
        .expect("rows");
    assert!(theirs.is_empty(), "a row that moves keeps what others wrote into it");
}

async fn begin(stage: &Stage, chance: &mut Chance) -> Documents {
    for name in ["events", "orgs", "users", "things"] {
        stage.source.create_collection(name).await.expect("a collection");
    }
    let mut documents = Documents::new();
    for _ in 0..200 {
        change(stage, chance, &mut documents).await;
    }
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn of_every_kind_direct() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let stage = Stage::new("keys_direct").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let file = stage.file("migration.yaml", &followed(FILE));
    let mut documents = begin(&stage, &mut chance).await;
    let mut processes = vec![stage.run(&file)];
    play(&stage, &mut documents, &mut chance, &mut processes, |_| stage.run(&file)).await;
    stage.verifies(&file).await;
    for process in processes {
        process.stop().await;
    }
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_every_kind_over_kafka() {
    let seed = number("SLACKWATER_TEST_SEED", 1);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let stage = Stage::new("keys_kafka").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let mut documents = begin(&stage, &mut chance).await;
    let log = Log { partitions: 3, ..Log::at(&shared()) };
    let pipeline = Pipeline::on(stage, &followed(FILE), &log).await;
    let start = |which: usize| match which {
        0 => pipeline.capture("capture"),
        1 => pipeline.apply("one", Some("one")),
        _ => pipeline.apply("two", Some("two")),
    };
    let mut processes: Vec<Slackwater> = (0..3).map(start).collect();
    play(&pipeline.stage, &mut documents, &mut chance, &mut processes, start).await;
    pipeline.stage.verifies(&pipeline.file).await;
    for process in processes {
        process.stop().await;
    }
    pipeline.clear().await;
}

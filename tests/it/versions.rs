//! Tables of history: each version of a document is a row, once, in its order, whoever is killed.

use std::collections::BTreeMap;

use bson::{Document, doc};
use slackwater_migrations::Chance;

use crate::stage::ground::Ground;
use crate::stage::rounds::change_and_kill;
use crate::stage::{PATIENCE, Slackwater, Stage, number, state, until};

const SCHEMA: &str = "
CREATE TABLE public.users (id uuid PRIMARY KEY, n bigint NOT NULL, name text);
CREATE TABLE public.tags (user_id uuid REFERENCES public.users, tag text, PRIMARY KEY (user_id, tag));
CREATE TABLE public.users_history (user_id uuid, number bigint, n bigint, name text, rest jsonb, kind text NOT NULL, changed_at timestamptz,
                                   source text NOT NULL, PRIMARY KEY (user_id, number));
CREATE TABLE public.names (id uuid PRIMARY KEY, user_id uuid NOT NULL, version integer NOT NULL, name varchar(6));";

const FILE: &str = r#"migration: histories
sources:
  legacy: { mongodb: { uri: "${SLACKWATER_MONGODB_URI}", database: "${SOURCE_DATABASE}" } }
target: { postgres: { uri: "${SLACKWATER_POSTGRES_URL}", schema: public } }
collections:
  legacy.users:
    - into: users_history
      history: true
      set: { source: legacy }
      columns:
        user_id: { uuid: _id }
        number: { change: number }
        n: { integer: _id }
        name: { text: name, null: reject }
        kind: { change: kind }
        changed_at: { change: time }
        rest: { rest: jsonb }
    - { into: users, columns: { id: { uuid: _id }, n: { integer: _id }, name: name } }
    - { into: tags, each: "tags[]", columns: { user_id: { parent: id }, tag: . } }
    - into: names
      history: true
      columns: { id: { uuid: change }, user_id: { uuid: _id }, version: { change: number }, name: name }
"#;

/// What the source has done: of each user every version, and what is there.
#[derive(Default)]
struct Books {
    versions: BTreeMap<i64, Vec<String>>,
    now: BTreeMap<i64, (String, Vec<String>)>,
    count: i64,
}

impl Books {
    fn note(&mut self, id: i64, kind: &str, document: Option<&Document>) {
        let text = match document {
            Some(document) => {
                let name = document.get_str("name").expect("a name");
                let tags = document.get_array("tags").expect("tags").iter();
                let tags: Vec<String> = tags.map(|tag| tag.as_str().expect("text").to_owned()).collect();
                self.now.insert(id, (name.to_owned(), tags));
                format!("{kind} {name} t")
            }
            None => {
                self.now.remove(&id);
                // Only what is made of the id, and what is no value of the document, is there.
                format!("{kind} - f")
            }
        };
        self.versions.entry(id).or_default().push(text);
    }

    fn document(&mut self, chance: &mut Chance, id: i64) -> Document {
        self.count += 1;
        let tags: Vec<String> = (0..chance.below(3)).map(|tag| format!("t{tag}")).collect();
        doc! {"_id": id, "name": format!("v{}", self.count), "tags": tags, "more": self.count}
    }

    async fn change(&mut self, stage: &Stage, chance: &mut Chance) {
        let users = stage.source.collection::<Document>("users");
        let id = chance.below(30) as i64;
        let document = self.document(chance, id);
        if !self.now.contains_key(&id) {
            users.insert_one(&document).await.expect("it can be inserted");
            self.note(id, "insert", Some(&document));
        } else if chance.percent(25) {
            users.delete_one(doc! {"_id": id}).await.expect("it can be deleted");
            self.note(id, "delete", None);
        } else {
            users.replace_one(doc! {"_id": id}, &document).await.expect("it can be replaced");
            self.note(id, "update", Some(&document));
        }
    }

    fn history(&self) -> Vec<String> {
        let line = |id: i64, number: usize, text: &str| format!("{id:03} {:03} {text}", number + 1);
        let of = |(id, versions): (&i64, &Vec<String>)| -> Vec<String> {
            versions.iter().enumerate().map(|(number, text)| line(*id, number, text)).collect()
        };
        self.versions.iter().flat_map(of).collect()
    }

    fn current(&self) -> Vec<String> {
        let rows = self.now.iter().flat_map(|(id, (name, tags))| {
            let tags = tags.iter().map(move |tag| format!("{id} has {tag}"));
            std::iter::once(format!("{id} {name}")).chain(tags)
        });
        let mut rows: Vec<String> = rows.collect();
        rows.sort();
        rows
    }
}

async fn texts(stage: &Stage, sql: &str) -> Vec<String> {
    let rows = stage.target.query(sql, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

const HISTORY: &str = "SELECT format('%s %s %s %s %s', lpad(n::text, 3, '0'), lpad(number::text, 3, '0'), kind, coalesce(name, '-'),
    (rest->>'more') IS NOT NULL) FROM public.users_history ORDER BY n, number";
/// The other table of history has the same versions.
const NAMES: &str = "SELECT format('%s %s %s %s %s', lpad(h.n::text, 3, '0'), lpad(v.version::text, 3, '0'), h.kind, coalesce(v.name, '-'),
    v.name IS NOT NULL) FROM public.names v JOIN public.users_history h ON h.user_id = v.user_id AND h.number = v.version ORDER BY h.n, v.version";
const CURRENT: &str = "SELECT concat_ws(' ', n, name) AS row FROM public.users
    UNION ALL SELECT concat_ws(' ', u.n, 'has', t.tag) FROM public.tags t JOIN public.users u ON u.id = t.user_id ORDER BY 1";

async fn ends(stage: &Stage, processes: &mut [Slackwater], books: &Books) {
    let (history, current) = (books.history(), books.current());
    let mut last = 0;
    until("every version is a row", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let rows = texts(stage, HISTORY).await;
        if rows.len() != last {
            let missing = history.iter().find(|row| !rows.contains(row));
            let more = rows.iter().find(|row| !history.contains(row));
            println!("{} of {} versions; missing {missing:?}, more {more:?}", rows.len(), history.len());
            last = rows.len();
        }
        let mut now = texts(stage, CURRENT).await;
        now.sort();
        (rows == history && texts(stage, NAMES).await == history && now == current).then_some(())
    })
    .await;
    // Whenever they were changed, later versions are not earlier.
    let back = "SELECT count(*) FROM (SELECT changed_at, lag(changed_at) OVER (PARTITION BY user_id ORDER BY number) AS before
                FROM public.users_history) AS h WHERE changed_at < before OR (kind <> 'copy' AND changed_at IS NULL)";
    let back = back.replace("changed_at, lag", "kind, changed_at, lag");
    let count: i64 = stage.target.query_one(&back, &[]).await.expect("a count").get(0);
    assert_eq!(count, 0, "times go with versions");
}

async fn random(kafka: bool) {
    let seed = number("SLACKWATER_TEST_SEED", 71 + u64::from(kafka));
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let ground = Ground::set("versions", kafka, SCHEMA, FILE, &["users"]).await;
    let stage = ground.stage();
    let on = doc! {"collMod": "users", "changeStreamPreAndPostImages": {"enabled": true}};
    stage.source.run_command(on).await.expect("post-images can be turned on");
    let mut books = Books::default();
    let users = stage.source.collection::<Document>("users");
    for id in 0..12 {
        let document = books.document(&mut chance, id);
        users.insert_one(&document).await.expect("it can be inserted");
        books.note(id, "copy", Some(&document));
    }
    let mut processes = ground.processes();
    let copied = async || (texts(stage, CURRENT).await == books.current()).then_some(());
    until("it is copied", PATIENCE, copied).await;
    let start = |which| ground.start(which);
    change_and_kill(stage, &mut chance, &mut processes, start, async |chance: &mut Chance| {
        books.change(stage, chance).await;
    })
    .await;
    ends(stage, &mut processes, &books).await;
    // A recopy finds no version that was not there.
    let generation = state::copy(&stage.target).await.generation;
    let output = stage.output(&["recopy", ground.path(), "legacy.users"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("it is copied again", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let again = state::copy(&stage.target).await.generation > generation;
        (again && state::copied(&stage.target).await).then_some(())
    })
    .await;
    ends(stage, &mut processes, &books).await;
    // A version that does not fit is a dead letter; the next one is a row, and the current tables are right.
    let long = doc! {"_id": 99_i64, "name": "much too long", "tags": [], "more": 1_i64};
    users.insert_one(&long).await.expect("it can be inserted");
    until("it is a dead letter", PATIENCE, async || {
        (state::dead_letters(&stage.target).await == 1).then_some(())
    })
    .await;
    users.delete_one(doc! {"_id": 99_i64}).await.expect("it can be deleted");
    until("the letter is settled", PATIENCE, async || {
        (state::dead_letters(&stage.target).await == 0).then_some(())
    })
    .await;
    let kinds =
        texts(stage, "SELECT concat(kind, number) FROM public.users_history WHERE n = 99 ORDER BY number")
            .await;
    assert_eq!(kinds, ["delete2"], "the first version is not there, and the number says so");
    println!("{} versions", books.history().len());
    ground.end(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_a_row() {
    random(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_kafka_with_two_appliers() {
    random(true).await;
}

/// A file that changes says what becomes of versions, and a migration whose versions are rows is not forgotten beside them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_versions_outlast_a_changed_file_and_a_reset() {
    let stage = Stage::new("versions_kept").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    stage.source.create_collection("users").await.expect("a collection");
    let on = doc! {"collMod": "users", "changeStreamPreAndPostImages": {"enabled": true}};
    stage.source.run_command(on).await.expect("post-images can be turned on");
    let users = stage.source.collection::<Document>("users");
    let documents = [1_i64, 2].map(|id| doc! {"_id": id, "name": format!("n{id}"), "tags": []});
    users.insert_many(documents).await.expect("documents");
    let file = stage.file("migration.yaml", FILE);
    let path = file.to_str().expect("UTF-8");
    let rows = "SELECT concat_ws(' ', n, number, kind, name) FROM public.users_history ORDER BY n, number";
    let shows = async |wanted: &[&str], process: &mut Slackwater| {
        until(&format!("{wanted:?}"), PATIENCE, async || {
            process.still_runs();
            (texts(&stage, rows).await == wanted).then_some(())
        })
        .await;
    };
    let said = async |arguments: &[&str]| {
        let output = stage.output(arguments).await;
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let mut process = stage.run(&file);
    shows(&["1 1 copy n1", "2 1 copy n2"], &mut process).await;
    process.stop().await;

    // Another rule: for versions that come, and nothing is copied again for it.
    stage.file(
        "migration.yaml",
        &FILE.replace("name: { text: name, null: reject }", "name: { text: name, lower: true }"),
    );
    let (code, text) = said(&["check", path]).await;
    let line = "users_history.name: it holds for versions that come; the 2 rows stay as they were made";
    assert!(code == Some(0) && text.contains(line) && !text.contains("written again"), "{text}");
    let generation = state::copy(&stage.target).await.generation;
    let mut process = stage.run(&file);
    until("it goes on", PATIENCE, async || {
        process.still_runs();
        process.said(line).then_some(())
    })
    .await;
    users
        .replace_one(doc! {"_id": 1_i64}, doc! {"_id": 1_i64, "name": "N1", "tags": []})
        .await
        .expect("replaced");
    shows(&["1 1 copy n1", "1 2 update n1", "2 1 copy n2"], &mut process).await;
    assert_eq!(state::copy(&stage.target).await.generation, generation, "nothing was copied again");
    process.stop().await;

    // Versions would be numbered from 1 again, over the rows that are there.
    let (code, text) = said(&["reset", path, "--yes", "histories"]).await;
    assert_eq!(code, Some(4), "{text}");
    for table in
        ["public.users_history is a table of history with 3 rows", "ALTER TABLE public.names RENAME TO"]
    {
        assert!(text.contains(table), "{text}");
    }
    assert!(
        !state::rows(&stage.target, "SELECT FROM slackwater.versions").await.is_empty(),
        "nothing is forgotten"
    );
    let aside = "ALTER TABLE public.users_history RENAME TO users_before;
                 CREATE TABLE public.users_history (LIKE public.users_before INCLUDING ALL); TRUNCATE public.names";
    stage.target.batch_execute(aside).await.expect("it can get another name");
    let (code, text) = said(&["reset", path, "--yes", "histories"]).await;
    assert_eq!(code, Some(0), "{text}");
    let mut process = stage.run(&file);
    shows(&["1 1 copy n1", "2 1 copy n2"], &mut process).await;
    process.stop().await;
    let kept = "SELECT concat_ws(' ', n, number, kind, name) FROM public.users_before ORDER BY n, number";
    assert_eq!(texts(&stage, kept).await, ["1 1 copy n1", "1 2 update n1", "2 1 copy n2"]);
    let (code, text) = said(&["reset", path, "--rows", "--yes", "histories"]).await;
    assert!(code == Some(0) && text.contains("2 rows of public.users_history are deleted"), "{text}");
    assert!(texts(&stage, rows).await.is_empty());
    stage.clear().await;
}

/// A dropped collection ends with a delete of each document that was there.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_found_by_a_recopy() {
    let stage = Stage::new("versions_lost").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    let users = stage.source.collection::<Document>("users");
    let documents = [1_i64, 2].map(|id| doc! {"_id": id, "name": format!("n{id}"), "tags": []});
    users.insert_many(documents).await.expect("documents");
    let file = stage.file(
        "migration.yaml",
        &FILE.replace("\"${SOURCE_DATABASE}\" } }", "\"${SOURCE_DATABASE}\" }, on_drop: follow }"),
    );
    let mut process = stage.run(&file);
    let shows = async |wanted: &[&str], process: &mut Slackwater| {
        until(&format!("{wanted:?}"), PATIENCE, async || {
            process.still_runs();
            let rows = texts(
                &stage,
                "SELECT concat_ws(' ', n, number, kind, name) FROM public.users_history ORDER BY n, number",
            )
            .await;
            (rows == wanted).then_some(())
        })
        .await;
    };
    shows(&["1 1 copy n1", "2 1 copy n2"], &mut process).await;
    users.drop().await.expect("dropped");
    shows(&["1 1 copy n1", "1 2 delete", "2 1 copy n2", "2 2 delete"], &mut process).await;
    users.insert_one(doc! {"_id": 2_i64, "name": "again", "tags": []}).await.expect("a document");
    shows(&["1 1 copy n1", "1 2 delete", "2 1 copy n2", "2 2 delete", "2 3 insert again"], &mut process)
        .await;
    process.stop().await;
    stage.clear().await;
}

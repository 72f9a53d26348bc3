//! A collection is dropped or renamed while people work on its rows: these stay until somebody has said what becomes of them, or until
//! it is there again.

use std::path::{Path, PathBuf};

use bson::doc;
use serde_json::Value;

use crate::stage::items;
use crate::stage::{PATIENCE, Slackwater, Stage, state, until};

async fn rows(stage: &Stage) -> i64 {
    stage.target.query_one("SELECT count(*) FROM items", &[]).await.expect("a count").get(0)
}

/// What `status` says of the collection.
async fn gone(stage: &Stage, file: &Path) -> Value {
    stage.status(file).await["gone"][0].clone()
}

struct Copied {
    stage: Stage,
    file: PathBuf,
    process: Slackwater,
}

impl Copied {
    async fn set(name: &str, more: &str) -> Self {
        let stage = Stage::new(name).await;
        items::prepare(&stage).await;
        let file = stage
            .file("migration.yaml", &items::FILE.replace(" } }\ntarget", &format!(" }}{more} }}\ntarget")));
        items::insert(&stage, 0..1_200).await;
        let mut process = stage.run(&file);
        items::equal(&stage, &mut process, PATIENCE).await;
        until("it streams", PATIENCE, async || state::copied(&stage.target).await.then_some(())).await;
        Self { stage, file, process }
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    async fn drop_items(&mut self) {
        items::collection(&self.stage).drop().await.expect("a collection can be dropped");
        until("it is said that it is gone", PATIENCE, async || {
            self.process.still_runs();
            (gone(&self.stage, &self.file).await["collection"] == "legacy.items").then_some(())
        })
        .await;
    }

    /// Whether the switch is blocked by name.
    async fn is_blocked(&self) -> bool {
        let output = self.stage.output(&["cutover", self.path(), "--plan", "--json"]).await;
        let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let blockers = plan["blockers"].as_array().cloned().unwrap_or_default();
        blockers.iter().any(|blocker| blocker["blocker"] == "collection_parked")
    }

    async fn resolve(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.stage.output(&[&["resolve", self.path()], arguments].concat()).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_dropped_collection_wait_for_a_word() {
    let mut copied = Copied::set("gone_word", "").await;
    copied.drop_items().await;
    assert_eq!(rows(&copied.stage).await, 1_200);
    assert!(copied.is_blocked().await);
    // It survives a restart.
    copied.process.kill().await;
    copied.process = copied.stage.run(&copied.file);
    let (code, said) = copied.resolve(&["legacy.item", "--follow"]).await;
    assert!(code == Some(4) && said.contains("did you mean `legacy.items`?"), "{code:?} {said}");
    let (code, said) = copied.resolve(&["legacy.items", "--keep"]).await;
    assert_eq!(code, Some(0), "{said}");
    until("the switch is not blocked by it any more", PATIENCE, async || {
        copied.process.still_runs();
        (!copied.is_blocked().await).then_some(())
    })
    .await;
    assert_eq!(rows(&copied.stage).await, 1_200, "they were kept");
    let (code, said) = copied.resolve(&["legacy.items", "--follow"]).await;
    assert_eq!(code, Some(0), "{said}");
    until("the rows go", PATIENCE, async || {
        copied.process.still_runs();
        (rows(&copied.stage).await == 0).then_some(())
    })
    .await;
    until("nothing is gone any more", PATIENCE, async || {
        gone(&copied.stage, &copied.file).await.is_null().then_some(())
    })
    .await;
    // And it is followed.
    items::insert(&copied.stage, 50..60).await;
    assert_eq!(items::equal(&copied.stage, &mut copied.process, PATIENCE).await, 10);
    copied.process.stop().await;
    copied.stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_there_again_is_followed_again() {
    let mut copied = Copied::set("gone_back", "").await;
    copied.drop_items().await;
    items::insert(&copied.stage, 1_000..1_500).await;
    assert_eq!(items::equal(&copied.stage, &mut copied.process, PATIENCE).await, 500);
    until("nothing is gone any more", PATIENCE, async || {
        gone(&copied.stage, &copied.file).await.is_null().then_some(())
    })
    .await;
    // Without a document no change tells of it.
    copied.drop_items().await;
    copied.stage.source.create_collection("items").await.expect("a collection");
    assert_eq!(items::equal(&copied.stage, &mut copied.process, PATIENCE).await, 0);
    // A rename is a way to go as well.
    items::insert(&copied.stage, 0..100).await;
    assert_eq!(items::equal(&copied.stage, &mut copied.process, PATIENCE).await, 100);
    let name = |collection| format!("{}.{collection}", copied.stage.name);
    let rename = doc! {"renameCollection": name("items"), "to": name("aside")};
    let admin = copied.stage.source.client().database("admin");
    admin.run_command(rename).await.expect("a collection can be renamed");
    until("it is said that it is gone", PATIENCE, async || {
        let text = gone(&copied.stage, &copied.file).await["text"].as_str().unwrap_or_default().to_owned();
        text.contains("renamed").then_some(())
    })
    .await;
    assert_eq!(rows(&copied.stage).await, 100);
    copied.process.stop().await;
    copied.stage.clear().await;
}

/// What is being copied again has its rows already: they are not taken for those of a first copy when the collection goes.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_goes_while_it_is_copied_again_is_asked_about() {
    let mut copied = Copied::set("gone_recopy", "").await;
    // Nothing can be written, so the copy does not come to its end.
    let lock = "BEGIN; LOCK TABLE items IN SHARE ROW EXCLUSIVE MODE";
    copied.stage.target.batch_execute(lock).await.expect("the table can be locked");
    let output = copied.stage.output(&["recopy", copied.path()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("it is copied again", PATIENCE, async || {
        copied.process.still_runs();
        (!state::copied(&copied.stage.target).await).then_some(())
    })
    .await;
    copied.drop_items().await;
    copied.stage.target.batch_execute("ROLLBACK").await.expect("the lock is given back");
    until("the copy has come to its end", PATIENCE, async || {
        copied.process.still_runs();
        state::copied(&copied.stage.target).await.then_some(())
    })
    .await;
    assert_eq!(rows(&copied.stage).await, 1_200);
    assert!(copied.is_blocked().await);
    let (code, said) = copied.resolve(&["legacy.items", "--follow"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(items::equal(&copied.stage, &mut copied.process, PATIENCE).await, 0);
    copied.process.stop().await;
    copied.stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_it_so_follows_drops() {
    let mut copied = Copied::set("gone_follow", ", on_drop: follow").await;
    items::collection(&copied.stage).drop().await.expect("a collection can be dropped");
    until("the rows go", PATIENCE, async || {
        copied.process.still_runs();
        (rows(&copied.stage).await == 0).then_some(())
    })
    .await;
    assert!(!copied.is_blocked().await);
    copied.process.stop().await;
    copied.stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_had_nothing_is_not_asked_about() {
    let mut copied = Copied::set("gone_empty", "").await;
    items::collection(&copied.stage).delete_many(doc! {}).await.expect("items can be deleted");
    assert_eq!(items::equal(&copied.stage, &mut copied.process, PATIENCE).await, 0);
    items::collection(&copied.stage).drop().await.expect("a collection can be dropped");
    until("it is copied again", PATIENCE, async || {
        copied.process.still_runs();
        let told = state::incidents(&copied.stage.target).await;
        told.iter().any(|incident| incident.contains("recopied")).then_some(())
    })
    .await;
    assert!(gone(&copied.stage, &copied.file).await.is_null());
    copied.process.stop().await;
    copied.stage.clear().await;
}

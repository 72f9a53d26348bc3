//! A target that loses what it had confirmed: a failover to a standby that was behind, or a crash that takes commits with it which were not on the disk
//! yet. Whoever went on from what it knows would leave a gap that nobody sees. All begins anew from what is there, within the process.

use bson::doc;

use crate::stage::ground::Ground;
use crate::stage::target::Target;
use crate::stage::{PATIENCE, Slackwater, Stage, items, state, until, variable};

const LOST: &str = "the target has lost what it had confirmed";

/// The rows are equal to the documents, and all processes are there.
async fn equal(stage: &Stage, processes: &mut [Slackwater]) {
    let (first, rest) = processes.split_first_mut().expect("a process");
    items::equal(stage, first, PATIENCE).await;
    rest.iter_mut().for_each(Slackwater::still_runs);
}

async fn falls_back(kafka: bool) {
    let name = if kafka { "behind_kafka" } else { "behind" };
    let mut primary = Target::start(&format!("{name}_first")).await;
    let mut stage = Stage::between(name, &variable("SLACKWATER_MONGODB_URI"), &primary.url()).await;
    let standby = primary.standby(&format!("{name}_second")).await;
    let one = format!("127.0.0.1:{}", primary.port());
    let other = format!("127.0.0.1:{}", standby.port());
    stage.postgres =
        stage.postgres.replace(&one, &format!("{other},{one}")) + "?target_session_attrs=read-write";
    let mut ground = Ground::on(stage, kafka, items::SCHEMA, items::FILE, &["items"]).await;
    items::insert(ground.stage(), 0..500).await;
    let mut processes = ground.processes();
    equal(ground.stage(), &mut processes).await;
    // The copy has ended, and changes are applied: the standby gets all of that.
    items::insert(ground.stage(), 500..520).await;
    equal(ground.stage(), &mut processes).await;
    let lag = "SELECT pg_current_wal_lsn() - replay_lsn = 0 FROM pg_stat_replication";
    let copied = "SELECT FROM slackwater.collections WHERE state = 'copied'";
    until("the standby has followed", PATIENCE, async || {
        let target = &ground.stage().target;
        let at_end = state::rows(target, lag).await.first().is_some_and(|row| row.get(0));
        (at_end && !state::rows(target, copied).await.is_empty()).then_some(())
    })
    .await;
    standby.reload(&[("primary_conninfo", "")]).await;
    until("the standby follows nobody", PATIENCE, async || {
        let followers = "SELECT FROM pg_stat_replication";
        state::rows(&ground.stage().target, followers).await.is_empty().then_some(())
    })
    .await;
    // What is confirmed from now on is lost with the primary.
    items::insert(ground.stage(), 520..1_000).await;
    let items = items::collection(ground.stage());
    items.delete_many(doc! {"_id": {"$lt": 100_i64}}).await.expect("items can be deleted");
    items.update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await.expect("items can be changed");
    equal(ground.stage(), &mut processes).await;
    primary.stop().await;
    standby.promote().await;
    ground.stage_mut().moved(&one, &other).await;
    items::insert(ground.stage(), 1_000..1_100).await;
    equal(ground.stage(), &mut processes).await;
    assert!(processes.iter().any(|process| process.said(LOST)), "nobody has noticed");
    ground.end(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_standby_that_was_behind_direct() {
    falls_back(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_standby_that_was_behind_over_kafka() {
    falls_back(true).await;
}

/// The end of a copy is lost, as in a crash of the server: chunks of the direct log commit without waiting for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_copy_that_is_lost() {
    let stage = Stage::new("behind_copy").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..2_000).await;
    let mut process = stage.run(&file);
    items::equal(&stage, &mut process, PATIENCE).await;
    until("it is copied", PATIENCE, async || {
        let copied = "SELECT FROM slackwater.collections WHERE state = 'copied'";
        (!state::rows(&stage.target, copied).await.is_empty()).then_some(())
    })
    .await;
    let lose = "BEGIN;
        UPDATE slackwater.collections SET state = 'copying', finished_at = NULL;
        UPDATE slackwater.chunks SET done = false, documents = 0 WHERE hi IS NULL;
        DELETE FROM items WHERE n > 1500;
        COMMIT;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'slackwater'";
    stage.target.batch_execute(lose).await.expect("it can be lost");
    items::equal(&stage, &mut process, PATIENCE).await;
    assert!(process.said(LOST), "it has not noticed: {}", process.tail());
    process.stop().await;
    stage.clear().await;
}

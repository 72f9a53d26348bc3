//! Connections cut on both sides, again and again, while writers write: it goes on by itself and ends equal.

use std::time::Duration;

use bson::doc;
use slackwater_migrations::Chance;
use slackwater_migrations::crm_demo::Pace;

use crate::stage::number;
use crate::stage::trial::Trial;

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_again_and_again_it_ends_equal() {
    let seed = number("SLACKWATER_TEST_SEED", 2);
    let cuts = number("SLACKWATER_TEST_CUTS", 40);
    println!("seed {seed}, {cuts} cuts");
    let pace = Pace { writers: 2, rate: Some(200.0) };
    let mut trial = Trial::start("cut", seed, 6_000, "{ workers: 3, chunk_documents: 300 }", pace).await;
    // Other tests use this server too, and not all of them try again.
    trial.stage.call_source_by("appName=slackwater-cut");
    let mut process = trial.stage.run(&trial.file);
    let mut chance = Chance::of(seed, 0, 0);
    let (mut cut, mut failed) = (0, 0);
    for _ in 0..cuts {
        // The random moment is the test; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(chance.between(50, 500) as u64)).await;
        if chance.percent(60) {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE application_name = 'slackwater' AND datname = current_database()";
            let row = trial.stage.target.query_one(sql, &[]).await.expect("backends can be ended");
            cut += row.get::<_, i64>(0);
        } else {
            let fail = doc! {
                "configureFailPoint": "failCommand", "mode": {"times": 2},
                "data": {"failCommands": ["getMore", "find"], "closeConnection": true, "appName": "slackwater-cut"},
            };
            let admin = trial.stage.source.client().database("admin");
            admin.run_command(fail).await.expect("the server has test commands: start it with dev/services");
            failed += 2;
        }
        process.still_runs();
    }
    println!("{cut} backends ended, {failed} commands cut");
    assert!(cut > 0 && failed > 0, "nothing was cut");
    trial.end(process).await;
}

//! A role of Postgres brings settings of its own into each of its sessions, and so does a database: for people, for other programs, or for
//! reasons that nobody remembers. None of them changes what is written, ends a session, or hides a row.

use bson::{Document, doc};

use crate::stage::trial::CATCH_UP;
use crate::stage::{PATIENCE, Slackwater, Stage, number, postgres, state, until, variable};

/// Whatever can be set for a role and could do harm.
const SETTINGS: [&str; 24] = [
    "TimeZone = 'Asia/Kolkata'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "search_path = 'pg_catalog'",
    "standard_conforming_strings = off",
    "escape_string_warning = off",
    "array_nulls = off",
    "transform_null_equals = on",
    "quote_all_identifiers = on",
    "xmloption = 'document'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "idle_session_timeout = '1s'",
    "idle_in_transaction_session_timeout = '1s'",
    "statement_timeout = '200ms'",
    "lock_timeout = '100ms'",
    "synchronous_commit = off",
    "client_min_messages = debug5",
    "plan_cache_mode = 'force_generic_plan'",
    "enable_indexscan = off",
    "client_encoding = 'LATIN1'",
    "work_mem = '64kB'",
];

async fn equal(stage: &Stage, process: &mut Slackwater) {
    until("the rows are equal to the documents", CATCH_UP, async || {
        process.still_runs();
        stage.crm_compare().await.is_equal().then_some(())
    })
    .await;
}

/// The database takes no writes for a while, as a managed one whose disk is nearly full. Sessions that are opened then keep that for as long as they
/// live; afterwards all goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_spell_without_writes_passes() {
    let seed = number("SLACKWATER_TEST_SEED", 6);
    println!("seed {seed}");
    let (stage, file) = Stage::crm("odd_spell", seed, 500).await;
    let mut run = stage.run(&file);
    equal(&stage, &mut run).await;
    let set = format!("ALTER DATABASE {} SET default_transaction_read_only = on", stage.name);
    stage.target.batch_execute(&set).await.expect("a setting of the database");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'slackwater'";
    stage.target.execute(end, &[]).await.expect("sessions can be ended");
    let users = stage.source.collection::<Document>("users");
    users.update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await.expect("documents can be changed");
    until("it is said what is waited for", PATIENCE, async || {
        run.still_runs();
        run.said("25006").then_some(())
    })
    .await;
    let reset = format!("ALTER DATABASE {} RESET default_transaction_read_only", stage.name);
    stage.target.batch_execute(&reset).await.expect("the setting can be taken back");
    equal(&stage, &mut run).await;
    until("the source's time is told again", PATIENCE, async || {
        run.still_runs();
        stage.status(&file).await["lag_ms"].is_number().then_some(())
    })
    .await;
    // Documents that are asked for go a way of their own.
    stage
        .target
        .execute("DELETE FROM ledger_entries WHERE ctid IN (SELECT ctid FROM ledger_entries LIMIT 5)", &[])
        .await
        .expect("deleted");
    let repaired = stage.output(&["repair", file.to_str().expect("UTF-8")]).await;
    assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stderr));
    equal(&stage, &mut run).await;
    run.stop().await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_sets_does_no_harm() {
    let seed = number("SLACKWATER_TEST_SEED", 5);
    println!("seed {seed}");
    let (mut stage, file) = Stage::crm("odd_role", seed, 2_000).await;
    let role = format!("{}_odd", stage.name);
    // Of a run before, which failed.
    let make = format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN SUPERUSER");
    stage.target.batch_execute(&make).await.expect("a role can be made");
    for setting in SETTINGS {
        let set = format!("ALTER ROLE {role} SET {setting}");
        stage.target.batch_execute(&set).await.unwrap_or_else(|error| panic!("{setting}: {error}"));
    }
    let url = stage.postgres.replacen("//slackwater@", &format!("//{role}@"), 1);
    assert_ne!(url, stage.postgres, "the address names the usual role");
    stage.variables.push(("SLACKWATER_POSTGRES_URL", url));
    let mut run = stage.run(&file);
    equal(&stage, &mut run).await;
    // Longer than a session may be idle. What is at rest shows in that time passes for it.
    until("a session has been idle for longer than the role allows", PATIENCE, async || {
        run.still_runs();
        let sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'slackwater'
                   AND state = 'idle' AND now() - state_change > '3s'";
        (!state::rows(&stage.target, sql).await.is_empty()).then_some(())
    })
    .await;
    let users = stage.source.collection::<Document>("users");
    users.update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await.expect("documents can be changed");
    let ledger = stage.source.collection::<Document>("ledger");
    ledger.delete_many(doc! {"_id": {"$gt": 20}}).await.expect("documents can be deleted");
    equal(&stage, &mut run).await;
    stage.verifies(&file).await;
    let log = std::fs::read_to_string(run.log()).expect("a log");
    let (_, at_work) = log.split_once(" started migration").expect("it has started");
    assert!(!at_work.contains(" WARN ") && !at_work.contains(" ERROR "), "{at_work}");
    run.stop().await;
    stage.clear().await;
    let server = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
    server.batch_execute(&format!("DROP ROLE {role}")).await.expect("the role owns nothing any more");
}

/// Policies come over a table while it is written: the table stands still and says so, the others go on, and nothing was passed over
/// once the role sees all rows again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_hides_are_never_passed_over() {
    let seed = number("SLACKWATER_TEST_SEED", 6);
    println!("seed {seed}");
    let (mut stage, file) = Stage::crm("policies", seed, 1_000).await;
    let role = format!("{}_user", stage.name);
    let make = format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}; GRANT USAGE ON SCHEMA public TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        stage.name
    );
    stage.target.batch_execute(&make).await.expect("a role can be made");
    let url = stage.postgres.replacen("//slackwater@", &format!("//{role}@"), 1);
    stage.variables.push(("SLACKWATER_POSTGRES_URL", url));
    let mut run = stage.run(&file);
    equal(&stage, &mut run).await;
    // One that sees some rows: it would change and delete those, and say that all is well.
    let policy = "ALTER TABLE ledger_entries ENABLE ROW LEVEL SECURITY;
                  CREATE POLICY even_ones ON ledger_entries USING (number % 2 = 0) WITH CHECK (true)";
    stage.target.batch_execute(policy).await.expect("a policy can be made");
    let ledger = stage.source.collection::<Document>("ledger");
    ledger.update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await.expect("documents can be changed");
    ledger.delete_many(doc! {"_id": {"$gt": 20}}).await.expect("documents can be deleted");
    until("the table stands still", PATIENCE, async || {
        run.still_runs();
        let status = stage.status(&file).await;
        let standing = status["standing"].to_string();
        standing.contains("ledger_entries").then_some(())
    })
    .await;
    let users = stage.source.collection::<Document>("users");
    users.update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await.expect("documents can be changed");
    let newest = users.find_one(doc! {}).sort(doc! {"v": -1}).await.expect("a user").expect("a user");
    let newest = newest.get_i64("v").expect("a number");
    until("the other tables go on", PATIENCE, async || {
        run.still_runs();
        let row = stage.target.query_one("SELECT max(version) FROM users", &[]).await.expect("a row");
        (row.get::<_, i64>(0) == newest).then_some(())
    })
    .await;
    let mend = format!("ALTER ROLE {role} BYPASSRLS");
    stage.target.batch_execute(&mend).await.expect("a right can be given");
    equal(&stage, &mut run).await;
    stage.verifies(&file).await;
    run.stop().await;
    stage.clear().await;
    let server = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
    server.batch_execute(&format!("DROP ROLE {role}")).await.expect("the role owns nothing any more");
}

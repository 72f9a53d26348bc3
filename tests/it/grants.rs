//! `slackwater grants`: a whole migration runs with the rights that it prints and no others, and `check` names each right that is taken
//! away, and each that is too much.

use std::path::Path;

use bson::{Document, doc};
use serde_json::Value;
use slackwater_migrations::crm_demo;

use crate::stage::broker::{Broker, PASSWORD};
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::trial::CATCH_UP;
use crate::stage::{PATIENCE, Slackwater, Stage, acl, number, postgres, until, variable};

/// Runs a command to its end; its code and all that it said.
async fn said(stage: &Stage, arguments: &[&str]) -> (Option<i32>, String) {
    let output = stage.output(arguments).await;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("a-secret") && !said.contains(PASSWORD), "a password is shown: {said}");
    (output.status.code(), said)
}

/// What `check` finds, and its exit code.
async fn check(stage: &Stage, file: &Path) -> (Option<i32>, Vec<String>) {
    let output = stage.output(&["check", path(file), "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("check prints JSON");
    let found = report["diagnostics"].as_array().expect("a list").iter();
    let found = found.map(|found| {
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}\n  {}", text("severity"), text("message"), text("help"))
    });
    (output.status.code(), found.collect())
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a path in UTF-8")
}

/// `check` names these words in one finding.
async fn names(stage: &Stage, file: &Path, taken: &str, words: &[&str]) {
    let (code, found) = check(stage, file).await;
    let named = found.iter().find(|found| words.iter().all(|word| found.contains(word)));
    println!("{taken} (exit code {code:?}): {}", named.unwrap_or(&String::new()));
    assert!(named.is_some(), "without {taken}, check does not say {words:?}:\n{}", found.join("\n"));
}

/// Nothing is missing, and nothing is too much.
async fn is_enough(stage: &Stage, file: &Path) {
    let (code, found) = check(stage, file).await;
    let of_rights = |found: &&String| found.contains("right") || found.contains("more than");
    assert_eq!(found.iter().find(of_rights), None, "{found:#?}");
    assert_eq!(code, Some(0), "{found:#?}");
}

async fn grants(stage: &Stage, file: &Path, more: &[&str]) -> Value {
    let (code, text) = said(stage, &[&["grants", path(file)], more].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    println!("{text}");
    let output = stage.output(&[&["grants", path(file), "--json"], more].concat()).await;
    serde_json::from_slice(&output.stdout).expect("grants prints JSON")
}

async fn admin(stage: &Stage, command: Document) {
    let admin = stage.source.client().database("admin");
    admin.run_command(command.clone()).await.unwrap_or_else(|error| panic!("{command}: {error}"));
}

async fn sql(stage: &Stage, sql: &str) {
    stage.target.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn bson(json: &Value) -> Document {
    bson::serialize_to_document(json).expect("a document")
}

/// Takes each right away in turn, and gives it back.
async fn each_is_missed(stage: &Stage, file: &Path, grants: &Value, role: &str) {
    for right in grants["mongodb"][0]["rights"].as_array().expect("a list") {
        let action = right["action"].as_str().expect("an action");
        let privilege = doc! {"resource": bson(&right["resource"]), "actions": [action]};
        admin(stage, doc! {"revokePrivilegesFromRole": role, "privileges": [privilege.clone()]}).await;
        let on = match &right["resource"]["db"] {
            Value::String(database) => database.as_str(),
            _ => "the cluster",
        };
        names(stage, file, &format!("{action} on {on}"), &[&format!("right `{action}` on"), on]).await;
        admin(stage, doc! {"grantPrivilegesToRole": role, "privileges": [privilege]}).await;
    }
    let database = &stage.name;
    for (taken, take, give, words) in [
        (
            "CONNECT",
            format!("REVOKE CONNECT ON DATABASE {database} FROM {role}"),
            format!("GRANT CONNECT ON DATABASE {database} TO {role}"),
            ["may not connect", "GRANT CONNECT"],
        ),
        (
            "the schema",
            "ALTER SCHEMA slackwater OWNER TO CURRENT_USER".into(),
            format!("ALTER SCHEMA slackwater OWNER TO {role}"),
            ["the schema `slackwater`", "OWNER TO"],
        ),
        (
            "USAGE",
            format!("REVOKE USAGE ON SCHEMA public FROM {role}"),
            format!("GRANT USAGE ON SCHEMA public TO {role}"),
            ["USAGE of the schema `public`", "GRANT USAGE ON SCHEMA public"],
        ),
        (
            "SELECT of the sequence",
            format!("REVOKE SELECT ON SEQUENCE users_number_seq FROM {role}"),
            format!("GRANT SELECT ON SEQUENCE users_number_seq TO {role}"),
            ["may not move the sequence `public.users_number_seq`", "SELECT"],
        ),
        (
            "UPDATE of the sequence",
            format!("REVOKE UPDATE ON SEQUENCE users_number_seq FROM {role}"),
            format!("GRANT UPDATE ON SEQUENCE users_number_seq TO {role}"),
            ["may not take numbers from the sequence `public.users_number_seq`", "USAGE"],
        ),
        (
            "sight of all rows",
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY".into(),
            "ALTER TABLE users DISABLE ROW LEVEL SECURITY".into(),
            ["`public.users`: it lacks BYPASSRLS", "policies (row level security) hide rows"],
        ),
    ] {
        sql(stage, &take).await;
        names(stage, file, taken, &words).await;
        sql(stage, &give).await;
    }
    let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1";
    let tables = stage.target.query(tables, &[]).await.expect("rows");
    assert!(tables.len() > 4, "the CRM has tables");
    for (row, right) in tables.iter().zip(["SELECT", "INSERT", "UPDATE", "DELETE"].into_iter().cycle()) {
        let table: String = row.get(0);
        sql(stage, &format!("REVOKE {right} ON {table} FROM {role}")).await;
        let lacks = format!("`public.{table}`: it lacks {right}");
        names(stage, file, &format!("{right} on {table}"), &[&lacks]).await;
        sql(stage, &format!("GRANT {right} ON {table} TO {role}")).await;
    }
}

/// What is too much is a warning of a line.
async fn too_much_is_told(stage: &Stage, file: &Path, role: &str) {
    for (more, word, less) in
        [("SUPERUSER", "is a superuser", "NOSUPERUSER"), ("BYPASSRLS", "BYPASSRLS", "NOBYPASSRLS")]
    {
        sql(stage, &format!("ALTER ROLE {role} {more}")).await;
        names(stage, file, less, &["warning", word, "more than this migration needs"]).await;
        sql(stage, &format!("ALTER ROLE {role} {less}")).await;
    }
    let all: &[(&str, &str)] = &[("readWrite", &stage.name), ("dbOwner", &stage.name), ("root", "admin")];
    for (more, database) in all {
        let roles = [doc! {"role": *more, "db": *database}];
        admin(stage, doc! {"grantRolesToUser": role, "roles": roles.to_vec()}).await;
        names(stage, file, more, &["warning", &format!("{more}@{database}")]).await;
        admin(stage, doc! {"revokeRolesFromUser": role, "roles": roles.to_vec()}).await;
    }
}

async fn follows(stage: &Stage, processes: &mut [Slackwater]) {
    until("the rows are equal to the documents", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        stage.crm_compare().await.is_equal().then_some(())
    })
    .await;
}

/// Changes, new documents, and some that go.
async fn edit(stage: &Stage) {
    let users = stage.source.collection::<Document>("users");
    users.update_many(doc! {}, doc! {"$inc": {"v": 1_i64}}).await.expect("documents can be changed");
    let ledger = stage.source.collection::<Document>("ledger");
    ledger.delete_many(doc! {"_id": {"$gt": 20}}).await.expect("documents can be deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_migration_with_these_rights_alone() {
    let seed = number("SLACKWATER_TEST_SEED", 71);
    println!("seed {seed}");
    let mongod = Mongod::start("grants", Flavour::Passwords).await;
    let mut stage = Stage::at("grants", &mongod.uri()).await;
    stage.fill(seed, 800).await;
    // The gate runs it, and so does the frozen second.
    let check = "{ name: versions, source: { collection: legacy.users, aggregate: [ { $group: { _id: null, v: { $sum: $v } } } ] }, \
                 target: select sum(version) from users }";
    let file = stage.file(
        "grants.yaml",
        &format!(
            "{}\nchecks: [ {check} ]\ncutover: {{ max_lag: 10s, deadline: 60s }}\n",
            crm_demo::mapping()
        ),
    );
    let role = format!("{}_role", stage.name);
    // What everybody may would hide what the role may not.
    sql(
        &stage,
        &format!(
            "ALTER TABLE users ADD COLUMN number serial; DROP ROLE IF EXISTS {role};
             REVOKE ALL ON DATABASE {} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC",
            stage.name
        ),
    )
    .await;

    let printed = grants(&stage, &file, &["--role", &role, "--user", &role]).await;
    assert_eq!(printed["kafka"], Value::Null);
    for command in printed["mongodb"][0]["commands"].as_array().expect("a list") {
        let mut command = bson(command);
        if command.contains_key("createUser") {
            command.insert("pwd", "a-secret");
        }
        admin(&stage, command).await;
    }
    for statement in printed["postgres"]["statements"].as_array().expect("a list") {
        sql(&stage, statement["sql"].as_str().expect("SQL")).await;
    }
    sql(&stage, &format!("ALTER ROLE {role} PASSWORD 'a-secret'")).await;
    stage.mongodb = mongod.uri_as(&role, "a-secret");
    let (_, place) = stage.postgres.split_once('@').expect("a URL with a user");
    stage.postgres = format!("postgres://{role}:a-secret@{place}");

    is_enough(&stage, &file).await;
    each_is_missed(&stage, &file, &printed, &role).await;
    too_much_is_told(&stage, &file, &role).await;
    is_enough(&stage, &file).await;

    let mut processes = [stage.run(&file)];
    follows(&stage, &mut processes).await;
    edit(&stage).await;
    follows(&stage, &mut processes).await;
    let status = stage.status(&file).await;
    assert_eq!(status["copied"], true, "{status:#}");
    let report = until("the switch is made", CATCH_UP, async || {
        let output = stage.output(&["cutover", path(&file), "--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).expect("cutover prints JSON");
        // A machine that is busy may be too slow; whatever else stands in the way is told.
        println!("{}: {} {}", report["state"], report["reason"], report["blockers"]);
        (output.status.code() == Some(0)).then_some(report)
    })
    .await;
    assert_eq!(report["state"], "open", "{report:#}");
    assert_eq!(report["checks"][0]["verdict"], "holds", "{report:#}");
    let [mut process] = processes;
    let ended = until("the process ends by itself", PATIENCE, async || process.ended()).await;
    assert!(ended.success(), "{}", process.tail());
    let report = stage.crm_compare().await;
    assert!(report.is_equal(), "{report}");
    stage.clear().await;
    let server = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
    server.batch_execute(&format!("DROP ROLE {role}")).await.expect("the role can go");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_kafka_with_these_rights_alone() {
    let seed = number("SLACKWATER_TEST_SEED", 72);
    println!("seed {seed}");
    let (broker, guarded) = Broker::start_guarded("grants").await;
    let (stage, _) = Stage::crm("grants_kafka", seed, 600).await;
    let file = |user: &str, more: &str| {
        let text = format!(
            "{}\nlog:\n  kafka:\n    brokers: \"{}\"\n    group: grants\n    \
             topics: {{ prefix: grants, partitions: 2, replication: 1{more} }}\n    consumer: {{ session.timeout.ms: 6000 }}\n    \
             options:\n      security.protocol: SASL_SSL\n      ssl.ca.location: {}\n      \
             sasl.mechanisms: SCRAM-SHA-512\n      sasl.username: {user}\n      sasl.password: {PASSWORD}\n",
            crm_demo::mapping(),
            guarded.address,
            guarded.certificate.display()
        );
        stage.file(&format!("{user}.yaml"), &text)
    };
    let [capture, apply, topics] = ["capture", "apply", "topics"].map(|user| file(user, ""));
    let users = ["--capture-user", "capture", "--apply-user", "apply", "--topics-user", "topics"];
    let printed = grants(&stage, &capture, &users).await;
    let entries = printed["kafka"]["acls"].as_array().expect("a list").clone();
    for entry in &entries {
        acl::add(&broker.address(), entry).await;
    }
    let of = |user: &str, resource: &str, operation: &str| {
        let principal = format!("User:{user}");
        let found = entries.iter().find(|entry| {
            entry["principal"] == principal
                && entry["resource"] == resource
                && entry["operation"] == operation
        });
        found.unwrap_or_else(|| panic!("no entry for {user}: {operation} on a {resource}")).clone()
    };
    // Every entry is taken away once below.
    assert_eq!(entries.len(), 7, "{entries:#?}");

    // Brokers learn of a change a little later than the answer.
    let refuses = async |arguments: &[&str], words: &[&str]| {
        until(&format!("{arguments:?} says {words:?}"), PATIENCE, async || {
            let (code, said) = said(&stage, arguments).await;
            let told = words.iter().all(|word| said.contains(word)) && matches!(code, Some(4 | 6));
            println!("{arguments:?}: {code:?}\n{said}");
            told.then_some(())
        })
        .await;
    };
    let succeeds = async |arguments: &[&str]| {
        until(&format!("{arguments:?} succeeds"), PATIENCE, async || {
            let (code, said) = said(&stage, arguments).await;
            println!("{arguments:?}: {code:?}\n{said}");
            (code == Some(0)).then_some(())
        })
        .await;
    };
    for (operation, word) in [("Create", "right Create"), ("Describe", "right Describe")] {
        acl::remove(&broker.address(), &of("topics", "topic", operation)).await;
        refuses(&["topics", "apply", path(&topics)], &[word]).await;
        acl::add(&broker.address(), &of("topics", "topic", operation)).await;
    }
    succeeds(&["topics", "apply", path(&topics)]).await;
    acl::remove(&broker.address(), &of("topics", "topic", "AlterConfigs")).await;
    refuses(&["topics", "apply", path(&topics)], &["right DescribeConfigs"]).await;
    acl::add(&broker.address(), &of("topics", "topic", "AlterConfigs")).await;
    succeeds(&["topics", "check", path(&topics)]).await;

    succeeds(&["check", path(&capture)]).await;
    succeeds(&["check", path(&apply)]).await;
    for (operation, word) in [("Write", "right Write"), ("DescribeConfigs", "right DescribeConfigs")] {
        acl::remove(&broker.address(), &of("capture", "topic", operation)).await;
        refuses(&["check", path(&capture)], &[word]).await;
        refuses(&["capture", path(&capture)], &["right"]).await;
        acl::add(&broker.address(), &of("capture", "topic", operation)).await;
        succeeds(&["check", path(&capture)]).await;
    }
    let mut processes = vec![stage.start(&["capture", path(&capture)], "capture")];
    until("the capture has begun", CATCH_UP, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        stage.target.query_one("SELECT FROM slackwater.log_partitions LIMIT 1", &[]).await.ok()
    })
    .await;
    for (resource, word) in [("topic", "right Read on the topic"), ("group", "right Read on the group")] {
        acl::remove(&broker.address(), &of("apply", resource, "Read")).await;
        refuses(&["check", path(&apply)], &[word]).await;
        refuses(&["apply", path(&apply)], &[word]).await;
        acl::add(&broker.address(), &of("apply", resource, "Read")).await;
        succeeds(&["check", path(&apply)]).await;
    }
    processes.push(stage.start(&["apply", path(&apply)], "apply"));
    follows(&stage, &mut processes).await;
    edit(&stage).await;
    follows(&stage, &mut processes).await;
    let status = stage.status(&apply).await;
    assert_eq!(status["copied"], true, "{status:#}");
    for process in processes {
        process.stop().await;
    }
    stage.clear().await;
}

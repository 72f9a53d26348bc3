//! What cannot work is refused before anything is written: with a message that says where and what to do, an exit
//! code, and no trace in the target.

use std::path::Path;

use bson::doc;

use crate::stage::items;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::state;
use crate::stage::{Stage, postgres, variable};

/// Both commands refuse; each of the words is in what they say.
async fn refused(stage: &Stage, file: &Path, words: &[&str]) {
    for command in ["check", "run"] {
        let output = stage.output(&[command, file.to_str().expect("a path in UTF-8")]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("--- {command}: {}\n{said}", output.status);
        assert!(!output.status.success() && output.status.code().is_some(), "{command}: {}", output.status);
        let small = said.to_lowercase();
        for word in words {
            assert!(small.contains(&word.to_lowercase()), "{command} does not say `{word}`:\n{said}");
        }
        assert!(!small.contains("panicked"), "{command}:\n{said}");
        assert!(!said.contains("secret"), "{command} shows a password:\n{said}");
        assert!(!state::exists(&stage.target).await, "{command} has written something");
    }
}

/// A stage with a table, an item, and the file with some text in another's place.
async fn with(name: &str, text: &str, other: &str) -> (Stage, std::path::PathBuf) {
    let stage = Stage::new(name).await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..1).await;
    assert!(items::FILE.contains(text), "`{text}` is in the file");
    let file = stage.file("migration.yaml", &items::FILE.replace(text, other));
    (stage, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file() {
    let stage = Stage::new("no_file").await;
    refused(&stage, &stage.folder.join("nothing.yaml"), &["nothing.yaml"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_yaml() {
    let (stage, file) = with("broken", "collections:", "collections: [").await;
    refused(&stage, &file, &["migration.yaml"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key() {
    let (stage, file) = with("unknown_key", "columns:", "colums:").await;
    refused(&stage, &file, &["colums", "migration.yaml"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unset_variable() {
    let (stage, file) = with("unset", "${SOURCE_DATABASE}", "${NOBODY_SETS_THIS}").await;
    refused(&stage, &file, &["NOBODY_SETS_THIS"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_does_not_exist() {
    let (stage, file) = with("no_column", "name: { text", "nmae: { text").await;
    refused(&stage, &file, &["nmae", "items"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_exist() {
    let (stage, file) = with("no_table", "into: items", "into: itmes").await;
    refused(&stage, &file, &["itmes"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_cannot_be_cast() {
    let (stage, file) = with("no_cast", "n: { integer: n }", "n: { timestamp: n }").await;
    refused(&stage, &file, &["`n`", "bigint"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_must_not_be_null_and_has_no_source() {
    let (stage, file) = with("not_null", "        name: { text: name }\n", "").await;
    refused(&stage, &file, &["name", "not null"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_does_not_exist_as_reference() {
    let (stage, file) = with("no_ref", "id: { uuid: _id }", "id: { ref: _id, to: legacy.nothing }").await;
    refused(&stage, &file, &["legacy.nothing"]).await;
    stage.clear().await;
}

/// All mistakes of a file are told at once, each with its line.
#[tokio::test(flavor = "multi_thread")]
async fn several_mistakes_at_once() {
    let (stage, file) = with(
        "several",
        "        n: { integer: n }\n        name: { text: name }\n",
        "        n: { timestamp: n }\n        nmae: { text: name }\n",
    )
    .await;
    refused(&stage, &file, &["nmae", "bigint", ":11:", ":12:"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_mongodb() {
    let server = Mongod::start("standalone", Flavour::Standalone).await;
    let stage = Stage::at("standalone", &server.uri()).await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..1).await;
    refused(&stage, &file, &["replica set"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_rights_of_mongodb() {
    let server = Mongod::start("passwords", Flavour::Passwords).await;
    let mut stage = Stage::at("passwords", &server.uri()).await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..1).await;
    let admin = stage.source.client().database("admin");
    let elsewhere = doc! {"role": "read", "db": "elsewhere"};
    let user = doc! {"createUser": "stranger", "pwd": "a-secret", "roles": [elsewhere]};
    admin.run_command(user).await.expect("a user can be made");

    stage.mongodb = server.uri_as("admin", "wrong-secret");
    refused(&stage, &file, &["mongodb", "password"]).await;
    stage.mongodb = server.uri_as("stranger", "a-secret");
    refused(&stage, &file, &["mongodb", "right"]).await;
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_in_postgres() {
    let (mut stage, file) = with("right", "migration: items", "migration: items").await;
    let role = format!("{}_stranger", stage.name);
    let make = format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'a-secret'");
    stage.target.batch_execute(&make).await.expect("a role can be made");
    let whole = stage.postgres.clone();
    let (_, place) = whole.rsplit_once('@').expect("a URL with a user");
    stage.postgres = format!("postgres://{role}:a-secret@{place}");
    refused(&stage, &file, &["items", "right"]).await;
    stage.clear().await;
    let admin = postgres(&variable("SLACKWATER_POSTGRES_URL")).await;
    admin.batch_execute(&format!("DROP ROLE {role}")).await.expect("a role can be dropped");
}

//! Our own schema in the target database, `slackwater`. The program creates it and brings it up to date.
//!
//! Each version is one SQL file. The missing ones run in order, in one transaction under an advisory lock: processes that start
//! together create the schema once, and a crash leaves the version that was there before.

use tokio_postgres::Client;

use super::doing::Doing as _;
use crate::error::{Error, Kind, Result};

const DOING: &str = "preparing the schema slackwater";

/// All versions, in order. A published one never changes.
const VERSIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
    include_str!("schema/6.sql"),
    include_str!("schema/7.sql"),
    include_str!("schema/8.sql"),
    include_str!("schema/9.sql"),
    include_str!("schema/10.sql"),
    include_str!("schema/11.sql"),
    include_str!("schema/12.sql"),
    include_str!("schema/13.sql"),
    include_str!("schema/14.sql"),
    include_str!("schema/15.sql"),
];

/// "slackwat" as bytes: the advisory lock under which the schema is created or changed.
const LOCK: i64 = 0x736c_6163_6b77_6174;

/// How often it is tried while processes of an older version get in its way.
const TRIES: usize = 5;

/// Creates the schema, or brings it up to this program's version.
pub(super) async fn prepare(client: &mut Client) -> Result<()> {
    let mut tries = 1;
    while version(client).await? != Some(VERSIONS.len()) {
        match upgrade(client).await {
            Err(error) if error.kind == Kind::Contention && tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
    Ok(())
}

async fn upgrade(client: &mut Client) -> Result<()> {
    let transaction = client.transaction().await.doing(DOING)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.doing(DOING)?;
    let schema = transaction
        .query_one("SELECT to_regnamespace('slackwater') IS NULL", &[])
        .await
        .and_then(|row| row.try_get(0))
        .doing(DOING)?;
    if schema {
        transaction.batch_execute("CREATE SCHEMA slackwater").await.doing(DOING)?;
    }
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS slackwater.schema_version
                 (version int PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())",
        )
        .await
        .doing(DOING)?;
    let stored: Option<i32> = transaction
        .query_one("SELECT max(version) FROM slackwater.schema_version", &[])
        .await
        .and_then(|row| row.try_get(0))
        .doing(DOING)?;
    let stored = known(stored)?;
    for (index, sql) in VERSIONS.iter().enumerate().skip(stored) {
        let version = index as i32 + 1;
        transaction.batch_execute(sql).await.doing(DOING)?;
        transaction
            .execute("INSERT INTO slackwater.schema_version (version) VALUES ($1)", &[&version])
            .await
            .doing(DOING)?;
    }
    transaction.commit().await.doing(DOING)
}

/// The schema's version; `None` if our schema does not exist.
pub(super) async fn version(client: &Client) -> Result<Option<usize>> {
    let row = client
        .query_one("SELECT to_regclass('slackwater.schema_version') IS NOT NULL", &[])
        .await
        .doing("reading the schema slackwater")?;
    if !row.try_get::<_, bool>(0).doing("reading the schema slackwater")? {
        return Ok(None);
    }
    let row = client
        .query_one("SELECT max(version) FROM slackwater.schema_version", &[])
        .await
        .doing("reading the schema slackwater")?;
    known(row.try_get(0).doing("reading the schema slackwater")?).map(Some)
}

/// True if this is the version that the program was written for.
pub(super) fn is_current(version: usize) -> bool {
    version == VERSIONS.len()
}

fn known(version: Option<i32>) -> Result<usize> {
    let version = usize::try_from(version.unwrap_or(0)).unwrap_or(0);
    if version > VERSIONS.len() {
        return Err(Error::new(
            Kind::Unsuitable,
            DOING,
            format!(
                "it has version {version}, made by a newer slackwater; this one knows versions up to {}: run the newer one",
                VERSIONS.len()
            ),
        ));
    }
    Ok(version)
}

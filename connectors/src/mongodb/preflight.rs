//! What the server is and what it lets us do, asked before anything is moved.
//!
//! Facts only; whether a fact is a mistake is the caller's to say.

use bson::{doc, rawdoc};
use mongodb::Database;

use super::client::{CollectionInfo, Mongo};
use super::error::cleaned;
use super::pulse::oplog_end;
use super::server::Server;
use crate::error::{Error, Kind, Result};

/// What was found.
#[derive(Debug)]
pub struct Preflight {
    /// Who answers, and what protects the connection.
    pub server: Server,
    /// The server's version.
    pub version: (u32, u32, u32),
    /// `featureCompatibilityVersion`; `None` where we may not ask.
    pub feature_version: Option<String>,
    /// The replica set's name; `None` for a standalone server and for a sharded cluster's router.
    pub replica_set: Option<String>,
    /// We are connected to a sharded cluster's router.
    pub sharded: bool,
    /// Why no change stream can be opened, where that is so.
    pub no_change_stream: Option<Error>,
    /// How many hours the oplog reaches back; `None` where we may not ask.
    pub oplog_hours: Option<f64>,
    /// The collections that were asked for, in that order.
    pub collections: Vec<WatchedCollection>,
    /// What else holds documents in the database; `None` where we may not ask.
    pub others: Option<Vec<String>>,
}

impl Preflight {
    /// Neither a replica set nor a cluster: it has no change streams.
    pub fn standalone(&self) -> bool {
        self.replica_set.is_none() && !self.sharded
    }
}

/// A collection that was asked for.
#[derive(Debug)]
pub struct WatchedCollection {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub presence: Presence,
    /// Why it cannot be read, where that is so.
    pub unreadable: Option<Error>,
}

/// Whether a collection is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// As the server describes it.
    Present(CollectionInfo),
    /// No collection of this name.
    Missing,
    /// We may not list collections.
    Unknown,
}

impl Mongo {
    /// Looks at the server, and tries what the migration will do with these collections.
    pub async fn preflight(&self, collections: &[String]) -> Result<Preflight> {
        let admin = self.other("admin");
        let hello = admin.run_raw_command(rawdoc! {"hello": 1}).await;
        let hello = hello.map_err(|error| cleaned("asking the server what it is", &error))?;
        let replica_set = hello.get_str("setName").ok().map(str::to_owned);
        let sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let listed = self.collections().await;
        let mut found = Vec::with_capacity(collections.len());
        for name in collections {
            let presence = match &listed {
                Err(_) => Presence::Unknown,
                Ok(listed) => match listed.iter().find(|info| info.name == *name) {
                    Some(info) => Presence::Present(info.clone()),
                    None => Presence::Missing,
                },
            };
            let unreadable = refusal(self.try_find(name).await)?;
            found.push(WatchedCollection { name: name.clone(), presence, unreadable });
        }
        Ok(Preflight {
            server: self.server().await?,
            version: self.version(),
            feature_version: feature_version(&admin).await,
            replica_set,
            sharded,
            no_change_stream: refusal(self.try_change_stream().await)?,
            oplog_hours: oplog_hours(&self.other("local")).await,
            collections: found,
            others: listed.ok().map(|listed| {
                let other = listed.into_iter().filter(CollectionInfo::holds_documents).map(|info| info.name);
                other.filter(|name| !collections.contains(name)).collect()
            }),
        })
    }

    async fn try_find(&self, collection: &str) -> Result<()> {
        let doing = format!("reading {collection}");
        let find = rawdoc! {"find": collection, "limit": 1, "singleBatch": true, "projection": {"_id": 1}};
        self.replies(find, &doing).await.map(|_| ())
    }

    async fn try_change_stream(&self) -> Result<()> {
        let command = rawdoc! {
            "aggregate": 1, "cursor": {"batchSize": 1}, "pipeline": [{"$changeStream": {}}],
            "readConcern": {"level": "majority"},
        };
        self.replies(command, "opening a change stream").await.map(|_| ())
    }
}

/// The server's answer, where it is no; a connection that broke is none.
fn refusal(answer: Result<()>) -> Result<Option<Error>> {
    match answer {
        Ok(()) => Ok(None),
        Err(error) if error.kind == Kind::Unreachable => Err(error),
        Err(error) => Ok(Some(error)),
    }
}

async fn feature_version(admin: &Database) -> Option<String> {
    let asked = admin.run_command(doc! {"getParameter": 1, "featureCompatibilityVersion": 1}).await.ok()?;
    let feature = asked.get_document("featureCompatibilityVersion").ok()?;
    feature.get_str("version").ok().map(str::to_owned)
}

async fn oplog_hours(local: &Database) -> Option<f64> {
    let (first, last) = (oplog_end(local, 1).await?, oplog_end(local, -1).await?);
    Some(f64::from(last.upper().saturating_sub(first.upper())) / 3600.0)
}

//! Stopping the writers of a source, and counting its documents then.
//!
//! `setUserWriteBlockMode` waits for writes and transactions that are under way and refuses all later ones, so every write
//! that was ever acknowledged is at or before the operation time of its answer.

use std::time::Duration;

use bson::{Bson, Document, rawdoc};
use slackwater_topics::Moment;

use super::client::Mongo;
use super::error::cleaned;
use crate::error::{Error, Kind, Result};
use crate::source::FreezeRight;

/// The first version that knows the command.
const KNOWN_SINCE: (u32, u32, u32) = (6, 0, 0);
/// What `serverStatus` says of a server whose writers are blocked.
const BLOCKED: i64 = 2;

impl Mongo {
    /// Blocks all writes of users without the right to pass, in all databases. Returns the source's operation time then:
    /// nothing was acknowledged after it. Waits for open transactions, but no longer than `within`.
    pub async fn block_writes(&self, within: Duration) -> Result<Moment> {
        let doing = "freezing the source";
        let most = i32::try_from(within.as_millis()).unwrap_or(i32::MAX).max(1);
        let command = rawdoc! {"setUserWriteBlockMode": 1, "global": true, "maxTimeMS": most};
        let reply = self.other("admin").run_raw_command(command).await;
        operation_time(&reply.map_err(|error| cleaned(doing, &error))?, doing)
    }

    /// Lets writers write again. Does no harm where they may.
    pub async fn unblock_writes(&self) -> Result<()> {
        let command = rawdoc! {"setUserWriteBlockMode": 1, "global": false};
        let reply = self.other("admin").run_raw_command(command).await;
        reply.map(drop).map_err(|error| cleaned("unfreezing the source", &error))
    }

    /// Whether writers are blocked; `None` where we may not ask.
    pub async fn writes_blocked(&self) -> Result<Option<bool>> {
        // Everything else that the server would count takes its time.
        let command = rawdoc! {
            "serverStatus": 1, "repl": 1, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0, "locks": 0, "opLatencies": 0,
            "opcounters": 0, "connections": 0, "network": 0, "globalLock": 0, "extra_info": 0, "logicalSessionRecordCache": 0,
            "transactions": 0, "flowControl": 0, "storageEngine": 0, "indexBulkBuilder": 0, "indexBuilds": 0,
        };
        let reply = match self.other("admin").run_raw_command(command).await {
            Ok(reply) => reply,
            Err(error) => {
                let error = cleaned("asking whether the source is frozen", &error);
                return if error.kind == Kind::Denied { Ok(None) } else { Err(error) };
            }
        };
        let mode = reply.get_document("repl").ok().and_then(|repl| number(repl, "userWriteBlockMode"));
        Ok(mode.map(|mode| mode == BLOCKED))
    }

    /// How long the oldest transaction that has written is open already; `None` where there is none or we may not ask.
    /// Freezing would wait for it.
    pub async fn oldest_writer(&self) -> Result<Option<Duration>> {
        let doing = "asking for open transactions";
        let command = rawdoc! {
            "aggregate": 1, "cursor": {},
            "pipeline": [
                {"$currentOp": {"allUsers": true, "idleSessions": true}},
                // Who only reads holds nobody up.
                {"$match": {"transaction.timeOpenMicros": {"$exists": true},
                            "$or": [{"locks.Global": "w"}, {"locks.Global": "W"}]}},
                {"$group": {"_id": null, "oldest": {"$max": "$transaction.timeOpenMicros"}}},
            ],
        };
        let reply = match self.other("admin").run_raw_command(command).await {
            Ok(reply) => reply,
            Err(error) => {
                let error = cleaned(doing, &error);
                return if error.kind == Kind::Denied { Ok(None) } else { Err(error) };
            }
        };
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let first = batch.map_err(|_| unreadable(doing))?.first().and_then(Bson::as_document);
        let oldest = first.and_then(|first| number(first, "oldest"));
        Ok(oldest.and_then(|micros| u64::try_from(micros).ok()).map(Duration::from_micros))
    }

    /// Whether we may block writes.
    pub async fn freeze_right(&self) -> Result<FreezeRight> {
        if self.version() < KNOWN_SINCE {
            let (major, minor, patch) = self.version();
            let why = format!("MongoDB {major}.{minor}.{patch} cannot refuse its writers; 6.0 and later can");
            return Ok(FreezeRight::Unable { why });
        }
        let command = rawdoc! {"connectionStatus": 1, "showPrivileges": true};
        let reply = self.other("admin").run_raw_command(command).await;
        let reply = reply.map_err(|error| cleaned("asking for our rights", &error))?;
        Ok(match may(&reply, "setUserWriteBlockMode") {
            Some(true) => FreezeRight::Given,
            Some(false) | None => {
                FreezeRight::Missing { give: "the action `setUserWriteBlockMode` on the cluster" }
            }
        })
    }

    /// Whether we may write a note; without one a moment at an idle source passes only with the server's own next entry.
    pub async fn may_note(&self) -> Result<bool> {
        let command = rawdoc! {"connectionStatus": 1, "showPrivileges": true};
        let reply = self.other("admin").run_raw_command(command).await;
        let reply = reply.map_err(|error| cleaned("asking for our rights", &error))?;
        Ok(may(&reply, "appendOplogNote") == Some(true))
    }

    /// Writes a note into the source's own log, which no collection shows; its time. For a source that somebody else has
    /// frozen: everything before this is before it.
    ///
    /// Managed servers give nobody the right to do that. Then it is the time of what was last written there; the server itself
    /// writes a note every ten seconds while nothing happens, and then it has passed.
    pub async fn note(&self, text: &str) -> Result<Moment> {
        let doing = "marking the time at the source";
        let command = rawdoc! {
            "appendOplogNote": 1, "data": {"slackwater": text}, "writeConcern": {"w": "majority"},
        };
        match self.other("admin").run_raw_command(command).await {
            Ok(reply) => operation_time(&reply, doing),
            Err(error) => match cleaned(doing, &error) {
                // Not of a majority: a write that was acknowledged by the primary alone has to be before it.
                error if error.kind == Kind::Denied => Ok(self.hello().await?.moment),
                error => Err(error),
            },
        }
    }

    /// How many documents the server believes to be in a collection: at once, and right unless it was killed lately.
    pub async fn count_quickly(&self, collection: &str) -> Result<u64> {
        let command = rawdoc! {"count": collection};
        let reply = self.handle().run_raw_command(command).await;
        let reply = reply.map_err(|error| cleaned(format!("counting {collection}"), &error))?;
        Ok(number(&reply, "n").and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    /// How many documents there are, one by one.
    pub async fn count_exactly(&self, collection: &str) -> Result<u64> {
        let doing = format!("counting {collection}");
        let command = rawdoc! {
            "aggregate": collection, "pipeline": [{"$group": {"_id": null, "n": {"$sum": 1}}}], "cursor": {},
            "hint": {"_id": 1},
        };
        let reply = self.handle().run_raw_command(command).await;
        let reply = reply.map_err(|error| cleaned(doing.as_str(), &error))?;
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let batch = batch.map_err(|_| unreadable(&doing))?;
        let Some(first) = batch.first() else {
            // No document, no group.
            return Ok(0);
        };
        let first = first.as_document().ok_or_else(|| unreadable(&doing))?;
        Ok(number(first, "n").and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }
}

fn unreadable(doing: &str) -> Error {
    Error::new(Kind::Unsuitable, doing, "the server's answer cannot be read")
}

fn operation_time(reply: &Document, doing: &str) -> Result<Moment> {
    let time = reply.get_timestamp("operationTime").map_err(|_| {
        Error::new(Kind::Unsuitable, doing, "the server tells no operation time; it is not a replica set")
    })?;
    Ok(Moment::of_halves(time.time, time.increment))
}

fn number(document: &Document, name: &str) -> Option<i64> {
    match document.get(name)? {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

/// What `connectionStatus` tells. A server that asks nobody for a password gives every right.
fn may(reply: &Document, wanted: &str) -> Option<bool> {
    let info = reply.get_document("authInfo").ok()?;
    let users = info.get_array("authenticatedUsers").ok()?;
    if users.is_empty() {
        return Some(true);
    }
    let privileges = info.get_array("authenticatedUserPrivileges").ok()?;
    for privilege in privileges {
        let Some(privilege) = privilege.as_document() else { continue };
        let Ok(resource) = privilege.get_document("resource") else { continue };
        let fits = |name: &str| resource.get_bool(name).unwrap_or(false);
        if !fits("cluster") && !fits("anyResource") {
            continue;
        }
        let Ok(actions) = privilege.get_array("actions") else { continue };
        let given = |action: &str| action == wanted || action == "anyAction";
        if actions.iter().any(|action| action.as_str().is_some_and(given)) {
            return Some(true);
        }
    }
    Some(false)
}

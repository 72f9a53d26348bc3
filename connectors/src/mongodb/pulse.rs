//! What time it is at the source, and how far back it remembers: one cheap command each, nothing is written.

use bson::{Document, doc, rawdoc};
use mongodb::Database;
use slackwater_topics::Moment;

use super::client::Mongo;
use super::error::cleaned;
use crate::error::{Error, Kind, Result};
use crate::source::Heard;

impl Mongo {
    /// Asks the primary for its clock and its operation time. `hello` needs no right and waits for nothing.
    pub async fn hello(&self) -> Result<Heard> {
        let doing = "asking the source what time it is";
        let reply = match self.other("admin").run_raw_command(rawdoc! {"hello": 1}).await {
            Ok(reply) => reply,
            Err(error) => {
                let error = cleaned(doing, &error);
                self.renew(error.kind).await;
                return Err(error);
            }
        };
        heard(&reply).ok_or_else(|| {
            Error::new(Kind::Unsuitable, doing, "it does not say; is it part of a replica set?")
        })
    }

    /// The oldest change that the source still has. `None` where it does not say, for which it needs a right.
    pub async fn oplog_from(&self) -> Option<Moment> {
        oplog_end(&self.other("local"), 1).await
    }
}

/// The clock is read before the operation time: what was acknowledged until then is in it.
fn heard(reply: &Document) -> Option<Heard> {
    let time = |document: &Document, name: &str| {
        document.get_timestamp(name).ok().map(|ts| Moment::of_halves(ts.time, ts.increment))
    };
    let clock = reply.get_datetime("localTime").ok()?.timestamp_millis();
    let own = time(reply, "operationTime");
    // A router speaks for several primaries and has an operation time of none of them.
    let router = reply.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    let cluster = reply.get_document("$clusterTime").ok().filter(|_| router);
    let gossiped = cluster.and_then(|cluster| time(cluster, "clusterTime"));
    Some(Heard { moment: own.max(gossiped)?, clock })
}

/// The time of the oldest (1) or newest (-1) entry of the oplog.
///
/// A busy server may fail such a read, because the oplog is cut off at its old end and has holes at its new one. So it is asked
/// again, unless we have no right to ask.
pub(super) async fn oplog_end(local: &Database, direction: i32) -> Option<Moment> {
    for _ in 0..5 {
        match read_end(local, direction).await {
            Ok(Some(moment)) => return Some(moment),
            Ok(None) => tracing::debug!(direction, "the oplog shows no entry"),
            Err(error) if error.kind == Kind::Denied => return None,
            Err(error) => tracing::debug!(direction, "{error}"),
        }
    }
    None
}

async fn read_end(local: &Database, direction: i32) -> Result<Option<Moment>> {
    let find = doc! {
        "find": "oplog.rs", "sort": {"$natural": direction}, "limit": 1, "singleBatch": true,
        "projection": {"ts": 1},
    };
    let reply = local.run_command(find).await.map_err(|error| cleaned("reading the oplog", &error))?;
    let first = || {
        let first =
            reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?.first()?.as_document()?;
        first.get_timestamp("ts").ok()
    };
    Ok(first().map(|ts| Moment::of_halves(ts.time, ts.increment)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{DateTime, Timestamp};

    #[test]
    fn a_moment_of_a_primary_and_of_a_router() {
        let clock = DateTime::from_millis(1_700_000_000_123);
        let (own, cluster) = (Timestamp { time: 5, increment: 1 }, Timestamp { time: 7, increment: 2 });
        let mut reply = doc! {
            "ok": 1, "localTime": clock, "operationTime": own, "$clusterTime": {"clusterTime": cluster},
        };
        let found = heard(&reply).expect("a moment");
        assert_eq!(found, Heard { moment: Moment::of_halves(5, 1), clock: 1_700_000_000_123 });
        reply.insert("msg", "isdbgrid");
        assert_eq!(heard(&reply).expect("a moment").moment, Moment::of_halves(7, 2));
        assert_eq!(heard(&doc! {"ok": 1, "localTime": clock}), None, "a server of its own has none");
    }
}

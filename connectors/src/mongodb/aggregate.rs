//! An aggregation of somebody else's, as of one moment.
//!
//! A read with `snapshot` sees the whole cluster as it was at one cluster time, which the server chooses or we do. Where it cannot
//! (before 5.0, a capped collection, a collection that was made just now), a read with majority has to do, and says that it is no snapshot.

use bson::{RawDocumentBuf, Timestamp, cstr, rawdoc};
use bytes::Bytes;
use slackwater_topics::{Document, Malformed, Moment, Value};

use super::client::{Mongo, majority};
use super::reply::Reply;
use crate::error::{Error, Kind, Result};

/// Under this name a document holds the stages.
pub const PIPELINE: &str = "pipeline";

/// As of when is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// One moment, which the server chooses.
    Present,
    /// This moment.
    Moment(Moment),
    /// Whatever a majority has: for a source that stands still.
    Majority,
}

/// What an aggregation has given.
#[derive(Clone, Debug)]
pub struct Aggregated {
    /// The documents.
    pub documents: Vec<Bytes>,
    /// They are as of this moment, where they are as of one.
    pub moment: Option<Moment>,
}

/// No snapshot can be had here, or not of that moment: too old, not yet possible, of a kind of collection that has none.
const NO_SNAPSHOT: [&str; 5] = ["72", "239", "246", "263", "148"];

impl Mongo {
    /// Whether it reads as of one moment.
    pub fn has_snapshots(&self) -> bool {
        self.version() >= (5, 0, 0)
    }

    /// Runs the stages over a collection, and keeps at most so many documents. `stages`: a document with the stages under [`PIPELINE`].
    /// `None` where it cannot be read as of the moment that is wanted.
    pub async fn aggregate(
        &self,
        collection: &str,
        stages: &[u8],
        as_of: AsOf,
        most: usize,
    ) -> Result<Option<Aggregated>> {
        let concern = match as_of {
            AsOf::Majority => majority(Moment::default()),
            _ if !self.has_snapshots() => return Ok(None),
            AsOf::Present => rawdoc! {"level": "snapshot"},
            AsOf::Moment(moment) => {
                let time = Timestamp { time: moment.upper(), increment: moment.lower() };
                rawdoc! {"level": "snapshot", "atClusterTime": time}
            }
        };
        match self.aggregated(collection, stages, concern, most).await {
            Err(Error { code: Some(code), .. })
                if as_of != AsOf::Majority && NO_SNAPSHOT.contains(&&*code) =>
            {
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    async fn aggregated(
        &self,
        collection: &str,
        stages: &[u8],
        concern: RawDocumentBuf,
        most: usize,
    ) -> Result<Aggregated> {
        let doing = format!("aggregating {collection}");
        let mut command = command(collection, stages, &doing)?;
        command.append(cstr!("readConcern"), concern);
        let mut replies = self.replies(command, &doing).await?;
        let mut aggregated = Aggregated { documents: Vec::new(), moment: None };
        while let Some(reply) = replies.next().await? {
            let broken = |broken: Malformed| Error::new(Kind::Data, &doing, broken.to_string());
            aggregated.moment = aggregated.moment.or(as_of_reply(&reply).map_err(broken)?);
            for document in reply.documents() {
                if aggregated.documents.len() == most {
                    let what = format!("it gives more than {most} documents");
                    return Err(Error::new(Kind::Unsuitable, &doing, what));
                }
                let bytes = document.map_err(broken)?.as_bytes();
                aggregated.documents.push(reply.slice(bytes));
            }
        }
        Ok(aggregated)
    }

    /// Whether the server understands the stages: it plans them and runs nothing.
    pub async fn understands(&self, collection: &str, stages: &[u8]) -> Result<()> {
        let doing = format!("planning an aggregation of {collection}");
        let explain = rawdoc! {"explain": command(collection, stages, &doing)?, "verbosity": "queryPlanner"};
        let planned = self.handle().run_raw_command(explain).await;
        planned.map(drop).map_err(|error| super::error::cleaned(doing, &error))
    }
}

fn command(collection: &str, stages: &[u8], doing: &str) -> Result<RawDocumentBuf> {
    let broken = || Error::new(Kind::Bug, doing, "the stages are no BSON");
    let stages = RawDocumentBuf::from_bytes(stages.to_vec()).map_err(|_| broken())?;
    let stages = stages.get_array(PIPELINE).map_err(|_| broken())?;
    let mut command = rawdoc! {"aggregate": collection};
    command.append(cstr!("pipeline"), stages.to_owned());
    command.append(cstr!("cursor"), rawdoc! {"batchSize": i32::MAX});
    command.append(cstr!("allowDiskUse"), true);
    Ok(command)
}

/// The moment that a reply of a snapshot is as of.
fn as_of_reply(reply: &Reply) -> std::result::Result<Option<Moment>, Malformed> {
    let Some(Value::Document(cursor)) = Document::new(reply.bytes())?.get(b"cursor")? else {
        return Ok(None);
    };
    Ok(match cursor.get(b"atClusterTime")? {
        Some(Value::Timestamp { seconds, increment }) => Some(Moment::of_halves(seconds, increment)),
        _ => None,
    })
}

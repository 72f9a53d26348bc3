//! Copying a collection in chunks: ranges of `_id` that can be read side by side, in any order, and again.
//!
//! A chunk is read with majority, at or after a time. While it is read the server goes on, so each of its
//! documents is as it was at some moment between `from` and `until`; who publishes it leaves out the keys that
//! changed in between. Nothing is kept here: after a crash the same range is read again.
//!
//! The connection string may send these reads to secondaries (`readPreference`). Majority and `afterClusterTime` hold there as
//! well: a secondary that lags lets the read wait until it has what the primary had at that time. Samples may be outdated, they only
//! say where to cut.
//!
//! A collection with a collation of its own sorts text in another order than [`Range`] does. It is
//! one range, read in one piece.

use std::cmp::Ordering;

use bson::{RawBson, RawDocumentBuf, cstr, doc, rawdoc};
use slackwater_topics::{Bound, Document, Key, Malformed, Moment, Range, Value, compare};

use super::client::{Mongo, majority};
use crate::error::{Error, Kind, Result};
use crate::source::{ChunkRead, Split};

/// Samples for each chunk: with eight, the largest chunk is seldom twice the mean.
const SAMPLES: u64 = 8;
/// Documents whose size is looked at.
const SIZED: i64 = 200;
/// `$sample` found the same documents over and over.
const UNLUCKY: &str = "28799";

impl Mongo {
    /// Cuts a collection into ranges of about this many bytes and documents, whichever is less.
    ///
    /// No bounds for one that is small, absent, or has a collation.
    pub async fn split(&self, collection: &str, chunk_bytes: u64, chunk_documents: u64) -> Result<Split> {
        let whole = |documents| Split { documents, bounds: Vec::new() };
        let Some(info) = self.collection(collection).await? else { return Ok(whole(0)) };
        let documents = self.count(collection).await?;
        if info.collation || documents == 0 {
            return Ok(whole(documents));
        }
        let size = self.mean_size(collection).await?.max(1);
        let each = (chunk_bytes / size).min(chunk_documents).max(1);
        let chunks = documents.div_ceil(each);
        if chunks < 2 {
            return Ok(whole(documents));
        }
        // Above a twentieth of the collection the server reads all of it instead of jumping about.
        let samples = (chunks * SAMPLES).min((documents / 20).saturating_sub(1)).max(chunks);
        let Some(ids) = self.sampled(collection, samples).await? else { return Ok(whole(documents)) };
        Ok(Split { documents, bounds: thinned(&ids, chunks) })
    }

    async fn count(&self, collection: &str) -> Result<u64> {
        // `count` without a filter reads metadata, and needs no more than the right to `find`.
        let reply = self.handle().run_raw_command(rawdoc! {"count": collection}).await;
        let reply = reply.map_err(|error| super::error::cleaned(format!("counting {collection}"), &error))?;
        let count = reply.get_i64("n").or_else(|_| reply.get_i32("n").map(i64::from)).unwrap_or(0);
        Ok(count.max(0) as u64)
    }

    async fn mean_size(&self, collection: &str) -> Result<u64> {
        let doing = format!("measuring {collection}");
        let command = doc! {
            "aggregate": collection, "cursor": {},
            "pipeline": [
                {"$sample": {"size": SIZED}},
                {"$group": {"_id": null, "size": {"$avg": {"$bsonSize": "$$ROOT"}}}},
            ],
        };
        let mut replies = match self.copied(raw(&command, &doing)?, &doing).await {
            Err(error) if error.code.as_deref() == Some(UNLUCKY) => return Ok(1024),
            replies => replies?,
        };
        let mut size = 0.0;
        while let Some(reply) = replies.next().await? {
            for document in reply.documents() {
                if let Some(Value::Double(mean)) =
                    document.and_then(|group| group.get(b"size")).unwrap_or(None)
                {
                    size = mean;
                }
            }
        }
        Ok(size as u64)
    }

    /// Some `_id`s in ascending order; `None` where the server could not draw them.
    async fn sampled(&self, collection: &str, samples: u64) -> Result<Option<Vec<Bound>>> {
        let doing = format!("splitting {collection}");
        // Sorted by the server: its order of mixed types is the one that counts.
        let command = doc! {
            "aggregate": collection, "cursor": {}, "allowDiskUse": true,
            "pipeline": [
                {"$sample": {"size": i64::try_from(samples).unwrap_or(i64::MAX)}},
                {"$project": {"_id": 1}},
                {"$sort": {"_id": 1}},
            ],
            "readConcern": {"level": "majority"},
        };
        let mut ids = Vec::new();
        let outcome = async {
            let mut replies = self.copied(raw(&command, &doing)?, &doing).await?;
            while let Some(reply) = replies.next().await? {
                for document in reply.documents() {
                    let bound = document.and_then(|document| Bound::of(id(document)?));
                    ids.push(bound.map_err(|broken| unreadable(collection, broken))?);
                }
            }
            Ok(())
        };
        match outcome.await {
            Err(Error { code: Some(code), .. }) if code == UNLUCKY => {
                tracing::warn!(collection, "no sample could be drawn; the collection is read as one range");
                Ok(None)
            }
            outcome => outcome.map(|()| Some(ids)),
        }
    }

    /// Reads a range, or as much of it as `most_bytes` allow, and says what is left. At least one document is read
    /// where there is one.
    ///
    /// A collection with a collation is read in one piece whatever its size, so it has to fit into memory.
    pub async fn read_chunk(
        &self,
        collection: &str,
        range: &Range,
        after: Moment,
        most_bytes: usize,
    ) -> Result<ChunkRead> {
        let mut chunk = ChunkRead { documents: Vec::new(), from: after, until: after, rest: None, bytes: 0 };
        if range.is_empty() {
            return Ok(chunk);
        }
        let info = self.collection(collection).await?;
        let most_bytes = match &info {
            Some(info) if info.collation => usize::MAX,
            _ => most_bytes,
        };
        // The first reply has 101 documents unless told otherwise; later ones are as full as they go.
        let mut find = rawdoc! {"find": collection, "batchSize": i32::MAX};
        match info.and_then(|info| info.clustered) {
            Some(name) => find.append(cstr!("hint"), name.as_str()),
            None => find.append(cstr!("hint"), rawdoc! {"_id": 1}),
        }
        limit(&mut find, range).map_err(|broken| unreadable(collection, broken))?;
        let last = Range {
            lo: Some(Bound::of(Value::MaxKey).map_err(|broken| unreadable(collection, broken))?),
            hi: None,
        };
        if *range != last {
            self.fill(&mut chunk, collection, find, range, most_bytes).await?;
        }
        // Where only `min` is given the server stops before MaxKey, which can be an `_id` too.
        if range.lo.is_some() && range.hi.is_none() && chunk.rest.is_none() {
            let find = rawdoc! {"find": collection, "filter": {"_id": RawBson::MaxKey}};
            self.fill(&mut chunk, collection, find, range, most_bytes).await?;
        }
        Ok(chunk)
    }

    async fn fill(
        &self,
        chunk: &mut ChunkRead,
        collection: &str,
        mut find: RawDocumentBuf,
        range: &Range,
        most_bytes: usize,
    ) -> Result<()> {
        let doing = format!("copying {collection}");
        find.append(cstr!("readConcern"), majority(chunk.from));
        let mut replies = self.copied(find, &doing).await?;
        while let Some(reply) = replies.next().await? {
            chunk.until = chunk.until.max(reply.operation_time);
            for document in reply.documents() {
                let read = document.and_then(|document| Ok((document.as_bytes(), id(document)?)));
                let (bytes, id) = read.map_err(|broken| unreadable(collection, broken))?;
                if !chunk.documents.is_empty() && chunk.bytes.saturating_add(bytes.len()) > most_bytes {
                    let lo = Bound::of(id).map_err(|broken| unreadable(collection, broken))?;
                    chunk.rest = Some(Range { lo: Some(lo), hi: range.hi.clone() });
                    return Ok(());
                }
                let key = Key::of(id).map_err(|broken| unreadable(collection, broken))?;
                chunk.bytes += bytes.len();
                chunk.documents.push((key, reply.slice(bytes)));
            }
        }
        Ok(())
    }
}

/// Puts `min` and `max` into a `find`.
fn limit(find: &mut RawDocumentBuf, range: &Range) -> std::result::Result<(), Malformed> {
    let document =
        |bound: &Bound| RawDocumentBuf::from_bytes(bound.document("_id")).map_err(|_| Malformed { at: 0 });
    if let Some(lo) = &range.lo {
        find.append(cstr!("min"), document(lo)?);
    }
    if let Some(hi) = &range.hi {
        find.append(cstr!("max"), document(hi)?);
    }
    Ok(())
}

/// Every n-th of the distinct ids, so that at most `chunks` ranges come out.
fn thinned(ids: &[Bound], chunks: u64) -> Vec<Bound> {
    let step = (ids.len() as u64).div_ceil(chunks).max(1) as usize;
    let mut bounds: Vec<Bound> = Vec::new();
    for id in ids.iter().skip(step).step_by(step) {
        if bounds.last().is_none_or(|last| compare(last.value(), id.value()) == Ordering::Less) {
            bounds.push(id.clone());
        }
    }
    bounds
}

pub(super) fn id(document: Document<'_>) -> std::result::Result<Value<'_>, Malformed> {
    document.get(b"_id")?.ok_or(Malformed { at: 4 })
}

pub(super) fn unreadable(collection: &str, broken: Malformed) -> Error {
    Error::new(Kind::Data, format!("reading {collection}"), broken.to_string())
}

fn raw(command: &bson::Document, doing: &str) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(command).map_err(|_| Error::new(Kind::Bug, doing, "the command is no BSON"))
}

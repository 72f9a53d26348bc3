//! Copying a table in chunks, looking records up, and counting them.
//!
//! A chunk is read page by page while the server goes on; the moments say between when. A table whose key is no whole number is one
//! chunk: in which order its database sorts is not known.

use slackwater_topics::{Bound, Key, Moment, Range};

use super::client::Noco;
use super::mirror;
use super::pages::{After, Page, Which, number, whole_of};
use super::record::{Hash, Record};
use super::shape::{KeyShape, Shape};
use crate::error::{Error, Kind, Result};
use crate::source::{ChunkRead, Lookup, Split};

impl Noco {
    /// Cuts a table into ranges of about this many bytes and records, whichever is less.
    pub async fn split(&self, table: &str, chunk_bytes: u64, chunk_documents: u64) -> Result<Split> {
        let shape = self.server.shape(table).await?;
        let documents = self.watched(self.server.http.count(&shape).await, &shape)?;
        let whole = Split { documents, bounds: Vec::new() };
        if !matches!(shape.key, KeyShape::Number(_)) || documents == 0 {
            return Ok(whole);
        }
        let sample = self.page(&shape, Which::default(), After::Start).await?.records;
        let bytes: usize = sample.iter().map(|record| record.document.len()).sum();
        let size = (bytes / sample.len().max(1)).max(1) as u64;
        let each = (chunk_bytes / size).min(chunk_documents).max(1);
        let mut bounds: Vec<Bound> = Vec::new();
        let mut last = None;
        let mut offset = each;
        while offset < documents {
            let Some(key) = self.server.http.nth(&shape, offset).await? else { break };
            // Records that were deleted meanwhile can only make it stand still.
            if last < Some(key) {
                last = Some(key);
                let bound = Bound::of(slackwater_topics::Value::Int64(key));
                bounds.push(
                    bound.map_err(|_| Error::new(Kind::Bug, "splitting a table", "a number is no bound"))?,
                );
            }
            offset += each;
        }
        Ok(Split { documents, bounds })
    }

    /// Reads a range, or as much of it as `most_bytes` allow, and says what is left. At least one record is read where there is one.
    ///
    /// A table whose key is no whole number is read in one piece whatever its size, so it has to fit into memory.
    pub async fn read_chunk(
        &self,
        table: &str,
        range: &Range,
        since: Moment,
        most_bytes: usize,
    ) -> Result<ChunkRead> {
        let shape = self.server.shape(table).await?;
        let mut chunk = ChunkRead { documents: Vec::new(), from: since, until: since, rest: None, bytes: 0 };
        let mut hashes: Vec<(Key, Hash)> = Vec::new();
        let whole = matches!(shape.key, KeyShape::Number(_));
        if !whole && *range != Range::all() {
            let doing = format!("copying {}", shape.title);
            return Err(Error::new(Kind::Bug, doing, "a range of a table that can only be read whole"));
        }
        if range.is_empty() {
            return Ok(chunk);
        }
        // What the stream has read before `since` is remembered before anything of this is.
        drop(self.server.reading.lock().await);
        let bound = |bound: &Option<Bound>| bound.as_ref().and_then(|bound| whole_of(bound.value()));
        let which = Which { lo: bound(&range.lo), hi: bound(&range.hi), since: None };
        let mut after = After::Start;
        'pages: loop {
            let page = self.page(&shape, which, after).await?;
            for record in page.records {
                let bytes = record.document.len();
                if whole && !chunk.documents.is_empty() && chunk.bytes.saturating_add(bytes) > most_bytes {
                    let lo = Bound::at(&record.key);
                    let lo = lo.map_err(|_| Error::new(Kind::Bug, "copying a table", "a key is no bound"))?;
                    chunk.rest = Some(Range { lo: Some(lo), hi: range.hi.clone() });
                    break 'pages;
                }
                chunk.bytes += bytes;
                hashes.push((record.key.clone(), record.hash));
                chunk.documents.push((record.key, record.document));
            }
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        if !whole {
            // An offset may have moved.
            chunk.documents.sort_by(|a, b| a.0.cmp(&b.0));
            chunk.documents.dedup_by(|a, b| a.0 == b.0);
        }
        chunk.until = self.server.clock.tick();
        if let Some((memory, collection)) = self.remembered(table) {
            let hi = chunk.rest.as_ref().map_or(which.hi, |rest| bound(&rest.lo));
            let inside = |key: i64| which.lo.is_none_or(|lo| lo <= key) && hi.is_none_or(|hi| key < hi);
            let covers = |key: &Key| !whole || number(key).is_some_and(inside);
            let read = mirror::Chunk { records: &hashes, covers: &covers, since };
            memory.copying(collection, &read, chunk.until).await?;
        }
        Ok(chunk)
    }

    /// The chunk whose read ended at `until` is in the log for good, with these keys: less those that were left out of it. Whoever does not
    /// say so has the records sent again after a restart.
    pub async fn copied(&self, table: &str, keys: &[Key], until: Moment) -> Result<()> {
        match self.remembered(table) {
            Some((memory, collection)) => memory.copied(collection, keys, until).await,
            None => Ok(()),
        }
    }

    /// Reads the records of these keys, as they are at `since` or later.
    pub async fn lookup(&self, table: &str, keys: &[Key], since: Moment) -> Result<Lookup> {
        let shape = self.server.shape(table).await?;
        let read = self.server.http.by_keys(&shape, keys).await;
        let records: Vec<Record> = self.watched(read, &shape)?;
        // A page of the stream that was asked for before this read may show something older. It has its moment first.
        let page = self.server.reading.lock().await;
        let at = self.server.clock.tick().max(since);
        drop(page);
        if let Some((memory, collection)) = self.remembered(table) {
            let hashes: Vec<_> = records.iter().map(|record| (record.key.clone(), record.hash)).collect();
            memory.looked_up(collection, &hashes, at).await?;
        }
        let found = records.into_iter().map(|record| (record.key, record.document)).collect();
        Ok(Lookup { found, at })
    }

    /// How many records there are. The server counts them one by one, which is quick enough.
    pub async fn count_quickly(&self, table: &str) -> Result<u64> {
        self.count_exactly(table).await
    }

    /// How many records there are, one by one.
    pub async fn count_exactly(&self, table: &str) -> Result<u64> {
        let shape = self.server.shape(table).await?;
        self.watched(self.server.http.count(&shape).await, &shape)
    }

    async fn page(&self, shape: &Shape, which: Which, after: After) -> Result<Page> {
        let page = self.server.http.page(shape, which, after, &self.server.size).await;
        self.watched(page, shape)
    }

    /// A table that is no longer what it was is looked at again next time.
    fn watched<T>(&self, outcome: Result<T>, shape: &Shape) -> Result<T> {
        if let Err(error) = &outcome
            && error.kind == Kind::Unsuitable
        {
            self.server.forget_shape(&shape.table);
        }
        outcome
    }

    fn remembered(&self, table: &str) -> Option<(&super::memory::Memory, slackwater_topics::CollectionId)> {
        let memory = self.memory.as_deref()?;
        Some((memory, memory.collection(table)?))
    }
}

//! The task behind a stream: what is read when, and what follows from it.
//!
//! One request at a time, so that of two pages the later one is the newer one. Polls come first and in between belongs to sweeps; after a
//! poll a sweep gets as many requests as the poll took, so that a slow limit starves neither.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slackwater_topics::{Key, Moment, Position};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Noco, Server};
use super::memory::Memory;
use super::pages::{After, MOST_KEYS, Page, SHAPE, Which};
use super::record::Record;
use super::stream::{Calm, Trouble, What};
use super::table::{Sweep, Table};
use crate::error::{Error, Kind, Result};
use crate::retry::Pauses;
use crate::source::{Change, ChangeBatch, ChangeKind, DocumentChange};

/// A table that fails so often in a row may be the only one that does.
const MOST_FAILURES: u32 = 8;

/// The task.
pub(super) struct Follower {
    noco: Noco,
    memory: Arc<Memory>,
    out: mpsc::Sender<Result<ChangeBatch>>,
    near: watch::Receiver<Option<Duration>>,
    troubles: watch::Sender<Vec<Trouble>>,
    calm: watch::Sender<Calm>,
    tables: Vec<Table>,
    sweep: Option<Sweep>,
    poll_at: Instant,
    /// Requests that sweeps may send before the next poll.
    owed: u64,
    passed: Moment,
    /// When the pass over all tables began that is under way, and whether it has found anything.
    pass_from: Moment,
    found: bool,
}

/// Why something could not be done.
enum Trip {
    /// Nobody listens.
    ReaderGone,
    /// The store, or the whole server: the stream ends.
    Failed(Error),
    /// The server, while it read this table.
    Server(usize, Error),
}

type Step = std::result::Result<(), Trip>;

/// What of some records nobody has been told yet.
struct News {
    /// How many records there were.
    seen: usize,
    news: Vec<(ChangeKind, Record)>,
    at: Moment,
}

/// What to do next.
enum Work {
    Poll,
    Sweep,
    Begin(usize),
    Look(usize),
    Wait(Instant),
}

impl Follower {
    pub(super) fn new(
        noco: Noco,
        memory: Arc<Memory>,
        out: mpsc::Sender<Result<ChangeBatch>>,
        near: watch::Receiver<Option<Duration>>,
        troubles: watch::Sender<Vec<Trouble>>,
        calm: watch::Sender<Calm>,
    ) -> Self {
        let tables = noco.followed.iter().cloned().map(Table::new).collect();
        let pass_from = noco.now();
        Self {
            noco,
            memory,
            out,
            near,
            troubles,
            calm,
            tables,
            sweep: None,
            poll_at: Instant::now(),
            owed: 0,
            passed: Moment::default(),
            pass_from,
            found: false,
        }
    }

    fn server(&self) -> Arc<Server> {
        self.noco.server.clone()
    }

    pub(super) async fn run(mut self) {
        self.memory.restart().await;
        let mut pauses = Pauses::for_server();
        let mut failures = 0_u32;
        loop {
            let out = self.out.clone();
            let step = tokio::select! {
                step = self.step() => step,
                () = out.closed() => return,
            };
            match step {
                Ok(()) => {
                    pauses.reset();
                    if failures > 1 {
                        tracing::info!("NocoDB answers again");
                    }
                    failures = 0;
                }
                Err(Trip::ReaderGone) => return,
                Err(Trip::Failed(error)) => {
                    // Nobody listens any more if this cannot be sent.
                    let _ = self.out.send(Err(error)).await;
                    return;
                }
                Err(Trip::Server(table, error)) => {
                    let away = matches!(error.kind, Kind::Unreachable | Kind::Exhausted | Kind::Contention);
                    if error.kind == Kind::Unreachable {
                        self.tables[table].failures += 1;
                    }
                    if away {
                        failures += 1;
                        // One that breaks once is no news.
                        if failures == 2 {
                            tracing::warn!(%error, "NocoDB does not answer; trying again until it does");
                        }
                        let _ = timeout(pauses.next_pause(), self.out.closed()).await;
                    }
                    // If only this one fails, the others are not to wait for it.
                    if !away || self.tables[table].failures >= MOST_FAILURES {
                        let examined = tokio::select! {
                            examined = self.examine(table, &error) => examined,
                            () = out.closed() => return,
                        };
                        if let Err(Trip::Failed(error)) = examined {
                            let _ = self.out.send(Err(error)).await;
                            return;
                        }
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Step {
        if self.noco.server.afresh.swap(false, Ordering::AcqRel) {
            self.sweep = None;
            self.pass_from = self.noco.server.clock.tick();
        }
        match self.work() {
            Work::Poll => self.poll().await,
            Work::Sweep => self.sweep_page().await,
            Work::Begin(table) => {
                self.begin(table);
                Ok(())
            }
            Work::Look(table) => self.look(table).await,
            Work::Wait(until) => {
                let server = self.server();
                tokio::select! {
                    () = sleep_until(until) => {}
                    () = server.poked.notified() => self.poll_at = Instant::now(),
                    _ = self.near.changed() => {}
                }
                Ok(())
            }
        }
    }

    /// What to do next. Pure, but for the time.
    fn work(&self) -> Work {
        let now = Instant::now();
        let near = *self.near.borrow();
        let due = |table: &Table| table.look_at <= now;
        if let Some(table) = self.tables.iter().position(due) {
            return Work::Look(table);
        }
        let mut next = self.tables.iter().map(|table| table.look_at).min();
        if let Some(idle) = near {
            if self.sweep.is_some() {
                return Work::Sweep;
            }
            let going = self.tables.iter().enumerate().filter(|(_, table)| table.goes());
            let unswept = going.filter(|(_, table)| table.swept_from < Some(self.pass_from));
            if let Some((table, _)) = unswept.min_by_key(|(_, table)| table.swept_from) {
                return Work::Begin(table);
            }
            next = next.map(|next| next.min(now + idle));
            return Work::Wait(next.unwrap_or(now + idle));
        }
        let sweep_due = |table: &Table| table.goes() && table.sweep_at <= now;
        let due = self.tables.iter().position(sweep_due);
        let idle = self.sweep.is_none() && due.is_none();
        let polled = self.tables.iter().any(Table::is_polled);
        if polled && self.poll_at <= now && (self.owed == 0 || idle) {
            return Work::Poll;
        }
        if self.sweep.is_some() {
            return Work::Sweep;
        }
        if let Some(table) = due {
            return Work::Begin(table);
        }
        let sweeps = self.tables.iter().filter(|table| table.goes()).map(|table| table.sweep_at);
        let polls = polled.then_some(self.poll_at);
        let next = sweeps.chain(next).chain(polls).min();
        Work::Wait(next.unwrap_or(now + self.noco.server.settings.every))
    }

    /// Looks whether the table and its columns are still what they were.
    async fn look(&mut self, index: usize) -> Step {
        let server = self.server();
        let table = &mut self.tables[index];
        let name = table.followed.table.clone();
        let failed = |error| Trip::Server(index, error);
        let known = table.shape.as_ref().map(|shape| shape.table.clone());
        let found = match &known {
            // The usual case costs one request.
            Some(id) if table.goes() => match server.shape_now(id).await {
                Ok(shape) => Some(shape),
                Err(error) if error.code.as_deref() == Some("ERR_TABLE_NOT_FOUND") => None,
                Err(error) => return Err(failed(error)),
            },
            _ => None,
        };
        let found = match found {
            Some(shape) => Some(shape),
            None => match server.find(&name).await.map_err(failed)? {
                Some(listed) => Some(server.shape_now(&listed.id).await.map_err(failed)?),
                None => None,
            },
        };
        table.look_at = Instant::now() + server.settings.sweep;
        let stood = table.trouble.clone();
        match found {
            Some(shape) => {
                let before = table.shape.clone();
                match table.take(shape) {
                    Ok(()) => {
                        if stood.is_some() || before.is_some_and(|before| Some(before) != table.shape) {
                            table.sweep_at = Instant::now();
                            self.give_up(index);
                        }
                        if stood.is_some() {
                            tracing::info!(table = name, "the table goes on");
                        }
                    }
                    Err((what, text)) => self.stand(index, what, text),
                }
            }
            None => self.lost(index, known).await?,
        }
        self.tell();
        Ok(())
    }

    /// There is no such table any more. It may have another title now; otherwise it is gone, with everything in it.
    async fn lost(&mut self, index: usize, known: Option<String>) -> Step {
        let server = self.server();
        let name = self.tables[index].followed.table.clone();
        let Some(id) = known else {
            self.stand(index, What::Missing, format!("there is no table {name} in the base"));
            return Ok(());
        };
        let renamed = server.find(&id).await.map_err(|error| Trip::Server(index, error))?;
        if let Some(renamed) = renamed {
            let title = renamed.title;
            let text =
                format!("table {name} is called {title} now; rename it back, or change the migration file");
            self.stand(index, What::Renamed, text);
            return Ok(());
        }
        if self.tables[index].trouble.as_ref().is_some_and(|trouble| trouble.what == What::Dropped) {
            return Ok(());
        }
        self.stand(index, What::Dropped, format!("table {name} was deleted"));
        let at = server.clock.tick();
        let position = Position::new(at, token(0));
        let collection = self.tables[index].followed.collection;
        let change = Change::Dropped { collection, position: position.clone() };
        self.send(vec![change], position, 0).await
    }

    fn stand(&mut self, index: usize, what: What, text: String) {
        self.give_up(index);
        let table = &mut self.tables[index];
        table.look_at = Instant::now() + self.noco.server.settings.sweep;
        if table.stand(what, text.clone()) {
            tracing::warn!(table = table.followed.table, "{text}");
        }
        self.tell();
    }

    /// A sweep of this table that is under way comes to nothing.
    fn give_up(&mut self, index: usize) {
        if self.sweep.as_ref().is_some_and(|sweep| sweep.table == index) {
            self.sweep = None;
        }
    }

    fn tell(&self) {
        let troubles: Vec<Trouble> = self.tables.iter().filter_map(|table| table.trouble.clone()).collect();
        self.troubles.send_if_modified(|known| {
            let news = *known != troubles;
            known.clone_from(&troubles);
            news
        });
    }

    /// The server has refused something about a table: is it the table, or everything?
    async fn examine(&mut self, index: usize, error: &Error) -> Step {
        let server = self.server();
        server.forget_shape(
            self.tables[index].shape.as_ref().map(|shape| shape.table.as_str()).unwrap_or_default(),
        );
        match server.http.tables(&server.base.id).await {
            Ok(_) => {}
            // The server is away, and the table cannot be blamed.
            Err(other) if matches!(other.kind, Kind::Unreachable | Kind::Exhausted | Kind::Contention) => {
                return Ok(());
            }
            // Whoever may not even list the tables was shut out.
            Err(other) => return Err(Trip::Failed(other)),
        }
        if error.kind == Kind::Unreachable {
            self.stand(index, What::Refused, error.to_string());
            return Ok(());
        }
        if error.kind == Kind::Denied {
            self.stand(index, What::Denied, error.to_string());
            return Ok(());
        }
        let strange =
            matches!(error.code.as_deref(), Some(SHAPE | "ERR_TABLE_NOT_FOUND" | "ERR_FIELD_NOT_FOUND"));
        let before = self.tables[index].shape.clone();
        match self.look(index).await {
            // It looks as before, and is refused all the same.
            Ok(()) if self.tables[index].goes() && (!strange || self.tables[index].shape == before) => {
                self.stand(index, What::Refused, error.to_string());
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(Trip::Server(_, again)) => {
                self.stand(index, What::Refused, again.to_string());
                Ok(())
            }
            Err(trip) => Err(trip),
        }
    }

    /// Reads a page, and remembers what of it is news. The moment comes after everything that is in it.
    async fn page(
        &mut self,
        index: usize,
        which: Which,
        after: After,
    ) -> std::result::Result<(Page, News), Trip> {
        let Some(shape) = self.tables[index].shape.clone() else {
            let error = Error::new(Kind::Bug, "following the changes", "a table that was not looked at");
            return Err(Trip::Failed(error));
        };
        let server = self.server();
        // Chunks and look-ups wait for this before they begin, or before they have their moment: so whatever has an earlier moment than
        // theirs is remembered before theirs is.
        let _reading = server.reading.lock().await;
        let page = server.http.page(&shape, which, after, &server.size).await;
        let mut page = page.map_err(|error| Trip::Server(index, error))?;
        self.tables[index].failures = 0;
        let news = self.news(index, std::mem::take(&mut page.records)).await?;
        Ok((page, news))
    }

    async fn news(&self, index: usize, records: Vec<Record>) -> std::result::Result<News, Trip> {
        let at = self.noco.server.clock.tick();
        let seen = records.len();
        let collection = self.tables[index].followed.collection;
        let news = self.memory.news(collection, records, at).await.map_err(Trip::Failed)?;
        Ok(News { seen, news, at })
    }

    /// Passes on what is news.
    async fn hand_out(&mut self, index: usize, News { news, at, .. }: News) -> Step {
        let collection = self.tables[index].followed.collection;
        if news.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        let mut changes = Vec::with_capacity(news.len());
        for (n, (kind, record)) in news.into_iter().enumerate() {
            bytes += record.document.len();
            changes.push(Change::Document(DocumentChange {
                collection,
                kind,
                key: record.key,
                id: record.id,
                document: Some(record.document),
                position: Position::new(at, token(n)),
                wall: i64::try_from(at.0).unwrap_or(i64::MAX),
            }));
        }
        let last = token(changes.len() - 1);
        self.send(changes, Position::new(at, last), bytes).await
    }

    async fn send(&mut self, changes: Vec<Change>, position: Position, bytes: usize) -> Step {
        self.found |= !changes.is_empty();
        self.passed = self.passed.max(self.passed_now());
        let now = position.moment;
        let batch = ChangeBatch { changes, position, passed: self.passed, now, bytes };
        self.out.send(Ok(batch)).await.map_err(|_| Trip::ReaderGone)
    }

    /// Everything through this moment has been delivered.
    fn passed_now(&self) -> Moment {
        // Somebody who is about to switch must not do so past a table that stands still.
        let near = self.near.borrow().is_some();
        let tables = self.tables.iter().filter(|table| near || table.goes());
        let swept = tables.map(|table| table.swept_from.unwrap_or_default()).min();
        swept.map(Moment::before).unwrap_or_default()
    }

    /// Time has gone by.
    async fn send_nothing(&mut self) -> Step {
        let at = self.noco.server.clock.tick();
        self.send(Vec::new(), Position::new(at, Vec::new()), 0).await
    }

    /// Asks every table for what was created or updated.
    async fn poll(&mut self) -> Step {
        let before = self.noco.requests();
        for index in 0..self.tables.len() {
            let table = &self.tables[index];
            match table.small {
                _ if !table.is_polled() => {}
                true => self.sweep_small(index).await?,
                false => self.poll_table(index).await?,
            }
        }
        self.owed = self.noco.requests() - before;
        self.poll_at = Instant::now() + self.noco.server.settings.every;
        self.send_nothing().await
    }

    async fn poll_table(&mut self, index: usize) -> Step {
        let began = Instant::now();
        let which = Which { since: self.tables[index].since, ..Which::default() };
        let (mut after, mut newest, mut date) = (After::Start, None, None);
        loop {
            let (page, news) = self.page(index, which, after).await?;
            newest = newest.max(page.newest);
            date = date.or(page.date);
            self.hand_out(index, news).await?;
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        self.window(index, newest, date, began.elapsed());
        let Some(shape) = self.tables[index].shape.clone() else { return Ok(()) };
        let count = self.noco.server.http.count(&shape).await.map_err(|error| Trip::Server(index, error))?;
        let known = self.memory.len(self.tables[index].followed.collection);
        if usize::try_from(count).unwrap_or(usize::MAX) < known {
            // Something went away. Which, only a sweep can say.
            self.tables[index].sweep_at = Instant::now();
        }
        Ok(())
    }

    /// The next poll reaches back behind the newest time that was seen, by the overlap and by what it took to look. Our own clock does not
    /// come into it, and the server's only where a record is dated in the future.
    fn window(&mut self, index: usize, newest: Option<i64>, date: Option<i64>, took: Duration) {
        let back = self.noco.server.settings.overlap + took;
        let back = i64::try_from(back.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        let newest = match (newest, date) {
            (Some(newest), Some(date)) => Some(newest.min(date)),
            (newest, _) => newest,
        };
        if let Some(newest) = newest {
            self.tables[index].since = Some(newest.saturating_sub(back));
        }
    }

    /// A table of one page is read whole at each poll.
    async fn sweep_small(&mut self, index: usize) -> Step {
        if self.sweep.as_ref().is_some_and(|sweep| sweep.table == index) {
            return Ok(());
        }
        let running = self.sweep.take();
        self.begin(index);
        let mut outcome = Ok(());
        while self.sweep.as_ref().is_some_and(|sweep| sweep.table == index) && outcome.is_ok() {
            outcome = self.sweep_page().await;
        }
        self.sweep = running;
        outcome
    }

    fn begin(&mut self, index: usize) {
        self.memory.begin(self.tables[index].followed.collection);
        let from = self.noco.server.clock.tick();
        self.sweep = Some(Sweep {
            table: index,
            from,
            after: After::Start,
            pages: 0,
            seen: 0,
            newest: None,
            began: None,
        });
    }

    async fn sweep_page(&mut self) -> Step {
        let Some(sweep) = &self.sweep else { return Ok(()) };
        let index = sweep.table;
        let before = self.noco.requests();
        let (page, news) = self.page(index, Which::default(), sweep.after).await?;
        if let Some(sweep) = &mut self.sweep {
            sweep.pages += 1;
            sweep.seen += news.seen;
            sweep.newest = sweep.newest.max(page.newest);
            sweep.began = sweep.began.or(page.date);
        }
        self.hand_out(index, news).await?;
        if let (Some(next), Some(sweep)) = (page.next, &mut self.sweep) {
            sweep.after = next;
        } else {
            self.swept().await?;
        }
        self.owed = self.owed.saturating_sub(self.noco.requests() - before);
        Ok(())
    }

    /// The sweep has come to its end: what it has not seen is gone, if that is true.
    async fn swept(&mut self) -> Step {
        let Some(Sweep { table: index, from, pages, seen, newest, began, .. }) = self.sweep.take() else {
            return Ok(());
        };
        let collection = self.tables[index].followed.collection;
        let missing = self.memory.missing(collection);
        let failed = |error| Trip::Server(index, error);
        let Some(shape) = self.tables[index].shape.clone() else { return Ok(()) };
        if missing.len() > seen {
            // Half of the table, or all of it. An answer that says so wants a second one that does.
            let count = self.noco.server.http.count(&shape).await.map_err(failed)?;
            if usize::try_from(count).unwrap_or(usize::MAX) >= seen + missing.len().div_ceil(2) {
                let doing = format!("reading {}", shape.title);
                let what =
                    "the server shows few records and counts many; nothing is deleted before they agree";
                return Err(failed(Error::new(Kind::Unreachable, doing, what)));
            }
        }
        for keys in missing.chunks(MOST_KEYS) {
            let server = self.server();
            let reading = server.reading.lock().await;
            let found = server.http.by_keys(&shape, keys).await.map_err(failed)?;
            let there: HashSet<Key> = found.iter().map(|record| record.key.clone()).collect();
            let gone: Vec<Key> = keys.iter().filter(|key| !there.contains(*key)).cloned().collect();
            let news = self.news(index, found).await?;
            let at = server.clock.tick();
            if !gone.is_empty() {
                self.memory.gone(collection, &gone, at).await.map_err(Trip::Failed)?;
            }
            drop(reading);
            self.hand_out(index, news).await?;
            self.hand_out_gone(index, gone, at).await?;
        }
        let settings = self.noco.server.settings.clone();
        let table = &mut self.tables[index];
        table.small = pages == 1 && seen < self.noco.server.size.now();
        table.swept_from = Some(from);
        table.sweep_at = Instant::now() + settings.sweep;
        if table.since.is_none() && shape.created.is_some() && shape.updated.is_some() {
            self.window(index, newest, began, Duration::ZERO);
        }
        self.passed(from);
        self.send_nothing().await
    }

    async fn hand_out_gone(&mut self, index: usize, gone: Vec<Key>, at: Moment) -> Step {
        if gone.is_empty() {
            return Ok(());
        }
        let collection = self.tables[index].followed.collection;
        let mut changes = Vec::with_capacity(gone.len());
        for (n, key) in gone.into_iter().enumerate() {
            changes.push(Change::Document(DocumentChange {
                collection,
                kind: ChangeKind::Delete,
                id: id_of(&key).map_err(Trip::Failed)?.into(),
                key,
                document: None,
                position: Position::new(at, token(n)),
                wall: i64::try_from(at.0).unwrap_or(i64::MAX),
            }));
        }
        let last = token(changes.len() - 1);
        self.send(changes, Position::new(at, last), 0).await
    }

    /// A table was swept from this moment on. When all were, a pass is over.
    fn passed(&mut self, from: Moment) {
        let all = self.tables.iter().all(|table| table.goes() && table.swept_from >= Some(self.pass_from));
        if !all || from < self.pass_from {
            return;
        }
        let (found, began) = (std::mem::take(&mut self.found), self.pass_from);
        self.calm.send_modify(|calm| {
            *calm = match (found, calm.passes) {
                (true, _) => Calm::default(),
                (false, 0) => Calm { passes: 1, since: began },
                (false, passes) => Calm { passes: passes.saturating_add(1), since: calm.since },
            };
        });
        self.pass_from = self.noco.server.clock.tick();
    }
}

/// Of changes that were found together, the place of this one.
fn token(n: usize) -> Vec<u8> {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes().to_vec()
}

/// `{_id: …}`.
fn id_of(key: &Key) -> Result<Vec<u8>> {
    let broken = |_| Error::new(Kind::Bug, "following the changes", "a key that cannot be written");
    let mut bytes = vec![0; 4];
    key.write_element("_id", &mut bytes).map_err(broken)?;
    bytes.push(0);
    let length = (bytes.len() as u32).to_le_bytes();
    bytes[..4].copy_from_slice(&length);
    Ok(bytes)
}

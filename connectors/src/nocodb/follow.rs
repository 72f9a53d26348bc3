//! The task behind a stream: what is read when, and what follows from it.
//!
//! One page at a time, so that of two pages the later one is the newer one. Polls come first and in between belongs to sweeps; after a
//! poll a sweep gets as many requests as the poll took, so that a slow limit starves neither. While polls find nothing they come more
//! seldom. Somebody who waits for everything up to now gets a pass over all tables at once (`pass.rs`).

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
use super::pass::Pass;
use super::record::Record;
use super::stream::{NEAR, Trouble, What};
use super::table::{Sweep, Table};
use crate::error::{Error, Kind, Result};
use crate::retry::Pauses;
use crate::source::{Change, ChangeBatch, ChangeKind, DocumentChange};

/// A table that fails so often in a row may be the only one that does.
const MOST_FAILURES: u32 = 8;
/// Whoever wants an answer within this copies or is about to switch: chunks wait for word that time goes by, although nothing happens …
const HURRIES: Duration = Duration::from_millis(100);
/// … which is given this often.
const WORD_EVERY: Duration = Duration::from_millis(20);

/// The task.
pub(super) struct Follower {
    pub(super) noco: Noco,
    pub(super) memory: Arc<Memory>,
    out: mpsc::Sender<Result<ChangeBatch>>,
    /// How long an answer may take while nothing happens.
    idle: watch::Receiver<Duration>,
    troubles: watch::Sender<Vec<Trouble>>,
    pub(super) tables: Vec<Table>,
    pub(super) sweep: Option<Sweep>,
    /// Somebody waits for a pass over all tables …
    pub(super) wanted: bool,
    /// … and this is the one.
    pub(super) pass: Option<Pass>,
    poll_at: Instant,
    /// From one poll to the next.
    pause: Duration,
    /// Something was found since the last poll.
    found: bool,
    /// Requests that sweeps may send before the next poll.
    owed: u64,
    passed: Moment,
}

/// Why something could not be done.
pub(super) enum Trip {
    /// Nobody listens.
    ReaderGone,
    /// Somebody waits for a pass, which comes first.
    Wanted,
    /// The store, or the whole server: the stream ends.
    Failed(Error),
    /// The server, while it read this table.
    Server(usize, Error),
}

pub(super) type Step = std::result::Result<(), Trip>;

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
    Pass,
    Begin(usize),
    Look(usize),
    Wait(Instant),
}

impl Follower {
    pub(super) fn new(
        noco: Noco,
        memory: Arc<Memory>,
        out: mpsc::Sender<Result<ChangeBatch>>,
        idle: watch::Receiver<Duration>,
        troubles: watch::Sender<Vec<Trouble>>,
    ) -> Self {
        let tables = noco.followed.iter().cloned().map(Table::new).collect();
        let pause = noco.server.settings.every;
        Self {
            noco,
            memory,
            out,
            idle,
            troubles,
            tables,
            sweep: None,
            wanted: false,
            pass: None,
            poll_at: Instant::now(),
            pause,
            found: false,
            owed: 0,
            passed: Moment::default(),
        }
    }

    pub(super) fn server(&self) -> Arc<Server> {
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
                Err(Trip::Wanted) => {}
                Err(Trip::Failed(error)) => {
                    // Nobody listens any more if this cannot be sent.
                    let _ = self.out.send(Err(error)).await;
                    return;
                }
                Err(Trip::Server(table, error)) => {
                    let away = is_away(&error);
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
            (self.wanted, self.pass) = (true, None);
        }
        match self.work() {
            Work::Poll => self.poll().await,
            Work::Sweep => self.sweep_page().await,
            Work::Pass => self.wave().await,
            Work::Begin(table) => {
                self.begin(table);
                Ok(())
            }
            Work::Look(table) => self.look(table).await,
            Work::Wait(until) => self.wait(until).await,
        }
    }

    async fn wait(&mut self, until: Instant) -> Step {
        let server = self.server();
        let word = (*self.idle.borrow() <= HURRIES).then(|| Instant::now() + WORD_EVERY);
        let word = word.filter(|word| *word < until);
        tokio::select! {
            () = sleep_until(word.unwrap_or(until)) => if word.is_some() {
                self.send_nothing().await?;
            },
            () = server.poked.notified() => (self.poll_at, self.pause) = (Instant::now(), server.settings.every),
            () = server.is_wanted() => {}
            _ = self.idle.changed() => {}
        }
        Ok(())
    }

    /// What to do next. Pure, but for the time.
    fn work(&self) -> Work {
        let now = Instant::now();
        let due = |table: &Table| table.look_at <= now;
        let unknown = |table: &Table| due(table) && !(table.goes() && table.shape.is_some());
        if self.wanted {
            return self.tables.iter().position(unknown).map_or(Work::Pass, Work::Look);
        }
        if let Some(table) = self.tables.iter().position(due) {
            return Work::Look(table);
        }
        let next = self.tables.iter().map(|table| table.look_at).min();
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
            Err(other) if is_away(&other) => {
                self.tables[index].suspect = false;
                return Ok(());
            }
            // Whoever may not even list the tables was shut out.
            Err(other) => return Err(Trip::Failed(other)),
        }
        if error.kind == Kind::Unreachable {
            // It may have been the server, which answers again by now.
            if std::mem::replace(&mut self.tables[index].suspect, true) {
                self.stand(index, What::Refused, error.to_string());
            }
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
            // It has gone away meanwhile.
            Err(Trip::Server(_, again)) if is_away(&again) => Ok(()),
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
        let page = tokio::select! {
            page = server.http.page(&shape, which, after, &server.size) => page,
            () = server.is_wanted() => return Err(Trip::Wanted),
        };
        let mut page = page.map_err(|error| Trip::Server(index, error))?;
        self.tables[index].answers();
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
        let mut changes = Vec::with_capacity(news.len());
        let bytes = self.changes(index, news, at, &mut changes);
        self.send_some(changes, at, bytes).await
    }

    /// Adds what is news to the changes of this moment; how many bytes it has.
    pub(super) fn changes(
        &self,
        index: usize,
        news: Vec<(ChangeKind, Record)>,
        at: Moment,
        changes: &mut Vec<Change>,
    ) -> usize {
        let collection = self.tables[index].followed.collection;
        let mut bytes = 0;
        for (kind, record) in news {
            bytes += record.document.len();
            changes.push(Change::Document(DocumentChange {
                collection,
                kind,
                key: record.key,
                id: record.id,
                document: Some(record.document),
                position: Position::new(at, token(changes.len())),
                wall: i64::try_from(at.0).unwrap_or(i64::MAX),
            }));
        }
        bytes
    }

    /// Sends changes of this moment, where there are any.
    pub(super) async fn send_some(&mut self, changes: Vec<Change>, at: Moment, bytes: usize) -> Step {
        let Some(last) = changes.len().checked_sub(1) else { return Ok(()) };
        self.send(changes, Position::new(at, token(last)), bytes).await
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
        let near = *self.idle.borrow() <= NEAR;
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
        let settings = &self.noco.server.settings;
        self.pause = match std::mem::take(&mut self.found) {
            true => settings.every,
            false => longer(self.pause, settings.every, settings.sweep),
        };
        self.poll_at = Instant::now() + self.pause;
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
        self.sweep = Some(Sweep::new(index, from));
    }

    async fn sweep_page(&mut self) -> Step {
        let Some(sweep) = &self.sweep else { return Ok(()) };
        let index = sweep.table;
        let before = self.noco.requests();
        let (page, news) = self.page(index, Which::default(), sweep.after).await?;
        if let Some(sweep) = &mut self.sweep {
            sweep.read(&page, news.seen);
        }
        self.hand_out(index, news).await?;
        match (page.next, self.sweep.take()) {
            (Some(next), Some(sweep)) => self.sweep = Some(Sweep { after: next, ..sweep }),
            (None, Some(sweep)) => self.swept(sweep).await?,
            (_, None) => {}
        }
        self.owed = self.owed.saturating_sub(self.noco.requests() - before);
        Ok(())
    }

    /// The sweep has come to its end: what it has not seen is gone, if that is true.
    pub(super) async fn swept(&mut self, sweep: Sweep) -> Step {
        let Sweep { table: index, from, pages, seen, newest, began, .. } = sweep;
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
        if let Some(bounds) = sweep.bounds {
            table.bounds = bounds;
        }
        if table.since.is_none() && shape.created.is_some() && shape.updated.is_some() {
            self.window(index, newest, began, Duration::ZERO);
        }
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
}

/// The server does not answer, or not now.
fn is_away(error: &Error) -> bool {
    matches!(error.kind, Kind::Unreachable | Kind::Exhausted | Kind::Contention)
}

/// The pause after a poll that has found nothing: a little longer than the one before, up to four times the usual one. A sweep that is due
/// often is not waited for.
fn longer(pause: Duration, every: Duration, sweep: Duration) -> Duration {
    (pause * 5 / 4).min(every * 4).min(sweep / 2).max(every)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_that_find_nothing_come_more_seldom() {
        const SECOND: Duration = Duration::from_secs(1);
        let at_last = |every, sweep| (0..40).fold(every, |pause, _| longer(pause, every, sweep));
        assert_eq!(longer(2 * SECOND, 2 * SECOND, 30 * SECOND), SECOND * 5 / 2);
        assert_eq!(at_last(2 * SECOND, 30 * SECOND), 8 * SECOND);
        assert_eq!(at_last(2 * SECOND, 6 * SECOND), 3 * SECOND, "sweeps go on");
        assert_eq!(at_last(2 * SECOND, SECOND), 2 * SECOND, "never quicker than was said");
    }
}

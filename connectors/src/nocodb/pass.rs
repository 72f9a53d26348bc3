//! A pass over all tables at once, for somebody who waits until everything up to now has been delivered: before a switch every page counts.
//!
//! Pages are read side by side, some at a time: a wave. To chunks and look-ups a wave is what a single page is otherwise. They wait while
//! it is read, and all that it has found has one moment, after all of its reads, and is handed out together; so nothing that comes later
//! shows an older state.

use std::collections::{HashMap, VecDeque};

use futures_util::future::join_all;
use slackwater_topics::Moment;

use super::follow::{Follower, Step, Trip};
use super::pages::{After, Which};
use super::table::{Sweep, Table};
use crate::error::{Error, Kind};

/// So many pages are read side by side. NocoDB makes one after the other, but need not wait for us meanwhile.
const WAVE: usize = 4;

/// A pass that is under way.
pub(super) struct Pass {
    left: VecDeque<Part>,
    sweeps: HashMap<usize, Progress>,
}

/// What has been seen of a table, and how many of its parts are missing.
struct Progress {
    sweep: Sweep,
    parts: usize,
}

/// A range of a table that is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    table: usize,
    which: Which,
    after: After,
}

impl Pass {
    /// Over those tables that go.
    fn new(tables: &[Table], from: Moment) -> Self {
        let mut pass = Self { left: VecDeque::new(), sweeps: HashMap::new() };
        let going = tables.iter().enumerate().filter(|(_, table)| table.goes() && table.shape.is_some());
        for (index, table) in going {
            let parts = parts(index, &table.bounds);
            let sweep = Sweep { bounds: None, ..Sweep::new(index, from) };
            pass.sweeps.insert(index, Progress { sweep, parts: parts.len() });
            pass.left.extend(parts);
        }
        pass
    }

    /// A page has been read. Gives the table's sweep back where it was the last one of it.
    fn read(&mut self, part: Part, next: Option<After>, note: impl FnOnce(&mut Sweep)) -> Option<Sweep> {
        let progress = self.sweeps.get_mut(&part.table)?;
        note(&mut progress.sweep);
        if let Some(after) = next {
            self.left.push_back(Part { after, ..part });
            return None;
        }
        progress.parts -= 1;
        if progress.parts > 0 {
            return None;
        }
        self.sweeps.remove(&part.table).map(|progress| progress.sweep)
    }
}

/// A table in parts of about a page each, as the last sweep has found its pages to end.
fn parts(table: usize, bounds: &[i64]) -> Vec<Part> {
    let starts = std::iter::once(After::Start).chain(bounds.iter().map(|bound| After::Key(*bound)));
    let ends = bounds.iter().map(|bound| bound.checked_add(1)).chain([None]);
    starts
        .zip(ends)
        .map(|(after, hi)| Part { table, which: Which { hi, ..Which::default() }, after })
        .collect()
}

impl Follower {
    /// Reads the next pages of the pass, and begins it where it has not begun.
    pub(super) async fn wave(&mut self) -> Step {
        let mut pass = self.pass.take().unwrap_or_else(|| self.begin_pass());
        let size = pass.left.len().min(WAVE);
        let parts: Vec<Part> = pass.left.drain(..size).collect();
        let swept = self.read_wave(&mut pass, &parts).await?;
        for sweep in swept {
            self.swept(sweep).await?;
        }
        if pass.left.is_empty() {
            self.wanted = false;
        } else {
            self.pass = Some(pass);
        }
        Ok(())
    }

    fn begin_pass(&mut self) -> Pass {
        // It would be a second one over the same table.
        self.sweep = None;
        let pass = Pass::new(&self.tables, self.noco.server.clock.tick());
        for index in pass.sweeps.keys() {
            self.memory.begin(self.tables[*index].followed.collection);
        }
        pass
    }

    /// Reads pages and passes on what is news. Gives the sweeps of tables that were read to their end.
    async fn read_wave(&mut self, pass: &mut Pass, parts: &[Part]) -> Result<Vec<Sweep>, Trip> {
        let server = self.server();
        let reading = server.reading.lock().await;
        let pages = join_all(parts.iter().map(async |part| {
            let shape = self.tables[part.table].shape.clone();
            let unknown = || Error::new(Kind::Bug, "reading a table", "it was not looked at");
            let shape = shape.ok_or_else(unknown)?;
            server.http.page(&shape, part.which, part.after, &server.size).await
        }));
        let pages = tokio::select! {
            pages = pages => pages,
            () = server.is_wanted() => return Err(Trip::Wanted),
        };
        let at = server.clock.tick();
        let (mut changes, mut bytes, mut swept) = (Vec::new(), 0, Vec::new());
        for (part, page) in parts.iter().zip(pages) {
            let mut page = page.map_err(|error| Trip::Server(part.table, error))?;
            let records = std::mem::take(&mut page.records);
            let seen = records.len();
            let table = &mut self.tables[part.table];
            table.answers();
            let news =
                self.memory.news(table.followed.collection, records, at).await.map_err(Trip::Failed)?;
            bytes += self.changes(part.table, news, at, &mut changes);
            swept.extend(pass.read(*part, page.next, |sweep| sweep.read(&page, seen)));
        }
        drop(reading);
        self.send_some(changes, at, bytes).await?;
        Ok(swept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_table_once() {
        let ranges = |bounds: &[i64]| -> Vec<(After, Option<i64>)> {
            parts(3, bounds).into_iter().map(|part| (part.after, part.which.hi)).collect()
        };
        assert_eq!(ranges(&[]), [(After::Start, None)]);
        assert_eq!(
            ranges(&[10, 25]),
            [(After::Start, Some(11)), (After::Key(10), Some(26)), (After::Key(25), None)]
        );
    }

    #[test]
    fn a_table_is_swept_when_its_last_page_was_read() {
        let mut pass = Pass { left: VecDeque::new(), sweeps: HashMap::new() };
        let all = parts(0, &[10]);
        let sweep = Sweep::new(0, Moment(7));
        pass.sweeps.insert(0, Progress { sweep, parts: all.len() });
        assert!(pass.read(all[0], None, |sweep| sweep.seen += 10).is_none());
        // It has grown by more than a page.
        assert!(pass.read(all[1], Some(After::Key(20)), |sweep| sweep.seen += 10).is_none());
        let rest = pass.left.pop_front().expect("the rest of it");
        assert_eq!((rest.after, rest.which), (After::Key(20), all[1].which));
        let swept = pass.read(rest, None, |sweep| sweep.seen += 3).expect("all of it");
        assert_eq!((swept.seen, swept.from), (23, Moment(7)));
    }
}

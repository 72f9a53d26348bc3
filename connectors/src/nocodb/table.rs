//! What the stream knows of one table: how it is read, when next, and why it stands still.

use std::sync::Arc;

use slackwater_topics::Moment;
use tokio::time::Instant;

use super::pages::{After, Page};
use super::shape::Shape;
use super::stream::{Followed, Trouble, What};

/// A table that is followed.
pub(super) struct Table {
    pub(super) followed: Followed,
    /// None until it has been found.
    pub(super) shape: Option<Arc<Shape>>,
    /// As it was when it was found: what is needed of it has to stay so.
    first: Option<Arc<Shape>>,
    pub(super) trouble: Option<Trouble>,
    /// The next poll asks for what is of this second or newer; none before the table has been read whole.
    pub(super) since: Option<i64>,
    /// When the last complete sweep began.
    pub(super) swept_from: Option<Moment>,
    /// When the next sweep begins.
    pub(super) sweep_at: Instant,
    /// When its columns are looked at again.
    pub(super) look_at: Instant,
    /// It fits into one page.
    pub(super) small: bool,
    /// So often in a row it could not be read.
    pub(super) failures: u32,
    /// The server has answered since it failed: if it fails once more, it is the table.
    pub(super) suspect: bool,
    /// The last keys of its pages but the last, as the last sweep has found them.
    pub(super) bounds: Vec<i64>,
}

/// A sweep that is under way.
pub(super) struct Sweep {
    pub(super) table: usize,
    pub(super) from: Moment,
    pub(super) after: After,
    pub(super) pages: u32,
    pub(super) seen: usize,
    /// The newest time in it, and the server's clock when it began.
    pub(super) newest: Option<i64>,
    pub(super) began: Option<i64>,
    /// Where pages have ended; none where it does not go from the first to the last one.
    pub(super) bounds: Option<Vec<i64>>,
}

impl Sweep {
    pub(super) fn new(table: usize, from: Moment) -> Self {
        Self {
            table,
            from,
            after: After::Start,
            pages: 0,
            seen: 0,
            newest: None,
            began: None,
            bounds: Some(Vec::new()),
        }
    }

    /// A page with so many records was read.
    pub(super) fn read(&mut self, page: &Page, seen: usize) {
        self.pages += 1;
        self.seen += seen;
        self.newest = self.newest.max(page.newest);
        self.began = self.began.or(page.date);
        if let (Some(bounds), Some(After::Key(last))) = (&mut self.bounds, page.next) {
            bounds.push(last);
        }
    }
}

impl Table {
    pub(super) fn new(followed: Followed) -> Self {
        let now = Instant::now();
        Self {
            followed,
            shape: None,
            first: None,
            trouble: None,
            since: None,
            swept_from: None,
            sweep_at: now,
            look_at: now,
            small: false,
            failures: 0,
            suspect: false,
            bounds: Vec::new(),
        }
    }

    /// It can be read.
    pub(super) fn goes(&self) -> bool {
        self.trouble.is_none()
    }

    /// It is asked between its sweeps, too.
    pub(super) fn is_polled(&self) -> bool {
        self.goes() && (self.small || self.since.is_some())
    }

    /// It was read.
    pub(super) fn answers(&mut self) {
        (self.failures, self.suspect) = (0, false);
    }

    /// It stands still from now on. True where that is news.
    pub(super) fn stand(&mut self, what: What, text: String) -> bool {
        let trouble = Trouble { collection: self.followed.collection, what, text };
        let news = self.trouble.as_ref() != Some(&trouble);
        self.trouble = Some(trouble);
        news
    }

    /// The table was found and looks like this. Says what is wrong with it, or takes it as it is.
    pub(super) fn take(&mut self, found: Arc<Shape>) -> Result<(), (What, String)> {
        let (name, title) = (&self.followed.table, &found.title);
        if *title != *name && found.table != *name {
            return Err((
                What::Renamed,
                format!("table {name} is called {title} now; rename it back, or change the migration file"),
            ));
        }
        let lacking: Vec<&str> =
            self.followed.needs.iter().map(String::as_str).filter(|need| !found.has(need)).collect();
        if !lacking.is_empty() {
            let why = found.unreadable.iter().find(|(link, _)| lacking.contains(&link.as_str()));
            let why = why.map(|(link, why)| format!(" ({link}: {why})")).unwrap_or_default();
            let text = format!(
                "table {title} has no column {} (any more){why}; put it back, or change the migration file",
                lacking.join(", ")
            );
            return Err((What::Columns, text));
        }
        let first = self.first.get_or_insert_with(|| found.clone());
        if let Some(changed) = changed(first, &found, &self.followed.needs) {
            let text = format!(
                "column {changed} of table {title} has another type than before; change it back, or start again"
            );
            return Err((What::Columns, text));
        }
        self.shape = Some(found);
        self.trouble = None;
        Ok(())
    }
}

/// A column that is needed and that is read in another way now.
fn changed(before: &Shape, now: &Shape, needs: &[String]) -> Option<String> {
    if before.key != now.key {
        return Some("of the key".into());
    }
    let needed = |title: &str| needs.iter().any(|need| need == title);
    for field in before.fields.iter().filter(|field| needed(&field.column.title)) {
        let same = now.fields.iter().find(|other| other.column.title == field.column.title);
        if same.is_some_and(|same| same.form != field.form || same.kind != field.kind) {
            return Some(field.column.title.clone());
        }
    }
    let links = before.links.iter().filter(|link| needed(&link.title));
    let mut turned = links.filter(|link| {
        now.links.iter().any(|other| other.title == link.title && other.single != link.single)
    });
    turned.next().map(|link| link.title.clone())
}

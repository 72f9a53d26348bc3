//! The connection to one base of a NocoDB server.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use slackwater_topics::Moment;
use tokio::sync::Notify;

use super::clock::{Clock, millis};
use super::http::Http;
use super::memory::{Memory, Remembers};
use super::meta::{Described, Listed, named};
use super::names::nearest;
use super::pages::Size;
use super::settings::Settings;
use super::shape::{Shape, Use, leads_to, shape, used};
use super::stream::Followed;
use crate::error::{Error, Kind, Result};
use crate::source::{FreezeRight, Heard};

/// One base. Cheap to clone.
#[derive(Clone)]
pub struct Noco {
    pub(super) server: Arc<Server>,
    /// What was handed out; only of the process that copies and follows.
    pub(super) memory: Option<Arc<Memory>>,
    pub(super) followed: Arc<[Followed]>,
}

/// What all clones share.
pub(super) struct Server {
    pub(super) http: Http,
    pub(super) settings: Settings,
    pub(super) base: Listed,
    pub(super) clock: Clock,
    pub(super) size: Size,
    /// Held while a page of the stream is read, until it has its moment.
    pub(super) reading: tokio::sync::Mutex<()>,
    /// Somebody has heard of a change.
    pub(super) poked: Notify,
    /// Somebody waits for a pass over all tables that begins from now on …
    pub(super) afresh: AtomicBool,
    /// … and the one who follows is told.
    wanted: Notify,
    version: Option<String>,
    shapes: Mutex<HashMap<String, Arc<Shape>>>,
}

impl fmt::Debug for Noco {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Noco({} at {})", self.server.base.title, self.server.http.host())
    }
}

/// A column as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Stays when the title changes.
    pub id: String,
    /// What people call it, and documents.
    pub title: String,
    /// The type that people chose: `SingleLineText`.
    pub kind: String,
    /// Part of the key.
    pub key: bool,
    /// Made by the server.
    pub system: bool,
    /// What becomes of it.
    pub read: Use,
}

/// A table as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Stays when the title changes.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// In the server's order.
    pub columns: Vec<ColumnInfo>,
    /// Names of the fields that documents have, `_id` among them.
    pub fields: Vec<String>,
    /// Its key is a whole number: it is copied in chunks, and what changed is found by time.
    pub whole_key: bool,
    /// It has both times; without them a change is found when the table is read whole.
    pub timed: bool,
    /// It cannot be read at all.
    pub unreadable: Option<String>,
    /// Links that cannot be read, and why.
    pub unreadable_links: Vec<(String, String)>,
}

/// A table that somebody wants to follow.
#[derive(Debug)]
pub struct WatchedTable {
    /// As it was asked for: title or id.
    pub name: String,
    /// None where there is no such table.
    pub table: Option<TableInfo>,
    /// It is there, and may not be read.
    pub refused: Option<Error>,
}

/// Facts to judge by whether the source is fit.
#[derive(Debug)]
pub struct Preflight {
    /// Host and port.
    pub host: String,
    /// Where the server tells it.
    pub version: Option<String>,
    /// Title and id.
    pub base: Listed,
    /// In the order in which they were asked for.
    pub tables: Vec<WatchedTable>,
    /// Titles of the others.
    pub others: Vec<String>,
}

impl Noco {
    /// Connects: a wrong address, token or base shows here.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        let http = Http::new(settings)?;
        let base = http.base(&settings.base).await?;
        // Newer servers tell it to nobody.
        let version = http.version().await.ok().flatten();
        let server = Server {
            size: Size::new(settings.page),
            http,
            settings: settings.clone(),
            base,
            clock: Clock::default(),
            reading: tokio::sync::Mutex::default(),
            poked: Notify::new(),
            afresh: AtomicBool::new(false),
            wanted: Notify::new(),
            version,
            shapes: Mutex::default(),
        };
        Ok(Self { server: Arc::new(server), memory: None, followed: Arc::new([]) })
    }

    /// For the process that copies and follows these tables: what it hands out is remembered.
    pub async fn remembering(&self, store: Arc<dyn Remembers>, followed: Vec<Followed>) -> Result<Self> {
        let names: Vec<_> = followed.iter().map(|one| (one.collection, one.table.clone())).collect();
        let (memory, through) = Memory::load(store, &names).await?;
        self.server.clock.heard(through);
        Ok(Self { memory: Some(Arc::new(memory)), followed: followed.into(), ..self.clone() })
    }

    /// The base that is read.
    pub fn base(&self) -> &Listed {
        &self.server.base
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u64 {
        self.server.http.sent()
    }

    /// Somebody has heard of a change: the next poll comes at once.
    pub fn poke(&self) {
        self.server.poked.notify_one();
    }

    /// A pass over all tables begins now, whatever else is under way: somebody waits until everything up to now has been delivered.
    pub fn begin_afresh(&self) {
        self.server.afresh.store(true, Ordering::Release);
        self.server.wanted.notify_one();
    }

    /// The source's present: what was acknowledged before this call is at or before the moment.
    pub fn now(&self) -> Moment {
        self.server.clock.tick()
    }

    /// The same with our clock, which is the clock of its moments. Asks nobody: whether the server answers is known from what it was asked
    /// last.
    pub fn hear(&self) -> Result<Heard> {
        match self.server.http.silent() {
            Some((_, why)) => Err(Error::new(Kind::Unreachable, "asking NocoDB", why)),
            None => Ok(Heard { moment: self.now(), clock: i64::try_from(millis()).unwrap_or(i64::MAX) }),
        }
    }

    /// NocoDB refuses nobody at our wish.
    pub fn freeze_right(&self) -> FreezeRight {
        let why = "NocoDB cannot refuse its writers; take their rights away, or stop what writes, and say so";
        FreezeRight::Unable { why: why.into() }
    }

    /// A moment after everything that writers were told is done. Once a pass over all tables that began after it is complete, all of it
    /// has been delivered. Only the process that follows can say this: the moments are those of its clock.
    pub fn mark(&self) -> Moment {
        self.now()
    }

    /// The titles of its tables.
    pub async fn collections(&self) -> Result<Vec<String>> {
        let tables = self.server.http.tables(&self.server.base.id).await?;
        Ok(tables.into_iter().map(|table| table.title).collect())
    }

    /// Whether it has a table with this title or id.
    pub async fn has(&self, table: &str) -> Result<bool> {
        Ok(self.server.find(table).await?.is_some())
    }

    /// Looks at these tables.
    pub async fn preflight(&self, tables: &[String]) -> Result<Preflight> {
        let listed = self.server.http.tables(&self.server.base.id).await?;
        let mut watched = Vec::with_capacity(tables.len());
        let mut ids = Vec::with_capacity(tables.len());
        for name in tables {
            let mut one = WatchedTable { name: name.clone(), table: None, refused: None };
            if let Some(table) = named(&listed, name) {
                ids.push(table.id.clone());
                match self.server.described_with(&table.id).await {
                    Ok((table, related)) => one.table = Some(info(&table, &related, &self.server.settings)),
                    Err(error) if error.kind == Kind::Denied => one.refused = Some(error),
                    Err(error) => return Err(error),
                }
            }
            watched.push(one);
        }
        let others = listed.into_iter().filter(|table| !ids.contains(&table.id)).map(|table| table.title);
        Ok(Preflight {
            host: self.server.http.host(),
            version: self.server.version.clone(),
            base: self.server.base.clone(),
            tables: watched,
            others: others.collect(),
        })
    }
}

impl Server {
    /// A table, and those that its links lead to.
    pub(super) async fn described_with(
        &self,
        table: &str,
    ) -> Result<(Described, HashMap<String, Described>)> {
        let table = self.http.described(table).await?;
        let mut related = HashMap::new();
        for id in leads_to(&table) {
            match self.http.described(id).await {
                Ok(described) => drop(related.insert(id.to_owned(), described)),
                // The link cannot be read then, and says so.
                Err(error) if matches!(error.kind, Kind::Denied | Kind::Unsuitable) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((table, related))
    }

    /// How a table is read, as the server has it now. `table` is its id.
    pub(super) async fn shape_now(&self, table: &str) -> Result<Arc<Shape>> {
        let (table, related) = self.described_with(table).await?;
        let found = shape(&table, &|id| related.get(id), &self.settings).map_err(|why| {
            Error::new(Kind::Unsuitable, format!("reading the columns of {}", table.title), why)
        })?;
        let found = Arc::new(found);
        self.shapes().insert(found.table.clone(), found.clone());
        Ok(found)
    }

    fn shapes(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Shape>>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table that has this title or id; none where there is none any more.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Listed>> {
        let listed = self.http.tables(&self.base.id).await?;
        Ok(named(&listed, name).cloned())
    }

    /// How a table is read, as it was when it was looked at last. `name` is its title or id.
    pub(super) async fn shape(&self, name: &str) -> Result<Arc<Shape>> {
        let known = {
            let shapes = self.shapes();
            let fits = |shape: &&Arc<Shape>| shape.table == name || shape.title == name;
            shapes.values().find(fits).cloned()
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let listed = self.http.tables(&self.base.id).await?;
        match named(&listed, name) {
            Some(table) => self.shape_now(&table.id).await,
            None => {
                let titles: Vec<&str> = listed.iter().map(|table| table.title.as_str()).collect();
                let what = format!("base {} has no such table", self.base.title);
                Err(Error::new(Kind::Unsuitable, format!("looking for table {name}"), what)
                    .help(nearest("table", name, &titles)))
            }
        }
    }

    /// Ends when somebody waits for a pass. Only the one who follows may call it.
    pub(super) async fn is_wanted(&self) {
        while !self.afresh.load(Ordering::Acquire) {
            self.wanted.notified().await;
        }
    }

    /// What was known of a table counts no more.
    pub(super) fn forget_shape(&self, table: &str) {
        self.shapes().remove(table);
    }
}

fn info(table: &Described, related: &HashMap<String, Described>, settings: &Settings) -> TableInfo {
    let found = shape(table, &|id| related.get(id), settings);
    let columns = table.columns.iter().map(|column| ColumnInfo {
        id: column.id.clone(),
        title: column.title.clone(),
        kind: column.uidt.clone(),
        key: column.is_key(),
        system: column.is_system(),
        read: used(column),
    });
    let mut info = TableInfo {
        id: table.id.clone(),
        title: table.title.clone(),
        columns: columns.collect(),
        fields: Vec::new(),
        whole_key: false,
        timed: false,
        unreadable: None,
        unreadable_links: Vec::new(),
    };
    match found {
        Ok(shape) => {
            info.whole_key = matches!(shape.key, super::shape::KeyShape::Number(_));
            info.timed = shape.created.is_some() && shape.updated.is_some();
            info.fields.push("_id".into());
            info.fields.extend(shape.fields.into_iter().map(|field| field.column.title));
            info.fields.extend(shape.links.into_iter().map(|link| link.title));
            info.unreadable_links = shape.unreadable;
        }
        Err(why) => info.unreadable = Some(why),
    }
    info
}

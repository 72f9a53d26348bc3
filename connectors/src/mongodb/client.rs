//! The connection to one database of a MongoDB deployment.

use std::fmt;
use std::time::Duration;

use bson::{RawDocumentBuf, Timestamp, cstr, rawdoc};
use futures_util::StreamExt as _;
use mongodb::options::ClientOptions;
use mongodb::raw_batch_cursor::RawBatchCursor;
use mongodb::{Client, Database};
use slackwater_topics::{Document, Moment, Value};

use super::error::cleaned;
use super::reply::Reply;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const SELECTION: Duration = Duration::from_secs(5);
/// The driver allows 10, which chunks that are read side by side would use up.
const CONNECTIONS: u32 = 64;

/// One database. Cheap to clone.
#[derive(Clone)]
pub struct Mongo {
    database: Database,
    client: Client,
    version: (u32, u32, u32),
}

impl fmt::Debug for Mongo {
    /// The driver would print its options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mongo({})", self.database.name())
    }
}

/// What kind of thing a collection's name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectionKind {
    /// A collection.
    Collection,
    /// A view: it has no changes of its own.
    View,
    /// A time series: change streams do not see it.
    TimeSeries,
}

/// A collection as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: CollectionKind,
    /// `changeStreamPreAndPostImages` is on: an update brings the document as it was right after it.
    pub post_images: bool,
    /// It has a collation of its own, so text in `_id` does not sort by its bytes.
    pub collation: bool,
    /// It is capped.
    pub capped: bool,
    /// The clustered index's name, where it is clustered by `_id`.
    pub clustered: Option<String>,
}

impl CollectionInfo {
    /// It has documents of its own; a view shows those of others.
    pub fn holds_documents(&self) -> bool {
        self.kind != CollectionKind::View
    }
}

impl Mongo {
    /// Connects, and asks the server for its version: a wrong address or password shows here.
    pub async fn connect(uri: &Secret, database: &str) -> Result<Self> {
        let doing = "connecting to MongoDB";
        let mut options = ClientOptions::parse(uri.expose()).await.map_err(|error| match &*error.kind {
            mongodb::error::ErrorKind::DnsResolve { .. } => cleaned(doing, &error),
            // What the driver says repeats parts of the text, the password among them.
            _ => Error::new(
                Kind::Unsuitable,
                doing,
                "the connection string cannot be read; it looks like mongodb://user:password@host:27017/?replicaSet=name, \
                 with special characters of the password percent-encoded",
            ),
        })?;
        let doing = &described(&options, database);
        options.app_name = Some("slackwater".into());
        options.server_selection_timeout = Some(SELECTION);
        options.max_pool_size.get_or_insert(CONNECTIONS);
        let client = Client::with_options(options).map_err(|error| cleaned(doing.as_str(), &error))?;
        let info = client
            .database("admin")
            .run_raw_command(rawdoc! {"buildInfo": 1})
            .await
            .map_err(|error| cleaned(doing.as_str(), &error))?;
        let mut numbers = info.get_array("versionArray").into_iter().flatten();
        let mut number = || numbers.next().and_then(|part| u32::try_from(part.as_i32()?).ok()).unwrap_or(0);
        let version = (number(), number(), number());
        Ok(Self { database: client.database(database), client, version })
    }

    /// The server's time after a majority read: what was acknowledged by a majority before this call is at or before it.
    pub async fn operation_time(&self) -> Result<Moment> {
        let command = rawdoc! {
            "find": "slackwater.none", "filter": {"_id": 0}, "limit": 1, "singleBatch": true,
            "readConcern": {"level": "majority"},
        };
        let mut replies = self.replies(command, "asking for the operation time").await?;
        Ok(replies.next().await?.map(|reply| reply.operation_time).unwrap_or_default())
    }

    /// The database's collections, without those of the system.
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.listed(rawdoc! {}).await
    }

    /// One collection, where it exists.
    pub(super) async fn collection(&self, name: &str) -> Result<Option<CollectionInfo>> {
        Ok(self.listed(rawdoc! {"name": name}).await?.pop())
    }

    async fn listed(&self, filter: RawDocumentBuf) -> Result<Vec<CollectionInfo>> {
        let doing = "listing the collections";
        let command = rawdoc! {
            "listCollections": 1, "filter": filter, "authorizedCollections": false, "cursor": {},
        };
        let mut replies = self.replies(command, doing).await?;
        let mut collections = Vec::new();
        while let Some(reply) = replies.next().await? {
            for document in reply.documents() {
                let broken = |_| Error::new(Kind::Unsuitable, doing, "the server's answer cannot be read");
                let info = info(document.map_err(broken)?).map_err(broken)?;
                if !info.name.starts_with("system.") {
                    collections.push(info);
                }
            }
        }
        collections.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(collections)
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.database.name()
    }

    /// Major, minor and patch of the server.
    pub fn version(&self) -> (u32, u32, u32) {
        self.version
    }

    pub(super) fn handle(&self) -> &Database {
        &self.database
    }

    pub(super) fn other(&self, database: &str) -> Database {
        self.client.database(database)
    }

    /// Runs a command that answers with a cursor.
    pub(super) async fn replies<'a>(&self, command: RawDocumentBuf, doing: &'a str) -> Result<Replies<'a>> {
        let cursor = self.database.run_raw_cursor_command(command).batch().await;
        Ok(Replies { cursor: cursor.map_err(|error| cleaned(doing, &error))?, doing })
    }
}

/// Where we connect to, as whom.
fn described(options: &ClientOptions, database: &str) -> String {
    let hosts: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
    let user = options.credential.as_ref().and_then(|credential| credential.username.as_deref());
    let user = user.map(|user| format!(", user {user}")).unwrap_or_default();
    format!("connecting to MongoDB at {} (database {database}{user})", hosts.join(","))
}

/// The replies of a cursor, until it is exhausted.
pub(super) struct Replies<'a> {
    cursor: RawBatchCursor,
    doing: &'a str,
}

impl Replies<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Reply>> {
        match self.cursor.next().await {
            None => Ok(None),
            Some(Err(error)) => Err(cleaned(self.doing, &error)),
            Some(Ok(batch)) => Reply::new(batch).map(Some).map_err(|broken| {
                Error::new(Kind::Data, self.doing, format!("the server's reply: {broken}"))
            }),
        }
    }
}

/// Majority, and not from before `after`.
pub(super) fn majority(after: Moment) -> RawDocumentBuf {
    let mut concern = rawdoc! {"level": "majority"};
    if after != Moment::default() {
        let after = Timestamp { time: after.upper(), increment: after.lower() };
        concern.append(cstr!("afterClusterTime"), after);
    }
    concern
}

fn info(document: Document<'_>) -> std::result::Result<CollectionInfo, slackwater_topics::Malformed> {
    let mut info = CollectionInfo {
        name: String::new(),
        kind: CollectionKind::Collection,
        post_images: false,
        collation: false,
        capped: false,
        clustered: None,
    };
    for element in document.elements() {
        match element? {
            (b"name", Value::String(name)) => info.name = String::from_utf8_lossy(name).into_owned(),
            (b"type", Value::String(b"view")) => info.kind = CollectionKind::View,
            (b"type", Value::String(b"timeseries")) => info.kind = CollectionKind::TimeSeries,
            (b"options", Value::Document(options)) => {
                for option in options.elements() {
                    match option? {
                        (b"changeStreamPreAndPostImages", Value::Document(images)) => {
                            info.post_images = images.get(b"enabled")? == Some(Value::Boolean(true));
                        }
                        (b"collation", Value::Document(collation)) => {
                            info.collation = collation.get(b"locale")? != Some(Value::String(b"simple"));
                        }
                        (b"capped", Value::Boolean(capped)) => info.capped = capped,
                        (b"clusteredIndex", Value::Document(index)) => {
                            if let Some(Value::String(name)) = index.get(b"name")? {
                                info.clustered = Some(String::from_utf8_lossy(name).into_owned());
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(info)
}

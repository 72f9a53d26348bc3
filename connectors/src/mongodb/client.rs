//! The connection to one database of a MongoDB deployment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bson::{RawDocumentBuf, Timestamp, cstr, rawdoc};
use futures_util::StreamExt as _;
use mongodb::error::ErrorKind;
use mongodb::options::{AuthMechanism, ClientOptions, SelectionCriteria, Tls};
use mongodb::raw_batch_cursor::RawBatchCursor;
use mongodb::{Client, Database};
use slackwater_topics::{Document, Moment, Value};
use tokio::time::timeout;

use super::error::cleaned;
use super::reply::Reply;
use super::selection::{self, Cause, Why};
use super::server::Wanted;
use super::{address, probe};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const SELECTION: Duration = Duration::from_secs(5);
/// The driver allows 10, which chunks that are read side by side would use up.
const CONNECTIONS: u32 = 64;
/// A secondary that lags longer than this is worth a line.
const LAGGING: Duration = Duration::from_secs(15);

/// One database. Cheap to clone.
#[derive(Clone)]
pub struct Mongo {
    link: Arc<RwLock<Link>>,
    uri: Secret,
    name: Arc<str>,
    version: (u32, u32, u32),
    wanted: Arc<Wanted>,
    /// What the copy reads from, where that is not the primary.
    copying: Option<SelectionCriteria>,
}

impl fmt::Debug for Mongo {
    /// The driver would print its options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mongo({})", self.name)
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
    /// Clients encrypt fields of it before they write.
    pub encrypted: bool,
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
        let text = uri.expose_fresh().map_err(|(path, error)| {
            let what = format!("the file {} cannot be read: {error}", path.display());
            Error::new(Kind::Denied, "connecting to MongoDB", what).help("the connection string needs it")
        })?;
        let options = options(&text).await?;
        if options.credential.as_ref().is_some_and(address::asks_elsewhere) {
            let strong = with_mechanism(&options, AuthMechanism::ScramSha256);
            match Self::open(strong, uri, &text, database).await {
                // Users that are as old as MongoDB 3.6 have the other one only.
                Err(error) if error.kind == Kind::Denied => {
                    let weak = with_mechanism(&options, AuthMechanism::ScramSha1);
                    return Self::open(weak, uri, &text, database).await.map_err(|_| error);
                }
                outcome => return outcome,
            }
        }
        Self::open(options, uri, &text, database).await
    }

    async fn open(options: ClientOptions, uri: &Secret, text: &str, database: &str) -> Result<Self> {
        let wanted = Arc::new(Wanted::of(&options));
        let copying =
            options.selection_criteria.clone().filter(|_| address::read_preference(&options).is_some());
        let user = wanted.user().map(|user| format!(", user {user}")).unwrap_or_default();
        let doing = format!("connecting to MongoDB at {} (database {database}{user})", wanted.hosts());
        let link = Link::new(options, text).map_err(|error| refused(&doing, &wanted, &error))?;
        let info = match link.client.database("admin").run_raw_command(rawdoc! {"buildInfo": 1}).await {
            Ok(info) => info,
            Err(error) => return Err(explained(&doing, &wanted, &error).await),
        };
        let mut numbers = info.get_array("versionArray").into_iter().flatten();
        let mut number = || numbers.next().and_then(|part| u32::try_from(part.as_i32()?).ok()).unwrap_or(0);
        let version = (number(), number(), number());
        let link = Arc::new(RwLock::new(link));
        Ok(Self { link, uri: uri.clone(), name: database.into(), version, wanted, copying })
    }

    /// After a failure of this kind: if the files that the connection was made of hold something else now, a new one is made of
    /// them. What has begun on the old one goes on there, because a server lets those stay whom it has let in.
    pub(super) async fn renew(&self, kind: Kind) {
        if !matches!(kind, Kind::Denied | Kind::Unreachable) {
            return;
        }
        // What cannot be read is about to be written; there will be a next time.
        let Ok(text) = self.uri.expose_fresh() else { return };
        let before = self.link().made;
        if before.text == *text
            && before.files == before.files.iter().map(|(path, _)| stamped(path)).collect::<Vec<_>>()
        {
            return;
        }
        let Ok(mut options) = options(&text).await else { return };
        if let Some(mechanism) = &before.mechanism {
            options = with_mechanism(&options, mechanism.clone());
        }
        let Ok(link) = Link::new(options, &text) else { return };
        tracing::info!("what the connection to MongoDB was made of has changed; connecting anew");
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn link(&self) -> Link {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
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
                // The others belong to collections with encrypted fields that can be searched.
                if !info.name.starts_with("system.") && !info.name.starts_with("enxcol_.") {
                    collections.push(info);
                }
            }
        }
        collections.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(collections)
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.name
    }

    /// Major, minor and patch of the server.
    pub fn version(&self) -> (u32, u32, u32) {
        self.version
    }

    /// Whether it has `$changeStreamSplitLargeEvent`. The versions between 6.0 and 7.0 do not.
    pub(super) fn cuts_large_events(&self) -> bool {
        ((6, 0, 9)..(6, 1, 0)).contains(&self.version) || self.version >= (7, 0, 0)
    }

    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(super) fn handle(&self) -> Database {
        self.other(&self.name)
    }

    pub(super) fn other(&self, database: &str) -> Database {
        self.link().client.database(database)
    }

    /// Runs a command that answers with a cursor, at the primary.
    pub(super) async fn replies<'a>(&self, command: RawDocumentBuf, doing: &'a str) -> Result<Replies<'a>> {
        let cursor = self.handle().run_raw_cursor_command(command).batch().await;
        self.begun(cursor, doing).await
    }

    async fn begun<'a>(&self, cursor: Begun, doing: &'a str) -> Result<Replies<'a>> {
        match cursor {
            Ok(cursor) => Ok(Replies { cursor, doing }),
            Err(error) => {
                let error = cleaned(doing, &error);
                self.renew(error.kind).await;
                Err(error)
            }
        }
    }

    /// The same, where the connection string wants the copy to read. The driver asks the cursor's server for all that follows.
    ///
    /// A secondary that lags lets us wait until it has what is asked for; somebody should know then.
    pub(super) async fn copied<'a>(&self, command: RawDocumentBuf, doing: &'a str) -> Result<Replies<'a>> {
        let Some(criteria) = &self.copying else { return self.replies(command, doing).await };
        let database = self.handle();
        let asked = database.run_raw_cursor_command(command).selection_criteria(criteria.clone());
        // The driver's futures must not be cancelled.
        let mut answer = std::pin::pin!(asked.batch());
        let cursor = loop {
            match timeout(LAGGING, &mut answer).await {
                Ok(cursor) => break cursor,
                Err(_) => tracing::warn!(
                    "{doing}: the secondary does not answer yet; it may lag behind the primary; `readPreference` and \
                     `maxStalenessSeconds` in the connection string say which secondaries may be asked"
                ),
            }
        };
        self.begun(cursor, doing).await
    }
}

/// A cursor, or why there is none.
type Begun = std::result::Result<RawBatchCursor, mongodb::error::Error>;

/// The driver's client, with what it was made of.
#[derive(Clone)]
struct Link {
    client: Client,
    made: Arc<Made>,
}

struct Made {
    text: String,
    /// The certificates, and when each was written.
    files: Vec<Stamped>,
    mechanism: Option<AuthMechanism>,
}

/// A file, and when it was written.
type Stamped = (PathBuf, Option<SystemTime>);

fn stamped(path: &Path) -> Stamped {
    (path.to_owned(), std::fs::metadata(path).and_then(|found| found.modified()).ok())
}

impl Link {
    fn new(options: ClientOptions, text: &str) -> mongodb::error::Result<Self> {
        let tls = match &options.tls {
            Some(Tls::Enabled(tls)) => vec![&tls.ca_file_path, &tls.cert_key_file_path],
            _ => Vec::new(),
        };
        let files = tls.into_iter().flatten().map(|path| stamped(path)).collect();
        let mechanism = options.credential.as_ref().and_then(|credential| credential.mechanism.clone());
        let made = Made { text: text.to_owned(), files, mechanism };
        Ok(Self { client: Client::with_options(options)?, made: Arc::new(made) })
    }
}

async fn options(text: &str) -> Result<ClientOptions> {
    let mut options = address::read(text).await?;
    // What the server's logs and `currentOp` call us, unless the address says otherwise.
    options.app_name.get_or_insert_with(|| "slackwater".into());
    options.server_selection_timeout = Some(SELECTION);
    options.max_pool_size.get_or_insert(CONNECTIONS);
    Ok(options)
}

fn with_mechanism(options: &ClientOptions, mechanism: AuthMechanism) -> ClientOptions {
    let mut options = options.clone();
    if let Some(credential) = &mut options.credential {
        credential.mechanism = Some(mechanism);
    }
    options
}

/// Why we were not let in, once who answers was asked where the driver does not know.
async fn explained(doing: &str, wanted: &Wanted, error: &mongodb::error::Error) -> Error {
    let ErrorKind::ServerSelection { message, .. } = &*error.kind else {
        return refused(doing, wanted, error);
    };
    let mut why = selection::why(message);
    if let Why::Servers(reasons) = &mut why {
        for reason in reasons {
            let address = reason.address.as_str();
            let certificate = wanted.certificate.as_deref();
            reason.cause = match reason.cause {
                Cause::NoMongodb if !wanted.tls && probe::speaks_tls(address).await => Cause::WantsTls,
                Cause::EndsHandshake if probe::speaks_clearly(address).await => Cause::HasNoTls,
                Cause::HangsUp if probe::hangs_up(address, certificate).await => match certificate {
                    None => Cause::WantsCertificate,
                    Some(_) => Cause::HangsUpOnCertificate,
                },
                cause => cause,
            };
        }
        return Error::new(why.kind(), doing, why.words());
    }
    refused(doing, wanted, error)
}

/// Why we were not let in, in words that know who we wanted to be.
fn refused(doing: &str, wanted: &Wanted, error: &mongodb::error::Error) -> Error {
    let denied = |what: String, help: String| Error::new(Kind::Denied, doing, what).help(help);
    match (&*error.kind, wanted.mechanism()) {
        (ErrorKind::Authentication { .. }, Some("MONGODB-X509")) => denied(
            "the server knows no user with the subject of our client certificate".into(),
            "create one in $external with role `read`; `openssl x509 -in FILE -noout -subject -nameopt RFC2253` shows its name"
                .into(),
        ),
        (ErrorKind::Authentication { .. }, mechanism) => {
            let (user, source) = (wanted.user().unwrap_or("nobody"), &wanted.source);
            let by = mechanism.map(|mechanism| format!(" by {mechanism}")).unwrap_or_default();
            denied(
                format!("the server does not let {user} in{by}: the password is not right, or {source} has no such user"),
                "correct it in the `uri`; authSource=… names the database that the user was created in".into(),
            )
        }
        (ErrorKind::InvalidTlsConfig { .. }, _) => denied(
            "the key in the file of `tlsCertificateKeyFile` does not belong to the certificate in it, or is of a kind that is not known"
                .into(),
            "put certificate and key that were made together into it: RSA, ECDSA or Ed25519".into(),
        ),
        _ => cleaned(doing, error),
    }
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
        encrypted: false,
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
                        (b"encryptedFields", _) => info.encrypted = true,
                        (b"validator", Value::Document(validator)) => {
                            info.encrypted |= encrypts(validator)?;
                        }
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

/// Whether a schema says, at any depth, that clients encrypt something.
fn encrypts(document: Document<'_>) -> std::result::Result<bool, slackwater_topics::Malformed> {
    for element in document.elements() {
        match element? {
            (b"encrypt" | b"encryptMetadata", Value::Document(_)) => return Ok(true),
            (_, Value::Document(inner)) if encrypts(inner)? => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

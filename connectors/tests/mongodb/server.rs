//! Servers for the tests: a database of one's own on the shared replica set, or a mongod of one's own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection, Database};
use slackwater_connectors::mongodb::{ChangeStream, Mongo};
use slackwater_connectors::secret::Secret;
use slackwater_connectors::source::ChangeBatch;
use slackwater_topics::{Bound, Key, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::ports::free_ports;

static NEXT: AtomicU32 = AtomicU32::new(0);

fn unique(prefix: &str) -> String {
    format!("{prefix}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: eval \"$(dev/services env)\""))
}

/// A database on a server; dropped at the end, whatever happened.
pub(crate) struct Scratch {
    pub(crate) uri: String,
    pub(crate) db: Database,
    pub(crate) mongo: Mongo,
}

impl Scratch {
    pub(crate) async fn shared() -> Self {
        Self::at(&variable("SLACKWATER_MONGODB_URI")).await
    }

    pub(crate) async fn at(uri: &str) -> Self {
        let client = Client::with_uri_str(uri).await.expect("a connection string");
        let db = client.database(&unique("slackwater_mongo"));
        let mongo = Mongo::connect(&Secret::new(uri), db.name()).await.expect("a connection");
        Self { uri: uri.to_owned(), db, mongo }
    }

    pub(crate) fn collection(&self, name: &str) -> Collection<Document> {
        self.db.collection(name)
    }

    pub(crate) async fn create(&self, name: &str, options: Document) {
        let mut create = doc! {"create": name};
        create.extend(options);
        self.db.run_command(create).await.expect("the collection is created");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (uri, name) = (self.uri.clone(), self.db.name().to_owned());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let mut options = ClientOptions::parse(uri).await.expect("a connection string");
                options.server_selection_timeout = Some(Duration::from_secs(2));
                // A server of one's own may be gone already.
                let _ = Client::with_options(options).expect("a client").database(&name).drop().await;
            });
        });
        let _ = dropped.join();
    }
}

/// A mongod of one's own, killed at the end.
pub(crate) struct Mongod {
    child: Child,
    directory: PathBuf,
    arguments: Vec<String>,
    pub(crate) port: u16,
}

impl Mongod {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(unique("slackwater_mongod"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let [port] = free_ports();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(&directory, port, &arguments);
        Self { child, directory, arguments, port }
    }

    /// A replica set of one member.
    pub(crate) async fn replica_set(arguments: &[&str]) -> Self {
        let mut all = vec!["--replSet", "own"];
        all.extend(arguments);
        let mongod = Self::start(&all);
        mongod.initiate().await;
        mongod
    }

    pub(crate) async fn initiate(&self) {
        let client = self.client(&self.direct()).await;
        let member = format!("127.0.0.1:{}", self.port);
        let config = doc! {
            "_id": "own", "members": [{"_id": 0, "host": member}],
            "settings": {"electionTimeoutMillis": 1000},
        };
        client
            .database("admin")
            .run_command(doc! {"replSetInitiate": config})
            .await
            .expect("the replica set is made");
    }

    pub(crate) fn direct(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    pub(crate) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=own", self.port)
    }

    pub(crate) async fn client(&self, uri: &str) -> Client {
        let mut options = ClientOptions::parse(uri).await.expect("a connection string");
        options.server_selection_timeout = Some(Duration::from_secs(60));
        let client = Client::with_options(options).expect("a client");
        client.database("admin").run_command(doc! {"ping": 1}).await.expect("the server answers");
        client
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn again(&mut self) {
        self.child = spawn(&self.directory, self.port, &self.arguments);
    }
}

fn spawn(directory: &PathBuf, port: u16, arguments: &[String]) -> Child {
    Command::new(variable("SLACKWATER_MONGOD"))
        .arg("--dbpath")
        .arg(directory)
        .args(["--port", &port.to_string(), "--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.25"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mongod starts")
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The key of any value.
pub(crate) fn key(value: impl Into<Bson>) -> Key {
    with_value(value, |value| Key::of(value).expect("a key"))
}

/// The bound at any value.
pub(crate) fn bound(value: impl Into<Bson>) -> Bound {
    with_value(value, |value| Bound::of(value).expect("a bound"))
}

pub(crate) fn with_value<T>(value: impl Into<Bson>, look: impl FnOnce(Value<'_>) -> T) -> T {
    let raw = doc! {"_id": value.into()}.to_vec().expect("a document");
    let document = slackwater_topics::Document::new(&raw).expect("well formed");
    look(document.get(b"_id").expect("well formed").expect("a value"))
}

pub(crate) fn document(bytes: &[u8]) -> Document {
    Document::from_reader(bytes).expect("a document")
}

/// Every kind of `_id` that the server takes; `n` makes them differ.
pub(crate) fn any_id(n: i32) -> Bson {
    match n % 14 {
        0 => Bson::Int32(n),
        1 => Bson::Int64(i64::from(n) << 33),
        2 => Bson::Double(f64::from(n) + 0.25),
        3 => Bson::Decimal128(format!("{n}.1").parse().expect("a decimal")),
        4 => format!("text {n}").into(),
        5 => format!("{}{n}", "long ".repeat(2000)).into(),
        6 => doc! {"a": n, "b": {"c": format!("{n}")}}.into(),
        7 => Bson::ObjectId(bson::oid::ObjectId::from_bytes({
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            bytes
        })),
        8 => Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: n.to_string().into_bytes(),
        }),
        9 => Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Uuid,
            bytes: [[0; 12].as_slice(), n.to_be_bytes().as_slice()].concat(),
        }),
        10 => bson::DateTime::from_millis(i64::from(n) - 500).into(),
        11 => Bson::Timestamp(bson::Timestamp { time: n as u32, increment: 1 }),
        12 => Bson::Symbol(format!("symbol {n}")),
        _ => match n {
            13 => Bson::Null,
            27 => Bson::MinKey,
            41 => Bson::MaxKey,
            55 => true.into(),
            69 => false.into(),
            83 => f64::NAN.into(),
            97 => f64::INFINITY.into(),
            111 => f64::NEG_INFINITY.into(),
            125 => doc! {}.into(),
            139 => "".into(),
            153 => doc! {"a.b": 1, "": 2}.into(),
            167 => Bson::Decimal128("1E400".parse().expect("a decimal")),
            _ => Bson::JavaScriptCode(format!("code {n}")),
        },
    }
}

/// Batches until the condition holds of all that came.
pub(crate) async fn until(
    stream: &mut ChangeStream,
    mut enough: impl FnMut(&[ChangeBatch]) -> bool,
) -> Vec<ChangeBatch> {
    let mut batches = Vec::new();
    let all = async {
        while !enough(&batches) {
            batches.push(stream.next().await.expect("the stream goes on"));
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), all).await;
    assert!(in_time.is_ok(), "not within a minute; {} batches came", batches.len());
    batches
}

/// A way to a server that can swallow what is sent, as a broken network does: nobody is told.
pub(crate) struct Wire {
    pub(crate) port: u16,
    generation: Arc<AtomicU32>,
}

impl Wire {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let generation = Arc::new(AtomicU32::new(0));
        let current = generation.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, current.clone()));
                tokio::spawn(carry(from_server, to_client, current.clone()));
            }
        });
        Self { port: own, generation }
    }

    /// Connections made until now carry nothing any more, and stay open. New ones work.
    pub(crate) fn swallow(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, generation: Arc<AtomicU32>) {
    let born = generation.load(Ordering::SeqCst);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if generation.load(Ordering::SeqCst) == born && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

//! A database for one test, and rows in Postgres' binary form.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use slackwater_connectors::postgres::client::connect;
use slackwater_connectors::postgres::control::ledger::Incident;
use slackwater_connectors::postgres::control::{Control, Taking};
use slackwater_connectors::postgres::progress::Advance;
use slackwater_connectors::postgres::target::catalog::Catalog;
use slackwater_connectors::postgres::target::introspect;
use slackwater_connectors::postgres::target::rows::{
    Apart, Merging, Missing, RowFormat, TableSpec, WriteSet,
};
use slackwater_connectors::postgres::target::sink::Sink;
use slackwater_connectors::secret::Secret;
use slackwater_connectors::source::Kind;
use tokio_postgres::Client;
use uuid::Uuid;

pub(crate) const MIGRATION: &str = "coworking";
/// Why something is recopied, where a test does not care.
pub(crate) const WHY: Incident<'static> = Incident { kind: "test", collection: None, text: "for a test" };

/// The capture of source `shop`.
pub(crate) fn taking<'a>(
    migration: &'a str,
    file_hash: &'a str,
    namespace: Uuid,
    log: &'a str,
) -> Taking<'a> {
    Taking { migration, source: "shop", kind: Kind::Mongodb, file_hash, namespace, log }
}

/// A database of its own.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) url: Secret,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

fn server() -> String {
    std::env::var("SLACKWATER_POSTGRES_URL")
        .expect("SLACKWATER_POSTGRES_URL: start the services and load their env")
}

/// Runs a test in a new database and drops it after, also when the test fails.
pub(crate) async fn with<F, T>(test: T)
where
    T: FnOnce(Database) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let nanos =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let name = format!("sw_test_{:x}_{}_{}", nanos, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let server = server();
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    let (admin, _task) = connect(&Secret::new(server.clone())).await.expect("the server");
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a new database");
    let outcome = tokio::spawn(test(Database { url: Secret::new(format!("{base}/{name}")) })).await;
    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.expect("dropped");
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl Database {
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url).await.expect("the database").0
    }

    /// Makes the tables and looks at them.
    pub(crate) async fn tables(&self, sql: &str, names: &[&str]) -> Catalog {
        let client = self.client().await;
        client.batch_execute(&format!("SET search_path = public; {sql}")).await.expect("tables");
        let names: Vec<_> = names.iter().map(|name| ("public".to_owned(), (*name).to_owned())).collect();
        introspect::catalog(&self.client().await, &names).await.expect("a catalogue")
    }

    /// Takes the migration over and opens a sink on the lane.
    pub(crate) async fn sink(&self, specs: Vec<TableSpec>) -> (Control, Sink) {
        let mut control = Control::open(&self.url).await.expect("control");
        let taken = control
            .take_over(taking(MIGRATION, "hash", Uuid::nil(), "direct"), &["main"])
            .await
            .expect("taken over");
        let sink = Sink::open(&self.url, MIGRATION, "main", taken.owner.epoch, Arc::new(specs))
            .await
            .expect("a sink");
        (control, sink)
    }

    /// One value as text.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let sql = format!("SELECT coalesce(({sql})::text, 'NULL')");
        self.client().await.query_one(&sql, &[]).await.expect("a row").get(0)
    }

    /// Waits until the SQL is true.
    pub(crate) async fn until(&self, sql: &str) {
        let client = self.client().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !client.query_one(sql, &[]).await.expect("a row").get::<_, bool>(0) {
            assert!(Instant::now() < deadline, "never true: {sql}");
            tokio::task::yield_now().await;
        }
    }
}

/// A spec over columns given by name, which have to be in the order of the table.
pub(crate) fn spec(
    catalog: &Catalog,
    table: &str,
    columns: &[&str],
    key: &[&str],
    owner: Option<&str>,
) -> TableSpec {
    let table = &catalog.tables[&("public".to_owned(), table.to_owned())];
    let mapped: Vec<usize> = columns.iter().map(|name| table.column(name).expect("a column")).collect();
    let place = |name: &str| columns.iter().position(|column| *column == name).expect("a mapped column");
    TableSpec {
        shape: None,
        found: None,
        claimed: false,
        ordered: false,
        serial: None,
        stands: false,
        source: "shop".into(),
        apart: Apart::Alone,
        holder: None,
        merging: Merging::None,
        record: Arc::new(RowFormat::record(table, &mapped)),
        copy: Arc::new(RowFormat::copy(mapped.len())),
        table: Arc::new(table.clone()),
        missing: vec![Missing::Wait; mapped.len()],
        key: key.iter().map(|name| place(name)).collect(),
        owner: owner.map(place),
        columns: mapped,
    }
}

/// The same, where Postgres alone looks at references and unique values: what it refuses is refused.
pub(crate) fn refusing(mut spec: TableSpec) -> TableSpec {
    spec.missing.fill(Missing::Reject);
    Arc::make_mut(&mut spec.table).rivals.clear();
    spec
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum V {
    Text(String),
    Id(u128),
    Int(i32),
    Json(&'static str),
    Texts(Vec<&'static str>),
    Null,
    Raw(Vec<u8>),
}

pub(crate) fn text(text: impl Into<String>) -> V {
    V::Text(text.into())
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl V {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => sized(text.as_bytes(), out),
            Self::Id(id) => sized(&id.to_be_bytes(), out),
            Self::Int(number) => sized(&number.to_be_bytes(), out),
            Self::Json(json) => sized(json.as_bytes(), out),
            Self::Texts(texts) => {
                let mut array = Vec::new();
                for word in [1, 0, 25, texts.len() as i32, 1] {
                    array.extend_from_slice(&word.to_be_bytes());
                }
                texts.iter().for_each(|text| sized(text.as_bytes(), &mut array));
                sized(&array, out);
            }
            Self::Null => out.extend_from_slice(&(-1_i32).to_be_bytes()),
            Self::Raw(bytes) => sized(bytes, out),
        }
    }
}

/// Adds a row.
pub(crate) fn row(writes: &mut WriteSet, table: usize, values: &[V]) {
    let rows = &mut writes.tables[table].rows;
    rows.begin();
    for (index, value) in values.iter().enumerate() {
        value.write(rows.field(index));
    }
    rows.end();
}

/// A UUID of version 5, as ours are.
pub(crate) fn ours(number: u128) -> V {
    V::Id(number << 80 | 0x5 << 76 | 0x8 << 60)
}

/// The step from a sequence.
pub(crate) fn from(sequence: i64) -> Advance {
    Advance { sequence, ..Advance::default() }
}

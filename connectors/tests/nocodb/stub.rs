//! A server that answers as NocoDB does, as far as we ask it, and badly where a test wants that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use slackwater_connectors::nocodb::{Noco, Settings};
use slackwater_connectors::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::edits::Dice;

/// What may go wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    TooMany,
    Broken,
    /// Its database is away, of which it says that the request is wrong.
    Database,
    /// JSON that ends in the middle.
    Cut,
    /// A body that is shorter than was said.
    Short,
    /// Nothing before the client gives up.
    Slow,
    /// Some page of somebody else's.
    Html,
    /// It has just been started, and knows nothing yet.
    Starting,
    /// The first page, whichever was asked for.
    Repeated,
    /// Some of the records, as if these were all.
    Half,
    Empty,
}

pub(crate) const FAULTS: [Fault; 11] = [
    Fault::TooMany,
    Fault::Broken,
    Fault::Database,
    Fault::Cut,
    Fault::Short,
    Fault::Slow,
    Fault::Html,
    Fault::Starting,
    Fault::Repeated,
    Fault::Half,
    Fault::Empty,
];

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) key: Value,
    pub(crate) name: String,
    created: i64,
    updated: Option<i64>,
}

pub(crate) struct State {
    pub(crate) records: Vec<Record>,
    /// The server's clock is ahead by so many seconds; it runs by itself, one second an edit.
    pub(crate) now: i64,
    /// Keys are text.
    pub(crate) text: bool,
    /// More records are refused as too large.
    pub(crate) largest: usize,
    pub(crate) token: bool,
    /// What goes wrong with the next page, and how often in four.
    pub(crate) fault: Option<(Vec<Fault>, usize)>,
    pub(crate) dice: Dice,
    /// Pages that were asked for, with their limits.
    pub(crate) pages: Vec<usize>,
    next: i64,
}

pub(crate) struct Stub {
    state: Arc<Mutex<State>>,
    port: u16,
}

/// A client waits no longer for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);

impl Stub {
    pub(crate) async fn new(dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = State {
            records: Vec::new(),
            now: 1_790_000_000,
            text: false,
            largest: usize::MAX,
            token: true,
            fault: None,
            dice,
            pages: Vec::new(),
            next: 1,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, shared.clone()));
            }
        });
        Self { state, port }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    pub(crate) fn settings(&self) -> Settings {
        let url = format!("http://127.0.0.1:{}", self.port);
        let mut settings = Settings::new(url, Secret::new("token"), "Base");
        settings.every = Duration::from_millis(20);
        settings.sweep = Duration::from_millis(100);
        settings.requests_per_second = 100_000;
        settings.timeout = PATIENCE;
        settings
    }

    pub(crate) async fn noco(&self, settings: &Settings) -> Noco {
        Noco::connect(settings).await.expect("a connection")
    }
}

impl State {
    pub(crate) fn create(&mut self, name: &str) -> Value {
        self.now += 1;
        let key = if self.text { json!(format!("k {}", self.next * 7 % 100)) } else { json!(self.next) };
        self.next += 1;
        let record = Record { key: key.clone(), name: name.to_owned(), created: self.now, updated: None };
        self.records.push(record);
        key
    }

    pub(crate) fn update(&mut self, place: usize, name: &str) {
        self.now += 1;
        let record = &mut self.records[place];
        (record.name, record.updated) = (name.to_owned(), Some(self.now));
    }

    fn shown(&self, record: &Record) -> Value {
        let time = |seconds: i64| {
            let time = jiff::Timestamp::from_second(seconds).expect("a time");
            time.strftime("%Y-%m-%d %H:%M:%S+00:00").to_string()
        };
        json!({
            "Id": record.key, "CreatedAt": time(record.created), "UpdatedAt": record.updated.map(time), "Name": record.name,
        })
    }

    /// The status, further headers, and the body.
    fn answer(&mut self, path: &str, query: &HashMap<String, String>) -> (u16, String, String) {
        let ok = |value: Value| (200, String::new(), value.to_string());
        let error = |status, code: &str| (status, String::new(), json!({"error": code}).to_string());
        if !self.token {
            return error(401, "ERR_AUTHENTICATION_REQUIRED");
        }
        match path {
            "/api/v2/meta/bases" => ok(json!({"list": [{"id": "b1", "title": "Base"}]})),
            "/api/v2/meta/bases/b1/tables" => ok(json!({"list": [{"id": "t1", "title": "T", "mm": false}]})),
            "/api/v1/version" => ok(json!({"releaseVersion": null})),
            "/api/v2/meta/tables/t1" => {
                let kind = if self.text { "text" } else { "int4" };
                ok(json!({"id": "t1", "title": "T", "columns": [
                    {"id": "c_id", "title": "Id", "uidt": "ID", "dt": kind, "pk": true},
                    {"id": "c_cr", "title": "CreatedAt", "uidt": "CreatedTime", "system": true},
                    {"id": "c_up", "title": "UpdatedAt", "uidt": "LastModifiedTime", "system": true},
                    {"id": "c_na", "title": "Name", "uidt": "SingleLineText"},
                ]}))
            }
            "/api/v2/tables/t1/records/count" => ok(json!({"count": self.records.len()})),
            "/api/v2/tables/t1/records" => self.list(query),
            other => match other.strip_prefix("/api/v2/tables/t1/records/") {
                Some(key) => {
                    match self.records.iter().find(|record| record.key == json!(key.replace("%20", " "))) {
                        Some(record) => ok(self.shown(record)),
                        None => error(404, "ERR_RECORD_NOT_FOUND"),
                    }
                }
                None => error(404, "ERR_TABLE_NOT_FOUND"),
            },
        }
    }

    fn list(&mut self, query: &HashMap<String, String>) -> (u16, String, String) {
        let of = |name: &str| query.get(name).cloned().unwrap_or_default();
        let limit: usize = of("limit").parse().expect("a limit");
        let offset: usize = of("offset").parse().unwrap_or_default();
        let filter = of("where");
        // Who asks for records by their keys is told the truth: lies upon lies are nothing to test.
        let page = !filter.contains(",in,");
        if page {
            self.pages.push(limit);
        }
        let fault = match self.fault.clone() {
            Some((faults, of_four)) if page && self.dice.below(4) < of_four => self.dice.one_of(&faults),
            _ => None,
        };
        if limit > self.largest {
            return (413, String::new(), "too large".into());
        }
        let mut found: Vec<Record> = self.records.clone();
        found.sort_by(|a, b| a.key.as_i64().cmp(&b.key.as_i64()).then(a.key.as_str().cmp(&b.key.as_str())));
        if fault != Some(Fault::Repeated) {
            found.retain(|record| fits(record, &filter));
        }
        if offset > 0 && offset >= found.len() {
            return (422, String::new(), json!({"error": "ERR_INVALID_OFFSET_VALUE"}).to_string());
        }
        let mut last = found.len() <= offset + limit;
        let mut found: Vec<Record> = found.into_iter().skip(offset).take(limit).collect();
        match fault {
            Some(Fault::Half) => {
                found.retain(|_| self.dice.below(2) == 0);
                last = true;
            }
            Some(Fault::Empty) => {
                found.clear();
                last = true;
            }
            _ => {}
        }
        let list: Vec<Value> = found.iter().map(|record| self.shown(record)).collect();
        let body = json!({"list": list, "pageInfo": {"isLastPage": last}}).to_string();
        match fault {
            Some(Fault::TooMany) => (429, "retry-after: 0\r\n".into(), "{}".into()),
            Some(Fault::Broken) => (500, String::new(), "{\"msg\": \"no\"}".into()),
            Some(Fault::Database) => {
                (422, String::new(), json!({"error": "ERR_DATABASE_OP_FAILED"}).to_string())
            }
            Some(Fault::Cut) => (200, String::new(), body[..body.len() / 2].to_owned()),
            Some(Fault::Short) => (200, "x-short: 1\r\n".into(), body),
            Some(Fault::Slow) => (200, "x-slow: 1\r\n".into(), body),
            Some(Fault::Html) => (200, String::new(), "<html>a proxy's own page</html>".into()),
            Some(Fault::Starting) => (404, String::new(), "<pre>Cannot GET /</pre>".into()),
            _ => (200, String::new(), body),
        }
    }
}

/// Whether a record is what the filter asks for; it knows what we ask for and no more.
fn fits(record: &Record, filter: &str) -> bool {
    let key = record.key.as_i64();
    filter.split("~and").filter(|part| !part.is_empty()).all(|part| {
        if let Some((_, since)) = part.split_once("exactDate,") {
            let since = since.split(')').next().expect("a time").replace(' ', "T");
            let since: jiff::Timestamp = since.parse().expect("a time");
            return record.updated.unwrap_or(record.created) >= since.as_second();
        }
        let mut words = part.trim_matches(['(', ')']).split(',');
        let (_, word) = (words.next(), words.next().expect("an operator"));
        let mut numbers = words.map(|number| Some(number.parse::<i64>().expect("a number")));
        match word {
            "gt" => key > numbers.next().flatten(),
            "gte" => key >= numbers.next().flatten(),
            "lt" => key < numbers.next().flatten(),
            "in" => numbers.any(|number| number == key),
            other => panic!("{other}: {filter}"),
        }
    })
}

async fn serve(mut client: TcpStream, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut buffer).await {
            Ok(length @ 1..) => head.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let url = reqwest::Url::parse(&format!("http://stub{target}")).expect("an address");
    let query = url.query_pairs().into_owned().collect();
    let (status, headers, body) = state.lock().expect("not poisoned").answer(url.path(), &query);
    if headers.contains("x-slow") {
        // Until the client has gone.
        let _ = client.read(&mut buffer).await;
        return;
    }
    let length = body.len() + if headers.contains("x-short") { 100 } else { 0 };
    let answer = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    let _ = client.write_all(answer.as_bytes()).await;
}

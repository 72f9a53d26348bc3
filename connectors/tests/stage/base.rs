//! A base of one's own on the real server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: eval \"$(dev/services env)\""))
}

/// Ids of a table and of its columns, by title.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) id: String,
    pub(crate) columns: HashMap<String, String>,
}

/// A base; dropped at the end, whatever happened.
pub(crate) struct Base {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
}

/// Sent at most at once.
pub(crate) const BULK: usize = 100;

impl Base {
    pub(crate) async fn new() -> Self {
        Self::at(variable("SLACKWATER_NOCODB_URL"), variable("SLACKWATER_NOCODB_TOKEN")).await
    }

    /// On this server.
    pub(crate) async fn at(url: String, token: String) -> Self {
        let mut base = Self { id: String::new(), url, token, http: reqwest::Client::new() };
        let title = format!("slackwater_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = base.ask("POST", "meta/bases", json!({"title": title})).await;
        base.id = made["id"].as_str().expect("an id").to_owned();
        base
    }

    /// A request under `/api/v2`; it has to succeed.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}/api/v2/{path}", self.url));
        let mut request = request.header("xc-token", &self.token);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub(crate) async fn table(&self, title: &str, columns: Value) -> Table {
        let body = json!({"title": title, "table_name": title, "columns": columns});
        let made = self.ask("POST", &format!("meta/bases/{}/tables", self.id), body).await;
        read_table(&made)
    }

    /// Adds a column; the table as it is then.
    pub(crate) async fn column(&self, table: &Table, column: Value) -> Table {
        self.ask("POST", &format!("meta/tables/{}/columns", table.id), column).await;
        self.look(table).await
    }

    pub(crate) async fn link(&self, table: &Table, title: &str, kind: &str, uidt: &str, to: &Table) -> Table {
        let (parent, child) = if kind == "bt" { (to, table) } else { (table, to) };
        let column = json!({
            "title": title, "uidt": uidt, "type": kind, "parentId": parent.id, "childId": child.id,
        });
        self.column(table, column).await
    }

    pub(crate) async fn look(&self, table: &Table) -> Table {
        read_table(&self.ask("GET", &format!("meta/tables/{}", table.id), Value::Null).await)
    }

    /// Creates records; their ids.
    pub(crate) async fn create(&self, table: &Table, records: &[Value]) -> Vec<i64> {
        let mut ids = Vec::new();
        for some in records.chunks(BULK) {
            let made = self.ask("POST", &format!("tables/{}/records", table.id), json!(some)).await;
            let made = made.as_array().expect("a list").iter();
            ids.extend(made.map(|record| record["Id"].as_i64().expect("an id")));
        }
        ids
    }

    pub(crate) async fn update(&self, table: &Table, records: &[Value]) {
        for some in records.chunks(BULK) {
            self.ask("PATCH", &format!("tables/{}/records", table.id), json!(some)).await;
        }
    }

    pub(crate) async fn delete(&self, table: &Table, ids: &[i64]) {
        for some in ids.chunks(BULK) {
            self.ask("DELETE", &format!("tables/{}/records", table.id), listed(some)).await;
        }
    }

    pub(crate) async fn connect(&self, table: &Table, link: &str, id: i64, to: &[i64]) {
        let column = &table.columns[link];
        self.ask("POST", &format!("tables/{}/links/{column}/records/{id}", table.id), listed(to)).await;
    }

    pub(crate) async fn disconnect(&self, table: &Table, link: &str, id: i64, from: &[i64]) {
        let column = &table.columns[link];
        self.ask("DELETE", &format!("tables/{}/links/{column}/records/{id}", table.id), listed(from)).await;
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let (url, token, id) = (self.url.clone(), self.token.clone(), self.id.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let request = reqwest::Client::new().delete(format!("{url}/api/v2/meta/bases/{id}"));
                let _ = request.header("xc-token", token).send().await;
            });
        });
        let _ = dropped.join();
    }
}

fn read_table(described: &Value) -> Table {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let columns = described["columns"].as_array().expect("columns").iter();
    Table {
        id: text(&described["id"]),
        columns: columns.map(|column| (text(&column["title"]), text(&column["id"]))).collect(),
    }
}

fn listed(ids: &[i64]) -> Value {
    ids.iter().map(|id| json!({"Id": id})).collect()
}

/// A column with a title.
pub(crate) fn column(title: &str, uidt: &str) -> Value {
    json!({"title": title, "column_name": title.to_lowercase(), "uidt": uidt})
}

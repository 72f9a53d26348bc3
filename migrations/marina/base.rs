//! A base of NocoDB, through the API that people's own programs use.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{Error, Result};

/// Records that the server takes at once.
pub(super) const BULK: usize = 100;
/// Records that the server gives at once.
const PAGE: usize = 1_000;
/// Records that are read at once with all that they are linked to, which costs the server a lot.
const LINKED_PAGE: usize = 100;

/// A server of NocoDB, and who asks it.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
    token: String,
    http: reqwest::Client,
}

/// Ids of a table and of its columns, by title.
#[derive(Clone, Debug)]
struct Table {
    id: String,
    columns: HashMap<String, String>,
}

/// A base.
#[derive(Clone, Debug)]
pub struct Base {
    server: Server,
    id: String,
    tables: HashMap<String, Table>,
}

/// Something in an answer.
fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().ok_or_else(|| Error::Unexpected(format!("NocoDB gives no `{name}`")))
}

/// The number of a record.
pub(super) fn number(record: &Value) -> Result<i64> {
    record["Id"].as_i64().ok_or_else(|| Error::Unexpected("NocoDB gives a record without its Id".into()))
}

fn list(answer: &Value) -> &[Value] {
    answer["list"].as_array().map_or(&[], Vec::as_slice)
}

fn numbers(ids: &[i64]) -> Value {
    ids.iter().map(|id| json!({"Id": id})).collect()
}

impl Server {
    /// At this address, with a token of its API.
    pub fn new(url: &str, token: &str) -> Self {
        Self { url: url.trim_end_matches('/').into(), token: token.into(), http: reqwest::Client::new() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value> {
        let wrong = |what: String| Error::Unexpected(format!("NocoDB, {method} {path}: {what}"));
        let request = self.http.request(method.clone(), format!("{}/api/v2/{path}", self.url));
        let mut request = request.header("xc-token", &self.token).query(query);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| wrong(error.to_string()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| wrong(error.to_string()))?;
        if !status.is_success() {
            return Err(wrong(format!("{status} {text}")));
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The ids of all bases with this title.
    async fn bases(&self, title: &str) -> Result<Vec<String>> {
        let all = self.ask(Method::GET, "meta/bases", &[], None).await?;
        let with = list(&all).iter().filter(|base| base["title"] == title);
        with.map(|base| text(base, "id").map(str::to_owned)).collect()
    }

    /// Takes all bases with this title away.
    pub(super) async fn drop_bases(&self, title: &str) -> Result<()> {
        for id in self.bases(title).await? {
            self.ask(Method::DELETE, &format!("meta/bases/{id}"), &[], None).await?;
        }
        Ok(())
    }
}

impl Base {
    /// A new one, without tables.
    pub(super) async fn create(server: &Server, title: &str) -> Result<Self> {
        let made = server.ask(Method::POST, "meta/bases", &[], Some(json!({"title": title}))).await?;
        Ok(Self { server: server.clone(), id: text(&made, "id")?.to_owned(), tables: HashMap::new() })
    }

    /// The one with this title.
    pub async fn open(server: &Server, title: &str) -> Result<Self> {
        let ids = server.bases(title).await?;
        let [id] = ids.as_slice() else {
            return Err(Error::Unexpected(format!("{} bases are called `{title}`", ids.len())));
        };
        let mut base = Self { server: server.clone(), id: id.clone(), tables: HashMap::new() };
        base.look().await?;
        Ok(base)
    }

    /// Learns what tables and columns there are.
    pub(super) async fn look(&mut self) -> Result<()> {
        let all = self.server.ask(Method::GET, &format!("meta/bases/{}/tables", self.id), &[], None).await?;
        for table in list(&all) {
            let path = format!("meta/tables/{}", text(table, "id")?);
            let described = self.server.ask(Method::GET, &path, &[], None).await?;
            let columns = described["columns"].as_array().map_or(&[][..], Vec::as_slice).iter();
            let columns =
                columns.map(|column| Ok((text(column, "title")?.into(), text(column, "id")?.into())));
            let table = Table {
                id: text(&described, "id")?.to_owned(),
                columns: columns.collect::<Result<HashMap<_, _>>>()?,
            };
            self.tables.insert(text(&described, "title")?.to_owned(), table);
        }
        Ok(())
    }

    pub(super) async fn add_table(&mut self, title: &str, columns: Value) -> Result<()> {
        let body = json!({"title": title, "table_name": title.to_lowercase(), "columns": columns});
        let path = format!("meta/bases/{}/tables", self.id);
        let made = self.server.ask(Method::POST, &path, &[], Some(body)).await?;
        let table = Table { id: text(&made, "id")?.to_owned(), columns: HashMap::new() };
        self.tables.insert(title.to_owned(), table);
        Ok(())
    }

    /// `kind`: `bt` for a link to one record, `mm` for links to many from both sides.
    pub(super) async fn add_link(&mut self, table: &str, title: &str, kind: &str, to: &str) -> Result<()> {
        let (here, there) = (self.table(table)?.id.clone(), self.table(to)?.id.clone());
        let shown = if kind == "bt" { "LinkToAnotherRecord" } else { "Links" };
        let (parent, child) = if kind == "bt" { (&there, &here) } else { (&here, &there) };
        let body = json!({"title": title, "uidt": shown, "type": kind, "parentId": parent, "childId": child});
        self.server.ask(Method::POST, &format!("meta/tables/{here}/columns"), &[], Some(body)).await?;
        Ok(())
    }

    fn table(&self, title: &str) -> Result<&Table> {
        self.tables.get(title).ok_or_else(|| Error::Unexpected(format!("the base has no table `{title}`")))
    }

    fn records(&self, table: &str) -> Result<String> {
        Ok(format!("tables/{}/records", self.table(table)?.id))
    }

    fn links(&self, table: &str, link: &str, id: i64) -> Result<String> {
        let table = self.table(table)?;
        let column = table
            .columns
            .get(link)
            .ok_or_else(|| Error::Unexpected(format!("the base has no link `{link}`")))?;
        Ok(format!("tables/{}/links/{column}/records/{id}", table.id))
    }

    /// Creates records; their ids, in the same order.
    pub(super) async fn create_records(&self, table: &str, records: &[Value]) -> Result<Vec<i64>> {
        let mut ids = Vec::with_capacity(records.len());
        let path = self.records(table)?;
        for some in records.chunks(BULK) {
            let made = self.server.ask(Method::POST, &path, &[], Some(json!(some))).await?;
            for record in made.as_array().map_or(&[][..], Vec::as_slice) {
                ids.push(number(record)?);
            }
        }
        Ok(ids)
    }

    pub(super) async fn update(&self, table: &str, records: &[Value]) -> Result<()> {
        let path = self.records(table)?;
        for some in records.chunks(BULK) {
            self.server.ask(Method::PATCH, &path, &[], Some(json!(some))).await?;
        }
        Ok(())
    }

    pub(super) async fn delete(&self, table: &str, ids: &[i64]) -> Result<()> {
        let path = self.records(table)?;
        for some in ids.chunks(BULK) {
            self.server.ask(Method::DELETE, &path, &[], Some(numbers(some))).await?;
        }
        Ok(())
    }

    pub(super) async fn connect(&self, table: &str, link: &str, id: i64, to: &[i64]) -> Result<()> {
        let path = self.links(table, link, id)?;
        self.server.ask(Method::POST, &path, &[], Some(numbers(to))).await?;
        Ok(())
    }

    pub(super) async fn disconnect(&self, table: &str, link: &str, id: i64, from: &[i64]) -> Result<()> {
        let path = self.links(table, link, id)?;
        self.server.ask(Method::DELETE, &path, &[], Some(numbers(from))).await?;
        Ok(())
    }

    /// What one record is linked to, as a page of the program shows it.
    pub(super) async fn linked(&self, table: &str, link: &str, id: i64) -> Result<Vec<i64>> {
        let found = self.server.ask(Method::GET, &self.links(table, link, id)?, &[], None).await?;
        list(&found).iter().map(number).collect()
    }

    /// All records of a table with these columns.
    pub(super) async fn read(&self, table: &str, columns: &[&str]) -> Result<Vec<Value>> {
        self.pages(table, &columns.join(","), PAGE, &[]).await
    }

    /// What each record of a table is linked to.
    pub(super) async fn read_links(&self, table: &str, link: &str) -> Result<HashMap<i64, Vec<i64>>> {
        let nested = format!("nested[{link}][limit]");
        let more = [("linksAsLtar", "true"), (nested.as_str(), "1000")];
        let records = self.pages(table, &format!("Id,{link}"), LINKED_PAGE, &more).await?;
        let linked = records.iter().map(|record| {
            let to = record[link].as_array().map_or(&[][..], Vec::as_slice);
            Ok((number(record)?, to.iter().map(number).collect::<Result<_>>()?))
        });
        linked.collect()
    }

    async fn pages(
        &self,
        table: &str,
        columns: &str,
        page: usize,
        more: &[(&str, &str)],
    ) -> Result<Vec<Value>> {
        let path = self.records(table)?;
        let limit = page.to_string();
        let mut records = Vec::new();
        loop {
            let offset = records.len().to_string();
            let mut query = vec![("fields", columns), ("sort", "Id"), ("limit", &limit), ("offset", &offset)];
            query.extend_from_slice(more);
            let answer = self.server.ask(Method::GET, &path, &query, None).await?;
            records.extend_from_slice(list(&answer));
            if answer["pageInfo"]["isLastPage"] != json!(false) {
                return Ok(records);
            }
        }
    }
}

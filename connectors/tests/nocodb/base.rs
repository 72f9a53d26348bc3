//! What the connector's own tests ask of a base beside its records.

#[path = "../stage/base.rs"]
mod server;

use std::time::Duration;

use serde_json::{Value, json};
use slackwater_connectors::nocodb::{Followed, Noco, Settings};
use slackwater_connectors::secret::Secret;
use slackwater_topics::CollectionId;

use server::BULK;
pub(crate) use server::{Base, Table, column};

impl Base {
    /// Connects many records over a many to many at once, in the table that holds its links. Through the link itself a hundred take ten
    /// seconds.
    pub(crate) async fn fill(&self, table: &Table, link: &str, id: i64, to: &[i64]) {
        let described = self.ask("GET", &format!("meta/tables/{}", table.id), Value::Null).await;
        let columns = described["columns"].as_array().expect("columns");
        let link = columns.iter().find(|column| column["title"] == *link).expect("a link");
        let option = |name: &str| link["colOptions"][name].as_str().expect("an id").to_owned();
        let junction = option("fk_mm_model_id");
        let described = self.ask("GET", &format!("meta/tables/{junction}"), Value::Null).await;
        let columns = described["columns"].as_array().expect("columns");
        let title = |id: String| {
            let column = columns.iter().find(|column| column["id"] == *id).expect("a column");
            column["title"].as_str().expect("a title").to_owned()
        };
        let (own, other) = (title(option("fk_mm_child_column_id")), title(option("fk_mm_parent_column_id")));
        for some in to.chunks(BULK) {
            let pairs: Vec<Value> = some
                .iter()
                .map(|to| {
                    Value::Object(
                        [(own.clone(), json!(id)), (other.clone(), json!(to))].into_iter().collect(),
                    )
                })
                .collect();
            // It writes them, and then fails to say so.
            let request = self.http.post(format!("{}/api/v2/tables/{junction}/records", self.url));
            let request = request.header("xc-token", &self.token).header("content-type", "application/json");
            request.body(json!(pairs).to_string()).send().await.expect("an answer");
        }
    }

    /// At a pace for tests.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.url, Secret::new(&self.token), &self.id);
        settings.every = Duration::from_millis(100);
        settings.sweep = Duration::from_millis(700);
        settings.requests_per_second = 1_000;
        settings
    }

    pub(crate) async fn noco(&self) -> Noco {
        Noco::connect(&self.settings()).await.expect("a connection")
    }
}

pub(crate) fn followed(number: u16, table: &str, needs: &[&str]) -> Followed {
    let needs = needs.iter().map(|need| (*need).to_owned()).collect();
    Followed { collection: CollectionId(number), table: table.to_owned(), needs }
}

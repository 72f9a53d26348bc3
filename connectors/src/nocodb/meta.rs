//! What the server tells of bases, tables and columns.

use serde::Deserialize;
use serde_json::Value;

use super::http::Http;
use super::names::nearest;
use crate::error::{Error, Kind, Result};

/// A base or table in a list.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Listed {
    /// The server's id, which stays when the title changes.
    pub id: String,
    /// What people call it.
    pub title: String,
    #[serde(default, rename = "mm")]
    junction: Value,
}

#[derive(Deserialize)]
struct List<T> {
    list: Vec<T>,
}

/// A table as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Described {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) columns: Vec<DescribedColumn>,
}

/// A column as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct DescribedColumn {
    pub(super) id: String,
    pub(super) title: String,
    /// The type that people chose.
    pub(super) uidt: String,
    /// The type of the database.
    #[serde(default)]
    pub(super) dt: Option<String>,
    #[serde(default)]
    pk: Value,
    #[serde(default)]
    system: Value,
    #[serde(default)]
    meta: Value,
    #[serde(default, rename = "colOptions")]
    options: Value,
}

impl DescribedColumn {
    pub(super) fn is_key(&self) -> bool {
        truthy(&self.pk)
    }

    pub(super) fn is_system(&self) -> bool {
        truthy(&self.system)
    }

    /// Holds several users.
    pub(super) fn is_multi(&self) -> bool {
        self.says("is_multi")
    }

    /// The side of a one-to-one that holds the other's id.
    pub(super) fn is_belonging(&self) -> bool {
        self.says("bt")
    }

    fn says(&self, name: &str) -> bool {
        match &self.meta {
            // Older servers send it as text.
            Value::String(text) => serde_json::from_str(text).is_ok_and(|meta: Value| truthy(&meta[name])),
            meta => truthy(&meta[name]),
        }
    }

    /// What the server tells of a link.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name)?.as_str()
    }
}

/// Databases without a type for it give 1 and 0.
fn truthy(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_i64().is_some_and(|number| number != 0))
}

impl Http {
    /// The base that has this title or id.
    pub(super) async fn base(&self, wanted: &str) -> Result<Listed> {
        let doing = format!("looking for base {wanted} at {}", self.host());
        let found: List<Listed> = self.read(&["api", "v2", "meta", "bases"], &[], &doing).await?;
        let titles = found.list.iter().map(|base| base.title.as_str()).collect::<Vec<_>>();
        match named(&found.list, wanted) {
            Some(base) => Ok(base.clone()),
            None => {
                let error =
                    Error::new(Kind::Unsuitable, doing, "there is no such base that the token's user sees");
                Err(error.help(nearest("base", wanted, &titles)))
            }
        }
    }

    /// The tables of a base, without those that only hold links.
    pub(super) async fn tables(&self, base: &str) -> Result<Vec<Listed>> {
        let path = ["api", "v2", "meta", "bases", base, "tables"];
        let found: List<Listed> = self.read(&path, &[], "listing the tables").await?;
        Ok(found.list.into_iter().filter(|table| !truthy(&table.junction)).collect())
    }

    /// A table with its columns.
    pub(super) async fn described(&self, table: &str) -> Result<Described> {
        let doing = format!("reading the columns of table {table}");
        self.read(&["api", "v2", "meta", "tables", table], &[], &doing).await
    }

    /// The server's version, where it tells it.
    pub(super) async fn version(&self) -> Result<Option<String>> {
        let said: Value = self.read(&["api", "v1", "version"], &[], "asking for the version").await?;
        let version = ["currentVersion", "releaseVersion"].iter().find_map(|name| said[*name].as_str());
        Ok(version.map(str::to_owned))
    }
}

/// The one with this id, or else with this title.
pub(super) fn named<'a>(list: &'a [Listed], wanted: &str) -> Option<&'a Listed> {
    list.iter().find(|one| one.id == wanted).or_else(|| list.iter().find(|one| one.title == wanted))
}

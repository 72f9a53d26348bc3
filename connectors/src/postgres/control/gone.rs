//! Collections that are gone at their source after they were copied, and what a person says of their rows.
//!
//! **Invariant**: no row goes because its collection is gone before a person has said so, or the source is configured to be followed.

use tokio_postgres::Row;

use super::Control;
use super::doing::Doing as _;
use super::ledger::Incident;
use crate::error::Result;
use crate::postgres::target::statements::quote;

/// What a person says of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// They stay.
    Keep,
    /// They go, as the collection went.
    Follow,
}

impl Word {
    /// As it is stored.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Follow => "follow",
        }
    }
}

/// A collection that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneRow {
    /// Its name in the migration file.
    pub collection: String,
    /// What happened.
    pub text: String,
    /// Since when, milliseconds since 1970.
    pub since: i64,
    /// What a person said.
    pub word: Option<Word>,
}

impl Control {
    /// Collections that are gone.
    pub async fn gone(&self, migration: &str) -> Result<Vec<GoneRow>> {
        let sql = "SELECT collection, text, (extract(epoch FROM since) * 1000)::bigint, word \
                   FROM slackwater.gone WHERE migration = $1 ORDER BY 1";
        self.rows("reading which collections are gone", sql, &[&migration], |row: &Row| {
            let word: Option<String> = row.try_get(3)?;
            Ok(GoneRow {
                collection: row.try_get(0)?,
                text: row.try_get(1)?,
                since: row.try_get(2)?,
                word: word.map(|word| if word == "keep" { Word::Keep } else { Word::Follow }),
            })
        })
        .await
    }

    /// Whether any of these tables holds a row.
    pub async fn has_rows(&self, tables: &[(String, String)]) -> Result<bool> {
        let doing = "looking whether rows are there";
        for (schema, table) in tables {
            let sql = format!("SELECT EXISTS (SELECT FROM {}.{})", quote(schema), quote(table));
            if self.rows(doing, &sql, &[], |row: &Row| row.try_get(0)).await?.contains(&true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes that a collection of our source is gone. What was said of an earlier time does not count any more.
    pub async fn note_gone(&mut self, collection: &str, why: Incident<'_>) -> Result<()> {
        let doing = format!("noting that {collection} is gone");
        let (transaction, migration) = self.owned(&doing).await?;
        let sql = "INSERT INTO slackwater.gone AS g (migration, collection, text) VALUES ($1, $2, $3) \
                   ON CONFLICT (migration, collection) DO UPDATE SET text = EXCLUDED.text, since = now(), word = NULL";
        transaction.execute(sql, &[&migration, &collection, &why.text]).await.doing(&doing)?;
        why.write(&transaction, &migration).await.doing(&doing)?;
        transaction.commit().await.doing(&doing)
    }

    /// Forgets that collections of our source were gone: they are there again, or are followed.
    pub async fn forget_gone(&mut self, collections: &[&str]) -> Result<()> {
        let doing = "noting that collections are not gone any more";
        let (transaction, migration) = self.owned(doing).await?;
        let sql = "DELETE FROM slackwater.gone WHERE migration = $1 AND collection = ANY($2)";
        transaction.execute(sql, &[&migration, &collections]).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// Keeps what a person says of a collection that is gone. False if it is not.
    pub async fn decide_gone(&mut self, migration: &str, collection: &str, word: Word) -> Result<bool> {
        let doing = format!("keeping what becomes of {collection}");
        let sql = "UPDATE slackwater.gone SET word = $3 WHERE migration = $1 AND collection = $2";
        let told = self.client.execute(sql, &[&migration, &collection, &word.word()]).await.doing(&doing)?;
        Ok(told == 1)
    }
}

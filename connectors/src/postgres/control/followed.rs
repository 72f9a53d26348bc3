//! Verification of what changes: how far it is, and what it has found.
//!
//! **Invariant**: how far it is, is one transaction with what was found on the way there. A finding goes when its document, or its row, was
//! looked at again.

use slackwater_topics::Moment;
use tokio_postgres::Row;

use super::Control;
use super::doing::Doing as _;
use super::proofs::FindingRow;
use crate::error::Result;
use crate::postgres::progress::count_of;

/// How far the changes of a collection were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedRow {
    /// The collection, as the migration file names it.
    pub collection: String,
    /// Its source.
    pub source: String,
    /// The mapping with which they were looked at.
    pub mapping: String,
    /// Everything through here was looked at.
    pub through: Moment,
    /// When that was the source's present, milliseconds since 1970, by the target's clock.
    pub through_at: i64,
    /// A verification of everything has begun since the first change that was looked at, and has ended: together they are of all documents.
    pub based: bool,
    /// Documents that were looked at.
    pub documents: u64,
}

/// What was looked at on the way to a moment.
#[derive(Debug, Default)]
pub struct Looked {
    /// Documents, by their collection and key.
    pub documents: Vec<(String, Vec<u8>)>,
    /// Rows of several documents, by their table and key.
    pub rows: Vec<((String, String), Vec<String>)>,
    /// What was found of them.
    pub found: Vec<FindingRow>,
}

impl Looked {
    /// Nothing was.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.rows.is_empty() && self.found.is_empty()
    }
}

impl Control {
    /// What is known of all collections of the migration.
    pub async fn followed(&self, migration: &str) -> Result<Vec<FollowedRow>> {
        let sql = "SELECT f.collection, f.source, f.mapping, f.through, (extract(epoch FROM f.through_at) * 1000)::bigint, \
                   EXISTS (SELECT FROM slackwater.proofs AS p WHERE p.migration = $1 AND p.whole AND p.ended IS NOT NULL \
                           AND p.began > f.since), f.documents \
                   FROM slackwater.followed AS f WHERE f.migration = $1 ORDER BY f.collection";
        let read = |row: &Row| {
            Ok(FollowedRow {
                collection: row.try_get(0)?,
                source: row.try_get(1)?,
                mapping: row.try_get(2)?,
                through: Moment(row.try_get::<_, i64>(3)? as u64),
                through_at: row.try_get(4)?,
                based: row.try_get(5)?,
                documents: count_of(row, 6)?,
            })
        };
        self.rows("reading how far changes are verified", sql, &[&migration], read).await
    }

    /// The changes of these collections are looked at from now on; `through` was the source's present a moment ago.
    pub async fn begin_following(
        &self,
        migration: &str,
        (source, mapping): (&str, &str),
        collections: &[&str],
        through: Moment,
    ) -> Result<()> {
        let sql = "INSERT INTO slackwater.followed (migration, collection, source, mapping, through, through_at) \
                   SELECT $1, c, $2, $3, $5, clock_timestamp() FROM unnest($4::text[]) AS c ORDER BY c \
                   ON CONFLICT (migration, collection) DO UPDATE SET source = EXCLUDED.source, mapping = EXCLUDED.mapping, \
                   since = EXCLUDED.since, through = EXCLUDED.through, through_at = EXCLUDED.through_at, documents = 0";
        let through = through.0 as i64;
        let begun = self.client.execute(sql, &[&migration, &source, &mapping, &collections, &through]).await;
        begun.doing("beginning to verify changes").map(drop)
    }

    /// Nothing is known of these any more.
    pub async fn stop_following(&self, migration: &str, collections: &[&str]) -> Result<()> {
        let sql = "DELETE FROM slackwater.followed WHERE migration = $1 AND collection = ANY($2)";
        let gone = self.client.execute(sql, &[&migration, &collections]).await;
        gone.doing("ending to verify changes").map(drop)
    }

    /// Everything of these collections of a source was looked at through a moment, which was its present `age_ms` ago.
    pub async fn follow_through(
        &mut self,
        migration: &str,
        collections: &[&str],
        (through, age_ms): (Moment, i64),
        looked: &Looked,
    ) -> Result<()> {
        let doing = "keeping how far changes are verified";
        let transaction = self.client.transaction().await.doing(doing)?;
        // What is lost in a crash is looked at again; what was found is found again.
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await.doing(doing)?;
        if !looked.documents.is_empty() {
            let (names, keys): (Vec<&str>, Vec<&[u8]>) =
                looked.documents.iter().map(|(name, key)| (name.as_str(), key.as_slice())).unzip();
            let sql = "DELETE FROM slackwater.late_findings AS f USING unnest($2::text[], $3::bytea[]) AS d(c, k) \
                       WHERE f.migration = $1 AND f.collection = d.c AND f.key = d.k";
            transaction.execute(sql, &[&migration, &names, &keys]).await.doing(doing)?;
            let sql = "DELETE FROM slackwater.findings AS f USING unnest($2::text[], $3::bytea[]) AS d(c, k), slackwater.proofs AS p \
                       WHERE p.id = f.proof AND p.migration = $1 AND f.collection = d.c AND f.key = d.k";
            transaction.execute(sql, &[&migration, &names, &keys]).await.doing(doing)?;
        }
        for ((schema, table), key) in &looked.rows {
            let sql = "DELETE FROM slackwater.late_findings WHERE migration = $1 AND key IS NULL AND schema_name = $2 \
                       AND table_name = $3 AND row_key = $4";
            transaction.execute(sql, &[&migration, schema, table, key]).await.doing(doing)?;
        }
        for FindingRow { kind, collection, key, document, table, row_key, columns, .. } in &looked.found {
            let (schema, table) = table.clone().unzip();
            let sql = "INSERT INTO slackwater.late_findings \
                       (migration, kind, collection, key, document, schema_name, table_name, row_key, columns) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
            let values: [&(dyn postgres_types::ToSql + Sync); 9] =
                [&migration, kind, collection, key, document, &schema, &table, row_key, columns];
            transaction.execute(sql, &values).await.doing(doing)?;
        }
        let (names, counts) = counted(collections, &looked.documents);
        let sql = "UPDATE slackwater.followed AS f SET through = $4, through_at = clock_timestamp() - make_interval(secs => $5::bigint / 1000.0), \
                   documents = f.documents + d.n \
                   FROM unnest($2::text[], $3::bigint[]) AS d(c, n) \
                   WHERE f.migration = $1 AND f.collection = d.c AND f.through <= $4";
        let through = through.0 as i64;
        let kept = transaction.execute(sql, &[&migration, &names, &counts, &through, &age_ms]).await;
        kept.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// What was found of changes and is not mended yet, oldest first.
    pub async fn late_findings(&self, migration: &str, most: i64) -> Result<Vec<FindingRow>> {
        let sql = "SELECT kind, collection, key, document, schema_name, table_name, row_key, columns FROM slackwater.late_findings \
                   WHERE migration = $1 ORDER BY id LIMIT $2";
        self.rows("reading what was found", sql, &[&migration, &most], |row| {
            let table: (Option<String>, Option<String>) = (row.try_get(4)?, row.try_get(5)?);
            Ok(FindingRow {
                kind: row.try_get(0)?,
                explained: None,
                collection: row.try_get(1)?,
                key: row.try_get(2)?,
                document: row.try_get(3)?,
                table: table.0.zip(table.1),
                row_key: row.try_get::<_, Option<_>>(6)?.unwrap_or_default(),
                columns: row.try_get::<_, Option<_>>(7)?.unwrap_or_default(),
            })
        })
        .await
    }
}

/// How many documents of each collection were looked at.
fn counted<'c>(collections: &[&'c str], documents: &[(String, Vec<u8>)]) -> (Vec<&'c str>, Vec<i64>) {
    let count = |name: &&str| documents.iter().filter(|(of, _)| of == name).count() as i64;
    (collections.to_vec(), collections.iter().map(count).collect())
}

//! Verifications: what is to be read, what is suspected, what was found.
//!
//! **Invariant**: a range is done only together with all suspects that it has. What is settled of suspects is one transaction with what
//! was found of them. So a verification that is cut off goes on where it was, and finds everything once.

use bytes::Bytes;
use slackwater_topics::{Bound, Range};
use tokio_postgres::{Row, Transaction};

use super::Control;
use super::doing::Doing as _;
use crate::error::{Error, Kind, Result};
use crate::postgres::progress::{Answer, count_of};
use crate::postgres::target::compare::drop_lists;

/// Advisory locks of verifications at work, and of those that somebody waits for.
const LOCK: i32 = 1_398_206_261;
const WANTED: i32 = 1_398_206_262;

/// A verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofRow {
    /// Its number.
    pub id: i64,
    /// What it is about.
    pub scope: String,
    /// When it began, milliseconds since 1970.
    pub began: i64,
    /// When it ended, milliseconds since 1970.
    pub ended: Option<i64>,
    /// Whether everything was as it should be.
    pub equal: Option<bool>,
    /// What it said, as JSON.
    pub report: Option<String>,
}

/// What the newest verification of everything says, or the newest of a part where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// When it began: what was acknowledged before is verified. Milliseconds since 1970.
    pub began: i64,
    /// When it ended.
    pub ended: i64,
    /// Everything was as it should be.
    pub equal: bool,
    /// It was of all collections, and of all their documents.
    pub whole: bool,
    /// What was not as it should be, and is explained by nothing; what later ones of a part found counts too.
    pub findings: u64,
}

/// Some documents that are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofRange {
    /// Its number.
    pub id: i32,
    /// The collection, as the migration file names it.
    pub collection: String,
    /// Which.
    pub range: Range,
}

/// How much is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProofCounts {
    /// Collection, ranges, of which are done, documents that were read.
    pub collections: Vec<(String, u64, u64, u64)>,
}

/// A document that has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its number.
    pub id: i64,
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: Vec<u8>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindingRow {
    /// `missing`, `different`, `extra`, `refused` or `unsettled`.
    pub kind: String,
    /// What explains it: `letter`, `waiting` or `lacking`.
    pub explained: Option<String>,
    /// The document's collection.
    pub collection: Option<String>,
    /// The document's key.
    pub key: Option<Vec<u8>>,
    /// The document, for people.
    pub document: Option<String>,
    /// The table, with its schema.
    pub table: Option<(String, String)>,
    /// The row's key, each column as text.
    pub row_key: Vec<String>,
    /// The columns that differ.
    pub columns: Vec<String>,
}

/// How often something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingCount {
    /// As in [`FindingRow`].
    pub kind: String,
    /// Likewise.
    pub explained: Option<String>,
    /// Likewise.
    pub table: Option<(String, String)>,
    /// Likewise.
    pub collection: Option<String>,
    /// How many.
    pub count: u64,
}

const PROOF: &str = "SELECT id, scope, (extract(epoch FROM began) * 1000)::bigint, (extract(epoch FROM ended) * 1000)::bigint, \
    equal, report FROM slackwater.proofs WHERE migration = $1";

fn proof(row: &Row) -> Answer<ProofRow> {
    Ok(ProofRow {
        id: row.try_get(0)?,
        scope: row.try_get(1)?,
        began: row.try_get(2)?,
        ended: row.try_get(3)?,
        equal: row.try_get(4)?,
        report: row.try_get(5)?,
    })
}

fn finding(row: &Row) -> Answer<FindingRow> {
    let table: (Option<String>, Option<String>) = (row.try_get(5)?, row.try_get(6)?);
    Ok(FindingRow {
        kind: row.try_get(0)?,
        explained: row.try_get(1)?,
        collection: row.try_get(2)?,
        key: row.try_get(3)?,
        document: row.try_get(4)?,
        table: table.0.zip(table.1),
        row_key: row.try_get::<_, Option<_>>(7)?.unwrap_or_default(),
        columns: row.try_get::<_, Option<_>>(8)?.unwrap_or_default(),
    })
}

impl Control {
    /// The newest verification; with `ended`, the newest that has ended.
    pub async fn newest_proof(&self, migration: &str, ended: bool) -> Result<Option<ProofRow>> {
        let only = if ended { " AND ended IS NOT NULL" } else { "" };
        let sql = format!("{PROOF}{only} ORDER BY id DESC LIMIT 1");
        Ok(self.rows("reading verifications", &sql, &[&migration], proof).await?.pop())
    }

    /// What is known by verifications. One of a part takes nothing back of what one of everything has found.
    pub async fn verified(&self, migration: &str) -> Result<Option<Verified>> {
        let sql = "SELECT (extract(epoch FROM p.began) * 1000)::bigint, (extract(epoch FROM p.ended) * 1000)::bigint, p.equal, p.whole, \
                   (SELECT count(*) FROM slackwater.findings AS f JOIN slackwater.proofs AS q ON q.id = f.proof \
                    WHERE q.migration = $1 AND q.ended IS NOT NULL AND q.id >= p.id AND f.explained IS NULL AND f.kind <> 'unsettled') \
                   + (SELECT count(*) FROM slackwater.late_findings WHERE migration = $1) \
                   FROM slackwater.proofs AS p WHERE p.migration = $1 AND p.ended IS NOT NULL ORDER BY p.whole DESC, p.id DESC LIMIT 1";
        let read = |row: &Row| {
            Ok(Verified {
                began: row.try_get(0)?,
                ended: row.try_get(1)?,
                equal: row.try_get::<_, Option<bool>>(2)?.unwrap_or(false),
                whole: row.try_get(3)?,
                findings: count_of(row, 4)?,
            })
        };
        Ok(self.rows("reading verifications", sql, &[&migration], read).await?.pop())
    }

    /// Begins a verification. What is left of others goes, except the newest of everything and the newest of a part that have ended.
    pub async fn begin_proof(&self, migration: &str, scope: &str, whole: bool) -> Result<i64> {
        let doing = "beginning a verification";
        let sql = "SELECT id FROM slackwater.proofs WHERE migration = $1 AND id NOT IN \
                   (SELECT max(id) FROM slackwater.proofs WHERE migration = $1 AND ended IS NOT NULL GROUP BY whole)";
        for id in self.rows(doing, sql, &[&migration], |row| row.try_get::<_, i64>(0)).await? {
            self.drop_proof_lists(id).await?;
            self.client.execute("DELETE FROM slackwater.proofs WHERE id = $1", &[&id]).await.doing(doing)?;
        }
        let sql = "INSERT INTO slackwater.proofs (migration, scope, whole) VALUES ($1, $2, $3) RETURNING id";
        let made = self.rows(doing, sql, &[&migration, &scope, &whole], |row| row.try_get(0)).await?;
        made.first().copied().ok_or_else(|| Error::new(Kind::Bug, doing, "it has got no number"))
    }

    /// Holds the migration's verifications as long as this connection lives; false if another process does.
    pub async fn hold_proofs(&self, migration: &str) -> Result<bool> {
        let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        let held =
            self.rows("holding a verification", sql, &[&LOCK, &migration], |row| row.try_get(0)).await?;
        Ok(held.first() == Some(&true))
    }

    /// Says, as long as this connection lives, that somebody waits for a verification.
    pub async fn want_proof(&self, migration: &str) -> Result<()> {
        let sql = "SELECT pg_try_advisory_lock_shared($1, hashtext($2))";
        let said = self.client.execute(sql, &[&WANTED, &migration]).await;
        said.doing("asking for a verification").map(drop)
    }

    /// Whether somebody does.
    pub async fn is_proof_wanted(&self, migration: &str) -> Result<bool> {
        let sql = "SELECT NOT pg_try_advisory_xact_lock($1, hashtext($2))";
        let wanted =
            self.rows("looking who verifies", sql, &[&WANTED, &migration], |row| row.try_get(0)).await?;
        Ok(wanted.first() == Some(&true))
    }

    /// It has ended. One of everything has looked at all that was found of changes before.
    pub async fn end_proof(&self, id: i64, equal: bool, report: &str) -> Result<()> {
        let doing = "ending a verification";
        let sql = "WITH old AS (DELETE FROM slackwater.late_findings AS f USING slackwater.proofs AS p \
                   WHERE p.id = $1 AND p.whole AND f.migration = p.migration AND f.found_at < p.began) \
                   UPDATE slackwater.proofs SET ended = now(), equal = $2, report = $3 WHERE id = $1";
        // What it says would be said of nothing.
        if self.client.execute(sql, &[&id, &equal, &report]).await.doing(doing)? == 0 {
            return Err(Error::new(Kind::Fenced, doing, "another one has begun meanwhile"));
        }
        self.drop_proof_lists(id).await
    }

    async fn drop_proof_lists(&self, id: i64) -> Result<()> {
        let doing = "removing the lists of a verification";
        let sql = "SELECT relname::text FROM pg_catalog.pg_class WHERE relnamespace = 'slackwater'::regnamespace \
                   AND relkind = 'r' AND starts_with(relname::text, $1)";
        let names: Vec<String> =
            self.rows(doing, sql, &[&format!("proof_{id}_")], |row| row.try_get(0)).await?;
        // A transaction locks only so many tables.
        for names in names.chunks(50) {
            self.client.batch_execute(&drop_lists(names)).await.doing(doing)?;
        }
        Ok(())
    }

    /// The ranges to read of a collection.
    pub async fn add_proof_ranges(&self, id: i64, collection: &str, ranges: &[Range]) -> Result<()> {
        let bound = |bound: &Option<Bound>| bound.as_ref().map(|bound| bound.as_bytes().to_vec());
        let lows: Vec<_> = ranges.iter().map(|range| bound(&range.lo)).collect();
        let highs: Vec<_> = ranges.iter().map(|range| bound(&range.hi)).collect();
        let sql = "INSERT INTO slackwater.proof_ranges (proof, id, collection, lo, hi) \
                   SELECT $1, (SELECT count(*) FROM slackwater.proof_ranges WHERE proof = $1) + r.n, $2, r.lo, r.hi \
                   FROM unnest($3::bytea[], $4::bytea[]) WITH ORDINALITY AS r(lo, hi, n)";
        let added = self.client.execute(sql, &[&id, &collection, &lows, &highs]).await;
        added.doing("planning a verification").map(drop)
    }

    /// The ranges that are not read yet; with `all`, all of them.
    pub async fn proof_ranges(&self, id: i64, all: bool) -> Result<Vec<ProofRange>> {
        let doing = "reading what is to be verified";
        let sql = "SELECT id, collection, CASE WHEN $2 THEN lo ELSE coalesce(read_to, lo) END, hi FROM slackwater.proof_ranges \
                   WHERE proof = $1 AND ($2 OR NOT done) ORDER BY id";
        let rows = self
            .rows(doing, sql, &[&id, &all], |row| {
                let bounds: (Option<Vec<u8>>, Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
                Ok((row.try_get(0)?, row.try_get(1)?, bounds))
            })
            .await?;
        let bound =
            |bytes: Option<Vec<u8>>| bytes.map(|bytes| Bound::from_bytes(Bytes::from(bytes))).transpose();
        rows.into_iter()
            .map(|(id, collection, (lo, hi))| {
                let broken = |_| Error::new(Kind::Bug, doing, "a bound that cannot be read");
                let range = Range { lo: bound(lo).map_err(broken)?, hi: bound(hi).map_err(broken)? };
                Ok(ProofRange { id, collection, range })
            })
            .collect()
    }

    /// How much is read.
    pub async fn proof_counts(&self, id: i64) -> Result<ProofCounts> {
        let sql = "SELECT collection, count(*), count(*) FILTER (WHERE done), sum(documents)::bigint \
                   FROM slackwater.proof_ranges WHERE proof = $1 GROUP BY 1 ORDER BY min(id)";
        let collections = self
            .rows("reading what is verified", sql, &[&id], |row| {
                Ok((row.try_get(0)?, count_of(row, 1)?, count_of(row, 2)?, count_of(row, 3)?))
            })
            .await?;
        Ok(ProofCounts { collections })
    }

    /// Some of a range is read: its suspects, the rows that were compared by table, and what is left of it.
    pub async fn proof_read(
        &mut self,
        id: i64,
        range: &ProofRange,
        (documents, suspects): (u64, &[Vec<u8>]),
        tables: &[((String, String), u64)],
        rest: Option<&Range>,
    ) -> Result<()> {
        let doing = "keeping what was verified";
        let transaction = self.client.transaction().await.doing(doing)?;
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await.doing(doing)?;
        if !suspects.is_empty() {
            let sql = "INSERT INTO slackwater.suspects (proof, collection, key) SELECT $1, $2, k FROM unnest($3::bytea[]) AS k";
            transaction.execute(sql, &[&id, &range.collection, &suspects]).await.doing(doing)?;
        }
        let lo = rest.and_then(|rest| rest.lo.as_ref()).map(|lo| lo.as_bytes().to_vec());
        let sql = "UPDATE slackwater.proof_ranges SET documents = documents + $3, done = $4, read_to = $5 \
                   WHERE proof = $1 AND id = $2";
        let (documents, done) = (documents as i64, rest.is_none());
        transaction.execute(sql, &[&id, &range.id, &documents, &done, &lo]).await.doing(doing)?;
        let schemas: Vec<&str> = tables.iter().map(|((schema, _), _)| schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|((_, name), _)| name.as_str()).collect();
        let rows: Vec<i64> = tables.iter().map(|(_, rows)| *rows as i64).collect();
        let sql = "INSERT INTO slackwater.proof_tables AS p (proof, schema_name, table_name, rows) \
                   SELECT $1, t.s, t.n, sum(t.r) FROM unnest($2::text[], $3::text[], $4::bigint[]) AS t(s, n, r) GROUP BY 2, 3 ORDER BY 2, 3 \
                   ON CONFLICT (proof, schema_name, table_name) DO UPDATE SET rows = p.rows + EXCLUDED.rows";
        transaction.execute(sql, &[&id, &schemas, &names, &rows]).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// Rows that were compared, by table.
    pub async fn proof_tables(&self, id: i64) -> Result<Vec<((String, String), u64)>> {
        let sql = "SELECT schema_name, table_name, rows FROM slackwater.proof_tables WHERE proof = $1 ORDER BY 1, 2";
        let read = |row: &Row| Ok(((row.try_get(0)?, row.try_get(1)?), count_of(row, 2)?));
        self.rows("reading what is verified", sql, &[&id], read).await
    }

    /// Some suspects of one collection.
    pub async fn suspects(&self, id: i64, most: i64) -> Result<Vec<Suspect>> {
        let sql = "SELECT id, collection, key FROM slackwater.suspects WHERE proof = $1 AND collection = \
                   (SELECT collection FROM slackwater.suspects WHERE proof = $1 ORDER BY id LIMIT 1) ORDER BY id LIMIT $2";
        let read = |row: &Row| {
            Ok(Suspect { id: row.try_get(0)?, collection: row.try_get(1)?, key: row.try_get(2)? })
        };
        self.rows("reading suspects", sql, &[&id, &most], read).await
    }

    /// How many suspects there are.
    pub async fn suspect_count(&self, id: i64) -> Result<u64> {
        let sql = "SELECT count(*) FROM slackwater.suspects WHERE proof = $1";
        let counts = self.rows("counting suspects", sql, &[&id], |row| count_of(row, 0)).await?;
        Ok(counts.first().copied().unwrap_or(0))
    }

    /// These suspects are settled, and this was found of them.
    pub async fn settle_suspects(&mut self, id: i64, settled: &[i64], found: &[FindingRow]) -> Result<()> {
        let doing = "keeping what was found";
        let transaction = self.client.transaction().await.doing(doing)?;
        let sql = "DELETE FROM slackwater.suspects WHERE proof = $1 AND id = ANY($2)";
        transaction.execute(sql, &[&id, &settled]).await.doing(doing)?;
        keep(&transaction, id, found).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// These documents have dead letters. One that was counted before is counted once.
    pub async fn keep_letters(&mut self, id: i64, found: &[FindingRow]) -> Result<()> {
        let doing = "keeping what was found";
        let transaction = self.client.transaction().await.doing(doing)?;
        let (collections, keys): (Vec<_>, Vec<_>) =
            found.iter().map(|row| (row.collection.as_deref(), row.key.as_deref())).unzip();
        let sql = "DELETE FROM slackwater.findings WHERE proof = $1 AND kind = 'refused' AND explained = 'letter' \
                   AND (collection, key) IN (SELECT c, k FROM unnest($2::text[], $3::bytea[]) AS t(c, k))";
        transaction.execute(sql, &[&id, &collections, &keys]).await.doing(doing)?;
        keep(&transaction, id, found).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// All that was found of a table whose rows are made of several documents, and how many rows were compared.
    pub async fn keep_made(
        &mut self,
        id: i64,
        (schema, table): &(String, String),
        rows: u64,
        found: &[FindingRow],
    ) -> Result<()> {
        let doing = "keeping what was found";
        let transaction = self.client.transaction().await.doing(doing)?;
        // Of its parts something may have been found before; that names a document.
        let sql = "DELETE FROM slackwater.findings WHERE proof = $1 AND schema_name = $2 AND table_name = $3 AND key IS NULL";
        transaction.execute(sql, &[&id, schema, table]).await.doing(doing)?;
        let sql = "INSERT INTO slackwater.proof_tables (proof, schema_name, table_name, rows) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (proof, schema_name, table_name) DO UPDATE SET rows = EXCLUDED.rows";
        transaction.execute(sql, &[&id, schema, table, &(rows as i64)]).await.doing(doing)?;
        keep(&transaction, id, found).await.doing(doing)?;
        transaction.commit().await.doing(doing)
    }

    /// Forgets findings of these tables: they are looked for again.
    pub async fn forget_findings(&self, id: i64, kind: &str, tables: &[(String, String)]) -> Result<()> {
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
        let sql = "DELETE FROM slackwater.findings WHERE proof = $1 AND kind = $2 AND (schema_name, table_name) IN \
                   (SELECT s, n FROM unnest($3::text[], $4::text[]) AS t(s, n))";
        let gone = self.client.execute(sql, &[&id, &kind, &schemas, &names]).await;
        gone.doing("keeping what was found").map(drop)
    }

    /// What was found, in the order in which it was found.
    pub async fn findings(
        &self,
        id: i64,
        explained: bool,
        after: i64,
        most: i64,
    ) -> Result<Vec<(i64, FindingRow)>> {
        let sql = "SELECT kind, explained, collection, key, document, schema_name, table_name, row_key, columns, id \
                   FROM slackwater.findings WHERE proof = $1 AND (explained IS NOT NULL) = $2 AND id > $3 ORDER BY id LIMIT $4";
        let read = |row: &Row| Ok((row.try_get(9)?, finding(row)?));
        self.rows("reading what was found", sql, &[&id, &explained, &after, &most], read).await
    }

    /// How often what was found.
    pub async fn finding_counts(&self, id: i64) -> Result<Vec<FindingCount>> {
        let sql = "SELECT kind, explained, schema_name, table_name, collection, count(*) FROM slackwater.findings \
                   WHERE proof = $1 GROUP BY 1, 2, 3, 4, 5 ORDER BY 3, 4, 1, 2, 5";
        self.rows("counting what was found", sql, &[&id], |row| {
            let table: (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
            Ok(FindingCount {
                kind: row.try_get(0)?,
                explained: row.try_get(1)?,
                table: table.0.zip(table.1),
                collection: row.try_get(4)?,
                count: count_of(row, 5)?,
            })
        })
        .await
    }
}

/// Writes what was found, in the transaction that settles it.
async fn keep(transaction: &Transaction<'_>, id: i64, found: &[FindingRow]) -> Answer<()> {
    if found.is_empty() {
        return Ok(());
    }
    let sql = transaction
        .prepare(
            "INSERT INTO slackwater.findings \
             (proof, kind, explained, collection, key, document, schema_name, table_name, row_key, columns) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .await?;
    for finding in found {
        let FindingRow { kind, explained, collection, key, document, row_key, columns, .. } = finding;
        let (schema, table) = finding.table.clone().unzip();
        let values: [&(dyn postgres_types::ToSql + Sync); 10] =
            [&id, kind, explained, collection, key, document, &schema, &table, row_key, columns];
        transaction.execute(&sql, &values).await?;
    }
    Ok(())
}

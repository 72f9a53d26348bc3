//! Numbers of sequences: taken when they are first asked for, and found again from then on. See [`Series`].

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::{BEGIN, COMMIT, ROLLBACK, Sink};
use crate::error::{Kind, Result};
use crate::postgres::error::explain;
use crate::postgres::target::serial::Series;

const FIND: &str = "
WITH made AS (INSERT INTO slackwater.series (migration, schema_name, table_name, column_name) VALUES ($1, $2, $3, $4)
              ON CONFLICT DO NOTHING RETURNING id)
SELECT id FROM made UNION ALL
SELECT id FROM slackwater.series WHERE migration = $1 AND schema_name = $2 AND table_name = $3 AND column_name = $4";

/// The numbers that ids have.
const LOOK: &str = "
SELECT n.id::text, n.number FROM slackwater.numbers AS n
WHERE n.series = $1 AND n.id IN (SELECT i::uuid FROM unnest($2::text[]) AS i)";

/// The numbers of some ids.
#[derive(Debug, Default)]
pub struct Taken {
    /// By id.
    pub numbers: HashMap<Uuid, i64>,
    /// Why the others have none, if the target gives none for them.
    pub refused: Option<String>,
}

impl Sink {
    /// The numbers of these ids; new ones are taken for those that have none, as long as the sequence has some left.
    pub async fn numbers(&mut self, series: &Series, ids: &[Uuid]) -> Result<Taken> {
        let fail = |error: tokio_postgres::Error| explain(doing(series), &error);
        self.tidy().await?;
        let texts: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        let take = take(series);
        let mut taken = Taken::default();
        // What another lane takes at the same moment is seen by the next look only.
        while taken.numbers.len() < ids.len() {
            let last = taken.refused.is_some();
            let rows = match self.ask(series, if last { LOOK } else { &take }, &texts).await {
                // Others may have been given one before.
                Err(error) if error.kind == Kind::Data && !last => {
                    taken.refused = Some(error.what);
                    continue;
                }
                rows => rows?,
            };
            for row in rows {
                let id: String = row.try_get(0).map_err(fail)?;
                if let Ok(id) = Uuid::parse_str(&id) {
                    taken.numbers.insert(id, row.try_get(1).map_err(fail)?);
                }
            }
            if last {
                break;
            }
        }
        Ok(taken)
    }

    /// Not in the transaction of the rows: another lane may need the same number before that is committed.
    async fn ask(&mut self, series: &Series, sql: &str, ids: &[String]) -> Result<Vec<Row>> {
        let fail = |error: tokio_postgres::Error| explain(doing(series), &error);
        let client = &self.client;
        self.dirty = true;
        client.batch_execute(BEGIN).await.map_err(fail)?;
        let asked = async {
            let named: [&(dyn postgres_types::ToSql + Sync); 4] =
                [&self.migration, &series.schema, &series.table, &series.column];
            let Some(row) = client.query_opt(FIND, &named).await? else { return Ok(Vec::new()) };
            let number: i32 = row.try_get(0)?;
            client.query(sql, &[&number, &ids]).await
        };
        let rows = asked.await;
        let ended = if rows.is_ok() { COMMIT } else { ROLLBACK };
        let end = client.batch_execute(ended).await;
        let rows = rows.map_err(fail)?;
        end.map_err(fail)?;
        self.dirty = false;
        Ok(rows)
    }
}

fn doing(series: &Series) -> String {
    format!("taking numbers for {}.{}", series.schema, series.table)
}

/// The numbers of ids; those that have none get one. In one order, so that two lanes do not deadlock. Not more than the sequence has left: a statement
/// that fails has used up what it took. One at least, so that the sequence itself says that there is none;
/// and one where nothing was taken yet, because nobody shows us where it begins.
fn take(series: &Series) -> String {
    let limit = series.sequence().map_or(String::new(), |sequence| {
        format!(
            "LIMIT (SELECT greatest(1, least(2147483647,
                        trunc((CASE WHEN s.seqincrement > 0 THEN s.seqmax ELSE s.seqmin END::numeric - l.last) / s.seqincrement),
                        CASE WHEN l.last IS NULL AND has_sequence_privilege(s.seqrelid, 'USAGE, SELECT') THEN 1 END))::bigint
                    FROM pg_catalog.pg_sequence AS s, pg_catalog.pg_sequence_last_value(s.seqrelid) AS l(last)
                    WHERE s.seqrelid = {sequence})"
        )
    });
    format!(
        "WITH wanted AS (SELECT DISTINCT i::uuid AS id FROM unnest($2::text[]) AS i),
              made AS (INSERT INTO slackwater.numbers (series, id, number)
                       SELECT $1, w.id, {} FROM wanted AS w
                       WHERE NOT EXISTS (SELECT FROM slackwater.numbers AS n WHERE n.series = $1 AND n.id = w.id)
                       ORDER BY w.id {limit} ON CONFLICT DO NOTHING RETURNING id, number)
         SELECT id::text, number FROM made UNION ALL
         SELECT n.id::text, n.number FROM slackwater.numbers AS n JOIN wanted AS w ON w.id = n.id WHERE n.series = $1",
        series.next
    )
}

//! Numbers of sequences: taken when they are first asked for, and found again from then on. See [`Series`].

use std::collections::HashMap;

use uuid::Uuid;

use super::{BEGIN, COMMIT, ROLLBACK, Sink};
use crate::error::Result;
use crate::postgres::error::explain;
use crate::postgres::target::serial::Series;

const FIND: &str = "
WITH made AS (INSERT INTO slackwater.series (migration, schema_name, table_name, column_name) VALUES ($1, $2, $3, $4)
              ON CONFLICT DO NOTHING RETURNING id)
SELECT id FROM made UNION ALL
SELECT id FROM slackwater.series WHERE migration = $1 AND schema_name = $2 AND table_name = $3 AND column_name = $4";

impl Sink {
    /// The numbers of these ids; new ones are taken for those that have none.
    pub async fn numbers(&mut self, series: &Series, ids: &[Uuid]) -> Result<HashMap<Uuid, i64>> {
        let doing = || format!("taking numbers for {}.{}", series.schema, series.table);
        let fail = |error: tokio_postgres::Error| explain(doing(), &error);
        self.tidy().await?;
        let (migration, client) = (&self.migration, &self.client);
        let texts: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        // In one order, so that two lanes do not deadlock. Not in the transaction of the rows: another lane may need the same number before that is committed.
        let take = format!(
            "WITH wanted AS (SELECT DISTINCT i::uuid AS id FROM unnest($2::text[]) AS i),
                  made AS (INSERT INTO slackwater.numbers (series, id, number)
                           SELECT $1, w.id, {} FROM wanted AS w
                           WHERE NOT EXISTS (SELECT FROM slackwater.numbers AS n WHERE n.series = $1 AND n.id = w.id)
                           ORDER BY w.id ON CONFLICT DO NOTHING RETURNING id, number)
             SELECT id::text, number FROM made UNION ALL
             SELECT n.id::text, n.number FROM slackwater.numbers AS n JOIN wanted AS w ON w.id = n.id WHERE n.series = $1",
            series.next
        );
        let mut found = HashMap::new();
        // What another lane takes at the same moment is seen by the next look only.
        while found.len() < ids.len() {
            self.dirty = true;
            client.batch_execute(BEGIN).await.map_err(fail)?;
            let asked = async {
                let named: [&(dyn postgres_types::ToSql + Sync); 4] =
                    [migration, &series.schema, &series.table, &series.column];
                let Some(row) = client.query_opt(FIND, &named).await? else { return Ok(Vec::new()) };
                let number: i32 = row.try_get(0)?;
                client.query(&take, &[&number, &texts]).await
            };
            let rows = asked.await;
            let ended = if rows.is_ok() { COMMIT } else { ROLLBACK };
            let end = client.batch_execute(ended).await;
            let rows = rows.map_err(fail)?;
            end.map_err(fail)?;
            self.dirty = false;
            for row in rows {
                let id: String = row.try_get(0).map_err(fail)?;
                if let Ok(id) = Uuid::parse_str(&id) {
                    found.insert(id, row.try_get(1).map_err(fail)?);
                }
            }
        }
        Ok(found)
    }
}

//! What waits for rows that are not there: `docs/design/references.md`. Sinks write it; this module reads it.

use super::Control;
use crate::error::Result;
use crate::postgres::progress::count_of;

/// Rows that wait for rows of one other table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRows {
    /// The table of the rows that wait, with its schema.
    pub table: String,
    /// The foreign key.
    pub constraint: String,
    /// The table that they refer to, with its schema.
    pub wanted_table: String,
    /// They wait for a value that another row of the same table has; the foreign key is then a unique index or an exclusion
    /// constraint.
    pub unique: bool,
    /// They block the switch.
    pub blocks: bool,
    /// How many rows; no more than [`WaitingRows::MOST`] are counted.
    pub count: u64,
    /// How many of them are not in their table meanwhile.
    pub held: u64,
    /// The first of them: the key of the row, and the key that it wants or the key of the row in its way. Empty where what it wants
    /// is not a key: values are shown to nobody.
    pub examples: Vec<(String, String)>,
    /// How long the first of them has waited.
    pub age_ms: i64,
}

impl WaitingRows {
    /// Counting ends here.
    pub const MOST: u64 = 100_000;

    /// The first example, in words.
    pub fn example(&self) -> Option<String> {
        let (key, other) = self.examples.first()?;
        Some(match (other.is_empty(), self.unique) {
            (true, _) => key.clone(),
            (false, true) => format!("{key} beside {other}"),
            (false, false) => format!("{key} for {other}"),
        })
    }
}

const WAITING: &str = "
SELECT d.schema_name || '.' || d.table_name, d.constraint_name, d.to_schema || '.' || d.to_table, d.blocks,
       n.count, n.held, first.keys, first.wanted, n.age_ms, d.kind = 'unique'
FROM slackwater.watched AS d
CROSS JOIN LATERAL (
    SELECT count(*) AS count, count(*) FILTER (WHERE w.held) AS held,
           coalesce(extract(epoch FROM now() - min(w.since)) * 1000, 0)::bigint AS age_ms
    FROM (SELECT f.relation, f.key FROM slackwater.waiting_for AS f WHERE f.reference = d.id LIMIT $2) AS f
    JOIN slackwater.waiting_rows AS w USING (relation, key)
) AS n
CROSS JOIN LATERAL (
    SELECT array_agg(array_to_string(f.key, ', ')) AS keys,
           array_agg(coalesce(array_to_string(CASE WHEN d.kind = 'unique' THEN f.beside WHEN d.by_key THEN f.wanted END, ', '), '')) AS wanted
    FROM (SELECT f.key, f.wanted, f.beside FROM slackwater.waiting_for AS f WHERE f.reference = d.id
          ORDER BY f.wanted, f.relation, f.key LIMIT 3) AS f
) AS first
WHERE d.migration = $1 AND n.count > 0
ORDER BY 1, 2";

/// Rows that are not there because of a look-up: the column and the collection stand in the places of the foreign key and its table.
const LACKING: &str = "
SELECT l.schema_name || '.' || l.table_name, l.column_name, l.wanted_in, true, count(*), count(*),
       (array_agg(array_to_string(l.key, ', ') ORDER BY l.key))[:3], ARRAY['', '', ''],
       coalesce(extract(epoch FROM now() - min(l.since)) * 1000, 0)::bigint, false
FROM slackwater.lacking AS l WHERE l.migration = $1 GROUP BY l.schema_name, l.table_name, l.column_name, l.wanted_in
HAVING $2::bigint > 0 ORDER BY 1, 2";

impl Control {
    /// What waits: by foreign key, and by look-up.
    pub async fn waiting(&self, migration: &str) -> Result<Vec<WaitingRows>> {
        let mut rows = self.waiting_by(WAITING, migration).await?;
        rows.extend(self.waiting_by(LACKING, migration).await?);
        Ok(rows)
    }

    async fn waiting_by(&self, sql: &str, migration: &str) -> Result<Vec<WaitingRows>> {
        self.rows("reading what waits", sql, &[&migration, &(WaitingRows::MOST as i64)], |row| {
            let (keys, wanted): (Vec<String>, Vec<String>) = (row.try_get(6)?, row.try_get(7)?);
            Ok(WaitingRows {
                table: row.try_get(0)?,
                constraint: row.try_get(1)?,
                wanted_table: row.try_get(2)?,
                blocks: row.try_get(3)?,
                count: count_of(row, 4)?,
                held: count_of(row, 5)?,
                examples: keys.into_iter().zip(wanted).collect(),
                age_ms: row.try_get(8)?,
                unique: row.try_get(9)?,
            })
        })
        .await
    }
}

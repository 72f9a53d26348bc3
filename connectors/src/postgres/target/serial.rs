//! Keys that the database hands out: numbers of sequences.
//!
//! A document's number is taken from the column's own sequence when the document, or a reference to it, is first seen, and is kept in
//! `slackwater.numbers` under the document's id. From then on it is a function of the id, as a UUID is: references, deletes and
//! replays find it again, in whatever order documents come.
//!
//! **Crash**: a number that was taken and kept is found by the next try. One that was taken and not kept leaves a gap in the sequence.

use crate::error::{Kind, Result};
use crate::postgres::client::connect;
use crate::postgres::error::explain;
use crate::postgres::target::statements::{qualified, quote};
use crate::secret::Secret;

/// A column whose numbers come from a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Schema and table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The SQL that takes the next number.
    pub next: String,
}

impl Series {
    /// The sequence, as an expression of SQL; none where more is made of its numbers.
    pub(super) fn sequence(&self) -> Option<&str> {
        self.name().map(|_| &self.next["nextval(".len()..self.next.len() - 1])
    }

    /// The sequence's name, as SQL.
    fn name(&self) -> Option<String> {
        let name = self.next.strip_prefix("nextval('")?.strip_suffix("'::regclass)")?;
        let name = name.replace("''", "\0");
        // A quote within a name is doubled; any other ends it, and this is another expression.
        (!name.contains('\'')).then(|| name.replace('\0', "'"))
    }
}

/// Those of the series (by place in the list) whose sequence is going to give numbers that rows of the table may have already: the rows
/// of documents would take the place of those. Each with the statement that moves the sequence past them.
pub async fn behind(url: &Secret, all: &[&Series]) -> Result<Vec<(usize, String)>> {
    let (client, task) = connect(url).await?;
    let set = client.batch_execute("SET lock_timeout = '2s'").await;
    set.map_err(|error| explain("preparing to look at sequences", &error))?;
    let mut behind = Vec::new();
    for (place, series) in all.iter().enumerate() {
        let (Some(sequence), Some(name)) = (series.sequence(), series.name()) else { continue };
        let fail = |error: tokio_postgres::Error| {
            explain(format!("comparing {}.{} with its sequence", series.schema, series.table), &error)
        };
        // Who may only take numbers is not shown where a sequence begins that was moved and not used since.
        let readable = format!("SELECT has_sequence_privilege({sequence}::oid, 'SELECT')");
        let readable: bool =
            client.query_one(&readable, &[]).await.and_then(|row| row.try_get(0)).map_err(fail)?;
        let at = match readable {
            true => format!("SELECT last_value, is_called FROM {name}"),
            false => format!(
                "SELECT coalesce(l.last, s.seqstart), l.last IS NOT NULL
                 FROM pg_catalog.pg_sequence AS s, pg_catalog.pg_sequence_last_value(s.seqrelid) AS l(last)
                 WHERE s.seqrelid = {sequence}"
            ),
        };
        let (table, column) = (qualified(&series.schema, &series.table), quote(&series.column));
        let sql = format!(
            "SELECT s.seqincrement, at.last, at.called, (SELECT min({column}) FROM {table})::bigint, (SELECT max({column}) FROM {table})::bigint
             FROM pg_catalog.pg_sequence AS s, ({at}) AS at(last, called) WHERE s.seqrelid = {sequence}"
        );
        let row = match client.query_opt(&sql, &[]).await.map_err(fail) {
            // Somebody has locked the table: what is in it is seen at the next start.
            Err(error) if error.kind == Kind::Contention => continue,
            row => row?,
        };
        let Some(row) = row else { continue };
        let get = |at: usize| row.try_get::<_, Option<i64>>(at).map_err(fail);
        let (Some(step), Some(last), Some(least), Some(most)) = (get(0)?, get(1)?, get(3)?, get(4)?) else {
            continue;
        };
        if meets(step, last, row.try_get(2).map_err(fail)?, (least, most)) {
            let end = if step > 0 { "max" } else { "min" };
            behind.push((place, format!("SELECT setval({sequence}, (SELECT {end}({column}) FROM {table}))")));
        }
    }
    drop(client);
    task.abort();
    Ok(behind)
}

/// Whether a sequence is still going to give numbers between these two.
fn meets(step: i64, last: i64, called: bool, (least, most): (i64, i64)) -> bool {
    let next = if called { last.saturating_add(step) } else { last };
    if step > 0 {
        most >= next && (most > last || !called)
    } else {
        least <= next && (least < last || !called)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_told_from_expressions() {
        let sequence = |next: &str| {
            let text = String::new;
            let series = Series { schema: text(), table: text(), column: text(), next: next.to_owned() };
            series.sequence().map(str::to_owned)
        };
        assert_eq!(sequence("nextval('a_id_seq'::regclass)").as_deref(), Some("'a_id_seq'::regclass"));
        assert_eq!(sequence("nextval('s.\"o''k\"'::regclass)").as_deref(), Some("'s.\"o''k\"'::regclass"));
        assert_eq!(sequence("(nextval('a'::regclass) * 10)"), None);
        assert_eq!(sequence("nextval('a'::regclass) + nextval('b'::regclass)"), None);
    }

    #[test]
    fn a_sequence_is_behind_what_it_has_not_reached() {
        assert!(meets(1, 1, false, (1, 3)) && meets(1, 2, true, (1, 3)));
        assert!(!meets(1, 3, true, (1, 3)) && !meets(1, 4, false, (1, 3)));
        assert!(meets(-1, -1, false, (-3, -1)) && !meets(-1, -3, true, (-3, -1)));
        assert!(!meets(1, i64::MAX, true, (1, i64::MAX)));
    }
}

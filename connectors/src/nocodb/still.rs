//! Whether a base stands still: what its writers leave behind, looked at twice.
//!
//! NocoDB refuses nobody at our wish, so nothing can be asked that would say "frozen". Two looks that differ prove that somebody wrote in
//! between. Two that are equal show that nobody did, but for a change that touches no time, and a second one of a record within a second.

use futures_util::future::try_join_all;

use super::client::Noco;
use super::clock::millis;
use crate::error::Result;

/// So many seconds before the first look records count as recent: the server's clock and that of its database may differ a little.
const BACK: i64 = 2;

/// A look at some tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance(Vec<Seen>);

/// What one table showed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    table: String,
    records: u64,
    /// Keys and times of the records that were created or changed from the second `since` on, as the server wrote them.
    recent: Vec<String>,
    since: i64,
}

impl Noco {
    /// Looks at these tables. `first`: the look that this one is to be compared with.
    pub async fn glance(&self, tables: &[String], first: Option<&Glance>) -> Result<Glance> {
        let seen = tables.iter().map(async |table| {
            let shape = self.server.shape(table).await?;
            let (records, date) = self.server.http.count_at(&shape).await?;
            let before = first.and_then(|first| first.0.iter().find(|seen| seen.table == *table));
            let now = date.unwrap_or_else(|| i64::try_from(millis() / 1_000).unwrap_or(i64::MAX));
            let since = before.map_or(now.saturating_sub(BACK), |before| before.since);
            let recent = self.server.http.recent(&shape, since).await?;
            Ok(Seen { table: table.clone(), records, recent, since })
        });
        Ok(Glance(try_join_all(seen).await?))
    }
}

impl Glance {
    /// What was written between this look and a later one, in words.
    pub fn written_until(&self, later: &Glance) -> Option<String> {
        let pairs = self.0.iter().filter_map(|before| {
            let after = later.0.iter().find(|after| after.table == before.table)?;
            Some((before, after))
        });
        let texts: Vec<String> = pairs.filter_map(|(before, after)| written(before, after)).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

fn written(before: &Seen, after: &Seen) -> Option<String> {
    let table = &before.table;
    if before.records != after.records {
        return Some(format!("{table} has {} records and had {}", after.records, before.records));
    }
    (before.recent != after.recent).then(|| format!("records of {table} were created or changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(table: &str, records: u64, recent: &[&str]) -> Seen {
        let recent = recent.iter().map(ToString::to_string).collect();
        Seen { table: table.into(), records, recent, since: 7 }
    }

    #[test]
    fn what_differs_was_written() {
        let first = Glance(vec![seen("Boats", 4, &[]), seen("Berths", 2, &["1 at 7"])]);
        assert_eq!(
            first.written_until(&first),
            None,
            "what was written just before the first look is no news"
        );
        let later = Glance(vec![seen("Boats", 3, &[]), seen("Berths", 2, &["1 at 8"])]);
        assert_eq!(
            first.written_until(&later).as_deref(),
            Some("Boats has 3 records and had 4, records of Berths were created or changed")
        );
    }
}

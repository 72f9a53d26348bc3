//! Whether a connection has a session of its own.
//!
//! A pooler that lends a session out for one transaction hands what we set in it to other programs, and takes away what we need:
//! prepared statements, locks, types of ours. That is found out before anything is set: with two connections, each of which asks who serves
//! it while the other one does something. A pooler that lends sessions out gives one and the same to both, or another one
//! to the first while the second is in a transaction; whichever it takes first, last returned or longest idle, one of the two
//! happens. A server's process number comes again, so the time at which it began counts, too.

use tokio_postgres::{Client, SimpleQueryMessage};

type Answer<T> = Result<T, tokio_postgres::Error>;

/// More than one, because others use the pool at the same time.
const ROUNDS: usize = 3;
const WHO: &str = "SELECT pg_catalog.pg_backend_pid(), (SELECT backend_start FROM pg_catalog.pg_stat_activity \
    WHERE pid = pg_catalog.pg_backend_pid())";

/// Whether the session belongs to the first connection for as long as that lives. Changes nothing.
pub(super) async fn is_ours(first: &Client, second: &Client) -> Answer<bool> {
    for _ in 0..ROUNDS {
        let mine = who(first, WHO).await?;
        let other = match who(second, &format!("BEGIN READ ONLY; {WHO}")).await {
            Ok(other) => other,
            // A pooler that lends sessions out for one statement refuses transactions.
            Err(error) if error.code().is_some_and(|code| code.code() == "08P01") => return Ok(false),
            Err(error) => return Err(error),
        };
        // With a pool of one session the first would wait for the second for ever, so it is not asked then.
        let lent = mine == other || who(first, WHO).await? != mine;
        second.simple_query("ROLLBACK").await?;
        if lent {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The session that serves now.
async fn who(client: &Client, sql: &str) -> Answer<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(row.unwrap_or_default())
}

//! What a transaction that touches watched references needs before its first statement: its turn, and plans that fit.

use super::Sink;
use crate::error::Result;
use crate::postgres::error::explain;

/// Class of the advisory lock under which transactions that touch watched references take turns.
const TURNS: i32 = 1_398_206_258;

impl Sink {
    /// Whether the plans of the transaction's next statements go by indexes. Rows that come are found by their keys, and Postgres
    /// would now and then read whole tables for that: a transaction that fills a table is planned with statistics by which it is empty.
    /// For who refers to a row there may be no index.
    pub(super) async fn plan_by_keys(&self, by_keys: bool) -> Result<()> {
        let switch = if by_keys { "off" } else { "on" };
        let set = format!(
            "SET LOCAL enable_seqscan = {switch}; SET LOCAL enable_hashjoin = {switch}; SET LOCAL enable_mergejoin = {switch}"
        );
        let set = self.client.batch_execute(&set).await;
        set.map_err(|error| explain("preparing the transaction", &error))
    }

    /// Waits until no other transaction touches watched references.
    pub(super) async fn take_turn(&self) -> Result<()> {
        let turn = "SELECT pg_catalog.pg_advisory_xact_lock($1, pg_catalog.hashtext($2))";
        let waited = self.client.query_one(turn, &[&TURNS, &self.migration]).await;
        waited.map(drop).map_err(|error| explain("waiting for a turn among watched references", &error))
    }
}

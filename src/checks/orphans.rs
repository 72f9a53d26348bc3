//! Built-in checks: rows that refer to rows which are not there.
//!
//! Postgres vouches for a foreign key that it has validated and whose triggers fire, so only the others are looked at.

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::target::finish::Finisher;
use slackwater_connectors::postgres::target::orphans::Doubtful;

use crate::config::Migration;

/// One of our own checks.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) name: String,
    pub(super) key: Doubtful,
}

/// A check for each foreign key between mapped tables that Postgres does not vouch for.
pub(crate) async fn built_in(finisher: &Finisher, migration: &Migration) -> Result<Vec<Built>> {
    let doubtful = finisher.doubtful(&migration.tables()).await?;
    Ok(doubtful.into_iter().map(|key| Built { name: name(&key, &migration.target.schema), key }).collect())
}

/// `orphans of orders.user_id`; the schema is named where it is not the usual one.
fn name(key: &Doubtful, usual: &str) -> String {
    let (schema, table) = &key.table;
    let schema = if schema == usual { String::new() } else { format!("{schema}.") };
    match &key.columns[..] {
        [column] => format!("orphans of {schema}{table}.{column}"),
        columns => format!("orphans of {schema}{table}.({})", columns.join(", ")),
    }
}

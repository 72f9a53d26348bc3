//! Checks: what the source says against what the target says, whatever the mapping is. `docs/design/checks.md` has the reasons.
//!
//! - `value`, `sides`: values of both sides by key, and whether they agree. Pure.
//! - `series`: what follows from both sides having been read again and again. Pure.
//! - `live`: runs checks while both sides live.
//! - `still`: runs them while the sources are frozen and the target is drained.
//! - `orphans`: foreign keys that Postgres does not vouch for.
//! - `patrol`: those with a schedule, beside the other work of a process.
//! - `outcome`: what a check has said, for people and machines. Pure.

mod live;
mod orphans;
mod outcome;
mod patrol;
mod series;
mod sides;
mod still;
mod value;

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::postgres::control::checks::CheckSaid;
use slackwater_connectors::postgres::target::finish::Finisher;

use crate::config::{Asks, Check, Migration};
use crate::ops::persist::{Stopped, passes};
use crate::ops::store::{Store, ask};
pub(crate) use live::{Ground, at_gate};
pub(crate) use outcome::{Checked, Found, Verdict};
pub(crate) use patrol::patrol;
pub(crate) use still::still;

/// A check counts at most this many rows.
const MOST_ROWS: u32 = 1_000;
/// A check compares at most this many keys.
const MOST_KEYS: usize = 1_000_000;
/// So many keys that differ are shown.
const MOST_SHOWN: usize = 20;

/// Kinds of the incidents, and of what blocks the switch.
pub(crate) const CHECK_FAILS: &str = "check_fails";
pub(crate) const ROLLBACK_CRITERION: &str = "rollback_criterion";

/// The name under which a check that fails blocks the switch.
pub(crate) fn blocks_as(rollback: bool) -> &'static str {
    if rollback { ROLLBACK_CRITERION } else { CHECK_FAILS }
}

/// The queries that have to find nothing, one after another. A check that cannot run is a finding; an unreachable target is an error.
pub(crate) async fn queries(finisher: &Finisher, migration: &Migration) -> Result<Vec<Checked>> {
    let mut found = Vec::new();
    for check in &migration.checks {
        if let Asks::Nothing(sql) = &check.asks {
            found.push(query(finisher, check, &sql.value).await?);
        }
    }
    Ok(found)
}

async fn query(finisher: &Finisher, check: &Check, sql: &str) -> Result<Checked> {
    let found = finisher.finds(&check.name.value, sql, MOST_ROWS).await.map(Found::Rows);
    said(check, found)
}

/// An error that passes is one; any other is what the check says.
fn said(check: &Check, found: Result<Found>) -> Result<Checked> {
    let found = match found {
        Err(error) if passes(&error) => return Err(error),
        Err(error) => Found::CannotRun(error.what),
        Ok(found) => found,
    };
    Ok(Checked { name: check.name.value.clone(), rollback: check.rollback, found })
}

/// What is wrong with a side of a check.
fn unsuitable(check: &str, what: String) -> Error {
    Error::new(Kind::Unsuitable, format!("running the check `{check}`"), what)
}

/// Keeps what a check has said. `began`: when, by the target's clock.
pub(crate) async fn keep(
    store: &mut Store,
    migration: &str,
    checked: &Checked,
    began: i64,
) -> std::result::Result<(), Stopped> {
    let (verdict, text) = (checked.verdict(), checked.said());
    let begins = ask!(store, control => control.keep_check(migration, CheckSaid {
        name: &checked.name,
        verdict: verdict.word(),
        text: &text,
        ran_at: began,
        failing: verdict.failing(),
        incident: blocks_as(checked.rollback),
    }))?;
    if begins {
        tracing::warn!("the check `{}` fails: {text}; `slackwater checks` shows both sides", checked.name);
    }
    Ok(())
}

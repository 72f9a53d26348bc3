//! Finds out what a plan has to know. Reads, and changes nothing.

use slackwater_connectors::error::{Kind, Result};
use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::target::finish::Finisher;

use super::plan::{Checked, Facts};
use crate::config::{Check, Freeze, Migration};
use crate::ops::look::Look;

/// More rows of a check are not counted.
const MOST_ROWS: u32 = 1_000;

/// Looks at everything. `busy`: who makes the switch at this moment, where it is somebody else.
pub(crate) async fn gather(
    migration: &Migration,
    control: &Control,
    mongo: Option<&Mongo>,
    busy: Option<String>,
) -> Result<Facts> {
    let look = Look::read(control, &migration.name, migration.collections.len()).await?;
    let (mut right, mut frozen, mut writer) = (None, None, None);
    if let Some(mongo) = mongo
        && migration.cutover.freeze == Freeze::BlockWrites
    {
        // A source that does not answer is a fact too.
        right = mongo.freeze_right().await.ok();
        frozen = mongo.writes_blocked().await.ok().flatten();
        writer = mongo.oldest_writer().await.ok().flatten();
    }
    let finisher = Finisher::open(&migration.target.uri, &migration.target.schema).await?;
    let checks = check(&finisher, &migration.checks).await?;
    Ok(Facts { look, right, frozen, writer, checks, busy })
}

/// Runs the team's checks one after the other. One that cannot run is a finding, a target that is away an error.
pub(super) async fn check(finisher: &Finisher, checks: &[Check]) -> Result<Vec<Checked>> {
    let mut found = Vec::with_capacity(checks.len());
    for check in checks {
        let name = check.name.value.clone();
        match finisher.finds(&name, &check.sql, MOST_ROWS).await {
            Ok(rows) => found.push(Checked { name, found: Ok(rows) }),
            Err(error) if error.kind == Kind::Unreachable => return Err(error),
            Err(error) => found.push(Checked { name, found: Err(error.what) }),
        }
    }
    Ok(found)
}

//! Checks while the sources are frozen and the target is drained: nothing moves, so each side is read once.

use futures_util::future::try_join_all;
use slackwater_connectors::error::Result;
use slackwater_connectors::mongodb::AsOf;
use slackwater_connectors::postgres::target::checks::Question;
use slackwater_connectors::postgres::target::finish::Finisher;

use super::live::{closed, rows_of, side_of, source_named};
use super::outcome::{Checked, Found};
use super::series::Series;
use super::sides::Side;
use super::{query, said};
use crate::config::{Asks, Both, Check, Migration};
use crate::ops::underway::Underway;
use crate::source::Named;

/// All checks of the file. The sources are asked side by side, and the target one question after the other.
pub(crate) async fn still(
    finisher: &Finisher,
    migration: &Migration,
    sources: &[Named],
    underway: &Underway,
) -> Result<Vec<Checked>> {
    let sides = try_join_all(migration.checks.iter().map(async |check| match &check.asks {
        Asks::Nothing(_) => Ok(None),
        Asks::Both(both) => {
            let read = async {
                let named = source_named(sources, &both.source)?;
                let side = side_of(&check.name.value, migration, named, both, AsOf::Majority);
                let side = underway.during(at(check, "at the source"), side).await?;
                Ok(side.map(|(side, _)| side).unwrap_or_default())
            };
            match read.await {
                Err(error) if crate::ops::persist::passes(&error) => Err(error),
                side => Ok(Some(side)),
            }
        }
    }))
    .await?;
    let mut found = Vec::with_capacity(migration.checks.len());
    for (check, side) in migration.checks.iter().zip(sides) {
        let asked = async {
            match (&check.asks, side) {
                (Asks::Both(both), Some(side)) => said(check, compare(finisher, check, both, side).await),
                _ => query(finisher, check, &check.sql().value).await,
            }
        };
        found.push(underway.during(at(check, "at the target"), asked).await?);
    }
    Ok(found)
}

fn at(check: &Check, side: &str) -> String {
    format!("the check `{}` {side}", check.name.value)
}

async fn compare(finisher: &Finisher, check: &Check, both: &Both, side: Result<Side>) -> Result<Found> {
    let source = side?;
    let question: Question<'_> = super::live::question(check, both);
    let (target, _) = rows_of(finisher, question, None).await?;
    let (series, known) = Series::of_still(super::live::round(both, &source, &target, true));
    Ok(Found::Both(closed(both, &series, known, None)))
}

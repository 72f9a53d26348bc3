//! Runs the checks that have a schedule, beside the other work of a process. Of several processes one does it.

use std::sync::Arc;
use std::time::Duration;

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::checks::CheckRow;

use super::keep;
use super::live::Ground;
use crate::config::{Check, Migration, Schedule};
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::{Stopped, ended, passes};
use crate::ops::stop::Stop;
use crate::ops::store::{Store, ask};
use crate::source::Named;

/// How often it is asked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long is waited where a server is away.
const AWAY: Duration = Duration::from_secs(5);
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Works until it is to stop.
pub(crate) async fn patrol(migration: Arc<Migration>, stop: Stop) -> Result<()> {
    ended(Box::pin(work(&migration, stop)).await)
}

async fn work(migration: &Migration, mut stop: Stop) -> std::result::Result<(), Stopped> {
    let name = &migration.name;
    let mut store = Store::new(&migration.target.uri, None, &stop);
    let start = ask!(store, control => control.clock())?;
    loop {
        if !stop.sleep(LOOK_EVERY).await {
            return Err(Stopped::Asked);
        }
        let (clock, rows) = ask!(store, control => state(control, name))?;
        if due(migration, &rows, start, clock).is_empty() {
            continue;
        }
        let look = ask!(store, control => Look::read(control, &About::of(migration)))?;
        if !look.copied() || look.opened_at().is_some() {
            continue;
        }
        if !ask!(store, control => control.hold_checks(name))? {
            continue;
        }
        match run(migration, &mut store, start, &stop).await {
            Ok(()) => {}
            Err(Stopped::Failed(error)) if passes(&error) => {
                tracing::debug!(%error, "the checks that are due wait for a server");
                if !stop.sleep(AWAY).await {
                    return Err(Stopped::Asked);
                }
            }
            Err(stopped) => return Err(stopped),
        }
        ask!(store, control => control.let_checks_go(name))?;
    }
}

/// The clock of the target, and what the checks have said.
async fn state(control: &Control, migration: &str) -> Result<(i64, Vec<CheckRow>)> {
    Ok((control.clock().await?, control.checks(migration).await?))
}

/// Runs what is due, now that nobody else does.
async fn run(
    migration: &Migration,
    store: &mut Store,
    start: i64,
    stop: &Stop,
) -> std::result::Result<(), Stopped> {
    let (clock, rows) = ask!(store, control => state(control, &migration.name))?;
    let sources = Named::connect_to_those_that_answer(&migration.sources).await;
    let mut ground = Ground::open(migration, &sources, stop).await?;
    for check in due(migration, &rows, start, clock) {
        let began = ask!(store, control => control.clock())?;
        let checked = Box::pin(ground.run(check)).await?;
        keep(store, &migration.name, &checked, began).await?;
    }
    Ok(())
}

fn due<'m>(migration: &'m Migration, rows: &[CheckRow], start: i64, now: i64) -> Vec<&'m Check> {
    let last = |check: &Check| rows.iter().find(|row| row.name == check.name.value).map(|row| row.ran_at);
    let is_due =
        |check: &&Check| check.schedule.is_some_and(|schedule| is_due(schedule, last(check), start, now));
    migration.checks.iter().filter(is_due).collect()
}

/// Whether a check is due that last began then. `start`: when this process began. Pure.
fn is_due(schedule: Schedule, last: Option<i64>, start: i64, now: i64) -> bool {
    match schedule {
        Schedule::Every(every) => {
            let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
            last.is_none_or(|last| now.saturating_sub(last) >= every)
        }
        Schedule::At(minutes) => {
            let offset = i64::from(minutes) * MINUTE;
            let newest = (now - offset).div_euclid(DAY) * DAY + offset;
            // One that was missed is made up for.
            last.unwrap_or(start) < newest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_one_beginning_to_the_next() {
        let every = Schedule::Every(Duration::from_secs(60));
        assert!(is_due(every, None, 5, 5));
        assert!(!is_due(every, Some(1_000), 0, 60_999));
        assert!(is_due(every, Some(1_000), 0, 61_000));
    }

    #[test]
    fn each_day_once() {
        let three = Schedule::At(180);
        let at = |day: i64, hour: i64| day * DAY + hour * 60 * MINUTE;
        assert!(!is_due(three, None, at(9, 1), at(9, 2)), "it is not three yet");
        assert!(!is_due(three, None, at(9, 4), at(9, 5)), "three was before the start");
        assert!(is_due(three, None, at(9, 1), at(9, 3)));
        assert!(!is_due(three, Some(at(9, 3)), at(9, 1), at(9, 23)));
        assert!(!is_due(three, Some(at(9, 3)), at(9, 1), at(10, 2)));
        assert!(is_due(three, Some(at(9, 3)), at(9, 1), at(10, 3)));
        assert!(is_due(three, Some(at(9, 3)), at(10, 9), at(10, 10)), "it was missed");
    }
}

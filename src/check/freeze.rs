//! Whether the sources can be frozen on the day of the switch, as the file says.

use std::time::Duration;

use slackwater_connectors::error::Result;
use slackwater_connectors::source::FreezeRight;

use crate::config::Freeze;
use crate::source::Source;

/// How long an idle MongoDB takes to move its own time on, with as much again for what has to happen besides.
const UNMARKED: Duration = Duration::from_secs(20);

/// What stands in the way of the switch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Our user lacks the right.
    Right(String),
    /// Nobody can be given it.
    Unable(String),
    /// The switch may take longer than it may.
    Slow(String),
}

/// Asked early: a replication can run for weeks before the switch.
pub(super) async fn concern(way: &Freeze, deadline: Duration, source: &Source) -> Result<Option<Concern>> {
    Ok(match way {
        Freeze::BlockWrites => of_right(&source.freeze_right().await?),
        Freeze::ByHand | Freeze::Command { .. } => of_mark(source.may_mark().await?, deadline),
    })
}

fn of_right(right: &FreezeRight) -> Option<Concern> {
    let told = |why: &str| {
        format!(
            "the switch cannot freeze the source: {why}, write `freeze: by_hand` or commands under `cutover` \
             (docs/operating.md, \"Freezing without the right\")"
        )
    };
    match right {
        FreezeRight::Given => None,
        FreezeRight::Missing { give } => {
            let why = format!("our user needs {give}; if nobody can be given that right (managed MongoDB)");
            Some(Concern::Right(told(&why)))
        }
        FreezeRight::Unable { why } => Some(Concern::Unable(told(why))),
    }
}

fn of_mark(may: bool, deadline: Duration) -> Option<Concern> {
    (!may && deadline < UNMARKED).then(|| {
        Concern::Slow(format!(
            "the switch may take longer than its `deadline` of {} s: without the action `appendOplogNote` on the cluster it waits \
             for MongoDB's own note, which comes every 10 s; give our user that right, or write `deadline: 30s`",
            deadline.as_secs()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_switch_will_lack_is_told_early() {
        assert_eq!(of_right(&FreezeRight::Given), None);
        let missing = of_right(&FreezeRight::Missing { give: "a right" });
        let unable = of_right(&FreezeRight::Unable { why: "it is too old".into() });
        assert!(
            matches!(missing, Some(Concern::Right(text)) if text.contains("needs a right") && text.contains("managed"))
        );
        assert!(
            matches!(unable, Some(Concern::Unable(text)) if text.contains("it is too old, write `freeze: by_hand`"))
        );
        assert!(of_mark(true, Duration::from_secs(1)).is_none());
        assert!(of_mark(false, Duration::from_secs(30)).is_none());
        let slow = of_mark(false, Duration::from_secs(5));
        assert!(matches!(slow, Some(Concern::Slow(text)) if text.contains("`deadline` of 5 s")));
    }
}

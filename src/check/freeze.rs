//! Whether the sources can be frozen on the day of the switch, as the file says.

use std::time::Duration;

use slackwater_connectors::error::Result;
use slackwater_connectors::source::FreezeRight;

use crate::config::{Cutover, Freeze};
use crate::source::Source;

/// How long an idle MongoDB takes to move its own time on, with as much again for what has to happen besides.
const UNMARKED: Duration = Duration::from_secs(20);

/// What stands in the way of the switch, asked early: a replication can run for weeks before it.
pub(super) async fn concerns(cutover: &Cutover, source: &Source) -> Result<Option<String>> {
    Ok(match cutover.freeze {
        Freeze::BlockWrites => of_right(&source.freeze_right().await?),
        Freeze::ByHand | Freeze::Command { .. } => of_mark(source.may_mark().await?, cutover.deadline),
    })
}

fn of_right(right: &FreezeRight) -> Option<String> {
    let why = match right {
        FreezeRight::Given => return None,
        FreezeRight::Missing { give } => format!(
            "the switch cannot freeze the source: our user needs {give}; if nobody can be given that right (managed MongoDB)"
        ),
        FreezeRight::Unable { why } => format!("the switch cannot freeze the source: {why}"),
    };
    Some(format!(
        "{why}, write `freeze: by_hand` or commands under `cutover` (docs/operating.md, \"Freezing without the right\")"
    ))
}

fn of_mark(may: bool, deadline: Duration) -> Option<String> {
    (!may && deadline < UNMARKED).then(|| {
        format!(
            "the switch may take longer than its `deadline` of {} s: without the action `appendOplogNote` on the cluster it waits \
             for MongoDB's own note, which comes every 10 s; give our user that right, or write `deadline: 30s`",
            deadline.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_switch_will_lack_is_told_early() {
        assert_eq!(of_right(&FreezeRight::Given), None);
        let missing = of_right(&FreezeRight::Missing { give: "a right" }).expect("a warning");
        let unable = of_right(&FreezeRight::Unable { why: "it is too old".into() }).expect("a warning");
        assert!(missing.contains("needs a right") && missing.contains("managed"), "{missing}");
        assert!(unable.contains("it is too old, write `freeze: by_hand`"), "{unable}");
        assert!(of_mark(true, Duration::from_secs(1)).is_none());
        assert!(of_mark(false, Duration::from_secs(30)).is_none());
        assert!(of_mark(false, Duration::from_secs(5)).expect("a warning").contains("`deadline` of 5 s"));
    }
}

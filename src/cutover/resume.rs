//! How a process resumes a cutover that another process has left. Pure.
//!
//! **Invariant**: a cutover goes on or is reverted, never both. Conditional updates of its record carry the decision out, and
//! the first update wins.

use std::time::Duration;

use slackwater_connectors::postgres::control::cutover::{CutoverRow, CutoverState};
use uuid::Uuid;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// There is no cutover: start one.
    Begin,
    /// The source is untouched: run the preflight again, then go on.
    Arm(Uuid),
    /// The source may be frozen: freeze it (again, which does no harm), and go on in the time that is left.
    Freeze { id: Uuid, left: Duration },
    /// The source may be frozen and the deadline has passed: take the cutover back.
    TakeBack(Uuid),
    /// The cutover is being reverted: finish that.
    Unfreeze(Uuid),
    /// The target is open; the team may not have been told yet.
    Done { id: Uuid, told: bool, report: Option<String> },
}

/// Decides from the record.
pub(crate) fn resume(row: Option<&CutoverRow>) -> Resume {
    let Some(row) = row else { return Resume::Begin };
    match row.state {
        CutoverState::Reverted => Resume::Begin,
        CutoverState::Armed => Resume::Arm(row.id),
        CutoverState::Freezing | CutoverState::Frozen => match row.left_ms {
            Some(left) if left > 0 => {
                Resume::Freeze { id: row.id, left: Duration::from_millis(left.cast_unsigned()) }
            }
            _ => Resume::TakeBack(row.id),
        },
        CutoverState::Reverting => Resume::Unfreeze(row.id),
        CutoverState::Open => Resume::Done { id: row.id, told: row.told, report: row.report.clone() },
    }
}

#[cfg(test)]
mod tests {
    use slackwater_connectors::postgres::control::accepted::Accepted;

    use super::*;

    fn row(state: CutoverState, left_ms: Option<i64>) -> CutoverRow {
        CutoverRow {
            id: Uuid::from_u128(7),
            state,
            owner: Uuid::from_u128(8),
            host: "host".into(),
            freeze: "mongodb_block_writes".into(),
            armed_at: 0,
            armed_for_ms: 10,
            fence: None,
            sources: Vec::new(),
            left_ms,
            open_at: None,
            reason: None,
            told: false,
            report: None,
            accepted: Accepted::default(),
        }
    }

    #[test]
    fn every_state_has_one_answer() {
        let id = Uuid::from_u128(7);
        let decided = |state, left| resume(Some(&row(state, left)));
        assert_eq!(resume(None), Resume::Begin);
        assert_eq!(decided(CutoverState::Reverted, None), Resume::Begin);
        assert_eq!(decided(CutoverState::Armed, None), Resume::Arm(id));
        let freeze = |left| Resume::Freeze { id, left: Duration::from_millis(left) };
        assert_eq!(decided(CutoverState::Freezing, Some(1)), freeze(1));
        assert_eq!(decided(CutoverState::Frozen, Some(4_000)), freeze(4_000));
        assert_eq!(decided(CutoverState::Frozen, Some(0)), Resume::TakeBack(id));
        assert_eq!(decided(CutoverState::Freezing, Some(-9)), Resume::TakeBack(id));
        assert_eq!(decided(CutoverState::Freezing, None), Resume::TakeBack(id), "no time is no time left");
        assert_eq!(decided(CutoverState::Reverting, Some(4_000)), Resume::Unfreeze(id));
        assert_eq!(decided(CutoverState::Open, Some(4_000)), Resume::Done { id, told: false, report: None });
    }
}

//! What a process does that finds a cutover which another one has left. Pure.
//!
//! **Invariant**: a cutover goes on or goes back, never both: what this decides is carried out by conditional updates of
//! its record, and the first one decides for all.

use slackwater_connectors::postgres::control::cutover::{CutoverRow, CutoverState};
use uuid::Uuid;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// There is none: begin.
    Begin,
    /// The source was never touched: look at everything anew, then go on.
    Arm(Uuid),
    /// The source may be frozen: freeze it, which does no harm where it is, and go on.
    Freeze(Uuid),
    /// The source may be frozen and its time is up: take it back.
    TakeBack(Uuid),
    /// It is being taken back: do that.
    Unfreeze(Uuid),
    /// It is done; the team may not know yet.
    Done(Uuid),
}

/// Decides by what is written down.
pub(crate) fn resume(row: Option<&CutoverRow>) -> Resume {
    let Some(row) = row else { return Resume::Begin };
    match row.state {
        CutoverState::Reverted => Resume::Begin,
        CutoverState::Armed => Resume::Arm(row.id),
        CutoverState::Freezing | CutoverState::Frozen => match row.left_ms {
            Some(left) if left > 0 => Resume::Freeze(row.id),
            _ => Resume::TakeBack(row.id),
        },
        CutoverState::Reverting => Resume::Unfreeze(row.id),
        CutoverState::Open => Resume::Done(row.id),
    }
}

#[cfg(test)]
mod tests {
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
        }
    }

    #[test]
    fn every_state_has_one_way() {
        let id = Uuid::from_u128(7);
        let decided = |state, left| resume(Some(&row(state, left)));
        assert_eq!(resume(None), Resume::Begin);
        assert_eq!(decided(CutoverState::Reverted, None), Resume::Begin);
        assert_eq!(decided(CutoverState::Armed, None), Resume::Arm(id));
        assert_eq!(decided(CutoverState::Freezing, Some(1)), Resume::Freeze(id));
        assert_eq!(decided(CutoverState::Frozen, Some(4_000)), Resume::Freeze(id));
        assert_eq!(decided(CutoverState::Frozen, Some(0)), Resume::TakeBack(id));
        assert_eq!(decided(CutoverState::Freezing, Some(-9)), Resume::TakeBack(id));
        assert_eq!(decided(CutoverState::Freezing, None), Resume::TakeBack(id), "no time is no time left");
        assert_eq!(decided(CutoverState::Reverting, Some(4_000)), Resume::Unfreeze(id));
        assert_eq!(decided(CutoverState::Open, Some(4_000)), Resume::Done(id));
    }
}

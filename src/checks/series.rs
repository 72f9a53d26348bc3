//! What follows from both sides having been read again and again while both live. Pure.
//!
//! **Agreement counts at once**: the target says what the source said at a moment that it had reached.
//!
//! **A difference counts** in one of two ways. Both sides were read as of one moment, several times. Or nothing moves: the source said
//! the same each time, and so did the target, which between two rounds had reached the source's present. What was under way at the first
//! read has then come, or was taken back and has come as well.

use std::collections::BTreeMap;

use super::sides::Round;
use super::value::Value;

/// So often both sides have to have been the same.
const SAME: u32 = 4;
/// So often they have to have differed as of one moment. Once would do, but for a document that was read anew for a row.
const EXACT: u32 = 3;

#[derive(Clone, Debug)]
struct Suspect {
    source: Value,
    target: Value,
    same: u32,
    exact: u32,
}

impl Suspect {
    fn fails(&self) -> bool {
        self.same >= SAME || self.exact >= EXACT
    }
}

/// The rounds so far.
#[derive(Debug, Default)]
pub(super) struct Series {
    rounds: u32,
    keys: u64,
    only: Option<(Value, Value)>,
    /// Keys that have differed in every round.
    suspects: BTreeMap<String, Suspect>,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Holds,
    /// These keys differ.
    Fails(BTreeMap<String, (Value, Value)>),
    /// Another round may tell.
    Open,
}

impl Series {
    pub(super) fn add(&mut self, round: Round) {
        self.rounds += 1;
        (self.keys, self.only) = (round.keys, round.only);
        let exact = u32::from(round.exact);
        if self.rounds == 1 {
            let suspects = round.differences.into_iter();
            self.suspects = suspects
                .map(|(key, (source, target))| (key, Suspect { source, target, same: 1, exact }))
                .collect();
            return;
        }
        let mut differences = round.differences;
        self.suspects.retain(|key, suspect| {
            let Some((source, target)) = differences.remove(key) else { return false };
            let same = suspect.source == source && suspect.target == target;
            let same = if same { suspect.same + 1 } else { 1 };
            *suspect = Suspect { source, target, same, exact: suspect.exact + exact };
            true
        });
    }

    /// How often both sides were read.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// What both sides said last, without `by`.
    pub(super) fn only(&self) -> Option<&(Value, Value)> {
        self.only.as_ref()
    }

    /// `last`: there is no more time, and what is proven has to do.
    pub(super) fn known(&self, last: bool) -> Known {
        if self.suspects.is_empty() {
            return Known::Holds;
        }
        let failing = self.suspects.iter().filter(|(_, suspect)| suspect.fails());
        let failing: BTreeMap<_, _> = failing
            .map(|(key, suspect)| (key.clone(), (suspect.source.clone(), suspect.target.clone())))
            .collect();
        let all = failing.len() == self.suspects.len();
        if all || (last && !failing.is_empty()) { Known::Fails(failing) } else { Known::Open }
    }

    /// Of sides that stand still one round is enough.
    pub(super) fn of_still(round: Round) -> (Self, Known) {
        let differences = round.differences.clone();
        let mut series = Self::default();
        series.add(round);
        let known = if differences.is_empty() { Known::Holds } else { Known::Fails(differences) };
        (series, known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(exact: bool, differences: &[(&str, u64, u64)]) -> Round {
        let differences = differences
            .iter()
            .map(|(key, source, target)| ((*key).to_owned(), (Value::whole(*source), Value::whole(*target))))
            .collect();
        Round { keys: 9, differences, only: None, exact }
    }

    fn after(rounds: &[Round]) -> Series {
        let mut series = Series::default();
        rounds.iter().for_each(|round| series.add(round.clone()));
        series
    }

    fn failing(series: &Series, last: bool) -> Option<Vec<String>> {
        match series.known(last) {
            Known::Fails(keys) => Some(keys.into_keys().collect()),
            Known::Holds | Known::Open => None,
        }
    }

    #[test]
    fn what_agrees_once_holds() {
        assert_eq!(after(&[round(false, &[])]).known(false), Known::Holds);
        let later =
            [round(false, &[("a", 1, 2)]), round(false, &[("a", 1, 2)]), round(false, &[("b", 3, 4)])];
        assert_eq!(after(&later).known(false), Known::Holds, "b has agreed before");
    }

    #[test]
    fn what_stands_still_and_differs_fails() {
        let still = round(false, &[("a", 1, 2)]);
        assert_eq!(after(&vec![still.clone(); 3]).known(false), Known::Open);
        assert_eq!(failing(&after(&vec![still; 4]), false), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn what_moves_is_never_a_failure() {
        let rounds: Vec<Round> = (0..40).map(|n| round(false, &[("a", n, n + 1)])).collect();
        assert_eq!(after(&rounds).known(true), Known::Open);
        // The source is at rest, and the target shows pieces of what cancels out.
        let torn: Vec<Round> = (0..40).map(|n| round(false, &[("a", 5, n % 3)])).collect();
        assert_eq!(after(&torn).known(true), Known::Open);
    }

    #[test]
    fn as_of_one_moment_a_difference_counts_though_it_moves() {
        let rounds: Vec<Round> = (0..3).map(|n| round(true, &[("a", n + 1, n)])).collect();
        assert_eq!(after(&rounds[..2]).known(false), Known::Open);
        assert_eq!(failing(&after(&rounds), false), Some(vec!["a".to_owned()]));
        let mixed = [&rounds[..2], &[round(false, &[("a", 9, 8)]), round(true, &[("a", 7, 5)])]].concat();
        assert_eq!(failing(&after(&mixed), false), Some(vec!["a".to_owned()]));
        let agreed = [&rounds[..2], &[round(true, &[])], &rounds[..2]].concat();
        assert_eq!(after(&agreed).known(true), Known::Holds);
    }

    #[test]
    fn what_is_proven_is_told_though_the_rest_moves() {
        let rounds: Vec<Round> = (0..6).map(|n| round(false, &[("a", 1, 2), ("b", n, n + 1)])).collect();
        assert_eq!(after(&rounds).known(false), Known::Open);
        assert_eq!(failing(&after(&rounds), true), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn of_what_stands_still_one_round_is_enough() {
        let (series, known) = Series::of_still(round(true, &[("a", 1, 2)]));
        assert!(matches!(known, Known::Fails(keys) if keys.len() == 1));
        assert_eq!((series.rounds(), series.keys()), (1, 9));
        assert_eq!(Series::of_still(round(true, &[])).1, Known::Holds);
    }
}

//! What an operator may accept although it blocks (`--accept NAME`). Pure.
//!
//! **Invariant**: nothing can be accepted without which the target could lack writes that the source has acknowledged and that nobody
//! knows of, or without which the freeze could not end well. What is accepted is listed by its name in the plan, in the record and in the
//! report, with the reason.

use serde_json::{Value, json};
use slackwater_connectors::postgres::control::accepted::Accepted;

use super::plan::Blocker;

/// All blockers; those with a text can never be accepted, because of it.
const BLOCKERS: [(&str, Option<&str>); 29] = [
    ("check_fails", None),
    ("collection_parked", None),
    ("count_differs", None),
    ("dangling_references", None),
    ("dead_letters", None),
    ("duplicate_values", None),
    ("findings", None),
    ("not_verified", None),
    ("open_transaction", None),
    ("rollback_criterion", None),
    ("unmapped_collections", None),
    ("another_cutover", Some("only one process may lead a cutover")),
    ("applier_joining", Some("nobody reads the partitions that are handed over; wait a moment")),
    ("applier_stopped", Some("what lies in the partitions that nobody reads would be lost")),
    ("capture_stopped", Some("what the source has and nobody reads would be lost")),
    ("documents_return", Some("documents on their way into a table would be lost; wait a moment")),
    ("fence_slow", Some("the freeze would end at its deadline; raise `cutover.deadline`")),
    (
        "frozen_already",
        Some("whoever has frozen the source may unfreeze it, and what is written then would be lost"),
    ),
    (
        "lag",
        Some(
            "the freeze would last as long as the target is behind, if that is known at all; raise `cutover.max_lag`",
        ),
    ),
    (
        "lost_partition",
        Some("records that Kafka has lost are not in the target before their collections are copied again"),
    ),
    ("no_right_to_freeze", Some("writers could go on, and what they write would be lost")),
    ("not_frozen", Some("somebody still writes, and what is written would be lost")),
    ("snapshot_unfinished", Some("documents that are not copied yet would be lost")),
    ("source_away", Some("what a source has that does not answer is not known")),
    ("source_slow", Some("what the source has was not read to its end; raise `cutover.deadline`")),
    ("table_stands", Some("the changes of its collections would be lost; make the table fit again")),
    (
        "verification_behind",
        Some("what is not verified yet would lengthen the freeze; wait a moment, or raise `verify.throttle`"),
    ),
    (
        "verification_slow",
        Some("what is not verified yet would lengthen the freeze; raise `verify.throttle`"),
    ),
    ("trouble", Some("a process that waits for a server does not do its work")),
];

/// A name for `--accept`; otherwise what is wrong with it.
pub(crate) fn acceptable(name: &str) -> Result<String, String> {
    match BLOCKERS.iter().find(|(known, _)| *known == name) {
        Some((_, None)) => Ok(name.to_owned()),
        Some((_, Some(why))) => Err(format!("this blocker can never be accepted: {why}")),
        None => {
            let names: Vec<&str> =
                BLOCKERS.iter().filter(|(_, never)| never.is_none()).map(|(name, _)| *name).collect();
            Err(format!("no blocker has this name; those that can be accepted: {}", names.join(", ")))
        }
    }
}

/// A reason for `--reason`: somebody will read it.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why, for those who read the report".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// What the command line accepts.
pub(crate) fn accepted(names: &[String], reason: Option<&str>) -> Accepted {
    let mut accepted = Accepted { reason: reason.unwrap_or_default().to_owned(), ..Accepted::default() };
    for name in names {
        if !accepted.has(name) {
            accepted.blockers.push((name.clone(), None));
        }
    }
    accepted
}

/// What was accepted when a cutover began, and what the process accepts that goes on with it.
pub(crate) fn both(stored: &Accepted, now: &Accepted) -> Accepted {
    let mut both = stored.clone();
    both.blockers.extend(now.blockers.iter().filter(|(name, _)| !stored.has(name)).cloned());
    if both.reason.is_empty() {
        both.reason.clone_from(&now.reason);
    } else if !now.is_empty() && !both.reason.contains(&now.reason) {
        both.reason = format!("{}; {}", both.reason, now.reason);
    }
    both
}

/// The blockers that block; the others are noted with what there is of them.
pub(crate) fn sift(found: Vec<Blocker>, accepted: &mut Accepted) -> Vec<Blocker> {
    found.into_iter().filter(|blocker| !accepted.note(blocker.name, &blocker.text)).collect()
}

/// For machines.
pub(crate) fn json(accepted: &Accepted) -> Vec<Value> {
    let one = |(name, text): &(String, Option<String>)| json!({"blocker": name, "what": text, "reason": accepted.reason});
    accepted.blockers.iter().map(one).collect()
}

/// For people, a line each; empty where nothing is accepted.
pub(crate) fn text(accepted: &Accepted) -> String {
    let line = |(name, text): &(String, Option<String>)| {
        format!("  {name}: {}\n", text.as_deref().unwrap_or("there is nothing of it now"))
    };
    match accepted.is_empty() {
        true => String::new(),
        false => {
            let lines: String = accepted.blockers.iter().map(line).collect();
            format!("Accepted, because {}:\n{lines}", accepted.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocker(name: &'static str, text: &str) -> Blocker {
        Blocker { name, text: text.into(), remedy: "" }
    }

    #[test]
    fn names_that_may_be_accepted() {
        assert_eq!(acceptable("dead_letters"), Ok("dead_letters".to_owned()));
        let never = acceptable("snapshot_unfinished").expect_err("never");
        assert_eq!(
            never,
            "this blocker can never be accepted: documents that are not copied yet would be lost"
        );
        let unknown = acceptable("dead_leters").expect_err("unknown");
        assert!(unknown.contains("check_fails, collection_parked, count_differs,"), "{unknown}");
        assert!(!unknown.contains("snapshot_unfinished"), "{unknown}");
    }

    #[test]
    fn every_blocker_of_the_manual_is_known() {
        let manual = include_str!("../../docs/operating.md");
        let (_, table) = manual.split_once("| Blocker | Meaning |").expect("the table");
        let (table, _) = table.split_once("\n\n").expect("its end");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut listed: Vec<&str> = rows
            .filter_map(|row| row.split_once(" |"))
            .flat_map(|(names, _)| names.split(", "))
            .map(|name| name.trim_matches('`'))
            .collect();
        listed.retain(|name| BLOCKERS.iter().all(|(known, _)| known != name));
        assert!(listed.is_empty(), "not in the list of what may be accepted: {listed:?}");
    }

    #[test]
    fn a_reason_says_something() {
        assert!(reason("  ").is_err());
        assert_eq!(reason(" the seven are test data "), Ok("the seven are test data".to_owned()));
    }

    #[test]
    fn what_is_accepted_does_not_block_and_is_noted() {
        let mut accepted = accepted(&["dead_letters".into(), "dead_letters".into()], Some("known"));
        let blocked = sift(vec![blocker("lag", "4 s"), blocker("dead_letters", "1 left")], &mut accepted);
        assert_eq!(blocked, [blocker("lag", "4 s")]);
        assert_eq!(text(&accepted), "Accepted, because known:\n  dead_letters: 1 left\n");
        assert_eq!(
            json(&accepted),
            [json!({"blocker": "dead_letters", "what": "1 left", "reason": "known"})]
        );
        assert_eq!(text(&Accepted::default()), "");
    }

    #[test]
    fn who_goes_on_keeps_what_was_accepted() {
        let stored = accepted(&["dead_letters".into()], Some("known"));
        assert_eq!(both(&stored, &Accepted::default()), stored);
        assert_eq!(both(&Accepted::default(), &stored), stored);
        let more = accepted(&["findings".into(), "dead_letters".into()], Some("old rows"));
        let both = both(&stored, &more);
        assert!(both.has("dead_letters") && both.has("findings") && both.blockers.len() == 2);
        assert_eq!(both.reason, "known; old rows");
    }
}

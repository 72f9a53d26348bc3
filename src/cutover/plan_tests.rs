use super::*;
use crate::checks::Found;
use crate::config::parse;
use crate::ops::look::CheckState;
use crate::ops::look::tests::{look, partition, process, stream};
use slackwater_connectors::postgres::control::checks::CheckRow;
use slackwater_connectors::postgres::control::ledger::DeadLetterCount;
use slackwater_connectors::postgres::control::waiting::WaitingRows;
use slackwater_connectors::postgres::control::{CollectionRow, CopyState};

const FILE: &str = r#"migration: crm
sources: { legacy: { mongodb: { uri: "mongodb://h", database: d } } }
target: { postgres: { uri: "postgres://u@h/d" } }
collections:
  legacy.users: { into: users, columns: { id: { uuid: _id } } }
checks:
  - { name: no orphans, returns_nothing: "select 1" }
cutover:
  max_lag: 1500ms
  deadline: 5s
  before: [ { name: statistics, sql: analyze users } ]
  after: [ sequences, { name: search index, sql: refresh materialized view search } ]
  open: [ { command: [ ./announce.sh, --all ] }, { webhook: "https://h/secret" } ]
"#;

fn migration(text: &str) -> Migration {
    parse("file.yaml", text, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn copied() -> CollectionRow {
    CollectionRow {
        collection: "legacy.users".into(),
        state: CopyState::Copied,
        generation: 1,
        documents_estimate: 10,
        fresh: false,
        reload: false,
        started_at: None,
        finished_at: None,
        documents_copied: 10,
        chunks_done: 1,
        chunks_total: 1,
    }
}

fn holds() -> Checked {
    Checked { name: "no orphans".into(), rollback: false, found: Found::Rows(0) }
}

/// Nothing blocks this.
fn facts() -> Facts {
    let look = Look {
        collections: vec![copied()],
        lanes: vec![stream(Some(101_500))],
        processes: vec![process("run", "run", 100)],
        ..look()
    };
    let checks = vec![holds()];
    let source = SourceFacts {
        unmapped: Vec::new(),
        name: "legacy".into(),
        answers: true,
        blocks: true,
        right: Some(FreezeRight::Given),
        frozen: Some(false),
        writer: None,
    };
    Facts { look, sources: vec![source], checks, busy: None }
}

fn names(facts: &Facts) -> Vec<&'static str> {
    blockers(&migration(FILE), facts).into_iter().map(|blocker| blocker.name).collect()
}

#[test]
fn the_plan_to_read() {
    let text = text((&migration(FILE), &["public.lines".to_owned()]), &[], &Accepted::default(), &[]);
    assert_eq!(
        text,
        "cutover of crm

  1  preflight  1 collection copied, the target at most 1.5 s behind, nothing failed, 1 check
  2  before     statistics
  3  arm        capture follows closely; fences pass all the way, as a rehearsal
  4  freeze     MongoDB refuses writers; the deadline begins: 5 s
  5  fence      everything up to the freeze is applied, in every partition
  6  drained    no dead letter is left, and no row waits for another
  7  proof      as many rows as documents (1 table is not counted: public.lines), 1 check
  8  finishing  sequences, search index
  9  open       the source is still frozen; the target is the one to write to from then on
 10  told       ./announce.sh, a webhook
 11  report     what was done, and how long it took

Nothing blocks it now.
"
    );
    assert!(!text.contains("secret"), "an address may hold one");
}

#[test]
fn a_file_without_a_cutover() {
    let (head, _) = FILE.split_once("checks:").expect("the section");
    let text = text((&migration(head), &[]), &[], &Accepted::default(), &[]);
    assert!(text.contains("at most 2 s behind") && text.contains("the deadline begins: 5 s"), "{text}");
    assert!(text.contains("finishing  sequences") && !text.contains("told"), "{text}");
}

#[test]
fn what_is_read_whole_may_be_behind_for_longer() {
    let sources = "sources: { legacy: { mongodb: { uri: \"mongodb://h\", database: d } } }";
    let both = "sources: { legacy: { mongodb: { uri: \"mongodb://h\", database: d } }, base: { nocodb: { url: \"http://h\", token: t, base: b, \
                sweep: 20s }, freeze: by_hand } }";
    assert!(FILE.contains(sources));
    let text = text((&migration(&FILE.replace(sources, both)), &[]), &[], &Accepted::default(), &[]);
    let said = "the target at most 1.5 s (21.5 s of base, which is read whole again and again) behind, nothing failed";
    assert!(text.contains(said), "{text}");
}

#[test]
fn nothing_blocks() {
    assert_eq!(names(&facts()), Vec::<&str>::new());
}

#[test]
fn each_blocker_by_its_name() {
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        names(&facts)
    };
    assert_eq!(with(&|facts| facts.busy = Some("host-1 (armed)".into())), ["another_cutover"]);
    assert_eq!(with(&|facts| facts.look.collections[0].state = CopyState::Copying), ["snapshot_unfinished"]);
    assert_eq!(with(&|facts| facts.look.collections.clear()), ["snapshot_unfinished"]);
    assert_eq!(with(&|facts| facts.look.processes[0].silent_ms = 9_000), ["capture_stopped"]);
    assert_eq!(with(&|facts| facts.look.processes[0].trouble = Some("no broker".into())), ["trouble"]);
    assert_eq!(with(&|facts| facts.look.clock += 1_500), ["lag"]);
    assert_eq!(with(&|facts| facts.look.lanes.clear()), ["lag"], "unknown is not small");
    assert_eq!(
        with(&|facts| facts.sources[0].right = Some(FreezeRight::Missing { give: "a right" })),
        ["no_right_to_freeze"]
    );
    assert_eq!(
        with(&|facts| facts.sources[0].right = Some(FreezeRight::Unable { why: "too old".into() })),
        ["no_right_to_freeze"]
    );
    assert_eq!(with(&|facts| facts.sources[0].right = None), ["source_away"]);
    assert_eq!(with(&|facts| facts.sources[0].frozen = Some(true)), ["frozen_already"]);
    assert_eq!(with(&|facts| facts.sources[0].frozen = None), Vec::<&str>::new(), "we may not ask");
    assert_eq!(with(&|facts| facts.sources[0].writer = Some(Duration::from_millis(900))), Vec::<&str>::new());
    assert_eq!(with(&|facts| facts.sources[0].writer = Some(Duration::from_secs(40))), ["open_transaction"]);
    assert_eq!(with(&|facts| facts.checks[0].found = Found::Rows(3)), ["check_fails"]);
    assert_eq!(
        with(&|facts| facts.checks[0].found = Found::CannotRun("no such table".into())),
        ["check_fails"]
    );
}

#[test]
fn criteria_for_going_back_have_a_name_of_their_own() {
    let with = |found: Found, failing: Option<bool>| {
        let mut facts = facts();
        facts.checks[0] = Checked { rollback: true, found, ..holds() };
        let row =
            CheckRow { name: "no orphans".into(), failing, text: "7 rows".into(), ..CheckRow::default() };
        facts.look.checks = vec![CheckState { row, rollback: true }];
        names(&facts)
    };
    assert_eq!(with(Found::Rows(3), None), ["rollback_criterion"]);
    assert_eq!(with(Found::Orphans(2, ""), Some(false)), ["rollback_criterion"], "what is seen now counts");
    assert_eq!(with(Found::Rows(0), Some(true)), Vec::<&str>::new(), "it holds by now");
    let mut facts = facts();
    facts.checks.clear();
    let row = CheckRow {
        name: "total".into(),
        failing: Some(true),
        text: "source and target differ".into(),
        ..CheckRow::default()
    };
    facts.look.checks = vec![CheckState { row, rollback: true }];
    let found = blockers(&migration(FILE), &facts);
    assert_eq!(
        (found[0].name, found[0].text.as_str()),
        ("rollback_criterion", "`total`, when it last ran: source and target differ")
    );
    facts.look.checks[0].rollback = false;
    assert_eq!(names(&facts), Vec::<&str>::new(), "one that is no criterion counts at the gate only");
}

fn waiting(unique: bool) -> WaitingRows {
    WaitingRows {
        table: "public.users".into(),
        constraint: "users_fkey".into(),
        wanted_table: "public.organisations".into(),
        unique,
        blocks: true,
        count: 2,
        held: 1,
        examples: vec![("a".into(), "b".into()), ("c".into(), "d".into())],
        age_ms: 60_000,
    }
}

#[test]
fn what_waits_is_told() {
    let found = |rows: &[WaitingRows]| {
        let mut facts = facts();
        facts.look.waiting = rows.to_vec();
        let found = blockers(&migration(FILE), &facts);
        let passes = may_pass(&facts, &found);
        (found.into_iter().map(|blocker| (blocker.name, blocker.text)).collect::<Vec<_>>(), passes)
    };
    let dangling = "2 rows of public.users for rows of public.organisations (users_fkey, first a for b)";
    assert_eq!(found(&[waiting(false)]), (vec![("dangling_references", dangling.to_owned())], false));
    let twice = "2 rows of public.users repeat a value (users_fkey, first a beside b)";
    assert_eq!(found(&[waiting(true)]), (vec![("duplicate_values", twice.to_owned())], false));
    let young = WaitingRows { age_ms: COMES_WITHIN_MS, ..waiting(false) };
    assert!(found(std::slice::from_ref(&young)).1, "what came just now may be completed in a moment");
    let remedy = |row: WaitingRows| {
        let mut facts = facts();
        facts.look.waiting = vec![row];
        blockers(&migration(FILE), &facts)[0].remedy
    };
    assert!(remedy(young).starts_with("wait a moment"), "nobody is blamed for what is only late");
    assert!(remedy(waiting(false)).starts_with("the source refers to documents that it does not have"));
    let mut behind = facts();
    let lag = behind.look.lag_ms().expect("it is known");
    for (age_ms, passes) in [(lag + COMES_WITHIN_MS, true), (lag + COMES_WITHIN_MS + 1, false)] {
        behind.look.waiting = vec![WaitingRows { age_ms, ..waiting(false) }];
        assert_eq!(may_pass(&behind, &blockers(&migration(FILE), &behind)), passes, "{age_ms} ms");
    }
    let allowed = WaitingRows { blocks: false, ..waiting(false) };
    assert_eq!(found(&[allowed]).0, []);
}

#[test]
fn blockers_that_may_pass() {
    let letter = |kind: &str| DeadLetterCount {
        collection: "legacy.users".into(),
        kind: kind.into(),
        count: 2,
        example: String::new(),
    };
    let mut facts = facts();
    facts.look.letters = vec![letter("23503")];
    let found = blockers(&migration(FILE), &facts);
    assert!(found[0].text.contains("2 dead letters left: 2 of legacy.users (23503)"), "{found:?}");
    assert!(may_pass(&facts, &found));
    facts.sources[0].writer = Some(Duration::from_secs(2));
    assert!(may_pass(&facts, &blockers(&migration(FILE), &facts)));
    facts.look.processes[0].trouble = Some("no broker".into());
    assert!(may_pass(&facts, &blockers(&migration(FILE), &facts)));
    facts.look.letters.push(letter("invalid"));
    assert!(!may_pass(&facts, &blockers(&migration(FILE), &facts)));
    facts.look.letters.truncate(1);
    facts.sources[0].right = None;
    assert!(!may_pass(&facts, &blockers(&migration(FILE), &facts)));
}

#[test]
fn partitions_without_progress_are_named() {
    let kafka = |rows: Vec<_>| {
        let mut facts = facts();
        facts.look.processes = vec![process("capture", "capture", 100), process("apply/one", "apply", 100)];
        facts.look.partitions = rows;
        facts
    };
    assert_eq!(names(&kafka(vec![partition("t", 0, Some(101_500))])), Vec::<&str>::new());
    let mut nobody = partition("t", 1, Some(101_500));
    nobody.member = None;
    assert_eq!(names(&kafka(vec![nobody])), ["applier_stopped", "applier_joining"]);
    let mut joining = kafka(vec![partition("t", 0, Some(101_500)), partition("t", 1, Some(101_500))]);
    joining.look.processes.push(process("apply/two", "apply", 100));
    assert_eq!(names(&joining), ["applier_joining"]);
    assert!(may_pass(&joining, &blockers(&migration(FILE), &joining)));
    joining.look.partitions.truncate(1);
    assert_eq!(names(&joining), Vec::<&str>::new(), "there is none for it");
    let mut silent = partition("t", 2, Some(101_500));
    silent.idle_ms = SILENT_MS;
    let facts = kafka(vec![partition("t", 0, Some(101_500)), silent]);
    let found = blockers(&migration(FILE), &facts);
    assert_eq!(found.len(), 1);
    assert!(found[0].text.contains("t/2 (one)") && !found[0].text.contains("t/0"), "{found:?}");
    let mut lost = partition("t", 3, Some(101_500));
    lost.lost = Some("cut".into());
    assert_eq!(names(&kafka(vec![lost])), ["lost_partition"]);
}

//! The plan of a cutover: its steps, and what blocks them. Pure: made from the migration file and the gathered facts.

use std::time::Duration;

use slackwater_connectors::postgres::control::accepted::Accepted;
use slackwater_connectors::postgres::control::breaches::BreachCount;
use slackwater_connectors::postgres::control::waiting::WaitingRows;
use slackwater_connectors::source::FreezeRight;

use super::accept;
use crate::checks::{Checked, blocks_as};
use crate::config::{self, Cutover, Finish, Freeze, Migration, Notice};
use crate::ops::look::{Look, SILENT_MS, is_up};

/// A list shows at most this many names.
const MOST_NAMES: usize = 4;

/// The freeze waits for open transactions. One that has been open for longer than this is not likely to end in time.
const LONG_OPEN: Duration = Duration::from_secs(1);

/// Changes may be verified so much later than they were applied. What is left is verified before the freeze.
const VERIFIED_BEHIND: Duration = Duration::from_secs(10);

/// A row that waits for longer than this, and longer than the target is behind, is not likely to get what it waits for.
const COMES_WITHIN_MS: i64 = 2_000;

/// SQLSTATE of a missing foreign key.
const LATE_REFERENCE: &str = "23503";

/// The facts that decide whether a cutover may start.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) look: Look,
    /// Every source of the migration.
    pub(crate) sources: Vec<SourceFacts>,
    pub(crate) checks: Vec<Checked>,
    /// Another process that leads a cutover of this migration now, with the cutover's state and age.
    pub(crate) busy: Option<String>,
}

/// The facts about one source.
#[derive(Debug, Default)]
pub(crate) struct SourceFacts {
    /// Its name in the migration file.
    pub(crate) name: String,
    /// It answers.
    pub(crate) answers: bool,
    /// We stop its writers ourselves.
    pub(crate) blocks: bool,
    /// Collections that the migration neither maps nor leaves behind on purpose.
    pub(crate) unmapped: Vec<String>,
    /// Whether we can stop its writers; `None` if it does not answer, or need not.
    pub(crate) right: Option<FreezeRight>,
    /// Whether it already refuses writers; `None` if we may not ask.
    pub(crate) frozen: Option<bool>,
    /// How long the oldest transaction that has written has been open; `None` if there is none or we may not ask.
    pub(crate) writer: Option<Duration>,
}

/// Something that blocks the cutover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    /// Its fixed name in every report.
    pub(crate) name: &'static str,
    pub(crate) text: String,
    /// What the operator can do.
    pub(crate) remedy: &'static str,
}

/// A step that the cutover will take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedStep {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// The steps of this migration's cutover, in order. `uncounted`: tables whose rows are not counted.
pub(crate) fn steps(migration: &Migration, uncounted: &[String]) -> Vec<PlannedStep> {
    let cutover = &migration.cutover;
    let step = |name, text: String| PlannedStep { name, text };
    let mut steps = vec![step(
        "preflight",
        format!(
            "{} copied, the target at most {} behind, nothing failed, {}",
            count(migration.collections.len(), "collection", "collections"),
            allowed(migration),
            count(migration.checks.len(), "check", "checks")
        ),
    )];
    if !cutover.before.is_empty() {
        steps.push(step("before", names(cutover.before.iter().map(|statement| statement.name.as_str()))));
    }
    steps.push(step("arm", "capture follows closely; fences pass all the way, as a rehearsal".into()));
    steps.push(step(
        "freeze",
        format!(
            "{}; the deadline begins: {}",
            freeze_in_words(migration),
            time(cutover.deadline.as_millis())
        ),
    ));
    steps.push(step("fence", "everything up to the freeze is applied, in every partition".into()));
    steps.push(step("drained", "no dead letter is left, and no row waits for another".into()));
    steps.push(step(
        "proof",
        format!(
            "as many rows as documents{}, {}",
            not_counted(uncounted),
            count(migration.checks.len(), "check", "checks")
        ),
    ));
    steps.push(step("finishing", finishing(cutover)));
    steps.push(step(
        "open",
        "the source is still frozen; the target is the one to write to from then on".into(),
    ));
    if !cutover.open.is_empty() {
        steps.push(step("told", names(cutover.open.iter().map(kind))));
    }
    steps.push(step("report", "what was done, and how long it took".into()));
    steps
}

/// Tables whose rows are not counted, as a part of a sentence.
pub(super) fn not_counted(tables: &[String]) -> String {
    if tables.is_empty() {
        return String::new();
    }
    let are = count(tables.len(), "table is", "tables are");
    format!(" ({are} not counted: {})", names(tables.iter().map(String::as_str)))
}

/// How far the target may be behind, of each source where it is not the same.
fn allowed(migration: &Migration) -> String {
    let most = |source: &config::Source| most_behind(migration, Some(source)).as_millis();
    let usual = migration.cutover.max_lag.as_millis();
    let asked = migration.sources.iter().filter(|source| most(source) != usual);
    let asked: Vec<String> = asked
        .map(|source| {
            format!("{} of {}, which is read whole again and again", time(most(source)), source.name.value)
        })
        .collect();
    match asked.as_slice() {
        [] => time(usual),
        asked => format!("{} ({})", time(usual), asked.join(", ")),
    }
}

/// How far it may be behind of a source. What one that is asked has taken away is found when everything is read.
fn most_behind(migration: &Migration, source: Option<&config::Source>) -> Duration {
    migration.cutover.max_lag + source.and_then(config::Source::reads_all_every).unwrap_or_default()
}

fn kind(notice: &Notice) -> &str {
    match notice {
        Notice::Command(words) => words.first().map_or("a command", String::as_str),
        // Its address may hold a secret.
        Notice::Webhook(_) => "a webhook",
    }
}

fn finishing(cutover: &Cutover) -> String {
    if cutover.after.is_empty() {
        return "nothing".into();
    }
    names(cutover.after.iter().map(|step| match step {
        Finish::Sequences => "sequences",
        Finish::Sql(statement) => statement.name.as_str(),
    }))
}

/// How the writers are stopped, in words; of each source where it is not the same.
pub(crate) fn freeze_in_words(migration: &Migration) -> String {
    let word = |freeze: &Freeze| match freeze {
        Freeze::BlockWrites => "MongoDB refuses writers",
        Freeze::ByHand => "somebody stops the writers and says so",
        Freeze::Command { .. } => "the team's command stops the writers",
    };
    let ways: Vec<(&str, &str)> = migration
        .sources
        .iter()
        .map(|source| (source.name.value.as_str(), word(migration.freeze_of(source))))
        .collect();
    match ways.first() {
        Some((_, first)) if ways.iter().all(|(_, way)| way == first) => (*first).to_owned(),
        _ => ways.iter().map(|(name, way)| format!("{name}: {way}")).collect::<Vec<_>>().join("; "),
    }
}

/// What blocks the cutover. If nothing does, it may start.
pub(crate) fn blockers(migration: &Migration, facts: &Facts) -> Vec<Blocker> {
    let mut found = Vec::new();
    let mut block = |name, text: String, remedy| found.push(Blocker { name, text, remedy });
    let look = &facts.look;
    if let Some(leader) = &facts.busy {
        block(
            "another_cutover",
            format!("another process leads a cutover: {leader}"),
            "wait for it, or take it back with `slackwater cutover FILE --abort`",
        );
    }
    unfinished(look, &mut block);
    let unread = look.uncaptured();
    if !unread.is_empty() {
        let text = if look.live("capture") == 0 {
            "no process reads the source".to_owned()
        } else {
            format!("no process reads {}", names(unread.into_iter()))
        };
        block("capture_stopped", text, "start `slackwater run` or `slackwater capture`");
    }
    for (name, trouble) in look.troubles() {
        block("trouble", format!("{name}: {trouble}"), "see the log of that process");
    }
    stopped(look, &mut block);
    joining(look, &mut block);
    behind(migration, look, &mut block);
    failed(look, &mut block);
    verified(migration, look, &mut block);
    dangling(look, &mut block);
    for row in &look.standing {
        block(
            "table_stands",
            format!("{} stands still: {}", row.collection, row.text),
            "make the table fit again; `slackwater status` says how",
        );
    }
    for row in look.parked() {
        block(
            "collection_parked",
            format!("{} is gone at the source: {}", row.collection, row.text),
            "say what becomes of its rows: `slackwater resolve FILE COLLECTION --keep` or `--follow`",
        );
    }
    if look.standing.is_empty() && look.returning > 0 {
        let documents = count(look.returning as usize, "document", "documents");
        block(
            "documents_return",
            format!("{documents} that waited for a table are on their way into it"),
            "wait a moment",
        );
    }
    for source in facts.sources.iter().filter(|source| !source.unmapped.is_empty()) {
        let names: Vec<String> =
            source.unmapped.iter().map(|name| format!("{}.{name}", source.name)).collect();
        block(
            "unmapped_collections",
            format!("nothing says what becomes of {}", names.join(", ")),
            "map them, or list them under `not_migrated`",
        );
    }
    for source in &facts.sources {
        if source.blocks {
            freezing(source, &mut block);
        }
        if !source.answers || (source.blocks && source.right.is_none()) {
            block(
                "source_away",
                format!("source {} does not answer", source.name),
                "check that it is running and reachable",
            );
        }
    }
    checked(facts, &mut block);
    found
}

/// Checks that do not hold now, and criteria for going back that did not hold when they last ran.
fn checked(facts: &Facts, block: &mut impl FnMut(&'static str, String, &'static str)) {
    for check in &facts.checks {
        if let Some(complaint) = check.complaint() {
            let remedy = "correct the data, or the check in the migration file";
            block(blocks_as(check.rollback), complaint, remedy);
        }
    }
    for state in facts.look.checks.iter().filter(|state| state.rollback && state.row.failing == Some(true)) {
        let newer = facts.checks.iter().find(|check| check.name == state.row.name);
        if newer.is_none_or(|check| check.verdict().failing().is_none()) {
            let text = format!("`{}`, when it last ran: {}", state.row.name, state.row.text);
            block(blocks_as(true), text, "correct the data; `slackwater checks FILE` runs it again");
        }
    }
}

/// Whether all blockers may be gone in a moment: references that came before their targets are tried again every second,
/// transactions end, partitions are handed over, a server answers again.
pub(crate) fn may_pass(facts: &Facts, blockers: &[Blocker]) -> bool {
    blockers.iter().all(|blocker| match blocker.name {
        "dead_letters" => facts.look.letters.iter().all(|row| row.kind == LATE_REFERENCE),
        "dangling_references" | "duplicate_values" => {
            !facts.look.waiting.iter().any(|row| row.blocks && !may_be_late(&facts.look, row))
        }
        name => matches!(
            name,
            "documents_return" | "open_transaction" | "applier_joining" | "trouble" | "verification_behind"
        ),
    })
}

/// What the row waits for may still be on its way, for as long as the target is behind.
fn may_be_late(look: &Look, row: &WaitingRows) -> bool {
    row.age_ms <= look.lag_ms().unwrap_or_default() + COMES_WITHIN_MS
}

fn unfinished(look: &Look, block: &mut impl FnMut(&'static str, String, &'static str)) {
    if look.copied() {
        return;
    }
    let open: Vec<&str> = look
        .collections
        .iter()
        .filter(|row| !look.is_copied(row))
        .map(|row| row.collection.as_str())
        .collect();
    let missing = look.named.saturating_sub(look.collections.len());
    let mut text = format!(
        "{} of {} collections are copied",
        look.copied_collections(),
        look.named.max(look.collections.len())
    );
    if !open.is_empty() {
        text += &format!("; not yet: {}", names(open.into_iter()));
    }
    if missing > 0 {
        text += &format!("; {missing} not started");
    }
    block("snapshot_unfinished", text, "wait until `slackwater status` shows all of them as copied");
}

fn behind(migration: &Migration, look: &Look, block: &mut impl FnMut(&'static str, String, &'static str)) {
    for name in look.names() {
        let source = migration.sources.iter().find(|source| source.name.value == name);
        let most = most_behind(migration, source).as_millis();
        let of = if migration.sources.len() > 1 { format!(" of source {name}") } else { String::new() };
        match look.lag_of(name) {
            Some(lag) if lag > i64::try_from(most).unwrap_or(i64::MAX) => block(
                "lag",
                format!("the target is {} behind{of}, and {} is allowed", time(lag as u128), time(most)),
                "wait until it has caught up, or raise `cutover.max_lag`",
            ),
            Some(_) => {}
            None => block(
                "lag",
                format!("it is not known how far the target is behind{of}"),
                "see `slackwater status`",
            ),
        }
    }
}

/// Records that are lost, and documents that could not be written.
fn failed(look: &Look, block: &mut impl FnMut(&'static str, String, &'static str)) {
    let lost: Vec<String> = look
        .partitions
        .iter()
        .filter(|row| row.lost.is_some())
        .map(|row| format!("{}/{}", row.topic, row.partition))
        .collect();
    if !lost.is_empty() {
        block(
            "lost_partition",
            format!("Kafka has lost records of {}", names(lost.iter().map(String::as_str))),
            "wait until their collections are recopied",
        );
    }
    if look.dead_letters() > 0 {
        let of: Vec<String> = look
            .letters
            .iter()
            .map(|row| format!("{} of {} ({})", row.count, row.collection, row.kind))
            .collect();
        block(
            "dead_letters",
            format!(
                "{} left: {}",
                count(look.dead_letters() as usize, "dead letter", "dead letters"),
                names(of.iter().map(String::as_str))
            ),
            "correct the documents or the rules; `slackwater status` counts the dead letters by collection and kind",
        );
    }
}

/// What a verification has found, and whether there was one.
fn verified(migration: &Migration, look: &Look, block: &mut impl FnMut(&'static str, String, &'static str)) {
    if let Some(verified) = look.verified.filter(|verified| verified.findings > 0) {
        let findings = count(verified.findings as usize, "finding", "findings");
        block(
            "findings",
            format!("the last verification has {findings}: rows that are not what their documents make"),
            "`slackwater repair FILE` sends them again and verifies; if they are right by now, `slackwater verify FILE` says so",
        );
    }
    changes_verified(migration, look, block);
    let Some(within) = migration.cutover.verified_within else { return };
    let age = look
        .verified
        .filter(|verified| verified.equal && verified.whole)
        .map(|verified| look.clock.saturating_sub(verified.began));
    let most = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
    let text = match age {
        Some(age) if age <= most => return,
        Some(age) => format!(
            "everything was verified {} ago, and {} is allowed",
            time(age.max(0) as u128),
            time(within.as_millis())
        ),
        None => "the last verification was not of everything, or not everything was equal, or there was none"
            .to_owned(),
    };
    block("not_verified", text, "`slackwater verify FILE`");
}

/// Whether what has changed was looked at, where the migration file wants that.
fn changes_verified(
    migration: &Migration,
    look: &Look,
    block: &mut impl FnMut(&'static str, String, &'static str),
) {
    if migration.verify.is_none() {
        return;
    }
    let followed = |source: &&config::Source| matches!(source.system, config::System::Mongodb { .. });
    let (mut open, mut late) = (Vec::new(), Vec::new());
    for source in migration.sources.iter().filter(followed) {
        let most = most_behind(migration, Some(source)) + VERIFIED_BEHIND;
        let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        let prefix = format!("{}.", source.name.value);
        let names = migration.collections.iter().map(|collection| collection.name.value.as_str());
        for name in names.filter(|name| name.starts_with(&prefix)) {
            match look.followed.iter().find(|row| row.collection == name) {
                Some(row) if row.based && look.verified_lag_ms(row) > most => late.push(name),
                Some(row) if row.based => {}
                _ => open.push(name),
            }
        }
    }
    if !open.is_empty() {
        block(
            "not_verified",
            format!("not verified as a whole with all that has changed since: {}", names(open.into_iter())),
            "wait: `slackwater run` (or `capture`) verifies everything once, and what changes; or call `slackwater verify FILE`",
        );
    }
    if !late.is_empty() {
        block(
            "verification_behind",
            format!("changes are verified with more delay than is allowed: {}", names(late.into_iter())),
            "wait until `slackwater status` shows it close behind, or raise `verify.throttle`",
        );
    }
}

/// Rows that wait for rows that are not there, or for values that other rows have.
fn dangling(look: &Look, block: &mut impl FnMut(&'static str, String, &'static str)) {
    let open = |unique: bool| -> Vec<String> {
        let rows = look.waiting.iter().filter(|row| row.blocks && row.unique == unique);
        rows.map(waits).collect()
    };
    let (references, values) = (open(false), open(true));
    let late = |unique: bool| {
        let mut rows = look.waiting.iter().filter(|row| row.blocks && row.unique == unique);
        rows.all(|row| may_be_late(look, row))
    };
    if !references.is_empty() {
        let remedy = if late(false) {
            "wait a moment: they have not waited for longer than the target is behind, so the others may be on their way"
        } else {
            "the source refers to documents that it does not have: correct it, or write `missing: null` or `missing: reject` at \
             the column"
        };
        block("dangling_references", names(references.iter().map(String::as_str)), remedy);
    }
    if !values.is_empty() {
        let remedy = if late(true) {
            "wait a moment: they have not waited for longer than the target is behind, so the other change may be on its way"
        } else {
            "two documents have a value that only one row may have: correct one of them"
        };
        block("duplicate_values", names(values.iter().map(String::as_str)), remedy);
    }
}

/// What waits, and for what, in words.
pub(crate) fn waits(row: &WaitingRows) -> String {
    let counted = if row.count >= WaitingRows::MOST { "at least " } else { "" };
    let count = count(row.count as usize, "row", "rows");
    let first = row.example().map(|example| format!(", first {example}")).unwrap_or_default();
    if row.unique {
        return format!("{counted}{count} of {} repeat a value ({}{first})", row.table, row.constraint);
    }
    format!("{counted}{count} of {} for rows of {} ({}{first})", row.table, row.wanted_table, row.constraint)
}

fn stopped(look: &Look, block: &mut impl FnMut(&'static str, String, &'static str)) {
    if !look.is_kafka() {
        return;
    }
    let named = look.names();
    let silent: Vec<String> = look
        .partitions
        .iter()
        // Those of a source that has left the migration file get no marks any more.
        .filter(|row| named.contains(row.source.as_str()))
        .filter(|row| {
            let member = row.member.as_deref();
            let process = member.and_then(|member| {
                look.processes.iter().find(|process| process.name == format!("apply/{member}"))
            });
            // A partition gets a mark from capture once a second, so its own age shows a silent applier too.
            member.is_none() || row.idle_ms >= SILENT_MS || process.is_some_and(|process| !is_up(process))
        })
        .map(|row| match &row.member {
            Some(member) => format!("{}/{} ({member})", row.topic, row.partition),
            None => format!("{}/{} (nobody)", row.topic, row.partition),
        })
        .collect();
    if !silent.is_empty() {
        block(
            "applier_stopped",
            format!(
                "{} without progress: {}",
                count(silent.len(), "partition", "partitions"),
                names(silent.iter().map(String::as_str))
            ),
            "start the applier again, or wait until another one has taken over its partitions",
        );
    }
}

/// Blocks while an applier has no partition although there are enough for all: one will be handed over to it, and during the
/// handover nobody reads that partition.
fn joining(look: &Look, block: &mut impl FnMut(&'static str, String, &'static str)) {
    let mut idle = Vec::new();
    let mut appliers = 0;
    for process in look.processes.iter().filter(|process| is_up(process)) {
        let Some(member) = process.name.strip_prefix("apply/") else { continue };
        appliers += 1;
        if !look.partitions.iter().any(|row| row.member.as_deref() == Some(member)) {
            idle.push(process.name.as_str());
        }
    }
    if !idle.is_empty() && appliers <= look.partitions.len() {
        block(
            "applier_joining",
            format!("no partition assigned yet: {}", names(idle.into_iter())),
            "wait until it has taken over its partitions",
        );
    }
}

fn freezing(facts: &SourceFacts, block: &mut impl FnMut(&'static str, String, &'static str)) {
    let name = &facts.name;
    match &facts.right {
        Some(FreezeRight::Given) => {}
        Some(FreezeRight::Missing { give }) => block(
            "no_right_to_freeze",
            format!("our user may not freeze source {name}: it needs {give}"),
            "give it that right, or write `freeze: by_hand`",
        ),
        Some(FreezeRight::Unable { why }) => block(
            "no_right_to_freeze",
            format!("source {name}: {why}"),
            "write `freeze: by_hand`, or give commands that stop and restart the writers",
        ),
        None => {}
    }
    if let Some(open) = facts.writer.filter(|open| *open > LONG_OPEN) {
        block(
            "open_transaction",
            format!("a writing transaction of source {name} has been open for {}", time(open.as_millis())),
            "wait until it ends, or end its session; the freeze would wait for it while all other writers are refused",
        );
    }
    if facts.frozen == Some(true) {
        block(
            "frozen_already",
            format!("source {name} already refuses writers, and we did not freeze it"),
            "let its writers write again, or write `freeze: by_hand`",
        );
    }
}

/// What somebody should have looked at, and what blocks nothing: a target that is append only is not equal to its source on purpose.
pub(crate) fn warnings(counts: &[BreachCount]) -> Vec<String> {
    let text = |row: &BreachCount| {
        format!(
            "append_only: {} of {} not applied ({})",
            count(row.documents as usize, "document", "documents"),
            row.collection,
            row.kind
        )
    };
    counts.iter().map(text).collect()
}

/// The plan, for people.
pub(crate) fn text(
    (migration, uncounted): (&Migration, &[String]),
    blockers: &[Blocker],
    accepted: &Accepted,
    warnings: &[String],
) -> String {
    let mut text = format!("cutover of {}\n\n", migration.name);
    for (number, step) in steps(migration, uncounted).iter().enumerate() {
        text += &format!("{:>3}  {:<10} {}\n", number + 1, step.name, step.text);
    }
    if !warnings.is_empty() {
        text += "\nTo be known:\n";
        warnings.iter().for_each(|warning| text += &format!("  {warning}\n"));
    }
    if !accepted.is_empty() {
        text += &format!("\n{}", accept::text(accepted));
    }
    if blockers.is_empty() {
        return text + "\nNothing blocks it now.\n";
    }
    text += "\nBlocked now:\n";
    text + &listed(blockers)
}

/// The blockers, for people.
pub(crate) fn listed(blockers: &[Blocker]) -> String {
    blockers.iter().fold(String::new(), |text, blocker| {
        text + &format!("  {}: {}\n    help: {}\n", blocker.name, blocker.text, blocker.remedy)
    })
}

pub(super) fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

pub(super) fn names<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let all = names.len();
    let mut list: Vec<&str> = names.take(MOST_NAMES).collect();
    let more = format!("{} more", all.saturating_sub(MOST_NAMES));
    if all > MOST_NAMES {
        list.push(&more);
    }
    list.join(", ")
}

/// A duration, for people.
pub(crate) fn time(millis: u128) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        _ if millis.is_multiple_of(1_000) => format!("{} s", millis / 1_000),
        _ => format!("{:.1} s", millis as f64 / 1_000.0),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

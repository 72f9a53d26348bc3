//! A look as text, for a person: the lag and where it arises, the processes, what is copied, what went wrong.

use slackwater_connectors::postgres::control::cutover::CutoverState;
use slackwater_connectors::postgres::control::gone::Word;
use slackwater_connectors::postgres::control::partitions::PartitionRow;
use slackwater_connectors::postgres::control::pulse::ProcessRow;
use slackwater_topics::Key;

use super::look::{CheckState, Look, is_silent, is_up, state, waiting};

/// A process that reads the source takes a cutover back about a second after its deadline: later than that there is none.
const LEADER_IS_DEAD_MS: i64 = 3_000;

/// At most this many partitions are shown, the worst first.
const MOST_PARTITIONS: usize = 8;

/// The look as lines. With the look before it, the text shows rates.
pub(crate) fn text(look: &Look, before: Option<&Look>) -> String {
    if let Some(at) = look.opened_at() {
        let at =
            jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| format!("{at:.0}"));
        let head =
            format!("migration {}: switched {at}; the target is the one to write to\n", look.migration);
        return head + &collections(look);
    }
    let running = if look.running() { "running" } else { "not running" };
    let mut text = format!("migration {}: {running}, {}\n", look.migration, lag(look));
    let lines = [
        copying(look),
        arises(look),
        window(look),
        applied(look, before),
        verified(look),
        changes(look),
        cutover(look),
    ];
    for line in lines.into_iter().flatten() {
        text += &format!("{line}\n");
    }
    text += &checks(look);
    text += &sources(look);
    text += &processes(look, before);
    text += &partitions(look);
    text += &collections(look);
    text += &failures(look);
    text
}

fn lag(look: &Look) -> String {
    match (look.lag_ms(), look.as_of(), look.applied_through()) {
        (Some(lag), ..) => format!("{} s behind the source", seconds(lag)),
        (None, _, None) => "nothing applied yet".to_owned(),
        (None, ..) => "lag unknown: the source has not answered yet".to_owned(),
    }
}

/// Seconds, with one decimal.
fn seconds(milliseconds: i64) -> String {
    format!("{}.{}", milliseconds / 1000, milliseconds % 1000 / 100)
}

/// A lag, which may be unknown.
fn behind(lag: Option<i64>) -> String {
    lag.map_or_else(|| "unknown".to_owned(), |lag| format!("{} s", seconds(lag)))
}

fn copying(look: &Look) -> Option<String> {
    let named = look.named.max(look.collections.len());
    (!look.copied())
        .then(|| format!("copying: {} of {named} collections are done", look.copied_collections()))
}

fn verified(look: &Look) -> Option<String> {
    let verified = look.verified?;
    let at = jiff::Timestamp::from_millisecond(verified.began).ok()?;
    let whole = if verified.whole { "" } else { " in part" };
    let found = match (verified.equal, verified.findings) {
        (true, _) => "equal".to_owned(),
        (false, 0) => "not everything could be proven".to_owned(),
        (false, 1) => "1 finding".to_owned(),
        (false, findings) => format!("{findings} findings"),
    };
    Some(format!("verified{whole} as of {at:.0}: {found}"))
}

/// How far changes are verified: as far as of the collection that is furthest behind.
fn changes(look: &Look) -> Option<String> {
    let lag = look.followed.iter().map(|row| look.verified_lag_ms(row)).max()?;
    let (all, whole) = (look.followed.len(), look.followed.iter().filter(|row| row.based).count());
    let rest = match all - whole {
        0 => String::new(),
        open => format!("; {open} of {all} collections were not verified as a whole yet"),
    };
    Some(format!("changes verified through {} s ago{rest}", seconds(lag)))
}

/// What each check has last said.
fn checks(look: &Look) -> String {
    let mut text = String::new();
    for CheckState { row, rollback } in &look.checks {
        let at = |millis| {
            jiff::Timestamp::from_millisecond(millis).map(|at| format!("{at:.0}")).unwrap_or_default()
        };
        let word = if row.verdict == "cannot_run" { "fails" } else { row.verdict.as_str() };
        let since = match row.failing {
            Some(true) => format!(", failing since {}", at(row.since)),
            Some(false) | None => String::new(),
        };
        let what = if *rollback { "rollback criterion" } else { "check" };
        text += &format!("{what} {}: {word} as of {}{since}: {}\n", row.name, at(row.ran_at), row.text);
    }
    text
}

fn cutover(look: &Look) -> Option<String> {
    let row = look.cutover.as_ref()?;
    let accepted: Vec<&str> = row.accepted.blockers.iter().map(|(name, _)| name.as_str()).collect();
    let over = match accepted.as_slice() {
        [] => String::new(),
        names => format!("; accepted: {} ({})", names.join(", "), row.accepted.reason),
    };
    let late = row.left_ms.map_or(0, |left| -left);
    if matches!(row.state, CutoverState::Freezing | CutoverState::Frozen) && late > LEADER_IS_DEAD_MS {
        return Some(format!(
            "cutover: {}, and its deadline was {} s ago: {}, which led it, is silent, and nobody has taken it back, so the source may still refuse \
             writers. Start `slackwater run` (or `capture`), which unfreezes it, or `slackwater cutover FILE --abort`{over}",
            row.state.word(),
            seconds(late),
            row.host
        ));
    }
    Some(match &row.reason {
        Some(reason) => format!("cutover: {}, because {reason}{over}", row.state.word()),
        None => format!("cutover: {}, led by {}{over}", row.state.word(), row.host),
    })
}

/// How much of the lag arises before Kafka.
fn arises(look: &Look) -> Option<String> {
    look.is_kafka().then(|| {
        format!(
            "lag: {} into Kafka, {} into the target",
            behind(look.capture_lag_ms()),
            behind(look.lag_ms())
        )
    })
}

fn window(look: &Look) -> Option<String> {
    let seconds = look.window_seconds()?;
    let left = match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    };
    Some(format!("the source keeps {left} of changes before the saved position"))
}

fn applied(look: &Look, before: Option<&Look>) -> Option<String> {
    let rate = |now: u64, of: fn(&Look) -> u64| per_second(look, before, now, before.map_or(0, of));
    if look.is_kafka() {
        let sum = |of: fn(&PartitionRow) -> u64| look.partitions.iter().map(of).sum::<u64>();
        let waiting: i64 = look.partitions.iter().map(waiting).sum();
        let events = sum(|row| row.events);
        return Some(format!(
            "{events} events applied{}, {waiting} records waiting in Kafka, {} duplicates dropped",
            rate(events, |look| look.partitions.iter().map(|row| row.events).sum()),
            sum(|row| row.duplicates)
        ));
    }
    let sum = |look: &Look| look.streams().map(|lane| lane.progress.events).sum();
    let silent = look.streams().map(|lane| lane.idle_ms).max()?;
    let events: u64 = sum(look);
    Some(format!(
        "{events} changes applied{}; the stream last wrote {} s ago",
        rate(events, sum),
        seconds(silent)
    ))
}

fn per_second(look: &Look, before: Option<&Look>, now: u64, then: u64) -> String {
    let Some(before) = before else { return String::new() };
    let elapsed = (look.clock - before.clock).max(1) as f64 / 1000.0;
    format!(" ({:.0}/s)", now.saturating_sub(then) as f64 / elapsed)
}

fn processes(look: &Look, before: Option<&Look>) -> String {
    let mut text = String::new();
    for row in &look.processes {
        let last = before.and_then(|before| before.processes.iter().find(|old| old.name == row.name));
        text += &format!("{}\n", process(look, row, before.zip(last)));
    }
    text
}

/// Each source, where there are several; otherwise only what is wrong with it.
fn sources(look: &Look) -> String {
    let names = look.names();
    let several = names.len() > 1;
    let mut text = String::new();
    for name in names {
        let trouble = look.sources.iter().find(|row| row.source == name).and_then(|row| row.trouble.as_ref());
        let lag = several.then(|| format!("{} behind", behind(look.lag_of(name))));
        let parts: Vec<&str> = lag.as_deref().into_iter().chain(trouble.map(String::as_str)).collect();
        if !parts.is_empty() {
            text += &format!("source {name}: {}\n", parts.join("; "));
        }
    }
    text
}

fn process(look: &Look, row: &ProcessRow, before: Option<(&Look, &ProcessRow)>) -> String {
    let mut text = format!("process {} on {}: ", row.name, row.host);
    if row.ended {
        return text + &format!("ended {} s ago", seconds(row.silent_ms));
    }
    if is_silent(row) {
        let read =
            look.partitions.iter().filter(|partition| Some(&*row.name) == member(partition).as_deref());
        text += &format!("SILENT for {} s", seconds(row.silent_ms));
        return match read.count() {
            0 => text,
            count => text + &format!(", it owns {count} partitions"),
        };
    }
    let (rates, last) = before.map_or((None, row), |(look, last)| (Some(look), last));
    let rate = |now, then| per_second(look, rates, now, then);
    text += &format!(
        "{} events{}, {} rows{}",
        row.events,
        rate(row.events, last.events),
        row.rows,
        rate(row.rows, last.rows)
    );
    match &row.trouble {
        Some(trouble) if is_up(row) => text + &format!("; {trouble}"),
        _ => text,
    }
}

/// The process that reads a partition, if any.
fn member(partition: &PartitionRow) -> Option<String> {
    partition.member.as_ref().map(|member| format!("apply/{member}"))
}

/// The partitions that are furthest behind.
fn partitions(look: &Look) -> String {
    let mut rows: Vec<&PartitionRow> = look.partitions.iter().collect();
    // An unknown lag is the worst.
    rows.sort_by_key(|row| std::cmp::Reverse(look.partition_lag_ms(row).unwrap_or(i64::MAX)));
    let mut text = String::new();
    for row in rows.iter().take(MOST_PARTITIONS) {
        text += &format!(
            "{}/{}: {} behind, {} records waiting, read by {}\n",
            row.topic,
            row.partition,
            behind(look.partition_lag_ms(row)),
            waiting(row),
            member(row).as_deref().unwrap_or("nobody"),
        );
    }
    let folded = rows.len().saturating_sub(MOST_PARTITIONS);
    if folded > 0 {
        text += &format!("and {folded} more partitions, none of them further behind\n");
    }
    let unread = rows.iter().filter(|row| row.member.is_none()).count();
    if unread > 0 {
        text += &format!("{unread} partitions have no applier yet\n");
    }
    for lost in look.partitions.iter().filter_map(|row| row.lost.as_deref()) {
        text += &format!("lost: {lost}\n");
    }
    text
}

fn collections(look: &Look) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "collection",
        "copy",
        "documents",
        "chunks",
        "dead letters",
    ]);
    for row in &look.collections {
        let letters: u64 = look
            .letters
            .iter()
            .filter(|count| count.collection == row.collection)
            .map(|count| count.count)
            .sum();
        table.add_row([
            row.collection.clone(),
            state(row).to_owned(),
            format!("{} of about {}", row.documents_copied, row.documents_estimate),
            format!("{}/{}", row.chunks_done, row.chunks_total),
            letters.to_string(),
        ]);
    }
    format!("\n{table}\n")
}

fn failures(look: &Look) -> String {
    let mut text = String::new();
    for row in &look.standing {
        let since = seconds((look.clock - row.since).max(0));
        text += &format!(
            "\nstands still: {} for {since} s, {} documents wait: {}; {}",
            row.collection, row.documents, row.text, row.remedy
        );
    }
    for row in &look.gone {
        let word = match row.word {
            None => "`slackwater resolve` says what becomes of its rows, which stay until then",
            Some(Word::Keep) => "its rows stay",
            Some(Word::Follow) => "its rows go",
        };
        text += &format!("\ngone at the source: {}, {}; {word}", row.collection, row.text);
    }
    for row in &look.recopies {
        text += &format!("\nto be copied again: {}, {}", row.collection, row.text);
    }
    if look.standing.is_empty() && look.returning > 0 {
        text += &format!("\n{} documents that waited for a table are on their way into it", look.returning);
    }
    for row in &look.letters {
        text += &format!("\ndead letters: {} of {} ({})", row.count, row.collection, row.kind);
        if !row.example.is_empty() {
            text += &format!(", for example: {}", row.example);
        }
    }
    if !look.letters.is_empty() {
        text += "\n  help: correct the documents, the rules, or the rows that are in the way; each is tried again by itself, and at once when its \
                 document changes. `slackwater.dead_letters` lists them";
    }
    for row in &look.waiting {
        let lack = match (row.unique, row.held) {
            (true, _) => "repeat a value that another row has, and are not in the table".to_owned(),
            (false, 0) => format!("are written without rows of {} that are not there", row.wanted_table),
            (false, held) => {
                format!("lack rows of {} that are not there, {held} are not in the table", row.wanted_table)
            }
        };
        let block = if row.blocks { "" } else { "; does not block the switch" };
        let first = row.example().map(|example| format!(", for example {example}")).unwrap_or_default();
        text += &format!(
            "\nwaiting: {} rows of {} {lack} ({}){block}{first}",
            row.count, row.table, row.constraint
        );
    }
    for row in &look.tallies {
        text += &format!(
            "\npolicy: {} {} times for {} → {}.{}, for example {}",
            row.policy,
            row.count,
            row.collection,
            row.table,
            row.column,
            Key::from_bytes(&row.sample_key)
        );
    }
    for row in &look.breach_counts {
        let example = look
            .breaches
            .iter()
            .find(|breach| (&breach.collection, &breach.kind) == (&row.collection, &row.kind))
            .map(|breach| format!(", for example {}", Key::from_bytes(&breach.key)));
        text += &format!(
            "\nnot applied: {} {} of {} documents of {}, which is append only{}",
            row.changes,
            if row.changes == 1 { row.kind.clone() } else { format!("{}s", row.kind) },
            row.documents,
            row.collection,
            example.unwrap_or_default()
        );
    }
    for row in &look.incidents {
        let at = jiff::Timestamp::from_millisecond(row.at)
            .map_or_else(|_| row.at.to_string(), |at| format!("{at:.0}"));
        text += &format!("\nincident {at}: {}", row.text);
    }
    if text.is_empty() { text } else { text + "\n" }
}

#[cfg(test)]
mod tests {
    use slackwater_connectors::postgres::control::accepted::Accepted;
    use slackwater_connectors::postgres::control::cutover::CutoverRow;
    use slackwater_connectors::postgres::control::ledger::DeadLetterCount;

    use super::super::look::tests::{look, partition, process, stream};
    use super::*;

    #[test]
    fn a_direct_one() {
        let mut look = Look { lanes: vec![stream(Some(101_200))], ..look() };
        look.processes = vec![process("run", "run", 200)];
        let mut later = look.clone();
        later.clock += 2_000;
        later.processes[0].events += 50;
        later.processes[0].trouble = Some("the target does not answer".into());
        let said = text(&later, Some(&look));
        assert!(said.starts_with("migration crm: running, 2.8 s behind the source\n"), "{said}");
        assert!(said.contains("the source keeps 60 s of changes before the saved position"), "{said}");
        assert!(
            said.contains("process run on host: 60 events (25/s), 20 rows (0/s); the target does not answer"),
            "{said}"
        );
    }

    #[test]
    fn the_worst_partitions_come_first() {
        let rows = (0..20).map(|number| partition("t", number, Some(101_000 + i64::from(number)))).collect();
        let mut look = Look { partitions: rows, ..look() };
        look.partitions[7].as_of = None;
        look.partitions[9].as_of = Some(50_000);
        look.processes = vec![process("apply/one", "apply", 4_200)];
        let said = text(&look, None);
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("t/")).collect();
        assert!(lines[0].starts_with("t/7: unknown behind"), "{said}");
        assert!(lines[1].starts_with("t/9: 52.0 s behind, 10 records waiting, read by apply/one"), "{said}");
        assert_eq!(lines.len(), MOST_PARTITIONS);
        assert!(said.contains("and 12 more partitions"), "{said}");
        assert!(
            said.contains("process apply/one on host: SILENT for 4.2 s, it owns 20 partitions"),
            "{said}"
        );
    }

    #[test]
    fn dead_letters_have_a_reason_and_a_remedy() {
        let letters = DeadLetterCount {
            collection: "legacy.users".into(),
            kind: "23503".into(),
            count: 2,
            example: "deleting rows of users: a reference without its target (23503, table notes)".into(),
        };
        let said = text(&Look { letters: vec![letters], ..look() }, None);
        assert!(
            said.contains("dead letters: 2 of legacy.users (23503), for example: deleting rows of users"),
            "{said}"
        );
        assert!(said.contains("slackwater.dead_letters"), "{said}");
    }

    #[test]
    fn a_frozen_cutover_without_its_leader_is_told() {
        let row = |left| CutoverRow {
            id: uuid::Uuid::nil(),
            state: CutoverState::Frozen,
            owner: uuid::Uuid::nil(),
            host: "host-7".into(),
            freeze: String::new(),
            armed_at: 0,
            armed_for_ms: 0,
            fence: None,
            sources: Vec::new(),
            left_ms: Some(left),
            open_at: None,
            reason: None,
            told: false,
            report: None,
            accepted: Accepted::default(),
        };
        let said = |left| text(&Look { cutover: Some(row(left)), ..look() }, None);
        assert!(said(1_000).contains("cutover: frozen, led by host-7\n"), "{}", said(1_000));
        let late = said(-60_000);
        assert!(late.contains("its deadline was 60.0 s ago") && late.contains("--abort"), "{late}");
    }

    #[test]
    fn an_unknown_lag_is_named() {
        let said = text(&Look { sources: Vec::new(), ..look() }, None);
        assert!(
            said.starts_with("migration crm: not running, nothing applied yet\ncopying: 0 of 1"),
            "{said}"
        );
    }
}

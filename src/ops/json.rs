//! A look as JSON, for machines. Fields are added, never removed.

use serde_json::{Value, json};
use slackwater_connectors::postgres::control::breaches::{BreachCount, BreachRow};
use slackwater_connectors::postgres::control::gone::{GoneRow, Word};
use slackwater_connectors::postgres::control::partitions::PartitionRow;
use slackwater_connectors::postgres::control::pulse::{ProcessRow, SourceRow};
use slackwater_connectors::postgres::control::recopies::RecopyRow;
use slackwater_connectors::postgres::control::standing::StandingRow;
use slackwater_connectors::postgres::control::waiting::WaitingRows;
use slackwater_connectors::postgres::control::{CollectionRow, LaneRow};
use slackwater_connectors::postgres::progress::Tally;
use slackwater_topics::Key;

use super::look::{CheckState, Look, is_up, state, waiting};

/// The whole look, as one object.
pub(crate) fn json(look: &Look) -> Value {
    json!({
        "migration": look.migration,
        "running": look.running(),
        "copied": look.copied(),
        "lag_ms": look.lag_ms(),
        "lag_seconds": look.lag_ms().map(|lag| lag / 1000),
        "capture_lag_ms": look.capture_lag_ms(),
        "as_of": look.as_of(),
        "source_now": look.source_now(),
        "source_window_seconds": look.window_seconds(),
        "applied_through": look.applied_through().map(|time| time.0),
        "source_operation_time": look.operation_time().map(|time| time.0),
        "sources": sources(look),
        "processes": processes(look),
        "troubles": troubles(look),
        "collections": collections(look),
        "lanes": lanes(look),
        "captured": captured(look),
        "partitions": partitions(look),
        "dead_letters": letters(look),
        "dead_letters_total": look.dead_letters(),
        "waiting": waiting_rows(look),
        "standing": standing(look),
        "gone": gone(look),
        "recopies": recopies(look),
        "tallies": tallies(look),
        "verification": verification(look),
        "checks": checks(look),
        "append_only": breach_counts(look),
        "append_only_documents": breaches(look),
        "cutover": cutover(look),
        "incidents": incidents(look),
        "incidents_total": look.incidents_total,
    })
}

fn verification(look: &Look) -> Value {
    if look.verified.is_none() && look.followed.is_empty() {
        return Value::Null;
    }
    let through = look.followed.iter().map(|row| {
        json!({
            "collection": row.collection,
            "verified_through": row.through_at,
            "lag_ms": look.verified_lag_ms(row),
            "whole": row.based,
            "documents": row.documents,
        })
    });
    json!({
        "began": look.verified.map(|verified| verified.began),
        "ended": look.verified.map(|verified| verified.ended),
        "equal": look.verified.map(|verified| verified.equal),
        "whole": look.verified.map(|verified| verified.whole),
        "findings": look.verified.map(|verified| verified.findings),
        "changes": through.collect::<Vec<_>>(),
    })
}

fn checks(look: &Look) -> Vec<Value> {
    let check = |CheckState { row, rollback }: &CheckState| {
        json!({
            "check": row.name,
            "verdict": row.verdict,
            "text": row.text,
            "ran_at": row.ran_at,
            "settled_at": row.settled_at,
            "failing": row.failing,
            "since": row.since,
            "rollback": rollback,
        })
    };
    look.checks.iter().map(check).collect()
}

fn standing(look: &Look) -> Vec<Value> {
    let row = |row: &StandingRow| {
        json!({
            "collection": row.collection,
            "table": row.table,
            "kind": row.kind,
            "text": row.text,
            "remedy": row.remedy,
            "since": row.since,
            "documents": row.documents,
        })
    };
    look.standing.iter().map(row).collect()
}

fn gone(look: &Look) -> Vec<Value> {
    let row = |row: &GoneRow| {
        json!({
            "collection": row.collection,
            "text": row.text,
            "since": row.since,
            "word": row.word.map(Word::word),
        })
    };
    look.gone.iter().map(row).collect()
}

fn recopies(look: &Look) -> Vec<Value> {
    let row = |row: &RecopyRow| json!({ "collection": row.collection, "kind": row.kind, "text": row.text });
    look.recopies.iter().map(row).collect()
}

fn sources(look: &Look) -> Vec<Value> {
    let source = |row: &SourceRow| {
        json!({
            "name": row.source,
            "kind": row.kind.word(),
            "lag_ms": look.lag_of(&row.source),
            "capture_lag_ms": look.capture_lag_of(&row.source),
            "pulse_ms": row.pulse_ms,
            "skew_ms": row.skew_ms,
            "operation_time": row.operation_time.map(|time| time.0),
            "read_through": row.read_through.map(|time| time.0),
            "read_as_of": row.read_as_of,
            "oplog_from": row.oplog_from.map(|time| time.0),
            "trouble": row.trouble,
            "silent_ms": row.silent_ms,
        })
    };
    let unheard = |name: &&str| look.sources.iter().all(|row| row.source != **name);
    let of_nobody = |name: &str| json!({ "name": name, "lag_ms": null, "trouble": null });
    look.sources.iter().map(source).chain(look.names().into_iter().filter(unheard).map(of_nobody)).collect()
}

fn processes(look: &Look) -> Vec<Value> {
    let process = |row: &ProcessRow| {
        json!({
            "name": row.name,
            "role": row.role,
            "host": row.host,
            "up": is_up(row),
            "ended": row.ended,
            "silent_ms": row.silent_ms,
            "age_ms": row.age_ms,
            "events": row.events,
            "rows_written": row.rows,
            "bytes": row.bytes,
            "documents_copied": row.documents,
            "trouble": row.trouble,
        })
    };
    look.processes.iter().map(process).collect()
}

fn troubles(look: &Look) -> Vec<Value> {
    let troubles = look.troubles();
    troubles.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect()
}

fn collections(look: &Look) -> Vec<Value> {
    let collection = |row: &CollectionRow| {
        json!({
            "name": row.collection,
            "state": state(row),
            "generation": row.generation,
            "documents_estimate": row.documents_estimate,
            "documents_copied": row.documents_copied,
            "chunks_total": row.chunks_total,
            "chunks_done": row.chunks_done,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
        })
    };
    look.collections.iter().map(collection).collect()
}

fn lanes(look: &Look) -> Vec<Value> {
    let lane = |lane: &LaneRow| {
        json!({
            "name": lane.lane,
            "source": lane.source,
            "epoch": lane.epoch,
            "sequence": lane.progress.sequence,
            "events": lane.progress.events,
            "rows_written": lane.progress.rows_written,
            "applied_through": lane.progress.applied_through.map(|time| time.0),
            "as_of": lane.progress.as_of,
            "source_time": lane.progress.source_time,
            "silent_ms": lane.idle_ms,
        })
    };
    look.lanes.iter().map(lane).collect()
}

fn partitions(look: &Look) -> Vec<Value> {
    let partition = |row: &PartitionRow| {
        json!({
            "topic": &*row.topic,
            "partition": row.partition,
            "collection": row.collection,
            "source": row.source,
            "member": row.member,
            "epoch": row.epoch,
            "next_offset": row.next_offset,
            "records_waiting": waiting(row),
            "lag_ms": look.partition_lag_ms(row),
            "as_of": row.as_of,
            "events": row.events,
            "duplicates": row.duplicates,
            "superseded": row.superseded,
            "applied_through": row.applied_through.map(|time| time.0),
            "lost": row.lost,
            "silent_ms": row.idle_ms,
        })
    };
    look.partitions.iter().map(partition).collect()
}

fn captured(look: &Look) -> Vec<Value> {
    let rows = look.captured.iter();
    rows.map(|row| json!({ "source": row.source, "captured_through": row.time.0, "silent_ms": row.idle_ms }))
        .collect()
}

fn letters(look: &Look) -> Vec<Value> {
    let rows = look.letters.iter();
    rows.map(|row| json!({ "collection": row.collection, "kind": row.kind, "count": row.count, "example": row.example }))
        .collect()
}

fn waiting_rows(look: &Look) -> Vec<Value> {
    let waits = |row: &WaitingRows| {
        let example = |(key, wanted): &(String, String)| {
            if row.unique {
                json!({ "key": key, "beside": wanted })
            } else {
                json!({ "key": key, "wanted": wanted })
            }
        };
        json!({
            "table": row.table, "constraint": row.constraint, "wanted_table": row.wanted_table, "unique": row.unique,
            "blocks": row.blocks,
            "count": row.count, "held": row.held, "examples": row.examples.iter().map(example).collect::<Vec<_>>(),
        })
    };
    look.waiting.iter().map(waits).collect()
}

fn tallies(look: &Look) -> Vec<Value> {
    let tally = |row: &Tally| {
        json!({
            "collection": row.collection, "table": row.table, "column": row.column,
            "policy": row.policy, "count": row.count,
            "sample": Key::from_bytes(&row.sample_key).to_string(),
        })
    };
    look.tallies.iter().map(tally).collect()
}

fn breach_counts(look: &Look) -> Vec<Value> {
    let count = |row: &BreachCount| {
        json!({
            "collection": row.collection, "kind": row.kind, "documents": row.documents, "changes": row.changes,
        })
    };
    look.breach_counts.iter().map(count).collect()
}

fn breaches(look: &Look) -> Vec<Value> {
    let breach = |row: &BreachRow| {
        json!({
            "collection": row.collection, "kind": row.kind, "key": Key::from_bytes(&row.key).to_string(),
            "changes": row.count, "last_at": row.last_at,
        })
    };
    look.breaches.iter().map(breach).collect()
}

fn cutover(look: &Look) -> Option<Value> {
    let row = look.cutover.as_ref()?;
    Some(json!({
        "id": row.id.to_string(), "state": row.state.word(), "host": row.host, "armed_at": row.armed_at,
        "open_at": row.open_at, "reason": row.reason,
        "accepted": row.accepted.blockers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "accepted_because": (!row.accepted.is_empty()).then_some(&row.accepted.reason),
    }))
}

fn incidents(look: &Look) -> Vec<Value> {
    let rows = look.incidents.iter();
    rows.map(|row| json!({ "at": row.at, "kind": row.kind, "collection": row.collection, "text": row.text }))
        .collect()
}

//! Metrics for Prometheus: those of the pipeline, read from a [`Look`], so that every process shows the whole; and the
//! process's own.

mod names;
mod own;

use std::time::Duration;

use super::look::{Look, STATES, is_up, state, waiting};
use names::{METRICS, Metric, Origin};
pub(crate) use own::{Own, Retry, reconnected, retried, wrote};

/// What the process knows about itself and its look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    pub(crate) control_store_up: bool,
    pub(crate) ready: bool,
    /// How old the look is.
    pub(crate) age: Option<Duration>,
}

struct Sample {
    metric: &'static Metric,
    labels: Vec<String>,
    value: f64,
}

/// The samples, before they are written as text.
#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn put(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        self.0.push(Sample { metric, labels: labels.iter().map(|&label| label.to_owned()).collect(), value });
    }

    fn known(&mut self, metric: &'static Metric, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.put(metric, labels, value);
        }
    }
}

/// The metrics in the text format of Prometheus; `look` is the newest.
pub(crate) fn exposition(look: Option<&Look>, here: Here) -> String {
    let mut samples = Samples::default();
    if let Some(look) = look {
        pipeline(look, &mut samples);
    }
    let flag = |value: bool| f64::from(u8::from(value));
    samples.put(&names::CONTROL_STORE_UP, &[], flag(here.control_store_up));
    samples.known(&names::CONTROL_STORE_AGE, &[], here.age.map(|age| age.as_secs_f64()));
    samples.put(&names::READY, &[], flag(here.ready));
    samples.put(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    written(&samples, look.map(|look| look.migration.as_str()))
}

fn pipeline(look: &Look, out: &mut Samples) {
    let flag = |value: bool| f64::from(u8::from(value));
    out.known(&names::LAG, &[], seconds(look.lag_ms()));
    out.known(&names::CAPTURE_LAG, &[], seconds(look.capture_lag_ms()));
    out.known(&names::SOURCE_WINDOW, &[], look.window_seconds().map(|seconds| seconds as f64));
    out.put(&names::RUNNING, &[], flag(look.running()));
    for source in look.names() {
        out.known(&names::SOURCE_LAG, &[source], seconds(look.lag_of(source)));
    }
    for source in &look.sources {
        out.known(&names::SOURCE_SILENT, &[&source.source], seconds(source.pulse_ms));
        out.known(&names::SOURCE_SKEW, &[&source.source], seconds(source.skew_ms));
    }
    out.put(&names::COLLECTIONS, &[], look.named.max(look.collections.len()) as f64);
    out.put(&names::COLLECTIONS_COPIED, &[], look.copied_collections() as f64);
    for row in &look.collections {
        let name = [row.collection.as_str()];
        for one in STATES {
            out.put(&names::COLLECTION_STATE, &[name[0], one], flag(state(row) == one));
        }
        out.put(&names::SNAPSHOT_DOCUMENTS, &name, row.documents_copied as f64);
        out.put(&names::SNAPSHOT_ESTIMATE, &name, row.documents_estimate as f64);
        out.put(&names::SNAPSHOT_CHUNKS, &name, row.chunks_total as f64);
        out.put(&names::SNAPSHOT_CHUNKS_DONE, &name, row.chunks_done as f64);
    }
    partitions(look, out);
    for row in &look.processes {
        let stage = if row.role == "capture" { "capture" } else { "apply" };
        out.put(&names::EVENTS, &[stage, &row.name], row.events as f64);
        out.put(&names::BYTES, &[stage, &row.name], row.bytes as f64);
        if stage == "apply" {
            out.put(&names::ROWS, &[&row.name], row.rows as f64);
        }
        if !row.ended {
            let labels = [row.name.as_str(), row.role.as_str()];
            out.put(&names::PROCESS_UP, &labels, flag(is_up(row)));
            out.known(&names::PROCESS_SILENT, &labels, seconds(Some(row.silent_ms)));
            out.put(&names::PROCESS_WAITING, &labels, flag(row.trouble.is_some()));
        }
    }
    for row in &look.letters {
        out.put(&names::DEAD_LETTERS, &[&row.collection, &row.kind], row.count as f64);
    }
    for row in &look.waiting {
        out.put(&names::WAITING_ROWS, &[&row.table, &row.constraint], row.count as f64);
    }
    for row in &look.standing {
        out.put(&names::STANDING, &[&row.collection, &row.table], row.documents as f64);
    }
    for row in look.parked() {
        out.put(&names::PARKED, &[&row.collection], 1.0);
    }
    if let Some(verified) = look.verified {
        out.put(&names::FINDINGS, &[], verified.findings as f64);
        if verified.equal && verified.whole {
            out.put(&names::VERIFIED, &[], verified.began as f64 / 1000.0);
        }
    }
    for row in &look.followed {
        let lag = look.verified_lag_ms(row) as f64 / 1000.0;
        out.put(&names::VERIFIED_LAG, &[&row.collection], lag);
    }
    checks(look, out);
    for row in &look.tallies {
        out.put(&names::POLICY, &[&row.collection, &row.table, &row.column, &row.policy], row.count as f64);
    }
    for row in &look.breach_counts {
        out.put(&names::APPEND_ONLY, &[&row.collection, &row.kind], row.changes as f64);
    }
    out.put(&names::INCIDENTS, &[], look.incidents_total as f64);
}

fn checks(look: &Look, out: &mut Samples) {
    for state in &look.checks {
        let name = [state.row.name.as_str()];
        let holds = state.row.failing.map(|failing| f64::from(u8::from(!failing)));
        out.known(&names::CHECK_HOLDS, &name, holds);
        out.known(&names::CHECK_SETTLED, &name, state.row.settled_at.map(|at| at as f64 / 1000.0));
    }
    let mut criteria = look.checks.iter().filter(|state| state.rollback).peekable();
    if criteria.peek().is_some() {
        let failing = criteria.filter(|state| state.row.failing == Some(true)).count();
        out.put(&names::ROLLBACK_CRITERIA, &[], failing as f64);
    }
}

fn partitions(look: &Look, out: &mut Samples) {
    for row in &look.partitions {
        let number = row.partition.to_string();
        let labels = [&*row.topic, number.as_str()];
        out.known(&names::PARTITION_LAG, &labels, seconds(look.partition_lag_ms(row)));
        out.put(&names::PARTITION_RECORDS, &labels, waiting(row) as f64);
        if row.lost.is_some() {
            out.put(&names::PARTITION_LOST, &labels, 1.0);
        }
        if let Some(member) = &row.member {
            out.put(&names::PARTITION_OWNED, &[labels[0], labels[1], &format!("apply/{member}")], 1.0);
        }
        out.put(&names::PARTITION_EVENTS, &labels, row.events as f64);
        out.put(&names::DUPLICATES, &labels, row.duplicates as f64);
        out.put(&names::SUPERSEDED, &labels, row.superseded as f64);
    }
}

fn seconds(milliseconds: Option<i64>) -> Option<f64> {
    milliseconds.map(|milliseconds| milliseconds as f64 / 1000.0)
}

/// One block for each metric, in the order of the table.
fn written(samples: &Samples, migration: Option<&str>) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let mut of_it = samples.0.iter().filter(|sample| sample.metric == *metric).peekable();
        if of_it.peek().is_some() {
            let name = metric.name;
            text += &format!("# HELP {name} {}\n# TYPE {name} {}\n", metric.help, metric.kind.word());
        }
        for sample in of_it {
            let of_pipeline = metric.origin == Origin::Pipeline;
            let migration = migration.filter(|_| of_pipeline).map(|migration| ("migration", migration));
            let labels = metric.labels.iter().copied().zip(sample.labels.iter().map(String::as_str));
            let labels: Vec<String> = migration
                .into_iter()
                .chain(labels)
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            text += metric.name;
            if !labels.is_empty() {
                text += &format!("{{{}}}", labels.join(","));
            }
            text += &format!(" {}\n", sample.value);
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;

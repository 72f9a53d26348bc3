//! The process's own metrics, counted through the crate `metrics`. Without `--listen`, counting costs nothing.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::names::{
    Kind, METRICS, OWN_BYTES, OWN_CONNECTIONS, OWN_EVENTS, OWN_RETRIES, OWN_ROWS, OWN_TRANSACTION, Origin,
};

/// A transaction of a few rows takes milliseconds, one of a chunk seconds.
const BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Why a transaction is retried.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Retry {
    Contention,
    Wait,
    Reference,
    Search,
}

/// The counters of this process.
pub(crate) struct Own(PrometheusHandle);

impl Own {
    /// Starts to count. `None` if another recorder is already installed in this process.
    pub(crate) fn start() -> Option<Self> {
        let matcher = Matcher::Full(OWN_TRANSACTION.name.to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(matcher, &BUCKETS).ok()?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        for metric in METRICS.iter().filter(|metric| metric.origin == Origin::Process) {
            match metric.kind {
                Kind::Counter => describe_counter!(metric.name, metric.help),
                Kind::Histogram => describe_histogram!(metric.name, metric.help),
                Kind::Gauge => {}
            }
        }
        Some(Self(handle))
    }

    /// The counters in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        self.0.render()
    }

    /// Sums up the recorded values; without this, values that nobody reads would pile up one by one.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Counts a transaction that was committed in the target.
pub(crate) fn wrote(events: u64, rows: u64, bytes: u64, took: Duration) {
    counter!(OWN_EVENTS.name).increment(events);
    counter!(OWN_ROWS.name).increment(rows);
    counter!(OWN_BYTES.name).increment(bytes);
    histogram!(OWN_TRANSACTION.name).record(took.as_secs_f64());
}

/// Counts a retry of a transaction.
pub(crate) fn retried(reason: Retry) {
    let reason = match reason {
        Retry::Contention => "contention",
        Retry::Wait => "wait",
        Retry::Reference => "reference",
        Retry::Search => "search",
    };
    counter!(OWN_RETRIES.name, "reason" => reason).increment(1);
}

/// Counts a connection that was reopened.
pub(crate) fn reconnected(server: &'static str) {
    counter!(OWN_CONNECTIONS.name, "server" => server).increment(1);
}

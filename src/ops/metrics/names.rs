//! Every metric there is, in one table: name, unit, type, labels, help. `docs/metrics.md` is checked against it.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// Who knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The control store: every process shows the same.
    Pipeline,
    /// The process that is asked, of itself.
    Process,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
    /// Beside `migration`, which every metric of the pipeline has.
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $origin:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(crate) static $constant: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            origin: Origin::$origin,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// All of them, in the order in which they are shown.
        pub(crate) static METRICS: &[&Metric] = &[$(&$constant),+];
    };
}

metrics! {
    LAG Pipeline Gauge "slackwater_lag_seconds" []
        "How far the target is behind the source: the source's present less the moment as of which everything is applied. Absent where it cannot be known.";
    CAPTURE_LAG Pipeline Gauge "slackwater_capture_lag_seconds" []
        "How far what is in the log is behind the source; the rest of the lag arises behind the log.";
    PARTITION_LAG Pipeline Gauge "slackwater_partition_lag_seconds" ["topic", "partition"]
        "How far one partition of the log is applied behind the source.";
    PARTITION_RECORDS Pipeline Gauge "slackwater_partition_lag_records" ["topic", "partition"]
        "Records of a partition that the broker has acknowledged and that are not applied.";
    PARTITION_LOST Pipeline Gauge "slackwater_partition_lost" ["topic", "partition"]
        "1 where the log has lost what was not applied yet; its collection is copied again.";
    PARTITION_OWNED Pipeline Gauge "slackwater_partition_owned" ["topic", "partition", "name"]
        "1 for the process that reads a partition.";
    SOURCE_WINDOW Pipeline Gauge "slackwater_source_window_seconds" []
        "How much history the source keeps from before our saved position: what is left before changes are lost. Absent without the right to ask.";
    SOURCE_SILENT Pipeline Gauge "slackwater_source_silent_seconds" ["source"]
        "Since the source said last what time it is.";
    SOURCE_SKEW Pipeline Gauge "slackwater_source_clock_skew_seconds" ["source"]
        "How far the source's clock is ahead of the target's.";
    RUNNING Pipeline Gauge "slackwater_running" []
        "1 while somebody reads the source and somebody writes the target.";
    COLLECTIONS Pipeline Gauge "slackwater_collections" []
        "Collections of the migration.";
    COLLECTIONS_COPIED Pipeline Gauge "slackwater_collections_copied" []
        "Collections whose copy is complete.";
    COLLECTION_STATE Pipeline Gauge "slackwater_collection_state" ["collection", "state"]
        "1 for the state that the copy of a collection is in: pending, copying, copied, copying again, sweeping.";
    SNAPSHOT_DOCUMENTS Pipeline Gauge "slackwater_snapshot_documents" ["collection"]
        "Documents of a collection in pieces that were copied.";
    SNAPSHOT_ESTIMATE Pipeline Gauge "slackwater_snapshot_documents_estimate" ["collection"]
        "Documents to copy, as the source estimated them.";
    SNAPSHOT_CHUNKS Pipeline Gauge "slackwater_snapshot_chunks" ["collection"]
        "Pieces that a collection was cut into.";
    SNAPSHOT_CHUNKS_DONE Pipeline Gauge "slackwater_snapshot_chunks_done" ["collection"]
        "Pieces that were copied.";
    EVENTS Pipeline Counter "slackwater_events_total" ["stage", "name"]
        "Events that a process has taken since it was started; the stage is `capture` (into Kafka) or `apply` (into the target).";
    ROWS Pipeline Counter "slackwater_rows_total" ["name"]
        "Rows that a process has inserted, changed or deleted since it was started.";
    BYTES Pipeline Counter "slackwater_bytes_total" ["stage", "name"]
        "Bytes of the documents in what a process has taken since it was started.";
    PARTITION_EVENTS Pipeline Counter "slackwater_partition_events_total" ["topic", "partition"]
        "Events of a partition that were applied, ever.";
    DUPLICATES Pipeline Counter "slackwater_duplicates_total" ["topic", "partition"]
        "Events that were dropped because they had been applied.";
    SUPERSEDED Pipeline Counter "slackwater_superseded_total" ["topic", "partition"]
        "Records that were dropped because a capture that was succeeded had sent them.";
    DEAD_LETTERS Pipeline Gauge "slackwater_dead_letters" ["collection", "kind"]
        "Documents that cannot be written, as of now.";
    POLICY Pipeline Counter "slackwater_policy_total" ["collection", "table", "column", "policy"]
        "How often a policy of the migration file did something to a value.";
    INCIDENTS Pipeline Counter "slackwater_incidents_total" []
        "What a person should know of: history lost, collections copied again.";
    PROCESS_UP Pipeline Gauge "slackwater_process_up" ["name", "role"]
        "1 while the process says every second that it lives; 0 when it has been silent for 3 s. One that has ended in good order is not shown.";
    PROCESS_SILENT Pipeline Gauge "slackwater_process_silent_seconds" ["name", "role"]
        "Since the process said last that it lives.";
    PROCESS_WAITING Pipeline Gauge "slackwater_process_waiting" ["name", "role"]
        "1 while the process waits for a server; `slackwater status` says for which.";
    CONTROL_STORE_UP Process Gauge "slackwater_control_store_up" []
        "1 where the control store answered; 0: the figures of the pipeline are those that it gave last.";
    CONTROL_STORE_AGE Process Gauge "slackwater_control_store_age_seconds" []
        "How old the figures of the pipeline are.";
    READY Process Gauge "slackwater_ready" []
        "1 where /readyz says that this process works.";
    BUILD_INFO Process Gauge "slackwater_build_info" ["version"]
        "Always 1; the version of this process.";
    OWN_EVENTS Process Counter "slackwater_own_events_total" []
        "Events that this process has written into the target.";
    OWN_ROWS Process Counter "slackwater_own_rows_total" []
        "Rows that this process has inserted, changed or deleted.";
    OWN_BYTES Process Counter "slackwater_own_bytes_total" []
        "Bytes of the documents in those events.";
    OWN_TRANSACTION Process Histogram "slackwater_own_transaction_seconds" []
        "How long transactions in the target took, from the mapping to the answer.";
    OWN_RETRIES Process Counter "slackwater_own_retries_total" ["reason"]
        "Transactions that were made again: `contention`, `wait` for the target, `reference` that was not there yet, `search` for a record that fails.";
    OWN_CONNECTIONS Process Counter "slackwater_own_connections_total" ["server"]
        "Connections that had to be made again.";
}

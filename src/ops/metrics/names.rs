//! The table of all metrics: name, type, labels, help. A test compares `docs/metrics.md` with it.

/// The type of a metric.
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

/// Where a metric comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The control store; every process shows the same.
    Pipeline,
    /// The process that answers the request.
    Process,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
    /// Besides `migration`, which every metric of the pipeline has.
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

        /// All metrics, in the order in which they are shown.
        pub(crate) static METRICS: &[&Metric] = &[$(&$constant),+];
    };
}

metrics! {
    LAG Pipeline Gauge "slackwater_lag_seconds" []
        "How far the target is behind the source: the present of the source's clock minus the time as of which everything is applied. Absent if it cannot be known.";
    CAPTURE_LAG Pipeline Gauge "slackwater_capture_lag_seconds" []
        "How far the log is behind the source; the rest of the lag arises between the log and the target.";
    SOURCE_LAG Pipeline Gauge "slackwater_source_lag_seconds" ["source"]
        "How far the target is behind each source; slackwater_lag_seconds is the largest of them.";
    PARTITION_LAG Pipeline Gauge "slackwater_partition_lag_seconds" ["topic", "partition"]
        "How far the target is behind the source for one partition of the log.";
    PARTITION_RECORDS Pipeline Gauge "slackwater_partition_lag_records" ["topic", "partition"]
        "Records of a partition that the broker has acknowledged and that are not applied yet.";
    PARTITION_LOST Pipeline Gauge "slackwater_partition_lost" ["topic", "partition"]
        "1 if the log has lost records of the partition that were not applied yet; its collection is recopied.";
    PARTITION_OWNED Pipeline Gauge "slackwater_partition_owned" ["topic", "partition", "name"]
        "1 for the process that reads a partition.";
    SOURCE_WINDOW Pipeline Gauge "slackwater_source_window_seconds" []
        "How much history the source keeps from before our saved position: the time left before changes are lost. Absent without the right to ask.";
    SOURCE_SILENT Pipeline Gauge "slackwater_source_silent_seconds" ["source"]
        "Time since the source last answered with its clock.";
    SOURCE_SKEW Pipeline Gauge "slackwater_source_clock_skew_seconds" ["source"]
        "How far the source's clock is ahead of the target's.";
    RUNNING Pipeline Gauge "slackwater_running" []
        "1 while a process reads the source and a process writes the target.";
    COLLECTIONS Pipeline Gauge "slackwater_collections" []
        "Collections of the migration.";
    COLLECTIONS_COPIED Pipeline Gauge "slackwater_collections_copied" []
        "Collections whose copy is complete.";
    COLLECTION_STATE Pipeline Gauge "slackwater_collection_state" ["collection", "state"]
        "1 for the current state of a collection's copy: pending, copying, copied, copying again, sweeping.";
    SNAPSHOT_DOCUMENTS Pipeline Gauge "slackwater_snapshot_documents" ["collection"]
        "Documents of a collection in chunks that are copied.";
    SNAPSHOT_ESTIMATE Pipeline Gauge "slackwater_snapshot_documents_estimate" ["collection"]
        "Documents of a collection to copy, as estimated by the source.";
    SNAPSHOT_CHUNKS Pipeline Gauge "slackwater_snapshot_chunks" ["collection"]
        "Chunks of a collection.";
    SNAPSHOT_CHUNKS_DONE Pipeline Gauge "slackwater_snapshot_chunks_done" ["collection"]
        "Chunks of a collection that are copied.";
    EVENTS Pipeline Counter "slackwater_events_total" ["stage", "name"]
        "Events that a process has handled since it started; the stage is `capture` (into Kafka) or `apply` (into the target).";
    ROWS Pipeline Counter "slackwater_rows_total" ["name"]
        "Rows that a process has inserted, changed or deleted since it started.";
    BYTES Pipeline Counter "slackwater_bytes_total" ["stage", "name"]
        "Bytes of the documents in the events that a process has handled since it started.";
    PARTITION_EVENTS Pipeline Counter "slackwater_partition_events_total" ["topic", "partition"]
        "Events of a partition that were ever applied.";
    DUPLICATES Pipeline Counter "slackwater_duplicates_total" ["topic", "partition"]
        "Events of a partition that were dropped because they had already been applied.";
    SUPERSEDED Pipeline Counter "slackwater_superseded_total" ["topic", "partition"]
        "Records of a partition that were dropped because a superseded capture had sent them.";
    DEAD_LETTERS Pipeline Gauge "slackwater_dead_letters" ["collection", "kind"]
        "Documents that cannot be written at present.";
    WAITING_ROWS Pipeline Gauge "slackwater_waiting_rows" ["table", "constraint"]
        "Rows that lack a row of another table, or a unique value that another row has.";
    STANDING Pipeline Gauge "slackwater_standing_documents" ["collection", "table"]
        "Documents that wait because a table of their collection cannot be written as it is now; absent while all can.";
    PARKED Pipeline Gauge "slackwater_collection_parked" ["collection"]
        "1 for a collection that is gone at the source and of whose rows nobody has said what becomes of them; absent otherwise.";
    FINDINGS Pipeline Gauge "slackwater_findings" []
        "What the last verification found that nothing explains. Absent before the first one.";
    VERIFIED Pipeline Gauge "slackwater_verified_timestamp_seconds" []
        "When the last whole verification that found everything equal began, in seconds since 1970. Absent if the last one was another.";
    VERIFIED_LAG Pipeline Gauge "slackwater_verified_lag_seconds" ["collection"]
        "How far the verification of a collection's changes is behind its source. Absent where changes are not verified.";
    CHECK_HOLDS Pipeline Gauge "slackwater_check_holds" ["check"]
        "1 if a check of the migration file held when it last came to a verdict, 0 if it failed. Absent before that.";
    CHECK_SETTLED Pipeline Gauge "slackwater_check_timestamp_seconds" ["check"]
        "When a check last began that came to a verdict, in seconds since 1970.";
    ROLLBACK_CRITERIA Pipeline Gauge "slackwater_rollback_criteria_failing" []
        "Checks with `rollback: true` that failed when they last came to a verdict. Absent before the first one has run.";
    POLICY Pipeline Counter "slackwater_policy_total" ["collection", "table", "column", "policy"]
        "How often a policy of the migration file changed or dropped a value.";
    APPEND_ONLY Pipeline Counter "slackwater_append_only_total" ["collection", "kind"]
        "Changes of documents of append-only collections, which were not applied: `update`, `delete`, or `insert` after a delete.";
    INCIDENTS Pipeline Counter "slackwater_incidents_total" []
        "Incidents, such as lost history or recopied collections.";
    PROCESS_UP Pipeline Gauge "slackwater_process_up" ["name", "role"]
        "1 while the process writes its beat every second; 0 after 3 s without one. A process that ended on request is not shown.";
    PROCESS_SILENT Pipeline Gauge "slackwater_process_silent_seconds" ["name", "role"]
        "Time since the last beat of the process.";
    PROCESS_WAITING Pipeline Gauge "slackwater_process_waiting" ["name", "role"]
        "1 while the process waits for a server; `slackwater status` says for which.";
    CONTROL_STORE_UP Process Gauge "slackwater_control_store_up" []
        "1 if the control store answered; 0 if it did not, and the figures of the pipeline are the last known ones.";
    CONTROL_STORE_AGE Process Gauge "slackwater_control_store_age_seconds" []
        "Age of the figures of the pipeline.";
    READY Process Gauge "slackwater_ready" []
        "1 if /readyz answers that this process works.";
    BUILD_INFO Process Gauge "slackwater_build_info" ["version"]
        "Always 1; the version of this process.";
    OWN_EVENTS Process Counter "slackwater_own_events_total" []
        "Events that this process has written into the target.";
    OWN_ROWS Process Counter "slackwater_own_rows_total" []
        "Rows that this process has inserted, changed or deleted.";
    OWN_BYTES Process Counter "slackwater_own_bytes_total" []
        "Bytes of the documents in those events.";
    OWN_TRANSACTION Process Histogram "slackwater_own_transaction_seconds" []
        "How long transactions in the target took, from mapping to commit.";
    OWN_RETRIES Process Counter "slackwater_own_retries_total" ["reason"]
        "Transactions that were retried, by reason: `contention` with another transaction, `wait` for the target, a `reference` whose target was missing, a `search` for a failing record.";
    OWN_CONNECTIONS Process Counter "slackwater_own_connections_total" ["server"]
        "Connections that were reopened.";
}

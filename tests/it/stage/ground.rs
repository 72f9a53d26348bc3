//! A migration that is set up and run in either way: in one process, or over Kafka with two appliers.

use std::path::{Path, PathBuf};

use super::broker::shared;
use super::pipeline::{Log, Pipeline};
use super::{Slackwater, Stage, followed};

pub(crate) enum Ground {
    Direct(Box<Stage>, PathBuf),
    Kafka(Box<Pipeline>),
}

impl Ground {
    /// `collections`: made beforehand, so that a changed one is never a new one. What changes is verified beside everything else.
    pub(crate) async fn set(name: &str, kafka: bool, schema: &str, file: &str, collections: &[&str]) -> Self {
        Self::bare(name, kafka, schema, &followed(file), collections).await
    }

    /// The same with the file as it is.
    pub(crate) async fn bare(
        name: &str,
        kafka: bool,
        schema: &str,
        file: &str,
        collections: &[&str],
    ) -> Self {
        let name = format!("{name}_{}", if kafka { "kafka" } else { "direct" });
        Self::on(Stage::new(&name).await, kafka, schema, file, collections).await
    }

    /// The same on a stage that is there.
    pub(crate) async fn on(
        stage: Stage,
        kafka: bool,
        schema: &str,
        file: &str,
        collections: &[&str],
    ) -> Self {
        stage.target.batch_execute(schema).await.expect("the tables can be created");
        for collection in collections {
            stage.source.create_collection(*collection).await.expect("a collection");
        }
        if kafka {
            let log = Log { partitions: 3, ..Log::at(&shared()) };
            return Self::Kafka(Box::new(Pipeline::on(stage, file, &log).await));
        }
        let file = stage.file("migration.yaml", file);
        Self::Direct(Box::new(stage), file)
    }

    pub(crate) fn stage(&self) -> &Stage {
        match self {
            Self::Direct(stage, _) => stage,
            Self::Kafka(pipeline) => &pipeline.stage,
        }
    }

    pub(crate) fn stage_mut(&mut self) -> &mut Stage {
        match self {
            Self::Direct(stage, _) => stage,
            Self::Kafka(pipeline) => &mut pipeline.stage,
        }
    }

    pub(crate) fn file(&self) -> &Path {
        match self {
            Self::Direct(_, file) => file,
            Self::Kafka(pipeline) => &pipeline.file,
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &str {
        self.file().to_str().expect("a path in UTF-8")
    }

    /// What `slackwater verify` says.
    pub(crate) async fn verify(&self, more: &[&str]) -> serde_json::Value {
        self.stage().verify(self.file(), more).await
    }

    /// What `slackwater repair` says.
    pub(crate) async fn repair(&self, more: &[&str]) -> serde_json::Value {
        let mut arguments = vec!["repair", self.path(), "--json"];
        arguments.extend(more);
        let output = self.stage().output(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("an answer: {said}"))
    }

    pub(crate) fn start(&self, which: usize) -> Slackwater {
        match (self, which) {
            (Self::Direct(stage, file), _) => stage.run(file),
            (Self::Kafka(pipeline), 0) => pipeline.capture("capture"),
            (Self::Kafka(pipeline), 1) => pipeline.apply("one", Some("one")),
            (Self::Kafka(pipeline), _) => pipeline.apply("two", Some("two")),
        }
    }

    /// One more applier, where there can be one.
    pub(crate) fn join(&self) -> Option<Slackwater> {
        match self {
            Self::Direct(..) => None,
            Self::Kafka(pipeline) => Some(pipeline.apply("three", None)),
        }
    }

    pub(crate) fn processes(&self) -> Vec<Slackwater> {
        let count = if matches!(self, Self::Kafka(_)) { 3 } else { 1 };
        (0..count).map(|which| self.start(which)).collect()
    }

    /// Ends the processes. Before, while they are at work, a verification finds nothing: what has come out right so far is known to be so.
    pub(crate) async fn end(self, processes: Vec<Slackwater>) {
        self.stage().verifies(self.file()).await;
        for process in processes {
            process.stop().await;
        }
        self.clear().await;
    }

    /// Removes everything.
    pub(crate) async fn clear(self) {
        match self {
            Self::Direct(stage, _) => stage.clear().await,
            Self::Kafka(pipeline) => pipeline.clear().await,
        }
    }
}

//! A migration that is set up and run in either way: in one process, or over Kafka with two appliers.

use std::path::PathBuf;

use super::broker::shared;
use super::pipeline::{Log, Pipeline};
use super::{Slackwater, Stage};

pub(crate) enum Ground {
    Direct(Box<Stage>, PathBuf),
    Kafka(Box<Pipeline>),
}

impl Ground {
    /// `collections`: made beforehand, so that a changed one is never a new one.
    pub(crate) async fn set(name: &str, kafka: bool, schema: &str, file: &str, collections: &[&str]) -> Self {
        let name = format!("{name}_{}", if kafka { "kafka" } else { "direct" });
        let stage = Stage::new(&name).await;
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

    /// The migration file.
    pub(crate) fn file(&self) -> &str {
        let file = match self {
            Self::Direct(_, file) => file,
            Self::Kafka(pipeline) => &pipeline.file,
        };
        file.to_str().expect("a path in UTF-8")
    }

    pub(crate) fn start(&self, which: usize) -> Slackwater {
        match (self, which) {
            (Self::Direct(stage, file), _) => stage.run(file),
            (Self::Kafka(pipeline), 0) => pipeline.capture("capture"),
            (Self::Kafka(pipeline), 1) => pipeline.apply("one", Some("one")),
            (Self::Kafka(pipeline), _) => pipeline.apply("two", Some("two")),
        }
    }

    pub(crate) fn processes(&self) -> Vec<Slackwater> {
        let count = if matches!(self, Self::Kafka(_)) { 3 } else { 1 };
        (0..count).map(|which| self.start(which)).collect()
    }

    pub(crate) async fn end(self, processes: Vec<Slackwater>) {
        for process in processes {
            process.stop().await;
        }
        match self {
            Self::Direct(stage, _) => stage.clear().await,
            Self::Kafka(pipeline) => pipeline.clear().await,
        }
    }
}

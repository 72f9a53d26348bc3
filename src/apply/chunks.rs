//! A lane for chunks of the copy, where the log is direct: writes each as it comes, and answers when it is in the target.

use slackwater_connectors::error::Result;
use tokio::sync::mpsc;

use super::lane::{Lane, Way};
use super::transaction::Transaction;
use crate::log::direct::Pending;
use crate::ops::persist::{Stopped, ended};

/// Works until its worker has ended or it is to stop.
pub(crate) async fn run(lane: Lane, chunks: mpsc::Receiver<Pending>) -> Result<()> {
    ended(write(lane, chunks).await)
}

async fn write(mut lane: Lane, mut chunks: mpsc::Receiver<Pending>) -> std::result::Result<(), Stopped> {
    while let Some((chunk, answer)) = chunks.recv().await {
        // Row keys are noted as seen by the upsert only.
        let way = if chunk.fresh && chunk.seen.is_empty() { Way::Copy } else { Way::Upsert };
        lane.write(&mut Transaction::chunk(chunk), way).await?;
        // The worker may have been told to stop meanwhile.
        let _ = answer.send(());
    }
    Ok(())
}

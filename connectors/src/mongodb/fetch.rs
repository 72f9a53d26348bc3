//! The task that holds a change stream's cursor.
//!
//! The driver's futures must not be cancelled, and they can hang: when packets are lost without a word, TCP notices
//! after a quarter of an hour. So nobody waits for the cursor itself. It lives in a task that is never stopped from
//! outside; who listens can walk away, and the task ends with its next answer, or with its connection.

use std::time::Duration;

use bson::{RawDocumentBuf, rawdoc};
use futures_util::StreamExt as _;
use mongodb::error::Error as Driver;
use mongodb::raw_batch_cursor::RawBatch;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::client::Mongo;
use super::error::kind_of;

/// A living server answers twice a second, unless it has much log to read through.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a server may take to say that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// So often a living server is given more time: reading through a day of log can take minutes.
const MOST_SILENCES: u32 = 40;

/// A cursor's answers.
pub(super) struct Fetched {
    answers: mpsc::Receiver<Result<RawBatch, Driver>>,
    mongo: Mongo,
}

/// What came of waiting.
pub(super) enum Next {
    Batch(RawBatch),
    Failed(Driver),
    /// Nothing more will come, or nothing has come for too long.
    TimedOut(&'static str),
}

impl Fetched {
    /// Opens a cursor whose server waits for `idle` where there is nothing to tell.
    pub(super) fn start(
        mongo: &Mongo,
        command: RawDocumentBuf,
        idle: Duration,
        batch_size: Option<u32>,
    ) -> Self {
        // One answer is read while the next one is fetched.
        let (sender, answers) = mpsc::channel(1);
        let database = mongo.handle();
        tokio::spawn(async move {
            let mut asked = database.run_raw_cursor_command(command).max_time(idle);
            if let Some(batch_size) = batch_size {
                asked = asked.batch_size(batch_size);
            }
            match asked.batch().await {
                Err(error) => drop(sender.send(Err(error)).await),
                Ok(mut cursor) => {
                    while let Some(answer) = cursor.next().await {
                        let last = answer.is_err();
                        if sender.send(answer).await.is_err() || last {
                            break;
                        }
                    }
                }
            }
        });
        Self { answers, mongo: mongo.clone() }
    }

    /// The next answer. May be cancelled.
    pub(super) async fn next(&mut self) -> Next {
        for _ in 0..MOST_SILENCES {
            match timeout(SILENCE, self.answers.recv()).await {
                Ok(Some(Ok(batch))) => return Next::Batch(batch),
                Ok(Some(Err(error))) => {
                    self.mongo.renew(kind_of(&error)).await;
                    return Next::Failed(error);
                }
                Ok(None) => return Next::TimedOut("the server closed the cursor"),
                Err(_) => {}
            }
            let database = self.mongo.handle();
            let ping =
                tokio::spawn(async move { database.run_raw_command(rawdoc! {"ping": 1}).await.is_ok() });
            // Dropping the handle lets the task run on.
            if !matches!(timeout(SIGN_OF_LIFE, ping).await, Ok(Ok(true))) {
                return Next::TimedOut("the server has stopped answering");
            }
        }
        Next::TimedOut("the server lives but has not answered for long")
    }
}

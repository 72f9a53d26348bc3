//! Statements sent in one go, without waiting for the answers in between.
//!
//! The driver sends a request when its future is first polled, so the order of polling is the order on the wire. The
//! usual joins do not promise an order; this one does. All futures are driven to their end, also after one has
//! failed: the COMMIT at the end has to go out in any case (after an error it rolls back).

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use postgres_types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::error::Result;
use crate::postgres::error::{explain, is_echo};

/// What is bound, in order.
pub(super) type Parameters<'a> = Vec<Box<dyn ToSql + Sync + Send + 'a>>;

/// One statement on its way.
pub(super) struct Call<'a> {
    doing: Cow<'static, str>,
    action: Action<'a>,
    count: Count,
}

enum Action<'a> {
    Simple(Cow<'static, str>),
    Prepared(Statement, Parameters<'a>),
}

/// What the number of rows in the answer means; the number here is that of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Nothing,
    Upserted(usize),
    Deleted(usize),
}

impl<'a> Call<'a> {
    /// SQL without parameters.
    pub(super) fn simple(doing: impl Into<Cow<'static, str>>, sql: impl Into<Cow<'static, str>>) -> Self {
        Self { doing: doing.into(), action: Action::Simple(sql.into()), count: Count::Nothing }
    }

    /// A prepared statement.
    pub(super) fn prepared(
        doing: impl Into<Cow<'static, str>>,
        statement: &Statement,
        parameters: Parameters<'a>,
    ) -> Self {
        Self {
            doing: doing.into(),
            action: Action::Prepared(statement.clone(), parameters),
            count: Count::Nothing,
        }
    }

    /// Its rows count.
    pub(super) fn counted(mut self, count: Count) -> Self {
        self.count = count;
        self
    }

    async fn run(self, client: &Client) -> Result<(Count, u64)> {
        let answer = match &self.action {
            Action::Simple(sql) => client.batch_execute(sql).await.map(|()| 0),
            Action::Prepared(statement, parameters) => {
                let parameters: Vec<&(dyn ToSql + Sync)> =
                    parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync)).collect();
                client.execute(statement, &parameters).await
            }
        };
        answer.map(|rows| (self.count, rows)).map_err(|error| explain(self.doing, &error))
    }
}

/// Sends the calls in their order and waits for all the answers. The error is the one that began it: those behind it only
/// say that the transaction had failed.
pub(super) async fn send(client: &Client, calls: Vec<Call<'_>>) -> Result<Vec<(Count, u64)>> {
    let mut answers = Vec::with_capacity(calls.len());
    let mut echo = None;
    for answer in in_order(calls.into_iter().map(|call| call.run(client))).await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) if is_echo(&error) => echo = echo.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    echo.map_or(Ok(answers), Err)
}

enum Slot<F: Future> {
    Waiting(Pin<Box<F>>),
    Done(F::Output),
}

async fn in_order<F: Future>(requests: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut slots: Vec<Slot<F>> = requests.map(|request| Slot::Waiting(Box::pin(request))).collect();
    poll_fn(|context| {
        let mut pending = false;
        for slot in &mut slots {
            if let Slot::Waiting(request) = slot {
                match request.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Done(output),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    slots
        .into_iter()
        .filter_map(|slot| match slot {
            Slot::Done(output) => Some(output),
            Slot::Waiting(_) => None,
        })
        .collect()
}

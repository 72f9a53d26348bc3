//! The request to stop, which every task sees.

use tokio::sync::watch;

/// Handed to every task; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// Held by the task that decides when to stop.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

/// A request that has not been made yet.
pub(crate) fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Requests all tasks to stop.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether a stop was requested.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the request. Safe to cancel.
    pub(crate) async fn wait(&mut self) {
        // Without a stopper no request can come; the tasks then end when the channels that they read from are closed.
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Sleeps until the time is over or a stop is requested; false if a stop is requested.
    pub(crate) async fn sleep(&mut self, time: std::time::Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.wait() => false,
        }
    }
}

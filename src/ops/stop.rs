//! The wish to stop, seen by every task.

use tokio::sync::watch;

/// Handed to every task; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// Held by whoever decides.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

/// A wish that nobody has voiced yet.
pub(crate) fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Stop now.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether to stop.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the wish. May be cancelled.
    pub(crate) async fn wait(&mut self) {
        // A stopper that is gone has no more wishes; its tasks end with the channels they read from.
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Sleeps, unless it is to stop first; false where it is to stop.
    pub(crate) async fn sleep(&mut self, time: std::time::Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.wait() => false,
        }
    }
}

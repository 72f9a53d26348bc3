//! What is being done at the moment, so that whoever gives up waiting can say for what.

use std::sync::{Arc, Mutex, PoisonError};

/// Things that were begun and have not ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Underway(Arc<Mutex<Vec<String>>>);

impl Underway {
    /// Does the work. If it is dropped halfway, it stays named.
    pub(crate) async fn during<T>(&self, what: impl Into<String>, work: impl Future<Output = T>) -> T {
        let what = what.into();
        self.change(|open| open.push(what.clone()));
        let done = work.await;
        self.change(|open| {
            if let Some(at) = open.iter().position(|known| *known == what) {
                open.remove(at);
            }
        });
        done
    }

    /// What has not ended.
    pub(crate) fn open(&self) -> Vec<String> {
        self.change(|open| open.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<String>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_given_up_stays_named() {
        let underway = Underway::default();
        assert_eq!(underway.during("one", async { underway.open() }).await, ["one"]);
        let never = underway.during("two", std::future::pending::<()>());
        assert!(tokio::time::timeout(std::time::Duration::ZERO, never).await.is_err());
        assert_eq!(underway.open(), ["two"]);
    }
}

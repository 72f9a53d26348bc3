//! Passwords and certificates of Kafka that change in their files while clients run.
//!
//! librdkafka keeps what a client was made with, and its call for another password is not a safe one. A client that is refused tries for ever
//! with the old one, and a producer that was sending at that moment gives up for good, so somebody has to make new clients. What is
//! unsent in an old one is lost with it; who sends begins at a saved position again, as after a crash.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::admin::Admin;
use super::settings::Settings;
use crate::error::Result;
use crate::retry::Pauses;

const LOOK: Duration = Duration::from_secs(1);
/// The library tells of the same refusal twice a minute, however often it is refused.
const REMEMBERED: Duration = Duration::from_secs(90);
/// Many servers lock a user out who is refused too often.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether a broker has refused one of the clients that share it.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<AtomicBool>);

impl Refusals {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What clients are made of, as it was at one time.
#[derive(PartialEq, Eq)]
struct Made {
    values: Vec<String>,
    /// The files that options name, and when each was written.
    files: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Made {
    fn of(settings: &Settings) -> Self {
        let (mut values, mut files) = (Vec::new(), Vec::new());
        for (name, value) in settings.all() {
            let value = value.expose_now().into_owned();
            if name.ends_with(".location") {
                let path = PathBuf::from(&value);
                let written = std::fs::metadata(&path).and_then(|found| found.modified()).ok();
                files.push((path, written));
            }
            values.push(value);
        }
        Self { values, files }
    }
}

/// Waits for the time when clients should be made anew.
pub struct Renewal {
    settings: Settings,
    refusals: Refusals,
    made: Made,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewal")
    }
}

impl Renewal {
    /// For clients that are about to be made with these settings, and share their refusals.
    pub fn of(settings: &Settings) -> Self {
        let made = Made::of(settings);
        // The question whether we would be let in is not to be taken for one of them.
        let own = Settings { refusals: Refusals::default(), ..settings.clone() };
        Self { settings: own, refusals: settings.refusals.clone(), made }
    }

    /// Ends when a client was refused, the files hold something else by now, and a broker lets us in with that. A file that is ahead of
    /// the brokers is tried again after growing pauses. May be cancelled.
    pub async fn due(&self) -> Result<()> {
        let mut pauses = Pauses::new(LOOK, LONGEST_PAUSE);
        let mut refused: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            if self.refusals.take() {
                refused = Some(Instant::now());
            }
            let recently = refused.is_some_and(|at| at.elapsed() < REMEMBERED);
            if !recently || Made::of(&self.settings) == self.made {
                continue;
            }
            match Admin::open(&self.settings)?.brokers().await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "what the files hold now is refused too");
                    tokio::time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Part, Secret};

    #[test]
    fn a_file_that_changes_makes_a_difference() {
        let folder = std::env::temp_dir().join(format!("slackwater_renewal_{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (password, certificate) = (folder.join("password"), folder.join("ca.pem"));
        std::fs::write(&password, "one").expect("a file");
        let settings = Settings {
            brokers: "127.0.0.1:1".into(),
            options: vec![
                ("sasl.password".into(), Secret::of(vec![Part::file(&password, "one")])),
                ("ssl.ca.location".into(), Secret::new(certificate.to_string_lossy())),
            ],
            producer: vec![],
            consumer: vec![],
            client_id: "slackwater-test".into(),
            refusals: Refusals::default(),
        };
        let before = Made::of(&settings);
        assert!(Made::of(&settings) == before);
        std::fs::write(&password, "two").expect("a file");
        let after = Made::of(&settings);
        assert!(after != before);
        std::fs::write(&certificate, "new").expect("a file");
        assert!(Made::of(&settings) != after);
        // What is being replaced may be gone for a moment: the password that the process began with is as good as any.
        std::fs::remove_file(&password).expect("removed");
        std::fs::remove_file(&certificate).expect("removed");
        assert!(Made::of(&settings) == before);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}

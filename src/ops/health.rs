//! How this process is: whether it lives, whether it works, and if not, what it waits for.
//!
//! Kubernetes restarts what does not live, and a restart mends nothing that another server has broken: so servers that are
//! away, and a copy that takes days, are no reason for `/healthz` to fail, only for `/readyz`, which restarts nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slackwater_connectors::secret::Secret;

use super::gauges::Gauges;
use super::look::Look;

/// Tasks turn at least once a second; after this they hang.
const HANGS: Duration = Duration::from_secs(30);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Run,
    Capture,
    Apply,
}

impl Part {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Capture => "capture",
            Self::Apply => "apply",
        }
    }
}

/// How far the process is with itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Working,
    Stopping,
}

/// What the migration file says that matters here.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) migration: String,
    /// Collections that it names.
    pub(crate) named: usize,
    pub(crate) target: Secret,
    /// Between capture and apply stands Kafka.
    pub(crate) kafka: bool,
}

/// Shared by all who say how the process is, and by those who ask.
pub(crate) struct Health {
    pub(crate) part: Part,
    /// `run`, `capture`, `apply/<member>`.
    pub(crate) name: String,
    /// Tells it from others of the same name.
    pub(crate) instance: i64,
    begun: Instant,
    /// Milliseconds after `begun` at which tasks turned last.
    turned: AtomicU64,
    state: Mutex<(Phase, Option<Arc<Gauges>>)>,
    about: OnceLock<About>,
}

impl Health {
    pub(crate) fn new(part: Part, name: String, instance: i64) -> Self {
        Self {
            part,
            name,
            instance,
            begun: Instant::now(),
            turned: AtomicU64::new(0),
            state: Mutex::default(),
            about: OnceLock::new(),
        }
    }

    /// The migration file is read.
    pub(crate) fn is_about(&self, about: About) {
        // A start that is tried again reads the same file.
        let _ = self.about.set(about);
    }

    pub(crate) fn about(&self) -> Option<&About> {
        self.about.get()
    }

    /// Everything is started.
    pub(crate) fn works(&self, gauges: &Arc<Gauges>) {
        *self.state() = (Phase::Working, Some(Arc::clone(gauges)));
    }

    /// It ends.
    pub(crate) fn stops(&self) {
        self.state().0 = Phase::Stopping;
    }

    /// A task turns.
    pub(crate) fn turn(&self) {
        let after = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.fetch_max(after, Ordering::Relaxed);
    }

    /// Why it does not live, where that is so. A start takes its time.
    pub(crate) fn dead(&self) -> Option<String> {
        let (phase, _) = &*self.state();
        let turned = Duration::from_millis(self.turned.load(Ordering::Relaxed));
        dead(*phase, self.begun.elapsed().saturating_sub(turned))
    }

    /// Why it does not work, where that is so.
    pub(crate) fn unready(&self, look: Option<&Look>) -> Option<String> {
        let (phase, gauges) = self.state().clone();
        let Some(gauges) = gauges else { return unready(self.part, phase, &Facts::default()) };
        let kafka = self.about().is_some_and(|about| about.kafka);
        let facts = Facts {
            trouble: gauges.board.text(),
            copied: gauges.copy_complete.load(Ordering::Acquire),
            collections: look.map(|look| (look.copied_collections(), look.named)),
            claimed: if kafka { gauges.claimed.load(Ordering::Relaxed) } else { 1 },
        };
        unready(self.part, phase, &facts)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Phase, Option<Arc<Gauges>>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dead(phase: Phase, silent: Duration) -> Option<String> {
    let hangs = phase == Phase::Working && silent > HANGS;
    hangs.then(|| format!("no task has turned for {} s", silent.as_secs()))
}

/// What readiness is decided by.
#[derive(Debug, Default)]
struct Facts {
    /// What is waited for.
    trouble: Option<String>,
    copied: bool,
    /// Collections that are copied, and all, as the control store last said.
    collections: Option<(usize, usize)>,
    /// Partitions that are ours; one where there are none to have.
    claimed: u64,
}

fn unready(part: Part, phase: Phase, facts: &Facts) -> Option<String> {
    match phase {
        Phase::Starting => return Some("starting".to_owned()),
        Phase::Stopping => return Some("stopping".to_owned()),
        Phase::Working => {}
    }
    if let Some(trouble) = &facts.trouble {
        return Some(trouble.clone());
    }
    if part != Part::Capture && facts.claimed == 0 {
        return Some("no partition assigned yet".to_owned());
    }
    if part != Part::Apply && !facts.copied {
        return Some(match facts.collections {
            Some((copied, all)) => format!("copying, {copied} of {all} collections are done"),
            None => "copying".to_owned(),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts { trouble: None, copied: true, collections: Some((12, 12)), claimed: 3 }
    }

    #[test]
    fn readiness() {
        let said = |part, phase, facts: Facts| unready(part, phase, &facts);
        let working = Phase::Working;
        assert_eq!(said(Part::Run, Phase::Starting, facts()).as_deref(), Some("starting"));
        assert_eq!(said(Part::Run, Phase::Stopping, facts()).as_deref(), Some("stopping"));
        for part in [Part::Run, Part::Capture, Part::Apply] {
            assert_eq!(said(part, working, facts()), None);
            let waiting = Facts { trouble: Some("Kafka is away".into()), ..facts() };
            assert_eq!(said(part, working, waiting).as_deref(), Some("Kafka is away"));
        }
        let copying = || Facts { copied: false, collections: Some((3, 12)), ..facts() };
        let expected = Some("copying, 3 of 12 collections are done");
        assert_eq!(said(Part::Capture, working, copying()).as_deref(), expected);
        assert_eq!(said(Part::Apply, working, copying()), None, "an applier copies nothing");
        let idle = || Facts { claimed: 0, ..facts() };
        assert_eq!(said(Part::Apply, working, idle()).as_deref(), Some("no partition assigned yet"));
        assert_eq!(said(Part::Capture, working, idle()), None);
    }

    #[test]
    fn servers_that_are_away_kill_nobody() {
        assert_eq!(dead(Phase::Working, Duration::from_secs(3)), None);
        assert_eq!(dead(Phase::Starting, Duration::from_secs(600)), None);
        assert!(dead(Phase::Working, Duration::from_secs(31)).is_some());
    }
}

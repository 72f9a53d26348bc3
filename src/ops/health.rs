//! The health of this process: whether its tasks run, whether it works, and if not, what it waits for.
//!
//! Kubernetes restarts a process whose `/healthz` fails, and a restart does not repair another server. So a server that is away, or
//! a copy that takes days, fails only `/readyz`, which restarts nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slackwater_connectors::secret::Secret;

use super::gauges::Gauges;
use super::look::{Look, Named};

/// The presence task reports at least once a second; if it is silent for longer than this, the process hangs.
const HANGS: Duration = Duration::from_secs(30);

/// What a process does; as [`crate::topology::Role`], without an applier's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessRole {
    Run,
    Capture,
    Apply,
}

impl ProcessRole {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Capture => "capture",
            Self::Apply => "apply",
        }
    }
}

/// Where the process is between its start and its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lifecycle {
    #[default]
    Starting,
    Working,
    Stopping,
}

/// What the health of a process needs from the migration file.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) named: Named,
    pub(crate) target: Secret,
    /// The log between capture and apply is Kafka.
    pub(crate) kafka: bool,
}

/// Shared by the tasks that report and by those that answer requests.
pub(crate) struct Health {
    pub(crate) role: ProcessRole,
    /// `run`, `capture`, `apply/<member>`.
    pub(crate) name: String,
    /// Distinguishes it from other processes of the same name.
    pub(crate) instance: i64,
    begun: Instant,
    /// When the presence task last reported, in milliseconds after `begun`.
    reported: AtomicU64,
    state: Mutex<(Lifecycle, Option<Arc<Gauges>>)>,
    about: OnceLock<About>,
    /// Ends of addresses that may be called when a source has changed, and what is done then.
    hooks: Mutex<Vec<(Secret, Hook)>>,
}

/// What is done when somebody says that a source has changed.
pub(crate) type Hook = Arc<dyn Fn() + Send + Sync>;

impl Health {
    pub(crate) fn new(role: ProcessRole, name: String, instance: i64) -> Self {
        Self {
            role,
            name,
            instance,
            begun: Instant::now(),
            reported: AtomicU64::new(0),
            state: Mutex::default(),
            about: OnceLock::new(),
            hooks: Mutex::default(),
        }
    }

    /// Sets what the migration file says, once it is read.
    pub(crate) fn is_about(&self, about: About) {
        // If the start is tried again, it reads the same file.
        let _ = self.about.set(about);
    }

    /// From now on a call of the address that ends with this word does something.
    pub(crate) fn hears_of(&self, word: Secret, hook: Hook) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.retain(|(known, _)| known.expose() != word.expose());
        hooks.push((word, hook));
    }

    /// Somebody has called the address that ends with this word. Whether anybody wants to know.
    pub(crate) fn heard_of(&self, word: &str) -> bool {
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = hooks.iter().find(|(known, _)| known.expose() == word);
        found.inspect(|(_, hook)| hook()).is_some()
    }

    pub(crate) fn about(&self) -> Option<&About> {
        self.about.get()
    }

    /// The tasks are being started, for the first time or again.
    pub(crate) fn set_starting(&self) {
        self.state().0 = Lifecycle::Starting;
    }

    /// All tasks are started.
    pub(crate) fn set_working(&self, gauges: &Arc<Gauges>) {
        *self.state() = (Lifecycle::Working, Some(Arc::clone(gauges)));
    }

    /// The process is stopping.
    pub(crate) fn set_stopping(&self) {
        self.state().0 = Lifecycle::Stopping;
    }

    /// The presence task runs.
    pub(crate) fn report(&self) {
        let after = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.reported.fetch_max(after, Ordering::Relaxed);
    }

    /// Why the process has to be restarted, if it has. A start may take long.
    pub(crate) fn hangs(&self) -> Option<String> {
        let (lifecycle, _) = &*self.state();
        let reported = Duration::from_millis(self.reported.load(Ordering::Relaxed));
        hangs(*lifecycle, self.begun.elapsed().saturating_sub(reported))
    }

    /// Why the process does not work, if it does not.
    pub(crate) fn unready(&self, look: Option<&Look>) -> Option<String> {
        let (lifecycle, gauges) = self.state().clone();
        let Some(gauges) = gauges else { return unready(self.role, lifecycle, &Readiness::default()) };
        let kafka = self.about().is_some_and(|about| about.kafka);
        let facts = Readiness {
            trouble: gauges.board.text(),
            copied: gauges.copying.load(Ordering::Acquire) == 0,
            collections: look.map(|look| (look.copied_collections(), look.named)),
            standing: look.and_then(|look| look.standing.first()).map(|row| row.text.clone()),
            claimed: if kafka { gauges.claimed.load(Ordering::Relaxed) } else { 1 },
        };
        unready(self.role, lifecycle, &facts)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Lifecycle, Option<Arc<Gauges>>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hangs(lifecycle: Lifecycle, silent: Duration) -> Option<String> {
    let hangs = lifecycle == Lifecycle::Working && silent > HANGS;
    hangs.then(|| format!("no task has run for {} s", silent.as_secs()))
}

/// The facts that decide whether the process is ready.
#[derive(Debug, Default)]
struct Readiness {
    /// The servers that the process waits for.
    trouble: Option<String>,
    copied: bool,
    /// The number of copied and of all collections, as last read from the control store.
    collections: Option<(usize, usize)>,
    /// Why a collection stands still, if one does.
    standing: Option<String>,
    /// The number of partitions that this process applies; 1 if the log is direct.
    claimed: u64,
}

fn unready(role: ProcessRole, lifecycle: Lifecycle, facts: &Readiness) -> Option<String> {
    match lifecycle {
        Lifecycle::Starting => return Some("starting".to_owned()),
        Lifecycle::Stopping => return Some("stopping".to_owned()),
        Lifecycle::Working => {}
    }
    if let Some(trouble) = &facts.trouble {
        return Some(trouble.clone());
    }
    if role != ProcessRole::Capture
        && let Some(standing) = &facts.standing
    {
        return Some(standing.clone());
    }
    if role != ProcessRole::Capture && facts.claimed == 0 {
        return Some("no partition assigned yet".to_owned());
    }
    if role != ProcessRole::Apply && !facts.copied {
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

    fn facts() -> Readiness {
        Readiness { trouble: None, copied: true, collections: Some((12, 12)), claimed: 3, standing: None }
    }

    #[test]
    fn readiness() {
        let said = |role, lifecycle, facts: Readiness| unready(role, lifecycle, &facts);
        let working = Lifecycle::Working;
        assert_eq!(said(ProcessRole::Run, Lifecycle::Starting, facts()).as_deref(), Some("starting"));
        assert_eq!(said(ProcessRole::Run, Lifecycle::Stopping, facts()).as_deref(), Some("stopping"));
        for role in [ProcessRole::Run, ProcessRole::Capture, ProcessRole::Apply] {
            assert_eq!(said(role, working, facts()), None);
            let waiting = Readiness { trouble: Some("Kafka is away".into()), ..facts() };
            assert_eq!(said(role, working, waiting).as_deref(), Some("Kafka is away"));
        }
        let copying = || Readiness { copied: false, collections: Some((3, 12)), ..facts() };
        let expected = Some("copying, 3 of 12 collections are done");
        assert_eq!(said(ProcessRole::Capture, working, copying()).as_deref(), expected);
        assert_eq!(said(ProcessRole::Apply, working, copying()), None, "an applier copies nothing");
        let standing = || Readiness { standing: Some("a table is gone".into()), ..facts() };
        assert_eq!(said(ProcessRole::Apply, working, standing()).as_deref(), Some("a table is gone"));
        assert_eq!(said(ProcessRole::Capture, working, standing()), None, "a capture writes no tables");
        let idle = || Readiness { claimed: 0, ..facts() };
        assert_eq!(said(ProcessRole::Apply, working, idle()).as_deref(), Some("no partition assigned yet"));
        assert_eq!(said(ProcessRole::Capture, working, idle()), None);
    }

    #[test]
    fn a_process_that_hangs_is_restarted() {
        assert_eq!(hangs(Lifecycle::Working, Duration::from_secs(3)), None);
        assert_eq!(hangs(Lifecycle::Starting, Duration::from_secs(600)), None);
        assert!(hangs(Lifecycle::Working, Duration::from_secs(31)).is_some());
    }
}

//! `slackwater verify`: every document is mapped again and compared with the rows that stand. `slackwater repair`: what is wrong is sent again.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::control::Control;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::recopy::strangers;
use crate::config::Migration;
use crate::failure::Failure;
use crate::mapping::Plan;
use crate::ops::process::now_millis;
use crate::ops::stop::{self, Stop, Stopper};
use crate::report;
use crate::topology::load;
use crate::verify::{Cut, Progress, Wanted, repair, since, verify};

/// Exit code: something is not as it should be, or was not proven.
const DIFFERS: u8 = 10;

/// How often it is tried again whether a table is free.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A collection goes on so soon after its table was free again; what stands still for longer does so for another reason.
const GOES_ON_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The migration file.
    file: PathBuf,
    /// Only this collection, as the migration file names it: `legacy.users`. May be given several times.
    #[arg(long = "collection", value_name = "NAME")]
    collections: Vec<String>,
    /// Only about so many percent of the documents, by chance. Rows that no document makes are not looked for.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    sample: Option<u8>,
    /// Reads no more documents a second.
    #[arg(long, value_name = "DOCUMENTS", value_parser = clap::value_parser!(u64).range(1..))]
    throttle: Option<u64>,
    /// Begins anew, where an earlier verification was cut off.
    #[arg(long)]
    anew: bool,
    /// Prints JSON, for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    what: Arguments,
    /// Only documents that have changed within this time: `30m`, `12h`. Nothing is kept of it. Not of NocoDB.
    #[arg(long, value_name = "TIME", value_parser = span, conflicts_with_all = ["sample", "anew", "throttle"])]
    since: Option<Duration>,
    /// Where the folder of the report is made, when everything was compared. `none`: nowhere.
    #[arg(long, value_name = "DIR", default_value = "reports", value_hint = clap::ValueHint::DirPath)]
    report: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArguments {
    #[command(flatten)]
    verify: Arguments,
    /// Removes rows that no document makes, unless others refer to them. Without it they are listed.
    #[arg(long)]
    remove_extra: bool,
}

/// `slackwater verify`.
pub(super) async fn run(arguments: VerifyArguments) -> Result<ExitCode, Failure> {
    let VerifyArguments { what: arguments, since: span, report: folder } = arguments;
    let started_at = now_millis();
    let mut work = Work::of(&arguments).await?;
    let migration = Arc::clone(&work.migration);
    let (plan, progress, stop) = (Arc::clone(&work.plan), Arc::clone(&work.progress), work.stop.clone());
    if let Some(span) = span {
        let what = wanted(&arguments);
        let changed = since(&migration, &plan, (&what, span), &progress, &stop);
        let Some(changed) = work.until_asked(changed).await? else { return Ok(ExitCode::from(DIFFERS)) };
        print(arguments.json, || changed.json(), || changed.text());
        return Ok(if changed.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) });
    }
    let Some(report) =
        work.until_asked(verify(&migration, &plan, wanted(&arguments), &progress, &stop)).await?
    else {
        return Ok(ExitCode::from(DIFFERS));
    };
    let mut said = report.json();
    let mut text = report.text();
    if let Some(into) = report::wanted(&folder) {
        let run = report::Run {
            kind: report::Kind::Verification,
            migration: &migration,
            said: said.clone(),
            at: started_at,
            started_at,
            once: false,
        };
        let kept = Box::pin(report::keep(run, into)).await;
        if let Some(kept) = &kept {
            text += &format!("report: {}\n", kept.join("report.html").display());
        }
        said["report_folder"] = kept.map(|folder| folder.display().to_string()).into();
    }
    print(arguments.json, || said, || text);
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}

/// `slackwater repair`.
pub(super) async fn mend(arguments: RepairArguments) -> Result<ExitCode, Failure> {
    let RepairArguments { verify: arguments, remove_extra } = arguments;
    let mut work = Work::of(&arguments).await?;
    let migration = Arc::clone(&work.migration);
    let (plan, progress, stop) = (Arc::clone(&work.plan), Arc::clone(&work.progress), work.stop.clone());
    let what = (wanted(&arguments), remove_extra);
    let Some(repaired) = work.until_asked(repair(&migration, &plan, what, &progress, &stop)).await? else {
        return Ok(ExitCode::from(DIFFERS));
    };
    print(arguments.json, || repaired.json(), || repaired.text());
    Ok(if repaired.report.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}

/// A time as the migration file writes it.
fn span(text: &str) -> Result<Duration, String> {
    crate::config::span(text).ok_or_else(|| "write a number and a unit, such as `30m` or `12h`".to_owned())
}

fn wanted(arguments: &Arguments) -> Wanted {
    Wanted {
        collections: arguments.collections.clone(),
        sample: arguments.sample,
        throttle: arguments.throttle,
        anew: arguments.anew,
        aside: false,
        pace: None,
    }
}

fn print(as_json: bool, json: impl FnOnce() -> serde_json::Value, text: impl FnOnce() -> String) {
    let mut stdout = std::io::stdout().lock();
    // If nobody reads the answer, only the exit code tells.
    let _ = if as_json { writeln!(stdout, "{:#}", json()) } else { write!(stdout, "{}", text()) };
}

/// What both commands need.
struct Work {
    migration: Arc<Migration>,
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    stopper: Stopper,
    stop: Stop,
    interrupt: Signal,
    terminate: Signal,
}

impl Work {
    async fn of(arguments: &Arguments) -> Result<Self, Failure> {
        let no_signals =
            |error: std::io::Error| Error::new(Kind::Bug, "listening for signals", error.to_string());
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let migration = Arc::new(load::migration(&arguments.file)?);
        let complaints = strangers(&migration, &arguments.collections);
        if !complaints.is_empty() {
            return Err(Failure::Unsuitable(complaints));
        }
        let asked = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let plan = plan_once_free(&migration, asked).await?;
        let progress = Arc::new(Progress::default());
        let (stopper, stop) = stop::channel();
        Ok(Self { migration, plan, progress, stopper, stop, interrupt, terminate })
    }

    /// Does it, and shows how far it is. `None` if it was to stop before.
    async fn until_asked<T>(
        &mut self,
        work: impl Future<Output = Result<T, Cut>>,
    ) -> Result<Option<T>, Failure> {
        let shown = tokio::spawn(show(Arc::clone(&self.progress), self.stop.clone()));
        let outcome = tokio::select! {
            outcome = Box::pin(work) => outcome,
            // What was read is kept.
            _ = self.interrupt.recv() => Err(Cut::Asked),
            _ = self.terminate.recv() => Err(Cut::Asked),
        };
        self.stopper.stop();
        // It ends with the request to stop; how it ends is of no interest.
        let _ = tokio::time::timeout(Duration::from_secs(1), shown).await;
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(Cut::Failed(failure)) => Err(failure),
            Err(Cut::Asked) => {
                tracing::warn!("stopped before its end; the next `slackwater verify` goes on from here");
                Ok(None)
            }
        }
    }
}

/// The plan. As long as somebody has locked a table its catalogue cannot be read, and a process at work gives such a wait up.
async fn plan_once_free(
    migration: &Migration,
    asked: impl Future<Output = ()>,
) -> Result<Arc<Plan>, Failure> {
    let mut asked = pin!(asked);
    let mut told: Option<bool> = None;
    loop {
        let error = match load::plan_at_start(migration).await {
            Err(Failure::Server(error)) if error.kind == Kind::Contention => error,
            Ok(plan) if told.is_some() => {
                // What stood still for the lock is verified, too.
                let free = async {
                    while !standing(migration).await.is_empty() {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                };
                let _ = tokio::time::timeout(GOES_ON_WITHIN, free).await;
                return Ok(plan);
            }
            outcome => return outcome,
        };
        // Who it is may be known later than that somebody is.
        if told != Some(true) {
            let who = standing(migration).await;
            let is_known = !who.is_empty();
            if told != Some(is_known) {
                let who =
                    if is_known { who.join("; ") } else { "somebody holds a lock in the target".to_owned() };
                tracing::warn!(%error, "waiting, trying again until it is free: {who}");
            }
            told = Some(is_known);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = &mut asked => return Err(Failure::Server(error)),
        }
    }
}

/// Why collections stand still, as `slackwater status` says it; nothing where that is not known.
async fn standing(migration: &Migration) -> Vec<String> {
    let rows = async {
        match Control::peek(&migration.target.uri).await? {
            Some(control) => control.standing(&migration.name).await,
            None => Ok(Vec::new()),
        }
    };
    let rows = rows.await.unwrap_or_default();
    rows.into_iter()
        .map(|row| format!("{} stands still: {}; {}", row.collection, row.text, row.remedy))
        .collect()
}

/// Shows how far it is: on a terminal in place, otherwise now and then.
async fn show(progress: Arc<Progress>, mut stop: Stop) {
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let every = if terminal { Duration::from_millis(250) } else { Duration::from_secs(10) };
    let mut last = (Instant::now(), 0);
    while stop.sleep(every).await {
        let (read, total) = (progress.read.load(Ordering::Relaxed), progress.total.load(Ordering::Relaxed));
        let seconds = last.0.elapsed().as_secs_f64().max(0.001);
        let rate = (read.saturating_sub(last.1) as f64 / seconds) as u64;
        let percent = (read * 100).checked_div(total).unwrap_or(0).min(100);
        let mut line = format!("{}: {} documents ({percent} %)", progress.stage(), HumanCount(read));
        if let Some(left) = total.saturating_sub(read).checked_div(rate) {
            line += &format!(", {}/s, {} left", HumanCount(rate), HumanDuration(Duration::from_secs(left)));
        }
        if terminal {
            bar.set_message(line);
            bar.tick();
        } else {
            tracing::info!("{line}");
        }
        last = (Instant::now(), read);
    }
    bar.finish_and_clear();
}

//! `slackwater verify`: every document is mapped again and compared with the rows that stand.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use slackwater_connectors::error::{Error, Kind};
use tokio::signal::unix::{SignalKind, signal};

use super::recopy::strangers;
use crate::failure::Failure;
use crate::ops::stop::{self, Stop};
use crate::topology::load;
use crate::verify::{Cut, Progress, Wanted, verify};

/// Exit code: something is not as it should be, or was not proven.
const DIFFERS: u8 = 10;

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

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let no_signals =
        |error: std::io::Error| Error::new(Kind::Bug, "listening for signals", error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let migration = load::migration(&arguments.file)?;
    let complaints = strangers(&migration, &arguments.collections);
    if !complaints.is_empty() {
        return Err(Failure::Unsuitable(complaints));
    }
    let plan = load::plan_at_start(&migration).await?;
    let progress = Arc::new(Progress::default());
    let (stopper, stop) = stop::channel();
    let wanted = Wanted {
        collections: arguments.collections,
        sample: arguments.sample,
        throttle: arguments.throttle,
        anew: arguments.anew,
    };
    let shown = tokio::spawn(show(Arc::clone(&progress), stop.clone()));
    let verified = async {
        let verified = Box::pin(verify(&migration, &plan, wanted, &progress, &stop)).await;
        stopper.stop();
        verified
    };
    tokio::pin!(verified);
    let outcome = tokio::select! {
        outcome = &mut verified => outcome,
        // What was read is kept.
        _ = interrupt.recv() => Err(Cut::Asked),
        _ = terminate.recv() => Err(Cut::Asked),
    };
    // It ends with the request to stop; how it ends is of no interest.
    let _ = tokio::time::timeout(Duration::from_secs(1), shown).await;
    let report = match outcome {
        Ok(report) => report,
        Err(Cut::Failed(failure)) => return Err(failure),
        Err(Cut::Asked) => {
            tracing::warn!("stopped before its end; the next `slackwater verify` goes on from here");
            return Ok(ExitCode::from(DIFFERS));
        }
    };
    let mut stdout = std::io::stdout().lock();
    // If nobody reads the answer, only the exit code tells.
    let _ = match arguments.json {
        true => writeln!(stdout, "{:#}", report.json()),
        false => write!(stdout, "{}", report.text()),
    };
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
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

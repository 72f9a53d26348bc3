//! The progress line of a run: updated in place on a terminal, otherwise logged now and then.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::ops::gauges::Gauges;
use crate::ops::process::now_millis;
use crate::ops::stop::Stop;

const EVERY_ON_TERMINAL: Duration = Duration::from_millis(250);
const EVERY_IN_LOG: Duration = Duration::from_secs(5);
/// An idle source sends something at least every ten seconds; after this it is late.
const NEWS_WITHIN: i64 = 15_000;

/// Shows the progress until a stop is requested.
pub(super) async fn show(gauges: Arc<Gauges>, capture_only: bool, mut stop: Stop) {
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let mut last = (Instant::now(), 0, 0);
    let mut quiet = false;
    while stop.sleep(if terminal { EVERY_ON_TERMINAL } else { EVERY_IN_LOG }).await {
        let counted = if capture_only { &gauges.sent } else { &gauges.events };
        let (copied, events) = (Gauges::get(&gauges.copied), Gauges::get(counted));
        let seconds = last.0.elapsed().as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| ((now - before.min(now)) as f64 / seconds) as u64;
        let (copy_rate, event_rate) = (rate(copied, last.1), rate(events, last.2));
        let what = if capture_only { "sent" } else { "applied" };
        let line = line(&gauges, copy_rate, (events, event_rate, what));
        if terminal {
            bar.set_message(line);
            bar.tick();
        } else {
            let still = copied == last.1 && events == last.2;
            // An idle pipeline is logged once.
            if !(still && quiet) {
                tracing::info!("{line}");
            }
            quiet = still;
        }
        last = (Instant::now(), copied, events);
    }
    bar.finish_and_clear();
}

fn line(gauges: &Gauges, copy_rate: u64, (events, event_rate, what): (u64, u64, &str)) -> String {
    let mut line = String::new();
    // A process that only applies does not know the copy.
    if Gauges::get(&gauges.to_copy) > 0 && gauges.copying.load(Ordering::Acquire) > 0 {
        let (copied, total) = (Gauges::get(&gauges.copied), Gauges::get(&gauges.to_copy));
        let percent = (copied * 100).checked_div(total).unwrap_or(0).min(100);
        line += &format!(
            "copied {} of about {} documents ({percent} %), {}/s",
            HumanCount(copied),
            HumanCount(total),
            HumanCount(copy_rate)
        );
        if let Some(left) = total.saturating_sub(copied).checked_div(copy_rate) {
            line += &format!(", {} left", HumanDuration(Duration::from_secs(left)));
        }
        line += "; ";
    }
    line += &format!("{} changes {what}, {}/s", HumanCount(events), HumanCount(event_rate));
    let since = now_millis() - gauges.current_at.load(Ordering::Relaxed);
    if since > NEWS_WITHIN && gauges.current_at.load(Ordering::Relaxed) > 0 {
        line += &format!("; nothing from the source for {} s", since / 1000);
    }
    let letters = Gauges::get(&gauges.letters);
    if letters > 0 {
        line += &format!("; {} dead letters written", HumanCount(letters));
    }
    line
}

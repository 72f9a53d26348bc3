//! Asks the source once a second what time it is, and keeps the answer where everybody sees it.
//!
//! The answer goes to the router, which attaches the moment to what it sends once the stream has passed it; so lag is told
//! without a single write to the source. And it goes into the control store, with how far the source's clock is ahead
//! of the target's: a process that reaches only the target knows the source's present all the same.
//!
//! Two halves, so that a target that is away leaves the moments of the source on their way into the log, and a source that
//! is away is told of. A crash leaves the last answer, and that grows old.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Result};
use slackwater_connectors::postgres::control::pulse::Pulse as Said;
use slackwater_connectors::source::Heard;
use slackwater_topics::Moment;
use tokio::sync::watch;

use crate::log::Reach;
use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::persist::passes;
use crate::ops::stop::Stop;
use crate::ops::store::Store;
use crate::source::Source;

/// How often the source is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How far its history reaches back is asked less often.
const HISTORY_EVERY: Duration = Duration::from_secs(10);
/// A source that has not answered for so long is said to be silent.
const LATE: Duration = Duration::from_secs(2);
/// An answer that has not come by then is not waited for any more: its connection may be dead without a word.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The control store gets this long; then another connection is made.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// What the pulse works with.
pub(crate) struct Pulse {
    pub(crate) source: Source,
    /// Its name in the migration file.
    pub(crate) name: String,
    /// Where its trouble is shown.
    pub(crate) place: Place,
    pub(crate) store: Store,
    /// To the router.
    pub(crate) heard: watch::Sender<Option<Heard>>,
    pub(crate) reach: Arc<Reach>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

/// What one half tells the other.
#[derive(Clone, Debug)]
struct Known {
    heard: Option<Heard>,
    /// When it answered, or when we began to ask.
    at: Instant,
    history_from: Option<Moment>,
    /// Why it did not answer the last time.
    error: Option<String>,
}

impl Pulse {
    /// Asks until it is to stop, or until another capture has taken over.
    pub(crate) async fn run(self) -> Result<()> {
        let Self { source, name, place, store, heard, reach, gauges, stop } = self;
        let first = Known { heard: None, at: Instant::now(), history_from: None, error: None };
        let (known_in, known) = watch::channel(first);
        let asking = ask(source, heard, known_in, stop.clone());
        let telling = Telling { name, place, store, reach, gauges, known };
        let ((), told) = tokio::join!(asking, telling.run(stop));
        told
    }
}

/// Asks the source. One question at a time; a future of the driver is never dropped.
async fn ask(
    source: Source,
    heard: watch::Sender<Option<Heard>>,
    known: watch::Sender<Known>,
    mut stop: Stop,
) {
    let mut history: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        let about_history = history.is_none_or(|last| last.elapsed() >= HISTORY_EVERY);
        let source = source.clone();
        let question = tokio::spawn(async move {
            let heard = source.hear().await?;
            let at = Instant::now();
            let history_from = if about_history { source.history_from().await } else { None };
            Ok::<_, Error>((heard, at, history_from))
        });
        let answer = tokio::select! {
            () = stop.wait() => return,
            answer = tokio::time::timeout(ANSWER_WITHIN, question) => answer,
        };
        match answer {
            Ok(Ok(Ok((moment, at, history_from)))) => {
                if about_history {
                    history = Some(at);
                }
                heard.send_replace(Some(moment));
                known.send_modify(|known| {
                    known.heard = Some(moment);
                    known.at = at;
                    known.history_from = history_from.or(known.history_from);
                    known.error = None;
                });
            }
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, "the source does not say what time it is");
                known.send_modify(|known| known.error = Some(error.to_string()));
            }
            Ok(Err(_)) | Err(_) => {
                known.send_modify(|known| known.error = Some("no answer at all".to_owned()));
            }
        }
        if !stop.sleep(EVERY.saturating_sub(asked.elapsed()).max(EVERY / 10)).await {
            return;
        }
    }
}

/// Tells the control store, and the board of this process.
struct Telling {
    name: String,
    place: Place,
    store: Store,
    reach: Arc<Reach>,
    gauges: Arc<Gauges>,
    known: watch::Receiver<Known>,
}

impl Telling {
    async fn run(mut self, mut stop: Stop) -> Result<()> {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let known = self.known.borrow().clone();
            let trouble = trouble(&self.name, known.at.elapsed(), known.error.as_deref());
            self.gauges.board.set(self.place, trouble.clone());
            // The same answer told twice would be an older one the second time, and nothing new.
            let news = told != Some(known.at);
            told = Some(known.at);
            let said = said(&known, news, &self.reach, trouble);
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                told = self.tell(&said) => told?,
            }
        }
    }

    async fn tell(&mut self, said: &Said) -> Result<()> {
        let writing = async { self.store.control().await?.pulse(said).await };
        match tokio::time::timeout(WRITE_WITHIN, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if passes(&error) => {
                tracing::debug!(%error, "the control store does not take the pulse");
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                tracing::debug!("the control store does not take the pulse in time");
                self.store.hang_up();
            }
        }
        Ok(())
    }
}

/// What is wrong with the source, after so long without an answer.
fn trouble(name: &str, silent: Duration, error: Option<&str>) -> Option<String> {
    (silent >= LATE).then(|| {
        let mut text = format!("source {name} has not answered for {} s", silent.as_secs());
        if let Some(error) = error {
            text += &format!(" ({error})");
        }
        text
    })
}

/// What goes into the control store.
fn said(known: &Known, news: bool, reach: &Reach, trouble: Option<String>) -> Said {
    let age = i64::try_from(known.at.elapsed().as_millis()).unwrap_or(i64::MAX);
    let heard = known.heard.filter(|_| news);
    Said {
        clock: heard.map(|heard| (heard.clock, age)),
        operation_time: heard.map(|heard| heard.moment),
        read_through: reach.through(),
        read_as_of: reach.as_of(),
        oplog_from: known.history_from,
        trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_source_is_told_of() {
        assert_eq!(trouble("crm", Duration::from_millis(1_900), Some("refused")), None);
        let text = trouble("crm", Duration::from_secs(4), Some("refused")).expect("trouble");
        assert_eq!(text, "source crm has not answered for 4 s (refused)");
    }

    #[test]
    fn an_answer_is_told_once() {
        let heard = Heard { moment: Moment(7), clock: 1_000 };
        let known = Known { heard: Some(heard), at: Instant::now(), history_from: None, error: None };
        let reach = Reach::default();
        let first = said(&known, true, &reach, None);
        assert_eq!(first.clock.map(|(clock, _)| clock), Some(1_000));
        assert_eq!((first.read_as_of, first.read_through), (None, None), "nothing was read yet");
        let again = said(&known, false, &reach, None);
        assert_eq!((again.clock, again.operation_time), (None, None));
    }
}

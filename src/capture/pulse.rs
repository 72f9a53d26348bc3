//! Asks the source once a second what time it is, and keeps the answer where everybody sees it.
//!
//! The answer goes to the router, which attaches the moment to what it sends once the stream has passed it; so lag is told
//! without a single write to the source. And it goes into the control store, with how far the source's clock is ahead
//! of the target's: whoever has only the target knows the source's present all the same.
//!
//! Two halves, so that a target that is away leaves the moments of the source on their way into the log, and a source that
//! is away is told of. A crash leaves the last answer, and that grows old.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Result};
use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::postgres::control::Control;
use slackwater_connectors::postgres::control::pulse::Pulse as Said;
use slackwater_connectors::secret::Secret;
use slackwater_connectors::source::Heard;
use slackwater_topics::Moment;
use tokio::sync::watch;

use crate::ops::board::Place;
use crate::ops::gauges::Gauges;
use crate::ops::policy::{Action, action};
use crate::ops::stop::Stop;

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
    pub(crate) mongo: Mongo,
    pub(crate) control: Control,
    pub(crate) target: Secret,
    pub(crate) migration: String,
    /// The source's name in the migration file.
    pub(crate) source: String,
    pub(crate) epoch: i64,
    /// To the router.
    pub(crate) heard: watch::Sender<Option<Heard>>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stop: Stop,
}

/// What one half tells the other.
#[derive(Clone, Debug)]
struct Known {
    heard: Option<Heard>,
    /// When it answered, or when we began to ask.
    at: Instant,
    oplog_from: Option<Moment>,
    /// Why it did not answer the last time.
    error: Option<String>,
}

impl Pulse {
    /// Asks until it is to stop, or until another capture has taken over.
    pub(crate) async fn run(self) -> Result<()> {
        let Self { mongo, control, target, migration, source, epoch, heard, gauges, stop } = self;
        let first = Known { heard: None, at: Instant::now(), oplog_from: None, error: None };
        let (known_in, known) = watch::channel(first);
        let asking = ask(mongo, heard, known_in, stop.clone());
        let telling = Telling { control: Some(control), target, migration, source, epoch, gauges, known };
        let ((), told) = tokio::join!(asking, telling.run(stop));
        told
    }
}

/// Asks the source. One question at a time; a future of the driver is never dropped.
async fn ask(mongo: Mongo, heard: watch::Sender<Option<Heard>>, known: watch::Sender<Known>, mut stop: Stop) {
    let mut history: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        let about_history = history.is_none_or(|last| last.elapsed() >= HISTORY_EVERY);
        let source = mongo.clone();
        let question = tokio::spawn(async move {
            let heard = source.hello().await?;
            let at = Instant::now();
            let oplog_from = if about_history { source.oplog_from().await } else { None };
            Ok::<_, Error>((heard, at, oplog_from))
        });
        let answer = tokio::select! {
            () = stop.wait() => return,
            answer = tokio::time::timeout(ANSWER_WITHIN, question) => answer,
        };
        match answer {
            Ok(Ok(Ok((moment, at, oplog_from)))) => {
                if about_history {
                    history = Some(at);
                }
                heard.send_replace(Some(moment));
                known.send_modify(|known| {
                    known.heard = Some(moment);
                    known.at = at;
                    known.oplog_from = oplog_from.or(known.oplog_from);
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
    control: Option<Control>,
    target: Secret,
    migration: String,
    source: String,
    epoch: i64,
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
            let trouble = trouble(known.at.elapsed(), known.error.as_deref());
            self.gauges.board.set(Place::Source, trouble.clone());
            // The same answer told twice would be an older one the second time, and nothing new.
            let news = told != Some(known.at);
            told = Some(known.at);
            let said = said(&known, news, &self.gauges, trouble);
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                told = self.tell(&said) => told?,
            }
        }
    }

    async fn tell(&mut self, said: &Said) -> Result<()> {
        let writing = async {
            let mut control = match self.control.take() {
                Some(control) => control,
                None => {
                    let mut control = Control::open(&self.target).await?;
                    control.act_as(&self.migration, self.epoch);
                    control
                }
            };
            control.pulse(&self.source, said).await?;
            self.control = Some(control);
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(WRITE_WITHIN, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => match action(error.kind) {
                Action::Wait | Action::Retry => {
                    tracing::debug!(%error, "the control store does not take the pulse");
                    Ok(())
                }
                Action::Quarantine | Action::Recopy | Action::Yield | Action::Halt => Err(error),
            },
            Err(_) => {
                tracing::debug!("the control store does not take the pulse in time");
                Ok(())
            }
        }
    }
}

/// What is wrong with the source, after so long without an answer.
fn trouble(silent: Duration, error: Option<&str>) -> Option<String> {
    (silent >= LATE).then(|| {
        let mut text = format!("the source has not answered for {} s", silent.as_secs());
        if let Some(error) = error {
            text += &format!(" ({error})");
        }
        text
    })
}

/// What goes into the control store.
fn said(known: &Known, news: bool, gauges: &Gauges, trouble: Option<String>) -> Said {
    let age = i64::try_from(known.at.elapsed().as_millis()).unwrap_or(i64::MAX);
    let heard = known.heard.filter(|_| news);
    let through = Moment(gauges.read_through.load(Ordering::Relaxed));
    let as_of = gauges.read_as_of.load(Ordering::Relaxed);
    Said {
        clock: heard.map(|heard| (heard.clock, age)),
        operation_time: heard.map(|heard| heard.moment),
        read_through: (through > Moment::default()).then_some(through),
        read_as_of: (as_of > 0).then_some(as_of),
        oplog_from: known.oplog_from,
        trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_source_is_told_of() {
        assert_eq!(trouble(Duration::from_millis(1_900), Some("refused")), None);
        let text = trouble(Duration::from_secs(4), Some("refused")).expect("trouble");
        assert_eq!(text, "the source has not answered for 4 s (refused)");
    }

    #[test]
    fn an_answer_is_told_once() {
        let heard = Heard { moment: Moment(7), clock: 1_000 };
        let known = Known { heard: Some(heard), at: Instant::now(), oplog_from: None, error: None };
        let gauges = Gauges::default();
        let first = said(&known, true, &gauges, None);
        assert_eq!(first.clock.map(|(clock, _)| clock), Some(1_000));
        assert_eq!((first.read_as_of, first.read_through), (None, None), "nothing was read yet");
        let again = said(&known, false, &gauges, None);
        assert_eq!((again.clock, again.operation_time), (None, None));
    }
}

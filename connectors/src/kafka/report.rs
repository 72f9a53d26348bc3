//! What librdkafka tells beside its answers: log lines, and the last thing that went wrong.
//!
//! A broker that is away is waited for without an error, so this is how a wrong password or address shows at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

/// More than any client has to tell at once, so that listening ends.
const EVENTS: u32 = 1_000_000;

/// The level to ask librdkafka for: what nobody reads is not even made.
pub(super) fn level() -> RDKafkaLogLevel {
    if tracing::enabled!(target: "kafka", tracing::Level::DEBUG) {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Notice
    }
}

/// A line of librdkafka's log. Its errors are about connections that it makes again by itself, so they are warnings here.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    // With `debug: all` it tells the name of the user, which is as secret as the rest of the credentials.
    let text = text.split_once("Authenticated as ").map_or(text, |(before, _)| before);
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "kafka", facility, "{text}");
        }
        // What we tell the broker about offsets is for tools only, and soon told again.
        RDKafkaLogLevel::Warning if facility == "COMMITFAIL" => {
            tracing::debug!(target: "kafka", facility, "{text}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "kafka", facility, "{text}");
        }
        RDKafkaLogLevel::Notice => tracing::info!(target: "kafka", facility, "{text}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "kafka", facility, "{text}");
        }
    }
}

/// The last trouble with the connection, until something works again.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    there: AtomicBool,
    /// No broker is left.
    down: AtomicBool,
    code: Mutex<Option<RDKafkaErrorCode>>,
}

impl Trouble {
    /// Keeps the error, unless it says less than the one before: that all brokers are down says nothing of why.
    pub(super) fn note(&self, error: &KafkaError) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut kept = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        if code != RDKafkaErrorCode::AllBrokersDown || kept.is_none() {
            *kept = Some(code);
        }
        self.there.store(true, Ordering::Release);
        if code == RDKafkaErrorCode::AllBrokersDown {
            self.down.store(true, Ordering::Release);
        }
    }

    /// It works.
    pub(super) fn over(&self) {
        // Called for every acknowledgement: no lock and no write while there is nothing to forget.
        if self.there.load(Ordering::Relaxed) {
            *self.code.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.down.store(false, Ordering::Release);
            self.there.store(false, Ordering::Release);
        }
    }

    /// What it is, where no broker is left: the loss of one is mended by itself.
    pub(super) fn outage(&self) -> Option<RDKafkaErrorCode> {
        if self.down.load(Ordering::Acquire) { self.code() } else { None }
    }

    /// What it is.
    pub(super) fn code(&self) -> Option<RDKafkaErrorCode> {
        *self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of a client that has nothing else to be told.
#[derive(Default)]
pub(super) struct Report {
    pub(super) trouble: Trouble,
    /// How many lines and errors came.
    heard: AtomicU64,
}

/// Takes all that a client without a thread of its own has to tell.
pub(super) fn listen(client: &BaseProducer<Report>) {
    let heard = || client.context().heard.load(Ordering::Relaxed);
    for _ in 0..EVENTS {
        let before = heard();
        // Without waiting, one call takes one thing.
        client.poll(Duration::ZERO);
        if heard() == before {
            break;
        }
    }
}

impl ClientContext for Report {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.trouble.note(&error);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for Report {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl ConsumerContext for Report {}

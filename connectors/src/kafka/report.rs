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

use super::renewal::Refusals;
use super::settings::Settings;

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
    hint: Mutex<Option<Hint>>,
    refusals: Refusals,
}

/// What librdkafka's own words tell beyond the code. The words themselves may hold values and are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The broker's certificate was not accepted.
    Verification,
    /// The broker wants a certificate of ours, or does not accept it.
    ClientCertificate,
    /// We speak TLS, the broker does not.
    NoTls,
    /// The broker speaks TLS, we do not.
    WantsTls,
    /// The broker knows other ways to log in.
    Mechanism,
}

impl Hint {
    fn of(reason: &str) -> Option<Self> {
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        // An alert is what the broker says of us, and would otherwise look like what we say of it.
        if says(&[
            "certificate required",
            "alert bad certificate",
            "alert certificate",
            "alert unknown ca",
            "alert handshake failure",
        ]) || says(&["client SSL authentication might be required"])
        {
            Some(Self::ClientCertificate)
        } else if says(&["certificate verify failed", "could not be verified", "verify broker certificate"]) {
            Some(Self::Verification)
        } else if says(&["PLAINTEXT broker listener", "wrong version number", "packet length too long"]) {
            Some(Self::NoTls)
        } else if says(&["SSL listener"]) {
            Some(Self::WantsTls)
        } else if says(&["supported mechanisms"]) {
            Some(Self::Mechanism)
        } else {
            None
        }
    }
}

/// The broker was reached and does not let us in.
fn refuses(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::SSL
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
    )
}

impl Trouble {
    /// Of a client with these settings.
    pub(super) fn of(settings: &Settings) -> Self {
        Self { refusals: settings.refusals.clone(), ..Self::default() }
    }

    /// Keeps the error, unless it says less than the one before: that all brokers are down says nothing of why.
    pub(super) fn note(&self, error: &KafkaError) {
        let Some(code) = error.rdkafka_error_code() else { return };
        self.note_refusal(error);
        let mut kept = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        if code != RDKafkaErrorCode::AllBrokersDown || kept.is_none() {
            *kept = Some(code);
        }
        self.there.store(true, Ordering::Release);
        if code == RDKafkaErrorCode::AllBrokersDown {
            self.down.store(true, Ordering::Release);
        }
    }

    /// Notes for all clients with these settings that the broker was reached and does not let us in, if that is what the error says.
    pub(super) fn note_refusal(&self, error: &KafkaError) {
        if error.rdkafka_error_code().is_some_and(refuses) {
            self.refusals.note();
        }
    }

    /// As [`Self::note`], with librdkafka's own words.
    pub(super) fn note_with(&self, error: &KafkaError, reason: &str) {
        if let Some(hint) = Hint::of(reason) {
            *self.hint.lock().unwrap_or_else(PoisonError::into_inner) = Some(hint);
        }
        self.note(error);
    }

    /// What the words told, until something works again.
    pub(super) fn hint(&self) -> Option<Hint> {
        *self.hint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker was reached and does not let us in: waiting does not help.
    pub(super) fn refuses(&self) -> bool {
        self.hint().is_some() || self.code().is_some_and(refuses)
    }

    /// It works.
    pub(super) fn over(&self) {
        // Called for every acknowledgement: no lock and no write while there is nothing to forget.
        if self.there.load(Ordering::Relaxed) {
            *self.code.lock().unwrap_or_else(PoisonError::into_inner) = None;
            *self.hint.lock().unwrap_or_else(PoisonError::into_inner) = None;
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

impl Report {
    /// Of a client with these settings.
    pub(super) fn of(settings: &Settings) -> Self {
        Self { trouble: Trouble::of(settings), ..Self::default() }
    }
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
        // Why a connection failed is in the answer to the question that this client was asked.
        let level = if facility == "FAIL" { RDKafkaLogLevel::Debug } else { level };
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.trouble.note_with(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for Report {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl ConsumerContext for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_library_tell_what_the_code_does_not() {
        for (reason, expected) in [
            (
                "ssl://h:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                 certificate could not be verified, verify that ssl.ca.location is correctly configured",
                Some(Hint::Verification),
            ),
            (
                "h:1: error:0A00045C:SSL routines::tlsv13 alert certificate required",
                Some(Hint::ClientCertificate),
            ),
            (
                "h:1: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                Some(Hint::NoTls),
            ),
            ("h:1: Invalid response size 352518912 (connecting to a SSL listener?)", Some(Hint::WantsTls)),
            ("h:1: Unsupported SASL mechanism: broker's supported mechanisms: PLAIN", Some(Hint::Mechanism)),
            ("h:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused", None),
        ] {
            assert_eq!(Hint::of(reason), expected, "{reason}");
        }
    }
}

//! One request to the server, and what its answer means.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::pace::Pace;
use super::settings::Settings;
use super::times;
use crate::error::{Error, Kind, Result};

/// A page of a thousand records of 64 kB each; more is asked for in smaller pages.
const LARGEST: usize = 64 << 20;
/// Codes of ours, beside the server's own.
pub(super) const TOO_LARGE: &str = "too large";
pub(super) const TOO_SLOW: &str = "too slow";

/// The server's word for what went wrong between it and its database.
const DATABASE: &str = "ERR_DATABASE_OP_FAILED";

/// The server.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    url: Url,
    settings: Settings,
    pace: Pace,
    sent: AtomicU64,
    /// Since when it gives no answer that can be used, and why.
    silent: Mutex<Option<(Instant, String)>>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) body: Bytes,
    /// The server's clock, seconds since 1970.
    pub(super) date: Option<i64>,
}

/// What the server says of a mistake. Its `message` may quote a value, so it is not read.
#[derive(Default, Deserialize)]
struct Said {
    error: Option<String>,
}

impl Http {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let doing = "preparing requests to NocoDB";
        let wrong = |what: &str| Error::new(Kind::Unsuitable, doing, what);
        let mut url = Url::parse(settings.url.trim_end_matches('/')).map_err(|_| {
            wrong("the url cannot be read")
                .help("write it as https://nocodb.example, without a path of the API")
        })?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("the url has to begin with http:// or https://"));
        }
        url.set_query(None);
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(10).min(settings.timeout))
            .timeout(settings.timeout)
            // A server that redirects would be sent the token.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| wrong("the client for HTTP cannot be made"))?;
        Ok(Self {
            client,
            url,
            settings: settings.clone(),
            pace: Pace::new(settings.requests_per_second),
            sent: AtomicU64::new(0),
            silent: Mutex::default(),
        })
    }

    /// Host and port, for people.
    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// How many requests were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Why the server gives no answer that can be used, and since when; none while it does.
    pub(super) fn silent(&self) -> Option<(Instant, String)> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks once, when it is our turn.
    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)], doing: &str) -> Result<Answer> {
        let answer = self.ask(path, query, doing).await;
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Err(error) if error.kind != Kind::Unsuitable => {
                silent.get_or_insert_with(|| (Instant::now(), error.to_string()));
            }
            _ => *silent = None,
        }
        drop(silent);
        answer
    }

    async fn ask(&self, path: &[&str], query: &[(&str, &str)], doing: &str) -> Result<Answer> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let token = self.settings.token.expose_fresh().map_err(|(path, error)| {
            Error::new(Kind::Denied, doing, format!("the file {} cannot be read: {error}", path.display()))
                .help("the token is in it")
        })?;
        let mut token = HeaderValue::from_str(&token)
            .map_err(|_| Error::new(Kind::Denied, doing, "the token has characters that no token has"))?;
        token.set_sensitive(true);
        self.pace.turn().await;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let sent = self.client.get(url).header("xc-token", token).send().await;
        let mut response = sent.map_err(|error| broken(doing, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(|error| broken(doing, &error))? {
            if body.len() + part.len() > LARGEST {
                return Err(Error::new(Kind::Unreachable, doing, "the answer is too large").code(TOO_LARGE));
            }
            body.extend_from_slice(&part);
        }
        if status.is_success() {
            self.pace.answered();
            return Ok(Answer { body: body.freeze(), date: date(&headers) });
        }
        Err(self.refusal(status, &headers, &body, doing))
    }

    /// Asks once for an answer of this shape.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        doing: &str,
    ) -> Result<T> {
        let answer = self.get(path, query, doing).await?;
        serde_json::from_slice(&answer.body).map_err(|error| unreadable(doing, &error))
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], doing: &str) -> Error {
        let said: Said = serde_json::from_slice(body).unwrap_or_default();
        // Words of the server's own, in capitals. Others might be anything.
        let own = |text: &String| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let word = said.error.filter(own);
        let worded = word.is_some();
        let code = word.unwrap_or_else(|| format!("HTTP {}", status.as_u16()));
        let error = |kind, what: &str| Error::new(kind, doing, what).code(code.as_str());
        // Its database is away, or lets it in no more: it says so with any status, 401 and 422 among them.
        if code == DATABASE {
            return error(Kind::Unreachable, "NocoDB's own database has failed");
        }
        match status.as_u16() {
            401 => {
                self.pace.refused(None);
                error(Kind::Denied, "NocoDB does not accept the token")
                    .help("was it revoked? make a new one under Account, Tokens, and put it into the migration file")
            }
            403 => error(Kind::Denied, "the token's user may not do this")
                .help("give the user the role Viewer, or a higher one, in the base"),
            404 if worded => error(Kind::Unsuitable, "NocoDB does not know it (any more)"),
            // So a NocoDB answers that has just been started, to whatever it is asked; and so do others.
            404 => error(Kind::Unreachable, "what answers there is not NocoDB, or is still starting")
                .help("check the address in the migration file; it has no path of the API"),
            413 => error(Kind::Unreachable, "the page is too large for the server").code(TOO_LARGE),
            429 => {
                let wait = self.pace.refused(retry_after(headers));
                error(Kind::Exhausted, &format!("too many requests; waiting {} s", wait.as_secs().max(1)))
                    .help("lower `requests_per_second`")
            }
            400 | 422 => error(Kind::Unsuitable, "NocoDB does not accept the request"),
            500.. => error(Kind::Unreachable, "NocoDB or something before it has failed"),
            _ => error(Kind::Unsuitable, "NocoDB gives an answer that nobody expects; is this its address?"),
        }
    }
}

/// The connection broke. The driver's words name the whole address.
fn broken(doing: &str, error: &reqwest::Error) -> Error {
    if error.is_timeout() && !error.is_connect() {
        return Error::new(Kind::Unreachable, doing, "the answer takes too long").code(TOO_SLOW);
    }
    let what = if error.is_connect() { "no connection to NocoDB" } else { "the connection broke" };
    Error::new(Kind::Unreachable, doing, what)
}

/// The answer is no JSON of the shape that it should have: it was cut off, or something else has answered.
pub(super) fn unreadable(doing: &str, error: &serde_json::Error) -> Error {
    let what = if error.is_eof() { "the answer is cut off" } else { "the answer cannot be read" };
    // Its own text may quote a value.
    Error::new(Kind::Unreachable, doing, format!("{what} (line {}, column {})", error.line(), error.column()))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = times::http(text)? - date(headers)?;
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or_default()))
}

fn date(headers: &HeaderMap) -> Option<i64> {
    times::http(headers.get(DATE)?.to_str().ok()?)
}

//! Answers `/metrics`, `/healthz` and `/readyz`, in plain HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use slackwater_connectors::error::{Error, Kind, Result};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::health::Health;
use super::look_cache::{Latest, LookCache};
use super::metrics::{Here, Own, exposition};

/// A client that connects must send its request within this time.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// Further connections wait in the kernel's queue.
const CONNECTIONS: usize = 32;
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
const TEXT: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the answers are made from.
struct Endpoint {
    health: Arc<Health>,
    looks: LookCache,
    own: Option<Own>,
}

/// Binds the address, before any work starts: an address that cannot be bound is a mistake of the operator.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let what = format!("{error}; choose another address with --listen, or stop the process that uses it");
        Error::new(Kind::Unsuitable, format!("listening on {address}"), what)
    })
}

/// Answers requests for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>) {
    let endpoint = Arc::new(Endpoint { health, looks: LookCache::default(), own: Own::start() });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
    loop {
        let accepted = tokio::select! {
            _ = upkeep.tick() => {
                if let Some(own) = &endpoint.own {
                    own.upkeep();
                }
                continue;
            }
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        let (Ok((stream, _)), place) = accepted else {
            // No file descriptor is left, or the client has gone: the next one may succeed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let endpoint = Arc::clone(&endpoint);
                async move {
                    let (method, path) = (request.method(), request.uri().path());
                    Ok::<_, Infallible>(endpoint.answer(method, path).await)
                }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the metrics endpoint failed");
            }
        });
    }
}

impl Endpoint {
    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        // A hint, and no more: nothing is read of what comes with it.
        if let (&Method::POST, Some(word)) = (method, path.strip_prefix("/changed/")) {
            return if self.health.heard_of(word) {
                response(StatusCode::OK, TEXT, "ok\n".to_owned())
            } else {
                response(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned())
            };
        }
        if method != Method::GET && method != Method::HEAD {
            let mut refused =
                response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are allowed\n".to_owned());
            refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/metrics" => response(StatusCode::OK, EXPOSITION, self.metrics().await),
            "/healthz" => reasoned(self.health.hangs()),
            "/readyz" => {
                let latest = self.latest().await;
                reasoned(self.health.unready(latest.look.as_deref()))
            }
            "/" => response(StatusCode::OK, TEXT, "/metrics\n/healthz\n/readyz\n".to_owned()),
            _ => response(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
        }
    }

    async fn latest(&self) -> Latest {
        self.looks.latest(self.health.about()).await
    }

    async fn metrics(&self) -> String {
        let latest = self.latest().await;
        let here = Here {
            control_store_up: latest.up,
            ready: self.health.unready(latest.look.as_deref()).is_none(),
            age: latest.at.map(|at| at.elapsed()),
        };
        let mut text = exposition(latest.look.as_deref(), here);
        if let Some(own) = &self.own {
            text += &own.text();
        }
        text
    }
}

/// 200, or 503 with the reason.
fn reasoned(reason: Option<String>) -> Response<Full<Bytes>> {
    match reason {
        None => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Some(reason) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

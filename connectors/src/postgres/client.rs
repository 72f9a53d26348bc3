//! A connection with the settings that everything here relies on.
//!
//! Names are always written with their schema, so the search path holds the system's own only. A peer that is gone
//! without a word is noticed within a minute, by us through keep-alives and by the server through its timeouts.

use std::future::poll_fn;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use super::error::explain;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const CONNECTING: &str = "connecting to Postgres";

/// A timeout of the role may be shorter than a first copy takes, so ours replace it.
const SESSION: &str = "SET TIME ZONE 'UTC'; SET lock_timeout = '30s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET statement_timeout = 0; \
    SET client_min_messages = warning; SET search_path = pg_catalog";

/// Connects. The task drives the connection and ends with it.
pub async fn connect(url: &Secret) -> Result<(Client, JoinHandle<()>)> {
    let mut config = configuration(url)?;
    config
        .application_name("slackwater")
        .connect_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(15))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(45));
    let (client, mut connection) =
        config.connect(NoTls).await.map_err(|error| explain(CONNECTING, &error))?;
    let task = tokio::spawn(async move {
        // Notices are dropped: triggers write values into them, and the driver would log them.
        while let Some(Ok(_)) = poll_fn(|context| connection.poll_message(context)).await {}
    });
    client.batch_execute(SESSION).await.map_err(|error| explain(CONNECTING, &error))?;
    Ok((client, task))
}

fn configuration(url: &Secret) -> Result<Config> {
    let text = url.expose();
    let no_tls = || {
        Error::new(
            Kind::Unsuitable,
            CONNECTING,
            "the connection string demands TLS, which this build does not speak yet: use sslmode=prefer or a local \
             proxy that speaks TLS",
        )
    };
    if text.contains("sslmode=verify-") {
        return Err(no_tls());
    }
    // What the parser says could hold a piece of the password.
    let config: Config = text.parse().map_err(|_| {
        Error::new(
            Kind::Unsuitable,
            CONNECTING,
            "the connection string is not one that Postgres knows: \
             postgres://user:password@host:port/database, with special characters percent-encoded",
        )
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::new(
            Kind::Unsuitable,
            CONNECTING,
            "the connection string names no host; it looks like postgres://user:password@host:5432/database",
        ));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(no_tls());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_string_shows_nothing_of_itself() {
        for url in ["postgres://u:hunter2@h/db?hunter2=1", "hunter2", "postgres://u:hunter2@h:port/db"] {
            let error = configuration(&Secret::new(url)).expect_err("not valid");
            assert_eq!(error.kind, Kind::Unsuitable);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        for mode in ["require", "verify-full", "verify-ca"] {
            let error =
                configuration(&Secret::new(format!("postgres://u@h/db?sslmode={mode}"))).expect_err("TLS");
            assert!(error.what.contains("TLS"), "{error}");
        }
    }
}

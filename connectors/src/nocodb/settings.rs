//! How a base is reached, and how often it is asked.

use std::time::Duration;

use crate::secret::Secret;

/// What a person says about a base.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the server is: `https://nocodb.example`.
    pub url: String,
    /// An API token of a user who may read the base.
    pub token: Secret,
    /// The base's title or id.
    pub base: String,
    /// Columns that are read only if they are named: look-ups, rollups, formulas, foreign keys. Table and column, by title or id.
    pub include: Vec<(String, String)>,
    /// How often is asked what was created or updated.
    pub every: Duration,
    /// How often each table is read whole.
    pub sweep: Duration,
    /// So far a poll reaches back before the newest time that was seen.
    pub overlap: Duration,
    /// So many requests are sent in a second at the most. The hosted service lets five pass.
    pub requests_per_second: u32,
    /// How long one request may take.
    pub timeout: Duration,
    /// Records that are asked for at once. The server gives a thousand at the most.
    pub page: usize,
}

impl Settings {
    /// With the usual pace.
    pub fn new(url: impl Into<String>, token: Secret, base: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token,
            base: base.into(),
            include: Vec::new(),
            every: Duration::from_secs(2),
            sweep: Duration::from_secs(30),
            overlap: Duration::from_secs(5),
            requests_per_second: 5,
            timeout: Duration::from_secs(30),
            page: 1_000,
        }
    }
}

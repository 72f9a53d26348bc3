//! Documents of which the first version stands, or every version is a row: what is known of them, and which a recopy has not met.

use std::collections::HashMap;

use slackwater_topics::Key;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{BEGIN, COMMIT, Sink};
use crate::error::Result;
use crate::postgres::control::id::Id;
use crate::postgres::error::explain;
use crate::postgres::progress::{Answer, Version, VersionDigest};

/// Each by its key, whatever the statistics say of a table that is being filled.
const KNOWN: &str =
    "SELECT v.id, v.first, v.last, v.number FROM unnest($2::uuid[]) AS i(id) CROSS JOIN LATERAL
    (SELECT x.* FROM slackwater.versions AS x WHERE x.migration = $1 AND x.id = i.id OFFSET 0) AS v";

/// The documents of a collection that the copy under way has not met, and that are not known to be deleted.
const UNMET: &str = "SELECT v.key FROM slackwater.versions AS v JOIN slackwater.collections AS k USING (migration, collection)
    WHERE v.migration = $1 AND v.collection = $2 AND v.last IS NOT NULL AND v.met_at < k.started_at LIMIT $3";

impl Sink {
    /// What is known of the documents with these ids.
    pub async fn versions(&mut self, ids: &[Uuid]) -> Result<HashMap<Uuid, Version>> {
        let fail = |error: tokio_postgres::Error| explain("looking which versions stand", &error);
        self.tidy().await?;
        let ids: Vec<Id> = ids.iter().copied().map(Id).collect();
        self.dirty = true;
        self.client.batch_execute(BEGIN).await.map_err(fail)?;
        self.client.batch_execute("SET LOCAL enable_seqscan = off").await.map_err(fail)?;
        let rows = self.client.query(KNOWN, &[&self.migration, &ids]).await.map_err(fail)?;
        self.client.batch_execute(COMMIT).await.map_err(fail)?;
        self.dirty = false;
        rows.iter().map(version).collect::<Answer<_>>().map_err(fail)
    }

    /// Documents of a collection that are not in the source any more, as its recopy has seen: so many at the most.
    pub async fn unmet(&mut self, collection: &str, most: i64) -> Result<Vec<Key>> {
        let fail = |error: tokio_postgres::Error| explain("looking which documents are gone", &error);
        self.tidy().await?;
        let rows = self.client.query(UNMET, &[&self.migration, &collection, &most]).await.map_err(fail)?;
        let key = |row: &Row| row.try_get::<_, Vec<u8>>(0).map(|key| Key::from_bytes(&key));
        rows.iter().map(key).collect::<Answer<_>>().map_err(fail)
    }
}

fn version(row: &Row) -> Answer<(Uuid, Version)> {
    let digest = |bytes: &[u8]| VersionDigest::try_from(bytes).unwrap_or_default();
    let last: Option<&[u8]> = row.try_get(2)?;
    let version = Version { first: digest(row.try_get(1)?), last: last.map(digest), number: row.try_get(3)? };
    Ok((row.try_get::<_, Id>(0)?.0, version))
}

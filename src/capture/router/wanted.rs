//! Recopies that somebody has asked for in the control store: a table has lost its rows, the mapping has changed, a person wants it.

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::control::recopies::RecopyRow;
use slackwater_topics::CollectionId;

use super::{Done, Router};
use crate::ops::persist::passes;
use crate::ops::store::ask;

impl Router {
    /// What is asked for of our collections.
    async fn look_for_recopies(&mut self) -> Result<Vec<(CollectionId, RecopyRow)>> {
        let migration = &self.plan.migration;
        let wanted = self.store.control().await?.recopies(migration).await?;
        let ours = wanted.into_iter().filter_map(|row| {
            let id = self.plan.id_of(&row.collection).filter(|id| self.copying.contains_key(id))?;
            Some((id, row))
        });
        Ok(ours.collect())
    }

    /// Copies again what is asked for: all that has one reason together.
    pub(super) async fn recopy_wanted(&mut self) -> Done {
        // Not insisted on: a target that is away must not keep the stream from being read.
        let mut wanted = match self.look_for_recopies().await {
            Ok(wanted) => wanted,
            Err(error) if passes(&error) => {
                tracing::debug!(%error, "it is not known whether a recopy is asked for; later");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        while let Some((_, first)) = wanted.first() {
            let kind = first.kind.clone();
            let (these, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, row)| row.kind == kind);
            wanted = others;
            let (collections, rows): (Vec<CollectionId>, Vec<RecopyRow>) = these.into_iter().unzip();
            let mut texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
            texts.dedup();
            let text = texts.join("; ");
            self.recopy(collections, &kind, &text).await?;
            // A crash before this copies again once more.
            ask!(self.store, control => control.recopies_begun(&rows))?;
        }
        Ok(())
    }
}

//! The last verification: in the frozen second, of what has changed since the sources' changes were last looked at.
//!
//! The leader follows the changes itself, from where the capture has written down that it is. It has caught up right before the freeze, so little is
//! left for the frozen second, and nobody else has to answer.

use futures_util::future::try_join_all;
use slackwater_connectors::postgres::control::cutover::Fence;
use slackwater_connectors::postgres::control::proofs::FindingRow;

use super::{Abandon, Leader};
use crate::cutover::plan::{count, names};
use crate::ops::stop;
use crate::source::Source;
use crate::verify::{Cut, Follower};

/// Connections for each source that compare side by side.
const WORKERS: usize = 3;
/// Less than this is left for the freeze. A source that changes faster than that is not caught up with, and is tried so often.
const LITTLE: u64 = 300;
const TRIES: usize = 10;

impl From<Cut> for Abandon {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Asked => Self::Because("it was to stop".into()),
            Cut::Failed(failure) => Self::Failed(failure.into_error()),
        }
    }
}

impl<'a> Leader<'a> {
    /// Followers of all sources that can be followed, if the migration file wants changes to be verified.
    pub(super) async fn followers(&self) -> Result<Vec<Follower<'a>>, Abandon> {
        let mut followers = Vec::new();
        if self.migration.verify.is_none() {
            return Ok(followers);
        }
        let (_, stop) = stop::channel();
        for named in self.sources.iter().filter(|named| matches!(named.source, Source::Mongodb(_))) {
            let mut follower =
                Follower::new(self.migration, self.plan, named.clone(), (WORKERS, false), &stop).await?;
            let of_source = self.plan.collections.iter().filter(|one| one.source == named.name).count();
            if !follower.cover().await? || follower.covered().len() < of_source {
                return Err(Abandon::Because(format!(
                    "not_verified: it is not known which documents of {} have changed since they were verified",
                    named.name
                )));
            }
            followers.push(follower);
        }
        Ok(followers)
    }

    /// Looks at what has changed until now, so that little is left.
    pub(super) async fn catch_up(&self, followers: &mut [Follower<'a>]) -> Result<(), Abandon> {
        for follower in followers {
            for _ in 0..TRIES {
                let step = follower.step().await?.ok_or_else(lost)?;
                differs(&step.found)?;
                if step.documents < LITTLE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks at what has changed through the fence: how many documents these were.
    pub(super) async fn look_last(followers: &mut [Follower<'a>], fence: &Fence) -> Result<u64, Abandon> {
        let all = followers.iter_mut().map(|follower| async move {
            let moment = fence.moments.iter().find(|(name, _)| name == follower.source());
            let Some((_, moment)) = moment else { return Ok(0) };
            let mut documents = 0;
            while follower.through() < *moment {
                let step = follower.step_through(*moment).await?.ok_or_else(lost)?;
                documents += step.documents;
                differs(&step.found)?;
            }
            Ok::<_, Abandon>(documents)
        });
        Ok(try_join_all(all).await?.into_iter().sum())
    }
}

fn lost() -> Abandon {
    Abandon::Because("not_verified: it cannot be followed any more what changes".into())
}

/// What was found, if anything.
fn differs(found: &[FindingRow]) -> Result<(), Abandon> {
    if found.is_empty() {
        return Ok(());
    }
    let table = |finding: &FindingRow| {
        let table = finding.table.as_ref().map(|(schema, name)| format!("{schema}.{name}"));
        table.or(finding.collection.clone()).unwrap_or_default()
    };
    let tables: std::collections::BTreeSet<String> = found.iter().map(table).collect();
    Err(Abandon::Because(format!(
        "findings: {} not what their documents make, of {}",
        count(found.len(), "row is", "rows are"),
        names(tables.iter().map(String::as_str))
    )))
}

//! The last verification: in the frozen second, of what has changed since the sources' changes were last looked at.
//!
//! The leader follows the changes itself, from where the capture has written down that it is. It has caught up right before the freeze, so little is
//! left for the frozen second, and nobody else has to answer.

use futures_util::future::try_join_all;
use slackwater_connectors::postgres::control::accepted::Accepted;
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
                if self.accepted.has("not_verified") {
                    continue;
                }
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
    pub(super) async fn catch_up(&mut self, followers: &mut [Follower<'a>]) -> Result<(), Abandon> {
        for follower in followers {
            for _ in 0..TRIES {
                let Some(step) = follower.step().await? else {
                    self.unless_accepted("not_verified", LOST)?;
                    break;
                };
                if let Some(text) = differs(&step.found) {
                    self.unless_accepted("findings", &text)?;
                }
                if step.documents < LITTLE {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Looks at what has changed through the fence: how many documents these were, and what of it is not as it should be but was accepted.
pub(super) async fn look_last(
    followers: &mut [Follower<'_>],
    fence: &Fence,
    accepted: &Accepted,
) -> Result<(u64, Vec<(&'static str, String)>), Abandon> {
    let unless_accepted = |name: &'static str, text: String| match accepted.has(name) {
        true => Ok((name, text)),
        false => Err(Abandon::Because(format!("{name}: {text}"))),
    };
    let all = followers.iter_mut().map(|follower| async move {
        let (mut documents, mut over) = (0, Vec::new());
        let moment = fence.moments.iter().find(|(name, _)| name == follower.source());
        let Some((_, moment)) = moment else { return Ok((documents, over)) };
        while follower.through() < *moment {
            let Some(step) = follower.step_through(*moment).await? else {
                over.push(unless_accepted("not_verified", LOST.to_owned())?);
                break;
            };
            documents += step.documents;
            if let Some(text) = differs(&step.found) {
                over.push(unless_accepted("findings", text)?);
            }
        }
        Ok::<_, Abandon>((documents, over))
    });
    let all = try_join_all(all).await?;
    let documents = all.iter().map(|(documents, _)| documents).sum();
    Ok((documents, all.into_iter().flat_map(|(_, over)| over).collect()))
}

const LOST: &str = "it cannot be followed any more what changes";

/// What was found in words, if anything.
fn differs(found: &[FindingRow]) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let table = |finding: &FindingRow| {
        let table = finding.table.as_ref().map(|(schema, name)| format!("{schema}.{name}"));
        table.or(finding.collection.clone()).unwrap_or_default()
    };
    let tables: std::collections::BTreeSet<String> = found.iter().map(table).collect();
    let what =
        count(found.len(), "row is not what its document makes", "rows are not what their documents make");
    Some(format!("{what}, of {}", names(tables.iter().map(String::as_str))))
}

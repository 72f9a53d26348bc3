//! What an operator has accepted at a cutover although it blocks.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Control;
use super::doing::Doing as _;
use super::id::Id;
use crate::error::Result;
use crate::postgres::progress::count_of;

/// Blockers that do not block this cutover, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The name of each, and what there was of it; nothing yet if `None`.
    pub blockers: Vec<(String, Option<String>)>,
    /// Why, in the operator's words.
    pub reason: String,
}

impl Accepted {
    /// Nothing is accepted.
    pub fn is_empty(&self) -> bool {
        self.blockers.is_empty()
    }

    /// Whether this blocker is.
    pub fn has(&self, name: &str) -> bool {
        self.blockers.iter().any(|(known, _)| known == name)
    }

    /// Notes what there was of a blocker. False if it is not accepted.
    pub fn note(&mut self, name: &str, text: &str) -> bool {
        let Some((_, noted)) = self.blockers.iter_mut().find(|(known, _)| known == name) else {
            return false;
        };
        match noted {
            Some(before) if before.contains(text) => {}
            Some(before) => *before = format!("{before}; {text}"),
            None => *noted = Some(text.to_owned()),
        }
        true
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.blockers.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        self.blockers.iter().map(|(_, text)| text.as_deref().unwrap_or_default()).collect()
    }

    /// As null where nothing is accepted.
    pub(super) fn why(&self) -> Option<&str> {
        (!self.is_empty()).then_some(self.reason.as_str())
    }

    pub(super) fn stored(names: Vec<String>, texts: Vec<String>, reason: Option<String>) -> Self {
        let texts = texts.into_iter().map(|text| (!text.is_empty()).then_some(text));
        let texts = texts.chain(std::iter::repeat(None));
        Self { blockers: names.into_iter().zip(texts).collect(), reason: reason.unwrap_or_default() }
    }
}

impl Control {
    /// Records what is accepted at a cutover that has begun.
    pub async fn accept_at_cutover(&self, id: Uuid, accepted: &Accepted) -> Result<()> {
        let sql = "UPDATE slackwater.cutovers SET accepted = $2, accepted_texts = $3, accepted_reason = $4, \
                   accepted_at = coalesce(accepted_at, clock_timestamp()) WHERE id = $1";
        let (names, texts, why) = (accepted.names(), accepted.texts(), accepted.why());
        let doing = "recording what is accepted at the cutover";
        self.client.execute(sql, &[&Id(id), &names, &texts, &why]).await.doing(doing).map(drop)
    }

    /// Dead letters that a cutover waits for although dead letters are accepted: documents that wait for a table or are on their way back,
    /// and references that came too early and are tried again every second.
    pub async fn letters_on_their_way(&self, migration: &str, id: Uuid) -> Result<u64> {
        let sql = "SELECT count(*) FROM slackwater.dead_letters WHERE migration = $1 AND (kind = 'standing' OR kind = '23503' \
                   AND first_seen > (SELECT accepted_at - interval '10 s' FROM slackwater.cutovers WHERE id = $2))";
        let count = |row: &Row| count_of(row, 0);
        let found = self.rows("counting dead letters", sql, &[&migration, &Id(id)], count).await?;
        Ok(found.into_iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_accepted_is_noted() {
        let mut accepted =
            Accepted::stored(vec!["dead_letters".into(), "findings".into()], vec![String::new()], None);
        assert_eq!(accepted.blockers[0], ("dead_letters".to_owned(), None));
        assert!(accepted.note("dead_letters", "2 left") && accepted.note("dead_letters", "2 left"));
        assert!(!accepted.note("lag", "4 s"));
        assert!(accepted.note("dead_letters", "3 left"));
        assert_eq!(accepted.texts(), ["2 left; 3 left", ""]);
        assert!(accepted.has("findings") && !accepted.has("lag"));
    }
}

//! What a check has said, for people and for machines. Pure.
//!
//! Values are shown in the output of `checks` and in the report of the switch, which are for them; nowhere else.

use serde_json::{Value as Json, json};

use super::value::Value;
use crate::config::Within;

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) name: String,
    /// A criterion for going back.
    pub(crate) rollback: bool,
    pub(crate) found: Found,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A query that should find nothing found so many rows.
    Rows(u64),
    /// So many values refer to rows that are not there; why Postgres does not vouch for them.
    Orphans(u64, &'static str),
    /// What both sides say.
    Both(Compared),
    /// Why it could not run.
    CannotRun(String),
}

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Fails,
    /// It cannot be told.
    Unsettled,
    CannotRun,
}

impl Verdict {
    /// Its fixed name.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails => "fails",
            Self::Unsettled => "unsettled",
            Self::CannotRun => "cannot_run",
        }
    }

    /// Whether it fails, where that is known. One that cannot run proves nothing, and that is a failure.
    pub(crate) fn failing(self) -> Option<bool> {
        match self {
            Self::Holds => Some(false),
            Self::Fails | Self::CannotRun => Some(true),
            Self::Unsettled => None,
        }
    }
}

/// What both sides of a check say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) verdict: Verdict,
    /// Why it is unsettled.
    pub(crate) why: Option<&'static str>,
    /// The field and column with the key.
    pub(crate) by: Option<String>,
    pub(crate) within: Within,
    /// How many keys there are, and how many of them differ.
    pub(crate) keys: u64,
    pub(crate) differing: u64,
    /// Some of them; without `by`, what both sides say.
    pub(crate) shown: Vec<Pair>,
}

/// What both sides say of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) source: Value,
    pub(crate) target: Value,
}

impl Compared {
    /// Without a value.
    fn said(&self) -> String {
        let of = match self.by {
            Some(_) => format!("{} of {}", self.differing, counted(self.keys, "key", "keys")),
            None => "source and target".to_owned(),
        };
        match (self.verdict, self.why) {
            (Verdict::Holds, _) if self.by.is_some() => {
                format!("{} agree", counted(self.keys, "key", "keys"))
            }
            (Verdict::Holds, _) => "source and target agree".to_owned(),
            (Verdict::Unsettled, Some(why)) => why.to_owned(),
            (Verdict::Fails, _) if self.differing == 1 && self.by.is_some() => format!("{of} differs"),
            _ => format!("{of} differ"),
        }
    }

    fn json(&self) -> Json {
        let within = within(&self.within);
        if self.by.is_none() {
            let side =
                |of: fn(&Pair) -> &Value| self.shown.first().map_or(Json::Null, |pair| of(pair).json());
            return json!({
                "source": side(|pair| &pair.source), "target": side(|pair| &pair.target), "within": within, "why": self.why,
            });
        }
        let pairs: Vec<Json> = self
            .shown
            .iter()
            .map(|pair| json!({"key": pair.key, "source": pair.source.json(), "target": pair.target.json()}))
            .collect();
        json!({
            "by": self.by, "within": within, "keys": self.keys, "differing": self.differing, "differences": pairs, "why": self.why,
        })
    }
}

impl Checked {
    pub(crate) fn verdict(&self) -> Verdict {
        match &self.found {
            Found::Rows(0) | Found::Orphans(0, _) => Verdict::Holds,
            Found::Rows(_) | Found::Orphans(..) => Verdict::Fails,
            Found::Both(compared) => compared.verdict,
            Found::CannotRun(_) => Verdict::CannotRun,
        }
    }

    /// What it says, without a value and without its name.
    pub(crate) fn said(&self) -> String {
        match &self.found {
            Found::Rows(0) => "no rows".to_owned(),
            Found::Rows(rows) => format!("{}, and there should be none", counted(*rows, "row", "rows")),
            Found::Orphans(0, _) => "every value has its row".to_owned(),
            Found::Orphans(1, why) => format!("1 value refers to a row that is not there ({why})"),
            Found::Orphans(count, why) => format!("{count} values refer to rows that are not there ({why})"),
            Found::Both(compared) => compared.said(),
            Found::CannotRun(why) => format!("it cannot run: {why}"),
        }
    }

    /// Why the check does not hold, if it is known not to; without a value.
    pub(crate) fn complaint(&self) -> Option<String> {
        match (&self.found, self.verdict()) {
            (_, Verdict::Holds | Verdict::Unsettled) => None,
            (Found::Rows(rows), _) => {
                Some(format!("`{}` finds {rows} rows, and should find none", self.name))
            }
            (Found::CannotRun(error), _) => Some(format!("`{}` cannot run: {error}", self.name)),
            _ => Some(format!("`{}`: {}", self.name, self.said())),
        }
    }

    /// With the values.
    pub(crate) fn json(&self) -> Json {
        let verdict = self.verdict();
        let mut json = match &self.found {
            Found::Rows(rows) => json!({"rows": rows}),
            Found::Orphans(count, why) => json!({"orphans": count, "foreign_key": why}),
            Found::Both(compared) => compared.json(),
            Found::CannotRun(error) => json!({"error": error}),
        };
        json["check"] = self.name.as_str().into();
        json["holds"] = (verdict == Verdict::Holds).into();
        json["verdict"] = verdict.word().into();
        json["rollback"] = self.rollback.into();
        json
    }

    /// With the values, as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Found::Both(compared) = &self.found else {
            return vec![format!("{}: {}", self.name, self.said())];
        };
        let bounds = match &compared.within {
            Within::Amount(amount) if *amount == crate::decimal::Decimal::default() => String::new(),
            within_some => format!(" (within {})", within(within_some)),
        };
        let pair = |pair: &Pair| format!("{} at the source, {} in the target", pair.source, pair.target);
        let mut lines = vec![match (&compared.by, compared.shown.first()) {
            (None, Some(only)) if compared.verdict == Verdict::Unsettled => {
                format!("{}: {}; last {}{bounds}", self.name, self.said(), pair(only))
            }
            (None, Some(only)) => format!("{}: {}{bounds}", self.name, pair(only)),
            _ => format!("{}: {}{bounds}", self.name, self.said()),
        }];
        if compared.by.is_some() {
            lines.extend(compared.shown.iter().map(|one| format!("  {}: {}", one.key, pair(one))));
            let more = compared.differing.saturating_sub(compared.shown.len() as u64);
            if more > 0 {
                lines.push(format!("  and {more} more"));
            }
        }
        lines
    }
}

fn within(within: &Within) -> String {
    match within {
        Within::Amount(amount) => amount.to_string(),
        Within::Percent(percent) => format!("{percent}%"),
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::Decimal;

    fn both(verdict: Verdict, by: Option<&str>, differing: u64) -> Checked {
        let pair = |key: &str| Pair { key: key.into(), source: Value::whole(12), target: Value::whole(11) };
        let compared = Compared {
            verdict,
            why: (verdict == Verdict::Unsettled).then_some("it changes all the time"),
            by: by.map(str::to_owned),
            within: Within::Percent(Decimal::parse("1").expect("a number")),
            keys: 40,
            differing,
            shown: vec![pair(if by.is_some() { "ann" } else { "" })],
        };
        Checked { name: "balance".into(), rollback: true, found: Found::Both(compared) }
    }

    #[test]
    fn complaints_hold_no_values() {
        let fails = both(Verdict::Fails, Some("user"), 21);
        assert_eq!(fails.complaint().as_deref(), Some("`balance`: 21 of 40 keys differ"));
        assert_eq!(
            fails.lines(),
            [
                "balance: 21 of 40 keys differ (within 1%)",
                "  ann: 12 at the source, 11 in the target",
                "  and 20 more"
            ]
        );
        let one = both(Verdict::Fails, None, 1);
        assert_eq!(one.complaint().as_deref(), Some("`balance`: source and target differ"));
        assert_eq!(one.lines(), ["balance: 12 at the source, 11 in the target (within 1%)"]);
        assert_eq!(one.json()["source"], "12");
    }

    #[test]
    fn what_cannot_be_told_is_no_complaint_and_does_not_hold() {
        let open = both(Verdict::Unsettled, None, 0);
        assert_eq!((open.complaint(), open.verdict().failing()), (None, None));
        assert_eq!(open.json()["holds"], false);
        assert_eq!(
            open.lines(),
            ["balance: it changes all the time; last 12 at the source, 11 in the target (within 1%)"]
        );
        let broken = Checked { found: Found::CannotRun("no table".into()), ..open };
        assert_eq!(broken.complaint().as_deref(), Some("`balance` cannot run: no table"));
        assert_eq!(broken.verdict().failing(), Some(true));
    }
}

//! Runs checks while both sides live.
//!
//! **One moment**: where the log is direct, rows and the progress of the stream are one transaction. The target is read together with its
//! progress, and then the source as of that moment. Otherwise the source is read as of a moment, the target is waited for until it has
//! reached it, and then read; what it has beyond that moment makes a difference that goes away, and `series` waits for that.

use std::time::{Duration, Instant};

use slackwater_connectors::error::{Error, Kind, Result};
use slackwater_connectors::mongodb::AsOf;
use slackwater_connectors::postgres::control::lanes;
use slackwater_connectors::postgres::target::checks::{Question, Standing};
use slackwater_connectors::postgres::target::finish::Finisher;
use slackwater_topics::Moment;

use super::outcome::{Checked, Compared, Found, Pair, Verdict};
use super::series::{Known, Series};
use super::sides::{Keys, Round, Side, compare, compare_only, of_documents, of_rows};
use super::value::Value;
use super::{MOST_KEYS, MOST_SHOWN, orphans, query, said, unsuitable};
use crate::config::{Asks, Both, Check, Log, Migration};
use crate::ops::look::{Look, Named as About};
use crate::ops::persist::Stopped;
use crate::ops::stop::{self, Stop};
use crate::ops::store::{Store, ask};
use crate::source::{Named, Source};
use crate::verify::reached::{Present, present, reached};

/// What does not settle for so long is told as unsettled.
const WITHIN: Duration = Duration::from_secs(30);
/// However long a read takes, both sides are read so often.
const LEAST_ROUNDS: u32 = 4;
/// A target that does not move for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two rounds: a document that failed is tried again after a second or two, and should not look like a difference that stays.
const SPACING: Duration = Duration::from_millis(600);
/// How long is waited for a moment at which the target has nothing half.
const WHOLE_WITHIN: Duration = Duration::from_secs(2);
const WHOLE_EVERY: Duration = Duration::from_millis(5);

const MOVES: &str = "what is compared changes all the time, or more often than the target follows";
const BEHIND: &str = "the target does not follow: is a process of the migration at work?";
const UNFINISHED: &str = "not everything is copied yet";

/// What checks need while both sides live.
pub(crate) struct Ground<'m> {
    migration: &'m Migration,
    sources: &'m [Named],
    finisher: Finisher,
    store: Store,
    stop: Stop,
    /// Everything is copied.
    copied: bool,
}

/// What a check has found, or that there is no time for it.
type Answer<T> = std::result::Result<T, Stopped>;

impl<'m> Ground<'m> {
    pub(crate) async fn open(migration: &'m Migration, sources: &'m [Named], stop: &Stop) -> Answer<Self> {
        let finisher = Finisher::open(&migration.target.uri, &migration.target.schema).await?;
        let mut store = Store::new(&migration.target.uri, None, stop);
        let look = ask!(store, control => Look::read(control, &About::of(migration)))?;
        Ok(Self { migration, sources, finisher, store, stop: stop.clone(), copied: look.copied() })
    }

    /// Runs a check of the file.
    pub(crate) async fn run(&mut self, check: &Check) -> Answer<Checked> {
        match &check.asks {
            Asks::Nothing(sql) => Ok(query(&self.finisher, check, &sql.value).await?),
            Asks::Both(both) => match self.compare(check, both).await {
                Ok(found) => Ok(said(check, Ok(found))?),
                Err(Stopped::Failed(error)) => Ok(said(check, Err(error))?),
                Err(Stopped::Asked) => Err(Stopped::Asked),
            },
        }
    }

    /// Runs one of our own.
    pub(crate) async fn run_built_in(&mut self, key: &orphans::Built) -> Answer<Checked> {
        let mut found = self.finisher.orphans(&key.key, super::MOST_ROWS).await?;
        // What refers to a row that is on its way is no orphan: it has to be there again once the target has reached the source, twice.
        for _ in 0..2 {
            if found.is_empty() {
                break;
            }
            for named in self.sources {
                let now = present(&named.source).await?;
                // Where nobody works nothing is on its way.
                self.reached(named, now).await?;
            }
            let again = self.finisher.orphans(&key.key, super::MOST_ROWS).await?;
            found.retain(|value| again.contains(value));
        }
        let found = Found::Orphans(found.len() as u64, key.key.why);
        Ok(Checked { name: key.name.clone(), rollback: false, found })
    }

    async fn compare(&mut self, check: &Check, both: &Both) -> Answer<Found> {
        let open = |why| Found::Both(closed(both, &Series::default(), Known::Open, Some(why)));
        if !self.copied {
            return Ok(open(UNFINISHED));
        }
        let named = source_named(self.sources, &both.source)?;
        let begun = Instant::now();
        let mut series = Series::default();
        loop {
            let Some(round) = self.round(check, both, named).await? else { return Ok(open(BEHIND)) };
            series.add(round);
            let last = series.rounds() >= LEAST_ROUNDS && begun.elapsed() > WITHIN;
            let known = series.known(last);
            if last || known != Known::Open {
                return Ok(Found::Both(closed(both, &series, known, Some(MOVES))));
            }
            if !self.stop.sleep(SPACING).await {
                return Err(Stopped::Asked);
            }
            // What was under way has come then.
            let now = present(&named.source).await?;
            if !self.reached(named, now).await? {
                return Ok(Found::Both(closed(both, &series, Known::Open, Some(BEHIND))));
            }
        }
    }

    /// Reads both sides once. `None` if the target does not follow.
    async fn round(&mut self, check: &Check, both: &Both, named: &Named) -> Answer<Option<Round>> {
        if matches!(self.migration.log, Log::Direct)
            && let Some(round) = self.as_of_the_target(check, both, named).await?
        {
            return Ok(Some(round));
        }
        let at = Instant::now();
        let name = &check.name.value;
        let read = side_of(name, self.migration, named, both, AsOf::Present).await?;
        let (source, moment) = match read {
            Some((side, Some(moment))) => (side, Present { moment, at }),
            _ => {
                let read = side_of(name, self.migration, named, both, AsOf::Majority).await?;
                (read.map(|(side, _)| side).unwrap_or_default(), present(&named.source).await?)
            }
        };
        if !self.reached(named, moment).await? {
            return Ok(None);
        }
        let (target, _) = rows_of(&self.finisher, question(check, both), None).await?;
        Ok(Some(round(both, &source, &target, false)))
    }

    /// The target first, together with its progress, and the source as of that. `None` where the source cannot be read so.
    async fn as_of_the_target(&mut self, check: &Check, both: &Both, named: &Named) -> Answer<Option<Round>> {
        let Source::Mongodb(mongo) = &named.source else { return Ok(None) };
        if !mongo.has_snapshots() {
            return Ok(None);
        }
        let round = self.read_as_of_the_target(check, both, named).await?;
        let Some(open) = round.as_ref().filter(|round| !round.exact && !round.differences.is_empty()) else {
            return Ok(round);
        };
        tracing::debug!(
            check = check.name.value,
            differences = open.differences.len(),
            "once more, as of a whole moment"
        );
        // It differs, but rows may have been newer. Under a writer who never rests each read is of that kind.
        let lane = lanes::stream(&named.name);
        let lane = (self.migration.name.as_str(), lane.as_str());
        let begun = Instant::now();
        while self.finisher.standing(lane).await?.is_some_and(|standing| !standing.exact) {
            if begun.elapsed() >= WHOLE_WITHIN {
                return Ok(round);
            }
            if !self.stop.sleep(WHOLE_EVERY).await {
                return Err(Stopped::Asked);
            }
        }
        self.read_as_of_the_target(check, both, named).await
    }

    async fn read_as_of_the_target(
        &mut self,
        check: &Check,
        both: &Both,
        named: &Named,
    ) -> Answer<Option<Round>> {
        let lane = lanes::stream(&named.name);
        let lane = (self.migration.name.as_str(), lane.as_str());
        let (target, standing) = rows_of(&self.finisher, question(check, both), Some(lane)).await?;
        let Some(Standing { through, exact }) = standing else { return Ok(None) };
        let name = &check.name.value;
        let read = side_of(name, self.migration, named, both, AsOf::Moment(through)).await?;
        Ok(read.map(|(source, _)| round(both, &source, &target, exact)))
    }

    /// Waits until the target shows everything through the source's present; false if it does not move.
    async fn reached(&mut self, named: &Named, present: Present) -> Answer<bool> {
        let of = (named.name.as_str(), named.source.kind());
        reached(self.migration, &mut self.store, &self.stop, of, present, PATIENCE).await
    }
}

/// What the gate of the switch asks beside its queries: checks with a source side in their live form, and our own.
pub(crate) async fn at_gate(migration: &Migration, sources: &[Named]) -> Result<Vec<Checked>> {
    // Nobody stops it: who waits at the gate ends the process.
    let (_stopper, stop) = stop::channel();
    let failed = |stopped| match stopped {
        Stopped::Failed(error) => error,
        Stopped::Asked => Error::new(Kind::Bug, "running the checks", "they were stopped"),
    };
    let mut ground = Ground::open(migration, sources, &stop).await.map_err(failed)?;
    let mut found = Vec::new();
    for check in migration.checks.iter().filter(|check| matches!(check.asks, Asks::Both(_))) {
        found.push(ground.run(check).await.map_err(failed)?);
    }
    for key in orphans::built_in(&ground.finisher, migration).await? {
        found.push(ground.run_built_in(&key).await.map_err(failed)?);
    }
    Ok(found)
}

impl Ground<'_> {
    /// Our own checks.
    pub(crate) async fn built_in(&self) -> Result<Vec<orphans::Built>> {
        orphans::built_in(&self.finisher, self.migration).await
    }
}

pub(super) fn source_named<'n>(sources: &'n [Named], name: &str) -> Result<&'n Named> {
    let away =
        || Error::new(Kind::Unreachable, "running the checks", format!("source {name} does not answer"));
    sources.iter().find(|named| named.name == name).ok_or_else(away)
}

pub(super) fn question<'c>(check: &'c Check, both: &'c Both) -> Question<'c> {
    Question {
        name: &check.name.value,
        sql: &both.target.value,
        by: both.by.as_deref(),
        most: if both.by.is_some() { MOST_KEYS } else { 1 },
    }
}

/// The source's side, and the moment that it is as of. `None` if it cannot be read as of that.
pub(super) async fn side_of(
    check: &str,
    migration: &Migration,
    named: &Named,
    both: &Both,
    as_of: AsOf,
) -> Result<Option<(Side, Option<Moment>)>> {
    let Some(stages) = &both.stages else {
        let count = named.source.count_exactly(&both.collection.value).await?;
        return Ok(Some(([(super::sides::ONLY.to_owned(), Value::whole(count))].into(), None)));
    };
    let Source::Mongodb(mongo) = &named.source else {
        return Err(unsuitable(check, "only MongoDB aggregates for us".to_owned()));
    };
    let read = mongo.aggregate(&both.collection.value, stages, as_of, MOST_KEYS).await?;
    let Some(read) = read else { return Ok(None) };
    let of = both.of.as_deref().map(|collection| (migration.namespace, collection));
    let keys = Keys { by: both.by.as_deref(), of };
    let side = of_documents(&read.documents, keys).map_err(|what| unsuitable(check, what))?;
    Ok(Some((side, read.moment)))
}

/// The target's side, and how far the lane was.
pub(super) async fn rows_of(
    finisher: &Finisher,
    question: Question<'_>,
    lane: Option<(&str, &str)>,
) -> Result<(Side, Option<Standing>)> {
    let asked = finisher.ask(question, lane).await?;
    let side = of_rows(asked.rows).map_err(|what| unsuitable(question.name, what))?;
    Ok((side, asked.standing))
}

pub(super) fn round(both: &Both, source: &Side, target: &Side, exact: bool) -> Round {
    let round = match both.by {
        Some(_) => compare(source, target, &both.within),
        None => compare_only(source, target, &both.within),
    };
    Round { exact, ..round }
}

/// What is told of a comparison.
pub(super) fn closed(both: &Both, series: &Series, known: Known, why: Option<&'static str>) -> Compared {
    let (verdict, differing) = match known {
        Known::Holds => (Verdict::Holds, Default::default()),
        Known::Fails(keys) => (Verdict::Fails, keys),
        Known::Open => (Verdict::Unsettled, Default::default()),
    };
    let count = differing.len() as u64;
    let pair = |(key, (source, target))| Pair { key, source, target };
    let shown = match (series.only(), &both.by) {
        (Some(only), None) => vec![pair((String::new(), only.clone()))],
        _ => differing.into_iter().take(MOST_SHOWN).map(pair).collect(),
    };
    Compared {
        verdict,
        why: why.filter(|_| verdict == Verdict::Unsettled),
        by: both.by.clone(),
        within: both.within.clone(),
        keys: series.keys(),
        differing: count,
        shown,
    }
}

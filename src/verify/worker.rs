//! Maps documents and compares their rows with those that stand: one worker of a verification.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use slackwater_connectors::error::{Kind, Result};
use slackwater_connectors::postgres::target::compare::Lists;
use slackwater_connectors::postgres::target::comparer::{Comparer, Difference, SeenMade};
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_connectors::postgres::target::surplus::Surplus;
use slackwater_topics::{CollectionId, Event, Key, Op, Position};
use uuid::Uuid;

use crate::judging::ask;
use crate::mapping::{Inputs, Mapper, Plan, Texts};

/// No row has such a number: what has none yet is missing.
const NO_NUMBER: i64 = -1;

/// See the module.
pub(super) struct Worker {
    plan: Arc<Plan>,
    mapper: Mapper,
    records: WriteSet,
    /// What would go if the documents were deleted.
    theirs: WriteSet,
    /// Tables whose rows outlive their documents.
    outlive: Vec<usize>,
    pub(super) comparer: Comparer,
    /// Of each table where the rows of each document begin.
    begins: HashMap<usize, Vec<usize>>,
}

/// What was seen of some documents.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// What differs, with the document, as an index.
    pub(super) differences: Vec<(usize, Difference)>,
    /// Documents that have no rows, because the mapping or the target refuses them, with the reason.
    pub(super) refused: Vec<(usize, String)>,
    /// Which of them have a dead letter, if that was asked.
    pub(super) letters: Vec<usize>,
    /// Of which of them the first version stands, and is not the one that the source has, if that was asked.
    pub(super) kept: Vec<usize>,
    /// Which of the differences are of rows that wait, and whether the switch waits for that, if that was asked.
    pub(super) waiting: HashMap<usize, bool>,
    /// Rows that were compared, by table.
    pub(super) rows: BTreeMap<usize, u64>,
    /// Rows that belong to documents which do not make them, with the document, if that was asked.
    pub(super) surplus: Vec<(usize, Surplus)>,
}

/// What is asked of a comparison.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// What differs; keys are kept in the lists.
    Differences(Option<Lists>),
    /// What differs at one moment, and what explains it.
    Explained,
    /// What differs, and rows that belong to the documents and should not be there; `explained`: and what explains it.
    Changed { explained: bool },
}

impl Worker {
    pub(super) fn new(plan: &Arc<Plan>, comparer: Comparer) -> Self {
        let kept = plan.collections.iter().filter(|one| one.append_only).flat_map(|one| &one.tables);
        let mut outlive: Vec<usize> = kept.copied().collect();
        outlive.extend((0..plan.tables.len()).filter(|table| plan.is_history(*table)));
        Self {
            plan: Arc::clone(plan),
            mapper: Mapper::new(Arc::clone(plan)),
            records: WriteSet::new(&plan.tables, false),
            theirs: WriteSet::new(&plan.tables, false),
            outlive,
            comparer,
            begins: HashMap::new(),
        }
    }

    /// Compares what these documents of one collection make. What cannot be compared at once is compared in halves.
    pub(super) async fn compare(&mut self, events: &[Event], asked: Asked) -> Result<Compared> {
        let mut all = Compared::default();
        let mut open = vec![(0..events.len(), false)];
        self.mapper.refuse(Texts::new(), Inputs::new());
        self.mapper.tidy();
        while let Some((part, judged)) = open.pop() {
            if part.is_empty() {
                continue;
            }
            let refused = self.map(&events[part.clone()]).await?;
            let explained = matches!(asked, Asked::Explained | Asked::Changed { explained: true });
            match self.compare_mapped(&events[part.clone()], asked).await {
                // Which document they belong to is seen of one alone.
                Ok(seen) if !seen.surplus.is_empty() && part.len() > 1 => {
                    let half = part.start + part.len() / 2;
                    open.extend([(half..part.end, judged), (part.start..half, judged)]);
                }
                Ok(mut seen) => {
                    all.surplus.extend(seen.surplus.drain(..).map(|row| (part.start, row)));
                    let (differences, before) = (all.differences.len(), part.start);
                    all.waiting.extend(seen.waiting.drain().map(|(at, blocks)| (differences + at, blocks)));
                    all.letters.extend(seen.letters.drain(..).map(|at| before + at));
                    all.kept.extend(seen.kept.drain(..).map(|at| before + at));
                    for difference in seen.differences {
                        if let Some(document) = self.document_of(&difference) {
                            all.differences.push((before + document, difference));
                        }
                    }
                    all.refused.extend(refused.into_iter().map(|(at, why)| (before + at, why)));
                    for (table, write) in self.records.tables.iter().enumerate() {
                        if !write.rows.is_empty() {
                            *all.rows.entry(table).or_default() += write.rows.len() as u64;
                        }
                    }
                }
                Err(error) if error.kind == Kind::Data => {
                    self.records.clear();
                    let judge = self.comparer.judge();
                    let shaped = self.plan.tables.iter().any(|spec| spec.shape.is_some());
                    if shaped
                        && !judged
                        && ask(&self.plan, &mut self.mapper, &mut self.records, &events[part.clone()], judge)
                            .await?
                    {
                        open.push((part, true));
                    } else if part.len() == 1 {
                        all.refused.push((part.start, error.to_string()));
                        if explained {
                            self.records.clear();
                            let seen = self.compare_mapped(&events[part.clone()], asked).await?;
                            all.letters.extend(seen.letters.into_iter().map(|at| part.start + at));
                        }
                    } else {
                        let half = part.start + part.len() / 2;
                        open.extend([(half..part.end, judged), (part.start..half, judged)]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Takes what these events make, or what a document with their ids could have made, out of the lists of extra rows; `theirs`: and all
    /// rows that belong to them.
    pub(super) async fn strike(
        &mut self,
        events: &[Event],
        lists: Lists,
        tables: &[Vec<usize>],
        theirs: bool,
    ) -> Result<()> {
        self.mapper.refuse(Texts::new(), Inputs::new());
        let mut open: Vec<std::ops::Range<usize>> = std::iter::once(0..events.len()).collect();
        while let Some(part) = open.pop() {
            self.map(&events[part.clone()]).await?;
            match self.comparer.strike(lists, tables, &self.records, theirs).await {
                Ok(_) => {}
                // A document that the target refuses has a dead letter, and its rows are looked for by its id.
                Err(error) if error.kind == Kind::Data => {
                    let half = part.start + part.len() / 2;
                    if part.len() > 1 {
                        open.extend([half..part.end, part.start..half]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes all rows that belong to these documents out of the lists of extra rows. `had`: those of the documents that had some there, as
    /// indices; it is added to, so a second try after a lost connection forgets nobody.
    pub(super) async fn strike_theirs(
        &mut self,
        events: &[Event],
        lists: Lists,
        tables: &[Vec<usize>],
        had: &mut BTreeSet<usize>,
    ) -> Result<()> {
        self.mapper.refuse(Texts::new(), Inputs::new());
        let mut open: Vec<std::ops::Range<usize>> = std::iter::once(0..events.len()).collect();
        while let Some(part) = open.pop() {
            self.map(&events[part.clone()]).await?;
            self.comparer.begin_strike().await?;
            let gone = match self.comparer.strike(lists, tables, &self.records, true).await {
                Ok(gone) => Some(gone),
                Err(error) if error.kind == Kind::Data => None,
                Err(error) => return Err(error),
            };
            let alone = part.len() == 1;
            if alone && gone.is_some_and(|gone| gone > 0) {
                had.insert(part.start);
            }
            // Whose rows they are is seen of one document alone.
            let keep = gone.is_some_and(|gone| alone || gone == 0);
            self.comparer.end_strike(keep).await?;
            if !keep && !alone {
                let half = part.start + part.len() / 2;
                open.extend([half..part.end, part.start..half]);
            }
        }
        Ok(())
    }

    /// Makes rows of the events; which of them are refused, and why.
    async fn map(&mut self, events: &[Event]) -> Result<Vec<(usize, String)>> {
        loop {
            self.records.clear();
            self.begins.clear();
            let mut refused = Vec::new();
            for (at, event) in events.iter().enumerate() {
                for table in &self.plan.collection(event.collection).tables {
                    let begins = self.begins.entry(*table).or_default();
                    begins.push(self.records.tables[*table].rows.mark().0);
                }
                if let Err(rejection) = self.mapper.map(event, &mut self.records) {
                    refused.push((at, rejection.to_string()));
                }
            }
            let _ = self.mapper.take_tallies();
            let wanted = self.mapper.take_wanted();
            if wanted.is_empty() {
                self.records.sort();
                return Ok(refused);
            }
            for (series, ids) in wanted {
                let mut numbers: HashMap<Uuid, i64> = ids.iter().map(|id| (*id, NO_NUMBER)).collect();
                numbers.extend(self.comparer.numbers(&self.plan.series[usize::from(series)], &ids).await?);
                self.mapper.learn(series, numbers);
            }
        }
    }

    /// Numbers that documents had not yet may be there by now.
    pub(super) fn forget(&mut self) {
        self.mapper = Mapper::new(Arc::clone(&self.plan));
    }

    async fn compare_mapped(&mut self, events: &[Event], asked: Asked) -> Result<Plainly> {
        match asked {
            Asked::Differences(lists) => {
                let differences = self.comparer.compare(&self.records, lists).await?;
                Ok(Plainly { differences, ..Plainly::default() })
            }
            Asked::Changed { explained } => {
                let asked = if explained { Asked::Explained } else { Asked::Differences(None) };
                // In this order: what is explained by a letter that goes meanwhile has its rows afterwards.
                let seen = Box::pin(self.compare_mapped(events, asked)).await?;
                self.map_theirs(events);
                let surplus = self.comparer.surplus(&self.records, &self.theirs, &self.outlive).await?;
                Ok(Plainly { surplus, ..seen })
            }
            Asked::Explained => {
                let documents: Vec<(&str, &[u8])> = events
                    .iter()
                    .map(|event| (self.plan.collection(event.collection).name.as_str(), event.key.as_bytes()))
                    .collect();
                let append_only =
                    events.iter().any(|event| self.plan.collection(event.collection).append_only);
                let seen = self.comparer.look(&self.records, &documents, append_only).await?;
                Ok(Plainly {
                    differences: seen.differences,
                    letters: seen.letters.into_iter().collect(),
                    kept: seen.kept.into_iter().collect(),
                    waiting: seen.waiting,
                    surplus: Vec::new(),
                })
            }
        }
    }

    /// What would go with the documents, of tables where that is not what they themselves bring.
    fn map_theirs(&mut self, events: &[Event]) {
        self.theirs.clear();
        let by_ids = |table: &usize| {
            let spec = &self.plan.tables[*table];
            spec.claimed || spec.found.is_some()
        };
        for event in events {
            if self.plan.collection(event.collection).tables.iter().any(by_ids) {
                // A delete is never refused.
                let _ = self.mapper.map(&deleted(event.collection, event.key.clone()), &mut self.theirs);
            }
        }
        let _ = self.mapper.take_tallies();
        let _ = self.mapper.take_wanted();
    }

    /// Compares rows of several documents that those of the last comparison touch.
    pub(super) async fn compare_touched(
        &mut self,
        events: &[Event],
    ) -> Result<Vec<(usize, Vec<Vec<String>>, SeenMade)>> {
        self.map(events).await?;
        self.comparer.made_of(&self.records).await
    }

    /// The document that made a row: the last one whose rows begin at or before it.
    fn document_of(&self, difference: &Difference) -> Option<usize> {
        let place = self.records.tables[difference.table].rows.place_of(difference.place)?;
        let begins = self.begins.get(&difference.table)?;
        begins.partition_point(|begin| *begin <= place).checked_sub(1)
    }
}

#[derive(Default)]
struct Plainly {
    differences: Vec<Difference>,
    letters: Vec<usize>,
    kept: Vec<usize>,
    waiting: HashMap<usize, bool>,
    surplus: Vec<Surplus>,
}

/// As if the document went.
pub(super) fn deleted(collection: CollectionId, key: Key) -> Event {
    Event {
        collection,
        key,
        op: Op::Delete,
        document: bytes::Bytes::new(),
        position: Position::default(),
        time: 0,
    }
}

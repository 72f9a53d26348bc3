//! Rows that are made of several documents: what their parts make is compared with what stands, in one snapshot of the target.

use slackwater_connectors::postgres::control::proofs::FindingRow;

use super::settle::{explanation, of_row};
use super::worker::Worker;
use super::{Cut, Verifier};
use crate::ops::persist::Patience;
use crate::ops::store::ask;

impl Verifier<'_> {
    /// Compares them. Parts are compared with their documents like any row, in the pass.
    pub(super) async fn compare_made(&mut self, worker: &mut Worker) -> Result<(), Cut> {
        let id = self.id;
        let plan = std::sync::Arc::clone(&self.plan);
        for (table, spec) in plan.tables.iter().enumerate() {
            let Some(whole) = spec.whole().filter(|_| !spec.stands && self.wanted.sample.is_none()) else {
                continue;
            };
            let verified = self
                .collections
                .iter()
                .any(|id| plan.collection(*id).tables.iter().any(|part| whole.parts.contains(part)));
            if !verified {
                continue;
            }
            let mut patience = Patience::new(&self.stop);
            let seen = loop {
                match worker.comparer.made(table).await {
                    Ok(seen) => break seen,
                    Err(error) => self.again(worker, &mut patience, error).await?,
                }
            };
            let name = (spec.table.schema.clone(), spec.table.name.clone());
            let mut rows: Vec<FindingRow> = seen
                .differences
                .iter()
                .enumerate()
                .map(|(at, difference)| FindingRow {
                    explained: seen.waiting.get(&at).map(|blocks| explanation(*blocks).to_owned()),
                    ..of_row(&plan, difference)
                })
                .collect();
            rows.extend(seen.extra.into_iter().map(|row_key| FindingRow {
                kind: "extra".to_owned(),
                table: Some(name.clone()),
                row_key,
                ..FindingRow::default()
            }));
            rows.extend((0..seen.lacking).map(|_| FindingRow {
                kind: "missing".to_owned(),
                explained: Some("lacking".to_owned()),
                table: Some(name.clone()),
                ..FindingRow::default()
            }));
            let compared = seen.equal + seen.differences.len() as u64;
            ask!(self.store, control => control.keep_made(id, &name, compared, &rows))?;
        }
        Ok(())
    }
}

//! What a verification says in the end: for people and for machines. Pure, but for what it reads of the control store.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use slackwater_connectors::postgres::control::proofs::{FindingCount, FindingRow};

use super::{Cut, LeftOut, Verifier};
use crate::ops::persist::persist;
use crate::ops::store::ask;

/// So many findings are shown to a person, and so many are listed for a machine.
const SHOWN: usize = 20;
const LISTED: i64 = 10_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Report {
    migration: String,
    /// Documents that were read.
    documents: u64,
    tables: BTreeMap<String, Figures>,
    /// Documents without rows that are in no dead letter; documents that have one; documents that never came to rest.
    refused: u64,
    letters: u64,
    unsettled: u64,
    findings: Vec<(i64, FindingRow)>,
    left_out: Vec<LeftOut>,
    not_searched: Vec<(String, String)>,
    sample: Option<u8>,
    /// About how many documents there are, where a sample of them was read.
    of: Option<u64>,
}

/// The figures of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    rows: u64,
    missing: u64,
    different: u64,
    extra: u64,
    waiting: u64,
}

impl Verifier<'_> {
    pub(super) async fn report(&mut self, not_searched: Vec<(String, String)>) -> Result<Report, Cut> {
        let id = self.id;
        let counts = ask!(self.store, control => control.proof_counts(id))?;
        let rows = ask!(self.store, control => control.proof_tables(id))?;
        let found = ask!(self.store, control => control.finding_counts(id))?;
        let findings = ask!(self.store, control => control.findings(id, false, 0, LISTED))?;
        let of = if self.wanted.sample.is_some() { Some(self.all_documents().await?) } else { None };
        let report = Report {
            migration: self.migration.name.clone(),
            documents: counts.collections.iter().map(|(.., documents)| documents).sum(),
            tables: figures(&rows, &found),
            refused: count(&found, "refused", |explained| explained.is_none()),
            letters: count(&found, "refused", |explained| explained.is_some()),
            unsettled: count(&found, "unsettled", |_| true),
            findings: findings.into_iter().filter(|(_, finding)| finding.kind != "unsettled").collect(),
            left_out: self.left_out.clone(),
            not_searched,
            sample: self.wanted.sample,
            of,
        };
        let (equal, json) = (report.is_equal(), report.json().to_string());
        ask!(self.store, control => control.end_proof(id, equal, &json))?;
        Ok(report)
    }

    /// About how many documents the collections have.
    async fn all_documents(&self) -> Result<u64, Cut> {
        let mut all = 0;
        for id in &self.collections {
            let plan = self.plan.collection(*id);
            let source = self.source(&plan.source);
            all += persist(&self.stop, || source.count_quickly(&plan.collection)).await?;
        }
        Ok(all)
    }
}

fn count(found: &[FindingCount], kind: &str, explained: impl Fn(Option<&str>) -> bool) -> u64 {
    found
        .iter()
        .filter(|row| row.kind == kind && explained(row.explained.as_deref()))
        .map(|row| row.count)
        .sum()
}

fn figures(rows: &[((String, String), u64)], found: &[FindingCount]) -> BTreeMap<String, Figures> {
    let mut tables: BTreeMap<String, Figures> = BTreeMap::new();
    for ((schema, name), rows) in rows {
        tables.entry(format!("{schema}.{name}")).or_default().rows = *rows;
    }
    for row in found {
        let Some((schema, name)) = &row.table else { continue };
        let figures = tables.entry(format!("{schema}.{name}")).or_default();
        match (row.explained.as_deref(), row.kind.as_str()) {
            // As the migration file wants it.
            (Some("declared"), _) => {}
            (Some(_), _) => figures.waiting += row.count,
            (None, "missing") => figures.missing += row.count,
            (None, "different") => figures.different += row.count,
            (None, "extra") => figures.extra += row.count,
            (None, _) => {}
        }
    }
    tables
}

impl Report {
    /// Everything that was to be verified is as it should be.
    pub(crate) fn is_equal(&self) -> bool {
        let clean =
            |figures: &Figures| figures.missing + figures.different + figures.extra + figures.waiting == 0;
        self.refused + self.letters + self.unsettled == 0
            && self.tables.values().all(clean)
            && self.left_out.is_empty()
            && self.not_searched.is_empty()
    }

    /// Something is wrong that nothing explains.
    pub(crate) fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    /// How much is wrong where, in one line.
    pub(crate) fn line(&self) -> String {
        let wrong = self.tables.iter().filter(|(_, of)| of.missing + of.different + of.extra > 0);
        let wrong: Vec<String> = wrong
            .map(|(name, of)| {
                format!("{name}: {} missing, {} different, {} extra", of.missing, of.different, of.extra)
            })
            .chain(
                (self.refused > 0)
                    .then(|| format!("{} documents without rows and dead letter", self.refused)),
            )
            .collect();
        wrong.join("; ")
    }

    pub(crate) fn json(&self) -> Value {
        let tables: Vec<Value> = self
            .tables
            .iter()
            .map(|(name, figures)| {
                json!({
                    "table": name, "rows": figures.rows, "missing": figures.missing, "different": figures.different,
                    "extra": figures.extra, "waiting": figures.waiting,
                })
            })
            .collect();
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|(id, finding)| {
                let mut entry = entry(finding);
                entry["finding"] = (*id).into();
                entry
            })
            .collect();
        let left_out: Vec<Value> = self.left_out.iter().map(LeftOut::json).collect();
        let not_searched: Vec<Value> =
            self.not_searched.iter().map(|(table, why)| json!({"table": table, "why": why})).collect();
        json!({
            "migration": self.migration, "equal": self.is_equal(), "documents": self.documents, "tables": tables,
            "refused": self.refused, "dead_letters": self.letters, "unsettled": self.unsettled, "findings": findings,
            "left_out": left_out, "not_searched_for_extra_rows": not_searched, "sample": self.sample,
            "documents_in_all": self.of,
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "table",
            "rows",
            "missing",
            "different",
            "extra",
            "waiting",
        ]);
        for (name, figures) in &self.tables {
            let Figures { rows, missing, different, extra, waiting } = figures;
            let mut row = vec![name.clone()];
            row.extend([rows, missing, different, extra, waiting].map(ToString::to_string));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{table}\n");
        let of =
            self.sample.map(|percent| sampled(percent.into(), self.documents, self.of.unwrap_or_default()));
        let of = of.map(|of| format!(", {of}")).unwrap_or_default();
        text += &format!("{} documents{of}\n", self.documents);
        for (count, what) in [
            (self.letters, "documents have dead letters: `slackwater status` lists them"),
            (self.refused, "documents have no rows and no dead letter"),
            (
                self.unsettled,
                "documents were never at rest, or the target did not follow: nothing is known of them",
            ),
        ] {
            if count > 0 {
                text += &format!("{count} {what}\n");
            }
        }
        for LeftOut { collection, why } in &self.left_out {
            text += &format!("left out: {collection}: {why}\n");
        }
        for (table, why) in &self.not_searched {
            text += &format!("not searched for rows that no document makes: {table}: {why}\n");
        }
        if !self.findings.is_empty() {
            text += "\n";
        }
        for (id, finding) in self.findings.iter().take(SHOWN) {
            text += &format!("finding {id}: {}\n", sentence(finding));
        }
        if self.findings.len() > SHOWN {
            text += &format!("… and {} more: --json lists them\n", self.findings.len() - SHOWN);
        }
        text += if self.is_equal() { "\nequal\n" } else { "\nNOT equal\n" };
        text
    }
}

/// How much a sample has read. Whole ranges of documents are read, one of each collection at least, so it may be more than was asked for.
pub(crate) fn sampled(percent: u64, read: u64, all: u64) -> String {
    match (read.saturating_mul(100)).checked_div(all) {
        Some(share) => {
            format!("a sample of {percent} %, which was about {} % of {all} documents", share.min(100))
        }
        None => format!("a sample of {percent} %"),
    }
}

/// A finding for a machine.
pub(super) fn entry(finding: &FindingRow) -> Value {
    json!({
        "kind": finding.kind, "table": named(finding), "key": shown_key(finding), "columns": finding.columns,
        "document": finding.document,
    })
}

impl LeftOut {
    pub(super) fn json(&self) -> Value {
        json!({"collection": self.collection, "why": self.why})
    }
}

fn named(finding: &FindingRow) -> Option<String> {
    finding.table.as_ref().map(|(schema, name)| format!("{schema}.{name}"))
}

pub(super) fn sentence(finding: &FindingRow) -> String {
    let row = match (named(finding), shown_key(finding)) {
        (Some(table), Some(key)) => format!("{table} ({key})"),
        (Some(table), None) => table,
        (None, _) => "a document".to_owned(),
    };
    let of = finding.document.as_ref().map(|document| format!(", of {document}")).unwrap_or_default();
    match finding.kind.as_str() {
        "missing" => format!("{row} is missing{of}"),
        "different" => format!("{row} differs in {}{of}", finding.columns.join(", ")),
        "extra" if finding.document.is_some() => format!("{row} is there{of}, which does not make it"),
        "extra" => format!("{row} is made by no document"),
        _ => format!("{row} has no rows and no dead letter{of}"),
    }
}

/// The key, if it tells nothing about anybody: identifiers and numbers. Others are in `slackwater.findings`.
fn shown_key(finding: &FindingRow) -> Option<String> {
    let plain = |value: &String| {
        uuid::Uuid::parse_str(value).is_ok()
            || (value.len() <= 20
                && !value.is_empty()
                && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
    };
    (!finding.row_key.is_empty() && finding.row_key.iter().all(plain)).then(|| finding.row_key.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(row_key: &[&str]) -> FindingRow {
        FindingRow {
            kind: "different".into(),
            table: Some(("public".into(), "people".into())),
            row_key: row_key.iter().map(|key| (*key).to_owned()).collect(),
            columns: vec!["name".into(), "city".into()],
            document: Some("legacy.people 7".into()),
            ..FindingRow::default()
        }
    }

    #[test]
    fn keys_are_shown_that_tell_nothing_about_anybody() {
        let id = "6f2b8a52-3a52-5c15-8f0e-6f2b8a523a52";
        assert_eq!(
            sentence(&finding(&[id, "12"])),
            format!("public.people ({id}, 12) differs in name, city, of legacy.people 7")
        );
        let text = sentence(&finding(&["ann@example.org"]));
        assert_eq!(text, "public.people differs in name, city, of legacy.people 7");
    }

    #[test]
    fn a_sample_says_what_share_it_has_read() {
        assert_eq!(sampled(1, 2_828, 8_371), "a sample of 1 %, which was about 33 % of 8371 documents");
        assert_eq!(sampled(1, 0, 0), "a sample of 1 %");
    }

    #[test]
    fn what_waits_is_not_equal_unless_the_file_wants_it_so() {
        let rows = [(("public".to_owned(), "people".to_owned()), 9)];
        let row = |explained: &str| FindingCount {
            kind: "different".into(),
            explained: Some(explained.into()),
            table: Some(("public".into(), "people".into())),
            collection: None,
            count: 2,
        };
        let of = |explained: &str| figures(&rows, &[row(explained)])["public.people"];
        assert_eq!(of("declared"), Figures { rows: 9, ..Figures::default() });
        assert_eq!(of("waiting"), Figures { rows: 9, waiting: 2, ..Figures::default() });
    }
}

//! Texts and expressions that only the target can judge: it is asked about those of a batch that it has refused.

use slackwater_connectors::error::Result;
use slackwater_connectors::postgres::target::judge::Judge;
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_topics::Event;

use crate::mapping::{Inputs, Mapper, Plan, Texts, What};

/// Whether the target refuses texts of these documents that only it can read, or fails to compute something of them. They are invalid
/// from then on. `records`: empty, and of no use afterwards.
pub(crate) async fn ask(
    plan: &Plan,
    mapper: &mut Mapper,
    records: &mut WriteSet,
    events: &[Event],
    judge: Judge<'_>,
) -> Result<bool> {
    mapper.keep_texts();
    for event in events {
        // What is wrong with it otherwise is found again when it is written.
        let _ = mapper.map_version(event, What::ALL, records);
    }
    let _ = mapper.take_tallies();
    let mut refused = Texts::new();
    let (texts, inputs) = mapper.take_texts();
    for (oid, texts) in texts {
        let Some(kind) = plan.kind(oid) else { continue };
        let texts = texts.into_iter().filter_map(|text| String::from_utf8(text).ok()).collect();
        let bad = judge.refused(kind, texts).await?;
        if !bad.is_empty() {
            refused.insert(oid, bad.into_iter().map(String::into_bytes).collect());
        }
    }
    let mut failing = Inputs::new();
    for ((table, column), inputs) in inputs {
        let bad = judge.failing(table, column, inputs.into_iter().collect()).await?;
        if !bad.is_empty() {
            failing.insert((table, column), bad.into_iter().collect());
        }
    }
    let any = !refused.is_empty() || !failing.is_empty();
    mapper.refuse(refused, failing);
    Ok(any)
}

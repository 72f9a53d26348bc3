//! A server that behaves badly: nothing is lost, and nothing is deleted that is there.

use std::collections::BTreeMap;
use std::time::Duration;

use slackwater_connectors::error::Kind;
use slackwater_connectors::nocodb::Noco;
use slackwater_topics::{Position, Range};

use crate::base::followed;
use crate::edits::Dice;
use crate::store::Store;
use crate::stub::{FAULTS, Fault, Stub};
use crate::target::Target;

async fn remembering(stub: &Stub, settings: &slackwater_connectors::nocodb::Settings) -> Noco {
    let noco = stub.noco(settings).await;
    noco.remembering(Store::shared(), vec![followed(0, "T", &["Name"])]).await.expect("remembers")
}

fn holds(target: &Target, stub: &Stub) {
    let name = |document: &bson::Document| document.get_str("Name").expect("a name").to_owned();
    let found: BTreeMap<String, String> = target
        .documents
        .values()
        .map(|document| (document.get("Id").expect("an id").to_string().replace('"', ""), name(document)))
        .collect();
    let state = stub.state();
    let key = |key: &serde_json::Value| key.to_string().replace('"', "");
    let there: BTreeMap<String, String> =
        state.records.iter().map(|record| (key(&record.key), record.name.clone())).collect();
    assert_eq!(found, there);
}

/// An edit of any kind; true for a delete.
fn edit(stub: &Stub, dice: &mut Dice, n: usize) -> bool {
    let mut state = stub.state();
    let place = dice.below(state.records.len());
    match dice.below(5) {
        0 | 1 => drop(state.create(&format!("created {n}"))),
        2 | 3 if !state.records.is_empty() => state.update(place, &format!("updated {n}")),
        4 if !state.records.is_empty() => {
            state.records.remove(place);
            return true;
        }
        _ => {}
    }
    false
}

async fn through_faults(text: bool) {
    let mut dice = Dice::new(if text { "faults, keys of text" } else { "faults" });
    let stub = Stub::new(Dice::new("stub")).await;
    {
        let mut state = stub.state();
        state.text = text;
        (0..60).for_each(|n| drop(state.create(&format!("first {n}"))));
        state.fault = Some((FAULTS.to_vec(), 1));
    }
    let mut settings = stub.settings();
    settings.page = 25;
    let noco = remembering(&stub, &settings).await;
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    let mut deleted = 0;
    for round in 0..6 {
        for n in 0..10 {
            // Keys of text come again after a while; they are not to be made twice.
            if !text || stub.state().records.len() < 90 {
                deleted += usize::from(edit(&stub, &mut dice, round * 10 + n));
            }
        }
        if round % 2 == 1 {
            target.catch_up(&mut stream, &noco).await;
            assert!(target.deletes.len() <= deleted, "{} deletes of {deleted}", target.deletes.len());
        }
    }
    stub.state().fault = None;
    target.catch_up(&mut stream, &noco).await;
    holds(&target, &stub);
    assert!(target.deletes.len() <= deleted, "{} deletes of {deleted}", target.deletes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_fault_is_survived() {
    through_faults(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_fault_is_survived_with_keys_of_text() {
    through_faults(true).await;
}

/// A table that reads empty, or half, is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_leaves_out_is_not_deleted() {
    for fault in [Fault::Empty, Fault::Half] {
        let stub = Stub::new(Dice::new("stub")).await;
        (0..80).for_each(|n| drop(stub.state().create(&format!("{n}"))));
        let noco = remembering(&stub, &stub.settings()).await;
        let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
        let mut target = Target::default();
        target.catch_up(&mut stream, &noco).await;
        let pages = {
            let mut state = stub.state();
            state.fault = Some((vec![fault], 4));
            state.pages.len()
        };
        // The stream has to be read, or it stands still.
        let lied_to = async {
            while stub.state().pages.len() < pages + 6 {
                if let Ok(batch) = tokio::time::timeout(Duration::from_millis(50), stream.next()).await {
                    target.take(&batch.expect("the stream goes on"));
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), lied_to).await.expect("six pages within a minute");
        stub.state().fault = None;
        target.catch_up(&mut stream, &noco).await;
        assert!(target.deletes.is_empty(), "{fault:?}");
        holds(&target, &stub);
    }
}

/// An hour ahead or behind: polls go by the times that the records show.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_clock_may_be_off() {
    for off in [-3_600, 3_600] {
        let stub = Stub::new(Dice::new("stub")).await;
        {
            let mut state = stub.state();
            state.now = jiff::Timestamp::now().as_second() + off;
            (0..60).for_each(|n| drop(state.create(&format!("{n}"))));
        }
        let mut settings = stub.settings();
        (settings.page, settings.sweep) = (25, Duration::from_secs(3_600));
        let noco = remembering(&stub, &settings).await;
        let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
        let mut target = Target::default();
        target.until(&mut stream, |target| target.documents.len() == 60).await;
        for n in 0..5 {
            stub.state().update(n * 10, "updated");
            stub.state().create("created");
            target.until(&mut stream, |target| target.changes == 60 + 2 * (n + 1)).await;
        }
        holds(&target, &stub);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_become_as_small_as_the_server_wants() {
    let stub = Stub::new(Dice::new("stub")).await;
    (0..300).for_each(|n| drop(stub.state().create(&format!("{n}"))));
    stub.state().largest = 70;
    let noco = remembering(&stub, &stub.settings()).await;
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    target.catch_up(&mut stream, &noco).await;
    holds(&target, &stub);
    let pages = stub.state().pages.clone();
    let first = pages.iter().position(|limit| *limit <= 70).expect("a page that fits");
    assert_eq!(pages[..first], [1_000, 500, 250, 125]);
    assert!(
        pages[first..].iter().all(|limit| *limit <= 70),
        "what was too large once is not asked for again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_ends_the_stream() {
    let stub = Stub::new(Dice::new("stub")).await;
    (0..5).for_each(|n| drop(stub.state().create(&format!("{n}"))));
    let noco = remembering(&stub, &stub.settings()).await;
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    let mut target = Target::default();
    target.catch_up(&mut stream, &noco).await;
    stub.state().token = false;
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert_eq!(error.kind, Kind::Denied);
    assert!(error.help.as_ref().is_some_and(|help| help.contains("revoked")), "{error:?}");
    assert!(target.deletes.is_empty());
    // It was given back, and a new stream goes on from what is known.
    stub.state().token = true;
    let mut stream = noco.stream(&Position::default(), 1).expect("a stream");
    stub.state().create("after");
    target.catch_up(&mut stream, &noco).await;
    holds(&target, &stub);
    assert_eq!(target.changes, 6);
}

/// Reads are told what went wrong; whoever asked tries again.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_hears_what_went_wrong() {
    let stub = Stub::new(Dice::new("stub")).await;
    (0..60).for_each(|n| drop(stub.state().create(&format!("{n}"))));
    let mut settings = stub.settings();
    settings.page = 25;
    let noco = stub.noco(&settings).await;
    noco.count_exactly("T").await.expect("a count");
    for (fault, kind) in [
        (Fault::TooMany, Kind::Exhausted),
        (Fault::Broken, Kind::Unreachable),
        (Fault::Database, Kind::Unreachable),
        (Fault::Cut, Kind::Unreachable),
        (Fault::Short, Kind::Unreachable),
        (Fault::Slow, Kind::Unreachable),
        (Fault::Html, Kind::Unreachable),
        (Fault::Starting, Kind::Unreachable),
    ] {
        stub.state().fault = Some((vec![fault], 4));
        let error = noco.read_chunk("T", &Range::all(), noco.now(), usize::MAX).await.expect_err("a fault");
        assert_eq!(error.kind, kind, "{fault:?}: {error}");
    }
    stub.state().fault = None;
    let chunk = noco.read_chunk("T", &Range::all(), noco.now(), usize::MAX).await.expect("a chunk");
    assert_eq!(chunk.documents.len(), 60);
}

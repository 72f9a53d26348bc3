//! A reference that is missing for good is told from one that is late: its document goes to the dead letters soon, the others
//! are applied, and it follows as soon as what it refers to is there. So it is with a row that goes before those that
//! refer to it.

use std::time::Instant;

use bson::doc;

use crate::letters::{FILE, SCHEMA, delete, letters, numbers, set};
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::{PATIENCE, Slackwater, Stage, until};

/// Waits until the target has these children and letters, by collection, of wrong references.
async fn shows(
    what: &str,
    pipeline: &Pipeline,
    processes: &mut [Slackwater],
    children: &[i64],
    wanted: &[(&str, i64)],
) {
    let begun = Instant::now();
    let wanted =
        wanted.iter().map(|(collection, count)| (format!("legacy.{collection}"), "23503".to_owned(), *count));
    let wanted: Vec<_> = wanted.collect();
    until(what, PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let equal = numbers(&pipeline.stage, "children").await == children;
        (equal && letters(&pipeline.stage).await == wanted).then_some(())
    })
    .await;
    println!("{what} after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_is_missing_holds_nobody_up() {
    let stage = Stage::new("kafka_missing").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    for id in 1..=20_i64 {
        set(&stage, "parents", id, doc! {"name": format!("parent {id}")}).await;
        set(&stage, "children", id, doc! {"parent": id, "score": id}).await;
    }
    let pipeline = Pipeline::on(stage, FILE, &Log::at(&shared())).await;
    let stage = &pipeline.stage;
    let mut processes =
        [pipeline.apply("one", None), pipeline.apply("two", None), pipeline.capture("capture")];
    let mut children: Vec<i64> = (1..=20).collect();
    shows("all is copied", &pipeline, &mut processes, &children, &[]).await;

    for id in 21..=60_i64 {
        let parent = if id == 40 { 999 } else { id - 20 };
        set(stage, "children", id, doc! {"parent": parent, "score": 1}).await;
    }
    set(stage, "children", 1, doc! {"score": 2}).await;
    children.extend((21..=60).filter(|id| *id != 40));
    // Parents 21 to 40 are not there either.
    children.retain(|id| *id <= 40);
    shows("what refers to nothing is a letter", &pipeline, &mut processes, &children, &[("children", 21)])
        .await;

    for id in (21..=40_i64).chain([999]) {
        set(stage, "parents", id, doc! {"name": "late"}).await;
    }
    children = (1..=60).collect();
    shows("it follows what it refers to", &pipeline, &mut processes, &children, &[]).await;

    delete(stage, "parents", 5).await;
    shows("a row that is referred to stays", &pipeline, &mut processes, &children, &[("parents", 1)]).await;
    assert!(numbers(stage, "parents").await.contains(&5));
    for id in [5, 25] {
        delete(stage, "children", id).await;
    }
    children.retain(|id| ![5, 25].contains(id));
    shows("it goes when nothing refers to it", &pipeline, &mut processes, &children, &[]).await;
    assert!(!numbers(stage, "parents").await.contains(&5));

    let [one, two, capture] = processes;
    capture.stop().await;
    one.stop().await;
    two.stop().await;
    pipeline.clear().await;
}

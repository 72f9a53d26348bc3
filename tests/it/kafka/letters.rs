//! A dead letter outlives the process that wrote it: whoever has its partition next settles it.

use std::collections::BTreeSet;

use bson::doc;

use crate::letters::{FILE, SCHEMA, letters, numbers, set};
use crate::stage::broker::shared;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::trial::CATCH_UP;
use crate::stage::{PATIENCE, Slackwater, Stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_partition_over_settles_its_letters() {
    let stage = Stage::new("letters_move").await;
    stage.target.batch_execute(SCHEMA).await.expect("the tables can be created");
    set(&stage, "parents", 1, doc! {"name": "parent"}).await;
    set(&stage, "children", 1, doc! {"parent": 1_i64, "score": 1}).await;
    let pipeline = Pipeline::on(stage, FILE, &Log::at(&shared())).await;
    let stage = &pipeline.stage;
    let mut capture = pipeline.capture("capture");
    let mut appliers = vec![pipeline.apply("one", Some("one")), pipeline.apply("two", Some("two"))];
    until("both have partitions, and the copy is applied", CATCH_UP, async || {
        appliers.iter_mut().for_each(Slackwater::still_runs);
        let partitions = pipeline.partitions().await;
        let members: BTreeSet<_> =
            partitions.values().filter_map(|partition| partition.member.as_deref()).collect();
        (members.len() == 2 && numbers(stage, "children").await == [1]).then_some(())
    })
    .await;

    // Both began while there was no letter, and since then records come all the time.
    set(stage, "children", 2, doc! {"parent": 2_i64, "score": 2}).await;
    let writer = until("one of them writes a letter", PATIENCE, async || {
        appliers.iter().position(|applier| applier.said("went to the dead letters"))
    })
    .await;
    appliers.swap_remove(writer).kill().await;
    set(stage, "parents", 2, doc! {"name": "late"}).await;
    until("the other one settles it", CATCH_UP, async || {
        appliers.iter_mut().for_each(Slackwater::still_runs);
        letters(stage).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(numbers(stage, "children").await, [1, 2]);
    capture.still_runs();
    capture.stop().await;
    for applier in appliers {
        applier.stop().await;
    }
    pipeline.clear().await;
}

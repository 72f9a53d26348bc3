//! The copy is read from a secondary that lags behind again and again, under live writes, and ends equal.

use bson::doc;
use slackwater_migrations::Chance;

use crate::stage::mongod::Three;
use crate::stage::{PATIENCE, Stage, items, number};

const ITEMS: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_from_a_secondary_that_lags_ends_equal() {
    let seed = number("SLACKWATER_TEST_SEED", 34);
    println!("seed {seed}");
    let mut chance = Chance::new(seed);
    let three = Three::start("lagging").await;
    let mut stage = Stage::at("secondaries", &three.uri("&w=majority")).await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..ITEMS).await;
    let before = three.asked().await;
    stage.mongodb = three.uri("&readPreference=secondary&readPreferenceTags=speed:slow");
    let mut process = stage.run(&file);
    let collection = items::collection(&stage);
    // It stands still while the primary goes on, catches up, and so on, until everything is copied.
    let (mut next, mut copied) = (ITEMS, false);
    for turn in 0.. {
        three.stall(turn % 2 == 0).await;
        for _ in 0..100 {
            let id = chance.below(ITEMS as u64) as i64;
            match chance.below(10) {
                0 => drop(collection.delete_one(doc! {"_id": id}).await.expect("deleted")),
                1 => {
                    let item = doc! {"_id": next, "n": next, "name": "late", "v": 1_i64};
                    collection.insert_one(item).await.expect("inserted");
                    next += 1;
                }
                _ => drop(
                    collection
                        .update_one(doc! {"_id": id}, doc! {"$inc": {"v": 1_i64}})
                        .await
                        .expect("updated"),
                ),
            }
        }
        process.still_runs();
        assert!(turn < 500, "it is not copied");
        if copied && turn >= 8 {
            break;
        }
        copied = stage.status(&file).await["copied"] == true;
    }
    three.stall(false).await;
    items::equal(&stage, &mut process, PATIENCE).await;
    let asked = three.asked().await - before;
    assert!(asked >= ITEMS / 1_000, "the slow one was asked {asked} times only");
    assert!(process.said("copied from secondary"), "{}", process.tail());
    process.stop().await;
    stage.clear().await;
}

//! A row that is wrong is first met in the frozen second: the switch is taken back, and says which.

use bson::{Document, doc};

use super::{Scene, Way};
use crate::stage::broker::shared;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::{PATIENCE, until};

/// What an applier with a fault would do to one row.
const FAULT: &str = "
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.full_name = 'written last' THEN NEW.full_name := 'written lost'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION spoil()";

/// Stops the writers only when the last document is written: nobody can have compared that one before.
const FREEZE: &str = "  freeze: { command: { freeze: [ sh, -c, \"touch frozen; until test -e written; do sleep 0.01; done\" ], unfreeze: [ rm, frozen ] } }
  deadline: 60s
verify: { throttle: 50000 }";

async fn first_met_in_the_frozen_second(way: Way) {
    let name = format!("cutover_spoiled_{way:?}").to_lowercase();
    let mongod = Mongod::start(&format!("spoiled_{way:?}"), Flavour::Replica).await;
    let mut scene = Scene::set(&name, way, &mongod.uri(), &shared(), 71, FREEZE).await;
    let written = scene.end_writers().await;
    scene.near().await;
    scene.stage.target.batch_execute(FAULT).await.expect("a trigger can be made");
    until("nothing is in the way of the switch", PATIENCE, async || {
        let (code, _) = scene.cutover(&["--plan"]).await;
        (code == Some(0)).then_some(())
    })
    .await;
    let folder = scene.stage.folder.clone();
    let users = scene.stage.source.collection::<Document>("users");
    let last = async {
        until("the leader stops the writers", PATIENCE, async || {
            folder.join("frozen").exists().then_some(())
        })
        .await;
        let user = users.find_one(doc! {}).await.expect("users").expect("a user");
        let which = doc! {"_id": user.get("_id").expect("an id")};
        users.update_one(which, doc! {"$set": {"name": "written last"}}).await.expect("changed");
        std::fs::write(folder.join("written"), "").expect("a file");
    };
    let ((code, report), ()) = tokio::join!(scene.cutover(&[]), last);
    assert_eq!((code, &report["state"]), (Some(9), &"reverted".into()), "{report:#}");
    let reason = report["reason"].as_str().expect("a reason");
    assert_eq!(reason, "findings: 1 row is not what its document makes, of public.users");
    assert!(!folder.join("frozen").exists(), "the writers may write again");

    // It stays in the way of the next one, until it is mended.
    until("it is said that it is a finding", PATIENCE, async || {
        let (code, report) = scene.cutover(&["--plan"]).await;
        let blockers = report["blockers"].as_array()?;
        (code == Some(8) && blockers.iter().any(|blocker| blocker["blocker"] == "findings")).then_some(())
    })
    .await;
    scene.stage.target.batch_execute("DROP TRIGGER spoil ON users").await.expect("the trigger can go");
    let output = scene.stage.output(&["repair", scene.path(), "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (code, report) = scene.switch().await;
    assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
    scene.is_switched_with(written).await;
    scene.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_met_in_the_frozen_second_direct() {
    first_met_in_the_frozen_second(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_met_in_the_frozen_second_over_kafka() {
    first_met_in_the_frozen_second(Way::Kafka).await;
}

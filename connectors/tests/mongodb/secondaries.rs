//! The copy from secondaries: a read is never older than the moment that was noted before it, however far the secondary lags.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection};
use slackwater_connectors::error::Kind;
use slackwater_connectors::mongodb::Mongo;
use slackwater_connectors::secret::Secret;
use slackwater_topics::Range;

use crate::server::Mongod;

/// Three members; the third one is called slow and never becomes primary.
struct Set {
    members: [Mongod; 3],
}

impl Set {
    async fn start() -> Self {
        let arguments = ["--replSet", "own", "--setParameter", "enableTestCommands=1"];
        let members: [Mongod; 3] = std::array::from_fn(|_| Mongod::start(&arguments));
        let hosts: Vec<Document> = members
            .iter()
            .enumerate()
            .map(|(at, member)| {
                let slow = at == 2;
                doc! {
                    "_id": at as i32, "host": format!("127.0.0.1:{}", member.port),
                    "priority": if at == 0 { 1.0 } else { 0.0 },
                    "tags": {"speed": if slow { "slow" } else { "quick" }},
                }
            })
            .collect();
        for member in &members {
            member.client(&member.direct()).await;
        }
        let config = doc! {"_id": "own", "members": hosts, "settings": {"electionTimeoutMillis": 1000}};
        let first = members[0].client(&members[0].direct()).await.database("admin");
        first.run_command(doc! {"replSetInitiate": config}).await.expect("the replica set is made");
        let set = Self { members };
        // All of them have what was written.
        let options = WriteConcern::builder().w(Acknowledgment::Nodes(3)).build();
        let client = set.members[0].client(&set.uri("w=majority")).await;
        client
            .database("x")
            .collection("ready")
            .insert_one(doc! {})
            .write_concern(options)
            .await
            .expect("all members follow");
        set
    }

    fn uri(&self, parameters: &str) -> String {
        let hosts: Vec<String> =
            self.members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        format!("mongodb://{}/?replicaSet=own&{parameters}", hosts.join(","))
    }

    async fn client(&self) -> Client {
        self.members[0].client(&self.uri("w=majority")).await
    }

    /// The slow one applies nothing from now on, or goes on.
    async fn stall(&self, stalled: bool) {
        let slow = &self.members[2];
        let admin = slow.client(&slow.direct()).await.database("admin");
        let mode = if stalled { "alwaysOn" } else { "off" };
        admin
            .run_command(doc! {"configureFailPoint": "rsSyncApplyStop", "mode": mode})
            .await
            .expect("a fail point");
        if stalled {
            let wait = doc! {"waitForFailPoint": "rsSyncApplyStop", "timesEntered": 1, "maxTimeMS": 60_000};
            admin.run_command(wait).await.expect("it stands still");
        }
    }

    /// What the slow one has, asked without a wish for anything newer.
    async fn stale(&self) -> Collection<Document> {
        let slow = &self.members[2];
        let mut options = ClientOptions::parse(slow.direct()).await.expect("a connection string");
        options.selection_criteria =
            Some(mongodb::options::ReadPreference::SecondaryPreferred { options: None }.into());
        Client::with_options(options).expect("a client").database("x").collection("a")
    }
}

const SLOW: &str = "readPreference=secondary&readPreferenceTags=speed:slow";

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_that_lags_lets_the_copy_wait() {
    let set = Set::start().await;
    let a = set.client().await.database("x").collection::<Document>("a");
    a.insert_many((0..100).map(|n| doc! {"_id": n, "v": 1})).await.expect("inserted");
    let mongo = Mongo::connect(&Secret::new(set.uri(SLOW)), "x").await.expect("a connection");
    let server = mongo.server().await.expect("it answers");
    assert_eq!(server.read_preference, Some("secondary"));
    // Once it has that, it stands still, and the primary goes on.
    let before = mongo.operation_time().await.expect("a time");
    let chunk = mongo.read_chunk("a", &Range::all(), before, usize::MAX).await.expect("a chunk");
    assert!(chunk.documents.len() == 100 && chunk.until >= before);
    set.stall(true).await;
    a.update_many(doc! {}, doc! {"$set": {"v": 2}}).await.expect("updated");
    a.delete_one(doc! {"_id": 0}).await.expect("deleted");
    let after = mongo.operation_time().await.expect("a time");
    let stale = set.stale().await;
    assert_eq!(stale.count_documents(doc! {"v": 1}).await.expect("counted"), 100, "it does not lag");

    // What is old enough for it comes at once.
    let old = mongo.read_chunk("a", &Range::all(), before, usize::MAX).await.expect("a chunk");
    assert_eq!(old.documents.len(), 100, "it was not read from the one that lags");
    let read = tokio::spawn({
        let mongo = mongo.clone();
        async move { mongo.read_chunk("a", &Range::all(), after, usize::MAX).await }
    });
    // The server itself says that the read waits there.
    let slow = set.members[2].client(&set.members[2].direct()).await.database("admin");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let waiting = doc! {"currentOp": 1, "$all": true, "command.find": "a"};
        let reply = slow.run_command(waiting).await.expect("its operations");
        if !reply.get_array("inprog").expect("a list").is_empty() {
            break;
        }
        assert!(!read.is_finished(), "it was read from another one");
        assert!(
            std::time::Instant::now() < deadline,
            "nobody asks the one that lags: {}",
            slow.run_command(doc! {"currentOp": 1, "active": true}).await.expect("its operations")
        );
    }
    set.stall(false).await;
    let chunk = read.await.expect("a task").expect("a chunk");
    assert_eq!(chunk.documents.len(), 99);
    assert!(chunk.until >= after);
    for (_, bytes) in &chunk.documents {
        let document = crate::server::document(bytes);
        assert_eq!(document.get_i32("v").ok(), Some(2), "older than what was noted before: {document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_fits_is_told() {
    let mongod = Mongod::replica_set(&[]).await;
    let uri = |preference: &str| format!("{}&readPreference={preference}", mongod.uri());
    mongod
        .client(&mongod.uri())
        .await
        .database("x")
        .collection("a")
        .insert_one(doc! {"_id": 1})
        .await
        .expect("inserted");
    for preference in ["secondaryPreferred", "primaryPreferred", "nearest"] {
        let mongo = Mongo::connect(&Secret::new(uri(preference)), "x").await.expect("a connection");
        let now = mongo.operation_time().await.expect("a time");
        let chunk = mongo.read_chunk("a", &Range::all(), now, usize::MAX).await.expect("a chunk");
        assert_eq!(chunk.documents.len(), 1, "{preference}");
    }
    let mongo = Mongo::connect(&Secret::new(uri("secondary")), "x").await.expect("the primary answers");
    let now = mongo.operation_time().await.expect("a time");
    let error =
        mongo.read_chunk("a", &Range::all(), now, usize::MAX).await.expect_err("there is no secondary");
    assert_eq!(error.kind, Kind::Unreachable);
    assert!(error.what.contains("`readPreference`") && error.what.contains("secondaryPreferred"), "{error}");
}

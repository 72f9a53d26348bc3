//! Servers that are not what is needed, and rights that are missing.

use std::os::unix::fs::PermissionsExt as _;

use bson::doc;
use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::mongodb::{Mongo, Presence, Start};
use slackwater_connectors::secret::Secret;
use slackwater_topics::{CollectionId, Moment, Range};

use crate::server::{Mongod, Scratch};

async fn refused(uri: &str) -> Error {
    let refused = Mongo::connect(&Secret::new(uri), "x").await;
    refused.expect_err("no connection")
}

#[tokio::test]
async fn a_wrong_connection_string_is_not_repeated() {
    for uri in
        ["mongodb://ann:s3cret@", "postgres://ann:s3cret@host/x", "mongodb://ann:s3cret/@host", "s3cret"]
    {
        let error = refused(uri).await;
        assert_eq!(error.kind, Kind::Unsuitable);
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}

#[tokio::test]
async fn nobody_listens() {
    let error = refused("mongodb://ann:s3cret@127.0.0.1:1/?replicaSet=x").await;
    assert_eq!(error.kind, Kind::Unreachable);
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cret") && text.contains("user ann"), "{text}");
}

#[tokio::test]
async fn a_standalone_server_is_told() {
    let mongod = Mongod::start(&[]);
    mongod.client(&mongod.direct()).await;
    let mongo = Mongo::connect(&Secret::new(mongod.direct()), "x").await.expect("a connection");
    let preflight = mongo.preflight(&[]).await.expect("facts");
    assert!(preflight.standalone());
    let error = preflight.no_change_stream.expect("no change stream");
    assert!(error.kind == Kind::Unsuitable && error.what.contains("--replSet"), "{error}");
    let mut stream = mongo.stream(Start::At(Moment::of_halves(1, 1)), vec![(CollectionId(0), "a".into())], 1);
    assert_eq!(stream.next().await.expect_err("no stream").kind, Kind::Unsuitable);
}

#[tokio::test]
async fn passwords_and_rights() {
    let file = std::env::temp_dir().join(format!("slackwater_keyfile_{}", std::process::id()));
    std::fs::write(&file, "c2xhY2t3YXRlcg==").expect("a key file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("rights");
    let mongod = Mongod::replica_set(&["--keyFile", file.to_str().expect("a path")]).await;
    let admin = mongod.client(&mongod.uri()).await.database("admin");
    let create = doc! {"createUser": "root", "pwd": "root", "roles": ["root"]};
    // The first user is let in from the same machine; right after the election this may take a moment.
    admin.run_command(create).await.expect("a user");
    let uri = |user: &str, password: &str| {
        format!("mongodb://{user}:{password}@127.0.0.1:{}/?replicaSet=own&authSource=admin", mongod.port)
    };
    let admin = mongod.client(&uri("root", "root")).await.database("admin");
    let own = [("reader", doc! {"role": "read", "db": "x"}), ("other", doc! {"role": "read", "db": "y"})];
    for (name, role) in own {
        let create = doc! {"createUser": name, "pwd": "pw", "roles": [role]};
        admin.run_command(create).await.expect("a user");
    }
    let x = admin.client().database("x");
    x.collection("a").insert_one(doc! {"_id": "ann@example.org"}).await.expect("inserted");

    let error = refused(&uri("reader", "s3cret")).await;
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(!format!("{error:?}").contains("s3cret"));

    let connect =
        async |user: &str| Mongo::connect(&Secret::new(uri(user, "pw")), "x").await.expect("a connection");
    let reader = connect("reader").await;
    let facts = reader.preflight(&["a".into(), "missing".into()]).await.expect("facts");
    assert!(facts.no_change_stream.is_none() && facts.oplog_hours.is_none());
    assert!(matches!(facts.collections[0].presence, Presence::Present(_)));
    assert!(facts.collections.iter().all(|collection| collection.unreadable.is_none()));
    assert_eq!(reader.split("a", 1, 1).await.expect("a split").documents, 1);

    let other = connect("other").await;
    let facts = other.preflight(&["a".into()]).await.expect("facts");
    assert_eq!(facts.no_change_stream.expect("denied").kind, Kind::Denied);
    assert_eq!(facts.collections[0].presence, Presence::Unknown);
    assert_eq!(facts.collections[0].unreadable.as_ref().expect("denied").kind, Kind::Denied);
    let error = other.read_chunk("a", &Range::all(), Moment::default(), 1).await.expect_err("denied");
    assert_eq!(error.kind, Kind::Denied);
    let mut stream = other.stream(Start::At(Moment::of_halves(1, 1)), vec![(CollectionId(0), "a".into())], 1);
    let error = stream.next().await.expect_err("denied");
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.what.contains("changeStream") && !error.what.contains("ann@"), "{error}");
    std::fs::remove_file(file).expect("removed");
}

#[tokio::test]
async fn what_stands_in_a_database() {
    let scratch = Scratch::shared().await;
    scratch.create("plain", doc! {}).await;
    scratch.create("imaged", doc! {"changeStreamPreAndPostImages": {"enabled": true}}).await;
    scratch.create("collated", doc! {"collation": {"locale": "de"}}).await;
    scratch.create("capped", doc! {"capped": true, "size": 4096}).await;
    let key = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] };
    let searched = doc! {"fields": [{"path": "number", "keyId": key.clone(), "bsonType": "string"}]};
    scratch.create("searched", doc! {"encryptedFields": searched}).await;
    let encrypt =
        doc! {"keyId": [key], "algorithm": "AEAD_AES_256_CBC_HMAC_SHA_512-Random", "bsonType": "string"};
    let schema = doc! {"bsonType": "object", "properties": {"number": {"encrypt": encrypt}}};
    scratch.create("sealed", doc! {"validator": {"$jsonSchema": schema}}).await;
    scratch.create("view", doc! {"viewOn": "plain", "pipeline": []}).await;
    scratch.create("series", doc! {"timeseries": {"timeField": "t"}}).await;
    let told: Vec<String> = scratch
        .mongo
        .collections()
        .await
        .expect("collections")
        .into_iter()
        .map(|info| {
            let name = &info.name;
            let flags = [info.post_images, info.collation, info.capped, info.encrypted];
            format!("{name} {:?} {}", info.kind, flags.map(|flag| flag.to_string()).join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            "capped Collection false false true false",
            "collated Collection false true false false",
            "imaged Collection true false false false",
            "plain Collection false false false false",
            "sealed Collection false false false true",
            "searched Collection false false false true",
            "series TimeSeries false false false false",
            "view View false false false false",
        ]
    );
    let watched = ["plain", "missing"].map(str::to_owned);
    let facts = scratch.mongo.preflight(&watched).await.expect("facts");
    assert!(!facts.standalone() && !facts.sharded && facts.no_change_stream.is_none());
    assert!(facts.version >= (6, 0, 0) && facts.feature_version.is_some());
    assert!(facts.oplog_hours.is_some_and(|hours| hours >= 0.0));
    assert_eq!(facts.collections[1].presence, Presence::Missing);
}

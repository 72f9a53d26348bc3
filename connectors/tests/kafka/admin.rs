use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use slackwater_connectors::error::Kind;
use slackwater_connectors::kafka::{Admin, NewTopic};

use super::topic::{Topic, config, settings, unique, with};

#[tokio::test]
async fn topics_are_made_seen_changed_and_removed() {
    with(3, &[("retention.ms", "3600000"), ("max.message.bytes", "2000000")], |topic| async move {
        let admin = &topic.admin;
        assert!(admin.brokers().await.expect("an answer") >= 1);
        let seen =
            async || admin.observe(&[&topic.name]).await.expect("an answer").remove(0).expect("it is there");
        let before = seen().await;
        assert_eq!((before.partitions, before.replication), (3, 1));
        assert_eq!(before.config["retention.ms"], "3600000");
        // What was not set for it is told too.
        assert_eq!(before.config["cleanup.policy"], "delete");
        // Again: nothing happens, and nothing of it is changed.
        let other = NewTopic { name: topic.name.clone(), partitions: 9, replication: 1, config: config(&[]) };
        let made = admin.create(&[other]).await.expect("an answer");
        assert!(made.len() == 1 && made[0].0 == topic.name && made[0].1.is_ok(), "{made:?}");
        assert_eq!(seen().await, before);
        let changes = config(&[("retention.ms", "7200000"), ("min.cleanable.dirty.ratio", "0.250")]);
        admin.change(&topic.name, &changes).await.expect("changed");
        let after = seen().await;
        assert_eq!(after.config["retention.ms"], "7200000");
        assert_eq!(after.config["min.cleanable.dirty.ratio"], "0.25");
        // It was set for the topic before and was not named in the change.
        assert_eq!(after.config["max.message.bytes"], "2000000");
        admin.delete(&topic.name).await.expect("removed");
        assert_eq!(admin.observe(&[&topic.name]).await.expect("an answer"), [None]);
    })
    .await;
}

fn all_topics(brokers: &str) -> Vec<String> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(20)).expect("metadata");
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

/// The shared broker makes topics by itself for whoever asks so; we must not.
#[tokio::test]
async fn asking_for_a_missing_topic_does_not_make_it() {
    with(1, &[], |topic| async move {
        let missing = unique("slackwater-missing");
        let observed = topic.admin.observe(&[&topic.name, &missing, &topic.name]).await.expect("an answer");
        assert!(observed[0].is_some() && observed[1].is_none(), "{observed:?}");
        assert_eq!(observed[0], observed[2]);
        for error in [
            topic.admin.watermarks(&missing, 0).await.expect_err("not there"),
            topic.admin.change(&missing, &config(&[("retention.ms", "1")])).await.expect_err("not there"),
            topic.admin.delete(&missing).await.expect_err("not there"),
        ] {
            assert_eq!(error.kind, Kind::Unsuitable, "{error}");
            assert!(error.what.contains("slackwater topics apply FILE"), "{error}");
        }
        let topics = all_topics(&topic.settings.brokers);
        assert!(topics.contains(&topic.name) && !topics.contains(&missing));
    })
    .await;
}

#[tokio::test]
async fn what_the_broker_does_not_take_is_told() {
    with(1, &[], |topic| async move {
        let refused = async |replication, own: &[(&str, &str)]| {
            let name = unique("slackwater-refused");
            let wanted = NewTopic { name: name.clone(), partitions: 1, replication, config: config(own) };
            let (told, made) = topic.admin.create(&[wanted]).await.expect("an answer").remove(0);
            assert_eq!(told, name);
            let error = made.expect_err("refused");
            assert!(error.doing.contains(&name), "{error}");
            assert_eq!(topic.admin.observe(&[&name]).await.expect("an answer"), [None]);
            error
        };
        let error = refused(9, &[]).await;
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Unsuitable, Some("InvalidReplicationFactor")));
        let error = refused(1, &[("no.such.setting", "1")]).await;
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Unsuitable, Some("InvalidConfig")));
        let changes = config(&[("retention.ms", "hunter2")]);
        let error = topic.admin.change(&topic.name, &changes).await.expect_err("refused");
        assert_eq!(error.kind, Kind::Unsuitable, "{error}");
        assert!(error.what.contains("retention.ms") && !error.what.contains("hunter2"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn nobody_there() {
    let admin = Admin::open(&settings("127.0.0.1:1")).expect("an admin");
    let error = admin.brokers().await.expect_err("nobody answers");
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
    let topic =
        NewTopic { name: unique("slackwater-nowhere"), partitions: 1, replication: 1, config: config(&[]) };
    let error = admin.create(&[topic]).await.expect_err("nobody answers");
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
}

#[tokio::test]
async fn offsets_at_both_ends() {
    with(2, &[], |topic: Topic| async move {
        assert_eq!(topic.admin.watermarks(&topic.name, 1).await.expect("an answer"), (0, 0));
        let error = topic.admin.watermarks(&topic.name, 7).await.expect_err("no such partition");
        assert_eq!(error.kind, Kind::Unsuitable, "{error}");
    })
    .await;
}

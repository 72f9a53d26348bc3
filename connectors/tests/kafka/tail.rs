use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use slackwater_connectors::error::Kind;
use slackwater_connectors::kafka::{Found, Record, Start, Tail, Ticket};

use super::broker::{Broker, PASSWORD};
use super::topic::{Topic, number, option, settings, soon, unique, with};

/// Numbers from 0, in partition 0.
async fn fill(topic: &Topic, numbers: std::ops::Range<u64>) {
    let (producer, ticket) = (topic.producer(), Ticket::new());
    for value in numbers {
        number(&producer, 0, value, &ticket).await.expect("sent");
    }
    ticket.close();
    ticket.acknowledged().await.expect("acknowledged");
}

async fn take(tail: &mut Tail, count: usize) -> Vec<Found> {
    let mut found = Vec::new();
    while found.len() < count {
        found.push(soon("a record", tail.next()).await.expect("a record"));
    }
    found
}

fn offsets(found: &[Found]) -> Vec<i64> {
    found.iter().map(|found| found.offset).collect()
}

#[tokio::test]
async fn begins_where_it_is_told() {
    with(2, &[], |topic: Topic| async move {
        fill(&topic, 0..5).await;
        let open =
            async |start| Tail::open(&topic.settings, &topic.name, Some(0), start).await.expect("open");
        assert_eq!(offsets(&take(&mut open(Start::Beginning).await, 5).await), [0, 1, 2, 3, 4]);
        assert_eq!(offsets(&take(&mut open(Start::Offset(3)).await, 2).await), [3, 4]);
        let (mut end, mut behind) = (open(Start::End).await, open(Start::Offset(99)).await);
        fill(&topic, 5..7).await;
        assert_eq!(offsets(&take(&mut end, 2).await), [5, 6]);
        // Beyond the end is the end.
        assert_eq!(offsets(&take(&mut behind, 2).await), [5, 6]);
        let mut both = Tail::open(&topic.settings, &topic.name, None, Start::Beginning).await.expect("open");
        assert_eq!(take(&mut both, 7).await.len(), 7);
    })
    .await;
}

#[tokio::test]
async fn shows_a_record_as_it_stands() {
    with(1, &[], |topic: Topic| async move {
        let (producer, ticket) = (topic.producer(), Ticket::new());
        let headers: [(&str, &[u8]); 2] = [("other", b"x"), ("slackwater", b"a mark")];
        let mark = Record { key: b"key", value: None, headers: &headers, timestamp: 0 };
        producer.send(0, 0, mark, &ticket).await.expect("sent");
        let plain = Record { key: b"", value: Some(b""), headers: &headers[..1], timestamp: 0 };
        producer.send(0, 0, plain, &ticket).await.expect("sent");
        ticket.close();
        ticket.acknowledged().await.expect("acknowledged");
        let mut tail = Tail::open(&topic.settings, &topic.name, None, Start::Beginning).await.expect("open");
        let found = take(&mut tail, 2).await;
        let parts = |found: &Found| {
            let text = |bytes: &Option<bytes::Bytes>| {
                bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            };
            (text(&found.key), text(&found.value), text(&found.mark))
        };
        assert_eq!(parts(&found[0]), (Some("key".into()), None, Some("a mark".into())));
        assert_eq!((parts(&found[1]).1, parts(&found[1]).2), (Some(String::new()), None));
    })
    .await;
}

#[tokio::test]
async fn leaves_no_trace() {
    with(1, &[], |topic: Topic| async move {
        fill(&topic, 0..1).await;
        let mut tail = Tail::open(&topic.settings, &topic.name, None, Start::Beginning).await.expect("open");
        take(&mut tail, 1).await;
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &topic.settings.brokers).create().expect("a client");
        let groups = consumer.fetch_group_list(None, Duration::from_secs(20)).expect("the groups");
        assert!(groups.groups().iter().all(|group| group.name() != "slackwater.tail"));
        drop(tail);
        let groups = consumer.fetch_group_list(None, Duration::from_secs(20)).expect("the groups");
        assert!(groups.groups().iter().all(|group| group.name() != "slackwater.tail"));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    with(2, &[], |topic: Topic| async move {
        let error =
            Tail::open(&topic.settings, &topic.name, Some(2), Start::End).await.expect_err("not there");
        assert!(error.kind == Kind::Unsuitable && error.what.contains("from 0 to 1"), "{error}");
        let missing = unique("slackwater-missing");
        let error = Tail::open(&topic.settings, &missing, None, Start::End).await.expect_err("not there");
        assert!(error.kind == Kind::Unsuitable && error.doing.contains(&missing), "{error}");
        let mut nowhere = topic.settings.clone();
        nowhere.brokers = "127.0.0.1:1".into();
        let error = Tail::open(&nowhere, &topic.name, None, Start::End).await.expect_err("nobody answers");
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
    })
    .await;
}

/// The broker is silent towards a wrong password; the reason comes beside the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_not_shown() {
    let broker = Broker::started().await;
    let with_password = |password: &str| {
        let mut settings = settings(&broker.guarded());
        settings.options = vec![
            option("security.protocol", "sasl_plaintext"),
            option("sasl.mechanism", "PLAIN"),
            option("sasl.username", "me"),
            option("sasl.password", password),
        ];
        settings
    };
    let wrong = with_password("hunter2-wrong");
    let error = Tail::open(&wrong, "orders", None, Start::End).await.expect_err("refused");
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let error = Tail::open(&with_password(PASSWORD), "orders", None, Start::End).await.expect_err("no topic");
    assert_eq!(error.kind, Kind::Unsuitable, "{error}");
}

use std::time::Duration;

use rdkafka::message::{Headers as _, Message as _};
use slackwater_connectors::error::Kind;
use slackwater_connectors::kafka::{Producer, Record, Ticket};

use super::topic::{Topic, number, option, soon, until, with};

#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_keep_the_order_in_each_partition() {
    const EACH: u64 = 25_000;
    with(4, &[], |topic| async move {
        let producer = topic.producer();
        let tasks = [0, 1].map(|task| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let ticket = Ticket::new();
                for n in 0..EACH {
                    let partition = i32::try_from(n % 4).expect("small");
                    number(&producer, partition, n * 2 + task, &ticket).await.expect("sent");
                }
                ticket.close();
                soon("all acknowledged", ticket.acknowledged()).await.expect("acknowledged");
                assert_eq!(ticket.outstanding(), 0);
            })
        });
        for task in tasks {
            task.await.expect("the task ends well");
        }
        for (partition, values) in (0..).zip(topic.values()) {
            assert_eq!(values.len() as u64, EACH * 2 / 4);
            for task in 0..2 {
                let of_task: Vec<u64> = values.iter().copied().filter(|value| value % 2 == task).collect();
                let sent: Vec<u64> =
                    (0..EACH).filter(|n| n % 4 == partition as u64).map(|n| n * 2 + task).collect();
                assert_eq!(of_task, sent);
            }
            let (low, high) = topic.admin.watermarks(&topic.name, partition).await.expect("an answer");
            assert_eq!((low, high), (0, values.len() as i64));
            assert_eq!(producer.acknowledged(0, partition), Some(high - 1));
        }
        assert_eq!(producer.acknowledged(0, 4), None);
        assert_eq!(producer.acknowledged(1, 0), None);
        assert_eq!(producer.regressed(), None);
        assert!(producer.trouble().is_none());
    })
    .await;
}

#[tokio::test]
async fn all_of_a_record_arrives() {
    with(2, &[], |topic| async move {
        let producer = topic.producer();
        let ticket = Ticket::new();
        let mark = [0xff, 0, 1];
        let headers: [(&str, &[u8]); 2] = [("slackwater", &mark), ("empty", &[])];
        let with_headers =
            Record { key: b"mark", value: None, headers: &headers, timestamp: 1_700_000_000_123 };
        producer.send(0, 1, with_headers, &ticket).await.expect("sent");
        let empty = Record { key: b"", value: Some(b""), headers: &[], timestamp: 1_700_000_000_456 };
        producer.send(0, 1, empty, &ticket).await.expect("sent");
        ticket.close();
        soon("both acknowledged", ticket.acknowledged()).await.expect("acknowledged");
        let read = super::topic::read(&topic.settings.brokers, &topic.name, 2, |message| {
            let headers = message.headers().map(|headers| {
                headers
                    .iter()
                    .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                    .collect()
            });
            let headers: Vec<_> = headers.unwrap_or_default();
            let (key, value) = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
            (key, value, message.timestamp().to_millis(), headers)
        });
        let first = vec![("slackwater".to_owned(), Some(mark.to_vec())), ("empty".to_owned(), Some(vec![]))];
        assert_eq!(read[0], []);
        assert_eq!(
            read[1],
            [
                (Some(b"mark".to_vec()), None, Some(1_700_000_000_123), first),
                (Some(vec![]), Some(vec![]), Some(1_700_000_000_456), vec![]),
            ]
        );
    })
    .await;
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

/// The broker refuses one record in the middle. Nothing behind it may be in the partition.
#[tokio::test]
async fn a_record_that_is_refused_leaves_no_gap() {
    with(1, &[("max.message.bytes", "20000")], |topic| async move {
        let mut settings = topic.settings.clone();
        // One record a batch: those behind are under way when the refusal comes.
        settings.producer.push(option("batch.num.messages", "1"));
        settings.producer.push(option("linger.ms", "0"));
        let producer = Producer::open(&settings, &[(topic.name.clone(), 1)]).expect("a producer");
        let good = Ticket::new();
        for n in 0..10 {
            number(&producer, 0, n, &good).await.expect("sent");
        }
        good.close();
        soon("acknowledged", good.acknowledged()).await.expect("acknowledged");
        let (large, behind) = (Ticket::new(), Ticket::new());
        let value = noise(100_000);
        let record = Record { key: b"hunter2", value: Some(&value), headers: &[], timestamp: 0 };
        producer.send(0, 0, record, &large).await.expect("queued");
        large.close();
        // Until the refusal is known they are taken.
        let mut n = 10;
        let ended = loop {
            match number(&producer, 0, n, &behind).await {
                Ok(()) => n += 1,
                Err(error) => break error,
            }
        };
        let error = soon("refused", large.acknowledged()).await.expect_err("refused");
        for error in [&error, &ended] {
            assert_eq!(error.kind, Kind::Unsuitable, "{error}");
            assert_eq!(error.code.as_deref(), Some("MessageSizeTooLarge"), "{error}");
            assert!(error.doing.contains(&topic.name) && error.what.contains("max.message.bytes"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        behind.close();
        if n > 10 {
            let error = soon("given up", behind.acknowledged()).await.expect_err("given up");
            assert_eq!(error.kind, Kind::Unsuitable, "{error}");
        }
        until("nothing is left in the queue", || producer.outstanding() == 0).await;
        assert_eq!(topic.values(), [(0..10).collect::<Vec<_>>()]);
    })
    .await;
}

#[tokio::test]
async fn a_record_larger_than_the_client_takes_is_not_taken() {
    with(1, &[], |topic| async move {
        let mut settings = topic.settings.clone();
        settings.producer.push(option("message.max.bytes", "5000"));
        let producer = Producer::open(&settings, &[(topic.name.clone(), 1)]).expect("a producer");
        assert_eq!(producer.largest_record(), 5000);
        let ticket = Ticket::new();
        let value = noise(6000);
        let record = Record { key: b"", value: Some(&value), headers: &[("h", b"v")], timestamp: 0 };
        let error = producer.send(0, 0, record, &ticket).await.expect_err("too large");
        assert_eq!(error.kind, Kind::Unsuitable, "{error}");
        // The rest goes on, and the ticket does not wait for it.
        number(&producer, 0, 7, &ticket).await.expect("sent");
        ticket.close();
        soon("acknowledged", ticket.acknowledged()).await.expect("acknowledged");
        assert_eq!(topic.values(), [[7]]);
        let error = number(&producer, 1, 8, &Ticket::new()).await.expect_err("no such partition");
        assert_eq!((error.kind, error.code.as_deref()), (Kind::Unsuitable, Some("UnknownPartition")));
    })
    .await;
}

/// Sends until an error comes or offsets go back.
async fn send_on(producer: &Producer) -> Option<slackwater_connectors::error::Error> {
    for n in 0.. {
        let ticket = Ticket::new();
        if let Err(error) = number(producer, 0, n, &ticket).await {
            return Some(error);
        }
        ticket.close();
        if let Err(error) = ticket.acknowledged().await {
            return Some(error);
        }
        if let Some(topic) = producer.regressed() {
            assert_eq!(topic, 0);
            return None;
        }
    }
    None
}

async fn some(topic: &Topic, producer: &Producer) {
    let ticket = Ticket::new();
    for n in 0..1000 {
        number(producer, 0, n, &ticket).await.expect("sent");
    }
    ticket.close();
    soon("acknowledged", ticket.acknowledged()).await.expect("acknowledged");
    assert_eq!(producer.acknowledged(0, 0), Some(999), "{}", topic.name);
}

#[tokio::test]
async fn a_topic_that_is_removed_is_named() {
    with(1, &[], |topic| async move {
        let producer = topic.producer();
        some(&topic, &producer).await;
        topic.admin.delete(&topic.name).await.expect("removed");
        // On a busy machine librdkafka may say first that it has left a broker. A producer says what has ended it for ever, so
        // another one is asked, as a process does that tries again.
        let mut error = soon("an error", send_on(&producer)).await.expect("an error");
        for _ in 0..20 {
            if error.kind != Kind::Unreachable {
                break;
            }
            error = soon("an error", send_on(&topic.producer())).await.expect("an error");
        }
        assert_eq!(error.kind, Kind::Unsuitable, "{error}");
        assert!(error.doing.contains(&topic.name), "{error}");
        assert!(error.what.contains("slackwater topics apply FILE"), "{error}");
        // Nobody re-created it, least of all we.
        assert_eq!(topic.admin.observe(&[&topic.name]).await.expect("an answer"), [None]);
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_is_made_anew_is_noticed() {
    with(1, &[], |topic| async move {
        let producer = topic.producer();
        some(&topic, &producer).await;
        topic.admin.delete(&topic.name).await.expect("removed");
        topic.create(&[]).await;
        match soon("it is noticed", send_on(&producer)).await {
            None => assert!(producer.acknowledged(0, 0).is_some_and(|offset| offset < 999)),
            Some(error) => assert_eq!(error.kind, Kind::Unsuitable, "{error}"),
        }
    })
    .await;
}

#[tokio::test]
async fn closing_does_not_wait_and_tells_those_who_do() {
    // Nobody listens there.
    let mut settings = super::topic::settings("127.0.0.1:1");
    settings.options.push(option("sasl.password", "hunter2"));
    let producer = Producer::open(&settings, &[("nowhere".into(), 1)]).expect("a producer");
    let ticket = Ticket::new();
    for n in 0..1000 {
        number(&producer, 0, n, &ticket).await.expect("queued");
    }
    assert_eq!(ticket.outstanding(), 1000);
    assert!(producer.outstanding() >= 1000);
    until("the trouble is known", || producer.trouble().is_some()).await;
    let trouble = producer.trouble().expect("it is known");
    assert_eq!(trouble.kind, Kind::Unreachable, "{trouble}");
    assert!(!format!("{producer:?} {trouble} {trouble:?}").contains("hunter2"));
    drop(producer);
    let error = tokio::time::timeout(Duration::from_secs(60), ticket.acknowledged())
        .await
        .expect("at once")
        .expect_err("not sent");
    assert_eq!(error.code.as_deref(), Some("PurgeQueue"), "{error}");
    until("all are given back", || ticket.outstanding() == 0).await;
}

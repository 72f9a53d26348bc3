use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use slackwater_connectors::error::Kind;
use slackwater_connectors::kafka::{Admin, Producer, Ticket};

use super::broker::{Broker, PASSWORD};
use super::topic::{Topic, number, option, settings, soon, until, values};

fn topic_at(address: &str, partitions: u32) -> Topic {
    let settings = settings(address);
    let admin = Admin::open(&settings).expect("an admin");
    Topic { settings, admin, name: "orders".into(), partitions }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_late_is_waited_for() {
    const ALL: u64 = 5000;
    const QUEUE: u64 = 1000;
    let mut broker = Broker::started().await;
    let mut topic = topic_at(&broker.address(), 1);
    topic.create(&[]).await;
    broker.kill();
    topic.settings.producer.push(option("queue.buffering.max.messages", &QUEUE.to_string()));
    let producer = topic.producer();
    let ticket = Ticket::new();
    let sent = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn({
        let (producer, ticket, sent) = (producer.clone(), ticket.clone(), sent.clone());
        async move {
            for n in 0..ALL {
                number(&producer, 0, n, &ticket).await.expect("sent");
                sent.fetch_add(1, Ordering::SeqCst);
            }
            ticket.close();
        }
    });
    until("the queue is full", || sent.load(Ordering::SeqCst) == QUEUE).await;
    until("the trouble is known", || producer.trouble().is_some()).await;
    assert_eq!(producer.trouble().expect("it is known").kind, Kind::Unreachable);
    assert_eq!((sent.load(Ordering::SeqCst), ticket.outstanding()), (QUEUE, QUEUE as u32));
    assert!(!sending.is_finished());
    broker.start();
    soon("all sent", sending).await.expect("the task ends well");
    soon("all acknowledged", ticket.acknowledged()).await.expect("acknowledged");
    assert!(producer.trouble().is_none());
    assert_eq!(topic.values(), [(0..ALL).collect::<Vec<_>>()]);
}

/// Killed twice while a hundred thousand records are on their way: each arrives once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_costs_nothing() {
    const ALL: u64 = 100_000;
    const PARTITIONS: u64 = 4;
    let mut broker = Broker::started().await;
    let mut topic = topic_at(&broker.address(), PARTITIONS as u32);
    topic.create(&[]).await;
    // As for a topic that is known for long: no patience if a broker should say that it is not there.
    topic.settings.producer.push(option("topic.metadata.propagation.max.ms", "0"));
    let producer = topic.producer();
    let sent = Arc::new(AtomicU64::new(0));
    let gate = Arc::new(AtomicU64::new(ALL / 3));
    let tickets = Arc::new(Mutex::new(Vec::new()));
    let sending = tokio::spawn({
        let (producer, sent, gate, tickets) = (producer.clone(), sent.clone(), gate.clone(), tickets.clone());
        async move {
            let mut ticket = Ticket::new();
            for n in 0..ALL {
                // So that there is always something left to send behind a kill.
                while gate.load(Ordering::SeqCst) <= n {
                    tokio::task::yield_now().await;
                }
                number(&producer, (n % PARTITIONS) as i32, n, &ticket).await.expect("sent");
                sent.fetch_add(1, Ordering::SeqCst);
                if n % 1000 == 999 {
                    ticket.close();
                    tickets.lock().expect("not poisoned").push(std::mem::replace(&mut ticket, Ticket::new()));
                }
            }
        }
    });
    for round in 1..=2 {
        until("a part is sent", || sent.load(Ordering::SeqCst) >= ALL / 3 * round).await;
        // More is being sent, and nobody waited for it.
        gate.store(ALL / 3 * (round + 1) + 10, Ordering::SeqCst);
        until("more is on its way", || producer.outstanding() > 1000).await;
        broker.kill();
        broker.start();
    }
    gate.store(ALL, Ordering::SeqCst);
    soon("all sent", sending).await.expect("the task ends well");
    let tickets = std::mem::take(&mut *tickets.lock().expect("not poisoned"));
    assert_eq!(tickets.len(), 100);
    for ticket in tickets {
        soon("acknowledged", ticket.acknowledged()).await.expect("acknowledged");
    }
    for (partition, values) in (0..PARTITIONS).zip(topic.values()) {
        let expected: Vec<u64> = (0..ALL).filter(|n| n % PARTITIONS == partition).collect();
        assert_eq!(values.len(), expected.len());
        assert_eq!(values, expected);
        assert_eq!(producer.acknowledged(0, partition as i32), Some(expected.len() as i64 - 1));
    }
    assert_eq!(producer.regressed(), None);
}

/// The broker writes records and its answers never arrive: they are sent again, and are there once.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_double_nothing() {
    const ALL: u64 = 20_000;
    let broker = Broker::started().await;
    let direct = topic_at(&broker.address(), 1);
    direct.create(&[]).await;
    let wire = broker.wire().await;
    let producer = topic_at(&wire.address, 1).producer();
    let ticket = Ticket::new();
    number(&producer, 0, 0, &ticket).await.expect("sent");
    until("the first one is acknowledged", || ticket.outstanding() == 0).await;
    wire.swallow_answers();
    for n in 1..ALL {
        number(&producer, 0, n, &ticket).await.expect("sent");
    }
    ticket.close();
    let written = async || direct.admin.watermarks("orders", 0).await.expect("an answer").1;
    soon("the broker has some of them", async { while written().await < 1000 {} }).await;
    assert_eq!((producer.acknowledged(0, 0), ticket.outstanding()), (Some(0), ALL as u32 - 1));
    wire.cut();
    soon("all acknowledged", ticket.acknowledged()).await.expect("acknowledged");
    assert_eq!(direct.values(), [(0..ALL).collect::<Vec<_>>()]);
    assert_eq!((producer.acknowledged(0, 0), producer.regressed()), (Some(ALL as i64 - 1), None));
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "kafka"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut Fields(&mut line));
        self.0.lock().expect("not poisoned").push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_not_shown() {
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).expect("no other one");
    let broker = Broker::started().await;
    topic_at(&broker.address(), 1).create(&[]).await;
    let with_password = |password: &str| {
        let mut settings = settings(&broker.guarded());
        settings.options = vec![
            option("security.protocol", "sasl_plaintext"),
            option("sasl.mechanism", "PLAIN"),
            option("sasl.username", "me"),
            option("sasl.password", password),
            option("debug", "all"),
        ];
        settings
    };
    let wrong = with_password("hunter2-wrong");
    let error = Admin::open(&wrong).expect("an admin").brokers().await.expect_err("refused");
    assert_eq!(error.kind, Kind::Denied, "{error}");
    let producer = Producer::open(&wrong, &[("orders".into(), 1)]).expect("a producer");
    let ticket = Ticket::new();
    number(&producer, 0, 1, &ticket).await.expect("queued");
    until("the trouble is known", || producer.trouble().is_some_and(|error| error.kind == Kind::Denied))
        .await;
    let trouble = producer.trouble().expect("it is known");
    let shown = format!("{error} {error:?} {trouble} {trouble:?} {wrong:?} {producer:?}");
    assert!(!shown.contains("hunter2"), "{shown}");

    let right = with_password(PASSWORD);
    assert_eq!(Admin::open(&right).expect("an admin").brokers().await.expect("an answer"), 1);
    let producer = Producer::open(&right, &[("orders".into(), 1)]).expect("a producer");
    let ticket = Ticket::new();
    number(&producer, 0, 2, &ticket).await.expect("queued");
    ticket.close();
    soon("acknowledged", ticket.acknowledged()).await.expect("acknowledged");
    assert_eq!(values(&broker.address(), "orders", 1), [[2]]);

    let lines = lines.0.lock().expect("not poisoned");
    // Down to its last word, librdkafka has talked about it.
    assert!(lines.iter().any(|line| line.starts_with("WARN") && line.contains("uthentication failed")));
    assert!(lines.iter().any(|line| line.contains("sasl.password")));
    assert!(lines.iter().all(|line| !line.contains("hunter2")));
}

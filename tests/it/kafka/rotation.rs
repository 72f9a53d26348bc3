//! Kafka's password changes while writers write: no process ends, nothing is lost.

use slackwater_migrations::crm_demo::{self, Pace};

use crate::stage::broker::Broker;
use crate::stage::pipeline::Pipeline;
use crate::stage::ports::free_ports;
use crate::stage::records::Topics;
use crate::stage::trial::{CATCH_UP, Load};
use crate::stage::{Slackwater, Stage, number, until};

/// Nobody is let in for longer without saying the password again, as in clusters whose passwords change.
const AGAIN_WITHIN_MS: u32 = 3_000;

/// How often it has begun anew: when it was refused, or when a file held what is taken.
fn begun(process: &Slackwater) -> usize {
    std::fs::read_to_string(process.log()).expect("a log").matches("beginning anew").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_change() {
    let seed = number("SLACKWATER_TEST_SEED", 35);
    println!("seed {seed}");
    let [port] = free_ports();
    let scram = "listener.name.password.scram-sha-512";
    let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let more = format!(
        "sasl.enabled.mechanisms=SCRAM-SHA-512\n{scram}.sasl.jaas.config={login}\n\
         {scram}.connections.max.reauth.ms={AGAIN_WITHIN_MS}\n"
    );
    let users = ["--add-scram", "SCRAM-SHA-512=[name=app,password=a-secret-0]"];
    let entrance = ("PASSWORD", port, "SASL_PLAINTEXT");
    let broker = Broker::start_beside(Broker::folder("rotation"), &[entrance], &more, &users).await;

    let (stage, _) = Stage::crm("kafka_rotation", seed, 2_000).await;
    let password = stage.file("password", "a-secret-0\n");
    let prefix = format!("sw.{}", stage.name);
    let log = format!(
        "log:\n  kafka:\n    brokers: \"127.0.0.1:{port}\"\n    group: {prefix}\n    \
         topics: {{ prefix: {prefix}, partitions: 2, replication: 1 }}\n    consumer: {{ session.timeout.ms: 6000 }}\n    \
         options:\n      security.protocol: SASL_PLAINTEXT\n      sasl.mechanisms: SCRAM-SHA-512\n      \
         sasl.username: app\n      sasl.password: \"${{file:{}}}\"\n",
        password.display()
    );
    let file = stage.file("rotation.yaml", &format!("{}\n{log}", crm_demo::mapping()));
    let topics = Topics::new(&broker.address(), &prefix);
    let pipeline = Pipeline { stage, file, topics, group: prefix };
    pipeline.make_topics().await;

    let load = Load::start(&pipeline.stage, seed, Pace { writers: 2, rate: Some(200.0) }).await;
    let mut processes =
        [pipeline.apply("one", None), pipeline.apply("two", Some("two")), pipeline.capture("capture")];
    for turn in 1..=5 {
        let saved = pipeline.saved_at().await;
        let applied = async || -> i64 {
            let partitions = pipeline.partitions().await;
            partitions.values().map(|partition| partition.next_offset).sum()
        };
        until("it captures", CATCH_UP, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            (pipeline.saved_at().await > saved).then_some(())
        })
        .await;
        let before = applied().await;
        until("it applies", CATCH_UP, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            (applied().await > before + 100).then_some(())
        })
        .await;
        // In one order and in the other: for a while the file is ahead of the brokers, or behind them.
        let secret = format!("a-secret-{turn}");
        if turn % 2 == 0 {
            broker.set_password("app", &secret).await;
            let refused = processes.each_ref().map(|process| process.said("authentication error"));
            println!("turn {turn}, refused before the file is written: {refused:?}");
            std::fs::write(&password, &secret).expect("a file");
        } else {
            std::fs::write(&password, &secret).expect("a file");
            broker.set_password("app", &secret).await;
        }
        until("all have begun anew with what the file holds now", CATCH_UP, async || {
            processes.iter_mut().for_each(Slackwater::still_runs);
            processes.iter().all(|process| begun(process) >= turn).then_some(())
        })
        .await;
        println!("turn {turn}: {:?}", processes.each_ref().map(begun));
    }
    load.end(&pipeline.stage, &pipeline.file, &mut processes).await;
    for process in &processes {
        assert!(!process.said("a-secret"), "a password is in the log of {}", process.name());
    }
    let [mut one, mut two, mut capture] = processes;
    until("nothing is left of former clients", CATCH_UP, async || {
        let threads =
            [one.threads("kafka-consumer"), two.threads("kafka-consumer"), capture.threads("kafka-producer")];
        println!("{threads:?}");
        (threads == [1, 1, 1]).then_some(())
    })
    .await;
    // From now on nothing comes into the topics.
    capture.stop().await;
    let standing = pipeline.counted_exactly(CATCH_UP).await;
    println!("{standing:?}");
    one.stop().await;
    two.stop().await;
    pipeline.clear().await;
}

//! Lag that can be trusted: small while nothing happens, shown with the name of whoever has gone, small again when it is back.
//! Each is read as a machine reads it, through `/metrics`, and as a person does, through `status`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::broker::{Broker, shared};
use crate::stage::items;
use crate::stage::pipeline::{Log, Pipeline};
use crate::stage::ports::free_ports;
use crate::stage::{PATIENCE, Slackwater, Stage, number, until};

/// As documented: an idle source, and whoever follows it well, is never further behind. Seconds.
const LITTLE: f64 = 3.0;

fn idle() -> Duration {
    Duration::from_secs(number("SLACKWATER_TEST_IDLE", 6))
}

/// An address for a process to listen on.
pub(crate) fn address() -> String {
    format!("127.0.0.1:{}", free_ports::<1>()[0])
}

/// What the process at this address answers: code and body. `None` where nobody listens.
pub(crate) async fn ask(address: &str, path: &str) -> Option<(u16, String)> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    // It promises never to hang, whatever is away.
    tokio::time::timeout(PATIENCE, asking).await.expect("an answer, or none, but no silence")
}

async fn metrics(address: &str) -> String {
    let (code, body) = ask(address, "/metrics").await.expect("it listens");
    assert_eq!(code, 200, "{body}");
    body
}

/// Values of a metric whose labels hold all of these.
fn values(metrics: &str, name: &str, labels: &[&str]) -> Vec<f64> {
    let lines = metrics.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            && labels.iter().all(|label| line.contains(label))
    });
    lines.map(|line| line.rsplit_once(' ').expect("a value").1.parse().expect("a number")).collect()
}

fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    values(metrics, name, labels).first().copied()
}

fn lag(metrics: &str) -> Option<f64> {
    value(metrics, "slackwater_lag_seconds", &[])
}

fn lag_of(status: &Value) -> Option<f64> {
    status["lag_ms"].as_i64().map(|lag| lag as f64 / 1000.0)
}

fn process<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["processes"].as_array()?.iter().find(|process| process["name"] == name)
}

/// A condition on both ways of looking; how many seconds until each was met.
async fn seen(
    what: &str,
    (address, stage, file): (&str, &Stage, &Path),
    machine: impl Fn(&str) -> bool,
    person: impl Fn(&Value) -> bool,
) -> [f64; 2] {
    let begun = Instant::now();
    let mut met = [None, None];
    until(what, PATIENCE, async || {
        let (metrics, status) = (ask(address, "/metrics").await, stage.status(file).await);
        if met[0].is_none() && metrics.is_some_and(|(_, text)| machine(&text)) {
            met[0] = Some(begun.elapsed().as_secs_f64());
        }
        if met[1].is_none() && person(&status) {
            met[1] = Some(begun.elapsed().as_secs_f64());
        }
        Some([met[0]?, met[1]?])
    })
    .await
}

/// Waits until it follows: everything is copied, and it is hardly behind.
async fn small(place: (&str, &Stage, &Path)) -> [f64; 2] {
    let small = |lag: Option<f64>| lag.is_some_and(|lag| lag <= LITTLE);
    let machine = |text: &str| small(lag(text)) && value(text, "slackwater_running", &[]) == Some(1.0);
    seen("it follows", place, machine, |status| {
        small(lag_of(status)) && status["copied"] == true && status["running"] == true
    })
    .await
}

fn row(what: &str, shown: [f64; 2], again: [f64; 2]) {
    println!(
        "{what:<44} shown after {:>5.1} s in /metrics, {:>5.1} s in status; small again after {:>5.1} s, {:>5.1} s",
        shown[0], shown[1], again[0], again[1]
    );
}

/// Waits until an idle source has been up to date for as long as it has to be, without a look that says otherwise; the
/// largest lag of both ways of looking.
async fn stays_small(place: (&str, &Stage, &Path), processes: &mut [Slackwater]) -> [f64; 2] {
    let (address, stage, file) = place;
    let (mut begun, mut looks, mut most) = (Instant::now(), 0, [0.0_f64; 2]);
    until("an idle source stays up to date", PATIENCE + 2 * idle(), async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let behind = [lag(&metrics(address).await), lag_of(&stage.status(file).await)];
        let behind = behind.map(|lag| lag.expect("lag is known while all is well"));
        most = [most[0].max(behind[0]), most[1].max(behind[1])];
        looks += 1;
        if behind.iter().any(|lag| *lag > LITTLE) {
            println!("idle, and {behind:?} s behind at look {looks}: once more");
            (begun, looks, most) = (Instant::now(), 0, [0.0; 2]);
        }
        (begun.elapsed() >= idle()).then_some(())
    })
    .await;
    println!("idle for {:?}, {looks} looks, at most {most:?} s behind", idle());
    assert!(looks > 0);
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_tells_how_far_behind_it_is() {
    let stage = Stage::new("lag").await;
    let file = items::prepare(&stage).await;
    items::insert(&stage, 0..3_000).await;
    let collections = stage.source.list_collection_names().await.expect("the source can be read");
    let listen = address();
    let path = file.to_str().expect("a path in UTF-8");
    let start = || stage.start(&["run", path, "--listen", &listen], "run");
    let mut processes = vec![start()];
    let place = (listen.as_str(), &stage, file.as_path());
    until("it is ready", PATIENCE, async || {
        processes[0].still_runs();
        let (code, body) = ask(&listen, "/readyz").await?;
        assert!(code == 200 || (code == 503 && body.len() > 3), "{code}: {body}");
        assert_eq!(ask(&listen, "/healthz").await?.0, 200);
        (code == 200).then_some(())
    })
    .await;
    small(place).await;
    stays_small(place, &mut processes).await;
    let after = stage.source.list_collection_names().await.expect("the source can be read");
    assert_eq!(collections, after, "nothing is written to the source");

    // The same address a second time.
    let output = stage.output(&["run", path, "--listen", &listen]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("listening on {listen}")), "{said}");

    // Killed, it says nothing any more; the control store tells of it.
    processes.pop().expect("the run").kill().await;
    let begun = Instant::now();
    let shown = until("status names who is gone, and the lag rises", PATIENCE, async || {
        let status = stage.status(&file).await;
        let gone = process(&status, "run").is_some_and(|process| process["up"] == false);
        (gone && status["running"] == false && lag_of(&status)? > LITTLE).then(|| begun.elapsed())
    })
    .await;
    processes.push(start());
    let again = small(place).await;
    let shown = shown.as_secs_f64();
    println!("run killed: shown after {shown:.1} s in status; small again after {again:.1?} s");
    processes.pop().expect("the run").stop().await;
    let status = stage.status(&file).await;
    assert_eq!(process(&status, "run").expect("it is told of")["ended"], true, "it has said goodbye");
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_gone_between_source_and_target_is_named() {
    let mut broker = Broker::start("lag").await;
    let stage = Stage::new("lag_kafka").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..3_000).await;
    let pipeline = Pipeline::on(stage, items::FILE, &Log::at(&broker.address())).await;
    let stage = &pipeline.stage;
    let path = pipeline.file.to_str().expect("a path in UTF-8");
    let (at_capture, at_applier) = (address(), address());
    let capture = || stage.start(&["capture", path, "--listen", &at_capture], "capture");
    let mut processes = vec![
        stage.start(&["apply", path, "--member", "one"], "one"),
        stage.start(&["apply", path, "--member", "two", "--listen", &at_applier], "two"),
        capture(),
    ];
    let place = (at_applier.as_str(), stage, pipeline.file.as_path());
    until("all are ready", PATIENCE, async || {
        processes.iter_mut().for_each(Slackwater::still_runs);
        let capture = ask(&at_capture, "/readyz").await?.0;
        (capture == 200 && ask(&at_applier, "/readyz").await?.0 == 200).then_some(())
    })
    .await;
    small(place).await;
    stays_small(place, &mut processes).await;
    until("both appliers have partitions", PATIENCE, async || {
        let text = metrics(&at_applier).await;
        ["one", "two"]
            .iter()
            .all(|name| {
                let label = format!("name=\"apply/{name}\"");
                value(&text, "slackwater_partition_owned", &[&label]) == Some(1.0)
            })
            .then_some(())
    })
    .await;
    let behind = |lag: Option<f64>| lag.is_some_and(|lag| lag > LITTLE);

    processes.pop().expect("the capture").kill().await;
    let shown = seen(
        "capture is named, and the lag rises",
        place,
        |text| {
            value(text, "slackwater_process_up", &["name=\"capture\""]) == Some(0.0)
                && value(text, "slackwater_running", &[]) == Some(0.0)
                && behind(lag(text))
        },
        |status| {
            process(status, "capture").is_some_and(|process| process["up"] == false) && behind(lag_of(status))
        },
    )
    .await;
    processes.push(capture());
    row("capture killed", shown, small(place).await);

    processes[0].signal("STOP").await;
    let shown = seen(
        "the applier is named, and its partitions are behind",
        place,
        |text| {
            value(text, "slackwater_process_up", &["name=\"apply/one\""]) == Some(0.0)
                && values(text, "slackwater_partition_lag_seconds", &[]).iter().any(|lag| *lag > LITTLE)
        },
        |status| {
            let partitions = status["partitions"].as_array().expect("partitions");
            let of_it = |row: &&Value| row["member"] == "one" && row["lag_ms"].as_i64() > Some(3_000);
            process(status, "apply/one").is_some_and(|process| process["up"] == false)
                && partitions.iter().any(|row| of_it(&row))
        },
    )
    .await;
    processes[0].signal("CONT").await;
    row("one applier of two stopped", shown, small(place).await);

    broker.stop().await;
    let shown = seen(
        "those who wait for Kafka are named, and the lag rises",
        place,
        |text| {
            let waits = |name: &str| value(text, "slackwater_process_waiting", &[name]) == Some(1.0);
            waits("name=\"capture\"") && waits("name=\"apply/two\"") && behind(lag(text))
        },
        |status| {
            let trouble = process(status, "capture").and_then(|process| process["trouble"].as_str());
            trouble.is_some_and(|trouble| trouble.contains("Kafka")) && behind(lag_of(status))
        },
    )
    .await;
    let (code, reason) = ask(&at_capture, "/readyz").await.expect("it listens");
    assert!(code == 503 && reason.contains("Kafka"), "{code}: {reason}");
    assert_eq!(ask(&at_capture, "/healthz").await.expect("it listens").0, 200, "a restart would not mend it");
    broker.again().await;
    let again = small(place).await;
    row("broker stopped", shown, again);
    until("all are ready again", PATIENCE, async || {
        let capture = ask(&at_capture, "/readyz").await?.0;
        (capture == 200 && ask(&at_applier, "/readyz").await?.0 == 200).then_some(())
    })
    .await;
    for process in processes.into_iter().rev() {
        process.stop().await;
    }
    pipeline.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_prints_a_look_a_second_until_it_is_told_to_end() {
    let log = Log::at(&shared());
    let stage = Stage::new("lag_watch").await;
    items::prepare(&stage).await;
    items::insert(&stage, 0..100).await;
    let pipeline = Pipeline::on(stage, items::FILE, &log).await;
    let path = pipeline.file.to_str().expect("a path in UTF-8");
    let mut run = pipeline.stage.run(&pipeline.file);
    until("it is applied", PATIENCE, async || {
        run.still_runs();
        let rows = pipeline.stage.target.query_one("SELECT count(*) FROM items", &[]).await;
        (rows.expect("the table is there").get::<_, i64>(0) == 100).then_some(())
    })
    .await;
    let watch = pipeline.stage.start(&["status", path, "--watch", "--json"], "watch");
    let looks = until("three looks are printed", PATIENCE, async || {
        let text = std::fs::read_to_string(watch.log()).expect("a log");
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Some(whole.collect::<Vec<_>>()).filter(|looks| looks.len() >= 3)
    })
    .await;
    assert!(looks.iter().all(|look| look["migration"] == "items"), "{looks:?}");
    let (status, _) = watch.end("INT").await;
    assert_eq!(status.code(), Some(0));
    run.stop().await;
    pipeline.clear().await;
}

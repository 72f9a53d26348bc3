//! The writers are stopped by somebody else: by a person who says so, by a command of the team. Who has to know is told.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::{Scene, Way, section};
use crate::stage::PATIENCE;
use crate::stage::mongod::{Flavour, Mongod};
use crate::stage::state;

/// Takes one request and answers it; its first line and its body.
async fn answer(listener: &TcpListener, status: &str) -> (String, String) {
    let (stream, _) = listener.accept().await.expect("somebody calls");
    let mut stream = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.expect("a request");
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("a header");
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("the body");
    let mut stream: TcpStream = stream.into_inner();
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("an answer can be sent");
    (first, String::from_utf8(body).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn by_hand_and_told_to_a_webhook() {
    let mongod = Mongod::start("by_hand", Flavour::Replica).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let more = format!(
        "  deadline: 60s\n  freeze: by_hand\n  open: [ {{ webhook: \"http://127.0.0.1:{port}/switched?key=hidden\" }} ]"
    );
    let mut scene = Scene::set("cutover_by_hand", Way::Direct, &mongod.uri(), "", 51, &more).await;

    // Nobody is there to be asked.
    let (code, report) = scene.switch().await;
    assert_eq!((code, &report["state"]), (Some(9), &"reverted".into()), "{report:#}");
    assert!(report["reason"].as_str().is_some_and(|reason| reason.contains("terminal")), "{report:#}");

    // A terminal, and somebody at it.
    let words = format!("{} cutover {} --json", env!("CARGO_BIN_EXE_slackwater"), scene.path());
    let mut person = Command::new("script")
        .args(["--quiet", "--return", "--command", &words, "/dev/null"])
        .envs(scene.stage.environment())
        .current_dir(&scene.stage.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("`script` is there");
    let mut output = person.stdout.take().expect("its output");
    let mut shown = String::new();
    while !shown.contains("press Enter") {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, output.read(&mut bytes)).await.expect("it asks");
        let read = read.expect("its output can be read");
        assert!(read > 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    let armed =
        state::rows(&scene.stage.target, "SELECT FROM slackwater.cutovers WHERE state = 'armed'").await;
    assert_eq!(armed.len(), 1, "nothing is frozen before the answer");
    let written = scene.end_writers().await;
    let mut keys = person.stdin.take().expect("its keys");
    keys.write_all(b"\n").await.expect("Enter can be pressed");
    let mut rest = String::new();
    let calls = async {
        let refused = answer(&listener, "503 Not Yet").await;
        (refused, answer(&listener, "204 No Content").await)
    };
    let ((refused, told), read) = tokio::join!(calls, output.read_to_string(&mut rest));
    read.expect("its output can be read");
    let ended = person.wait().await.expect("it ends");
    assert!(ended.success(), "{shown}{rest}");
    assert_eq!(refused, told, "what was not taken is told again");
    assert!(told.0.starts_with("POST /switched?key=hidden "), "{}", told.0);
    let report: Value = serde_json::from_str(&told.1).expect("JSON");
    assert_eq!(report["state"], "open", "{report:#}");
    assert_eq!(report["freeze"], "somebody stops the writers and says so", "{report:#}");
    assert!(!rest.contains("hidden") && !shown.contains("hidden"), "an address may hold a secret");
    scene.is_switched_with(written).await;
    scene.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_commands_of_the_team() {
    let mongod = Mongod::start("by_command", Flavour::Replica).await;
    // The folder of the test is where commands run.
    let more = |good: &str| {
        let stop = format!("[ sh, -c, \"touch frozen; {good}\" ]");
        let freeze = format!("{{ command: {{ freeze: {stop}, unfreeze: [ rm, frozen ] }} }}");
        format!("  freeze: {freeze}\n  open: [ {{ command: [ touch, told ] }} ]")
    };
    let mut scene = Scene::set("cutover_command", Way::Direct, &mongod.uri(), "", 52, &more("false")).await;
    let there = |scene: &Scene, name: &str| scene.stage.folder.join(name).exists();
    let (code, report) = scene.switch().await;
    assert_eq!((code, &report["state"]), (Some(9), &"reverted".into()), "{report:#}");
    assert!(!there(&scene, "frozen"), "what failed may have stopped some writers: it is reverted");
    let written = scene.end_writers().await;
    scene.with("good.yaml", &section(&more("true")));
    let (code, report) = scene.switch().await;
    assert_eq!((code, &report["state"]), (Some(0), &"open".into()), "{report:#}");
    assert!(there(&scene, "frozen"), "an open cutover is not reverted");
    assert!(there(&scene, "told"), "{report:#}");
    scene.is_switched_with(written).await;
    scene.clear().await;
}

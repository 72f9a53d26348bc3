//! Access control lists of a broker, changed by the two requests of Kafka's own protocol that its tools send. The client's library has
//! no call for them, and a tool takes seconds for each.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CREATE: i16 = 30;
const DELETE: i16 = 31;

/// Adds an entry as `slackwater grants --json` prints it, through an entrance where everybody may do this.
pub(crate) async fn add(broker: &str, entry: &Value) {
    request(broker, CREATE, entry).await;
}

/// Takes it away again.
pub(crate) async fn remove(broker: &str, entry: &Value) {
    request(broker, DELETE, entry).await;
}

fn number(entry: &Value, name: &str, words: &[(&str, u8)]) -> u8 {
    let found = words.iter().find(|(word, _)| entry[name] == *word);
    found.unwrap_or_else(|| panic!("{name} of {entry} is not known")).1
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(i16::try_from(text.len()).expect("a short text").to_be_bytes());
    bytes.extend(text.as_bytes());
}

async fn request(broker: &str, request: i16, entry: &Value) {
    let of = |name: &str| entry[name].as_str().expect(name);
    let mut bytes = Vec::new();
    // Version 1 of both, the oldest that brokers of today take.
    bytes.extend(request.to_be_bytes());
    bytes.extend(1_i16.to_be_bytes());
    bytes.extend(7_i32.to_be_bytes());
    text(&mut bytes, "slackwater-tests");
    bytes.extend(1_i32.to_be_bytes());
    bytes.push(number(entry, "resource", &[("topic", 2), ("group", 3), ("cluster", 4)]));
    text(&mut bytes, of("name"));
    bytes.push(number(entry, "pattern", &[("literal", 3), ("prefixed", 4)]));
    text(&mut bytes, of("principal"));
    text(&mut bytes, "*");
    let operations = [
        ("Read", 3),
        ("Write", 4),
        ("Create", 5),
        ("Delete", 6),
        ("Alter", 7),
        ("Describe", 8),
        ("DescribeConfigs", 10),
        ("AlterConfigs", 11),
    ];
    bytes.push(number(entry, "operation", &operations));
    // It is allowed.
    bytes.push(3);
    let mut stream = TcpStream::connect(broker).await.expect("the broker is there");
    stream.write_i32(i32::try_from(bytes.len()).expect("a small request")).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let length = stream.read_i32().await.expect("an answer");
    let mut answer = vec![0; usize::try_from(length).expect("a length")];
    stream.read_exact(&mut answer).await.expect("an answer");
    // Its number, the time of a throttle, how many results, and the first one's code.
    let code = i16::from_be_bytes([answer[12], answer[13]]);
    assert_eq!(code, 0, "the broker refuses to change the entry {entry}");
    if request == DELETE {
        // No text of an error (two bytes), and how many entries fitted.
        assert_eq!(answer[16..20], 1_i32.to_be_bytes(), "there is one such entry: {entry}");
    }
}

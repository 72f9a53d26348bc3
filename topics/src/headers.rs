//! The headers of a record: CloudEvents 1.0 in Kafka's binary mode, and the W3C trace context.
//!
//! They tell other people's tools what a record holds without reading it; nothing here is read back by us. All
//! values are in one buffer that is used again for the next record.

use std::io::Write;

use crate::ascii;
use crate::event::{Event, Op};
use crate::format::Format;
use crate::hash::Fnv;

/// What an event's headers say beside the event itself.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// The name of the event's collection in the migration file.
    pub collection: &'a str,
    /// The epoch of the capture that sends it.
    pub epoch: i64,
    /// A number that the capture gives to one copied document in this epoch: documents that are copied have no place
    /// in the source's order to be named by. Not used for changes.
    pub counter: u64,
    /// The trace that the event's batch belongs to, random.
    pub trace: [u8; 16],
}

/// The headers of one record at a time, for one source and format.
#[derive(Clone, Debug)]
pub struct Headers {
    buffer: Vec<u8>,
    /// Name of each header and where its value ends.
    ends: Vec<(&'static str, usize)>,
    /// How much of both is the same for all records.
    constant: (usize, usize),
    /// The optional ones too. Each header costs time at every step; where only slackwater reads, what the
    /// topic's name and the record's own time say is not said again.
    all: bool,
}

impl Headers {
    /// Headers for what `source` brings into `migration`, both by their names in the migration file.
    pub fn new(migration: &str, source: &str, format: Format) -> Self {
        let mut headers =
            Self { buffer: Vec::new(), ends: Vec::new(), constant: (0, 0), all: format == Format::Debezium };
        headers.put("ce_specversion", |out| out.extend_from_slice(b"1.0"));
        headers.put("ce_source", |out| {
            out.extend_from_slice(b"/slackwater/");
            segment(migration, out);
            out.push(b'/');
            segment(source, out);
        });
        if headers.all {
            headers.put("content-type", |out| out.extend_from_slice(format.content_type().as_bytes()));
        }
        headers.constant = (headers.buffer.len(), headers.ends.len());
        headers
    }

    /// Makes the headers of this event; those of the last one are gone.
    pub fn compose(&mut self, event: &Event, occasion: &Occasion<'_>) {
        self.buffer.truncate(self.constant.0);
        self.ends.truncate(self.constant.1);
        let hash = hash(event, occasion);
        self.put("ce_id", |out| {
            let _ = match event.op {
                Op::Snapshot => write!(out, "s{}-{}", occasion.epoch, occasion.counter),
                Op::Upsert | Op::Delete => write!(out, "{:016x}-{hash:016x}", event.position.moment.0),
            };
        });
        let kind = match event.op {
            Op::Snapshot => "slackwater.snapshot.v1",
            Op::Upsert => "slackwater.upsert.v1",
            Op::Delete => "slackwater.delete.v1",
        };
        self.put("ce_type", |out| out.extend_from_slice(kind.as_bytes()));
        // Years before 0 and after 9999 have no text in RFC 3339 and are left out, which CloudEvents allows; so is
        // the missing time of a copy.
        if self.all
            && event.time >= -62_167_219_200_000
            && event.time != 0
            && let Ok(time) = jiff::Timestamp::from_millisecond(event.time)
        {
            self.put("ce_time", |out| {
                let _ = write!(out, "{time:.3}");
            });
        }
        if self.all {
            self.put("ce_subject", |out| out.extend_from_slice(occasion.collection.as_bytes()));
        }
        self.put("traceparent", |out| {
            out.extend_from_slice(b"00-");
            ascii::hex(&occasion.trace, out);
            // A span of zeros would be none.
            let _ = write!(out, "-{:016x}-01", hash.max(1));
        });
    }

    /// Names and values, as [`Headers::compose`] left them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(starts).map(|((name, end), start)| (*name, &self.buffer[start..*end]))
    }

    fn put(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.buffer);
        self.ends.push((name, self.buffer.len()));
    }
}

/// Tells events of the same time apart, and is the same when the same change is sent again: in a transaction
/// many changes share a time and differ in their tokens.
fn hash(event: &Event, occasion: &Occasion<'_>) -> u64 {
    let mut hash = Fnv::new();
    hash.update(occasion.collection.as_bytes());
    hash.update(&[0]);
    if event.op == Op::Snapshot {
        hash.update(&occasion.epoch.to_be_bytes());
        hash.update(&occasion.counter.to_be_bytes());
    } else {
        hash.update(&(event.position.token.len() as u64).to_be_bytes());
        hash.update(&event.position.token);
    }
    hash.update(event.key.as_bytes());
    hash.finish()
}

/// A name as one segment of a URI's path.
fn segment(name: &str, out: &mut Vec<u8>) {
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CollectionId;
    use crate::key::Key;
    use crate::position::{Moment, Position};
    use crate::value::Value;

    fn event(op: Op, token: &[u8], id: i32) -> Event {
        Event {
            collection: CollectionId(3),
            key: Key::of(Value::Int32(id)).expect("a key"),
            op,
            document: bytes::Bytes::new(),
            position: Position::new(Moment::of_halves(5, 1), token.to_vec()),
            time: 1_700_000_000_120,
        }
    }

    const OCCASION: Occasion<'_> =
        Occasion { collection: "legacy.user", epoch: 4, counter: 9, trace: [0xab; 16] };

    fn texts(headers: &Headers) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name, std::str::from_utf8(value).expect("text"))).collect()
    }

    fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
        texts(headers).into_iter().find(|header| header.0 == name).map(|header| header.1)
    }

    #[test]
    fn golden() {
        let mut headers = Headers::new("coworking", "legacy", Format::Bson);
        headers.compose(&event(Op::Upsert, &[0x82], 7), &OCCASION);
        let names: Vec<&str> = headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ce_specversion", "ce_source", "ce_id", "ce_type", "traceparent"]);
        let mut headers = Headers::new("coworking", "legacy", Format::Debezium);
        headers.compose(&event(Op::Upsert, &[0x82], 7), &OCCASION);
        assert_eq!(
            texts(&headers),
            [
                ("ce_specversion", "1.0"),
                ("ce_source", "/slackwater/coworking/legacy"),
                ("content-type", "application/json"),
                ("ce_id", "0000000500000001-dea1f0a9511420c4"),
                ("ce_type", "slackwater.upsert.v1"),
                ("ce_time", "2023-11-14T22:13:20.120Z"),
                ("ce_subject", "legacy.user"),
                ("traceparent", "00-abababababababababababababababab-dea1f0a9511420c4-01"),
            ]
        );
        headers.compose(&event(Op::Delete, &[0x82], 7), &OCCASION);
        assert_eq!(value(&headers, "ce_type"), Some("slackwater.delete.v1"));
        headers.compose(&event(Op::Snapshot, &[], 7), &OCCASION);
        assert_eq!(value(&headers, "ce_type"), Some("slackwater.snapshot.v1"));
        assert_eq!(value(&headers, "ce_id"), Some("s4-9"));
    }

    #[test]
    fn an_event_keeps_its_id_and_others_have_another() {
        let id = |event: &Event, occasion: Occasion<'_>| {
            let mut headers = Headers::new("coworking", "legacy", Format::Bson);
            headers.compose(event, &occasion);
            value(&headers, "ce_id").map(str::to_owned)
        };
        let first = id(&event(Op::Upsert, &[1], 7), OCCASION);
        let again = Occasion { epoch: 5, counter: 1, trace: [1; 16], ..OCCASION };
        assert_eq!(id(&event(Op::Upsert, &[1], 7), again), first);
        assert_ne!(id(&event(Op::Upsert, &[2], 7), OCCASION), first);
        assert_ne!(id(&event(Op::Upsert, &[1], 8), OCCASION), first);
        let elsewhere = Occasion { collection: "legacy.users", ..OCCASION };
        assert_ne!(id(&event(Op::Upsert, &[1], 7), elsewhere), first);
    }

    #[test]
    fn odd_names_and_times() {
        let mut headers = Headers::new("a/b ü", "x", Format::Debezium);
        assert_eq!(value(&headers, "ce_source"), Some("/slackwater/a%2Fb%20%C3%BC/x"));
        assert_eq!(value(&headers, "content-type"), Some("application/json"));
        for (time, text) in [
            (i64::MIN, None),
            (i64::MAX, None),
            (253_402_300_800_000, None),
            (253_402_200_000_000, Some("9999-12-30T20:00:00.000Z")),
            (-62_167_219_200_000, Some("0000-01-01T00:00:00.000Z")),
            (-62_167_219_200_001, None),
            (-1, Some("1969-12-31T23:59:59.999Z")),
            (0, None),
        ] {
            headers.compose(&Event { time, ..event(Op::Upsert, &[1], 7) }, &OCCASION);
            assert_eq!(value(&headers, "ce_time"), text);
        }
    }

    /// Reusing the buffer leaves nothing of the record before.
    #[test]
    fn each_record_has_its_own() {
        let mut used = Headers::new("coworking", "legacy", Format::Bson);
        used.compose(&event(Op::Delete, &[1, 2, 3], 1), &OCCASION);
        used.compose(&event(Op::Upsert, &[4], 2), &OCCASION);
        let mut fresh = Headers::new("coworking", "legacy", Format::Bson);
        fresh.compose(&event(Op::Upsert, &[4], 2), &OCCASION);
        assert_eq!(texts(&used), texts(&fresh));
    }
}

//! The schemas of key and value, as Kafka Connect's `JsonConverter` writes them.
//!
//! Names, order and versions are those of Debezium 3; `ts_us` and `ts_ns` of the envelope are described by its manual.

use crate::json;

/// How a schema is used in a field.
struct Field<'a> {
    name: &'a str,
    optional: bool,
}

fn required(name: &str) -> Field<'_> {
    Field { name, optional: false }
}

fn optional(name: &str) -> Field<'_> {
    Field { name, optional: true }
}

/// Writes a list with commas.
struct Fields<'o> {
    out: &'o mut Vec<u8>,
    any: bool,
}

impl<'o> Fields<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.extend_from_slice(br#"{"type":"struct","fields":["#);
        Self { out, any: false }
    }

    /// Ends the struct; who opened it closes the brace.
    fn close(self, optional: bool, name: &str) {
        let head = format!(r#"],"optional":{optional},"name":"#);
        self.out.extend_from_slice(head.as_bytes());
        json::string(name.as_bytes(), self.out);
    }

    fn next(&mut self) -> &mut Vec<u8> {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
        self.out
    }

    /// A field of which everything but name and optionality is in `kind`.
    fn put(&mut self, kind: &str, Field { name, optional }: Field<'_>) {
        let text = format!(r#"{{{kind},"optional":{optional},"field":"{name}"}}"#);
        self.next().extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, field: Field<'_>) {
        self.put(r#""type":"string""#, field);
    }

    fn int32(&mut self, field: Field<'_>) {
        self.put(r#""type":"int32""#, field);
    }

    fn int64(&mut self, field: Field<'_>) {
        self.put(r#""type":"int64""#, field);
    }

    fn json(&mut self, field: Field<'_>) {
        self.put(r#""type":"string","name":"io.debezium.data.Json","version":1"#, field);
    }
}

/// The schema of a topic's keys.
pub(super) fn key(topic: &str, out: &mut Vec<u8>) {
    let mut fields = Fields::open(out);
    fields.string(required("id"));
    fields.close(false, &format!("{topic}.Key"));
    out.push(b'}');
}

/// The schema of a topic's values.
pub(super) fn value(topic: &str, out: &mut Vec<u8>) {
    let mut fields = Fields::open(out);
    fields.json(optional("before"));
    fields.json(optional("after"));
    update_description(fields.next());
    source(fields.next());
    fields.string(optional("op"));
    fields.int64(optional("ts_ms"));
    fields.int64(optional("ts_us"));
    fields.int64(optional("ts_ns"));
    transaction(fields.next());
    fields.close(false, &format!("{topic}.Envelope"));
    out.push(b'}');
}

/// Always null here; who reads the topic may look for it.
fn update_description(out: &mut Vec<u8>) {
    let mut fields = Fields::open(out);
    fields.put(r#""type":"array","items":{"type":"string","optional":false}"#, optional("removedFields"));
    fields.json(optional("updatedFields"));
    let mut array = br#""type":"array","items":"#.to_vec();
    let mut items = Fields::open(&mut array);
    items.string(required("field"));
    items.int32(required("size"));
    items.close(false, "io.debezium.connector.mongodb.changestream.truncatedarray");
    array.extend_from_slice(br#","version":1}"#);
    fields.put(&String::from_utf8_lossy(&array), optional("truncatedArrays"));
    fields.close(true, "io.debezium.connector.mongodb.changestream.updatedescription");
    out.extend_from_slice(br#","version":1,"field":"updateDescription"}"#);
}

fn source(out: &mut Vec<u8>) {
    let mut fields = Fields::open(out);
    fields.string(required("version"));
    fields.string(required("connector"));
    fields.string(required("name"));
    fields.int64(required("ts_ms"));
    fields.put(
        concat!(
            r#""type":"string","name":"io.debezium.data.Enum","version":1,"#,
            r#""parameters":{"allowed":"#,
            r#""true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"#,
            r#""default":"false""#
        ),
        optional("snapshot"),
    );
    fields.string(required("db"));
    fields.string(optional("sequence"));
    fields.int64(optional("ts_us"));
    fields.int64(optional("ts_ns"));
    fields.string(required("collection"));
    fields.int32(required("ord"));
    fields.string(optional("lsid"));
    fields.int64(optional("txnNumber"));
    fields.int64(optional("wallTime"));
    fields.int64(optional("slackwater_time"));
    fields.string(optional("slackwater_token"));
    fields.int64(optional("slackwater_epoch"));
    fields.int32(optional("slackwater_flags"));
    fields.string(optional("slackwater_key"));
    fields.string(optional("slackwater_document"));
    fields.close(false, "io.debezium.connector.mongo.Source");
    out.extend_from_slice(br#","version":1,"field":"source"}"#);
}

fn transaction(out: &mut Vec<u8>) {
    let mut fields = Fields::open(out);
    fields.string(required("id"));
    fields.int64(required("total_order"));
    fields.int64(required("data_collection_order"));
    fields.close(true, "event.block");
    out.extend_from_slice(br#","version":1,"field":"transaction"}"#);
}

//! Documents by key: what an update without a post-image left behind.

use std::collections::HashSet;

use bson::{RawDocumentBuf, cstr, rawdoc};
use slackwater_topics::{Key, Malformed, Moment};

use super::client::{Mongo, majority};
use super::snapshot::{id, unreadable};
use crate::error::Result;
use crate::source::Lookup;

const MOST_KEYS: usize = 1000;
/// A command may have 16 MB, and a key can be as large as a document.
const MOST_BYTES: usize = 8 << 20;

impl Mongo {
    /// Reads the documents of these keys, as they are at `after` or later.
    pub async fn lookup(&self, collection: &str, keys: &[Key], after: Moment) -> Result<Lookup> {
        let doing = format!("looking up documents of {collection}");
        let mut lookup = Lookup { found: Vec::with_capacity(keys.len()), at: after };
        // Under a collation the server also finds ids that only look alike.
        let wanted: HashSet<&Key> = keys.iter().collect();
        let mut rest = keys;
        while !rest.is_empty() {
            let (filter, taken) = filter(rest).map_err(|broken| unreadable(collection, broken))?;
            rest = &rest[taken..];
            let mut find = rawdoc! {"find": collection, "filter": filter, "batchSize": i32::MAX};
            find.append(cstr!("readConcern"), majority(after));
            let mut replies = self.replies(find, &doing).await?;
            while let Some(reply) = replies.next().await? {
                lookup.at = lookup.at.max(reply.operation_time);
                for document in reply.documents() {
                    let read =
                        document.and_then(|document| Ok((Key::of(id(document)?)?, document.as_bytes())));
                    let (key, bytes) = read.map_err(|broken| unreadable(collection, broken))?;
                    if wanted.contains(&key) {
                        lookup.found.push((key, reply.slice(bytes)));
                    }
                }
            }
        }
        Ok(lookup)
    }
}

/// `{_id: {$in: […]}}` of the first keys, and of how many.
fn filter(keys: &[Key]) -> std::result::Result<(RawDocumentBuf, usize), Malformed> {
    let mut list = vec![0; 4];
    let mut taken = 0;
    for key in keys.iter().take(MOST_KEYS) {
        if taken > 0 && list.len() + key.as_bytes().len() * 2 > MOST_BYTES {
            break;
        }
        key.write_element(&taken.to_string(), &mut list)?;
        taken += 1;
    }
    close(&mut list, 0)?;
    // {_id: {$in: list}} by hand: the elements are raw already.
    let mut filter = b"\0\0\0\0\x03_id\0\0\0\0\0\x04$in\0".to_vec();
    filter.extend_from_slice(&list);
    close(&mut filter, 9)?;
    close(&mut filter, 0)?;
    Ok((RawDocumentBuf::from_bytes(filter).map_err(|_| Malformed { at: 0 })?, taken))
}

/// Ends the document that starts at `start`.
fn close(bytes: &mut Vec<u8>, start: usize) -> std::result::Result<(), Malformed> {
    bytes.push(0);
    let length = i32::try_from(bytes.len() - start).map_err(|_| Malformed { at: start })?;
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use slackwater_topics::Value;

    #[test]
    fn builds_the_filter_that_the_server_reads() {
        let keys =
            [Value::Int32(1), Value::String(b"a"), Value::Null].map(|value| Key::of(value).expect("a key"));
        let (filter, taken) = filter(&keys).expect("a filter");
        assert_eq!(taken, 3);
        let read = bson::Document::try_from(filter).expect("a document");
        assert_eq!(read, bson::doc! {"_id": {"$in": [1_i64, "a", bson::Bson::Null]}});
    }

    #[test]
    fn long_keys_go_in_several_commands() {
        let text = vec![b'x'; 3 << 20];
        let keys: Vec<Key> = (0..3).map(|_| Key::of(Value::String(&text)).expect("a key")).collect();
        assert_eq!(filter(&keys).expect("a filter").1, 1);
        let short: Vec<Key> = (0..1500).map(|n| Key::of(Value::Int32(n)).expect("a key")).collect();
        assert_eq!(filter(&short).expect("a filter").1, MOST_KEYS);
    }
}

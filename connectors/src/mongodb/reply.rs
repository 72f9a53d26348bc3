//! A server's reply to a cursor command, read where it lies.
//!
//! The reply becomes a `Bytes` without a copy, and each document a slice of it. A slice therefore keeps its whole
//! reply (up to 16 MB) alive: who keeps single documents for long should copy them.

use bytes::Bytes;
use mongodb::raw_batch_cursor::RawBatch;
use slackwater_topics::{Document, Malformed, Moment, Value};

struct Owner(RawBatch);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_raw_document().as_bytes()
    }
}

/// What a cursor command brought.
pub(super) struct Reply {
    bytes: Bytes,
    batch: Bytes,
    token: Option<Bytes>,
    /// The server's time when it had finished.
    pub(super) operation_time: Moment,
}

impl Reply {
    pub(super) fn new(batch: RawBatch) -> Result<Self, Malformed> {
        let bytes = Bytes::from_owner(Owner(batch));
        let mut operation_time = Moment::default();
        let mut documents = None;
        let mut token = None;
        for element in Document::new(&bytes)?.elements() {
            match element? {
                (b"cursor", Value::Document(cursor)) => {
                    for element in cursor.elements() {
                        match element? {
                            (b"firstBatch" | b"nextBatch", Value::Array(array)) => {
                                documents = Some(bytes.slice_ref(array.as_bytes()));
                            }
                            (b"postBatchResumeToken", Value::Document(resume)) => {
                                token = Some(super::token::token_of(resume)?);
                            }
                            _ => {}
                        }
                    }
                }
                (b"operationTime", Value::Timestamp { seconds, increment }) => {
                    operation_time = Moment::of_halves(seconds, increment);
                }
                _ => {}
            }
        }
        Ok(Self { batch: documents.ok_or(Malformed { at: 0 })?, bytes, token, operation_time })
    }

    /// Walks its documents.
    pub(super) fn documents(&self) -> impl Iterator<Item = Result<Document<'_>, Malformed>> {
        let elements = Document::new(&self.batch).map(Document::elements);
        let (walk, broken) = match elements {
            Ok(elements) => (Some(elements), None),
            Err(broken) => (None, Some(Err(broken))),
        };
        walk.into_iter()
            .flatten()
            .map(|element| match element? {
                (_, Value::Document(document)) => Ok(document),
                _ => Err(Malformed { at: 0 }),
            })
            .chain(broken)
    }

    /// A part of the reply, sharing its memory.
    pub(super) fn slice(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// The whole reply.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The token of a change stream's reply.
    pub(super) fn token(&self) -> Option<&Bytes> {
        self.token.as_ref()
    }

    /// Bytes of the whole reply.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

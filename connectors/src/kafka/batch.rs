//! Records on their way from librdkafka to a reader: copied once, into one piece of memory.

use bytes::BytesMut;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use slackwater_topics::Mark;

use super::consumer::{Delivery, Partition, Raw};

/// A batch is handed on when it has grown to this, or when nothing more is there.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 4_000;

/// Records for one reader, on their way.
#[derive(Default)]
pub(super) struct Batch {
    buffer: BytesMut,
    records: Vec<Slot>,
}

/// The place of a record in the buffer.
struct Slot {
    partition: Partition,
    offset: i64,
    key: usize,
    value: Option<usize>,
    mark: Option<usize>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= BATCH_BYTES || self.records.len() >= BATCH_RECORDS
    }

    /// Copies the record: librdkafka keeps its own memory only as long as the message lives, and on this thread.
    pub(super) fn take(&mut self, partition: Partition, message: &BorrowedMessage<'_>) {
        let key = message.key().unwrap_or_default();
        self.buffer.extend_from_slice(key);
        let value = message.payload();
        let mut mark = None;
        match value {
            Some(value) => self.buffer.extend_from_slice(value),
            None => {
                let header = message
                    .headers()
                    .and_then(|headers| headers.iter().find(|header| header.key == Mark::HEADER));
                if let Some(value) = header.and_then(|header| header.value) {
                    self.buffer.extend_from_slice(value);
                    mark = Some(value.len());
                }
            }
        }
        let offset = message.offset();
        self.records.push(Slot { partition, offset, key: key.len(), value: value.map(<[u8]>::len), mark });
    }

    pub(super) fn finish<C>(&mut self) -> Delivery<C> {
        let next = Vec::with_capacity(self.records.len());
        let mut rest = std::mem::take(&mut self.buffer).freeze();
        let bytes = rest.len() + self.records.len() * 64;
        let records = std::mem::replace(&mut self.records, next)
            .into_iter()
            .map(|slot| {
                let mut cut = |length: usize| rest.split_to(length);
                let key = cut(slot.key);
                let value = slot.value.map(&mut cut);
                let mark = slot.mark.map(&mut cut);
                (slot.partition, Raw { offset: slot.offset, key, value, mark })
            })
            .collect();
        Delivery::Records { records, bytes }
    }
}

//! What a record of a topic turns out to be.

use bytes::Bytes;

use crate::debezium;
use crate::envelope::{self, EnvelopeError};
use crate::event::{CollectionId, Event};
use crate::mark::Mark;
use crate::part::Part;
use crate::stamp::Stamp;

/// A record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A change of a document.
    Event(Event, Stamp),
    /// A piece of one; the pieces together are the value of a record.
    Part(Part),
    /// No change of a document.
    Mark(Mark),
    /// For the compaction of the topic; the delete is before it.
    Tombstone,
}

impl Record {
    /// Reads a record of a collection's topic. `mark` is the content of the header [`Mark::HEADER`]; records with a value
    /// have none.
    pub fn read(
        value: Option<&Bytes>,
        mark: Option<&[u8]>,
        collection: CollectionId,
        name: &str,
    ) -> Result<Self, EnvelopeError> {
        let Some(value) = value else {
            return match mark {
                Some(mark) => Mark::decode(mark).map(Self::Mark),
                None => Ok(Self::Tombstone),
            };
        };
        // A BSON document begins with its own length, which no JSON text does.
        let length = value.first_chunk().map(|bytes| i32::from_le_bytes(*bytes));
        if length.is_none_or(|length| usize::try_from(length) != Ok(value.len())) {
            let (event, stamp) = debezium::read(value, collection).map_err(EnvelopeError::Debezium)?;
            return Ok(Self::Event(event, stamp));
        }
        if let Some(part) = Part::decode(value)? {
            return Ok(Self::Part(part));
        }
        let (event, stamp) = envelope::decode(value, |found| (found == name).then_some(collection))?;
        Ok(Self::Event(event, stamp))
    }
}

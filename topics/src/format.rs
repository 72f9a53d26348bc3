use std::fmt;

/// The form that events have in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Our own envelope: BSON around the document's own bytes.
    #[default]
    Bson,
    /// JSON as Debezium's MongoDB connector writes it.
    Debezium,
}

impl Format {
    /// The media type of a value.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Bson => "application/bson",
            Self::Debezium => "application/json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bson => "bson",
            Self::Debezium => "debezium",
        })
    }
}

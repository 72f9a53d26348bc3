//! A small CRM: five collections with what documents have in the wild, and eight tables to bring them into.

mod documents;
mod expected;
mod load;
mod operation;
mod team;
mod writers;

use std::fmt;

pub use documents::World;
pub use expected::{SHAPES, compare, expected};
pub use load::{Loaded, load};
pub use operation::{Change, Operation, Step};
pub use writers::{Acknowledged, Pace, Writers, Written};

use crate::Watched;

/// The name of the migration, which its identifiers are made of.
pub const MIGRATION: &str = "crm-demo";
/// The tables.
pub const SCHEMA: &str = include_str!("schema.sql");
const MIGRATION_FILE: &str = include_str!("migration.yaml");

/// The migration file as far as the mapping goes: without the sections that prove it.
#[must_use]
pub fn mapping() -> &'static str {
    MIGRATION_FILE.split("\n# Verified").next().unwrap_or(MIGRATION_FILE)
}

/// A collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Organisation,
    User,
    Booking,
    Invoice,
    Ledger,
}

impl Kind {
    /// All of them, referenced ones first.
    pub const ALL: [Self; 5] = [Self::Organisation, Self::User, Self::Booking, Self::Invoice, Self::Ledger];

    /// Its name in the database.
    pub fn collection(self) -> &'static str {
        match self {
            Self::Organisation => "organisations",
            Self::User => "users",
            Self::Booking => "bookings",
            Self::Invoice => "invoices",
            Self::Ledger => "ledger",
        }
    }

    /// Its name in the migration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Organisation => "legacy.organisations",
            Self::User => "legacy.users",
            Self::Booking => "legacy.bookings",
            Self::Invoice => "legacy.invoices",
            Self::Ledger => "legacy.ledger",
        }
    }

    /// The table with one row for each document.
    pub fn table(self) -> &'static str {
        match self {
            Self::Ledger => "ledger_entries",
            other => other.collection(),
        }
    }

    /// Whether its change events carry the document as it was exactly then (6.0's pre- and post-images).
    pub fn has_images(self) -> bool {
        !matches!(self, Self::Booking | Self::Invoice)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.collection())
    }
}

/// What the watcher looks at: all tables.
pub const WATCHED: &[Watched] = &[
    Watched { table: "organisations", key: &["id"], version: "version" },
    Watched { table: "users", key: &["id"], version: "version" },
    Watched { table: "bookings", key: &["id"], version: "version" },
    Watched { table: "booking_guests", key: &["booking_id", "user_id"], version: "version" },
    Watched { table: "booking_slots", key: &["id"], version: "version" },
    Watched { table: "invoices", key: &["id"], version: "version" },
    Watched { table: "invoice_lines", key: &["id"], version: "version" },
    Watched { table: "ledger_entries", key: &["id"], version: "version" },
];

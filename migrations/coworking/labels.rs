//! What is written in documents and the label that it means in the tables.

use super::model::Labels;

pub(super) const USER_STATUS: Labels = &[
    ("active", "active"),
    ("ACTIVE", "active"),
    ("invited", "invited"),
    ("blocked", "suspended"),
    ("suspended", "suspended"),
    ("gone", "left"),
];
pub(super) const SIZES: Labels =
    &[("1", "solo"), ("2-10", "small"), ("11-50", "medium"), ("50+", "large"), ("51+", "large")];
pub(super) const MEMBERSHIP: Labels = &[
    ("trial", "trial"),
    ("active", "active"),
    ("paused", "paused"),
    ("on hold", "paused"),
    ("cancelled", "cancelled"),
    ("canceled", "cancelled"),
];
pub(super) const PERIODS: Labels =
    &[("daily", "day"), ("monthly", "month"), ("yearly", "year"), ("annual", "year")];
pub(super) const BOOKING: Labels = &[
    ("tentative", "tentative"),
    ("confirmed", "confirmed"),
    ("CONFIRMED", "confirmed"),
    ("cancelled", "cancelled"),
    ("canceled", "cancelled"),
    ("noshow", "no_show"),
];
pub(super) const INVOICE: Labels = &[
    ("draft", "draft"),
    ("sent", "sent"),
    ("paid", "paid"),
    ("PAID", "paid"),
    ("void", "void"),
    ("deleted", "void"),
];
pub(super) const PAYMENT: Labels = &[
    ("pending", "open"),
    ("complete", "settled"),
    ("settled", "settled"),
    ("failed", "failed"),
    ("refunded", "refunded"),
];
pub(super) const LEDGER: Labels = &[
    ("topup", "topup"),
    ("top-up", "topup"),
    ("spend", "spend"),
    ("refund", "refund"),
    ("adjustment", "adjustment"),
];
pub(super) const TASK: Labels =
    &[("open", "open"), ("todo", "open"), ("in progress", "doing"), ("done", "done"), ("closed", "done")];
pub(super) const PARKING: Labels =
    &[("entry", "entry"), ("exit", "exit"), ("overstay", "overstay"), ("alarm", "alarm")];
pub(super) const PRIORITY: Labels =
    &[("low", "low"), ("normal", "normal"), ("high", "high"), ("urgent", "high")];
pub(super) const ROOM_TYPES: &[&str] = &["meeting", "board", "event", "studio"];
pub(super) const PRODUCT_TYPES: &[&str] = &["membership", "booking", "print", "food", "other"];
pub(super) const WALLET_TYPES: &[&str] = &["credit", "print", "deposit"];
pub(super) const LEAD_SOURCES: &[&str] = &["web", "walk_in", "referral", "broker"];
pub(super) const LEAD_TYPES: &[&str] = &["desk", "office", "virtual"];
/// What a room may be called, and what is no label of the tables.
pub(super) const SPACE_TYPES: &[&str] =
    &["Hot Desk", "hotdesk", " Dedicated desk", "Private Office ", "Shed"];

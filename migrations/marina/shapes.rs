//! The tables of the target, as the judge looks at them.

use crate::oracle::Shape;

/// All of them.
pub const SHAPES: [Shape; 18] = [
    CLIENTS,
    CLIENT_CONTACTS,
    CLIENT_TAGS,
    BERTHS,
    BERTH_MAP_DATA,
    INTERESTS,
    INTEREST_BERTHS,
    INTEREST_NOTES,
    INTEREST_TAGS,
    DOCUMENTS,
    DOCUMENT_SIGNERS,
    EXPENSES,
    INVOICES,
    INVOICE_LINE_ITEMS,
    INVOICE_EXPENSES,
    FILES,
    PAYMENTS,
    AUDIT_LOGS,
];

pub(super) const CLIENTS: Shape = Shape {
    table: "clients",
    columns: &[
        "id",
        "full_name",
        "email",
        "phone",
        "residence",
        "preferred_contact",
        "source",
        "created_at",
        "updated_at",
    ],
    key: 1,
    json: &[],
};

pub(super) const CLIENT_CONTACTS: Shape = Shape {
    table: "client_contacts",
    columns: &["id", "client_id", "kind", "value", "position"],
    key: 1,
    json: &[],
};

pub(super) const CLIENT_TAGS: Shape =
    Shape { table: "client_tags", columns: &["client_id", "tag"], key: 2, json: &[] };

pub(super) const BERTHS: Shape = Shape {
    table: "berths",
    columns: &[
        "id",
        "number",
        "area",
        "status",
        "price",
        "nominal_boat_size",
        "length",
        "width",
        "water_depth",
        "depth_approved",
        "mooring_type",
        "power_capacity",
        "created_at",
        "updated_at",
    ],
    key: 1,
    json: &[],
};

pub(super) const BERTH_MAP_DATA: Shape = Shape {
    table: "berth_map_data",
    columns: &["berth_id", "path", "x", "y", "font_size", "data"],
    key: 1,
    json: &["data"],
};

pub(super) const INTERESTS: Shape = Shape {
    table: "interests",
    columns: &[
        "id",
        "number",
        "client_id",
        "berth_id",
        "stage",
        "lead_category",
        "yacht_name",
        "length",
        "width",
        "depth",
        "budget",
        "berth_size_desired",
        "eoi_status",
        "eoi_sent_at",
        "contract_sent_on",
        "deposit_status",
        "form_sent",
        "comments",
        "submission",
        "created_at",
        "updated_at",
    ],
    key: 1,
    json: &["submission"],
};

pub(super) const INTEREST_BERTHS: Shape =
    Shape { table: "interest_berths", columns: &["interest_id", "berth_id"], key: 2, json: &[] };

pub(super) const INTEREST_NOTES: Shape = Shape {
    table: "interest_notes",
    columns: &["id", "interest_id", "author", "body", "written_at"],
    key: 1,
    json: &[],
};

pub(super) const INTEREST_TAGS: Shape =
    Shape { table: "interest_tags", columns: &["interest_id", "tag"], key: 2, json: &[] };

pub(super) const DOCUMENTS: Shape = Shape {
    table: "documents",
    columns: &["id", "interest_id", "title", "url", "media_type", "size", "position"],
    key: 1,
    json: &[],
};

pub(super) const DOCUMENT_SIGNERS: Shape = Shape {
    table: "document_signers",
    columns: &["id", "interest_id", "document", "email", "role", "signed", "signed_at"],
    key: 1,
    json: &[],
};

pub(super) const EXPENSES: Shape = Shape {
    table: "expenses",
    columns: &[
        "id",
        "establishment",
        "price",
        "currency",
        "category",
        "payer",
        "payment_method",
        "spent_at",
        "paid",
        "contents",
        "details",
        "created_at",
        "updated_at",
    ],
    key: 1,
    json: &["details"],
};

pub(super) const INVOICES: Shape = Shape {
    table: "invoices",
    columns: &[
        "id",
        "number",
        "interest_id",
        "status",
        "issued_on",
        "due_on",
        "total",
        "tax_percent",
        "paid",
        "billing_email",
        "created_at",
        "updated_at",
    ],
    key: 1,
    json: &[],
};

pub(super) const INVOICE_LINE_ITEMS: Shape = Shape {
    table: "invoice_line_items",
    columns: &["id", "invoice_id", "code", "title", "quantity", "price", "position"],
    key: 1,
    json: &[],
};

pub(super) const INVOICE_EXPENSES: Shape =
    Shape { table: "invoice_expenses", columns: &["invoice_id", "expense_id"], key: 2, json: &[] };

pub(super) const FILES: Shape = Shape {
    table: "files",
    columns: &["id", "expense_id", "invoice_id", "title", "url", "media_type", "size"],
    key: 1,
    json: &[],
};

pub(super) const PAYMENTS: Shape = Shape {
    table: "payments",
    columns: &[
        "id",
        "interest_id",
        "invoice_id",
        "amount",
        "currency",
        "method",
        "received_at",
        "reference",
        "settled",
        "meta",
    ],
    key: 1,
    json: &["meta"],
};

pub(super) const AUDIT_LOGS: Shape = Shape {
    table: "audit_logs",
    columns: &["id", "entity", "origin", "origin_id", "actor", "address", "happened_at"],
    key: 1,
    json: &[],
};

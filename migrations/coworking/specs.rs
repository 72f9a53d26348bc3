//! What the documents hold and what becomes of it, column by column: for who makes documents and for who foretells rows. The migration
//! file and the tables say the same in their own words, and nothing here is made from them.

use super::labels::*;
use super::model::{Column, Form, Key, Kind, Kind::*, Needs::*, Spec, junction, known, named, same, table};

const FALSE: Kind = FlagOr("false");
const TRUE: Kind = FlagOr("true");
const ZERO: Kind = DecimalOr(2, "0.00");
const CONFIG: &[Column] = &[named("location_id", "location", LOCATION), same("config", Rest)];
const USER: Kind = Ref("user", May);
const ORGANISATION: Kind = Ref("organisation", May);
const LOCATION: Kind = Ref("location", May);

/// All collections that are carried.
pub(super) const SPECS: &[Spec] = &[
    table("currency", "currencies", &[same("name", Text), same("symbol", Trimmed), same("decimals", Digit)])
        .ids(Form::Text("C"))
        .key(Key::Own("code")),
    table(
        "location",
        "locations",
        &[
            same("code", Fixed("LOC")),
            same("name", Required),
            same("address", Json),
            named("opened_on", "openedOn", Day),
            same("floors", Loose),
            same("active", TRUE),
            named("currency_code", "currency", Currency),
            named("created_at", "createdAt", Time),
        ],
    ),
    table("tag", "tags", &[same("name", Required), same("colour", Trimmed)]),
    table(
        "user",
        "users",
        &[
            same("email", Email),
            same("name", Text),
            named("phone", "contact.phone", Trimmed),
            same("status", Label(USER_STATUS, Some("active"), Some("active"))),
            named("organisation_id", "organisation", ORGANISATION),
            named("home_location_id", "homeLocation", LOCATION),
            same("tags", Refs("tag")),
            same("password", Sealed(true)),
            named("born_on", "born", Day),
            same("marketing", FALSE),
            same("preferences", Json),
            named("created_at", "createdAt", TimeRequired),
            named("last_seen_at", "lastSeen", LooseTime),
        ],
    )
    .ids(Form::Mixed)
    .junctions(&[junction("user_locations", "locations", ["user_id", "location_id"], "location")]),
    table(
        "organisation",
        "organisations",
        &[
            same("slug", Fixed("org")),
            same("name", Required),
            named("owner_id", "owner", USER),
            named("parent_id", "parent", ORGANISATION),
            same("size", Label(SIZES, None, None)),
            named("industry", "sector", Look("industrysector", "name", None)),
            same("source", Look("source", "name", Some("unknown"))),
            named("website", "_id", LookBack("link", "owner", "url")),
            named("vat_number", "vatNumber", Trimmed),
            same("billing", Json),
            named("created_at", "createdAt", Time),
        ],
    ),
    known("industrysector", &[same("name", Required)]),
    known("source", &[same("name", Required)]),
    known("link", &[same("owner", Peer("organisation")), same("url", Text)]),
    table(
        "pin",
        "user_pins",
        &[
            named("user_id", "user", Peer("user")),
            named("pin", "code", Sealed(false)),
            named("changed_at", "changedAt", Time),
        ],
    ),
    table(
        "plan",
        "plans",
        &[
            same("code", Fixed("PLAN")),
            same("name", Text),
            same("price", Amount),
            same("period", Label(PERIODS, Some("month"), Some("month"))),
            named("currency_code", "currency", Currency),
            same("perks", Texts),
            same("active", TRUE),
        ],
    ),
    table(
        "membership",
        "memberships",
        &[
            named("user_id", "user", Ref("user", Must)),
            named("organisation_id", "organisation", ORGANISATION),
            named("plan_id", "plan", Ref("plan", May)),
            named("location_id", "location", LOCATION),
            same("status", Label(MEMBERSHIP, Some("active"), Some("active"))),
            named("starts_on", "start", Day),
            named("ends_on", "end", Day),
            same("price", Decimal(2)),
            same("credits", Whole),
            same("terms", Json),
            named("created_at", "createdAt", Time),
        ],
    ),
    table(
        "license",
        "licenses",
        &[
            named("organisation_id", "organisation", Ref("organisation", Must)),
            same("number", Fixed("LIC")),
            named("starts_on", "start", Day),
            named("ends_on", "end", Day),
            same("deposit", Decimal(2)),
            same("seats", Loose),
            same("document", Json),
        ],
    ),
    known("spacetype", &[same("name", OneOf(SPACE_TYPES))]),
    table(
        "space",
        "spaces",
        &[
            named("location_id", "location", Ref("location", Must)),
            same("name", Required),
            named("type_name", "type", Look("spacetype", "name", None)),
            named("type", "type", SpaceType("spacetype", "name")),
            same("floor", Loose),
            same("capacity", Whole),
            same("area", Decimal(2)),
            same("active", TRUE),
        ],
    ),
    table("amenity", "amenities", &[same("name", Required), same("icon", Text)]),
    known("bookableitemtype", &[same("code", OneOf(ROOM_TYPES))]),
    known("layout", &[same("plan", Json)]),
    table(
        "room",
        "rooms",
        &[
            named("location_id", "location", LOCATION),
            same("name", Required),
            same("type", LookLabel("bookableitemtype", "code", ROOM_TYPES, Some("other"))),
            same("layout", LookJson("layout", "plan")),
            same("capacity", Whole),
            named("hourly_rate", "rate", Decimal(2)),
            same("features", Texts),
            same("active", TRUE),
        ],
    )
    .junctions(&[junction("room_amenities", "amenities", ["room_id", "amenity_id"], "amenity")]),
    table(
        "booking",
        "bookings",
        &[
            named("user_id", "user", USER),
            named("room_id", "room", Ref("room", May)),
            named("starts_at", "start", TimeRequired),
            named("ends_at", "end", LooseTime),
            same("status", Label(BOOKING, Some("tentative"), Some("confirmed"))),
            same("attendees", Loose),
            same("price", Decimal(2)),
            same("extras", Json),
            same("notes", Text),
            named("created_at", "createdAt", Time),
        ],
    )
    .set(&[("kind", "room")]),
    table(
        "deskbooking",
        "bookings",
        &[
            named("user_id", "member", USER),
            named("space_id", "desk", Ref("space", May)),
            named("starts_at", "day", TimeRequired),
            same("status", Label(BOOKING, Some("tentative"), Some("confirmed"))),
            named("price", "amount", Decimal(2)),
            named("created_at", "createdAt", Time),
        ],
    )
    .set(&[("kind", "desk")]),
    table(
        "checkin",
        "checkins",
        &[
            named("user_id", "user", Ref("user", Must)),
            named("location_id", "location", LOCATION),
            same("at", TimeRequired),
            same("device", Json),
            same("manual", FALSE),
        ],
    ),
    table(
        "guest",
        "guests",
        &[
            named("host_id", "host", USER),
            named("location_id", "location", LOCATION),
            named("booking_id", "booking", Ref("booking", May)),
            same("name", Text),
            same("email", Trimmed),
            named("expected_at", "expected", LooseTime),
            same("arrived", FALSE),
        ],
    ),
    known("producttype", &[same("slug", OneOf(PRODUCT_TYPES))]),
    table(
        "product",
        "products",
        &[
            same("sku", Fixed("SKU")),
            same("name", Required),
            same("type", LookLabel("producttype", "slug", PRODUCT_TYPES, None)),
            same("price", Amount),
            named("currency_code", "currency", Currency),
            same("labels", Texts),
            same("stock", Loose),
            same("details", Rest),
        ],
    ),
    table(
        "discount",
        "discounts",
        &[
            same("code", Fixed("OFF")),
            same("percent", Rate),
            same("amount", Decimal(2)),
            named("valid_from", "from", Day),
            named("valid_to", "to", Day),
            named("organisation_id", "organisation", ORGANISATION),
            same("active", TRUE),
        ],
    )
    .junctions(&[junction("discount_products", "products", ["discount_id", "product_id"], "product")]),
    table(
        "invoice",
        "invoices",
        &[
            same("number", Fixed("INV")),
            named("organisation_id", "organisation", ORGANISATION),
            named("user_id", "user", USER),
            same("status", Label(INVOICE, Some("draft"), Some("draft"))),
            named("issued_on", "issued", Day),
            named("due_on", "due", Day),
            same("total", Amount),
            same("vat", Decimal(2)),
            named("currency_code", "currency", Currency),
            named("billing_address", "billingAddress", Json),
            named("sent_at", "sentAt", LooseTime),
            named("created_at", "createdAt", Time),
        ],
    ),
    table(
        "lineitem",
        "invoice_line_items",
        &[
            named("invoice_id", "invoice", Ref("invoice", Must)),
            named("product_id", "product", Ref("product", May)),
            named("booking_id", "booking", Ref("booking", May)),
            same("description", Text),
            same("quantity", DecimalOr(3, "1.000")),
            named("unit_price", "price", ZERO),
        ],
    )
    .set(&[("kind", "item")]),
    table(
        "sentlineitem",
        "invoice_line_items",
        &[
            named("invoice_id", "invoice", Ref("invoice", Must)),
            named("product_id", "product", Ref("product", May)),
            same("description", Text),
            named("quantity", "qty", DecimalOr(3, "1.000")),
            named("unit_price", "unitPrice", ZERO),
            named("sent_at", "sentAt", Time),
        ],
    )
    .set(&[("kind", "sent")]),
    table(
        "adhoc",
        "invoice_line_items",
        &[
            named("invoice_id", "invoice", Ref("invoice", Must)),
            named("description", "text", Text),
            same("quantity", DecimalOr(3, "1.000")),
            named("unit_price", "amount", ZERO),
            same("reason", Trimmed),
        ],
    )
    .set(&[("kind", "ad_hoc")]),
    table("invoicecomm", "invoice_config", CONFIG).set(&[("kind", "communication")]),
    table("invoiceholiday", "invoice_config", CONFIG).set(&[("kind", "holiday")]),
    table(
        "paymentmethod",
        "payment_methods",
        &[
            named("organisation_id", "organisation", ORGANISATION),
            same("name", Text),
            named("card_last_four", "card.last4", Trimmed),
            named("expires_on", "card.expires", Day),
            named("is_default", "default", FALSE),
        ],
    ),
    table(
        "payment",
        "payments",
        &[
            named("invoice_id", "invoice", Ref("invoice", May)),
            named("user_id", "user", USER),
            named("payment_method_id", "method", Ref("paymentmethod", May)),
            same("amount", Amount),
            same("status", Label(PAYMENT, Some("open"), Some("settled"))),
            named("settled_at", "paidAt", LooseTime),
            same("reference", Text),
            same("gateway", Json),
            named("created_at", "createdAt", Time),
        ],
    )
    .set(&[("kind", "payment")]),
    table(
        "paymentrequest",
        "payments",
        &[
            named("invoice_id", "invoice", Ref("invoice", May)),
            named("user_id", "requestedFrom", USER),
            same("amount", Amount),
            named("reference", "ref", Text),
            named("created_at", "createdAt", Time),
        ],
    )
    .set(&[("kind", "request"), ("status", "open")]),
    table(
        "payfasttoken",
        "payment_tokens",
        &[
            named("user_id", "user", USER),
            same("token", Token),
            same("details", Rest),
            named("created_at", "createdAt", Time),
        ],
    )
    .set(&[("provider", "payfast")]),
    table(
        "zapper",
        "payment_tokens",
        &[
            named("user_id", "user", USER),
            named("token", "zapperToken", Token),
            same("details", Rest),
            named("created_at", "createdAt", Time),
        ],
    )
    .set(&[("provider", "zapper")]),
    known("wallettype", &[same("code", OneOf(WALLET_TYPES))]),
    table(
        "wallet",
        "wallets",
        &[
            named("user_id", "user", Ref("user", Sure)),
            same("type", LookLabel("wallettype", "code", WALLET_TYPES, Some("other"))),
            named("currency_code", "currency", Currency),
            same("overdraft", ZERO),
            same("frozen", FALSE),
        ],
    ),
    table(
        "ledger",
        "ledger_entries",
        &[
            named("user_id", "user", Ref("user", Sure)),
            same("kind", Label(LEDGER, Some("adjustment"), Some("adjustment"))),
            same("amount", Amount),
            same("reference", Text),
            same("details", Json),
            same("at", TimeRequired),
        ],
    )
    .append_only(),
    table(
        "opportunity",
        "opportunities",
        &[
            same("name", Required),
            named("organisation_id", "organisation", ORGANISATION),
            named("owner_id", "owner", USER),
            same("stage", Text),
            same("value", Decimal(2)),
            same("probability", Percent),
            named("closes_on", "closes", Day),
            same("details", Rest),
        ],
    ),
    table(
        "partner",
        "partners",
        &[
            same("name", Required),
            same("contact", Json),
            same("commission", Rate),
            same("active", TRUE),
            same("services", Texts),
            same("since", Day),
        ],
    ),
    table(
        "radacct",
        "network_accounts",
        &[
            named("user_id", "user", USER),
            named("username", "userName", Required),
            named("nas_address", "nasIp", Inet),
            named("started_at", "start", Time),
            named("stopped_at", "stop", LooseTime),
            named("input_octets", "in", WholeOr("0")),
            named("output_octets", "out", WholeOr("0")),
            named("terminate_cause", "cause", Trimmed),
        ],
    )
    .ids(Form::Long)
    .key(Key::Own("id")),
    known("leadsource", &[same("code", OneOf(LEAD_SOURCES))]),
    known("leadtype", &[same("code", OneOf(LEAD_TYPES))]),
    table(
        "lead",
        "leads",
        &[
            same("name", Text),
            same("email", Trimmed),
            same("phone", Text),
            same("source", LookLabel("leadsource", "code", LEAD_SOURCES, Some("other"))),
            same("type", LookLabel("leadtype", "code", LEAD_TYPES, Some("other"))),
            named("location_id", "location", LOCATION),
            named("assigned_to", "assignedTo", USER),
            same("seats", Loose),
            same("details", Rest),
            named("created_at", "createdAt", Time),
        ],
    ),
    table("track", "task_templates", &[same("name", Required), same("steps", Json), same("active", TRUE)]),
    table(
        "task",
        "tasks",
        &[
            same("title", Required),
            named("template_id", "track", Ref("track", May)),
            named("assignee_id", "assignee", USER),
            named("parent_id", "parent", Ref("task", May)),
            same("status", Label(TASK, Some("open"), Some("open"))),
            named("due_at", "due", LooseTime),
            same("labels", Texts),
            same("position", WholeOr("0")),
        ],
    ),
    table(
        "contact",
        "contacts",
        &[
            named("organisation_id", "organisation", ORGANISATION),
            named("user_id", "user", USER),
            same("name", Required),
            same("email", Trimmed),
            same("phone", Text),
            named("born_on", "birthday", Day),
            same("social", Json),
        ],
    ),
    table(
        "crmnote",
        "notes",
        &[
            named("contact_id", "subject", Subject("contact", "contact")),
            named("organisation_id", "subject", Subject("organisation", "organisation")),
            named("author_id", "author", USER),
            named("body", "text", Required),
            same("pinned", FALSE),
            named("created_at", "createdAt", Time),
        ],
    ),
    table(
        "proposal",
        "proposals",
        &[
            named("opportunity_id", "opportunity", Ref("opportunity", May)),
            named("organisation_id", "organisation", ORGANISATION),
            same("title", Required),
            same("value", Decimal(2)),
            named("valid_to", "validTo", Day),
            same("details", Rest),
        ],
    )
    .set(&[("type", "proposal")]),
    table(
        "contract",
        "proposals",
        &[
            named("opportunity_id", "opportunity", Ref("opportunity", May)),
            named("organisation_id", "client", ORGANISATION),
            named("title", "name", Required),
            named("value", "total", Decimal(2)),
            named("signed_on", "signed", Day),
            same("details", Rest),
        ],
    )
    .set(&[("type", "contract")]),
    table(
        "businesscase",
        "proposals",
        &[
            named("organisation_id", "organisation", ORGANISATION),
            named("title", "heading", Required),
            same("details", Rest),
        ],
    )
    .set(&[("type", "business_case")]),
    table(
        "claylock",
        "access_credentials",
        &[
            named("external_id", "lockId", Fixed("L")),
            named("location_id", "location", LOCATION),
            same("name", Text),
            same("details", Rest),
        ],
    )
    .set(&[("type", "lock")]),
    table(
        "clayaccessgroup",
        "access_credentials",
        &[named("external_id", "groupId", Fixed("G")), same("name", Text), same("details", Rest)],
    )
    .set(&[("type", "access_group")]),
    table(
        "claytag",
        "access_credentials",
        &[
            named("external_id", "tagNumber", Fixed("T")),
            named("user_id", "user", USER),
            same("details", Rest),
        ],
    )
    .set(&[("type", "tag")]),
    table(
        "parkingcenter",
        "parking_facilities",
        &[
            named("location_id", "location", LOCATION),
            same("name", Required),
            same("bays", WholeOr("0")),
            same("tariff", Json),
        ],
    ),
    table(
        "parkingtenant",
        "parking_allocations",
        &[
            named("facility_id", "center", Ref("parkingcenter", Must)),
            named("organisation_id", "organisation", ORGANISATION),
            same("bays", Whole),
            named("from_on", "from", Day),
            named("to_on", "to", Day),
        ],
    )
    .set(&[("kind", "tenant")]),
    table(
        "parkinguser",
        "parking_allocations",
        &[
            named("facility_id", "center", Ref("parkingcenter", Must)),
            named("user_id", "user", USER),
            same("plates", Texts),
            named("from_on", "from", Day),
        ],
    )
    .set(&[("kind", "user")]),
    table(
        "parkingnotification",
        "parking_events",
        &[
            named("facility_id", "center", Ref("parkingcenter", May)),
            named("kind", "event", Label(PARKING, None, None)),
            named("plate", "numberPlate", Trimmed),
            same("at", TimeRequired),
            same("payload", Rest),
        ],
    ),
    table(
        "xeroaccount",
        "accounting_sync",
        &[
            named("external_id", "accountID", Fixed("A")),
            named("synced_at", "synced", Time),
            same("details", Rest),
        ],
    )
    .set(&[("kind", "account")]),
    table(
        "xeroorgaccount",
        "accounting_sync",
        &[
            named("external_id", "xeroId", Fixed("O")),
            named("organisation_id", "organisation", ORGANISATION),
            named("synced_at", "synced", Time),
            same("details", Rest),
        ],
    )
    .set(&[("kind", "organisation_account")]),
    table(
        "xerocreditnote",
        "accounting_sync",
        &[
            named("external_id", "creditNoteID", Fixed("N")),
            named("invoice_id", "invoice", Ref("invoice", May)),
            same("amount", Decimal(2)),
            same("details", Rest),
        ],
    )
    .set(&[("kind", "credit_note")]),
    table(
        "xeropayment",
        "accounting_sync",
        &[
            named("external_id", "paymentID", Fixed("P")),
            named("payment_id", "payment", Ref("payment", May)),
            same("amount", Decimal(2)),
            same("details", Rest),
        ],
    )
    .set(&[("kind", "payment")]),
    table("config", "settings", &[same("value", Json), named("updated_at", "updatedAt", Time)])
        .ids(Form::Text("setting."))
        .key(Key::Setting(None))
        .set(&[("scope", "config")]),
    table(
        "instancesettings",
        "settings",
        &[same("value", Json), named("updated_at", "updatedAt", Time), same("key", Fixed("instance"))],
    )
    .key(Key::Setting(Some("key")))
    .set(&[("scope", "instance")]),
    table(
        "event",
        "events",
        &[
            same("title", Required),
            named("location_id", "location", LOCATION),
            named("room_id", "room", Ref("room", May)),
            named("starts_at", "start", TimeRequired),
            named("ends_at", "end", LooseTime),
            same("seats", Whole),
            same("topics", Texts),
            same("public", TRUE),
        ],
    )
    .ids(Form::Text("event/")),
    table(
        "eventattendee",
        "event_attendees",
        &[
            named("event_id", "event", Ref("event", Must)),
            named("user_id", "user", USER),
            same("attended", FALSE),
            same("answers", Json),
            named("registered_at", "createdAt", Time),
        ],
    ),
    table(
        "ticket",
        "tickets",
        &[
            named("user_id", "user", USER),
            named("location_id", "location", LOCATION),
            same("subject", Text),
            same("priority", Label(PRIORITY, Some("normal"), Some("normal"))),
            same("closed", FALSE),
            same("attachments", Json),
            named("created_at", "createdAt", Time),
        ],
    )
    .ids(Form::Mixed)
    .set(&[("kind", "ticket")]),
    table(
        "feedback",
        "tickets",
        &[
            named("user_id", "from", USER),
            named("subject", "text", Text),
            named("rating", "stars", Clamped),
            named("created_at", "createdAt", Time),
        ],
    )
    .set(&[("kind", "feedback"), ("closed", "true")]),
    table(
        "ticketcomment",
        "ticket_comments",
        &[
            named("ticket_id", "ticket", Ref("ticket", Must)),
            named("author_id", "author", USER),
            same("body", Required),
            same("internal", FALSE),
            named("created_at", "createdAt", Time),
        ],
    ),
    table(
        "announcement",
        "announcements",
        &[
            same("title", Required),
            same("body", Text),
            named("location_id", "location", LOCATION),
            same("audience", Texts),
            named("published_at", "published", LooseTime),
        ],
    )
    .set(&[("kind", "announcement")]),
    table(
        "newsletter",
        "announcements",
        &[
            named("title", "subject", Required),
            named("body", "html", Text),
            named("published_at", "sent", Time),
        ],
    )
    .set(&[("kind", "newsletter")]),
    table(
        "parcel",
        "parcels",
        &[
            named("recipient_id", "recipient", USER),
            named("location_id", "location", LOCATION),
            same("carrier", Trimmed),
            same("tracking", Text),
            named("arrived_at", "arrived", TimeRequired),
            same("collected", FALSE),
            same("photos", Json),
        ],
    ),
    known("printer", &[same("name", Text)]).ids(Form::Double),
    table(
        "printjob",
        "print_jobs",
        &[
            named("user_id", "user", USER),
            same("printer", Look("printer", "name", None)),
            same("pages", WholeOr("1")),
            same("colour", FALSE),
            same("cost", Decimal(2)),
            named("printed_at", "at", Time),
        ],
    ),
    table(
        "upload",
        "files",
        &[
            named("owner_id", "owner", USER),
            same("name", Required),
            named("mime_type", "mime", Trimmed),
            same("size", WholeOr("0")),
            same("meta", Rest),
            named("uploaded_at", "createdAt", Time),
        ],
    ),
    table(
        "auditlog",
        "audit_log",
        &[
            named("actor_id", "actor", USER),
            same("action", Required),
            same("subject", Json),
            same("changes", Json),
            same("at", TimeRequired),
        ],
    ),
    table(
        "closure",
        "closures",
        &[
            named("location_id", "location", Ref("location", Must)),
            named("closed_on", "day", Day),
            same("reason", Text),
            named("all_day", "allDay", TRUE),
        ],
    ),
];

-- Coworking: the tables that 88 collections become. Every reference is a foreign key and says what a delete does, every label is an enum,
-- and what the business relies on is a constraint.

CREATE TYPE user_status AS ENUM ('active', 'invited', 'suspended', 'left');
CREATE TYPE organisation_size AS ENUM ('solo', 'small', 'medium', 'large');
CREATE TYPE membership_status AS ENUM ('trial', 'active', 'paused', 'cancelled');
CREATE TYPE billing_period AS ENUM ('day', 'month', 'year');
CREATE TYPE space_type AS ENUM ('hot_desk', 'dedicated_desk', 'private_office', 'other');
CREATE TYPE room_type AS ENUM ('meeting', 'board', 'event', 'studio', 'other');
CREATE TYPE booking_kind AS ENUM ('room', 'desk');
CREATE TYPE booking_status AS ENUM ('tentative', 'confirmed', 'cancelled', 'no_show');
CREATE TYPE product_type AS ENUM ('membership', 'booking', 'print', 'food', 'other');
CREATE TYPE invoice_status AS ENUM ('draft', 'sent', 'paid', 'void');
CREATE TYPE line_kind AS ENUM ('item', 'sent', 'ad_hoc');
CREATE TYPE payment_kind AS ENUM ('payment', 'request');
CREATE TYPE payment_status AS ENUM ('open', 'settled', 'failed', 'refunded');
CREATE TYPE wallet_type AS ENUM ('credit', 'print', 'deposit', 'other');
CREATE TYPE ledger_kind AS ENUM ('topup', 'spend', 'refund', 'adjustment');
CREATE TYPE invoice_config_kind AS ENUM ('communication', 'holiday');
CREATE TYPE lead_source AS ENUM ('web', 'walk_in', 'referral', 'broker', 'other');
CREATE TYPE lead_type AS ENUM ('desk', 'office', 'virtual', 'other');
CREATE TYPE task_status AS ENUM ('open', 'doing', 'done');
CREATE TYPE proposal_type AS ENUM ('proposal', 'contract', 'business_case');
CREATE TYPE credential_type AS ENUM ('lock', 'access_group', 'tag');
CREATE TYPE allocation_kind AS ENUM ('tenant', 'user');
CREATE TYPE parking_event_kind AS ENUM ('entry', 'exit', 'overstay', 'alarm');
CREATE TYPE accounting_kind AS ENUM ('account', 'organisation_account', 'credit_note', 'payment');
CREATE TYPE token_provider AS ENUM ('payfast', 'zapper');
CREATE TYPE setting_scope AS ENUM ('config', 'instance');
CREATE TYPE ticket_kind AS ENUM ('ticket', 'feedback');
CREATE TYPE ticket_priority AS ENUM ('low', 'normal', 'high');
CREATE TYPE announcement_kind AS ENUM ('announcement', 'newsletter');

CREATE TABLE currencies (
    code text PRIMARY KEY CHECK (code <> ''), name text, symbol text, decimals smallint NOT NULL CHECK (decimals BETWEEN 0 AND 6));

CREATE TABLE locations (
    id uuid PRIMARY KEY, code text NOT NULL UNIQUE, name text NOT NULL, address jsonb, opened_on date, floors integer, active boolean NOT NULL,
    currency_code text REFERENCES currencies ON DELETE SET NULL, created_at timestamptz);

CREATE TABLE tags (id uuid PRIMARY KEY, name text NOT NULL, colour text);

CREATE TABLE users (
    id uuid PRIMARY KEY, email text NOT NULL UNIQUE CHECK (email = lower(email)), name text, phone text, status user_status NOT NULL,
    organisation_id uuid, home_location_id uuid REFERENCES locations ON DELETE SET NULL, tags uuid[], password text, born_on date,
    marketing boolean NOT NULL, preferences jsonb, created_at timestamptz NOT NULL, last_seen_at timestamptz);

CREATE TABLE organisations (
    id uuid PRIMARY KEY, slug text NOT NULL UNIQUE, name text NOT NULL, owner_id uuid REFERENCES users ON DELETE SET NULL,
    parent_id uuid REFERENCES organisations ON DELETE SET NULL, size organisation_size, industry text, source text, website text, vat_number text,
    billing jsonb, created_at timestamptz);
ALTER TABLE users ADD FOREIGN KEY (organisation_id) REFERENCES organisations ON DELETE SET NULL;

-- One for each user, encrypted. Apart from `users`, so that few may read it.
CREATE TABLE user_pins (
    id uuid PRIMARY KEY, user_id uuid NOT NULL UNIQUE REFERENCES users ON DELETE CASCADE, pin text NOT NULL, changed_at timestamptz);

CREATE TABLE user_locations (
    user_id uuid REFERENCES users ON DELETE CASCADE, location_id uuid REFERENCES locations ON DELETE CASCADE, PRIMARY KEY (user_id, location_id));
CREATE INDEX ON user_locations (location_id);

CREATE TABLE plans (
    id uuid PRIMARY KEY, code text NOT NULL UNIQUE, name text, price numeric(12, 2) NOT NULL CHECK (price >= 0), period billing_period NOT NULL,
    currency_code text REFERENCES currencies ON DELETE SET NULL, perks text[], active boolean NOT NULL);

CREATE TABLE memberships (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, organisation_id uuid REFERENCES organisations ON DELETE SET NULL,
    plan_id uuid REFERENCES plans ON DELETE SET NULL, location_id uuid REFERENCES locations ON DELETE SET NULL, status membership_status NOT NULL,
    starts_on date, ends_on date, price numeric(12, 2), credits integer, terms jsonb, created_at timestamptz);

CREATE TABLE licenses (
    id uuid PRIMARY KEY, organisation_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE, number text NOT NULL UNIQUE,
    starts_on date, ends_on date, deposit numeric(12, 2), seats integer, document jsonb);

CREATE TABLE spaces (
    id uuid PRIMARY KEY, location_id uuid NOT NULL REFERENCES locations ON DELETE CASCADE, name text NOT NULL,
    -- What the old type was called, and what it is here.
    type_name text,
    type space_type NOT NULL GENERATED ALWAYS AS (CASE lower(btrim(type_name))
        WHEN 'hot desk' THEN 'hot_desk'::space_type WHEN 'hotdesk' THEN 'hot_desk'::space_type
        WHEN 'dedicated desk' THEN 'dedicated_desk'::space_type WHEN 'private office' THEN 'private_office'::space_type
        ELSE 'other'::space_type END) STORED,
    floor integer, capacity integer, area numeric(8, 2), active boolean NOT NULL);

CREATE TABLE amenities (id uuid PRIMARY KEY, name text NOT NULL, icon text);

CREATE TABLE rooms (
    id uuid PRIMARY KEY, location_id uuid REFERENCES locations ON DELETE SET NULL, name text NOT NULL, type room_type NOT NULL, layout jsonb,
    capacity integer, hourly_rate numeric(10, 2), features text[], active boolean NOT NULL);

CREATE TABLE room_amenities (
    room_id uuid REFERENCES rooms ON DELETE CASCADE, amenity_id uuid REFERENCES amenities ON DELETE CASCADE, PRIMARY KEY (room_id, amenity_id));
CREATE INDEX ON room_amenities (amenity_id);

CREATE TABLE bookings (
    id uuid PRIMARY KEY, kind booking_kind NOT NULL, user_id uuid REFERENCES users ON DELETE SET NULL, room_id uuid REFERENCES rooms ON DELETE SET NULL,
    space_id uuid REFERENCES spaces ON DELETE SET NULL, starts_at timestamptz NOT NULL, ends_at timestamptz, status booking_status NOT NULL,
    attendees integer, price numeric(12, 2), extras jsonb, notes text, created_at timestamptz,
    CHECK (kind = 'room' OR room_id IS NULL), CHECK (kind = 'desk' OR space_id IS NULL));
CREATE INDEX ON bookings (user_id);

CREATE TABLE checkins (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, location_id uuid REFERENCES locations ON DELETE SET NULL,
    at timestamptz NOT NULL, device jsonb, manual boolean NOT NULL);

CREATE TABLE guests (
    id uuid PRIMARY KEY, host_id uuid REFERENCES users ON DELETE SET NULL, location_id uuid REFERENCES locations ON DELETE SET NULL,
    booking_id uuid REFERENCES bookings ON DELETE SET NULL, name text, email text, expected_at timestamptz, arrived boolean NOT NULL);

CREATE TABLE products (
    id uuid PRIMARY KEY, sku text NOT NULL UNIQUE, name text NOT NULL, type product_type NOT NULL, price numeric(12, 2) NOT NULL,
    currency_code text REFERENCES currencies ON DELETE SET NULL, labels text[], stock integer, details jsonb);

CREATE TABLE discounts (
    id uuid PRIMARY KEY, code text NOT NULL UNIQUE, percent numeric(5, 2), amount numeric(12, 2), valid_from date, valid_to date,
    organisation_id uuid REFERENCES organisations ON DELETE CASCADE, active boolean NOT NULL);

CREATE TABLE discount_products (
    discount_id uuid REFERENCES discounts ON DELETE CASCADE, product_id uuid REFERENCES products ON DELETE CASCADE,
    PRIMARY KEY (discount_id, product_id));
CREATE INDEX ON discount_products (product_id);

CREATE TABLE invoices (
    id uuid PRIMARY KEY, number text NOT NULL UNIQUE, organisation_id uuid REFERENCES organisations ON DELETE RESTRICT,
    user_id uuid REFERENCES users ON DELETE SET NULL, status invoice_status NOT NULL, issued_on date, due_on date, total numeric(14, 2) NOT NULL,
    vat numeric(14, 2), currency_code text REFERENCES currencies ON DELETE SET NULL, billing_address jsonb, sent_at timestamptz, created_at timestamptz);
CREATE INDEX ON invoices (organisation_id);

CREATE TABLE invoice_line_items (
    id uuid PRIMARY KEY, kind line_kind NOT NULL, invoice_id uuid NOT NULL REFERENCES invoices ON DELETE CASCADE,
    product_id uuid REFERENCES products ON DELETE SET NULL, booking_id uuid REFERENCES bookings ON DELETE SET NULL, description text,
    quantity numeric(10, 3) NOT NULL, unit_price numeric(12, 2) NOT NULL, sent_at timestamptz, reason text,
    CHECK (kind = 'sent' OR sent_at IS NULL), CHECK (kind = 'ad_hoc' OR reason IS NULL));
CREATE INDEX ON invoice_line_items (invoice_id);

CREATE TABLE invoice_config (
    id uuid PRIMARY KEY, kind invoice_config_kind NOT NULL, location_id uuid REFERENCES locations ON DELETE CASCADE, config jsonb NOT NULL);

CREATE TABLE payment_methods (
    id uuid PRIMARY KEY, organisation_id uuid REFERENCES organisations ON DELETE CASCADE, name text, card_last_four text, expires_on date,
    is_default boolean NOT NULL);

CREATE TABLE payments (
    id uuid PRIMARY KEY, kind payment_kind NOT NULL, invoice_id uuid REFERENCES invoices ON DELETE SET NULL,
    user_id uuid REFERENCES users ON DELETE SET NULL, payment_method_id uuid REFERENCES payment_methods ON DELETE SET NULL, amount numeric(14, 2) NOT NULL,
    status payment_status NOT NULL, settled_at timestamptz, reference text, gateway jsonb, created_at timestamptz,
    CHECK (kind = 'payment' OR settled_at IS NULL));
CREATE INDEX ON payments (invoice_id);

CREATE TABLE payment_tokens (
    id uuid PRIMARY KEY, provider token_provider NOT NULL, user_id uuid REFERENCES users ON DELETE CASCADE, token bytea NOT NULL, details jsonb,
    created_at timestamptz);

CREATE TABLE wallets (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, type wallet_type NOT NULL,
    currency_code text REFERENCES currencies ON DELETE SET NULL, overdraft numeric(12, 2) NOT NULL, frozen boolean NOT NULL);

-- Never updated and never deleted. What is in a wallet is their sum.
CREATE TABLE ledger_entries (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users ON DELETE RESTRICT, kind ledger_kind NOT NULL, amount numeric(14, 2) NOT NULL,
    reference text, details jsonb, at timestamptz NOT NULL);
CREATE INDEX ON ledger_entries (user_id);

CREATE TABLE opportunities (
    id uuid PRIMARY KEY, name text NOT NULL, organisation_id uuid REFERENCES organisations ON DELETE CASCADE, owner_id uuid REFERENCES users ON DELETE SET NULL,
    stage text, value numeric(14, 2), probability smallint CHECK (probability BETWEEN 0 AND 100), closes_on date, details jsonb);

CREATE TABLE partners (
    id uuid PRIMARY KEY, name text NOT NULL, contact jsonb, commission numeric(5, 2), active boolean NOT NULL, services text[], since date);

CREATE TABLE network_accounts (
    id bigint PRIMARY KEY, user_id uuid REFERENCES users ON DELETE SET NULL, username text NOT NULL, nas_address inet, started_at timestamptz,
    stopped_at timestamptz, input_octets bigint NOT NULL, output_octets bigint NOT NULL, terminate_cause text);

CREATE TABLE leads (
    id uuid PRIMARY KEY, name text, email text, phone text, source lead_source NOT NULL, type lead_type, location_id uuid REFERENCES locations ON DELETE SET NULL,
    assigned_to uuid REFERENCES users ON DELETE SET NULL, seats integer, details jsonb, created_at timestamptz);

CREATE TABLE task_templates (id uuid PRIMARY KEY, name text NOT NULL, steps jsonb, active boolean NOT NULL);

CREATE TABLE tasks (
    id uuid PRIMARY KEY, title text NOT NULL, template_id uuid REFERENCES task_templates ON DELETE SET NULL, assignee_id uuid REFERENCES users ON DELETE SET NULL,
    parent_id uuid REFERENCES tasks ON DELETE CASCADE, status task_status NOT NULL, due_at timestamptz, labels text[], position integer NOT NULL);

CREATE TABLE contacts (
    id uuid PRIMARY KEY, organisation_id uuid REFERENCES organisations ON DELETE CASCADE, user_id uuid REFERENCES users ON DELETE SET NULL, name text NOT NULL,
    email text, phone text, born_on date, social jsonb);

CREATE TABLE notes (
    id uuid PRIMARY KEY, contact_id uuid REFERENCES contacts ON DELETE CASCADE, organisation_id uuid REFERENCES organisations ON DELETE CASCADE,
    author_id uuid REFERENCES users ON DELETE SET NULL, body text NOT NULL, pinned boolean NOT NULL, created_at timestamptz,
    CHECK (num_nonnulls(contact_id, organisation_id) <= 1));

CREATE TABLE proposals (
    id uuid PRIMARY KEY, type proposal_type NOT NULL, opportunity_id uuid REFERENCES opportunities ON DELETE SET NULL,
    organisation_id uuid REFERENCES organisations ON DELETE CASCADE, title text NOT NULL, value numeric(14, 2), signed_on date, valid_to date, details jsonb);

CREATE TABLE access_credentials (
    id uuid PRIMARY KEY, type credential_type NOT NULL, external_id text NOT NULL, location_id uuid REFERENCES locations ON DELETE SET NULL,
    user_id uuid REFERENCES users ON DELETE CASCADE, name text, details jsonb NOT NULL, UNIQUE (type, external_id));

CREATE TABLE parking_facilities (
    id uuid PRIMARY KEY, location_id uuid REFERENCES locations ON DELETE SET NULL, name text NOT NULL, bays integer NOT NULL, tariff jsonb);

CREATE TABLE parking_allocations (
    id uuid PRIMARY KEY, kind allocation_kind NOT NULL, facility_id uuid NOT NULL REFERENCES parking_facilities ON DELETE CASCADE,
    organisation_id uuid REFERENCES organisations ON DELETE CASCADE, user_id uuid REFERENCES users ON DELETE CASCADE, bays integer, plates text[],
    from_on date, to_on date, CHECK (kind = 'tenant' OR organisation_id IS NULL), CHECK (kind = 'user' OR user_id IS NULL));

CREATE TABLE parking_events (
    id uuid PRIMARY KEY, facility_id uuid REFERENCES parking_facilities ON DELETE CASCADE, kind parking_event_kind, plate text, at timestamptz NOT NULL,
    payload jsonb);

CREATE TABLE accounting_sync (
    id uuid PRIMARY KEY, kind accounting_kind NOT NULL, external_id text NOT NULL, organisation_id uuid REFERENCES organisations ON DELETE SET NULL,
    invoice_id uuid REFERENCES invoices ON DELETE SET NULL, payment_id uuid REFERENCES payments ON DELETE SET NULL, amount numeric(14, 2), synced_at timestamptz,
    details jsonb, UNIQUE (kind, external_id));

CREATE TABLE settings (scope setting_scope, key text, value jsonb, updated_at timestamptz, PRIMARY KEY (scope, key));

CREATE TABLE events (
    id uuid PRIMARY KEY, title text NOT NULL, location_id uuid REFERENCES locations ON DELETE SET NULL, room_id uuid REFERENCES rooms ON DELETE SET NULL,
    starts_at timestamptz NOT NULL, ends_at timestamptz, seats integer, topics text[], public boolean NOT NULL);

CREATE TABLE event_attendees (
    id uuid PRIMARY KEY, event_id uuid NOT NULL REFERENCES events ON DELETE CASCADE, user_id uuid REFERENCES users ON DELETE CASCADE, attended boolean NOT NULL,
    answers jsonb, registered_at timestamptz);

CREATE TABLE tickets (
    id uuid PRIMARY KEY, kind ticket_kind NOT NULL, user_id uuid REFERENCES users ON DELETE SET NULL, location_id uuid REFERENCES locations ON DELETE SET NULL,
    subject text, priority ticket_priority, rating smallint, closed boolean NOT NULL, attachments jsonb, created_at timestamptz,
    CHECK (kind = 'ticket' OR priority IS NULL), CHECK (kind = 'feedback' OR rating IS NULL));

CREATE TABLE ticket_comments (
    id uuid PRIMARY KEY, ticket_id uuid NOT NULL REFERENCES tickets ON DELETE CASCADE, author_id uuid REFERENCES users ON DELETE SET NULL, body text NOT NULL,
    internal boolean NOT NULL, created_at timestamptz);

CREATE TABLE announcements (
    id uuid PRIMARY KEY, kind announcement_kind NOT NULL, title text NOT NULL, body text, location_id uuid REFERENCES locations ON DELETE CASCADE,
    audience text[], published_at timestamptz);

CREATE TABLE parcels (
    id uuid PRIMARY KEY, recipient_id uuid REFERENCES users ON DELETE SET NULL, location_id uuid REFERENCES locations ON DELETE SET NULL, carrier text,
    tracking text, arrived_at timestamptz NOT NULL, collected boolean NOT NULL, photos jsonb);

CREATE TABLE print_jobs (
    id uuid PRIMARY KEY, user_id uuid REFERENCES users ON DELETE SET NULL, printer text, pages integer NOT NULL, colour boolean NOT NULL, cost numeric(10, 2),
    printed_at timestamptz);

CREATE TABLE files (
    id uuid PRIMARY KEY, owner_id uuid REFERENCES users ON DELETE SET NULL, name text NOT NULL, mime_type text, size bigint NOT NULL, meta jsonb,
    uploaded_at timestamptz);

CREATE TABLE audit_log (
    id uuid PRIMARY KEY, actor_id uuid REFERENCES users ON DELETE SET NULL, action text NOT NULL, subject jsonb, changes jsonb, at timestamptz NOT NULL);

CREATE TABLE closures (
    id uuid PRIMARY KEY, location_id uuid NOT NULL REFERENCES locations ON DELETE CASCADE, closed_on date, reason text, all_day boolean NOT NULL);

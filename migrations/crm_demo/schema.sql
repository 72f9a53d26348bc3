-- The target of the CRM example: normalised, with proper types, every reference indexed on the side of its owner.
-- Apply it to an empty database. It is what an application would bring; nothing in it is made for slackwater.

CREATE TYPE organisation_kind AS ENUM ('company', 'cooperative', 'charity', 'other');
CREATE TYPE user_status AS ENUM ('active', 'blocked', 'invited');
CREATE TYPE booking_state AS ENUM ('open', 'confirmed', 'cancelled');
CREATE TYPE entry_kind AS ENUM ('debit', 'credit');

CREATE TABLE organisations (
    id              uuid PRIMARY KEY,
    code            text NOT NULL UNIQUE,
    team            integer NOT NULL,
    name            text NOT NULL,
    kind            organisation_kind NOT NULL,
    address_street  text,
    address_city    text,
    address_zip     text,
    address_country text,
    founded_on      date,
    vat_id          text,
    credit_limit    numeric(14, 2),
    domains         text[] NOT NULL,
    active          boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    meta            jsonb,
    extra           jsonb NOT NULL,
    version         bigint NOT NULL
);

CREATE TABLE users (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL,
    team            integer NOT NULL,
    email           text NOT NULL,
    phone           text,
    full_name       text NOT NULL,
    age             smallint,
    balance         numeric,
    active          boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    born_on         date,
    status          user_status,
    organisation_id uuid REFERENCES organisations (id),
    tags            text[],
    settings        jsonb,
    extra           jsonb NOT NULL,
    version         bigint NOT NULL
);
CREATE INDEX users_organisation_id ON users (organisation_id);

CREATE TABLE bookings (
    id              uuid PRIMARY KEY,
    team            integer NOT NULL,
    title           text NOT NULL,
    organiser_id    uuid NOT NULL REFERENCES users (id),
    organisation_id uuid NOT NULL REFERENCES organisations (id),
    state           booking_state NOT NULL,
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    all_day         boolean NOT NULL,
    note            text,
    data            jsonb,
    version         bigint NOT NULL
);
CREATE INDEX bookings_organiser_id ON bookings (organiser_id);
CREATE INDEX bookings_organisation_id ON bookings (organisation_id);

CREATE TABLE booking_guests (
    booking_id      uuid NOT NULL REFERENCES bookings (id),
    user_id         uuid NOT NULL REFERENCES users (id),
    position        integer NOT NULL,
    version         bigint NOT NULL,
    PRIMARY KEY (booking_id, user_id)
);
CREATE INDEX booking_guests_user_id ON booking_guests (user_id);

CREATE TABLE booking_slots (
    id              uuid PRIMARY KEY,
    booking_id      uuid NOT NULL REFERENCES bookings (id),
    code            text NOT NULL,
    position        integer NOT NULL,
    room            text NOT NULL,
    starts_at       timestamptz NOT NULL,
    seats           integer NOT NULL,
    price           numeric(14, 2) NOT NULL,
    version         bigint NOT NULL
);
CREATE INDEX booking_slots_booking_id ON booking_slots (booking_id);

CREATE TABLE invoices (
    id              uuid PRIMARY KEY,
    team            integer NOT NULL,
    number          text NOT NULL,
    organisation_id uuid NOT NULL REFERENCES organisations (id),
    user_id         uuid REFERENCES users (id),
    currency        text NOT NULL CHECK (currency IN ('EUR', 'USD', 'CHF')),
    issued_at       timestamptz NOT NULL,
    due_on          date NOT NULL,
    paid            boolean NOT NULL,
    total           numeric NOT NULL,
    tax             numeric(14, 2) NOT NULL,
    discount        numeric(14, 2),
    extra           jsonb NOT NULL,
    version         bigint NOT NULL
);
CREATE INDEX invoices_organisation_id ON invoices (organisation_id);
CREATE INDEX invoices_user_id ON invoices (user_id);

CREATE TABLE invoice_lines (
    id              uuid PRIMARY KEY,
    invoice_id      uuid NOT NULL REFERENCES invoices (id),
    sku             text NOT NULL,
    position        integer NOT NULL,
    title           text NOT NULL,
    quantity        integer NOT NULL,
    price           numeric(14, 2) NOT NULL,
    taxed           boolean NOT NULL,
    version         bigint NOT NULL
);
CREATE INDEX invoice_lines_invoice_id ON invoice_lines (invoice_id);

CREATE TABLE ledger_entries (
    id              uuid PRIMARY KEY,
    number          bigint NOT NULL UNIQUE,
    team            integer NOT NULL,
    account         text NOT NULL,
    invoice_id      uuid REFERENCES invoices (id),
    user_id         uuid REFERENCES users (id),
    kind            entry_kind NOT NULL,
    amount          numeric(14, 2) NOT NULL,
    booked_at       timestamptz NOT NULL,
    memo            text,
    flags           jsonb,
    version         bigint NOT NULL
);
CREATE INDEX ledger_entries_invoice_id ON ledger_entries (invoice_id);
CREATE INDEX ledger_entries_user_id ON ledger_entries (user_id);

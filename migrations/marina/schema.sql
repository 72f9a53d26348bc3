-- The target of the marina: what one wide table held is normalised, with proper types and every reference indexed.
-- Apply it to an empty database. It is what an application would bring; nothing in it is made for slackwater.

CREATE TYPE sales_stage AS ENUM
    ('open', 'details_sent', 'in_communication', 'signed_eoi_nda', 'deposit_10pct', 'contract', 'completed');
CREATE TYPE lead_category AS ENUM ('general', 'friends_and_family');
CREATE TYPE berth_status AS ENUM ('available', 'under_offer', 'sold');
CREATE TYPE expense_category AS ENUM ('food_drinks', 'shop', 'online', 'boat_fuel', 'other');
CREATE TYPE invoice_status AS ENUM ('draft', 'sent', 'paid', 'void');
CREATE TYPE payment_method AS ENUM ('transfer', 'card', 'cash', 'other');

CREATE TABLE clients (
    id                uuid PRIMARY KEY,
    full_name         text,
    email             text,
    phone             text,
    residence         text,
    preferred_contact text,
    source            text,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz,
    search            tsvector GENERATED ALWAYS AS
        (to_tsvector('simple', coalesce(full_name, '') || ' ' || coalesce(email, ''))) STORED
);
CREATE INDEX ON clients (email);
CREATE INDEX ON clients USING gin (search);

CREATE TABLE client_contacts (
    id        uuid PRIMARY KEY,
    client_id uuid NOT NULL REFERENCES clients,
    kind      text NOT NULL,
    value     text NOT NULL,
    position  integer NOT NULL
);
CREATE INDEX ON client_contacts (client_id);

CREATE TABLE client_tags (
    client_id uuid NOT NULL REFERENCES clients,
    tag       text NOT NULL,
    PRIMARY KEY (client_id, tag)
);

CREATE TABLE berths (
    id                uuid PRIMARY KEY,
    number            text NOT NULL,
    area              text,
    status            berth_status NOT NULL,
    price             numeric(14, 2),
    nominal_boat_size integer,
    length            text,
    width             text,
    water_depth       numeric(6, 2),
    depth_approved    boolean NOT NULL,
    mooring_type      text,
    power_capacity    integer,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz,
    search            tsvector GENERATED ALWAYS AS (to_tsvector('simple', number || ' ' || coalesce(area, ''))) STORED
);
CREATE INDEX ON berths USING gin (search);

CREATE TABLE berth_map_data (
    berth_id  uuid PRIMARY KEY REFERENCES berths,
    path      text,
    x         numeric(10, 3),
    y         numeric(10, 3),
    font_size integer,
    data      jsonb
);

CREATE TABLE interests (
    id                 uuid PRIMARY KEY,
    number             integer NOT NULL UNIQUE,
    client_id          uuid NOT NULL REFERENCES clients,
    berth_id           uuid REFERENCES berths,
    stage              sales_stage NOT NULL,
    lead_category      lead_category,
    yacht_name         text,
    length             text,
    width              text,
    depth              text,
    budget             text,
    berth_size_desired text,
    eoi_status         text,
    eoi_sent_at        timestamptz,
    contract_sent_on   date,
    deposit_status     text,
    form_sent          boolean NOT NULL,
    comments           text,
    submission         jsonb,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz,
    search             tsvector GENERATED ALWAYS AS
        (to_tsvector('simple', coalesce(yacht_name, '') || ' ' || coalesce(comments, ''))) STORED
);
CREATE INDEX ON interests (client_id);
CREATE INDEX ON interests (berth_id);
CREATE INDEX ON interests USING gin (search);

CREATE TABLE interest_berths (
    interest_id uuid NOT NULL REFERENCES interests,
    berth_id    uuid NOT NULL REFERENCES berths,
    PRIMARY KEY (interest_id, berth_id)
);
CREATE INDEX ON interest_berths (berth_id);

CREATE TABLE interest_notes (
    id          uuid PRIMARY KEY,
    interest_id uuid NOT NULL REFERENCES interests,
    author      text,
    body        text NOT NULL,
    written_at  timestamptz NOT NULL
);
CREATE INDEX ON interest_notes (interest_id);

CREATE TABLE interest_tags (
    interest_id uuid NOT NULL REFERENCES interests,
    tag         text NOT NULL,
    PRIMARY KEY (interest_id, tag)
);

CREATE TABLE documents (
    id          uuid PRIMARY KEY,
    interest_id uuid NOT NULL REFERENCES interests,
    title       text NOT NULL,
    url         text NOT NULL,
    media_type  text,
    size        bigint,
    position    integer NOT NULL
);
CREATE INDEX ON documents (interest_id);

CREATE TABLE document_signers (
    id          uuid PRIMARY KEY,
    interest_id uuid NOT NULL REFERENCES interests,
    document    text NOT NULL,
    email       text NOT NULL,
    role        text NOT NULL,
    signed      boolean NOT NULL,
    signed_at   timestamptz
);
CREATE INDEX ON document_signers (interest_id);

CREATE TABLE expenses (
    id             uuid PRIMARY KEY,
    establishment  text,
    price          numeric(14, 2),
    currency       text NOT NULL,
    category       expense_category NOT NULL,
    payer          text,
    payment_method payment_method,
    spent_at       timestamptz,
    paid           boolean NOT NULL,
    contents       text,
    details        jsonb,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz
);

CREATE TABLE invoices (
    id            uuid PRIMARY KEY,
    number        text NOT NULL,
    interest_id   uuid REFERENCES interests,
    status        invoice_status NOT NULL,
    issued_on     date,
    due_on        date,
    total         numeric(14, 2),
    tax_percent   numeric(5, 2),
    paid          boolean NOT NULL,
    billing_email text,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz
);
CREATE INDEX ON invoices (interest_id);

CREATE TABLE invoice_line_items (
    id         uuid PRIMARY KEY,
    invoice_id uuid NOT NULL REFERENCES invoices,
    code       text NOT NULL,
    title      text,
    quantity   integer NOT NULL,
    price      numeric(14, 2) NOT NULL,
    position   integer NOT NULL
);
CREATE INDEX ON invoice_line_items (invoice_id);

CREATE TABLE invoice_expenses (
    invoice_id uuid NOT NULL REFERENCES invoices,
    expense_id uuid NOT NULL REFERENCES expenses,
    PRIMARY KEY (invoice_id, expense_id)
);
CREATE INDEX ON invoice_expenses (expense_id);

-- Of expenses and of invoices.
CREATE TABLE files (
    id         uuid PRIMARY KEY,
    expense_id uuid REFERENCES expenses,
    invoice_id uuid REFERENCES invoices,
    title      text NOT NULL,
    url        text NOT NULL,
    media_type text,
    size       bigint
);
CREATE INDEX ON files (expense_id);
CREATE INDEX ON files (invoice_id);

CREATE TABLE payments (
    id          uuid PRIMARY KEY,
    interest_id uuid NOT NULL REFERENCES interests,
    invoice_id  uuid REFERENCES invoices,
    amount      numeric(14, 2) NOT NULL,
    currency    text NOT NULL,
    method      payment_method NOT NULL,
    received_at timestamptz NOT NULL,
    reference   text,
    settled     boolean NOT NULL,
    meta        jsonb
);
CREATE INDEX ON payments (interest_id);
CREATE INDEX ON payments (invoice_id);

-- A row for everything that was brought over.
CREATE TABLE audit_logs (
    id          uuid PRIMARY KEY,
    entity      text NOT NULL,
    origin      text NOT NULL,
    origin_id   text NOT NULL,
    actor       text NOT NULL,
    address     inet NOT NULL,
    happened_at timestamptz
);

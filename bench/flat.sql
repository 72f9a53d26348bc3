-- Twelve columns, one for each field.
create table flat (
    id          uuid primary key,
    name        text not null,
    email       text not null,
    owner_id    uuid,
    status      text not null,
    city        text,
    amount      numeric(12, 2) not null,
    quantity    integer not null,
    active      boolean not null,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    note        text
);

-- A document is one row here and two rows there.
create table two (
    id          uuid primary key,
    number      text not null,
    customer    text not null,
    status      text not null,
    total       numeric(12, 2) not null,
    created_at  timestamptz not null,
    note        text
);

create table two_items (
    id          uuid primary key,
    two_id      uuid not null references two,
    sku         text not null,
    title       text,
    qty         integer not null,
    price       numeric(12, 2) not null
);

create index on two_items (two_id);

-- The table that Debezium's JDBC sink fills, with the fields' own names. Ids stay text: what comes out of the transform
-- is text, and the bench asks nothing of it that costs more. `amount` is the double that it is in MongoDB.
-- No column is `not null`: of a document that is gone before it is looked up, the change alone is written, and a
-- delete follows.
create table documents (
    id           text primary key,
    name         text,
    email        text,
    owner        text,
    status       text,
    city         text,
    amount       double precision,
    quantity     integer,
    active       boolean,
    "createdAt"  timestamptz,
    "updatedAt"  timestamptz,
    note         text
);

-- The same as the others' table, to compare sums and to see how far it is.
create view flat as
    select id, name, email, owner as owner_id, status, city, round(amount::numeric, 2) as amount, quantity, active,
           "createdAt" as created_at, "updatedAt" as updated_at, note
    from documents;

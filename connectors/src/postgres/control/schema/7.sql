-- Collections that stand still because one of their tables cannot be written as it is now. docs/design/drift.md has the reasons.
-- Their documents wait among the dead letters, with the kind `standing` and without their content.
CREATE TABLE slackwater.standing (
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    -- With its schema.
    table_name text NOT NULL,
    kind text NOT NULL,
    -- What has changed, and what mends it.
    text text NOT NULL,
    remedy text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, collection)
);

-- The tables as rows were last written to them: a table that was made again, or a column, holds nothing of what was written before.
CREATE TABLE slackwater.tables (
    migration text NOT NULL REFERENCES slackwater.migrations,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    oid bigint NOT NULL,
    -- The columns that the migration fills, their numbers and types.
    columns text[] NOT NULL,
    numbers int[] NOT NULL,
    kinds text[] NOT NULL,
    PRIMARY KEY (migration, schema_name, table_name)
);

-- Collections that the capture has to copy again, because a table has lost what was written to it.
CREATE TABLE slackwater.recopies (
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (migration, collection)
);

-- Columns whose numbers come from a sequence.
CREATE TABLE slackwater.series (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    column_name text NOT NULL,
    UNIQUE (migration, schema_name, table_name, column_name)
);

-- The number of each document or element whose row has such a key, taken when it or a reference to it was first seen.
CREATE TABLE slackwater.numbers (
    series int NOT NULL,
    id uuid NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (series, id)
);
CREATE INDEX ON slackwater.numbers (series, number);

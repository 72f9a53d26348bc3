-- Rows that are made of parts and are not in their table, because a column that takes no null looks up what is not there.
CREATE TABLE slackwater.lacking (
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    -- The row's key, as text.
    key text[] NOT NULL,
    column_name text NOT NULL,
    -- The collection in which it is looked up.
    wanted_in text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, schema_name, table_name, key)
);

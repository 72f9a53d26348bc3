-- Verification of what changes. docs/design/verification.md has the reasons.

-- How far each collection's changes were looked at.
CREATE TABLE slackwater.followed (
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    source text NOT NULL,
    -- The mapping with which they were looked at. Under another one nothing is known.
    mapping text NOT NULL,
    -- Every change since then was looked at …
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- … through this moment of the source …
    through bigint NOT NULL,
    -- … which was its present then.
    through_at timestamptz NOT NULL,
    documents bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (migration, collection)
);

-- What was found by it and is not mended yet. Columns as in `findings`.
CREATE TABLE slackwater.late_findings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    found_at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    collection text,
    key bytea,
    document text,
    schema_name text,
    table_name text,
    row_key text[],
    columns text[]
);
CREATE INDEX ON slackwater.late_findings (migration, collection, key);
CREATE INDEX ON slackwater.findings (collection, key);

-- What the rows are made by. docs/design/changed-mapping.md has the reasons.

-- The digest of the whole mapping. Null: the last capture was of a version that kept none.
ALTER TABLE slackwater.migrations ADD COLUMN mapping text;

CREATE TABLE slackwater.mappings (
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    -- Digests of the rules by table and column, as JSON.
    mapping text NOT NULL,
    -- Since when the migration file does not name it any more.
    out_since timestamptz,
    PRIMARY KEY (migration, collection)
);

-- Why a collection is copied again, as a word: a table has lost its rows, the mapping has changed, somebody has asked.
ALTER TABLE slackwater.recopies ADD COLUMN kind text NOT NULL DEFAULT 'table_lost';

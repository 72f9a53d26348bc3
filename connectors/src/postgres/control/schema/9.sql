-- Several sources. Each has its own lists of the rows that a recopy has seen: two that fill one table are recopied each on its own.
ALTER TABLE slackwater.seen ADD COLUMN source text;
-- Until now a migration had only one.
UPDATE slackwater.seen AS s SET source = coalesce(
    (SELECT min(c.source) FROM slackwater.captures AS c WHERE c.migration = s.migration), '');
ALTER TABLE slackwater.seen ALTER COLUMN source SET NOT NULL;
ALTER TABLE slackwater.seen DROP CONSTRAINT seen_migration_schema_name_table_name_key;
ALTER TABLE slackwater.seen ADD UNIQUE (migration, schema_name, table_name, source);

-- Collections that are gone at their source after they were copied. Their rows stay until a person decides, or until they are there
-- again.
CREATE TABLE slackwater.gone (
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    -- What happened.
    text text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    -- What a person said: `keep` the rows, or `follow` the source.
    word text CHECK (word IN ('keep', 'follow')),
    PRIMARY KEY (migration, collection)
);

-- What was sent of the records of sources that have no log of their changes. A key is here before its row may be in the target; its
-- hash is here only while the log has safely taken exactly that content.
CREATE TABLE slackwater.sent (
    migration text NOT NULL,
    source text NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL,
    hash bytea,
    PRIMARY KEY (migration, source, collection, key)
);

-- The largest moment at which anything of such a source was sent: a process that comes later begins behind it.
CREATE TABLE slackwater.sent_through (
    migration text NOT NULL,
    source text NOT NULL,
    moment bigint NOT NULL,
    PRIMARY KEY (migration, source)
);

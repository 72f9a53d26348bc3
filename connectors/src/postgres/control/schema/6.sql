-- Rows whose referenced rows are not there wait here, instead of as dead letters. docs/design/references.md has the reasons.

-- Processes of the version before may still write. All locks are taken first, in the order in which those processes take theirs, so
-- that this waits for them instead of meeting them half way.
LOCK TABLE slackwater.migrations, slackwater.lanes, slackwater.partitions IN ACCESS EXCLUSIVE MODE;

-- How often the set of watched references has changed. Writers believe in a number, and learn when it is another.
ALTER TABLE slackwater.migrations ADD COLUMN watching bigint NOT NULL DEFAULT 0;

-- Tables that a watched reference leaves or reaches. The number stands for the table in the tables below.
CREATE TABLE slackwater.relations (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    UNIQUE (migration, schema_name, table_name)
);

-- References for which something was missing at some time, and unique values that two rows wanted.
CREATE TABLE slackwater.watched (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    constraint_name text NOT NULL,
    -- The table that it refers to.
    to_schema text NOT NULL,
    to_table text NOT NULL,
    -- `reference`, or `unique`: then the name is that of an index or an exclusion constraint, and both tables are the same.
    kind text NOT NULL,
    -- What waits for it blocks the switch.
    blocks bool NOT NULL,
    -- It names the key of the other row. Otherwise what it names is a value, and is shown to nobody.
    by_key bool NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    UNIQUE (migration, schema_name, table_name, constraint_name)
);

-- Rows that lack something.
CREATE TABLE slackwater.waiting_rows (
    relation int NOT NULL,
    -- The row's key, each column as text.
    key text[] NOT NULL,
    -- Of an array's element: the key of the row that it belongs to.
    owner text,
    -- Not in its table. Otherwise it is there, with nulls for what is missing.
    held bool NOT NULL,
    -- The row as it should be, as Postgres writes it as text.
    content text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relation, key)
);
CREATE INDEX ON slackwater.waiting_rows (relation, owner) WHERE owner IS NOT NULL;

-- What each of them waits for: the row with this key in the table that the reference refers to, or that this value is free.
CREATE TABLE slackwater.waiting_for (
    reference int NOT NULL,
    wanted text[] NOT NULL,
    relation int NOT NULL,
    key text[] NOT NULL,
    -- Of a unique value: the key of the row that has it.
    beside text[],
    PRIMARY KEY (reference, wanted, relation, key)
);
CREATE INDEX ON slackwater.waiting_for (relation, key);

-- Puts a reference under watch. Every transaction that does not know of it has ended when this returns.
CREATE FUNCTION slackwater.watch(
    of_migration text, of_schema text, of_table text, of_constraint text, other_schema text, other_table text, of_kind text,
    of_blocks bool, of_by_key bool
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1398206257, hashtext(of_migration));
    INSERT INTO slackwater.relations (migration, schema_name, table_name)
    VALUES (of_migration, of_schema, of_table), (of_migration, other_schema, other_table) ON CONFLICT DO NOTHING;
    INSERT INTO slackwater.watched (migration, schema_name, table_name, constraint_name, to_schema, to_table, kind, blocks, by_key)
    VALUES (of_migration, of_schema, of_table, of_constraint, other_schema, other_table, of_kind, of_blocks, of_by_key) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        UPDATE slackwater.migrations SET watching = watching + 1 WHERE name = of_migration;
    END IF;
END $$;

-- Raises an error that names a reference which has to be watched first.
CREATE FUNCTION slackwater.refuse(of_table text, of_constraint text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'watch' USING ERRCODE = 'SW007', TABLE = of_table, CONSTRAINT = of_constraint;
END $$;

-- Supersedes processes of the version before, which do not look whether something waits.
UPDATE slackwater.migrations SET epoch = epoch + 1;
UPDATE slackwater.captures SET epoch = epoch + 1;
UPDATE slackwater.lanes SET epoch = epoch + 1;
UPDATE slackwater.partitions SET epoch = epoch + 1, member = NULL;

-- Raises an error if the set of watched references is not what the writer believes, and keeps it so until the transaction ends.
CREATE FUNCTION slackwater.aware(of_migration text, of_watching bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1398206257, hashtext(of_migration));
    PERFORM FROM slackwater.migrations WHERE name = of_migration AND watching = of_watching;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'watching' USING ERRCODE = 'SW006';
    END IF;
END $$;

-- As before, and `of_watching`, as in `aware`. Every transaction begins with this, so it is one function without settings of its own.
-- The one of the version before stays: to processes of that version it says that they are superseded.
CREATE FUNCTION slackwater.advance(
    of_migration text, of_lane text, of_epoch bigint, from_sequence bigint,
    new_time bigint, new_token bytea, new_source_time bigint, new_applied_through bigint, new_horizon bigint,
    more_events bigint, more_rows bigint,
    chunk bigint, chunk_documents bigint, has_rest bool, rest_lo bytea, rest_hi bytea, new_as_of bigint, of_watching bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE slackwater.lanes SET
        sequence = sequence + 1,
        position_time = coalesce(new_time, position_time),
        position_token = coalesce(new_token, position_token),
        source_time = coalesce(new_source_time, source_time),
        applied_through = coalesce(new_applied_through, applied_through),
        horizon = new_horizon,
        as_of = greatest(as_of, new_as_of),
        events = events + more_events,
        rows_written = rows_written + more_rows,
        updated_at = now()
    WHERE migration = of_migration AND lane = of_lane AND epoch = of_epoch AND sequence = from_sequence;
    IF NOT FOUND THEN
        PERFORM FROM slackwater.lanes WHERE migration = of_migration AND lane = of_lane AND epoch = of_epoch;
        IF FOUND THEN
            RAISE EXCEPTION 'sequence' USING ERRCODE = 'SW002';
        END IF;
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'SW001';
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(1398206257, pg_catalog.hashtext(of_migration));
    PERFORM FROM slackwater.migrations WHERE name = of_migration AND watching = of_watching;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'watching' USING ERRCODE = 'SW006';
    END IF;
    IF chunk IS NOT NULL THEN
        -- Not there or done already: the collection was begun anew meanwhile; its rows are good all the same.
        WITH finished AS (
            UPDATE slackwater.chunks SET done = true, documents = chunk_documents
            WHERE id = chunk AND migration = of_migration AND NOT done
            RETURNING collection, generation
        )
        INSERT INTO slackwater.chunks (migration, collection, generation, lo, hi)
        SELECT of_migration, collection, generation, rest_lo, rest_hi FROM finished WHERE has_rest;
    END IF;
END $$;

-- Nothing waits for these references, nor any row of these tables, and that stays so until the transaction ends. Raises an error if
-- something does: then the writer has to look closer.
CREATE FUNCTION slackwater.idle(of_migration text, of_references int[], of_relations int[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(1398206258, pg_catalog.hashtext(of_migration));
    IF EXISTS (SELECT FROM slackwater.waiting_for WHERE reference = ANY (of_references))
        OR EXISTS (SELECT FROM slackwater.waiting_rows WHERE relation = ANY (of_relations)) THEN
        RAISE EXCEPTION 'waiting' USING ERRCODE = 'SW008';
    END IF;
END $$;

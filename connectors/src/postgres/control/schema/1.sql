-- Our own state. Times of MongoDB (seconds << 32 | counter) are bigint with the same bits; milliseconds are bigint.

CREATE TABLE slackwater.migrations (
    name text PRIMARY KEY,
    file_hash text NOT NULL,
    namespace uuid NOT NULL,
    epoch bigint NOT NULL,
    first_started_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE slackwater.lanes (
    migration text NOT NULL REFERENCES slackwater.migrations,
    lane text NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL DEFAULT 0,
    position_time bigint,
    position_token bytea,
    applied_through bigint,
    horizon bigint NOT NULL DEFAULT 0,
    source_time bigint,
    events bigint NOT NULL DEFAULT 0,
    rows_written bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, lane)
) WITH (fillfactor = 50);

CREATE TABLE slackwater.positions (
    migration text NOT NULL REFERENCES slackwater.migrations,
    source text NOT NULL,
    position_time bigint NOT NULL,
    position_token bytea NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, source)
);

CREATE TABLE slackwater.collections (
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'copying', 'copied')),
    generation int NOT NULL DEFAULT 1,
    documents_estimate bigint NOT NULL DEFAULT 0,
    fresh bool NOT NULL DEFAULT false,
    reload bool NOT NULL DEFAULT false,
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (migration, collection)
);

CREATE TABLE slackwater.chunks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL,
    collection text NOT NULL,
    generation int NOT NULL,
    lo bytea,
    hi bytea,
    done bool NOT NULL DEFAULT false,
    documents bigint NOT NULL DEFAULT 0,
    reads int NOT NULL DEFAULT 0,
    FOREIGN KEY (migration, collection) REFERENCES slackwater.collections ON DELETE CASCADE
);
CREATE INDEX chunks_of_collection ON slackwater.chunks (migration, collection, generation);

CREATE TABLE slackwater.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    key bytea NOT NULL,
    -- Keys may have 10 kB, more than an index takes.
    digest bytea NOT NULL GENERATED ALWAYS AS (sha256(key)) STORED,
    op text NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    table_name text,
    column_name text,
    document bytea NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now(),
    tries int NOT NULL DEFAULT 1,
    retry_at timestamptz NOT NULL,
    UNIQUE (migration, collection, digest)
);
CREATE INDEX dead_letters_due ON slackwater.dead_letters (migration, retry_at);

CREATE TABLE slackwater.tallies (
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    table_name text NOT NULL,
    column_name text NOT NULL,
    policy text NOT NULL,
    count bigint NOT NULL,
    sample_key bytea NOT NULL,
    last_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, collection, table_name, column_name, policy)
);

CREATE TABLE slackwater.incidents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    collection text,
    text text NOT NULL
);

CREATE TABLE slackwater.fences (
    migration text NOT NULL REFERENCES slackwater.migrations,
    id uuid NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, id)
);

-- No reference to fences: a marker may come from somebody who keeps none.
CREATE TABLE slackwater.fence_passes (
    migration text NOT NULL,
    id uuid NOT NULL,
    lane text NOT NULL,
    passed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (migration, id, lane)
);

-- The tables whose rows are noted while their collections are copied again; `seen_<id>` holds the keys.
CREATE TABLE slackwater.seen (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    UNIQUE (migration, schema_name, table_name)
);

-- The owner of a migration, held to the end of the transaction, or an error for one who was succeeded.
CREATE FUNCTION slackwater.guard(of_migration text, of_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM slackwater.migrations WHERE name = of_migration AND epoch = of_epoch FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'SW001';
    END IF;
END $$;

-- The same for one lane.
CREATE FUNCTION slackwater.hold(of_migration text, of_lane text, of_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM slackwater.lanes
    WHERE migration = of_migration AND lane = of_lane AND epoch = of_epoch FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'SW001';
    END IF;
END $$;

-- First statement of every transaction that writes rows. Whatever comes after it is undone when it fails, so all can
-- be sent together with COMMIT.
CREATE FUNCTION slackwater.advance(
    of_migration text, of_lane text, of_epoch bigint, from_sequence bigint,
    new_time bigint, new_token bytea, new_source_time bigint, new_applied_through bigint, new_horizon bigint,
    more_events bigint, more_rows bigint,
    chunk bigint, chunk_documents bigint, has_rest bool, rest_lo bytea, rest_hi bytea
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE slackwater.lanes SET
        sequence = sequence + 1,
        position_time = coalesce(new_time, position_time),
        position_token = coalesce(new_token, position_token),
        source_time = coalesce(new_source_time, source_time),
        applied_through = coalesce(new_applied_through, applied_through),
        horizon = new_horizon,
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

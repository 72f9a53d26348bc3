-- Made by tests/upgrade/dump, by a program whose control schema has version 4. Never changed.
SET check_function_bodies = false;
CREATE SCHEMA slackwater;
CREATE FUNCTION slackwater.advance(of_migration text, of_lane text, of_epoch bigint, from_sequence bigint, new_time bigint, new_token bytea, new_source_time bigint, new_applied_through bigint, new_horizon bigint, more_events bigint, more_rows bigint, chunk bigint, chunk_documents bigint, has_rest boolean, rest_lo bytea, rest_hi bytea, new_as_of bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION slackwater.advance_partitions(of_migration text, topics text[], partitions integer[], epochs bigint[], from_offsets bigint[], to_offsets bigint[], capture_epochs bigint[], times bigint[], tokens bytea[], applied_throughs bigint[], source_times bigint[], more_events bigint[], more_duplicates bigint[], more_superseded bigint[], as_ofs bigint[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    moved bigint;
BEGIN
    -- An update locks in whatever order it finds its rows; all who lock several do it in this one first.
    PERFORM FROM slackwater.partitions AS p
    JOIN unnest(topics, partitions) AS s(topic, partition) ON p.topic = s.topic AND p.partition = s.partition
    WHERE p.migration = of_migration
    ORDER BY p.topic, p.partition FOR NO KEY UPDATE OF p;
    UPDATE slackwater.partitions AS p SET
        next_offset = s.to_offset,
        capture_epoch = greatest(p.capture_epoch, s.capture_epoch),
        position_time = greatest(p.position_time, s.new_time),
        position_token = CASE
            WHEN s.new_time IS NULL OR (p.position_time, p.position_token) >= (s.new_time, s.new_token)
            THEN p.position_token ELSE s.new_token END,
        applied_through = greatest(p.applied_through, s.new_applied_through),
        source_time = coalesce(s.new_source_time, p.source_time),
        as_of = greatest(p.as_of, s.new_as_of),
        events = p.events + s.events,
        duplicates = p.duplicates + s.duplicates,
        superseded = p.superseded + s.superseded,
        updated_at = now()
    FROM unnest(
        topics, partitions, epochs, from_offsets, to_offsets, capture_epochs, times, tokens, applied_throughs,
        source_times, more_events, more_duplicates, more_superseded, as_ofs
    ) AS s(
        topic, partition, epoch, from_offset, to_offset, capture_epoch, new_time, new_token, new_applied_through,
        new_source_time, events, duplicates, superseded, new_as_of
    )
    WHERE p.migration = of_migration AND p.topic = s.topic AND p.partition = s.partition
      AND p.epoch = s.epoch AND p.next_offset = s.from_offset;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved < cardinality(topics) THEN
        RAISE EXCEPTION 'revoked' USING ERRCODE = 'SW003';
    END IF;
END $$;
CREATE FUNCTION slackwater.guard(of_migration text, of_epoch bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    PERFORM FROM slackwater.migrations WHERE name = of_migration AND epoch = of_epoch FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'SW001';
    END IF;
END $$;
CREATE FUNCTION slackwater.hold(of_migration text, of_lane text, of_epoch bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    PERFORM FROM slackwater.lanes
    WHERE migration = of_migration AND lane = of_lane AND epoch = of_epoch FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'SW001';
    END IF;
END $$;
CREATE FUNCTION slackwater.open_cutover(of_id uuid, of_owner uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    of_migration text;
BEGIN
    UPDATE slackwater.cutovers SET state = 'open', open_at = clock_timestamp(), ended_at = clock_timestamp()
    WHERE id = of_id AND owner = of_owner AND state = 'frozen'
      AND clock_timestamp() < freezing_at + deadline_ms * interval '1 millisecond'
    RETURNING migration INTO of_migration;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'late' USING ERRCODE = 'SW005';
    END IF;
    UPDATE slackwater.migrations SET epoch = epoch + 1 WHERE name = of_migration;
    PERFORM FROM slackwater.lanes WHERE migration = of_migration ORDER BY lane FOR NO KEY UPDATE;
    UPDATE slackwater.lanes SET epoch = epoch + 1 WHERE migration = of_migration;
    PERFORM FROM slackwater.partitions WHERE migration = of_migration ORDER BY topic, partition FOR NO KEY UPDATE;
    UPDATE slackwater.partitions SET epoch = epoch + 1, member = NULL WHERE migration = of_migration;
END $$;
CREATE FUNCTION slackwater.pulse(of_migration text, of_epoch bigint, of_source text, source_clock bigint, age_ms bigint, new_operation_time bigint, new_read_through bigint, new_read_as_of bigint, new_oplog_from bigint, new_trouble text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
    -- Before the guard, which may have to wait.
    present timestamptz := clock_timestamp();
    heard timestamptz := present - age_ms * interval '1 ms';
    skew bigint := source_clock - (extract(epoch FROM heard) * 1000)::bigint;
BEGIN
    PERFORM slackwater.guard(of_migration, of_epoch);
    INSERT INTO slackwater.sources AS s (
        migration, source, pulse_at, skew_ms, operation_time, read_through, read_as_of, oplog_from, trouble, updated_at
    ) VALUES (
        of_migration, of_source, CASE WHEN source_clock IS NOT NULL THEN heard END, skew, new_operation_time,
        new_read_through, new_read_as_of, new_oplog_from, new_trouble, present
    ) ON CONFLICT (migration, source) DO UPDATE SET
        pulse_at = coalesce(EXCLUDED.pulse_at, s.pulse_at),
        skew_ms = coalesce(EXCLUDED.skew_ms, s.skew_ms),
        operation_time = coalesce(EXCLUDED.operation_time, s.operation_time),
        read_through = coalesce(EXCLUDED.read_through, s.read_through),
        read_as_of = greatest(EXCLUDED.read_as_of, s.read_as_of),
        oplog_from = coalesce(EXCLUDED.oplog_from, s.oplog_from),
        trouble = EXCLUDED.trouble,
        updated_at = EXCLUDED.updated_at;
END $$;
CREATE FUNCTION slackwater.save_position(of_migration text, of_epoch bigint, of_source text, new_time bigint, new_token bytea, topics text[], partitions integer[], offsets bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    PERFORM slackwater.guard(of_migration, of_epoch);
    INSERT INTO slackwater.positions AS p (migration, source, position_time, position_token)
    VALUES (of_migration, of_source, new_time, new_token)
    ON CONFLICT (migration, source) DO UPDATE SET
        position_time = EXCLUDED.position_time, position_token = EXCLUDED.position_token, saved_at = now();
    UPDATE slackwater.log_partitions AS p SET acked_offset = greatest(p.acked_offset, a.acked)
    FROM (
        SELECT u.topic, u.partition, max(u.acked) AS acked
        FROM unnest(topics, partitions, offsets) AS u(topic, partition, acked) GROUP BY 1, 2
    ) AS a
    WHERE p.migration = of_migration AND p.topic = a.topic AND p.partition = a.partition
      AND (p.acked_offset IS NULL OR p.acked_offset < a.acked);
END $$;
CREATE FUNCTION slackwater.switched(of_migration text) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog'
    AS $$
    SELECT EXISTS (SELECT FROM slackwater.cutovers WHERE migration = of_migration AND state = 'open')
$$;
CREATE FUNCTION slackwater.unless_switched(of_migration text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    IF slackwater.switched(of_migration) THEN
        RAISE EXCEPTION 'switched' USING ERRCODE = 'SW004';
    END IF;
END $$;
CREATE TABLE slackwater.chunks (
    id bigint NOT NULL,
    migration text NOT NULL,
    collection text NOT NULL,
    generation integer NOT NULL,
    lo bytea,
    hi bytea,
    done boolean DEFAULT false NOT NULL,
    documents bigint DEFAULT 0 NOT NULL,
    reads integer DEFAULT 0 NOT NULL
);
ALTER TABLE slackwater.chunks ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.chunks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.collections (
    migration text NOT NULL,
    collection text NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    generation integer DEFAULT 1 NOT NULL,
    documents_estimate bigint DEFAULT 0 NOT NULL,
    fresh boolean DEFAULT false NOT NULL,
    reload boolean DEFAULT false NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    CONSTRAINT collections_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'copying'::text, 'copied'::text])))
);
CREATE TABLE slackwater.cutovers (
    id uuid NOT NULL,
    migration text NOT NULL,
    state text DEFAULT 'armed'::text NOT NULL,
    owner uuid NOT NULL,
    host text NOT NULL,
    backend integer DEFAULT pg_backend_pid() NOT NULL,
    way text NOT NULL,
    deadline_ms bigint NOT NULL,
    armed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    heard_at timestamp with time zone,
    fence_id uuid,
    fence_time bigint,
    freezing_at timestamp with time zone,
    frozen_at timestamp with time zone,
    open_at timestamp with time zone,
    ended_at timestamp with time zone,
    reason text,
    told_at timestamp with time zone,
    report text,
    CONSTRAINT cutovers_state_check CHECK ((state = ANY (ARRAY['armed'::text, 'freezing'::text, 'frozen'::text, 'open'::text, 'reverting'::text, 'reverted'::text])))
);
CREATE TABLE slackwater.dead_letters (
    id bigint NOT NULL,
    migration text NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL,
    digest bytea GENERATED ALWAYS AS (sha256(key)) STORED NOT NULL,
    op text NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    table_name text,
    column_name text,
    document bytea NOT NULL,
    first_seen timestamp with time zone DEFAULT now() NOT NULL,
    last_seen timestamp with time zone DEFAULT now() NOT NULL,
    tries integer DEFAULT 1 NOT NULL,
    retry_at timestamp with time zone NOT NULL
);
ALTER TABLE slackwater.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.fence_passes (
    migration text NOT NULL,
    id uuid NOT NULL,
    lane text NOT NULL,
    passed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE slackwater.fences (
    migration text NOT NULL,
    id uuid NOT NULL,
    requested_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE slackwater.incidents (
    id bigint NOT NULL,
    migration text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    kind text NOT NULL,
    collection text,
    text text NOT NULL
);
ALTER TABLE slackwater.incidents ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.incidents_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.lanes (
    migration text NOT NULL,
    lane text NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint DEFAULT 0 NOT NULL,
    position_time bigint,
    position_token bytea,
    applied_through bigint,
    horizon bigint DEFAULT 0 NOT NULL,
    source_time bigint,
    events bigint DEFAULT 0 NOT NULL,
    rows_written bigint DEFAULT 0 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    as_of bigint
)
WITH (fillfactor='50');
CREATE TABLE slackwater.log_partitions (
    migration text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    collection text NOT NULL,
    begin_offset bigint NOT NULL,
    acked_offset bigint
)
WITH (fillfactor='50');
CREATE TABLE slackwater.migrations (
    name text NOT NULL,
    file_hash text NOT NULL,
    namespace uuid NOT NULL,
    epoch bigint NOT NULL,
    first_started_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    log text DEFAULT 'direct'::text NOT NULL
);
CREATE TABLE slackwater.partitions (
    migration text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    member text,
    next_offset bigint NOT NULL,
    capture_epoch bigint DEFAULT 0 NOT NULL,
    position_time bigint,
    position_token bytea,
    applied_through bigint,
    source_time bigint,
    events bigint DEFAULT 0 NOT NULL,
    duplicates bigint DEFAULT 0 NOT NULL,
    superseded bigint DEFAULT 0 NOT NULL,
    lost text,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    as_of bigint
)
WITH (fillfactor='50');
CREATE TABLE slackwater.positions (
    migration text NOT NULL,
    source text NOT NULL,
    position_time bigint NOT NULL,
    position_token bytea NOT NULL,
    saved_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE slackwater.processes (
    migration text NOT NULL,
    name text NOT NULL,
    instance bigint NOT NULL,
    role text NOT NULL,
    host text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    beat_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    events bigint DEFAULT 0 NOT NULL,
    rows bigint DEFAULT 0 NOT NULL,
    bytes bigint DEFAULT 0 NOT NULL,
    documents bigint DEFAULT 0 NOT NULL,
    trouble text
)
WITH (fillfactor='50');
CREATE TABLE slackwater.schema_version (
    version integer NOT NULL,
    made_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE slackwater.seen (
    id integer NOT NULL,
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL
);
ALTER TABLE slackwater.seen ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.seen_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.sources (
    migration text NOT NULL,
    source text NOT NULL,
    pulse_at timestamp with time zone,
    skew_ms bigint,
    operation_time bigint,
    read_through bigint,
    read_as_of bigint,
    oplog_from bigint,
    trouble text,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE slackwater.tallies (
    migration text NOT NULL,
    collection text NOT NULL,
    table_name text NOT NULL,
    column_name text NOT NULL,
    policy text NOT NULL,
    count bigint NOT NULL,
    sample_key bytea NOT NULL,
    last_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE ONLY slackwater.chunks
    ADD CONSTRAINT chunks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.collections
    ADD CONSTRAINT collections_pkey PRIMARY KEY (migration, collection);
ALTER TABLE ONLY slackwater.cutovers
    ADD CONSTRAINT cutovers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.dead_letters
    ADD CONSTRAINT dead_letters_migration_collection_digest_key UNIQUE (migration, collection, digest);
ALTER TABLE ONLY slackwater.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.fence_passes
    ADD CONSTRAINT fence_passes_pkey PRIMARY KEY (migration, id, lane);
ALTER TABLE ONLY slackwater.fences
    ADD CONSTRAINT fences_pkey PRIMARY KEY (migration, id);
ALTER TABLE ONLY slackwater.incidents
    ADD CONSTRAINT incidents_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.lanes
    ADD CONSTRAINT lanes_pkey PRIMARY KEY (migration, lane);
ALTER TABLE ONLY slackwater.log_partitions
    ADD CONSTRAINT log_partitions_pkey PRIMARY KEY (migration, topic, partition);
ALTER TABLE ONLY slackwater.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (name);
ALTER TABLE ONLY slackwater.partitions
    ADD CONSTRAINT partitions_pkey PRIMARY KEY (migration, topic, partition);
ALTER TABLE ONLY slackwater.positions
    ADD CONSTRAINT positions_pkey PRIMARY KEY (migration, source);
ALTER TABLE ONLY slackwater.processes
    ADD CONSTRAINT processes_pkey PRIMARY KEY (migration, name);
ALTER TABLE ONLY slackwater.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);
ALTER TABLE ONLY slackwater.seen
    ADD CONSTRAINT seen_migration_schema_name_table_name_key UNIQUE (migration, schema_name, table_name);
ALTER TABLE ONLY slackwater.seen
    ADD CONSTRAINT seen_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (migration, source);
ALTER TABLE ONLY slackwater.tallies
    ADD CONSTRAINT tallies_pkey PRIMARY KEY (migration, collection, table_name, column_name, policy);
CREATE INDEX chunks_of_collection ON slackwater.chunks USING btree (migration, collection, generation);
CREATE INDEX cutovers_of_migration ON slackwater.cutovers USING btree (migration, armed_at);
CREATE UNIQUE INDEX cutovers_standing ON slackwater.cutovers USING btree (migration) WHERE (state <> 'reverted'::text);
CREATE INDEX dead_letters_due ON slackwater.dead_letters USING btree (migration, retry_at);
ALTER TABLE ONLY slackwater.chunks
    ADD CONSTRAINT chunks_migration_collection_fkey FOREIGN KEY (migration, collection) REFERENCES slackwater.collections(migration, collection) ON DELETE CASCADE;
ALTER TABLE ONLY slackwater.collections
    ADD CONSTRAINT collections_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.cutovers
    ADD CONSTRAINT cutovers_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.dead_letters
    ADD CONSTRAINT dead_letters_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.fences
    ADD CONSTRAINT fences_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.incidents
    ADD CONSTRAINT incidents_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.lanes
    ADD CONSTRAINT lanes_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.log_partitions
    ADD CONSTRAINT log_partitions_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.partitions
    ADD CONSTRAINT partitions_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.positions
    ADD CONSTRAINT positions_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.seen
    ADD CONSTRAINT seen_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.sources
    ADD CONSTRAINT sources_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.tallies
    ADD CONSTRAINT tallies_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);

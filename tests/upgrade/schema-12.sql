-- The steps up to version 12, as pg_dump has them. Never changed.
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
CREATE FUNCTION slackwater.advance(of_migration text, of_lane text, of_epoch bigint, from_sequence bigint, new_time bigint, new_token bytea, new_source_time bigint, new_applied_through bigint, new_horizon bigint, more_events bigint, more_rows bigint, chunk bigint, chunk_documents bigint, has_rest boolean, rest_lo bytea, rest_hi bytea, new_as_of bigint, of_watching bigint) RETURNS void
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
CREATE FUNCTION slackwater.aware(of_migration text, of_watching bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1398206257, hashtext(of_migration));
    PERFORM FROM slackwater.migrations WHERE name = of_migration AND watching = of_watching;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'watching' USING ERRCODE = 'SW006';
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
CREATE FUNCTION slackwater.guard(of_migration text, of_source text, of_epoch bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    PERFORM FROM slackwater.captures
    WHERE migration = of_migration AND source = of_source AND epoch = of_epoch FOR SHARE;
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
CREATE FUNCTION slackwater.idle(of_migration text, of_references integer[], of_relations integer[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(1398206258, pg_catalog.hashtext(of_migration));
    IF EXISTS (SELECT FROM slackwater.waiting_for WHERE reference = ANY (of_references))
        OR EXISTS (SELECT FROM slackwater.waiting_rows WHERE relation = ANY (of_relations)) THEN
        RAISE EXCEPTION 'waiting' USING ERRCODE = 'SW008';
    END IF;
END $$;
CREATE FUNCTION slackwater.keep_versions(of_migration text, of_ids uuid[], of_collections text[], of_keys bytea[], are_known boolean[], were_last bytea[], are_first bytea[], are_last bytea[], were_number bigint[], are_number bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
DECLARE
    changed bigint := 0;
    added bigint;
BEGIN
    IF true = ANY (are_known) THEN
        UPDATE slackwater.versions AS v SET last = n.last, number = n.number, met_at = now()
        FROM unnest(of_ids, are_known, were_last, are_last, were_number, are_number) AS n(id, known, was, last, was_number, number)
        WHERE n.known AND v.migration = of_migration AND v.id = n.id AND v.last IS NOT DISTINCT FROM n.was AND v.number = n.was_number;
        GET DIAGNOSTICS changed = ROW_COUNT;
    END IF;
    INSERT INTO slackwater.versions (migration, id, collection, key, first, last, number)
    SELECT of_migration, n.id, n.collection, n.key, n.first, n.last, n.number
    FROM unnest(of_ids, of_collections, of_keys, are_known, are_first, are_last, are_number)
        AS n(id, collection, key, known, first, last, number)
    WHERE NOT n.known ORDER BY n.id ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF changed + added <> cardinality(of_ids) THEN
        RAISE EXCEPTION 'versions' USING ERRCODE = 'SW010';
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
    PERFORM FROM slackwater.captures WHERE migration = of_migration ORDER BY source FOR NO KEY UPDATE;
    UPDATE slackwater.captures SET epoch = epoch + 1 WHERE migration = of_migration;
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
    -- Taken before the guard, which may have to wait.
    present timestamptz := clock_timestamp();
    heard timestamptz := present - age_ms * interval '1 ms';
    skew bigint := source_clock - (extract(epoch FROM heard) * 1000)::bigint;
BEGIN
    PERFORM slackwater.guard(of_migration, of_source, of_epoch);
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
CREATE FUNCTION slackwater.refuse(of_table text, of_constraint text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    RAISE EXCEPTION 'watch' USING ERRCODE = 'SW007', TABLE = of_table, CONSTRAINT = of_constraint;
END $$;
CREATE FUNCTION slackwater.save_position(of_migration text, of_epoch bigint, of_source text, new_time bigint, new_token bytea, topics text[], partitions integer[], offsets bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    PERFORM slackwater.guard(of_migration, of_source, of_epoch);
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
CREATE FUNCTION slackwater.watch(of_migration text, of_schema text, of_table text, of_constraint text, other_schema text, other_table text, of_kind text, of_blocks boolean, of_by_key boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
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
CREATE TABLE slackwater.breaches (
    migration text NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL,
    count bigint NOT NULL,
    first_at timestamp with time zone DEFAULT now() NOT NULL,
    last_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT breaches_kind_check CHECK ((kind = ANY (ARRAY['update'::text, 'delete'::text, 'insert'::text])))
);
CREATE TABLE slackwater.captures (
    migration text NOT NULL,
    source text NOT NULL,
    kind text DEFAULT 'mongodb'::text NOT NULL,
    epoch bigint NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL
);
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
CREATE TABLE slackwater.claims (
    relation integer NOT NULL,
    id uuid NOT NULL,
    key text[] NOT NULL,
    document text NOT NULL
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
CREATE TABLE slackwater.cutover_sources (
    cutover uuid NOT NULL,
    source text NOT NULL,
    heard_at timestamp with time zone,
    fence_moment bigint
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
CREATE TABLE slackwater.findings (
    id bigint NOT NULL,
    proof bigint NOT NULL,
    kind text NOT NULL,
    explained text,
    collection text,
    key bytea,
    document text,
    schema_name text,
    table_name text,
    row_key text[],
    columns text[]
);
ALTER TABLE slackwater.findings ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.findings_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.gone (
    migration text NOT NULL,
    collection text NOT NULL,
    text text NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL,
    word text,
    CONSTRAINT gone_word_check CHECK ((word = ANY (ARRAY['keep'::text, 'follow'::text])))
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
CREATE TABLE slackwater.lacking (
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    key text[] NOT NULL,
    column_name text NOT NULL,
    wanted_in text NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
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
    as_of bigint,
    source text
)
WITH (fillfactor='50');
CREATE TABLE slackwater.log_partitions (
    migration text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    collection text NOT NULL,
    begin_offset bigint NOT NULL,
    acked_offset bigint,
    source text NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE slackwater.mappings (
    migration text NOT NULL,
    collection text NOT NULL,
    mapping text NOT NULL,
    out_since timestamp with time zone
);
CREATE TABLE slackwater.migrations (
    name text NOT NULL,
    file_hash text NOT NULL,
    namespace uuid NOT NULL,
    epoch bigint NOT NULL,
    first_started_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    log text DEFAULT 'direct'::text NOT NULL,
    watching bigint DEFAULT 0 NOT NULL,
    mapping text
);
CREATE TABLE slackwater.numbers (
    series integer NOT NULL,
    id uuid NOT NULL,
    number bigint NOT NULL
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
CREATE TABLE slackwater.proof_ranges (
    proof bigint NOT NULL,
    id integer NOT NULL,
    collection text NOT NULL,
    lo bytea,
    hi bytea,
    read_to bytea,
    done boolean DEFAULT false NOT NULL,
    documents bigint DEFAULT 0 NOT NULL
);
CREATE TABLE slackwater.proof_tables (
    proof bigint NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    rows bigint NOT NULL
);
CREATE TABLE slackwater.proofs (
    id bigint NOT NULL,
    migration text NOT NULL,
    scope text NOT NULL,
    whole boolean NOT NULL,
    began timestamp with time zone DEFAULT now() NOT NULL,
    ended timestamp with time zone,
    equal boolean,
    report text
);
ALTER TABLE slackwater.proofs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.proofs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.recopies (
    migration text NOT NULL,
    collection text NOT NULL,
    text text NOT NULL,
    kind text DEFAULT 'table_lost'::text NOT NULL
);
CREATE TABLE slackwater.relations (
    id integer NOT NULL,
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL
);
ALTER TABLE slackwater.relations ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.relations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.repairs (
    id bigint NOT NULL,
    migration text NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL
);
ALTER TABLE slackwater.repairs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.repairs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.schema_version (
    version integer NOT NULL,
    made_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE slackwater.seen (
    id integer NOT NULL,
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    source text NOT NULL
);
ALTER TABLE slackwater.seen ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.seen_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.sent (
    migration text NOT NULL,
    source text NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL,
    hash bytea
);
CREATE TABLE slackwater.sent_through (
    migration text NOT NULL,
    source text NOT NULL,
    moment bigint NOT NULL
);
CREATE TABLE slackwater.series (
    id integer NOT NULL,
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    column_name text NOT NULL
);
ALTER TABLE slackwater.series ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.series_id_seq
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
CREATE TABLE slackwater.standing (
    migration text NOT NULL,
    collection text NOT NULL,
    table_name text NOT NULL,
    kind text NOT NULL,
    text text NOT NULL,
    remedy text NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE slackwater.suspects (
    id bigint NOT NULL,
    proof bigint NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL
);
ALTER TABLE slackwater.suspects ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.suspects_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE slackwater.tables (
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    oid bigint NOT NULL,
    columns text[] NOT NULL,
    numbers integer[] NOT NULL,
    kinds text[] NOT NULL
);
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
CREATE TABLE slackwater.versions (
    migration text NOT NULL,
    id uuid NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL,
    first bytea NOT NULL,
    last bytea,
    number bigint NOT NULL,
    met_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE slackwater.waiting_for (
    reference integer NOT NULL,
    wanted text[] NOT NULL,
    relation integer NOT NULL,
    key text[] NOT NULL,
    beside text[]
);
CREATE TABLE slackwater.waiting_rows (
    relation integer NOT NULL,
    key text[] NOT NULL,
    owner text,
    held boolean NOT NULL,
    content text NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE slackwater.watched (
    id integer NOT NULL,
    migration text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    constraint_name text NOT NULL,
    to_schema text NOT NULL,
    to_table text NOT NULL,
    kind text NOT NULL,
    blocks boolean NOT NULL,
    by_key boolean NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE slackwater.watched ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME slackwater.watched_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE ONLY slackwater.breaches
    ADD CONSTRAINT breaches_pkey PRIMARY KEY (migration, id, kind);
ALTER TABLE ONLY slackwater.captures
    ADD CONSTRAINT captures_pkey PRIMARY KEY (migration, source);
ALTER TABLE ONLY slackwater.chunks
    ADD CONSTRAINT chunks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.claims
    ADD CONSTRAINT claims_pkey PRIMARY KEY (relation, id);
ALTER TABLE ONLY slackwater.claims
    ADD CONSTRAINT claims_relation_key_key UNIQUE (relation, key);
ALTER TABLE ONLY slackwater.collections
    ADD CONSTRAINT collections_pkey PRIMARY KEY (migration, collection);
ALTER TABLE ONLY slackwater.cutover_sources
    ADD CONSTRAINT cutover_sources_pkey PRIMARY KEY (cutover, source);
ALTER TABLE ONLY slackwater.cutovers
    ADD CONSTRAINT cutovers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.dead_letters
    ADD CONSTRAINT dead_letters_migration_collection_digest_key UNIQUE (migration, collection, digest);
ALTER TABLE ONLY slackwater.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.fence_passes
    ADD CONSTRAINT fence_passes_pkey PRIMARY KEY (migration, id, lane);
ALTER TABLE ONLY slackwater.findings
    ADD CONSTRAINT findings_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.gone
    ADD CONSTRAINT gone_pkey PRIMARY KEY (migration, collection);
ALTER TABLE ONLY slackwater.incidents
    ADD CONSTRAINT incidents_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.lacking
    ADD CONSTRAINT lacking_pkey PRIMARY KEY (migration, schema_name, table_name, key);
ALTER TABLE ONLY slackwater.lanes
    ADD CONSTRAINT lanes_pkey PRIMARY KEY (migration, lane);
ALTER TABLE ONLY slackwater.log_partitions
    ADD CONSTRAINT log_partitions_pkey PRIMARY KEY (migration, topic, partition);
ALTER TABLE ONLY slackwater.mappings
    ADD CONSTRAINT mappings_pkey PRIMARY KEY (migration, collection);
ALTER TABLE ONLY slackwater.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (name);
ALTER TABLE ONLY slackwater.numbers
    ADD CONSTRAINT numbers_pkey PRIMARY KEY (series, id);
ALTER TABLE ONLY slackwater.partitions
    ADD CONSTRAINT partitions_pkey PRIMARY KEY (migration, topic, partition);
ALTER TABLE ONLY slackwater.positions
    ADD CONSTRAINT positions_pkey PRIMARY KEY (migration, source);
ALTER TABLE ONLY slackwater.processes
    ADD CONSTRAINT processes_pkey PRIMARY KEY (migration, name);
ALTER TABLE ONLY slackwater.proof_ranges
    ADD CONSTRAINT proof_ranges_pkey PRIMARY KEY (proof, id);
ALTER TABLE ONLY slackwater.proof_tables
    ADD CONSTRAINT proof_tables_pkey PRIMARY KEY (proof, schema_name, table_name);
ALTER TABLE ONLY slackwater.proofs
    ADD CONSTRAINT proofs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.recopies
    ADD CONSTRAINT recopies_pkey PRIMARY KEY (migration, collection);
ALTER TABLE ONLY slackwater.relations
    ADD CONSTRAINT relations_migration_schema_name_table_name_key UNIQUE (migration, schema_name, table_name);
ALTER TABLE ONLY slackwater.relations
    ADD CONSTRAINT relations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.repairs
    ADD CONSTRAINT repairs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);
ALTER TABLE ONLY slackwater.seen
    ADD CONSTRAINT seen_migration_schema_name_table_name_source_key UNIQUE (migration, schema_name, table_name, source);
ALTER TABLE ONLY slackwater.seen
    ADD CONSTRAINT seen_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.sent
    ADD CONSTRAINT sent_pkey PRIMARY KEY (migration, source, collection, key);
ALTER TABLE ONLY slackwater.sent_through
    ADD CONSTRAINT sent_through_pkey PRIMARY KEY (migration, source);
ALTER TABLE ONLY slackwater.series
    ADD CONSTRAINT series_migration_schema_name_table_name_column_name_key UNIQUE (migration, schema_name, table_name, column_name);
ALTER TABLE ONLY slackwater.series
    ADD CONSTRAINT series_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (migration, source);
ALTER TABLE ONLY slackwater.standing
    ADD CONSTRAINT standing_pkey PRIMARY KEY (migration, collection);
ALTER TABLE ONLY slackwater.suspects
    ADD CONSTRAINT suspects_pkey PRIMARY KEY (id);
ALTER TABLE ONLY slackwater.tables
    ADD CONSTRAINT tables_pkey PRIMARY KEY (migration, schema_name, table_name);
ALTER TABLE ONLY slackwater.tallies
    ADD CONSTRAINT tallies_pkey PRIMARY KEY (migration, collection, table_name, column_name, policy);
ALTER TABLE ONLY slackwater.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (migration, id);
ALTER TABLE ONLY slackwater.waiting_for
    ADD CONSTRAINT waiting_for_pkey PRIMARY KEY (reference, wanted, relation, key);
ALTER TABLE ONLY slackwater.waiting_rows
    ADD CONSTRAINT waiting_rows_pkey PRIMARY KEY (relation, key);
ALTER TABLE ONLY slackwater.watched
    ADD CONSTRAINT watched_migration_schema_name_table_name_constraint_name_key UNIQUE (migration, schema_name, table_name, constraint_name);
ALTER TABLE ONLY slackwater.watched
    ADD CONSTRAINT watched_pkey PRIMARY KEY (id);
CREATE INDEX chunks_of_collection ON slackwater.chunks USING btree (migration, collection, generation);
CREATE INDEX cutovers_of_migration ON slackwater.cutovers USING btree (migration, armed_at);
CREATE UNIQUE INDEX cutovers_standing ON slackwater.cutovers USING btree (migration) WHERE (state <> 'reverted'::text);
CREATE INDEX dead_letters_due ON slackwater.dead_letters USING btree (migration, retry_at);
CREATE INDEX findings_proof_id_idx ON slackwater.findings USING btree (proof, id);
CREATE INDEX numbers_series_number_idx ON slackwater.numbers USING btree (series, number);
CREATE INDEX proofs_migration_id_idx ON slackwater.proofs USING btree (migration, id);
CREATE INDEX repairs_migration_collection_id_idx ON slackwater.repairs USING btree (migration, collection, id);
CREATE INDEX suspects_proof_id_idx ON slackwater.suspects USING btree (proof, id);
CREATE INDEX waiting_for_relation_key_idx ON slackwater.waiting_for USING btree (relation, key);
CREATE INDEX waiting_rows_relation_owner_idx ON slackwater.waiting_rows USING btree (relation, owner) WHERE (owner IS NOT NULL);
ALTER TABLE ONLY slackwater.captures
    ADD CONSTRAINT captures_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.chunks
    ADD CONSTRAINT chunks_migration_collection_fkey FOREIGN KEY (migration, collection) REFERENCES slackwater.collections(migration, collection) ON DELETE CASCADE;
ALTER TABLE ONLY slackwater.collections
    ADD CONSTRAINT collections_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.cutover_sources
    ADD CONSTRAINT cutover_sources_cutover_fkey FOREIGN KEY (cutover) REFERENCES slackwater.cutovers(id) ON DELETE CASCADE;
ALTER TABLE ONLY slackwater.cutovers
    ADD CONSTRAINT cutovers_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.dead_letters
    ADD CONSTRAINT dead_letters_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.findings
    ADD CONSTRAINT findings_proof_fkey FOREIGN KEY (proof) REFERENCES slackwater.proofs(id) ON DELETE CASCADE;
ALTER TABLE ONLY slackwater.gone
    ADD CONSTRAINT gone_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.incidents
    ADD CONSTRAINT incidents_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.lanes
    ADD CONSTRAINT lanes_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.log_partitions
    ADD CONSTRAINT log_partitions_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.mappings
    ADD CONSTRAINT mappings_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.partitions
    ADD CONSTRAINT partitions_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.positions
    ADD CONSTRAINT positions_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.proof_ranges
    ADD CONSTRAINT proof_ranges_proof_fkey FOREIGN KEY (proof) REFERENCES slackwater.proofs(id) ON DELETE CASCADE;
ALTER TABLE ONLY slackwater.proof_tables
    ADD CONSTRAINT proof_tables_proof_fkey FOREIGN KEY (proof) REFERENCES slackwater.proofs(id) ON DELETE CASCADE;
ALTER TABLE ONLY slackwater.proofs
    ADD CONSTRAINT proofs_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.recopies
    ADD CONSTRAINT recopies_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.relations
    ADD CONSTRAINT relations_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.repairs
    ADD CONSTRAINT repairs_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.seen
    ADD CONSTRAINT seen_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.series
    ADD CONSTRAINT series_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.sources
    ADD CONSTRAINT sources_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.standing
    ADD CONSTRAINT standing_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.suspects
    ADD CONSTRAINT suspects_proof_fkey FOREIGN KEY (proof) REFERENCES slackwater.proofs(id) ON DELETE CASCADE;
ALTER TABLE ONLY slackwater.tables
    ADD CONSTRAINT tables_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.tallies
    ADD CONSTRAINT tallies_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);
ALTER TABLE ONLY slackwater.watched
    ADD CONSTRAINT watched_migration_fkey FOREIGN KEY (migration) REFERENCES slackwater.migrations(name);

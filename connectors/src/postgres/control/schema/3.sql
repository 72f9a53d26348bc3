-- How far behind: what the source was as of some moment of its own clock, carried with the rows; who works; and what the
-- source says of itself. Nothing of it is ever written to the source.

-- The target shows everything that the source had at this moment of the source's clock, in milliseconds since 1970.
ALTER TABLE slackwater.lanes ADD COLUMN as_of bigint;
ALTER TABLE slackwater.partitions ADD COLUMN as_of bigint;

-- What a process that reads the source heard of it last, once a second.
CREATE TABLE slackwater.sources (
    migration text NOT NULL REFERENCES slackwater.migrations,
    source text NOT NULL,
    -- When it answered last, and how far its clock was ahead of ours.
    pulse_at timestamptz,
    skew_ms bigint,
    operation_time bigint,
    -- How far it was read into the log, and as of when.
    read_through bigint,
    read_as_of bigint,
    -- The oldest change that it still has; null where we may not ask.
    oplog_from bigint,
    -- What the reader waits for.
    trouble text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, source)
) WITH (fillfactor = 50);

-- Every process says once a second that it lives. No reference to migrations: an applier may be there before them.
CREATE TABLE slackwater.processes (
    migration text NOT NULL,
    name text NOT NULL,
    -- Tells two of the same name apart.
    instance bigint NOT NULL,
    role text NOT NULL,
    host text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    beat_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    events bigint NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    documents bigint NOT NULL DEFAULT 0,
    trouble text,
    PRIMARY KEY (migration, name)
) WITH (fillfactor = 50);

-- The source's clock is told with how long ago it was read; by whose clock plays no part. Null for what is not known anew.
CREATE FUNCTION slackwater.pulse(
    of_migration text, of_epoch bigint, of_source text, source_clock bigint, age_ms bigint, new_operation_time bigint,
    new_read_through bigint, new_read_as_of bigint, new_oplog_from bigint, new_trouble text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

-- As before, and `as_of`.
DROP FUNCTION slackwater.advance(
    text, text, bigint, bigint, bigint, bytea, bigint, bigint, bigint, bigint, bigint, bigint, bigint, bool, bytea, bytea
);
CREATE FUNCTION slackwater.advance(
    of_migration text, of_lane text, of_epoch bigint, from_sequence bigint,
    new_time bigint, new_token bytea, new_source_time bigint, new_applied_through bigint, new_horizon bigint,
    more_events bigint, more_rows bigint,
    chunk bigint, chunk_documents bigint, has_rest bool, rest_lo bytea, rest_hi bytea, new_as_of bigint
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

-- As before, and `as_of`.
DROP FUNCTION slackwater.advance_partitions(
    text, text[], int[], bigint[], bigint[], bigint[], bigint[], bigint[], bytea[], bigint[], bigint[], bigint[], bigint[],
    bigint[]
);
CREATE FUNCTION slackwater.advance_partitions(
    of_migration text, topics text[], partitions int[], epochs bigint[], from_offsets bigint[], to_offsets bigint[],
    capture_epochs bigint[], times bigint[], tokens bytea[], applied_throughs bigint[], source_times bigint[],
    more_events bigint[], more_duplicates bigint[], more_superseded bigint[], as_ofs bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
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

-- Kafka as the log. Two tables say how far it is: capture writes the one, appliers the other, so that saving a position
-- never waits for rows that are being written.

ALTER TABLE slackwater.migrations ADD COLUMN log text NOT NULL DEFAULT 'direct';

-- The log as capture knows it.
CREATE TABLE slackwater.log_partitions (
    migration text NOT NULL REFERENCES slackwater.migrations,
    topic text NOT NULL,
    partition int NOT NULL,
    collection text NOT NULL,
    -- Nothing of ours stands before it.
    begin_offset bigint NOT NULL,
    -- The highest one that the broker has acknowledged.
    acked_offset bigint,
    PRIMARY KEY (migration, topic, partition)
) WITH (fillfactor = 50);

-- How far each partition is applied.
CREATE TABLE slackwater.partitions (
    migration text NOT NULL REFERENCES slackwater.migrations,
    topic text NOT NULL,
    partition int NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    member text,
    next_offset bigint NOT NULL,
    capture_epoch bigint NOT NULL DEFAULT 0,
    position_time bigint,
    position_token bytea,
    applied_through bigint,
    source_time bigint,
    events bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    superseded bigint NOT NULL DEFAULT 0,
    -- Why nothing more can be read of it.
    lost text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, topic, partition)
) WITH (fillfactor = 50);

-- Right behind `advance`, in the same transaction: the partitions that events were taken from.
CREATE FUNCTION slackwater.advance_partitions(
    of_migration text, topics text[], partitions int[], epochs bigint[], from_offsets bigint[], to_offsets bigint[],
    capture_epochs bigint[], times bigint[], tokens bytea[], applied_throughs bigint[], source_times bigint[],
    more_events bigint[], more_duplicates bigint[], more_superseded bigint[]
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
        events = p.events + s.events,
        duplicates = p.duplicates + s.duplicates,
        superseded = p.superseded + s.superseded,
        updated_at = now()
    FROM unnest(
        topics, partitions, epochs, from_offsets, to_offsets, capture_epochs, times, tokens, applied_throughs,
        source_times, more_events, more_duplicates, more_superseded
    ) AS s(
        topic, partition, epoch, from_offset, to_offset, capture_epoch, new_time, new_token, new_applied_through,
        new_source_time, events, duplicates, superseded
    )
    WHERE p.migration = of_migration AND p.topic = s.topic AND p.partition = s.partition
      AND p.epoch = s.epoch AND p.next_offset = s.from_offset;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved < cardinality(topics) THEN
        RAISE EXCEPTION 'revoked' USING ERRCODE = 'SW003';
    END IF;
END $$;

-- What capture has sent and the broker has acknowledged, with the position behind it: one call, one transaction.
CREATE FUNCTION slackwater.save_position(
    of_migration text, of_epoch bigint, of_source text, new_time bigint, new_token bytea,
    topics text[], partitions int[], offsets bigint[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

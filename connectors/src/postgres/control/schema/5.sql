-- Every source has a capture of its own, with its own epoch, lanes named after the source, and a row of its own in a cutover.
-- Before this version a migration had exactly one source, and everything belonged to that source.

-- Processes of the version before may still write. All locks are taken first, in the order in which those processes take theirs, so
-- that this waits for them instead of meeting them half way.
LOCK TABLE slackwater.migrations, slackwater.lanes, slackwater.partitions, slackwater.log_partitions, slackwater.positions,
    slackwater.sources, slackwater.fence_passes, slackwater.cutovers IN ACCESS EXCLUSIVE MODE;

CREATE TABLE slackwater.captures (
    migration text NOT NULL REFERENCES slackwater.migrations,
    source text NOT NULL,
    -- The kind of system.
    kind text NOT NULL DEFAULT 'mongodb',
    epoch bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, source)
);

-- Supersedes processes of the previous version: they know one epoch for the whole migration.
UPDATE slackwater.migrations SET epoch = epoch + 1;

-- The name of the one source, from wherever it is recorded. A migration that has recorded it nowhere has copied nothing; its lanes
-- go to the first source that is taken over.
INSERT INTO slackwater.captures (migration, source, epoch)
SELECT migration, source, epoch FROM (
    SELECT m.name AS migration, m.epoch, coalesce(
        (SELECT s.source FROM slackwater.sources AS s WHERE s.migration = m.name ORDER BY s.updated_at DESC LIMIT 1),
        (SELECT p.source FROM slackwater.positions AS p WHERE p.migration = m.name ORDER BY p.saved_at DESC LIMIT 1),
        (SELECT split_part(c.collection, '.', 1) FROM slackwater.collections AS c WHERE c.migration = m.name LIMIT 1),
        (SELECT split_part(l.collection, '.', 1) FROM slackwater.log_partitions AS l WHERE l.migration = m.name LIMIT 1)
    ) AS source
    FROM slackwater.migrations AS m
) AS known WHERE source IS NOT NULL;

-- The lanes of a capture are named `capture/<source>`, `capture/<source>/stream` and `capture/<source>/copy/<n>`. The lanes of
-- appliers have no source and keep their names, `apply/<member>/<n>`.
ALTER TABLE slackwater.lanes ADD COLUMN source text;
UPDATE slackwater.lanes AS l SET source = c.source,
    lane = 'capture/' || c.source || CASE WHEN l.lane = 'capture' THEN '' ELSE '/' || l.lane END
FROM slackwater.captures AS c
WHERE c.migration = l.migration AND l.lane NOT LIKE 'apply/%';
UPDATE slackwater.fence_passes AS p SET lane = 'capture/' || c.source || '/stream'
FROM slackwater.captures AS c
WHERE c.migration = p.migration AND p.lane = 'stream';

ALTER TABLE slackwater.log_partitions ADD COLUMN source text;
UPDATE slackwater.log_partitions SET source = split_part(collection, '.', 1);
ALTER TABLE slackwater.log_partitions ALTER COLUMN source SET NOT NULL;

-- No program ever read it.
DROP TABLE slackwater.fences;

-- One row for each source of a cutover: whether its capture has answered, and which moment its fence waits for.
CREATE TABLE slackwater.cutover_sources (
    cutover uuid NOT NULL REFERENCES slackwater.cutovers ON DELETE CASCADE,
    source text NOT NULL,
    -- Since when its capture follows closely.
    heard_at timestamptz,
    -- The capture sends the fence as soon as it has passed this moment of the source.
    fence_moment bigint,
    PRIMARY KEY (cutover, source)
);
INSERT INTO slackwater.cutover_sources (cutover, source, heard_at, fence_moment)
SELECT k.id, c.source, k.heard_at, k.fence_time
FROM slackwater.cutovers AS k JOIN slackwater.captures AS c USING (migration)
WHERE k.state <> 'reverted';
-- `cutovers.heard_at` and `cutovers.fence_time` stay, unused: a process of the version before still reads them, and is to learn from its
-- epoch that it was superseded.

-- Locks the row of a source's capture until the end of the transaction. Raises an error if the capture was superseded.
CREATE FUNCTION slackwater.guard(of_migration text, of_source text, of_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM slackwater.captures
    WHERE migration = of_migration AND source = of_source AND epoch = of_epoch FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'SW001';
    END IF;
END $$;

-- As in version 2, but guarded by the epoch of the source.
CREATE OR REPLACE FUNCTION slackwater.save_position(
    of_migration text, of_epoch bigint, of_source text, new_time bigint, new_token bytea,
    topics text[], partitions int[], offsets bigint[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

CREATE OR REPLACE FUNCTION slackwater.pulse(
    of_migration text, of_epoch bigint, of_source text, source_clock bigint, age_ms bigint, new_operation_time bigint,
    new_read_through bigint, new_read_as_of bigint, new_oplog_from bigint, new_trouble text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

-- As in version 4, but it raises the epoch of every capture as well.
CREATE OR REPLACE FUNCTION slackwater.open_cutover(of_id uuid, of_owner uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

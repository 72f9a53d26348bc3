-- The switch. A migration has one cutover at most that was not taken back, and the one that opened is its last word.
--
--   armed ──► freezing ──► frozen ──► open
--     └──────────┴────────────┴─────► reverting ──► reverted
--
-- Every arrow is one conditional update, so of two that could follow only one is ever taken. `freezing` stands there before the
-- source is asked to freeze, and `reverting` before it is asked to unfreeze: whoever comes later knows what may have happened.

CREATE TABLE slackwater.cutovers (
    id uuid PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    state text NOT NULL DEFAULT 'armed'
        CHECK (state IN ('armed', 'freezing', 'frozen', 'open', 'reverting', 'reverted')),
    -- The process that goes on with it, and its session here.
    owner uuid NOT NULL,
    host text NOT NULL,
    backend int NOT NULL DEFAULT pg_backend_pid(),
    way text NOT NULL,
    deadline_ms bigint NOT NULL,
    armed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Capture follows closely since then.
    heard_at timestamptz,
    -- What capture is to send as soon as it has passed that time of the source.
    fence_id uuid,
    fence_time bigint,
    -- From here on the source may be frozen; the deadline counts from it.
    freezing_at timestamptz,
    frozen_at timestamptz,
    open_at timestamptz,
    ended_at timestamptz,
    reason text,
    -- The team was told.
    told_at timestamptz,
    report text
);
CREATE UNIQUE INDEX cutovers_standing ON slackwater.cutovers (migration) WHERE state <> 'reverted';
CREATE INDEX cutovers_of_migration ON slackwater.cutovers (migration, armed_at);

CREATE FUNCTION slackwater.switched(of_migration text) RETURNS bool
LANGUAGE sql SET search_path = pg_catalog AS $$
    SELECT EXISTS (SELECT FROM slackwater.cutovers WHERE migration = of_migration AND state = 'open')
$$;

-- Nothing is written for a migration that was switched.
CREATE FUNCTION slackwater.unless_switched(of_migration text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF slackwater.switched(of_migration) THEN
        RAISE EXCEPTION 'switched' USING ERRCODE = 'SW004';
    END IF;
END $$;

-- The last step of a cutover. Whoever writes for the migration owns a row with an epoch; from this transaction on all of
-- them are too old, and none can be made newer. What they have under way is waited for.
CREATE FUNCTION slackwater.open_cutover(of_id uuid, of_owner uuid) RETURNS void
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
    PERFORM FROM slackwater.lanes WHERE migration = of_migration ORDER BY lane FOR NO KEY UPDATE;
    UPDATE slackwater.lanes SET epoch = epoch + 1 WHERE migration = of_migration;
    PERFORM FROM slackwater.partitions WHERE migration = of_migration ORDER BY topic, partition FOR NO KEY UPDATE;
    UPDATE slackwater.partitions SET epoch = epoch + 1, member = NULL WHERE migration = of_migration;
END $$;

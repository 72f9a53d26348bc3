-- What an operator has accepted at a cutover although it blocks: the names of blockers, of each what there was of it (empty: nothing, when
-- it was accepted), and why.
ALTER TABLE slackwater.cutovers
    ADD COLUMN accepted text[] NOT NULL DEFAULT '{}',
    ADD COLUMN accepted_texts text[] NOT NULL DEFAULT '{}',
    ADD COLUMN accepted_reason text,
    ADD COLUMN accepted_at timestamptz;

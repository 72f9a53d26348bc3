-- What the checks of the migration file have last said. docs/design/checks.md has the reasons.
CREATE TABLE slackwater.checks (
    migration text NOT NULL REFERENCES slackwater.migrations,
    name text NOT NULL,
    -- Of the last run: holds, fails, unsettled, cannot_run.
    verdict text NOT NULL,
    -- What it says, without a value of anybody's.
    text text NOT NULL,
    -- When the last run began, and when the last one that came to a verdict.
    ran_at timestamptz NOT NULL,
    settled_at timestamptz,
    -- By the last run that came to a verdict. Null: there was none.
    failing bool,
    -- Since when that is so.
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, name)
);

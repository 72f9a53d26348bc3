-- Several sources. Each has its own lists of the rows that a recopy has seen: two that fill one table are recopied each on its own.
ALTER TABLE slackwater.seen ADD COLUMN source text;
-- Until now a migration had only one.
UPDATE slackwater.seen AS s SET source = coalesce(
    (SELECT min(c.source) FROM slackwater.captures AS c WHERE c.migration = s.migration), '');
ALTER TABLE slackwater.seen ALTER COLUMN source SET NOT NULL;
ALTER TABLE slackwater.seen DROP CONSTRAINT seen_migration_schema_name_table_name_key;
ALTER TABLE slackwater.seen ADD UNIQUE (migration, schema_name, table_name, source);

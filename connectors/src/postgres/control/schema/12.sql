-- Verifications: what documents make is compared with what stands. docs/design/verification.md has the reasons.
CREATE TABLE slackwater.proofs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    -- What it is about: the mapping, the tables, the collections. One of another scope is not gone on with.
    scope text NOT NULL,
    -- All collections, and all their documents.
    whole bool NOT NULL,
    began timestamptz NOT NULL DEFAULT now(),
    ended timestamptz,
    -- It has found nothing, nothing is unsettled, and nothing was left out.
    equal bool,
    -- What it said in the end, as JSON.
    report text
);
CREATE INDEX ON slackwater.proofs (migration, id);

-- What is to be read. Bounds as in `chunks`.
CREATE TABLE slackwater.proof_ranges (
    proof bigint NOT NULL REFERENCES slackwater.proofs ON DELETE CASCADE,
    id int NOT NULL,
    collection text NOT NULL,
    lo bytea,
    hi bytea,
    -- How far it is read, where that is less than all of it.
    read_to bytea,
    done bool NOT NULL DEFAULT false,
    documents bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (proof, id)
);

-- Rows that were compared, by table.
CREATE TABLE slackwater.proof_tables (
    proof bigint NOT NULL REFERENCES slackwater.proofs ON DELETE CASCADE,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    rows bigint NOT NULL,
    PRIMARY KEY (proof, schema_name, table_name)
);

-- Documents that have to be looked at again.
CREATE TABLE slackwater.suspects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    proof bigint NOT NULL REFERENCES slackwater.proofs ON DELETE CASCADE,
    collection text NOT NULL,
    key bytea NOT NULL
);
CREATE INDEX ON slackwater.suspects (proof, id);

-- What is not as it should be, and what explains it.
CREATE TABLE slackwater.findings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    proof bigint NOT NULL REFERENCES slackwater.proofs ON DELETE CASCADE,
    -- missing, different, extra: a row. refused: a document without rows. unsettled: a document that was never at rest.
    kind text NOT NULL,
    -- Where it is no finding: letter, waiting, lacking.
    explained text,
    collection text,
    key bytea,
    -- For people: the collection and the id of the document.
    document text,
    schema_name text,
    table_name text,
    row_key text[],
    columns text[]
);
CREATE INDEX ON slackwater.findings (proof, id);

-- Documents that are to be read again because their rows were found to be wrong.
CREATE TABLE slackwater.repairs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES slackwater.migrations,
    collection text NOT NULL,
    key bytea NOT NULL
);
CREATE INDEX ON slackwater.repairs (migration, collection, id);

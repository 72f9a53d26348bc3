-- Collections in which the first version of a document stands, and those of which every version is a row. docs/design/append-only.md and
-- docs/design/history.md have the reasons.

-- Documents of which a version was written.
CREATE TABLE slackwater.versions (
    migration text NOT NULL,
    -- Made of the document's id.
    id uuid NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL,
    -- A digest of the version that stands.
    first bytea NOT NULL,
    -- Of the one that the source had when we last heard of it. Null: it is deleted there.
    last bytea,
    -- How many versions are rows, where all are; otherwise 0.
    number bigint NOT NULL,
    -- When the document was last met: at the end of a recopy it tells which are gone.
    met_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, id)
);

-- Changes of such documents, which were not applied.
CREATE TABLE slackwater.breaches (
    migration text NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('update', 'delete', 'insert')),
    collection text NOT NULL,
    key bytea NOT NULL,
    count bigint NOT NULL,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (migration, id, kind)
);

-- Keeps what is known of these documents from now on. Raises an error if it is not what the writer believes until now: somebody else has
-- written one of them since it looked.
CREATE FUNCTION slackwater.keep_versions(
    of_migration text, of_ids uuid[], of_collections text[], of_keys bytea[], are_known bool[], were_last bytea[], are_first bytea[],
    are_last bytea[], were_number bigint[], are_number bigint[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
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

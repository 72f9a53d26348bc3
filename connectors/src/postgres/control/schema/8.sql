-- Whose row is whose, in tables in which nothing of the key is made of the document's id. docs/design/keys.md has the reasons.
CREATE TABLE slackwater.claims (
    relation int NOT NULL,
    -- The identifier that is made of the document's id.
    id uuid NOT NULL,
    -- The row's key, each column as text.
    key text[] NOT NULL,
    -- The document, for people: its collection and its id.
    document text NOT NULL,
    PRIMARY KEY (relation, id),
    UNIQUE (relation, key)
);

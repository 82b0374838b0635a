-- Files that all processes share: bundles, deprecations, drawn flows and named tokens, by drawer and name.
-- `sha256` and `content` are null once a file was taken away: what a process finds in its own data directory is not
-- brought back then.
-- `change_id` is that of the change that wrote the row: after a lost connection it tells whether the COMMIT arrived.
-- The counter `shelf` has the highest `revision`. Its row is locked until the commit: whoever has seen a revision has
-- seen all before it.
CREATE TABLE shelf (
    drawer text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    change_id text NOT NULL,
    sha256 text COLLATE "C",
    content bytea,
    PRIMARY KEY (drawer, name)
);
ALTER TABLE shelf ALTER COLUMN content SET STORAGE EXTERNAL;
INSERT INTO counters (name, value) VALUES ('shelf', 0);

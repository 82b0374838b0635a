-- The tables of the gateway. They lie in a schema of their own, `abstractgateway`, which is the search path here.

-- What a run is, where its ledger ends, and who drives it. A row of revision 0 has a ledger only.
-- `number` is the order in which runs were stored, `touched` the order in which they were written.
-- `changed` is the transaction that wrote the row last: whoever asks for the rows of all transactions that were not
-- over when they last looked misses none, which no sequence can promise while several writers commit at once.
-- `slot` is what runners divide the runs by; a run is in that of its parent.
CREATE TABLE runs (
    run_id text COLLATE "C" PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    touched bigint GENERATED ALWAYS AS IDENTITY,
    changed xid8 NOT NULL DEFAULT pg_current_xact_id(),
    workflow_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    wait_reason text COLLATE "C",
    wait_key text COLLATE "C",
    wait_due double precision,
    parent_run_id text COLLATE "C",
    actor_id text COLLATE "C",
    session_id text COLLATE "C",
    created_at text NOT NULL,
    updated_at text NOT NULL,
    created_s double precision NOT NULL,
    updated_s double precision NOT NULL,
    revision bigint NOT NULL,
    ledger_len bigint NOT NULL,
    ledger_hash text COLLATE "C",
    delta_count integer NOT NULL DEFAULT 0,
    slot integer NOT NULL,
    body text NOT NULL
);
CREATE INDEX runs_changed ON runs (changed);
CREATE INDEX runs_updated ON runs (updated_s, number) WHERE revision > 0;
CREATE INDEX runs_status ON runs (status, updated_s, number) WHERE revision > 0;
CREATE INDEX runs_workflow ON runs (workflow_id, status, updated_s, number) WHERE revision > 0;
CREATE INDEX runs_session ON runs (session_id, updated_s, number) WHERE session_id IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent_run_id, created_s, run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX runs_timers ON runs (wait_due) WHERE wait_due IS NOT NULL;
CREATE INDEX runs_wait_key ON runs (wait_key) WHERE wait_key IS NOT NULL;

-- The runs that were removed, as far as their ids are kept.
CREATE TABLE removed_runs (run_id text COLLATE "C" PRIMARY KEY);

-- The processes that drive runs, each under an epoch that its commits carry. A commit holds the row, so that nobody can
-- declare an epoch over while something is being written under it.
CREATE TABLE runners (
    epoch bigint PRIMARY KEY,
    writer_id text COLLATE "C",
    pid integer NOT NULL,
    host text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
);

-- Who drives the runs of which slot. The slot -1 has no runs: whoever holds it applies the commands.
CREATE TABLE slots (
    slot integer PRIMARY KEY,
    epoch bigint REFERENCES runners ON DELETE SET NULL
);
INSERT INTO slots (slot) SELECT generate_series(-1, 127);
CREATE INDEX slots_epoch ON slots (epoch);

-- What changed in a large checkpoint since `runs.body` was written; `runs.delta_count` says how many there are.
CREATE TABLE run_deltas (
    run_id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    delta text NOT NULL,
    PRIMARY KEY (run_id, revision)
);

-- The records, as the JSON text that readers get.
CREATE TABLE ledger (
    run_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    record text NOT NULL,
    PRIMARY KEY (run_id, seq)
);

-- `seq` comes from the counter `command_seq`, whose row is locked until the commit: a reader who has seen a command
-- has seen all before it.
CREATE TABLE commands (
    seq bigint PRIMARY KEY,
    command_id text COLLATE "C" NOT NULL UNIQUE,
    run_id text COLLATE "C" NOT NULL,
    type text NOT NULL,
    payload text NOT NULL,
    ts text NOT NULL,
    client_id text,
    outcome text,
    outcome_reason text,
    outcome_at text
);
CREATE INDEX commands_run ON commands (run_id);

CREATE TABLE counters (name text COLLATE "C" PRIMARY KEY, value bigint NOT NULL);
INSERT INTO counters (name, value) VALUES ('command_cursor', 0), ('command_seq', 0), ('epoch', 0);

-- The last batch that each writer has committed: after a lost connection this tells whether the COMMIT arrived.
CREATE TABLE writers (
    writer_id text COLLATE "C" PRIMARY KEY,
    batch bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- The bytes of artifacts under the SHA-256 of their content, in pieces that can be read alone; each piece has its own.
CREATE TABLE blobs (
    blob_id text COLLATE "C" PRIMARY KEY,
    size_bytes bigint NOT NULL
);
CREATE TABLE blob_pieces (
    blob_id text COLLATE "C" NOT NULL REFERENCES blobs ON DELETE CASCADE,
    number integer NOT NULL,
    digest bytea NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (blob_id, number)
);
ALTER TABLE blob_pieces ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE artifacts (
    artifact_id text COLLATE "C" PRIMARY KEY,
    blob_id text COLLATE "C" NOT NULL REFERENCES blobs,
    content_type text NOT NULL,
    size_bytes bigint NOT NULL,
    created_at text NOT NULL,
    run_id text COLLATE "C",
    tags text NOT NULL
);
CREATE INDEX artifacts_run ON artifacts (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX artifacts_blob ON artifacts (blob_id);

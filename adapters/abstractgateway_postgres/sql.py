"""The SQL of the PostgreSQL stores; the tables are in `migrations`."""

from __future__ import annotations

SCHEMA = "abstractgateway"

SET_SESSION = """
SELECT pg_is_in_recovery(), COUNT(set_config(name, value, false))
FROM unnest(%b::text[], %b::text[]) AS wanted (name, value)
"""
COMPRESS_QUICKLY = """
SELECT set_config(name, 'lz4', false) FROM pg_settings
WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)
"""
SYNC_COMMITS = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)

ROW_NAMES = (
    "run_id",
    "workflow_id",
    "status",
    "wait_reason",
    "wait_key",
    "wait_due",
    "parent_run_id",
    "actor_id",
    "session_id",
    "created_at",
    "updated_at",
    "revision",
    "ledger_len",
    "slot",
)
ROW_COLUMNS = ", ".join(f"runs.{name}" for name in ROW_NAMES)
ROW_OF_RUN = f"SELECT {ROW_COLUMNS} FROM runs WHERE run_id = %s AND revision > 0"
LATEST_FIRST = "ORDER BY updated_s DESC, number DESC"
OPEN_RUN = """
SELECT revision, ledger_len, ledger_hash, body, CASE WHEN delta_count > 0 THEN
    ARRAY(SELECT delta FROM run_deltas WHERE run_deltas.run_id = runs.run_id ORDER BY run_deltas.revision) END
FROM runs WHERE run_id = %s AND revision > 0
"""
HEAD_OF_RUN = "SELECT revision, ledger_len, ledger_hash FROM runs WHERE run_id = %s"
COUNT_RUNS = "SELECT status, COUNT(*) FROM runs WHERE revision > 0 GROUP BY status"
WAITING_ON = "SELECT run_id FROM runs WHERE wait_key = ANY(%b::text[]) ORDER BY updated_s, touched"
CHILDREN = "SELECT run_id FROM runs WHERE parent_run_id = %s AND revision > 0 ORDER BY created_s, run_id"
READ_RECORDS = "SELECT record FROM ledger WHERE run_id = %s AND seq > %s AND seq <= %s ORDER BY seq"

COMMAND_COLUMNS = "command_id, run_id, type, payload, ts, client_id, seq"
COMMANDS_AFTER = f"SELECT {COMMAND_COLUMNS} FROM commands WHERE seq > %s ORDER BY seq LIMIT %s"
COMMAND_BY_ID = f"SELECT {COMMAND_COLUMNS} FROM commands WHERE command_id = %s"
OUTCOME_OF_COMMAND = "SELECT seq, command_id, outcome, outcome_reason, outcome_at FROM commands WHERE command_id = %s"
COUNTER = "SELECT value FROM counters WHERE name = %s"

NEWS = f"""
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    (SELECT value FROM counters WHERE name = 'command_seq'), changed::text::bigint, {ROW_COLUMNS}
FROM (VALUES (1)) AS always LEFT JOIN runs ON runs.changed >= %s::text::xid8 AND runs.revision > 0
ORDER BY changed, touched
"""
NEWS_BEGIN = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, (SELECT value FROM counters WHERE name = 'command_seq')
"""
IS_FROM_ANOTHER_SERVER = "SELECT EXISTS (SELECT 1 FROM runs WHERE changed >= pg_snapshot_xmax(pg_current_snapshot()))"
LOCK_RUNS = "LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE"
FORGET_OTHER_SERVER = "UPDATE runs SET changed = '3'::xid8 WHERE changed >= pg_snapshot_xmax(pg_current_snapshot())"

# Writing. Locks are taken in one order by everybody: buckets, runs by their ids, the counter of the commands.

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
LOCK_BUCKETS = """
SELECT CASE WHEN is_alone THEN pg_advisory_xact_lock(1095190599, bucket)::text
    ELSE pg_advisory_xact_lock_shared(1095190599, bucket)::text END
FROM unnest(%b::int[], %b::bool[]) AS wanted (bucket, is_alone)
"""
LOCK_HEADS = """
SELECT run_id, revision, ledger_len, delta_count, slot FROM runs WHERE run_id = ANY(%b::text[])
ORDER BY run_id FOR NO KEY UPDATE
"""
LOCK_COMMANDS = "SELECT value FROM counters WHERE name = 'command_seq' FOR UPDATE"
SEQS_OF_COMMANDS = "SELECT command_id, seq FROM commands WHERE command_id = ANY(%b::text[])"
WAITERS = "SELECT wait_key, run_id FROM runs WHERE wait_key = ANY(%b::text[])"
SLOTS = "SELECT run_id, slot FROM runs WHERE run_id = ANY(%b::text[])"
XACT = "SELECT pg_current_xact_id()::text::bigint"
LOCK_EPOCHS = "SELECT epoch FROM runners WHERE epoch = ANY(%b::int8[]) ORDER BY epoch FOR KEY SHARE"

_STATE = (
    ("run_id", "text"),
    ("workflow_id", "text"),
    ("status", "text"),
    ("wait_reason", "text"),
    ("wait_key", "text"),
    ("wait_due", "float8"),
    ("parent_run_id", "text"),
    ("actor_id", "text"),
    ("session_id", "text"),
    ("created_at", "text"),
    ("updated_at", "text"),
    ("created_s", "float8"),
    ("updated_s", "float8"),
    ("revision", "int8"),
    ("ledger_len", "int8"),
    ("ledger_hash", "text"),
    ("delta_count", "int4"),
    ("slot", "int4"),
    ("body", "text"),
)
"""What a write of a run's state gives, in this order; `delta_count` is how many deltas it adds."""
STATE_NAMES = ", ".join(name for name, _ in _STATE)
STATE_ARRAYS = ", ".join(f"%b::{kind}[]" for _, kind in _STATE)
_CHANGED = tuple(name for name, _ in _STATE if name not in ("run_id", "body", "ledger_hash", "delta_count", "slot"))

SET_RUN = f"""
SET {", ".join(f"{name} = new.{name}" for name in _CHANGED)},
    delta_count = new.delta_count + CASE WHEN new.body IS NULL THEN runs.delta_count ELSE 0 END,
    ledger_hash = CASE WHEN new.ledger_len > runs.ledger_len THEN new.ledger_hash ELSE runs.ledger_hash END,
    body = COALESCE(new.body, runs.body), touched = DEFAULT, changed = pg_current_xact_id()
"""
ADD_RUNS = f"INSERT INTO runs ({STATE_NAMES}) SELECT {STATE_NAMES} FROM unnest({STATE_ARRAYS}) AS new ({STATE_NAMES})"
CHANGE_RUNS = f"""
UPDATE runs {SET_RUN} FROM unnest({STATE_ARRAYS}) AS new ({STATE_NAMES}) WHERE runs.run_id = new.run_id
"""
CHANGE_HEADS = f"""
UPDATE runs SET ledger_len = new.ledger_len, ledger_hash = new.ledger_hash, touched = DEFAULT,
    changed = pg_current_xact_id()
FROM unnest(%b::text[], %b::int8[], %b::text[]) AS new (run_id, ledger_len, ledger_hash)
WHERE runs.run_id = new.run_id RETURNING {ROW_COLUMNS}
"""
DROP_RUNS = "DELETE FROM runs WHERE run_id = ANY(%b::text[])"
DROP_RECORDS = "DELETE FROM ledger WHERE run_id = ANY(%b::text[])"
KEEP_IDS = "INSERT INTO removed_runs (run_id) SELECT * FROM unnest(%b::text[]) ON CONFLICT DO NOTHING"
KEPT_ID = "SELECT 1 FROM removed_runs WHERE run_id = %s"
KEPT_IDS = "SELECT run_id FROM removed_runs ORDER BY run_id"
DROP_DELTAS = "DELETE FROM run_deltas WHERE run_id = ANY(%b::text[])"
ADD_DELTAS = "INSERT INTO run_deltas (run_id, revision, delta) SELECT * FROM unnest(%b::text[], %b::int8[], %b::text[])"
ADD_RECORDS = "INSERT INTO ledger (run_id, seq, record) SELECT * FROM unnest(%b::text[], %b::int8[], %b::text[])"
ADD_COMMANDS = """
INSERT INTO commands (seq, command_id, run_id, type, payload, ts, client_id)
SELECT * FROM unnest(%b::int8[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
"""
SET_COUNTER = "UPDATE counters SET value = GREATEST(value, %s) WHERE name = %s"
SET_OUTCOMES = """
UPDATE commands SET outcome = new.outcome, outcome_reason = new.reason, outcome_at = new.at
FROM unnest(%b::int8[], %b::text[], %b::text[], %b::text[]) AS new (seq, outcome, reason, at)
WHERE commands.seq = new.seq
"""
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

END_OLD_SELF = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = %s AND pid <> pg_backend_pid() AND usename = current_user
"""
ON_MARK = "ON CONFLICT (writer_id) DO UPDATE SET batch = excluded.batch, seen_at = now()"
MARK_BATCH = f"INSERT INTO writers (writer_id, batch) VALUES (%s, %s) {ON_MARK}"
GREET = """
INSERT INTO writers (writer_id, batch) VALUES (%s, 0) ON CONFLICT (writer_id) DO UPDATE SET seen_at = now()
RETURNING batch
"""
RECALL = "SELECT run_id, changed::text::int8, slot FROM runs WHERE run_id = ANY(%b::text[])"
DROP_WRITER = "DELETE FROM writers WHERE writer_id = %s OR seen_at < now() - interval '7 days'"

# Sharing the runs. A lease of `claim` has no end: it is over when somebody else claims or joins.

NEXT_EPOCH = "UPDATE counters SET value = value + 1 WHERE name = 'epoch' RETURNING value"
DROP_RUNNERS = "DELETE FROM runners"
DROP_CLAIMED = "DELETE FROM runners WHERE lease_until = 'infinity'"
ADD_RUNNER = """
INSERT INTO runners (epoch, writer_id, pid, host, lease_until)
VALUES (%s, %s, %s, %s, clock_timestamp() + %s * interval '1 second')
"""
ADD_CLAIM = "INSERT INTO runners (epoch, pid, host, lease_until) VALUES (%s, %s, %s, 'infinity')"
TAKE_ALL = "UPDATE slots SET epoch = %s"
RENEW = """
UPDATE runners SET lease_until = clock_timestamp() + %s * interval '1 second' WHERE epoch = %s RETURNING epoch
"""
END_STALLED = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND application_name IN
    (SELECT 'abstractgateway ' || writer_id FROM runners WHERE lease_until < clock_timestamp())
"""
DROP_EXPIRED = """
DELETE FROM runners WHERE epoch IN
    (SELECT epoch FROM runners WHERE lease_until < clock_timestamp() ORDER BY epoch FOR UPDATE SKIP LOCKED)
RETURNING epoch
"""
STANDING = """
SELECT (SELECT COUNT(*) FROM runners WHERE lease_until >= clock_timestamp()),
    EXISTS (SELECT 1 FROM runners WHERE lease_until < clock_timestamp()),
    ARRAY(SELECT slot FROM slots WHERE epoch = %s)
"""
TAKE_SLOTS = """
UPDATE slots SET epoch = %s WHERE slot IN
    (SELECT slot FROM slots WHERE epoch IS NULL AND slot BETWEEN %s AND %s ORDER BY slot
    LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING slot
"""
GIVE_SLOTS = "UPDATE slots SET epoch = NULL WHERE epoch = %s AND slot = ANY(%s::int[])"
LEAVE = "DELETE FROM runners WHERE epoch = %s"
APPLIER = """
SELECT pid, host, since FROM runners JOIN slots USING (epoch) WHERE lease_until >= clock_timestamp()
ORDER BY slot LIMIT 1
"""
TELL_RUNNERS = "SELECT pg_notify('abstractgateway', 'shares')"
LAST_LEASE = "SELECT LEAST(lease_until, clock_timestamp()) FROM runners ORDER BY lease_until DESC LIMIT 1"

ARTIFACT_COLUMNS = "artifact_id, content_type, size_bytes, created_at, blob_id, run_id, tags"
ARTIFACT_BY_ID = f"SELECT {ARTIFACT_COLUMNS} FROM artifacts WHERE artifact_id = %s"
ARTIFACTS_OF_RUN = f"SELECT {ARTIFACT_COLUMNS} FROM artifacts WHERE run_id = %s"
ALL_ARTIFACTS = f"SELECT {ARTIFACT_COLUMNS} FROM artifacts"
ADD_ARTIFACT = """
INSERT INTO artifacts (artifact_id, blob_id, content_type, size_bytes, created_at, run_id, tags)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
DROP_ARTIFACT = "DELETE FROM artifacts WHERE artifact_id = %s"
PIECES = (
    "SELECT number, digest, content FROM blob_pieces WHERE blob_id = %s AND number BETWEEN %s AND %s ORDER BY number"
)
IS_INTACT = """
SELECT COALESCE(SUM(length(content)) = (SELECT size_bytes FROM blobs WHERE blob_id = %(blob_id)s)
    AND bool_and(sha256(content) = digest), false)
FROM blob_pieces WHERE blob_id = %(blob_id)s
"""
ADD_BLOB = "INSERT INTO blobs (blob_id, size_bytes) VALUES (%s, %s) ON CONFLICT DO NOTHING"
DROP_PIECES = "DELETE FROM blob_pieces WHERE blob_id = %s"
ADD_PIECE = """
INSERT INTO blob_pieces (blob_id, number, digest, content) VALUES (%s, %s, %s, %b)
ON CONFLICT (blob_id, number) DO NOTHING
"""
_UNUSED = "NOT EXISTS (SELECT 1 FROM artifacts WHERE artifacts.blob_id = blobs.blob_id)"
COUNT_BLOBS = f"SELECT COUNT(*), COUNT(*) FILTER (WHERE NOT ({_UNUSED})) FROM blobs"
UNUSED_BLOBS = f"SELECT size_bytes FROM blobs WHERE {_UNUSED}"
DROP_UNUSED = f"DELETE FROM blobs WHERE {_UNUSED}"

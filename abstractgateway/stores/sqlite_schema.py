"""The SQL of the SQLite stores.

The tables and their columns are AbstractRuntime's, so that its databases open here and ours open there; the columns in
`OWN_COLUMNS` are this library's. `touched` numbers the writes of runs, so that another process can ask for what has
changed since it last looked. `updated_s` is `updated_at` as seconds since the epoch, because texts with other offsets
do not sort by time. `seen_at` is `updated_at` as this library last wrote or read it: where the two differ, somebody
else wrote the row. `run_deltas` has what changed in a large checkpoint since `run_json` was written; it is empty once
the database was closed. In the same way `last_hash` is the ledger's head only while `hashed_seq` is `last_seq`.
"""

from __future__ import annotations

from .sqlite_rows import Rows

SCHEMA_VERSION = 3

OWN_COLUMNS = (
    ("runs", "wait_key", "TEXT"),
    ("runs", "wait_due", "REAL"),
    ("runs", "revision", "INTEGER NOT NULL DEFAULT 1"),
    ("runs", "touched", "INTEGER NOT NULL DEFAULT 0"),
    ("runs", "updated_s", "REAL"),
    ("runs", "seen_at", "TEXT"),
    ("ledger_heads", "last_hash", "TEXT"),
    ("ledger_heads", "hashed_seq", "INTEGER"),
    ("commands", "outcome", "TEXT"),
    ("commands", "outcome_reason", "TEXT"),
    ("commands", "outcome_at", "TEXT"),
)

# The ledger has row ids: its records are appended at the end of one tree, wherever the ids of their runs would sort.
# The large column comes last: SQLite reads the columns before it without following its overflow pages.
TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, workflow_id TEXT NOT NULL, status TEXT NOT NULL, wait_reason TEXT, wait_until TEXT,
    parent_run_id TEXT, actor_id TEXT, session_id TEXT, created_at TEXT, updated_at TEXT,
    wait_key TEXT, wait_due REAL, revision INTEGER NOT NULL DEFAULT 1, touched INTEGER NOT NULL DEFAULT 0,
    updated_s REAL, seen_at TEXT, run_json TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS wait_index (
    run_id TEXT PRIMARY KEY, next_due_iso TEXT NOT NULL, updated_at_iso TEXT NOT NULL, status TEXT
);
CREATE TABLE IF NOT EXISTS run_deltas (
    run_id TEXT NOT NULL, revision INTEGER NOT NULL, delta TEXT NOT NULL, PRIMARY KEY (run_id, revision)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    run_id TEXT NOT NULL, seq INTEGER NOT NULL, record_json TEXT NOT NULL, PRIMARY KEY (run_id, seq)
);
CREATE TABLE IF NOT EXISTS ledger_heads (
    run_id TEXT PRIMARY KEY, last_seq INTEGER NOT NULL, last_hash TEXT, hashed_seq INTEGER
);
CREATE TABLE IF NOT EXISTS commands (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, command_id TEXT NOT NULL UNIQUE, run_id TEXT NOT NULL, type TEXT NOT NULL,
    payload_json TEXT NOT NULL, ts TEXT NOT NULL, client_id TEXT, outcome TEXT, outcome_reason TEXT, outcome_at TEXT
);
CREATE TABLE IF NOT EXISTS command_cursors (
    consumer_id TEXT PRIMARY KEY, cursor INTEGER NOT NULL, updated_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS gateway_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS removed_runs (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""

INDICES = """
DROP INDEX IF EXISTS idx_runs_parent;
CREATE INDEX IF NOT EXISTS idx_own_parent ON runs (parent_run_id, updated_s) WHERE parent_run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_own_updated ON runs (updated_s);
CREATE INDEX IF NOT EXISTS idx_own_status ON runs (status, updated_s);
DROP INDEX IF EXISTS idx_own_workflow;
CREATE INDEX IF NOT EXISTS idx_own_workflow_status ON runs (workflow_id, status, updated_s);
CREATE INDEX IF NOT EXISTS idx_own_session ON runs (session_id, updated_s) WHERE session_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_own_timers ON runs (status, updated_s) WHERE wait_reason = 'until';
CREATE INDEX IF NOT EXISTS idx_own_wait_key ON runs (wait_key) WHERE wait_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_own_touched ON runs (touched);
CREATE INDEX IF NOT EXISTS idx_own_foreign ON runs (run_id) WHERE seen_at IS NOT updated_at;
CREATE INDEX IF NOT EXISTS idx_commands_run_id ON commands (run_id);
"""

MISSING_HEADS = """
INSERT OR IGNORE INTO ledger_heads (run_id, last_seq) SELECT run_id, MAX(seq) FROM ledger GROUP BY run_id
"""
FOREIGN_RUNS = "SELECT run_id, run_json, revision, seen_at FROM runs WHERE seen_at IS NOT updated_at"
ADOPT_RUN = """
UPDATE runs SET wait_key = ?, wait_due = ?, updated_s = ?, revision = ?, touched = ?, seen_at = updated_at
WHERE run_id = ?
"""

ROW_COLUMNS = (
    "runs.run_id, workflow_id, status, wait_reason, wait_key, wait_due, parent_run_id, actor_id, session_id, "
    "created_at, updated_at, revision, COALESCE(last_seq, 0)"
)
FROM_RUNS = "FROM runs LEFT JOIN ledger_heads ON ledger_heads.run_id = runs.run_id"
LATEST_FIRST = "ORDER BY updated_s DESC, runs.rowid DESC"

OPEN_RUN = f"""
SELECT run_json, (SELECT group_concat(revision || ' ' || delta, char(10)) FROM run_deltas
    WHERE run_deltas.run_id = runs.run_id), revision, COALESCE(last_seq, 0), last_hash, hashed_seq
{FROM_RUNS} WHERE runs.run_id = ?
"""
ROW_OF_RUN = f"SELECT {ROW_COLUMNS} {FROM_RUNS} WHERE runs.run_id = ?"
TOUCHED_SINCE = f"SELECT touched, {ROW_COLUMNS} {FROM_RUNS} WHERE touched > ? ORDER BY touched"
LAST_TOUCHED = (
    "SELECT MAX(COALESCE((SELECT MAX(touched) FROM runs), 0), "
    "COALESCE((SELECT value FROM gateway_meta WHERE name = 'touched'), 0))"
)
"""The number of the latest write, also where its run was removed: numbers are never given twice."""
KEEP_TOUCHED = """
INSERT INTO gateway_meta (name, value) VALUES ('touched', ?)
ON CONFLICT (name) DO UPDATE SET value = MAX(value, excluded.value)
"""
REMOVE_RUN = tuple(
    f"DELETE FROM {table} WHERE run_id = ?" for table in ("runs", "run_deltas", "wait_index", "ledger", "ledger_heads")
)
KEEP_ID = "INSERT OR IGNORE INTO removed_runs (run_id) VALUES (?)"
KEPT_ID = "SELECT 1 FROM removed_runs WHERE run_id = ?"
KEPT_IDS = "SELECT run_id FROM removed_runs ORDER BY run_id"
CHILDREN = "SELECT run_id, created_at FROM runs WHERE parent_run_id = ? ORDER BY created_at, run_id"
COUNT_RUNS = "SELECT status, COUNT(*) FROM runs GROUP BY status"

WAITING_ON = "SELECT run_id FROM runs WHERE wait_key = ?"

RUN_COLUMNS = (
    "run_id",
    "created_at",
    "workflow_id",
    "status",
    "wait_reason",
    "wait_until",
    "wait_key",
    "wait_due",
    "parent_run_id",
    "actor_id",
    "session_id",
    "updated_at",
    "updated_s",
    "seen_at",
    "touched",
    "revision",
    "run_json",
)
"""What a write of a run gives, in this order; the first two stay as they are where the run is there already."""
PUT_RUNS = Rows(
    f"INSERT INTO runs ({', '.join(RUN_COLUMNS)})",
    len(RUN_COLUMNS),
    "ON CONFLICT (run_id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in RUN_COLUMNS[2:]),
)
CHANGE_RUN = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in RUN_COLUMNS[2:-1])} WHERE run_id = ?"
ADD_DELTAS = Rows("INSERT INTO run_deltas (run_id, revision, delta)", 3)
DROP_DELTAS = "DELETE FROM run_deltas WHERE run_id = ?"
RUNS_WITH_DELTAS = """
SELECT runs.run_id, run_json, (SELECT group_concat(revision || ' ' || delta, char(10)) FROM run_deltas
    WHERE run_deltas.run_id = runs.run_id)
FROM runs WHERE run_id IN (SELECT run_id FROM run_deltas)
"""
SET_BODY = "UPDATE runs SET run_json = ? WHERE run_id = ?"
TOUCH_RUN = "UPDATE runs SET touched = ? WHERE run_id = ?"
SET_TIMERS = Rows("INSERT OR REPLACE INTO wait_index (run_id, next_due_iso, updated_at_iso, status)", 4)
CLEAR_TIMER = "DELETE FROM wait_index WHERE run_id = ?"

SET_HEADS = Rows("INSERT OR REPLACE INTO ledger_heads (run_id, last_seq, last_hash, hashed_seq)", 4)
HEADS_OF_RUNS = """
SELECT ids.value, COALESCE(revision, 0), COALESCE(last_seq, 0), wait_until IS NOT NULL,
    EXISTS (SELECT 1 FROM run_deltas WHERE run_deltas.run_id = ids.value)
FROM json_each(?) AS ids
    LEFT JOIN runs ON runs.run_id = ids.value LEFT JOIN ledger_heads ON ledger_heads.run_id = ids.value
"""
HEAD_OF_RUN = (
    "SELECT COALESCE((SELECT revision FROM runs WHERE run_id = :id), 0), COALESCE(MAX(last_seq), 0), "
    "MAX(last_hash), MAX(hashed_seq) FROM ledger_heads WHERE run_id = :id"
)
ORPHANS = "SELECT run_id FROM ledger_heads WHERE last_seq > 0 AND run_id NOT IN (SELECT run_id FROM runs)"
ADD_RECORDS = Rows("INSERT INTO ledger (run_id, seq, record_json)", 3)
READ_RECORDS = (
    "SELECT CAST(record_json AS BLOB) FROM ledger WHERE run_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)
LENGTH_OF_LEDGER = "SELECT last_seq FROM ledger_heads WHERE run_id = ?"

INSERT_COMMAND = """
INSERT INTO commands (seq, command_id, run_id, type, payload_json, ts, client_id) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
SEQ_OF_COMMAND = "SELECT seq FROM commands WHERE command_id = ?"
COMMAND_COLUMNS = "command_id, run_id, type, payload_json, ts, client_id, seq"
COMMANDS_AFTER = f"SELECT {COMMAND_COLUMNS} FROM commands WHERE seq > ? ORDER BY seq LIMIT ?"
COMMAND_BY_ID = f"SELECT {COMMAND_COLUMNS} FROM commands WHERE command_id = ?"
LAST_COMMAND = (
    "SELECT MAX(COALESCE((SELECT MAX(seq) FROM commands), 0), COALESCE((SELECT MAX(cursor) FROM command_cursors), 0))"
)
SET_OUTCOME = "UPDATE commands SET outcome = ?, outcome_reason = ?, outcome_at = ? WHERE seq = ?"
OUTCOME_OF_COMMAND = "SELECT seq, command_id, outcome, outcome_reason, outcome_at FROM commands WHERE command_id = ?"
MOVE_CURSOR = """
INSERT INTO command_cursors (consumer_id, cursor, updated_at) VALUES ('gateway_runner', ?, ?)
ON CONFLICT (consumer_id) DO UPDATE SET cursor = MAX(cursor, excluded.cursor), updated_at = excluded.updated_at
"""
CURSOR = "SELECT cursor FROM command_cursors WHERE consumer_id = 'gateway_runner'"

EPOCH = "SELECT COALESCE((SELECT value FROM gateway_meta WHERE name = 'epoch'), 0)"
NEXT_EPOCH = """
INSERT INTO gateway_meta (name, value) VALUES ('epoch', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1
"""

"""The SQL of the SQLite stores.

The tables and their columns are AbstractRuntime's, so that its databases open here and ours open there; the columns
after the blank line of each table are this library's. `touched` numbers the commits, so that another process can ask
for what has changed since it last looked.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, workflow_id TEXT NOT NULL, status TEXT NOT NULL, wait_reason TEXT, wait_until TEXT,
    parent_run_id TEXT, actor_id TEXT, session_id TEXT, created_at TEXT, updated_at TEXT, run_json TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS wait_index (
    run_id TEXT PRIMARY KEY, next_due_iso TEXT NOT NULL, updated_at_iso TEXT NOT NULL, status TEXT
);
CREATE TABLE IF NOT EXISTS ledger (
    run_id TEXT NOT NULL, seq INTEGER NOT NULL, record_json TEXT NOT NULL, PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger_heads (run_id TEXT PRIMARY KEY, last_seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS commands (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, command_id TEXT NOT NULL UNIQUE, run_id TEXT NOT NULL, type TEXT NOT NULL,
    payload_json TEXT NOT NULL, ts TEXT NOT NULL, client_id TEXT
);
CREATE TABLE IF NOT EXISTS command_cursors (
    consumer_id TEXT PRIMARY KEY, cursor INTEGER NOT NULL, updated_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS gateway_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

ADDED_COLUMNS = (
    ("runs", "wait_key", "TEXT"),
    ("runs", "wait_due", "REAL"),
    ("runs", "revision", "INTEGER NOT NULL DEFAULT 1"),
    ("runs", "touched", "INTEGER NOT NULL DEFAULT 0"),
    ("ledger_heads", "last_hash", "TEXT"),
    ("commands", "outcome", "TEXT"),
    ("commands", "outcome_reason", "TEXT"),
    ("commands", "outcome_at", "TEXT"),
)

INDICES = """
CREATE INDEX IF NOT EXISTS idx_runs_status_updated ON runs (status, updated_at DESC);
CREATE INDEX IF NOT EXISTS idx_runs_workflow_updated ON runs (workflow_id, updated_at DESC);
CREATE INDEX IF NOT EXISTS idx_runs_session_updated ON runs (session_id, updated_at DESC);
CREATE INDEX IF NOT EXISTS idx_runs_updated ON runs (updated_at DESC);
CREATE INDEX IF NOT EXISTS idx_runs_parent ON runs (parent_run_id);
CREATE INDEX IF NOT EXISTS idx_runs_wait_key ON runs (wait_key) WHERE wait_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_runs_wait_due ON runs (wait_due) WHERE wait_due IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_runs_touched ON runs (touched);
CREATE INDEX IF NOT EXISTS idx_commands_run_id ON commands (run_id);
"""

BACKFILL = """
INSERT OR IGNORE INTO ledger_heads (run_id, last_seq) SELECT run_id, MAX(seq) FROM ledger GROUP BY run_id;
"""

ROW_COLUMNS = (
    "runs.run_id, workflow_id, status, wait_reason, wait_key, wait_due, parent_run_id, actor_id, session_id, "
    "created_at, updated_at, revision, COALESCE(last_seq, 0)"
)
FROM_RUNS = "FROM runs LEFT JOIN ledger_heads ON ledger_heads.run_id = runs.run_id"

OPEN_RUN = f"SELECT run_json, revision, COALESCE(last_seq, 0), last_hash {FROM_RUNS} WHERE runs.run_id = ?"
ROW_OF_RUN = f"SELECT {ROW_COLUMNS} {FROM_RUNS} WHERE runs.run_id = ?"
TOUCHED_SINCE = f"SELECT touched, {ROW_COLUMNS} {FROM_RUNS} WHERE touched > ? ORDER BY touched"
LAST_TOUCHED = "SELECT COALESCE(MAX(touched), 0) FROM runs"

INSERT_RUN = """
INSERT OR IGNORE INTO runs (workflow_id, status, wait_reason, wait_until, wait_key, wait_due, parent_run_id, actor_id,
    session_id, updated_at, run_json, touched, created_at, revision, run_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)
"""
UPDATE_RUN = """
UPDATE runs SET workflow_id = ?, status = ?, wait_reason = ?, wait_until = ?, wait_key = ?, wait_due = ?,
    parent_run_id = ?, actor_id = ?, session_id = ?, updated_at = ?, run_json = ?, touched = ?, revision = revision + 1
WHERE run_id = ? AND revision = ?
"""
TOUCH_RUN = "UPDATE runs SET touched = ? WHERE run_id = ?"
SET_TIMER = "INSERT OR REPLACE INTO wait_index VALUES (?, ?, ?, 'waiting_until')"
CLEAR_TIMER = "DELETE FROM wait_index WHERE run_id = ?"

INSERT_HEAD = "INSERT OR IGNORE INTO ledger_heads (run_id, last_seq, last_hash) VALUES (?, ?, ?)"
MOVE_HEAD = "UPDATE ledger_heads SET last_seq = ?, last_hash = ? WHERE run_id = ? AND last_seq = ?"
HEAD_OF_RUN = (
    "SELECT COALESCE((SELECT revision FROM runs WHERE run_id = :id), 0), "
    "COALESCE((SELECT last_seq FROM ledger_heads WHERE run_id = :id), 0), "
    "(SELECT last_hash FROM ledger_heads WHERE run_id = :id)"
)
INSERT_RECORD = "INSERT INTO ledger (run_id, seq, record_json) VALUES (?, ?, ?)"
READ_RECORDS = "SELECT CAST(record_json AS BLOB) FROM ledger WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?"

INSERT_COMMAND = """
INSERT OR IGNORE INTO commands (command_id, run_id, type, payload_json, ts, client_id) VALUES (?, ?, ?, ?, ?, ?)
"""
SEQ_OF_COMMAND = "SELECT seq FROM commands WHERE command_id = ?"
COMMAND_COLUMNS = "command_id, run_id, type, payload_json, ts, client_id, seq"
COMMANDS_AFTER = f"SELECT {COMMAND_COLUMNS} FROM commands WHERE seq > ? ORDER BY seq LIMIT ?"
COMMAND_BY_ID = f"SELECT {COMMAND_COLUMNS} FROM commands WHERE command_id = ?"
LAST_COMMAND = "SELECT COALESCE(MAX(seq), 0) FROM commands"
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

"""Where things are kept."""

from __future__ import annotations

from ..parsing import at_least, base_url, lower, memory_backend, plain_id, seconds
from ..setting import Setting, env

ROWS: tuple[Setting, ...] = (
    Setting("url", env("URL"), base_url, "Where the commands `runs …` and `ledger …` find the gateway."),
    Setting(
        "data_dir",
        env("DATA_DIR", "ABSTRACTFLOW_RUNTIME_DIR"),
        str,
        "Where runs, ledgers, commands and artifacts are kept.",
    ),
    Setting(
        "flows_dir",
        env("FLOWS_DIR", "ABSTRACTFRAMEWORK_WORKFLOWS_DIR", "ABSTRACTFLOW_FLOWS_DIR"),
        str,
        "A directory of `*.flow` bundles, or one bundle file; with `visualflow`, a directory of `*.json` flows.",
    ),
    Setting(
        "visualflows_dir",
        env("VISUALFLOWS_DIR"),
        str,
        "Where the flows that the visual editor saves are kept; `visualflows` in the data directory, with `postgres` "
        "the database.",
    ),
    Setting(
        "workflow_source",
        env("WORKFLOW_SOURCE"),
        lower,
        "`bundle`, or `visualflow` to serve each flow that the visual editor saved under its own id.",
    ),
    Setting(
        "store_backend",
        env("STORE_BACKEND"),
        lower,
        "`file`, `sqlite`, `postgres` (the extra `postgres`), or `memory` (nothing survives the process).",
    ),
    Setting("db_path", env("DB_PATH"), str, "The SQLite file; it must lie in the data directory."),
    Setting(
        "database_url",
        env("DATABASE_URL"),
        str,
        "The PostgreSQL database, as `postgresql://user:password@host:5432/database`; it is never shown.",
    ),
    Setting(
        "database_connections",
        env("DATABASE_CONNECTIONS"),
        at_least(1),
        "How many connections to PostgreSQL this process reads with; one more writes, and one listens.",
    ),
    Setting(
        "database_artifacts_dir",
        env("DATABASE_ARTIFACTS_DIR"),
        str,
        "With PostgreSQL, a directory that all processes share, for the bytes of artifacts; without one they are in "
        "the database.",
    ),
    Setting(
        "lease_s",
        env("LEASE_S"),
        seconds,
        "With PostgreSQL, after how many seconds of silence the runs of a runner are driven by the others; it says "
        "that it lives three times as often.",
    ),
    Setting(
        "global_memory_run_id",
        ("ABSTRACTRUNTIME_GLOBAL_MEMORY_RUN_ID",),
        plain_id,
        "The id of the run that holds the memory of the scope `global`.",
    ),
    Setting(
        "memory_store_backend",
        env("MEMORY_STORE_BACKEND", "ABSTRACTGATEWAY_MEMORY_BACKEND"),
        memory_backend,
        "Where the knowledge graph is kept: `sqlite`, or `memory` (the default where the stores are in memory).",
    ),
    Setting(
        "memory_store_path",
        env("MEMORY_STORE_PATH", "ABSTRACTGATEWAY_MEMORY_PATH"),
        str,
        "The SQLite file of the knowledge graph; `abstractmemory/kg.sqlite3` in the data directory.",
    ),
    Setting(
        "durability",
        env("DURABILITY"),
        lower,
        "`full`: an answer is sent after its bytes are fsynced; `relaxed`: a power loss may cost the last moments.",
    ),
)

"""The audit log: who changed what."""

from __future__ import annotations

from ..parsing import at_least, between, header_names, parse_bool
from ..setting import Setting, env

ROWS: tuple[Setting, ...] = (
    Setting(
        "audit_log",
        env("AUDIT_LOG"),
        parse_bool,
        "Whether `audit_log.jsonl` in the data directory tells who changed what; without it, as `security`.",
    ),
    Setting(
        "audit_log_max_bytes",
        env("AUDIT_LOG_MAX_BYTES"),
        at_least(0),
        "From which size on the file is put aside for a new one; 0 for never.",
    ),
    Setting(
        "audit_log_rotations", env("AUDIT_LOG_ROTATIONS"), between(0, 200), "How many such files are kept, 0 to 200."
    ),
    Setting(
        "audit_log_headers",
        env("AUDIT_LOG_HEADERS"),
        header_names,
        "Headers of requests that are copied into it; those that carry secrets never are.",
    ),
    Setting(
        "audit_log_required",
        env("AUDIT_LOG_REQUIRED"),
        parse_bool,
        "1 refuses writes while the audit log cannot be written, instead of losing entries.",
    ),
)

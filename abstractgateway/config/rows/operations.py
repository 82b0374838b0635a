"""What an operator sees and asks of the process."""

from __future__ import annotations

from ..parsing import lower, time_limit
from ..setting import Setting, env

ROWS: tuple[Setting, ...] = (
    Setting(
        "log_level",
        env("LOG_LEVEL"),
        lower,
        "From which level on events are logged: `debug`, `info` (each request, run and command), `warning` or `error`.",
    ),
    Setting("log_format", env("LOG_FORMAT"), lower, "How: `text`, or `json` for an object on each line."),
    Setting(
        "shutdown_grace_s",
        env("SHUTDOWN_GRACE_S"),
        time_limit,
        "How many seconds requests and effects that are under way have to end once the process is told to.",
    ),
)

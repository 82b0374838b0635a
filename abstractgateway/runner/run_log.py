"""Lines in the log for runs that begin and end."""

from __future__ import annotations

import logging

from ..stores.base import Changes, RunRow, instant_or_none

_log = logging.getLogger(__name__)

_KEPT = 10_000
"""So many runs that ended are remembered: what comes late for one of them is no second end."""


class RunLog:
    """A listener of a store that logs each run that is made after a time (seconds since the epoch), and each end."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._live: set[str] = set()
        self._ended: dict[str, None] = {}

    def __call__(self, changes: Changes) -> None:
        for row in changes.runs:
            if row.run_id not in self._ended:
                self._look_at(row)

    def _look_at(self, row: RunRow) -> None:
        if row.run_id not in self._live:
            self._live.add(row.run_id)
            if (instant_or_none(row.created_at) or 0.0) >= self._since:
                _log.info("run started", extra=_fields(row))
        if row.status.is_terminal:
            _log.info("run %s", row.status.value, extra={**_fields(row), "records": row.ledger_len})
            self._live.discard(row.run_id)
            self._ended[row.run_id] = None
            if len(self._ended) > _KEPT:
                self._ended.pop(next(iter(self._ended)))


def _fields(row: RunRow) -> dict[str, str]:
    known = {"run_id": row.run_id, "workflow_id": row.workflow_id, "parent_run_id": row.parent_run_id}
    return {name: value for name, value in known.items() if value is not None}

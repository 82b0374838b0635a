"""Following a ledger over connections that may be lost: every record once, in order."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from ..errors import GatewayError, Unavailable
from ..jsonvalue import JsonObject, loads
from .connection import Request, Server
from .events import Frame, frames

OnDelta = Callable[[JsonObject], object]
OnAway = Callable[["GatewayError | None"], object]
"""Is told why the gateway cannot be followed now, and None once it can again."""

_SILENT_HEARTBEATS = 4
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0


class Entry(NamedTuple):
    """A record of a ledger and its cursor."""

    cursor: int
    record: JsonObject


class Following:
    """One reader of one ledger: where it stands, and whether it is at the end.

    A connection that is lost, or silent for four heartbeats, is opened again after the last record. `patience_s` is
    for how long at a time the gateway may be away; None for however long.
    """

    def __init__(
        self,
        server: Server,
        run_id: str,
        after: int,
        *,
        heartbeat_s: float,
        patience_s: float | None,
        on_delta: OnDelta | None,
        on_away: OnAway | None,
    ) -> None:
        self._server = server
        self._path = f"/api/gateway/runs/{quote(run_id, safe='')}/ledger/stream"
        self._cursor = after
        self._heartbeat_s = heartbeat_s
        self._patience_s = patience_s
        self._on_delta = on_delta
        self._on_away = on_away
        self._pause_s = self._asked_pause_s = _FIRST_PAUSE_S
        self._away_since: float | None = None

    def entries(self) -> Iterator[Entry]:
        """Return the records after the cursor, then those that come, until the run has ended."""
        while True:
            try:
                if (yield from self._connected()):
                    return
                self._rest(None)
            except Unavailable as error:
                self._rest(error, at_least=error.retry_after)
            except (OSError, http.client.HTTPException) as error:
                self._rest(self._server.unreachable(error))

    def _connected(self) -> Generator[Entry, None, bool]:
        """Yield what one connection brings; return whether the run has ended."""
        query = {"after": self._cursor, "heartbeat_s": self._heartbeat_s, "deltas": 1 if self._on_delta else None}
        request = Request("GET", self._path, query, headers={"Accept": "text/event-stream"})
        with self._server.open(request, timeout_s=_SILENT_HEARTBEATS * self._heartbeat_s) as response:
            for frame in frames(response):
                self._hear(frame)
                if frame.event == "done":
                    return True
                if frame.event != "step":
                    continue
                entry = _entry(frame)
                if entry.cursor > self._cursor + 1:
                    return False  # records are missing: ask for them again
                if entry.cursor == self._cursor + 1:
                    self._cursor = entry.cursor
                    yield entry
        return False

    def _hear(self, frame: Frame) -> None:
        if self._away_since is not None and self._on_away is not None:
            self._on_away(None)
        self._away_since = None
        self._asked_pause_s = self._asked_pause_s if frame.retry_s is None else frame.retry_s
        self._pause_s = self._asked_pause_s
        if frame.event == "delta" and self._on_delta is not None:
            self._on_delta(_object(frame))

    def _rest(self, problem: GatewayError | None, *, at_least: float = 0.0) -> None:
        """Wait before the next attempt. Raises `problem` when the gateway has been away for too long."""
        now = time.monotonic()
        if problem is not None:
            if self._away_since is None and self._on_away is not None:
                self._on_away(problem)
            self._away_since = self._away_since if self._away_since is not None else now
            if self._patience_s is not None and now - self._away_since >= self._patience_s:
                raise problem
        self._server.sleep(max(self._pause_s, at_least))
        self._pause_s = min(2 * max(self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)


def _entry(frame: Frame) -> Entry:
    value = _object(frame)
    cursor, record = value.get("cursor"), value.get("record")
    if not isinstance(cursor, int) or not isinstance(record, dict):
        raise GatewayError("a step of the stream has no cursor and record; is there a gateway at this URL?")
    return Entry(cursor, record)


def _object(frame: Frame) -> JsonObject:
    value: Any = loads(frame.data, field="stream")
    if not isinstance(value, dict):
        raise GatewayError(f"an event {frame.event!r} of the stream has no object as its data")
    return value

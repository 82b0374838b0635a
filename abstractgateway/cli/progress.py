"""A run on the terminal: a line for every step that is done, and one that moves for what is being done."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from ..clock import parse_iso
from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..stores.migrate import OnProgress
from ..stores.migrate import Progress as Migration
from .printable import fitted, printable, terminal_columns

if TYPE_CHECKING:
    from ..client import Entry

_SIGNS = "|/-\\"
_FRAME_S = 0.1
_CLEAR = "\r\033[K"
_SHOWN_EVERY_S = 0.2


def step_line(entry: Entry) -> str | None:
    """Return a record as a line; None for the beginning of a step, which its end repeats."""
    record = entry.record
    if record["status"] == "started":
        return None
    effect = (record.get("effect") or {}).get("type") or ""
    parts = f"{entry.cursor:>5}  {record['status']:<9}  {record['node_id']:<24}  {effect:<18}"
    told = _took(record), record.get("error") or ""
    return "  ".join([parts, *(text for text in told if text)]).rstrip()


def _took(record: JsonObject) -> str:
    try:
        seconds = (parse_iso(str(record["ended_at"])) - parse_iso(str(record["started_at"]))).total_seconds()
    except (Invalid, KeyError):
        return ""
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


class Progress:
    """Prints lines; on a terminal there is one more, which says what is under way and for how long.

    `say` replaces what is under way. Models' partial text is printed as it comes.
    """

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stdout
        self._is_live = self._output.isatty()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._text = ""
        self._since = time.monotonic()
        self._is_in_text = False
        self._drawer = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Progress:
        if self._is_live:
            self._drawer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._is_live:
            self._drawer.join()
        with self._lock:
            self._begin_line()

    def say(self, text: str) -> None:
        """Say what is under way now; nothing for an empty text."""
        with self._lock:
            self._text, self._since = text, time.monotonic()

    def print(self, line: str) -> None:
        """Print a line for good."""
        with self._lock:
            self._begin_line()
            self._output.write(printable(line) + "\n")
            self._output.flush()

    def stream(self, text: str) -> None:
        """Print a piece of text that goes on later."""
        with self._lock:
            if not self._is_in_text:
                self._begin_line()
            self._is_in_text = True
            self._output.write(printable(text))
            self._output.flush()

    def _begin_line(self) -> None:
        if self._is_in_text:
            self._output.write("\n")
        elif self._is_live:
            self._output.write(_CLEAR)
        self._is_in_text = False

    def _draw(self) -> None:
        count = 0
        while not self._ended.wait(_FRAME_S):
            count += 1
            with self._lock:
                if self._text and not self._is_in_text:
                    spent = time.monotonic() - self._since
                    line = f"{_SIGNS[count % len(_SIGNS)]} {printable(self._text)}  {spent:.1f} s"
                    # A line that is longer than the terminal goes on in the next, and only that would be cleared.
                    columns = terminal_columns(self._output)
                    self._output.write(_CLEAR + (fitted(line, columns - 1) if columns else line))
                    self._output.flush()


def show_migration(*, is_quiet: bool) -> OnProgress:
    """Return what draws how far a migration has come; it draws nothing where nobody looks."""
    if is_quiet or not sys.stdout.isatty():
        return lambda progress: None
    shown_at = 0.0

    def draw(progress: Migration) -> None:
        nonlocal shown_at
        now = time.monotonic()
        is_done = progress.runs == progress.of_runs and (progress.of_runs > 0 or progress.is_verifying)
        if now - shown_at < _SHOWN_EVERY_S and not is_done:
            return
        shown_at = now
        print(_bar(progress), end="\n" if is_done else "", flush=True)

    return draw


def _bar(progress: Migration, width: int = 30) -> str:
    if not progress.of_runs and not progress.is_verifying:
        return f"{_CLEAR}copying {progress.artifacts} artifacts"
    part = progress.runs / progress.of_runs if progress.of_runs else 1.0
    bar = "#" * round(part * width)
    doing = "checking" if progress.is_verifying else "copying "
    return f"{_CLEAR}{doing} [{bar:<{width}}] {progress.runs}/{progress.of_runs} runs, {progress.records} records"

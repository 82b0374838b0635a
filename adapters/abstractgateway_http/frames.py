"""Server-sent events as bytes: what a ledger looks like on a stream, and how bytes are framed for HTTP/1.1.

The record inside a `step` frame is the stored JSON, joined and never decoded, so that page and stream
agree to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from abstractgateway import jsonvalue

CONTENT_TYPE = "text/event-stream; charset=utf-8"
RECONNECT_MS = 1_000
RECONNECT_AFTER_STOP_MS = 2_000
KEEP_ALIVE = b": keep-alive\n\n"
LAST_CHUNK = b"0\r\n\r\n"


Cursor = int | str
"""Where a stream stands: the cursor of its run, or as text the place in the ledgers of a run and those below it."""


class LedgerPage(Protocol):
    """Records after a cursor, as the service returns them."""

    @property
    def records(self) -> Sequence[bytes]:
        """The stored records, oldest first."""

    @property
    def next_after(self) -> int:
        """The cursor of the last record, or the cursor that was asked for when there is none."""


class LedgerTail(LedgerPage, Protocol):
    """Records after a cursor, and whether there will be more."""

    @property
    def ended(self) -> bool:
        """Whether the run is terminal and has no record after `next_after`."""


@dataclass(frozen=True)
class Stretch:
    """Records after a cursor that end before the ledger does."""

    records: Sequence[bytes]
    next_after: int
    ended: bool = False


def until(tail: LedgerTail, after: int, cursor: int) -> LedgerTail:
    """Return the part of a tail, read after a cursor, that ends with the record at another cursor."""
    return tail if tail.next_after <= cursor else Stretch(tail.records[: cursor - after], cursor)


@dataclass(frozen=True)
class Batch:
    """A stretch of a stream: its bytes, the cursor after it, and whether the stream ends with it.

    `runs` are the runs that may have news for the stream besides its own.
    """

    data: bytes
    cursor: Cursor
    ended: bool
    runs: frozenset[str] = frozenset()


class TreeEntry(Protocol):
    """A record of a run or of one below it."""

    @property
    def run_id(self) -> str:
        """Whose record it is."""

    @property
    def cursor(self) -> int:
        """Its cursor in the ledger of that run."""

    @property
    def record(self) -> bytes:
        """The stored record."""

    @property
    def place(self) -> str:
        """Where a stream stands after it."""


class TreeTail(Protocol):
    """Records of a run and those below it after a place, and whether there will be more."""

    @property
    def entries(self) -> Sequence[TreeEntry]:
        """The records, those of each run in their order."""

    @property
    def next_after(self) -> str:
        """The place after them."""

    @property
    def ended(self) -> bool:
        """Whether all of the runs are terminal and have no further record."""

    @property
    def runs(self) -> frozenset[str]:
        """The ids of the runs that may have more."""


class Framing(Protocol):
    """How a response that waits for records looks; two that are equal give the same bytes."""

    @property
    def is_tree(self) -> bool:
        """Whether the records of the runs below the run belong to it; `batch` is then given a `TreeTail`."""

    @property
    def reads_ledger(self) -> bool:
        """Whether it is made of records; otherwise `batch` is given None."""

    @property
    def opening(self) -> bytes:
        """What is sent before anything else; not empty, because servers send the head together with it."""

    def batch(self, run_id: str, after: Any, tail: Any) -> Batch:
        """Return what a ledger tail looks like; empty when there is nothing to say yet."""

    def idle(self, cursor: Any) -> Batch:
        """Return what is sent when nothing was said for as long as the client asked."""

    def farewell(self, cursor: Any) -> bytes:
        """Return what is sent last when the server stops."""


@dataclass(frozen=True)
class Events:
    """Server-sent events until the run has ended."""

    is_tree = False
    reads_ledger = True
    opening = b"retry: %d\n\n" % RECONNECT_MS

    def batch(self, run_id: str, after: int, tail: LedgerTail) -> Batch:
        frames = [step_frame(cursor, record) for cursor, record in enumerate(tail.records, after + 1)]
        if tail.ended:
            frames.append(done_frame(run_id, tail.next_after))
        return Batch(b"".join(frames), tail.next_after, tail.ended)

    def idle(self, cursor: Cursor) -> Batch:
        return Batch(KEEP_ALIVE, cursor, False)

    def farewell(self, cursor: Cursor) -> bytes:
        return retry_frame(RECONNECT_AFTER_STOP_MS)


@dataclass(frozen=True)
class TreeEvents(Events):
    """Server-sent events of a run and those below it, until all of them have ended."""

    is_tree = True

    def batch(self, run_id: str, after: str, tail: TreeTail) -> Batch:  # type: ignore[override]
        frames = [tree_step_frame(entry) for entry in tail.entries]
        if tail.ended:
            frames.append(done_frame(run_id, int(tail.next_after)))
        return Batch(b"".join(frames), tail.next_after, tail.ended, tail.runs)


@dataclass(frozen=True)
class OnePage:
    """One page of a ledger, as soon as it has a record; an empty one when none comes."""

    limit: int
    is_tree = False
    reads_ledger = True
    opening = b" "  # white space before a JSON value means nothing

    def batch(self, run_id: str, after: int, tail: LedgerTail) -> Batch:
        records = tail.records[: self.limit]
        if not records and not tail.ended:
            return Batch(b"", after, False)
        return Batch(page_of(records, after + len(records)), after + len(records), True)

    def idle(self, cursor: int) -> Batch:
        return Batch(page_of((), cursor), cursor, True)

    def farewell(self, cursor: int) -> bytes:
        return page_of((), cursor)


def page_of(records: Sequence[bytes], next_after: int) -> bytes:
    """Return a page of stored records as JSON; their bytes are joined, never decoded."""
    return b'{"items":[%b],"next_after":%d}' % (b",".join(records), next_after)


def step_frame(cursor: int, record: bytes) -> bytes:
    """Return the frame of one record; its cursor is the event id that `Last-Event-ID` brings back."""
    return b'id: %d\nevent: step\ndata: {"cursor": %d, "record": %b}\n\n' % (cursor, cursor, _one_line(record))


def tree_step_frame(entry: TreeEntry) -> bytes:
    """Return the frame of a record of one of several runs; its event id says how far all of them are sent."""
    text = jsonvalue.dumps(entry.run_id, field="run_id")
    return b'id: %b\nevent: step\ndata: {"run_id": %b, "cursor": %d, "record": %b}\n\n' % (
        entry.place.encode(),
        text,
        entry.cursor,
        _one_line(entry.record),
    )


def delta_frame(body: bytes) -> bytes:
    """Return the frame of one delta; it has no id, because it cannot be had again."""
    return b"event: delta\ndata: %b\n\n" % body


def done_frame(run_id: str, cursor: int) -> bytes:
    """Return the frame that says no record will follow; `terminal` is a literal, not the status of the run."""
    text = jsonvalue.dumps(run_id, field="run_id")
    return b'event: done\ndata: {"run_id": %b, "cursor": %d, "status": "terminal"}\n\n' % (text, cursor)


def retry_frame(milliseconds: int) -> bytes:
    """Return the hint after how long a client should come back when the connection is lost."""
    return b"retry: %d\n\n" % milliseconds


def as_chunk(data: bytes) -> bytes:
    """Return the bytes as one chunk (RFC 9112 section 7.1)."""
    return b"%X\r\n%b\r\n" % (len(data), data)


def framed(data: bytes, *, chunked: bool, last: bool = False) -> bytes:
    """Return the bytes as they go on the wire; `last` ends a chunked body."""
    if not chunked:
        return data
    return (as_chunk(data) if data else b"") + (LAST_CHUNK if last else b"")


def _one_line(record: bytes) -> bytes:
    # A raw line break can only be blank space between JSON tokens (a file edited elsewhere); it would end the event.
    if b"\n" in record or b"\r" in record:
        return record.replace(b"\r", b" ").replace(b"\n", b" ")
    return record


EVENTS = Events()
TREE_EVENTS = TreeEvents()

"""What the files of runs held when they were last read or written, in one file, so that a start need not read them.

`runs.index` is a cache: an entry counts only while the size, the time of the last change and the inode of the run's
files are those it was made with, and without the file everything is read from the files again. It grows by a block
of entries for the runs that a generation of the journal changed; of several entries of a run the last one counts.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import Invalid
from ..jsonvalue import ascii_text, loads
from ..runtime.models import RunStatus, WaitReason
from .base import RunRow
from .disk import Disk
from .layout import NO_FILE, FileHead, Layout, changed_ns, stamp
from .problems import Problems
from .tables import TimedRow
from .view import DirectoryView
from .wake import FRESH_NS

MAGIC = b"AGWRIDX1"
FRAME = struct.Struct("<III")
"""The sizes of a block's columns and stamps, and their CRC-32."""
STAMPS = 2 * len(NO_FILE)
BLOCK = 4000
"""How many runs a block has at most: encoding one takes a few milliseconds, in which no other thread can run."""
BYTES_PER_RUN = 2000
"""An entry takes about 500 bytes; with more than this for each run, most of the file is entries that do not count."""
SMALL_BYTES = 1 << 20
"""A smaller file is never written anew to save space."""


class IndexedRun(NamedTuple):
    """What the index has of a run: its row, unless it has no checkpoint; its head; the stamps of its two files."""

    row: TimedRow | None
    head: FileHead
    stamps: bytes


class RunIndex:
    """The file `runs.index` of one directory; used by whoever holds the directory. Its failures lose nothing."""

    def __init__(self, layout: Layout, disk: Disk, problems: Problems) -> None:
        self._layout = layout
        self._disk = disk
        self._problems = problems
        self.is_whole = False
        """Whether all of the file could be read; what is added behind a place that is damaged is never found."""

    def load(self) -> dict[str, IndexedRun]:
        """Return the entries by run id, in the order in which the runs were first put."""
        found: dict[str, IndexedRun] = {}
        self.is_whole = False
        try:
            data = self._layout.index.read_bytes()
        except FileNotFoundError:
            return found
        except OSError as error:
            self._note(f"cannot be read: {error}")
            return found
        try:
            for runs in _blocks(data):
                found.update(runs)
            self.is_whole = True
        except (Invalid, ValueError, TypeError, KeyError) as error:
            self._note(f"is damaged or of another version ({error}); what it does not have is read from the files")
        return found

    def add(self, view: DirectoryView, stamps: Mapping[str, bytes]) -> None:
        """Add entries for runs whose files have these stamps and hold what the view says."""
        blocks = _encoded(_entries(view, stamps))
        if not blocks:
            return
        size = self._size()
        if size > SMALL_BYTES + 2 * BYTES_PER_RUN * len(view.heads):
            return  # nobody has closed these stores for long; the runs that changed since are read from their files
        try:
            fd = self._disk.open(self._layout.index)
            try:
                self._disk.write_at(fd, size, blocks if size else MAGIC + blocks)
            finally:
                self._disk.close(fd)
        except OSError as error:
            self._note(f"cannot be written: {error}")

    def write(self, view: DirectoryView, stamps: Mapping[str, bytes]) -> None:
        """Put entries for these runs, and no others, into the file."""
        self._replace(_encoded(_entries(view, stamps)))

    def shrink(self, view: DirectoryView) -> None:
        """Leave out the entries that do not count where they are most of the file."""
        if self._size() > SMALL_BYTES + BYTES_PER_RUN * len(view.heads):
            known = self.load().items()
            self._replace(_encoded((run_id, run) for run_id, run in known if run_id in view.heads))

    def _replace(self, blocks: bytes) -> None:
        try:
            self._disk.replace(self._layout.index, MAGIC + blocks)
        except OSError as error:
            self._note(f"cannot be written: {error}")

    def _size(self) -> int:
        try:
            return self._layout.index.stat().st_size
        except OSError:
            return 0

    def _note(self, why: str) -> None:
        self._problems.note(self._layout.index.name, why)


def stamps_of(layout: Layout, run_ids: Iterable[str]) -> dict[str, bytes]:
    """Return the stamps of runs' files as they are now."""
    return {run_id: stamp(layout.run(run_id)) + stamp(layout.ledger(run_id)) for run_id in run_ids}


def _entries(view: DirectoryView, stamps: Mapping[str, bytes]) -> Iterator[tuple[str, IndexedRun]]:
    """Yield the entries of runs, in the order in which they were first put.

    A file changed a moment ago may change again within the same tick of its file system's clock: it gets none.
    """
    settled_ns = time.time_ns() - FRESH_NS
    known = [run_id for run_id, both in stamps.items() if run_id in view.heads and changed_ns(both) < settled_ns]
    for run_id in view.table.in_order(known):
        yield run_id, IndexedRun(view.table.timed(run_id), view.heads[run_id], stamps[run_id])


def _encoded(entries: Iterable[tuple[str, IndexedRun]]) -> bytes:
    """Return entries as blocks."""
    blocks: list[bytes] = []
    some: list[tuple[str, IndexedRun]] = []
    for entry in entries:
        some.append(entry)
        if len(some) == BLOCK:
            blocks.append(_block(some))
            some = []
    if some:
        blocks.append(_block(some))
    return b"".join(blocks)


def _block(entries: list[tuple[str, IndexedRun]]) -> bytes:
    """Return a block: a column for each field, then the stamps."""
    columns = ascii_text(list(zip(*(_values(run_id, run) for run_id, run in entries), strict=True))).encode()
    stamps = b"".join([run.stamps for _, run in entries])
    return FRAME.pack(len(columns), len(stamps), zlib.crc32(stamps, zlib.crc32(columns))) + columns + stamps


def _values(run_id: str, run: IndexedRun) -> tuple[Any, ...]:
    head = run.head
    ends = (head.revision, head.ledger_len, head.ledger_hash, head.ledger_bytes)
    if run.row is None:
        return (run_id, *ends, *[None] * 12)
    row, updated, created = run.row
    return (
        run_id,
        *ends,
        updated,
        created,
        row.workflow_id,
        row.status.value,
        row.wait_reason.value if row.wait_reason is not None else None,
        row.wait_key,
        row.wait_due,
        row.parent_run_id,
        row.actor_id,
        row.session_id,
        row.created_at,
        row.updated_at,
    )


def _blocks(data: bytes) -> Iterator[dict[str, IndexedRun]]:
    """Yield the entries of each block. Raises `ValueError` and the like where the bytes are no block."""
    if not data.startswith(MAGIC):
        raise ValueError("it does not begin as one")
    texts: dict[str, str] = {}
    at = len(MAGIC)
    while at < len(data):
        if at + FRAME.size > len(data):
            raise ValueError("it ends within a block")
        columns_size, stamps_size, crc = FRAME.unpack_from(data, at)
        middle = at + FRAME.size + columns_size
        columns, stamps = data[at + FRAME.size : middle], data[middle : middle + stamps_size]
        if zlib.crc32(stamps, zlib.crc32(columns)) != crc:
            raise ValueError("a block is damaged")
        yield _decoded(columns, stamps, texts)
        at = middle + stamps_size


STATUSES = {status.value: status for status in RunStatus}
REASONS: dict[str | None, WaitReason | None] = {None: None, **{reason.value: reason for reason in WaitReason}}


def _decoded(columns: bytes, stamps: bytes, texts: dict[str, str]) -> dict[str, IndexedRun]:
    """Return the entries of a block; `texts` makes equal texts of different runs one."""
    runs: dict[str, IndexedRun] = {}
    same = texts.setdefault
    for at, values in enumerate(zip(*loads(columns, field="index"), strict=True)):
        run_id, revision, length, digest, size, updated, created, workflow_id, status, reason, *rest = values
        key, due, parent, actor, session, created_at, updated_at = rest
        own = stamps[at * STAMPS : (at + 1) * STAMPS]
        head = FileHead(revision, length, digest, size)
        if status is None:
            runs[run_id] = IndexedRun(None, head, own)
            continue
        row = RunRow(
            run_id,
            same(workflow_id, workflow_id),
            STATUSES[status],
            REASONS[reason],
            key,
            due,
            parent,
            same(actor, actor) if actor is not None else None,
            run_id if session == run_id else session,
            created_at,
            created_at if updated_at == created_at else updated_at,
            revision,
            length,
        )
        runs[run_id] = IndexedRun((row, updated, created), head, own)
    return runs

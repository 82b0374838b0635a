"""Where the records of a ledger file are, so that reading its tail does not read its head."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import BinaryIO

from ..errors import Unavailable
from .layout import Layout

STRIDE = 64
"""Every 64th record's offset is kept: a page reads at most 63 records too many."""
MAX_RUNS = 4096
"""How many ledgers' offsets are kept; those of others are found again by reading the file once."""
_CHUNK = 1 << 20


class _Offsets:
    """The offsets of a ledger's records 0, 64, 128, …, its record count and its size so far."""

    def __init__(self) -> None:
        self.marks: list[int] = [0]
        self.count = 0
        self.size = 0

    def extend(self, lines: bytes) -> None:
        at = 0
        while (end := lines.find(b"\n", at)) >= 0:
            at = end + 1
            self.count += 1
            if self.count % STRIDE == 0:
                self.marks.append(self.size + at)
        self.size += at


class LedgerIndex:
    """The offsets of the ledgers of a data directory; safe to use from several threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._runs: OrderedDict[str, _Offsets] = OrderedDict()
        self._lock = threading.Lock()

    def extend(self, run_id: str, at: int, lines: bytes) -> None:
        """Take note of lines added at an offset; a ledger that is not known yet is read when it is asked for."""
        with self._lock:
            offsets = self._runs.get(run_id)
            if offsets is None and at == 0:
                offsets = self._keep(run_id, _Offsets())
            if offsets is not None and offsets.size == at:
                offsets.extend(lines)

    def forget(self, run_id: str) -> None:
        """Take note that a ledger is gone."""
        with self._lock:
            self._runs.pop(run_id, None)

    def read(self, run_id: str, first: int, last: int, size: int) -> list[bytes]:
        """Return the records from number `first` (from 0) to before `last`; `size` is the good part of the file.

        Raises `Unavailable` when the file has not as many.
        """
        if first >= last:
            return []
        path = self._layout.ledger(run_id)
        try:
            with open(path, "rb") as file:
                start, end = self._extent(run_id, file, first, last, size)
                file.seek(start)
                data = file.read(end - start)
        except FileNotFoundError:
            data = b""
        skipped = first % STRIDE
        lines = data.split(b"\n")[:-1][skipped : skipped + last - first]
        if len(lines) < last - first:
            raise Unavailable(
                f"the ledger of run {run_id!r} is damaged: {path.name!r} has not the {last} records it should have",
                code="ledger_damaged",
            )
        return lines

    def _extent(self, run_id: str, file: BinaryIO, first: int, last: int, size: int) -> tuple[int, int]:
        """Return from where to where to read for some records, which are in the file's first `size` bytes."""
        with self._lock:
            offsets = self._runs.get(run_id) or self._keep(run_id, _Offsets())
            self._runs.move_to_end(run_id)
            while offsets.size < size:
                before = offsets.size
                file.seek(before)
                offsets.extend(file.read(min(_CHUNK, size - before)))
                if offsets.size == before:  # one record is longer than a chunk, or the file ends here
                    file.seek(before)
                    offsets.extend(file.read(size - before))
                if offsets.size == before:
                    break
            mark, beyond = first // STRIDE, -(-last // STRIDE)
            start = offsets.marks[mark] if mark < len(offsets.marks) else size
            end = offsets.marks[beyond] if beyond < len(offsets.marks) else size
            return start, min(end, size)

    def _keep(self, run_id: str, offsets: _Offsets) -> _Offsets:
        self._runs[run_id] = offsets
        if len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)
        return offsets

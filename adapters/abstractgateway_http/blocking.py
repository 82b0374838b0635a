"""Streams for servers that cannot hand a connection over: a plain iterator that keeps its worker thread.

At most all threads but two may be taken, so that the other routes stay reachable; further streams are refused with 503.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from abstractgateway.errors import Unavailable
from abstractgateway.measures import Family

from .deltas import DeltaBuffer
from .frames import Batch, Cursor, until
from .hub import BATCH_BYTES
from .measures import stream_families
from .stream import StreamRequest

IsGone = Callable[[], bool]


class BlockingStreams:
    """The streams that take a thread each, and their count."""

    def __init__(self, gateway: Any, limit: int) -> None:
        self.gateway = gateway
        self._limit = max(0, limit)
        self._lock = threading.Lock()
        self._open: set[BlockingStream] = set()
        self._stopping = False
        self._refused = 0

    def families(self) -> Iterator[Family]:
        """Return the measures of the streams."""
        return stream_families(open_streams=len(self._open), evicted=0, refused=self._refused)

    def open(self, request: StreamRequest, is_gone: IsGone) -> BlockingStream:
        """Return the stream, to be iterated and closed. Raises `Unavailable` when no thread may be spared."""
        with self._lock:
            if self._stopping or len(self._open) >= self._limit:
                self._refused += 1
                raise Unavailable(
                    f"all {self._limit} streams that this server has threads for are taken; try again, "
                    "or raise ABSTRACTGATEWAY_HTTP_THREADS",
                    retry_after=2,
                    code="streams_full",
                )
            stream = BlockingStream(self, request, is_gone)
            self._open.add(stream)
        return stream

    def forget(self, stream: BlockingStream) -> None:
        """Count a stream as closed; called by the stream."""
        with self._lock:
            self._open.discard(stream)

    def stop(self) -> None:
        """End every open stream and refuse new ones."""
        with self._lock:
            self._stopping = True
            streams = list(self._open)
        for stream in streams:
            stream.stop()


class BlockingStream:
    """One stream; iterating it waits for news of its run."""

    def __init__(self, owner: BlockingStreams, request: StreamRequest, is_gone: IsGone) -> None:
        self._owner = owner
        self._request = request
        self._is_gone = is_gone
        self._news = threading.Event()
        self._stopping = False
        self._unsubscribes = [owner.gateway.subscribe(self._hear)]
        self._deltas = DeltaBuffer(self._news.set)
        if request.has_deltas:
            self._unsubscribes.append(owner.gateway.deltas.subscribe(request.run_id, self._deltas.put))

    def __iter__(self) -> Iterator[bytes]:
        framing = self._request.framing
        yield framing.opening
        cursor = self._request.after
        while not self._stopping:
            self._news.clear()
            batch = self._next_batch(cursor)
            deltas = self._deltas_after(cursor)
            if deltas:  # they came before what was just read
                yield deltas
                continue
            cursor = batch.cursor
            if batch.data:
                yield batch.data
            if batch.ended or self._is_gone():
                return
            if not batch.data and not self._news.wait(self._request.heartbeat_s):
                idle = framing.idle(cursor)
                yield idle.data
                if idle.ended:
                    return
        yield framing.farewell(cursor)

    def stop(self) -> None:
        """Have the iteration end soon."""
        self._stopping = True
        self._news.set()

    def close(self) -> None:
        """Give the thread's place back; the server calls it when the response is over, whatever happened."""
        for unsubscribe in self._unsubscribes:
            unsubscribe()
        self._owner.forget(self)

    def _next_batch(self, cursor: Cursor) -> Batch:
        """Return the next records, up to the intent that a delta waits for."""
        request = self._request
        if not request.framing.reads_ledger:
            return request.framing.batch(request.run_id, cursor, None)
        if isinstance(cursor, str):
            tree = self._owner.gateway.ledger.read_tree(request.run_id, cursor, BATCH_BYTES)
            return request.framing.batch(request.run_id, cursor, tree)
        tail = self._owner.gateway.ledger.tail(request.run_id, cursor, BATCH_BYTES)
        intent = self._deltas.next_intent()
        if intent is not None and intent[0] == request.run_id and intent[1] > cursor:
            tail = until(tail, cursor, intent[1])
        return request.framing.batch(request.run_id, cursor, tail)

    def _deltas_after(self, cursor: Cursor) -> bytes:
        own = self._request.run_id
        return self._deltas.take(lambda run_id, intent: run_id != own or isinstance(cursor, str) or intent <= cursor)

    def _hear(self, run_ids: Iterable[str]) -> None:
        if self._request.run_id in run_ids or self._request.framing.is_tree:
            self._news.set()

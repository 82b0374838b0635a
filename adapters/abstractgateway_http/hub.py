"""The stream hub: one thread that serves every open stream.

A stream is a cursor. When a run has news, the hub reads and encodes the records after a cursor once and sends the same
bytes to every stream that stands there; a stream whose reader is slow keeps one batch and catches up from its cursor
later. So memory and work do not grow with the length of ledgers, and one slow reader costs the others nothing.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from abstractgateway.clock import SystemClock
from abstractgateway.errors import Unavailable
from abstractgateway.measures import Family

from .deltas import DeltaBuffer, Subscribe, Unsubscribe
from .due import DueTimes
from .frames import Batch, Cursor, Framing, LedgerTail, TreeTail, framed, until
from .measures import stream_families
from .stream import Connection, Stream, StreamRequest

log = logging.getLogger("abstractgateway.http.streams")

BATCH_BYTES = 65_536
_BATCHES_PER_TURN = 4
_SHARED_BYTES = 4 * 1024 * 1024
_EVENTS_PER_TURN = 1_024
_LISTENING = getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLRDHUP", 0)
_SENDING = getattr(select, "EPOLLOUT", 0)
_GONE = getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0) | getattr(select, "EPOLLRDHUP", 0)

ReadTail = Callable[[str, int, int], LedgerTail]
ReadTree = Callable[[str, str, int], TreeTail]


def is_supported() -> bool:
    """Say whether this machine has what the hub is made of (Linux has)."""
    return hasattr(select, "epoll") and hasattr(select, "EPOLLRDHUP")


@dataclass(frozen=True)
class HubLimits:
    """How many streams may be open, and for how many seconds a reader may take nothing of what waits for it."""

    streams: int = 10_000
    stuck_s: float = 30.0


DEFAULT_LIMITS = HubLimits()


class Seat:
    """A place in the hub, counted from the moment a stream is promised; given back once, whatever happens."""

    def __init__(self, hub: StreamHub, request: StreamRequest, subscribe: Subscribe | None = None) -> None:
        self._hub = hub
        self._request = request
        self._lock = threading.Lock()
        self._taken = True
        self._deltas: DeltaBuffer | None = None
        self._unsubscribe: Unsubscribe = _nothing
        if request.has_deltas and subscribe is not None:
            self._deltas = DeltaBuffer(partial(hub.notify_deltas, request.run_id))
            self._unsubscribe = subscribe(request.run_id, self._deltas.put)

    def adopt(self, connection: Connection) -> None:
        """Give the hub a connection whose response head is on its way. The hub closes it, also when it is stopping."""
        request = self._request
        self._hub.add(
            Stream(
                request.run_id,
                request.after,
                request.heartbeat_s,
                connection,
                self.release,
                request.framing,
                self._deltas,
            )
        )

    def release(self) -> None:
        """Give the place back; further calls do nothing."""
        with self._lock:
            taken, self._taken = self._taken, False
        if taken:
            self._unsubscribe()
            self._hub.seat_left()


def _nothing() -> None:
    """Do nothing: there is no subscription to end."""


class StreamHub:
    """Serves streams from its own thread between `start` and `stop`.

    Without `subscribe` no stream has deltas, and without `read_tree` none has the records of several runs.
    """

    def __init__(
        self,
        read_tail: ReadTail,
        limits: HubLimits = DEFAULT_LIMITS,
        subscribe: Subscribe | None = None,
        read_tree: ReadTree | None = None,
    ) -> None:
        self.evicted = 0
        self._refused = 0
        self._read_tail = read_tail
        self._read_tree = read_tree
        self._subscribe = subscribe
        self._limits = limits
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._seat_freed = threading.Condition(self._lock)
        self._seats = 0
        self._stopping = False
        self._closed = False
        self._newcomers: deque[Stream] = deque()
        self._changed: set[str] = set()
        self._with_deltas: set[str] = set()
        self._is_woken = False
        self._streams: dict[int, Stream] = {}
        self._watchers: dict[str, set[Stream]] = {}
        self._unfinished: dict[Stream, None] = {}
        self._due: DueTimes[Stream] = DueTimes()
        self._shared: dict[tuple[str, Cursor, int | None, bool, Framing], Batch] = {}
        self._shared_bytes = 0
        self._poll = select.epoll()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._poll.register(self._wake_out.fileno(), select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="abstractgateway-streams", daemon=True)

    # Any thread.

    @property
    def open_streams(self) -> int:
        """How many seats are taken, counting streams that are still on their way here."""
        return self._seats

    def families(self) -> Iterator[Family]:
        """Return the measures of the streams."""
        return stream_families(open_streams=self._seats, evicted=self.evicted, refused=self._refused)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def reserve(self, request: StreamRequest) -> Seat:
        """Return a seat for a stream. Raises `Unavailable` when all are taken or the hub is stopping."""
        with self._lock:
            if self._stopping:
                raise Unavailable("the gateway is stopping; reconnect in a moment", retry_after=2, code="stopping")
            if self._seats >= self._limits.streams:
                self._refused += 1
                raise Unavailable(
                    f"all {self._limits.streams} streams are taken; try again, or raise ABSTRACTGATEWAY_MAX_SSE",
                    retry_after=2,
                    code="streams_full",
                )
            self._seats += 1
        return Seat(self, request, self._subscribe)

    def seat_left(self) -> None:
        """Count a seat as free again; called by the seat."""
        with self._lock:
            self._seats -= 1
            self._seat_freed.notify_all()

    def wait_streams(self, at_most: int, timeout: float) -> bool:
        """Wait until no more than `at_most` streams are open and say whether it came to that within the seconds."""
        with self._lock:
            return self._seat_freed.wait_for(lambda: self._seats <= at_most, timeout)

    def add(self, stream: Stream) -> None:
        """Serve a stream from now on; a stopped hub ends it at once."""
        with self._lock:
            is_late = self._closed
            if not is_late:
                self._newcomers.append(stream)
        if is_late:
            self._attend(stream, self._say_goodbye)
        else:
            self._wake()

    def notify(self, run_ids: Iterable[str]) -> None:
        """Tell the hub, after a durable commit, which runs have news. Cheap, and never raises."""
        # A run nobody watches wakes nobody. A stream that is being added reads its ledger after it became a watcher.
        watched = [run_id for run_id in run_ids if run_id in self._watchers]
        if watched:
            with self._lock:
                self._changed.update(watched)
            self._wake()

    def notify_deltas(self, run_id: str) -> None:
        """Tell the hub that a stream of a run has deltas to send."""
        if run_id in self._watchers:
            with self._lock:
                self._with_deltas.add(run_id)
            self._wake()

    def stop(self, timeout: float = 5.0) -> None:
        """End every stream cleanly, with a hint when to come back, and end the thread."""
        with self._lock:
            self._stopping = True
        self._wake()
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join(timeout)

    def _wake(self) -> None:
        with self._lock:
            if self._is_woken or self._closed:
                return
            self._is_woken = True
        try:
            self._wake_in.send(b"x")
        except OSError:
            # Full of wake-ups, so the hub is awake; or closed this moment, so there is nobody to wake.
            return

    # The hub's thread.

    def _run(self) -> None:
        while not self._stopping:
            self._turn()
        self._close()

    def _turn(self) -> None:
        now = self._clock.monotonic()
        wait = 0.0 if self._unfinished else self._due.seconds_left(now)
        for fd, events in self._poll.poll(wait, _EVENTS_PER_TURN):
            if fd == self._wake_out.fileno():
                self._wake_out.recv(64)
            elif fd in self._streams:
                self._attend(self._streams[fd], partial(self._answer_events, events))
        newcomers, changed, with_deltas = self._take_messages()
        for stream in newcomers:
            self._attend(stream, self._welcome)
        again, self._unfinished = self._unfinished, {}
        for stream in again:
            self._attend(stream, self._pump)
        for run_id in changed:
            for stream in list(self._watchers.get(run_id, ())):
                self._attend(stream, self._pump_if_idle)
        for run_id in with_deltas:
            for stream in list(self._watchers.get(run_id, ())):
                self._attend(stream, self._pump_deltas)
        for stream in self._due.take(self._clock.monotonic()):
            self._attend(stream, self._meet_deadline)
        self._forget_shared()

    def _take_messages(self) -> tuple[list[Stream], set[str], set[str]]:
        with self._lock:
            self._is_woken = False
            newcomers = list(self._newcomers)
            self._newcomers.clear()
            changed, self._changed = self._changed, set()
            with_deltas, self._with_deltas = self._with_deltas, set()
        return newcomers, changed, with_deltas

    def _attend(self, stream: Stream, action: Callable[[Stream], None]) -> None:
        try:
            action(stream)
        except OSError:
            self._drop(stream)
        except Exception:
            # The boundary between one stream and all others: whatever its ledger or our code did, the rest go on.
            # The client gets no last chunk, so it knows that it was cut off and reconnects from its cursor.
            log.exception("a stream of run %r was cut off", stream.run_id)
            self._drop(stream)

    def _answer_events(self, events: int, stream: Stream) -> None:
        if events & _GONE or (events & select.EPOLLIN and stream.is_hung_up()):
            self._drop(stream)
        elif events & _SENDING:
            self._pump(stream)

    def _welcome(self, stream: Stream) -> None:
        self._poll.register(stream.fd, _LISTENING)
        stream.limit_kernel_memory()
        self._streams[stream.fd] = stream
        self._watch(stream, frozenset())
        stream.last_sent = self._clock.monotonic()
        self._due.put(stream, stream.last_sent + stream.heartbeat_s)
        self._pump(stream)

    def _pump_if_idle(self, stream: Stream) -> None:
        if stream.is_open and not stream.pending:
            self._pump(stream)

    def _pump_deltas(self, stream: Stream) -> None:
        """Send what is written just now, without a look at the ledger."""
        if stream.is_open and not stream.pending and stream.load_deltas():
            self._send(stream)

    def _pump(self, stream: Stream) -> None:
        """Send batches until the reader is stuck, nothing is left, or it is the others' turn."""
        for _ in range(_BATCHES_PER_TURN):
            if not stream.is_open or not (stream.pending or self._load_next(stream)):
                return
            if not self._send(stream):
                return
        self._unfinished[stream] = None

    def _send(self, stream: Stream) -> bool:
        """Send what is loaded, and say whether the stream may go on now."""
        if not stream.send_pending(self._clock.monotonic()):
            self._await_reader(stream)
            return False
        self._stop_awaiting(stream)
        if stream.ended:
            self._drop(stream)
        return not stream.ended

    def _load_next(self, stream: Stream) -> bool:
        if stream.load_deltas():
            return True
        batch = self._next_batch(stream, None)
        if stream.load_deltas():  # they came before what was just read
            return True
        intent = stream.next_intent()
        if intent is not None:
            batch = self._next_batch(stream, intent)
        self._watch(stream, batch.runs)
        if batch.data:
            stream.load(batch)
        return bool(batch.data)

    def _next_batch(self, stream: Stream, up_to: int | None) -> Batch:
        chunked = stream.connection.chunked
        key = (stream.run_id, stream.cursor, up_to, chunked, stream.framing)
        batch = self._shared.get(key)
        if batch is None:
            plain = stream.framing.batch(stream.run_id, stream.cursor, self._tail_of(stream, up_to))
            data = framed(plain.data, chunked=chunked, last=plain.ended)
            batch = Batch(data, plain.cursor, plain.ended, plain.runs)
            self._shared_bytes += len(batch.data)
            if self._shared_bytes > _SHARED_BYTES:
                self._forget_shared()
            self._shared[key] = batch
        return batch

    def _tail_of(self, stream: Stream, up_to: int | None) -> LedgerTail | TreeTail | None:
        if not stream.framing.reads_ledger:
            return None
        if isinstance(stream.cursor, str):
            assert self._read_tree is not None
            return self._read_tree(stream.run_id, stream.cursor, BATCH_BYTES)
        tail = self._read_tail(stream.run_id, stream.cursor, BATCH_BYTES)
        return tail if up_to is None else until(tail, stream.cursor, up_to)

    def _watch(self, stream: Stream, runs: frozenset[str]) -> None:
        """Have a stream hear of the news of these runs, and of its own."""
        wanted = runs | {stream.run_id}
        for run_id in wanted - stream.watched:
            self._watchers.setdefault(run_id, set()).add(stream)
            if stream.watched:  # there may have been news of it after it was read, and before it was watched
                self._unfinished[stream] = None
        for run_id in stream.watched - wanted:
            self._unwatch(stream, run_id)
        stream.watched = wanted

    def _unwatch(self, stream: Stream, run_id: str) -> None:
        watchers = self._watchers[run_id]
        watchers.discard(stream)
        if not watchers:
            del self._watchers[run_id]

    def _forget_shared(self) -> None:
        # What was read may be used for one turn: later there may be more. Within a turn it may not grow without bound.
        self._shared.clear()
        self._shared_bytes = 0

    def _await_reader(self, stream: Stream) -> None:
        if not stream.wants_write:
            stream.wants_write = True
            self._poll.modify(stream.fd, _LISTENING | _SENDING)
        if stream.stuck_since is not None:
            self._due.put(stream, stream.stuck_since + self._limits.stuck_s)

    def _stop_awaiting(self, stream: Stream) -> None:
        if stream.wants_write:
            stream.wants_write = False
            self._poll.modify(stream.fd, _LISTENING)
            self._due.put(stream, stream.last_sent + stream.heartbeat_s)

    def _meet_deadline(self, stream: Stream) -> None:
        now = self._clock.monotonic()
        if stream.stuck_since is not None:
            self._evict_if_due(stream, now - stream.stuck_since)
        elif now - stream.last_sent < stream.heartbeat_s:
            self._due.put(stream, stream.last_sent + stream.heartbeat_s)
        else:
            # Sending it looks at the ledger as well, which bounds the harm of a wake-up that got lost.
            idle = stream.framing.idle(stream.cursor)
            data = framed(idle.data, chunked=stream.connection.chunked, last=idle.ended)
            stream.load(Batch(data, idle.cursor, idle.ended))
            self._due.put(stream, now + stream.heartbeat_s)
            self._pump(stream)

    def _evict_if_due(self, stream: Stream, stuck_for: float) -> None:
        if stuck_for < self._limits.stuck_s:
            self._due.put(stream, self._clock.monotonic() + self._limits.stuck_s - stuck_for)
            return
        # The kernel tells of free space only when a third is free; a slow reader may have made some and is not stuck.
        self._pump(stream)
        if stream.stuck_since is not None and self._clock.monotonic() - stream.stuck_since >= self._limits.stuck_s:
            self.evicted += 1
            self._forget(stream)
            stream.hang_up(reset=True)

    def _drop(self, stream: Stream) -> None:
        self._forget(stream)
        stream.hang_up()

    def _forget(self, stream: Stream) -> None:
        if self._streams.pop(stream.fd, None) is None:
            return
        self._poll.unregister(stream.fd)
        self._due.drop(stream)
        for run_id in stream.watched:
            self._unwatch(stream, run_id)
        stream.watched = frozenset()

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            late = list(self._newcomers)
            self._newcomers.clear()
        for stream in [*self._streams.values(), *late]:
            self._attend(stream, self._say_goodbye)
        self._poll.close()
        self._wake_in.close()
        self._wake_out.close()

    def _say_goodbye(self, stream: Stream) -> None:
        # After half a batch nothing may follow: it would be read as part of a record.
        is_between_frames = not stream.pending or stream.send_pending(self._clock.monotonic())
        last_words = stream.framing.farewell(stream.cursor)
        farewell = framed(last_words, chunked=stream.connection.chunked, last=True)
        self._forget(stream)
        stream.hang_up(farewell if is_between_frames else b"")

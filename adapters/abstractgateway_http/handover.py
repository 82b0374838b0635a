"""How a connection leaves waitress for the stream hub.

Waitress pins a worker thread to each response, so streams must not stay there. A worker runs the app, which promises a
stream (`StreamDoor.admit`) and returns the response head with a first chunk; `HandoverTask` writes them as usual and
then, instead of ending the response, marks the channel as leaving. Waitress's main thread takes the socket out of the
channel between two polls and gives it to the hub. There is no official way to do this, so `missing_names` checks at
start that everything used here exists; without it the app streams from worker threads (see `blocking`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from copy import copy
from functools import partial
from threading import RLock
from typing import Any, Protocol

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

from . import hub
from .render import waitress_error
from .stream import DOOR_KEY, Connection, StreamRequest

# A body a little over the limit is still read, so that the client reads the refusal instead of a reset connection.
_READ_BEYOND_LIMIT = 1_048_576

BodyLimit = Callable[[str, "str | None"], int]
"""How many bytes of a body to read, by the path and the `Authorization` of its request; 0 for no limit."""

log = logging.getLogger("abstractgateway.http.server")

_NEEDED: tuple[tuple[type, tuple[str, ...]], ...] = (
    (
        WSGITask,
        ("get_environment", "service", "finish", "has_body", "wrote_header", "content_length", "chunked_response"),
    ),
    (HTTPChannel, ("task_class", "error_task_class", "readable", "writable", "handle_close", "del_channel")),
    (HTTPChannel, ("connected", "total_outbufs_len")),
)
_NEEDED_IN_CHANNEL = ("outbufs", "outbuf_lock", "server")


class Reserves(Protocol):
    """The hub, as the door knows it."""

    def reserve(self, request: StreamRequest) -> hub.Seat:
        """Return a seat, or raise `Unavailable`."""


class Mailbox:
    """Work for waitress's main thread, done between two polls.

    Waitress has such a thing of its own, but swallows what the work raises and holds a lock meanwhile.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        # Reentrant: a signal handler may nudge while the thread it interrupts is posting.
        self._lock = RLock()
        self._posted: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self._is_closed = False
        self._wake = wake

    def post(self, work: Callable[[], None]) -> None:
        """Have the main thread call `work` soon; any thread may post."""
        with self._lock:
            self._posted.append(work)
            if not self._is_woken:
                self._is_woken = True
                self.nudge()

    def nudge(self) -> None:
        """End the poll that the main thread is in; does nothing after `close`."""
        # Under the lock: once closed, the number of the file that wakes may belong to something else.
        with self._lock:
            if not self._is_closed:
                self._wake()

    def run(self) -> None:
        """Do what was posted, and what that posts; called by the main thread only."""
        while posted := self._take():
            for work in posted:
                try:
                    work()
                except OSError:
                    # A socket that was dead already.
                    log.debug("a connection was gone before it was handed over", exc_info=True)

    def close(self) -> None:
        """Wake nobody any more, and do what is left."""
        with self._lock:
            self._is_closed = True
        self.run()

    def _take(self) -> deque[Callable[[], None]]:
        with self._lock:
            self._is_woken = False
            posted, self._posted = self._posted, deque()
        return posted


class StreamDoor:
    """What the app finds in the WSGI environ under `DOOR_KEY`: the way out of this request's worker thread."""

    def __init__(self, streams: Reserves) -> None:
        self._streams = streams
        self.seat: hub.Seat | None = None

    def admit(self, request: StreamRequest) -> None:
        """Promise that the response now being made continues as this stream. Raises `Unavailable` when full."""
        self.seat = self._streams.reserve(request)


class HandoverTask(WSGITask):
    """One request; it may end with the connection leaving waitress."""

    door: StreamDoor | None = None
    has_left = False

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        self.door = environ.setdefault(DOOR_KEY, StreamDoor(self.channel.streams))
        return environ

    def service(self) -> None:
        try:
            super().service()
        finally:
            if self.door is not None and self.door.seat is not None and not self.has_left:
                self.door.seat.release()

    def finish(self) -> None:
        if self._is_head():
            # Waitress would end, with a last chunk, the body that a HEAD response does not have.
            self.write(b"")
            self.chunked_response = False
        seat = self.door.seat if self.door is not None else None
        if seat is None or not self._may_leave():
            super().finish()
            return
        self.has_left = True
        self.close_on_finish = True
        self.channel.hand_over(seat, self.chunked_response)

    def _may_leave(self) -> bool:
        return bool(self.wrote_header and self.has_body and self.content_length is None and not self._is_head())

    def _is_head(self) -> bool:
        return bool(self.request.command.upper() == "HEAD")


class OversizeTask(HandoverTask):
    """A request whose body waitress refuses to read: the app decides on its head, so that refusals keep their order."""

    def get_environment(self) -> dict[str, Any]:
        environ = super().get_environment()
        declared, received = self.request.content_length, self.request.body_bytes_received
        environ["CONTENT_LENGTH"] = str(max(declared, received))
        return environ

    def build_response_header(self) -> bytes:
        # The rest of the body is still on its way and would be read as the next request.
        self.set_close_on_finish()
        head: bytes = super().build_response_header()
        return head


class JsonErrorTask(ErrorTask):
    """The answer to a request that waitress itself refuses, in the shape of every other error."""

    def execute(self) -> None:
        error = self.request.error
        self.status, headers, body = waitress_error(error.code, error.reason, error.body)
        self.response_headers.extend(headers)
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(b"" if getattr(self.request, "command", "") == "HEAD" else body)


def error_task(channel: HandoverChannel, request: Any) -> Any:
    """Return the task that answers a request with an error; called by waitress in place of a task class."""
    kind = OversizeTask if isinstance(request.error, RequestEntityTooLarge) else JsonErrorTask
    return kind(channel, request)


class LimitedParser(HTTPRequestParser):
    """Reads a request; how much of its body is read depends on its head."""

    adj: Any

    def __init__(self, body_limit: BodyLimit, adj: Any) -> None:
        super().__init__(adj)
        self._body_limit = body_limit

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        limit = self._body_limit(self.path, self.headers.get("AUTHORIZATION"))
        if limit:
            self.adj = copy(self.adj)
            self.adj.max_request_body_size = limit + _READ_BEYOND_LIMIT


class LimitedChannel(HTTPChannel):
    """One connection."""

    def __init__(self, body_limit: BodyLimit, *args: Any, **kwargs: Any) -> None:
        self.parser_class = partial(LimitedParser, body_limit)
        super().__init__(*args, **kwargs)


class HandoverChannel(LimitedChannel):
    """One connection; once it is `leaving`, waitress's loop neither reads, writes nor closes it."""

    task_class = HandoverTask
    error_task_class = staticmethod(error_task)
    leaving = False
    socket: Any

    def __init__(self, streams: Reserves, mailbox: Mailbox, body_limit: BodyLimit, *args: Any, **kwargs: Any) -> None:
        self.streams = streams
        self.mailbox = mailbox
        super().__init__(body_limit, *args, **kwargs)

    def readable(self) -> bool:
        return not self.leaving and bool(super().readable())

    def writable(self) -> bool:
        return not self.leaving and bool(super().writable())

    def handle_close(self) -> None:
        # The main thread may be inside handle_write, see `close_when_flushed`, and want to close the leaving socket.
        if not self.leaving:
            super().handle_close()

    def hand_over(self, seat: hub.Seat, chunked: bool) -> None:
        """Have the main thread take this connection out; called by the worker thread that wrote the head."""
        # Before service() goes on and sets `close_when_flushed`.
        self.leaving = True
        self.mailbox.post(partial(self._leave, seat, chunked))

    def _leave(self, seat: hub.Seat, chunked: bool) -> None:
        with self.outbuf_lock:
            sock, self.socket = self.socket, None
            # A channel that was closed meanwhile has no socket, or a closed one (waitress before 3.0.1).
            if sock is None or sock.fileno() < 0:
                seat.release()
                return
            unsent = b"".join(buffer.get(len(buffer)) for buffer in self.outbufs if len(buffer))
            self.connected, self.total_outbufs_len = False, 0
            self.del_channel()
        # Neither the socket's closing nor the hub may keep this channel alive.
        seat.adopt(Connection(sock, chunked, unsent, partial(self.mailbox.post, sock.close)))


def missing_names() -> list[str]:
    """Return what this machine or this waitress lacks for the hand-over; empty when it can be done."""
    missing = [f"{owner.__name__}.{name}" for owner, names in _NEEDED for name in names if not hasattr(owner, name)]
    made = HTTPChannel.__init__.__code__.co_names
    missing += [f"HTTPChannel().{name}" for name in _NEEDED_IN_CHANNEL if name not in made]
    return missing if hub.is_supported() else [*missing, "select.epoll"]


def install(listeners: list[Any], streams: Reserves, mailbox: Mailbox, body_limit: BodyLimit) -> None:
    """Make the listening sockets of a waitress server open `HandoverChannel`s."""
    for listener in listeners:
        listener.channel_class = partial(HandoverChannel, streams, mailbox, body_limit)


def install_limits(listeners: list[Any], body_limit: BodyLimit) -> None:
    """Make the listening sockets of a waitress server refuse large bodies, and hand nothing over."""
    for listener in listeners:
        listener.channel_class = partial(LimitedChannel, body_limit)

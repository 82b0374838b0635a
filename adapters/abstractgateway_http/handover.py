"""How a connection leaves waitress for the stream hub.

Waitress pins a worker thread to each response, so streams must not stay there. A worker runs the app, which promises a
stream (`StreamDoor.admit`) and returns the response head with a first chunk; `HandoverTask` writes them as usual and
then, instead of ending the response, marks the channel as leaving. Waitress's main thread takes the socket out of the
channel between two polls and gives it to the hub. There is no official way to do this, so `missing_names` checks at
start that everything used here exists; without it the app streams from worker threads (see `blocking`).
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import RLock
from typing import Any, Protocol

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

from abstractgateway.security import Proxies, Tally

from . import hub
from .client_limits import ArrivalTime, Doorkeeper
from .fair_channel import FairChannel
from .render import waitress_error
from .stream import DOOR_KEY, Connection, StreamRequest

# A body a little over the limit is still read, so that the client reads the refusal instead of a reset connection.
_READ_BEYOND_LIMIT = 1_048_576
# So much of its answers a client may leave unread before its next request is worked on.
_UNREAD_BYTES = 65_536
_STUCK_S = 30.0
# So large a piece of a body goes out in one piece with the head before it.
_SENT_AT_ONCE = 65_536

_FOLDED = re.compile(rb"\r\n[ \t]")
_CODINGS = re.compile(rb"^transfer-encoding:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)

BodyLimit = Callable[[str, "str | None"], int]
"""How many bytes of a body to read, by the path and the `Authorization` of its request; 0 for no limit."""

log = logging.getLogger("abstractgateway.http.server")


@dataclass(frozen=True)
class ChannelLimits:
    """What connections keep to: how much of a body is read, how long a head and a whole request may take to arrive, and
    how many connections an address may have, except for trusted proxies.
    """

    body: BodyLimit
    head_s: float
    request_s: float
    connections: Tally
    proxies: Proxies


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
        self._on_left: Callable[[], None] = _nothing
        self.seat: hub.Seat | None = None

    def admit(self, request: StreamRequest, on_left: Callable[[], None]) -> None:
        """Promise that the response now being made continues as this stream. Raises `Unavailable` when full.

        `on_left` is called once when the stream is over, also when it never begins.
        """
        self.seat = self._streams.reserve(request)
        self._on_left = on_left

    def left(self) -> None:
        """Say that the stream is over; further calls do nothing."""
        on_left, self._on_left = self._on_left, _nothing
        on_left()

    def give_up(self) -> None:
        """Give the seat back: nobody will sit down."""
        if self.seat is not None:
            self.seat.release()
        self.left()


class HandoverTask(WSGITask):
    """One request; it may end with the connection leaving waitress."""

    door: StreamDoor | None = None
    has_left = False
    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        self.door = environ.setdefault(DOOR_KEY, StreamDoor(self.channel.streams))
        return environ

    def write(self, data: bytes) -> None:
        if not self.wrote_header and 0 < len(data) < _SENT_AT_ONCE and self.has_body:
            self.channel.head = self.build_response_header()
            self.wrote_header = True
        super().write(data)

    def service(self) -> None:
        try:
            super().service()
        finally:
            if self.door is not None and not self.has_left:
                self.door.give_up()

    def finish(self) -> None:
        if self._is_head():
            # Waitress would end, with a last chunk, the body that a HEAD response does not have.
            self.write(b"")
            self.chunked_response = False
        door = self.door
        if door is None or door.seat is None or not self._may_leave():
            super().finish()
            return
        self.has_left = True
        self.close_on_finish = True
        self.channel.hand_over(door, self.chunked_response)

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
    """Reads a request; how much of its body is read depends on its head.

    A head that a proxy in front of us may understand otherwise than we do is refused: what the one takes for a body,
    the other could take for the next request.
    """

    adj: Any
    headers: dict[str, str]
    path = ""  # waitress logs it, also of a request whose head could not be read

    def __init__(self, body_limit: BodyLimit, adj: Any) -> None:
        super().__init__(adj)
        self._body_limit = body_limit

    def parse_header(self, header_plus: bytes) -> None:
        _check_lines(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # a length of thousands of digits, or brackets around what is no address
            raise ParsingError("Content-Length or request target cannot be read") from error
        self._check_head()
        if self.proxy_netloc:  # RFC 9112, 3.2.2: a target with a host in it overrules the header
            self.headers["HOST"] = self.proxy_netloc
        limit = self._body_limit(self.path, self.headers.get("AUTHORIZATION"))
        if limit:
            self.adj = _with_limit(self.adj, limit + _READ_BEYOND_LIMIT)

    def _check_head(self) -> None:
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("The HTTP version must be 1.1 or 1.0")
        if self.version == "1.1" and "HOST" not in self.headers:
            raise ParsingError("HTTP/1.1 needs a Host header")
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Content-Length and Transfer-Encoding must not be sent together")
        if "TRANSFER_ENCODING" in self.headers:  # waitress takes it out where it means something
            raise ParsingError("HTTP/1.0 knows no Transfer-Encoding")


@lru_cache(maxsize=16)  # a copy takes longer than most requests, and there are few limits
def _with_limit(adj: Any, most_bytes: int) -> Any:
    """Return a server's settings with another limit for bodies."""
    limited = copy(adj)
    limited.max_request_body_size = most_bytes
    return limited


def _check_lines(head: bytes) -> None:
    """Refuse what cannot be seen any more when the head has been taken apart."""
    if _FOLDED.search(head):
        raise ParsingError("A header must not go on in the next line")
    codings = _CODINGS.findall(head)
    if len(codings) > 1 or any(b"," in coding for coding in codings):
        raise ParsingError("Transfer-Encoding must be 'chunked' or absent")


class ServerOfChannel:
    """The server as a channel sees it: it wakes the loop only for what the loop does not wait for already.

    Waitress wakes it after every answer, which then looks at all connections once more and finds nothing to do.
    """

    def __init__(self, channel: LimitedChannel, server: Any) -> None:
        self._channel = channel
        self.whole = server

    def pull_trigger(self) -> None:
        channel = self._channel
        if not (channel.is_listened_to and channel.is_at_rest):
            channel.note_change()
            self.whole.pull_trigger()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)


class LimitedChannel(FairChannel):
    """One connection."""

    request: Any
    server: Any
    is_parked = False
    is_listened_to = False
    """Whether the loop waits for what the client sends."""
    head = b""
    """The head of an answer, which is sent together with what is written next."""

    def __init__(self, limits: ChannelLimits, *args: Any, **kwargs: Any) -> None:
        self.parser_class = partial(LimitedParser, limits.body)
        self._seen_activity, self._seen_at = 0.0, time.monotonic()
        self.arrival = ArrivalTime(limits.head_s, limits.request_s)
        self.on_left: Callable[[], None] = _nothing
        super().__init__(*args, **kwargs)
        self.server = ServerOfChannel(self, self.server)

    def readable(self) -> bool:
        # Taken back first: a worker that is done in between must not rely on an answer that is not given yet.
        self.is_listened_to = False
        self.is_listened_to = bool(super().readable())
        return self.is_listened_to

    def write_soon(self, data: Any) -> Any:
        head, self.head = self.head, b""
        return super().write_soon(head + data if head else data)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is to be sent, and the connection is to stay."""
        return not (self.total_outbufs_len or self.will_close or self.close_when_flushed)

    def note_change(self) -> None:
        """Have the loop ask this connection again what it waits for."""
        number = self._fileno
        if number is not None:  # it is there no more once the connection is given up
            self._map.note(number)

    def received(self, data: bytes) -> bool:
        is_taken = bool(super().received(data))
        self.arrival.note(self.request, time.monotonic())
        return is_taken

    def service(self) -> None:
        # Waitress would answer all requests that came in one piece, and wait in this thread for 16 MB to be read.
        with self.outbuf_lock:
            self.is_parked = self.total_outbufs_len > _UNREAD_BYTES
        if not self.is_parked:
            super().service()

    def handle_write(self) -> None:
        super().handle_write()
        self._unpark()

    def handle_close(self) -> None:
        super().handle_close()
        self._unpark()  # the requests that it has are given up by a worker thread

    def is_stuck(self, now: float) -> bool:
        """Say whether the client has taken nothing of what waits for it for half a minute; to be asked now and then."""
        if self.last_activity != self._seen_activity or not self.total_outbufs_len:
            self._seen_activity, self._seen_at = self.last_activity, now
        return now - self._seen_at > _STUCK_S

    def _unpark(self) -> None:
        # No worker has the channel while it is parked, so nothing changes between the question and the answer.
        if self.is_parked and self.total_outbufs_len <= _UNREAD_BYTES:
            self.is_parked = False
            self.server.add_task(self)

    def del_channel(self, map: Any = None) -> None:
        super().del_channel(map)
        if isinstance(self.server, ServerOfChannel):
            self.server = self.server.whole  # each would keep the other alive
        on_left, self.on_left = self.on_left, _nothing
        on_left()


class HandoverChannel(LimitedChannel):
    """One connection; once it is `leaving`, waitress's loop neither reads, writes nor closes it."""

    task_class = HandoverTask
    error_task_class = staticmethod(error_task)
    leaving = False
    socket: Any

    def __init__(self, streams: Reserves, mailbox: Mailbox, limits: ChannelLimits, *args: Any, **kwargs: Any) -> None:
        self.streams = streams
        self.mailbox = mailbox
        super().__init__(limits, *args, **kwargs)

    def readable(self) -> bool:
        return not self.leaving and bool(super().readable())

    def writable(self) -> bool:
        return not self.leaving and bool(super().writable())

    def handle_close(self) -> None:
        # The main thread may be inside handle_write, see `close_when_flushed`, and want to close the leaving socket.
        if not self.leaving:
            super().handle_close()

    def hand_over(self, door: StreamDoor, chunked: bool) -> None:
        """Have the main thread take this connection out; called by the worker thread that wrote the head."""
        # Before service() goes on and sets `close_when_flushed`.
        self.leaving = True
        self.mailbox.post(partial(self._leave, door, chunked))

    def _leave(self, door: StreamDoor, chunked: bool) -> None:
        with self.outbuf_lock:
            sock, self.socket = self.socket, None
            # A channel that was closed meanwhile has no socket, or a closed one (waitress before 3.0.1).
            if sock is None or sock.fileno() < 0:
                door.give_up()
                return
            unsent = b"".join(buffer.get(len(buffer)) for buffer in self.outbufs if len(buffer))
            self.connected, self.total_outbufs_len = False, 0
            self.del_channel()
        # Neither the socket's closing nor the hub may keep this channel alive.
        assert door.seat is not None
        door.seat.adopt(Connection(sock, chunked, unsent, partial(_close, door, self.mailbox, sock)))


def _close(door: StreamDoor, mailbox: Mailbox, sock: Any) -> None:
    door.left()
    mailbox.post(sock.close)


def missing_names() -> list[str]:
    """Return what this machine or this waitress lacks for the hand-over; empty when it can be done."""
    missing = [f"{owner.__name__}.{name}" for owner, names in _NEEDED for name in names if not hasattr(owner, name)]
    made = HTTPChannel.__init__.__code__.co_names
    missing += [f"HTTPChannel().{name}" for name in _NEEDED_IN_CHANNEL if name not in made]
    return missing if hub.is_supported() else [*missing, "select.epoll"]


def install(listeners: list[Any], streams: Reserves, mailbox: Mailbox, limits: ChannelLimits) -> None:
    """Make the listening sockets of a waitress server open `HandoverChannel`s."""
    _open_channels(listeners, partial(HandoverChannel, streams, mailbox, limits), limits)


def install_limits(listeners: list[Any], limits: ChannelLimits) -> None:
    """Make the listening sockets of a waitress server keep to the limits, and hand nothing over."""
    _open_channels(listeners, partial(LimitedChannel, limits), limits)


def _open_channels(listeners: list[Any], make_channel: Callable[..., Any], limits: ChannelLimits) -> None:
    for listener in listeners:
        listener.channel_class = Doorkeeper(make_channel, limits.connections, limits.proxies)


def _nothing() -> None:
    """Do nothing: nobody counts."""

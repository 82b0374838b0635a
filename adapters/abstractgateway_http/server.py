"""The server: waitress's loop, the stream hub beside it, and an orderly end.

Waitress's own `run` relies on an exception to stop. Here a stop is a flag that is looked at between two polls.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any

import waitress
from waitress import wasyncore
from waitress.server import BaseWSGIServer

from abstractgateway.security import Proxies, Tally

from . import handover
from .app import create_app
from .client_limits import close_late
from .connections import Connections
from .hub import DEFAULT_LIMITS, HubLimits, StreamHub
from .sockets import listen, raise_open_files_limit, socket_budget

log = logging.getLogger("abstractgateway.http.server")

_ENDING = (signal.SIGTERM, signal.SIGINT)
_POLL_S = 1
# A connection that says nothing is not kept: waitress's 120 s let a few idle sockets fill the server.
_IDLE_S = 30
_CLEANUP_S = 10
# One request ahead is read while another is worked on: that is how a client's leaving is noticed.
_LOOKAHEAD = 1
_NO_LIMIT = 2**62
# With Python's 5 ms, one busy thread makes every other request and stream wait for it 5 ms at a time.
_SWITCH_S = 0.0005

# Waitress warns whenever a request waits for a worker, which under load is every few milliseconds and no cause to act.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)


class GatewayServer:
    """A gateway over HTTP in a background thread, or in the caller's with `run`.

    The port is taken when the object is made; port 0 picks a free one. Raises `Unavailable` when the port is taken.
    """

    def __init__(
        self, gateway: Any, host: str = "127.0.0.1", port: int = 0, *, limits: HubLimits = DEFAULT_LIMITS
    ) -> None:
        self._gateway = gateway
        self.host = host
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._next_look = 0.0
        self.ending_since = 0.0
        self.app = create_app(gateway, bound_host=host)
        budget = socket_budget(raise_open_files_limit(), min(limits.streams, gateway.config.max_sse))
        sockets = listen(host, port)
        self.port: int = sockets[0].getsockname()[1]
        self._connections = Connections()
        self._waitress = waitress.create_server(
            self.app, map=self._connections, sockets=sockets, **_settings(gateway.config, budget.connections)
        )
        self._listeners = [member for member in self._connections.values() if isinstance(member, BaseWSGIServer)]
        self._connections.ask_always(listener.socket.fileno() for listener in self._listeners)
        self._mailbox = handover.Mailbox(self._listeners[0].pull_trigger)
        self.hub = self._make_hub(replace(limits, streams=budget.streams))
        self._thread = threading.Thread(target=self.run, name="abstractgateway-http", daemon=True)

    @property
    def url(self) -> str:
        """Where clients on this machine find the gateway."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self) -> GatewayServer:
        """Serve from a background thread until `stop`."""
        self._thread.start()
        return self

    def stop(self, timeout: float = 15.0) -> None:
        """End streams with a hint to come back, let requests finish, and return when everything is closed."""
        self.ask_to_stop()
        if self._thread.ident is None and not self._ended.is_set():
            self.run()
        self._ended.wait(timeout)

    def ask_to_stop(self) -> None:
        """Have the loop end soon; may be called from a signal handler."""
        self._stop.set()
        self._mailbox.nudge()

    def run(self, stop: threading.Event | None = None) -> None:
        """Serve in the calling thread until `stop` is set or `ask_to_stop` is called."""
        unsubscribe = self._gateway.subscribe(self.hub.notify) if self.hub is not None else None
        if self.hub is not None:
            self.hub.start()
        try:
            while not (self._stop.is_set() or (stop is not None and stop.is_set())):
                self._turn(_POLL_S)
        finally:
            self._shut_down()
            if unsubscribe is not None:
                unsubscribe()
            self._ended.set()

    def __enter__(self) -> GatewayServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _make_hub(self, limits: HubLimits) -> StreamHub | None:
        missing = handover.missing_names()
        if missing:
            log.warning("streams keep a worker thread each, because %s is missing", ", ".join(missing))
            handover.install_limits(self._listeners, self._channel_limits())
            return None
        ledger = self._gateway.ledger
        hub = StreamHub(ledger.tail, limits, self._gateway.deltas.subscribe, ledger.read_tree)
        self._gateway.metrics.add("streams", hub.families)
        self.app.aside.wake = hub.notify
        handover.install(self._listeners, hub, self._mailbox, self._channel_limits())
        return hub

    def _channel_limits(self) -> handover.ChannelLimits:
        config = self._gateway.config
        return handover.ChannelLimits(
            body=self.app.read_limit,
            head_s=_IDLE_S,
            request_s=config.request_timeout_s,
            connections=Tally(config.max_client_connections if config.security else 0),
            proxies=Proxies.of(config.trusted_proxies, trusts_any=config.trust_proxy),
        )

    def _turn(self, seconds: float) -> None:
        self._connections.turn(seconds)
        self._mailbox.run()
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _POLL_S
            close_late(self._channels(), now)
            self._connections.ask_all()

    def _shut_down(self) -> None:
        self.ending_since = time.monotonic()
        for listener in self._listeners:
            listener.accepting = False
            listener.del_channel()
            listener.socket.close()
        self.app.close()
        if self.hub is not None:
            self.hub.stop()
        self.app.aside.close()
        until = self.ending_since + self._gateway.config.shutdown_grace_s
        while self._is_busy() and time.monotonic() < until:
            self._turn(0.05)
        self._waitress.task_dispatcher.shutdown(timeout=max(0.1, until - time.monotonic()))
        self._mailbox.close()
        for channel in self._channels():
            channel.handle_close()
        wasyncore.close_all(self._connections, ignore_all=True)
        self._connections.close()

    def _is_busy(self) -> bool:
        return any(channel.requests or channel.total_outbufs_len for channel in self._channels())

    def _channels(self) -> list[Any]:
        return [channel for listener in self._listeners for channel in listener.active_channels.values()]


def serve(
    gateway: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    stop: threading.Event | None = None,
    on_ready: Callable[[GatewayServer], None] | None = None,
) -> float:
    """Serve a gateway until SIGTERM, SIGINT or `stop`, then end every stream and request in order.

    Requests under way have the `shutdown_grace_s` of the gateway's settings; a second signal ends the process at once.
    Returns when the end began, in seconds of the monotonic clock. `on_ready` is called when clients can connect; the
    server it gets knows its `url`. Signals are handled only when called in the main thread. Raises `Unavailable` when
    the port is taken.
    """
    server = GatewayServer(gateway, host, port)
    with _fast_switching(), _stopped_by_signals(server.ask_to_stop):
        if on_ready is not None:
            on_ready(server)
        server.run(stop)
    return server.ending_since


@contextmanager
def _stopped_by_signals(ask_to_stop: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_DFL)
        ask_to_stop()

    before = {number: signal.signal(number, handle) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _fast_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _settings(config: Any, connections: int) -> dict[str, Any]:
    # The loop polls: select() dies at file number 1024, and streams keep numbers taken.
    return {
        "threads": config.http_threads,
        "connection_limit": connections,
        "max_request_body_size": _NO_LIMIT,
        "max_request_header_size": config.max_header_bytes,
        "clear_untrusted_proxy_headers": False,  # the policy says whom to believe
        "channel_timeout": _IDLE_S,
        "cleanup_interval": _CLEANUP_S,
        "channel_request_lookahead": _LOOKAHEAD,
        "asyncore_use_poll": True,
        "log_socket_errors": False,
        "ident": None,
    }

"""Listening sockets and how many connections the machine can bear."""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from abstractgateway.errors import Denied, Invalid, Unavailable

_BACKLOG = 1_024
# Files of stores and logs, pipes, the poll itself.
_RESERVED_FDS = 256
_MOST_CONNECTIONS = 5_000
_LEAST_FDS = 1_024


@dataclass(frozen=True)
class SocketBudget:
    """How many sockets may be open: requests in the server's poll loop, and streams in the hub."""

    connections: int
    streams: int


def socket_budget(fds: int, wanted_streams: int) -> SocketBudget:
    """Split the files a process may open: streams get what they want, up to half."""
    usable = max(fds - _RESERVED_FDS, 64)
    streams = min(wanted_streams, usable // 2)
    return SocketBudget(connections=min(_MOST_CONNECTIONS, usable - streams), streams=streams)


def raise_open_files_limit() -> int:
    """Raise the soft limit of open files to the hard one and return what the process has."""
    if sys.platform == "win32":
        return _LEAST_FDS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1_048_576 if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        # macOS names a hard limit that it does not grant; what we have will do.
        return int(soft)
    return int(most)


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for every address of `host`; port 0 picks one free port for all of them.

    Raises `Unavailable` when the port is taken, `Denied` when it may not be used, `Invalid` for an unknown host.
    """
    opened: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            chosen = opened[0].getsockname()[1] if opened else port
            opened.append(_listening(family, (address[0], chosen, *address[2:])))
    except OSError as error:
        for sock in opened:
            sock.close()
        _explain(error, host, port)
    return opened


def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    flags = socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise Invalid("host", f"{host!r} is not an address of this machine ({error}); try '127.0.0.1'") from error
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _listening(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _explain(error: OSError, host: str, port: int) -> NoReturn:
    where = f"port {port} on {host!r}"
    if error.errno == errno.EADDRINUSE:
        cure = "stop the program that listens there, or choose another with --port"
        raise Unavailable(f"{where} is already in use; {cure}", code="port_in_use") from error
    if error.errno in (errno.EACCES, errno.EPERM):
        raise Denied(f"{where} may not be listened on; choose one from 1024 with --port") from error
    if error.errno == errno.EADDRNOTAVAIL:
        raise Invalid("host", f"{host!r} is not an address of this machine; try '127.0.0.1'") from error
    raise Unavailable(f"{where} cannot be listened on: {error}") from error

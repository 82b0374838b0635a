"""The network between a process and the servers, which can be cut and healed: a proxy, or a network of Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from tests.postgres.proxy import Proxy

SUBNET = f"10.{200 + os.getpid() % 50}"
"""Of this process: another may do the same at the same time."""
SERVER_HOST = f"{SUBNET}.0.1"
TRUSTED = f"{SUBNET}.0.0/16"


class Proxied:
    """A process on this machine, which reaches each server through a proxy; `host` and `ports` are where those are."""

    host = address = "127.0.0.1"
    prefix: Sequence[str] = ()

    def __init__(self, ports: Sequence[int]) -> None:
        self._proxies = [Proxy(port) for port in ports]
        self.ports = [proxy.port for proxy in self._proxies]

    def cut(self) -> None:
        for proxy in self._proxies:
            proxy.cut_now(stays_away=True)

    def heal(self) -> None:
        for proxy in self._proxies:
            proxy.heal()

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.close()


class Namespace:
    """A network namespace of Linux with one cable to this one, in which what `prefix` precedes runs.

    A cut takes the cable away: nobody is told, and what was sent is sent again when it is back.
    """

    host = SERVER_HOST

    def __init__(self, number: int, ports: Sequence[int]) -> None:
        self.ports = list(ports)
        self._name = f"gateway{os.getpid()}n{number}"
        self._cable = f"gw{os.getpid() % 1_000_000}c{number}"
        self.address = f"{SUBNET}.{number}.2"
        self.prefix = ("ip", "netns", "exec", self._name)
        _ip("netns", "add", self._name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("address", "add", f"{SUBNET}.{number}.1/24", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        _ip("-n", self._name, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self._name, "link", "set", "lo", "up")
        _ip("-n", self._name, "link", "set", "eth0", "up")
        _ip("-n", self._name, "route", "add", "default", "via", f"{SUBNET}.{number}.1")

    def cut(self) -> None:
        _ip("link", "set", self._cable, "down")

    def heal(self) -> None:
        _ip("link", "set", self._cable, "up")

    def close(self) -> None:
        _ip("netns", "delete", self._name)


class ServerHost:
    """The address at which namespaces find the servers, for as long as the block lasts."""

    def __enter__(self) -> None:
        _ip("address", "add", f"{SERVER_HOST}/32", "dev", "lo")

    def __exit__(self, *error: object) -> None:
        _ip("address", "delete", f"{SERVER_HOST}/32", "dev", "lo")


def can_make_namespaces() -> bool:
    """Say whether network namespaces and cables can be made here: it takes root, iproute2 and a kernel with them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        Namespace(254, ()).close()
    except subprocess.CalledProcessError:
        return False
    return True


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)

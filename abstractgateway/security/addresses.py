"""Which addresses of the network the gateway may be sent to by a model or a flow: decided from texts alone.

Whoever fetches a URL resolves its name once, has every address judged here, and connects to one that was judged. An
address inside the operator's network, of this machine, or of a cloud's metadata service is refused unless the operator
names its network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import Denied, Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PORTS = {"http": 80, "https": 443}
_MOST_URL_CHARS = 4000
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"),)
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # Oracle's metadata service among them
        "192.88.99.0/24",
        "168.63.129.16/32",  # Azure's host, a public address
        "fd00:ec2::/32",
        "fec0::/10",
        "2001::/32",  # tunnels through IPv4, which nobody runs any more
        "2002::/16",
    )
)


class Target(NamedTuple):
    """Where a URL leads: its scheme, the host as it is named, the port, and path with query."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True)
class FetchRules:
    """Which addresses may be connected to: public ones, and those of the networks that the operator allows."""

    allowed: tuple[Network, ...] = ()

    @staticmethod
    def of(networks: Iterable[str]) -> FetchRules:
        """Return the rules for networks such as `10.0.0.0/8` or `127.0.0.1`. Raises `Invalid` for one that is none."""
        return FetchRules(tuple(_network(text) for text in networks))

    def check(self, host: str, address: str) -> None:
        """Raise `Denied` unless the gateway may connect to an address that a host's name was resolved to."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise Denied(f"{host!r} has no usable address", code="address_denied") from None
        if any(meant in network for network in self.allowed for meant in (found, _meant(found))):
            return
        if not _is_public(_meant(found)):
            shown = f"{host!r} is at {found}, which" if host != str(found) else str(found)
            raise Denied(f"{shown} is not a public address", code="address_denied")


def target_of(url: object) -> Target:
    """Return where a URL leads. Raises `Invalid` for anything but http and https, and for one with a password."""
    if not isinstance(url, str) or not url.strip():
        raise Invalid("url", "is required")
    text = url.strip()
    if len(text) > _MOST_URL_CHARS or any(ord(char) <= 32 or ord(char) == 127 for char in text):
        raise Invalid("url", f"has blanks or control characters, or more than {_MOST_URL_CHARS} characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid("url", f"cannot be read: {error}") from None
    if parts.scheme not in _PORTS:
        raise Invalid("url", f"{parts.scheme or text[:20]!r} is not http or https")
    if not host or parts.username is not None or parts.password is not None:
        raise Invalid("url", "has a user name or password" if host else "names no host")
    if "\\" in parts.netloc or "%" in host:
        raise Invalid("url", f"{host!r} is no name of a host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, path)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise Invalid("fetch_allow", f"{text!r} is no network: {error}") from None


def _meant(address: Address) -> Address:
    """Return the address that is reached: where an IPv6 address only carries an IPv4 address, that one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _is_public(address: Address) -> bool:
    if any(address in network for network in _REFUSED):
        return False
    is_odd = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not (is_odd or address.is_link_local or address.is_private)

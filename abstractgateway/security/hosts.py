"""Which `Host` headers may reach the gateway: the answer to DNS rebinding.

A page of a foreign site can make its own name resolve to 127.0.0.1 and then talk to a local gateway as "same origin".
It cannot choose the `Host` header, which carries its name. So only names that are ours are served.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

ANY = "*"
_WILDCARD_ADDRESSES = frozenset({"0.0.0.0", "::"})
_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


@dataclass(frozen=True)
class HostList:
    """The names under which a gateway may be addressed, ready to be asked."""

    names: frozenset[str]
    allows_any: bool
    allows_addresses: bool

    @staticmethod
    def of(names: Iterable[str], *, bound_host: str | None = None) -> HostList:
        """Return the list made of loopback, the configured names and the address the server is bound to.

        A server bound to a wildcard address is reached under each address of the machine; a numeric `Host` cannot be
        the work of DNS rebinding, so every numeric one is let through then.
        """
        known = {host_name(name) for name in names}
        bound = host_name(bound_host or "")
        return HostList(
            names=frozenset(known | {bound}) - {"", ANY},
            allows_any=ANY in known,
            allows_addresses=bound in _WILDCARD_ADDRESSES,
        )

    def is_allowed(self, header: str | None) -> bool:
        """Say whether a `Host` header names this gateway. HTTP/1.0 clients send none; every browser does."""
        name = host_name(header or "")
        if not name or self.allows_any or name in self.names or is_loopback(name):
            return True
        return self.allows_addresses and _address(name) is not None


def host_name(text: str) -> str:
    """Return the name in a `Host` header or address text: lower case, without port, brackets and trailing dot."""
    cleaned = text.strip().lower()
    if cleaned.startswith("["):
        return cleaned[1:].partition("]")[0]
    if cleaned.count(":") == 1:
        cleaned = cleaned.partition(":")[0]
    return cleaned.rstrip(".")


@lru_cache(maxsize=64)  # asked about every request, and mostly about the same few
def is_loopback(host: str) -> bool:
    """Say whether a name or address means this machine only."""
    name = host_name(host)
    address = _address(name)
    return name in _LOOPBACK_NAMES or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address

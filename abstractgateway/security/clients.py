"""Which client a request comes from, when proxies stand in between.

Anybody can send `X-Forwarded-For`. Only what a trusted proxy has appended to it is believed: the list is read from its
end, and the first address that is no trusted proxy is the client.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import Invalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_HOST_BITS_OF_A_SITE = 64


@dataclass(frozen=True)
class Proxies:
    """The proxies whose word about clients is taken."""

    networks: tuple[Network, ...] = ()
    trusts_any: bool = False

    @staticmethod
    def of(texts: Iterable[str], *, trusts_any: bool = False) -> Proxies:
        """Return the proxies at these addresses and networks.

        With `trusts_any` and no address, whoever connects is taken for one proxy. Raises `Invalid` for a text that is
        no address.
        """
        networks = tuple(_network(text) for text in texts)
        return Proxies(networks, trusts_any and not networks)

    def trusts(self, peer: str) -> bool:
        """Say whether the word of whoever connects from this address is taken."""
        return self.trusts_any or (bool(self.networks) and self._has(peer))

    def client(self, peer: str, forwarded: str | None) -> str:
        """Return the address of the client: `peer` connects, and sends this `X-Forwarded-For`."""
        if not forwarded or not self.trusts(peer):
            return peer
        hops = [hop for hop in (address_text(part) for part in forwarded.split(",")) if hop]
        if self.trusts_any:
            return hops[-1] if hops else peer
        return next((hop for hop in reversed(hops) if not self._has(hop)), hops[0] if hops else peer)

    def _has(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self.networks)


def address_text(text: str) -> str:
    """Return the address in one item of `X-Forwarded-For`, without brackets and port; empty for anything else."""
    cleaned = text.strip().strip('"')
    if cleaned.startswith("["):
        cleaned = cleaned[1:].partition("]")[0]
    elif cleaned.count(":") == 1:
        cleaned = cleaned.partition(":")[0]
    address = _address(cleaned)
    return str(address) if address is not None else ""


def client_key(address: str) -> str:
    """Return what failures and shares of a client are counted under.

    An IPv6 client has 2^64 addresses of its own, so its network is what counts.
    """
    if ":" not in address:
        return address
    found = _address(address)
    if found is None or found.version == 4:
        return str(found or address)
    return str(ipaddress.ip_network((int(found), _HOST_BITS_OF_A_SITE), strict=False))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise Invalid(
            "ABSTRACTGATEWAY_TRUSTED_PROXIES", f"{text!r} is neither an address nor a network such as '10.0.0.0/8'"
        ) from error

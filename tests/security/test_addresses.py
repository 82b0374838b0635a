"""Where the gateway may be sent to: everything that is not plainly the public network is refused."""

from __future__ import annotations

import pytest

from abstractgateway.errors import Denied, Invalid
from abstractgateway.security.addresses import FetchRules, Target, target_of

PUBLIC = FetchRules.of([])


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_may_be_connected_to(address: str) -> None:
    PUBLIC.check("host", address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.1.1.1", "172.16.0.1", "192.168.0.1", "0.0.0.0", "255.255.255.255"),
        *("169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
        *("224.0.0.1", "240.0.0.1", "198.18.0.1", "203.0.113.1", "192.88.99.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fd00:ec2::254", "fc00::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1"),
        *("", "no address", "127.1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Denied):
        PUBLIC.check("host", address)


def test_the_operator_may_allow_networks() -> None:
    rules = FetchRules.of(["10.0.0.0/8", "::1"])

    rules.check("host", "10.2.3.4")
    rules.check("host", "::ffff:10.2.3.4")
    rules.check("host", "::1")
    for other in ("127.0.0.1", "192.168.0.1", "::ffff:192.168.0.1"):
        with pytest.raises(Denied):
            rules.check("host", other)


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="'home' is no network"):
        FetchRules.of(["home"])


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.org", Target("http", "example.org", 80, "/")),
        (" https://EXAMPLE.org:8443/a%20b?c=d#e ", Target("https", "example.org", 8443, "/a%20b?c=d")),
        ("http://[::1]:0/", Target("http", "::1", 0, "/")),
    ],
)
def test_a_url_says_where_it_leads(url: str, target: Target) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize(
    "url",
    [
        *("", None, 5, "example.org", "//example.org/", "ftp://example.org/", "file:///etc/passwd", "javascript:1"),
        *("http:///path", "http://user@example.org/", "http://u:p@example.org/", "http://example.org:99999/"),
        *("http://exa mple.org/", "http://example.org/\r\nHost: evil", "http://example.org/\x00", "http://[::1/"),
        *("http://127.0.0.1\\@example.org/", "http://fe80::1%25eth0/", f"http://example.org/{'a' * 4000}"),
    ],
    ids=str,
)
def test_anything_else_is_no_url(url: object) -> None:
    with pytest.raises(Invalid):
        target_of(url)

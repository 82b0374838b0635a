from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abstractgateway.errors import Invalid
from abstractgateway.security.clients import Proxies, client_key

PROXY = Proxies.of(["10.0.0.0/8", "2001:db8::1"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "1.2.3.4", "192.0.2.1"),
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4:5555", "1.2.3.4"),
        ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.1", '"[2001:db8::7]"', "2001:db8::7"),
        ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("2001:db8::1", "1.2.3.4", "1.2.3.4"),
        ("2001:db8::2", "1.2.3.4", "2001:db8::2"),
    ],
)
def test_only_what_trusted_proxies_appended_is_believed(peer, forwarded, client):
    assert PROXY.client(peer, forwarded) == client


def test_an_unnamed_proxy_is_believed_about_whoever_connected_to_it_and_nothing_more():
    proxies = Proxies.of([], trusts_any=True)

    assert proxies.client("192.0.2.1", "6.6.6.6, 1.2.3.4") == "1.2.3.4"


def test_naming_proxies_ends_the_trust_in_all_others():
    proxies = Proxies.of(["10.0.0.1"], trusts_any=True)

    assert proxies.client("192.0.2.1", "1.2.3.4") == "192.0.2.1"


def test_a_proxy_that_is_no_address_is_refused_by_name():
    with pytest.raises(Invalid, match=r"ABSTRACTGATEWAY_TRUSTED_PROXIES: 'proxy\.lan'"):
        Proxies.of(["proxy.lan"])


@given(st.text(max_size=200))
def test_no_header_breaks_the_reading(header):
    assert PROXY.client("10.0.0.1", header)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_an_ipv6_client_is_its_network(address, key):
    assert client_key(address) == key

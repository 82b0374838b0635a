from __future__ import annotations

import pytest

from abstractgateway.testing import ManualClock
from abstractgateway_http.app import create_app
from tests.http.conftest import TOKEN

RUNS = "/api/gateway/runs"
WRONG = "Bearer not-the-token-at-all"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ask(make_gateway, clock):
    """Calls the app as a server would: an address, headers, an answer of status, code and headers."""
    apps = {}

    def call(authorization=None, *, peer="192.0.2.1", forwarded=None, method="GET", path=RUNS, **settings):
        key = tuple(sorted(settings.items()))
        app = apps.setdefault(key, None) or create_app(make_gateway(**settings), clock=clock)
        apps[key] = app
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "REMOTE_ADDR": peer,
            "HTTP_HOST": "127.0.0.1",
            "wsgi.url_scheme": "http",
        }
        given = {"HTTP_AUTHORIZATION": authorization, "HTTP_X_FORWARDED_FOR": forwarded}
        environ.update({name: value for name, value in given.items() if value is not None})
        told = {}
        body = b"".join(app(environ, lambda status, headers, *rest: told.update(status=status, headers=dict(headers))))
        return int(told["status"].split()[0]), body.decode(), told["headers"]

    return call


def test_the_fifth_wrong_token_is_answered_with_how_long_to_wait(ask):
    answers = [ask(WRONG) for _ in range(5)]

    assert [status for status, _, _ in answers] == [401, 401, 401, 401, 429]
    assert '"detail": "Too Many Requests (auth lockout)"' in answers[-1][1]
    assert answers[-1][2]["Retry-After"] == "1"


def test_each_further_lock_is_twice_as_long(ask, clock):
    waits = []
    for _ in range(12):
        status, _, headers = ask(WRONG)
        waits.append(int(headers.get("Retry-After", 0)))
        clock.move(waits[-1])

    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_missing_token_counts_like_a_wrong_one(ask):
    assert [ask(None)[0] for _ in range(5)] == [401, 401, 401, 401, 429]


def test_a_valid_token_is_served_from_the_address_of_somebody_who_guesses(ask):
    for _ in range(50):
        ask(WRONG)

    answers = [ask(f"Bearer {TOKEN}")[0] for _ in range(3)]

    assert answers == [200, 200, 200]


def test_a_success_forgets_the_failures_of_its_address(ask):
    for _ in range(4):
        ask(WRONG)

    ask(f"Bearer {TOKEN}")

    assert [ask(WRONG)[0] for _ in range(5)] == [401, 401, 401, 401, 429]


def test_another_address_is_not_locked_out(ask):
    for _ in range(6):
        ask(WRONG)

    assert ask(WRONG, peer="192.0.2.2")[0] == 401


def test_ten_thousand_wrong_tokens_from_many_addresses_take_nothing_from_a_valid_one(ask):
    for number in range(10_000):
        ask(WRONG, peer=f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}")

    assert ask(f"Bearer {TOKEN}")[0] == 200


def test_an_ipv6_client_cannot_fail_from_a_new_address_each_time(ask):
    answers = [ask(WRONG, peer=f"2001:db8:1:2::{number:x}")[0] for number in range(1, 6)]

    assert answers == [401, 401, 401, 401, 429]


def test_behind_a_named_proxy_the_forwarded_client_is_the_one_that_waits(ask):
    settings = {"trusted_proxies": ("10.0.0.1",)}
    for _ in range(5):
        ask(WRONG, peer="10.0.0.1", forwarded="198.51.100.7", **settings)

    same = ask(WRONG, peer="10.0.0.1", forwarded="198.51.100.7", **settings)
    other = ask(WRONG, peer="10.0.0.1", forwarded="198.51.100.8", **settings)

    assert (same[0], other[0]) == (429, 401)


def test_without_a_named_proxy_nobody_can_fail_under_another_address(ask):
    answers = [ask(WRONG, forwarded=f"198.51.100.{number}")[0] for number in range(5)]

    assert answers == [401, 401, 401, 401, 429]


def test_what_a_client_says_before_the_proxy_is_not_believed(ask):
    settings = {"trust_proxy": True}
    answers = [
        ask(WRONG, peer="10.0.0.1", forwarded=f"6.6.6.{number}, 198.51.100.7", **settings)[0] for number in range(5)
    ]

    assert answers == [401, 401, 401, 401, 429]


def test_the_developer_switch_does_not_open_reads_to_who_comes_through_an_unnamed_proxy(ask):
    settings = {"dev_read_no_auth": True}

    direct = ask(None, peer="127.0.0.1", **settings)
    relayed = ask(None, peer="127.0.0.1", forwarded="198.51.100.7", **settings)
    named = ask(None, peer="127.0.0.1", forwarded="198.51.100.7", trusted_proxies=("127.0.0.1",), **settings)

    assert (direct[0], relayed[0], named[0]) == (200, 401, 401)


def test_open_paths_do_not_count_and_are_not_locked(ask):
    for _ in range(9):
        ask(WRONG)

    assert [ask(WRONG, path="/api/health")[0] for _ in range(9)] == [200] * 9


@pytest.mark.parametrize(
    ("settings", "statuses"),
    [({"lockout_after": 1}, [429, 429]), ({"lockout_base_s": 0.0}, [401] * 9), ({"lockout_base_s": 0.5}, [401] * 5)],
)
def test_the_settings_say_when_and_whether(ask, settings, statuses):
    assert [ask(WRONG, **settings)[0] for _ in statuses] == statuses


def test_a_server_behind_a_proxy_is_told_the_client_by_the_header(serve_gateway, make_gateway, connect_to):
    server = serve_gateway(make_gateway(trusted_proxies=("127.0.0.1",), lockout_after=1, lockout_base_s=60.0))

    def status(client):
        headers = ("Authorization: none", f"X-Forwarded-For: {client}")
        return connect_to(server).send("GET", RUNS, *headers).answer().status

    assert [status("198.51.100.7"), status("198.51.100.8")] == [429, 429]
    assert server.app._guard.lockout.remaining("127.0.0.1") == 0

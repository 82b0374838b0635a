"""Whoever has a valid token is served while others do their worst; the long form is `scripts/attack`."""

from __future__ import annotations

import sys

import pytest

from tests.attacks.floods import ATTACKS
from tests.attacks.target import Target, head, p99, statuses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="binds to many addresses of 127.0.0.0/8")

SIZE = 101
REQUESTS = 60
MEMORY_KB = 40_000
# Figures of a machine that does other things as well: three times of normal, or what nobody notices.
UNNOTICED_MS = 500.0


@pytest.mark.parametrize("name", ATTACKS)
def test_a_client_with_a_token_is_served_meanwhile(target: Target, name: str) -> None:
    normal, memory = p99(target.latencies_ms(REQUESTS)), target.rss_kb()

    with ATTACKS[name](target, SIZE):
        attacked_ms = p99(target.latencies_ms(REQUESTS))

    assert attacked_ms <= max(3 * normal, UNNOTICED_MS)
    assert target.rss_kb() - memory < MEMORY_KB
    assert "Traceback" not in target.output


def test_answers_that_nobody_reads_occupy_no_thread(target: Target) -> None:
    # A hundred and seventy of these answers are more than waitress keeps before it makes the thread wait.
    flood = head("GET", "/openapi.json", token=None) * 170
    memory = target.rss_kb()
    readers = [target.connect(source=f"127.4.0.{number}", receive_buffer=4096) for number in range(1, 25)]
    try:
        for reader in readers:
            reader.sendall(flood)
        target.latencies_ms(20)

        taken = target.latencies_ms(REQUESTS)

        assert p99(taken) < UNNOTICED_MS
        assert target.rss_kb() - memory < MEMORY_KB
    finally:
        for reader in readers:
            reader.close()


def test_requests_behind_large_answers_are_answered_as_they_are_read(target: Target) -> None:
    closing = head("GET", "/openapi.json", "Connection: close", token=None)

    answers = target.exchange(head("GET", "/openapi.json", token=None) * 39 + closing)

    assert statuses(answers) == [200] * 40

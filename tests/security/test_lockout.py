from __future__ import annotations

import pytest

from abstractgateway.security.lockout import FORGET_S, MOST_CLIENTS, Lockout
from abstractgateway.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def lockout(clock: ManualClock, *, after: int = 5, base_s: float = 1.0, max_s: float = 60.0) -> Lockout:
    return Lockout(clock, after=after, base_s=base_s, max_s=max_s)


def test_the_lock_begins_with_the_fifth_failure_and_doubles_up_to_a_minute(clock):
    locks = lockout(clock)

    lengths = []
    for _ in range(13):
        lengths.append(locks.fail("a"))
        clock.move(lengths[-1])

    assert lengths == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_failure_during_a_lock_does_not_count(clock):
    locks = lockout(clock, after=1, base_s=10)
    locks.fail("a")
    clock.move(4)

    remaining = [locks.fail("a") for _ in range(50)]

    assert remaining == [6] * 50
    clock.move(6)
    assert locks.fail("a") == 20


def test_a_lock_lasts_to_its_last_moment(clock):
    locks = lockout(clock, after=1)
    locks.fail("a")

    clock.move(0.9)

    assert locks.remaining("a") == pytest.approx(0.1)
    clock.move(0.1)
    assert locks.remaining("a") == 0


def test_success_forgets_the_failures(clock):
    locks = lockout(clock, after=2)
    locks.fail("a")

    locks.succeed("a")

    assert locks.fail("a") == 0


def test_clients_do_not_share_their_failures(clock):
    locks = lockout(clock, after=1, base_s=10)

    locks.fail("a")

    assert (locks.remaining("a"), locks.remaining("b")) == (10, 0)


def test_quiet_clients_are_forgotten(clock):
    locks = lockout(clock, after=2)
    locks.fail("a")

    clock.move(FORGET_S)
    locks.fail("b")

    assert len(locks) == 1


def test_the_table_is_bounded_whoever_fails(clock):
    locks = lockout(clock, after=1, base_s=10)

    for number in range(MOST_CLIENTS + 500):
        locks.fail(f"client-{number}")

    assert len(locks) <= MOST_CLIENTS
    assert locks.remaining(f"client-{MOST_CLIENTS + 499}") == 10


def test_without_a_length_nobody_is_locked_out(clock):
    locks = lockout(clock, after=1, base_s=0)

    assert [locks.fail("a") for _ in range(9)] == [0] * 9
    assert len(locks) == 0


def test_without_a_bound_a_lock_goes_on_doubling(clock):
    locks = lockout(clock, after=1, max_s=0)

    for _ in range(20):
        clock.move(locks.fail("a"))

    assert locks.fail("a") == 2**20

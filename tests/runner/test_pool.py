from __future__ import annotations

import threading

import pytest

from abstractgateway.runner.pool import ThreadPool
from abstractgateway.runner.timers import Timers

PATIENCE_S = 10.0


def test_calls_that_block_each_have_a_thread_up_to_the_limit() -> None:
    pool = ThreadPool(3, "test-pool")
    inside = threading.Barrier(4)

    for _ in range(3):
        pool.submit(inside.wait, PATIENCE_S)
    inside.wait(PATIENCE_S)
    pool.shutdown()

    assert not inside.broken


@pytest.mark.parametrize("number", range(20))
def test_a_call_never_waits_behind_another_while_a_thread_may_be_made(number: int) -> None:
    pool = ThreadPool(4, "test-pool")
    for _ in range(3):
        done = threading.Event()
        pool.submit(done.set)
        assert done.wait(PATIENCE_S)
    both = threading.Barrier(3)

    pool.submit(both.wait, PATIENCE_S)
    pool.submit(both.wait, PATIENCE_S)
    both.wait(PATIENCE_S)
    pool.shutdown()

    assert not both.broken


def test_calls_beyond_the_limit_are_made_later() -> None:
    pool = ThreadPool(2, "test-pool")
    made = threading.Semaphore(0)

    for _ in range(50):
        pool.submit(made.release)

    assert all(made.acquire(timeout=PATIENCE_S) for _ in range(50))
    pool.shutdown()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1)])
def test_a_call_that_raises_costs_no_thread(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    pool = ThreadPool(1, "test-pool")
    done = threading.Event()

    def broken() -> None:
        raise error

    pool.submit(broken)
    pool.submit(done.set)

    assert done.wait(PATIENCE_S)
    assert "a call in test-pool failed" in caplog.text
    pool.shutdown()


def test_a_pool_that_is_shut_down_takes_no_call_and_ends_its_threads() -> None:
    pool = ThreadPool(2, "test-pool-ends")
    done = threading.Event()
    pool.submit(done.set)
    done.wait(PATIENCE_S)
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("test-pool-ends")]
    never = threading.Event()

    pool.shutdown()
    pool.shutdown()
    pool.submit(never.set)
    for thread in workers:
        thread.join(PATIENCE_S)

    assert len(workers) == 1
    assert not workers[0].is_alive()
    assert not never.is_set()


def test_timers_come_in_the_order_of_their_times() -> None:
    timers: Timers[str] = Timers()

    firsts = [timers.add(due, item) for due, item in [(3.0, "c"), (1.0, "a"), (2.0, "b"), (1.0, "a again")]]

    assert firsts == [True, True, False, True]
    assert timers.next_due() == 1.0
    assert timers.pop_due(0.5) == []
    assert timers.pop_due(2.0) == ["a", "a again", "b"]
    assert timers.pop_due(9.0) == ["c"]
    assert timers.next_due() is None

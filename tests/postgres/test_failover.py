"""A primary is killed and its replica takes over: what was acknowledged is there, or it is said that it is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from abstractgateway.clock import SystemClock
from abstractgateway.errors import Unavailable
from abstractgateway.runner import Runner
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, RunState, Runtime, StepPlan, WorkflowSpec
from abstractgateway.runtime.commit import Commit
from abstractgateway.stores.base import Changes
from abstractgateway_postgres import PostgresStores, open_postgres_stores
from abstractgateway_postgres.address import Address
from tests.postgres.pair import Pair
from tests.postgres.proxy import Proxy
from tests.postgres.server import shared
from tests.postgres.writers import writing
from tests.stores.shapes import Told, a_command, a_run, save, write

PATIENCE_S = 30.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary whose commits wait for the replica."""
    shared()  # skips where there is no server
    pair = Pair()
    yield pair
    pair.stop()


@pytest.fixture
def loose() -> Iterator[Pair]:
    """A primary that does not wait for its replica."""
    shared()
    pair = Pair(is_synchronous=False)
    yield pair
    pair.stop()


def opened(pair: Pair) -> PostgresStores:
    return open_postgres_stores(pair.new_database(), patience_s=PATIENCE_S)


def test_what_was_acknowledged_outlives_the_primary(pair: Pair) -> None:
    with closing(opened(pair)) as stores:
        with writing(stores) as writers:
            for _ in range(2):
                writers.wait_for(10)
                pair.fail_over()
                writers.wait_for(10)
                pair.restore()

        writers.check()
        assert stores.problems == []


def test_a_commit_that_only_the_primary_has_is_not_acknowledged_when_its_connection_is_lost(pair: Pair) -> None:
    name = pair.new_database().rpartition("/")[2]
    way = Proxy(pair.primary.port)
    url = f"postgresql://postgres@127.0.0.1:{way.port},127.0.0.1:{pair.replica.port}/{name}"
    with closing(open_postgres_stores(url, patience_s=PATIENCE_S)) as stores:
        save(stores, a_run("r0"))
        pair.cut()
        is_decided = threading.Event()
        outcomes: list[Exception | None] = []

        def decide(receipt: object, error: Exception | None) -> None:
            outcomes.append(error)
            is_decided.set()

        stores.submit(Commit(runs=(write(a_run("r1"), count=1),)), decide)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_until(lambda: pair.execute(waiting) != [])
        way.cut_now()
        wait_until(lambda: pair.execute("SELECT 1 FROM abstractgateway.runs WHERE run_id = 'r1'", name) != [])
        assert not is_decided.wait(0.5)

        pair.fail_over()
        assert is_decided.wait(PATIENCE_S)

        assert outcomes == [None]
        assert stores.runs.open("r1").revision == 1
        assert stores.problems == []
    way.close()


def test_a_replica_without_the_last_commits_is_noticed_and_goes_on(loose: Pair) -> None:
    url = loose.new_database()
    with (
        closing(open_postgres_stores(url, patience_s=PATIENCE_S)) as stores,
        closing(open_postgres_stores(url, patience_s=PATIENCE_S)) as others,
    ):
        save(stores, a_run("kept"))
        wait_until(lambda: loose.replica.execute("SELECT 1 FROM abstractgateway.runs", url.rpartition("/")[2]) != [])
        loose.cut()
        for number in range(50):
            save(stores, a_run(f"lost{number}"))
        stores.commands.append(a_command("lost"))
        told = Told(others)

        loose.fail_over()
        save(stores, a_run("new"))
        stores.commands.append(a_command("new"))

        assert "it has gone back" in str(stores.problems[0])
        assert stores.runs.open("kept") is not None and stores.runs.open("lost0") is None
        assert told.wait_until(lambda: told.has_heard("new", 1))
        assert told.wait_until(lambda: any(changes.has_commands for changes in told.changes))
        assert others.commands.list_after(after=0)[0][0].command_id == "new"


def test_a_runner_goes_on_after_a_replica_has_taken_over(loose: Pair) -> None:
    with closing(opened(loose)) as stores:
        ended: set[str] = set()
        changed = threading.Condition()

        def note(changes: Changes) -> None:
            with changed:
                ended.update(row.run_id for row in changes.runs if row.status.is_terminal)
                changed.notify_all()

        stores.subscribe(note)
        runtime = Runtime(stores=stores, effect_handlers={EffectType.TOOL_CALLS: _do})
        tenure = stores.share(2.0)
        runner = Runner(
            stores=stores, runtime=runtime, find_workflow=lambda name: CALLS, clock=SystemClock(), tenure=tenure
        )
        runner.start()
        first = runtime.start(workflow=CALLS, actor_id="gateway")
        with changed:
            assert changed.wait_for(lambda: first in ended, PATIENCE_S)
        loose.cut()
        gone = [runtime.start(workflow=CALLS, actor_id="gateway") for _ in range(20)]
        with changed:
            assert changed.wait_for(lambda: ended.issuperset(gone), PATIENCE_S)

        loose.fail_over()
        later = [runtime.start(workflow=CALLS, actor_id="gateway") for _ in range(5)]

        with changed:
            assert changed.wait_for(lambda: ended.issuperset(later), PATIENCE_S), tenure.is_over
        runner.stop()
        assert stores.runs.open(gone[-1]) is None
        assert len(stores.problems) == 1


def test_a_replica_is_not_used(pair: Pair) -> None:
    with pytest.raises(Unavailable, match="it takes no writes: it is a replica"):
        open_postgres_stores(pair.replica.url())


def test_of_two_hosts_the_one_that_takes_writes_is_used(pair: Pair) -> None:
    with closing(opened(pair)) as stores:
        assert save(stores, a_run()).revision == 1


def test_an_address_of_two_hosts_shows_both() -> None:
    address = Address("postgresql://me:s3cr3t@one:5433,two:5434/db")

    assert str(address) == "me@one:5433,two:5434/db"
    assert str(Address("host=one,two user=me dbname=db password=s3cr3t")) == "me@one:5432,two:5432/db"
    assert address.parameters["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in Address("postgresql://me@one/db").parameters


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until


def _do(run: RunState, effect: Effect, following: str | None) -> EffectOutcome:
    return EffectOutcome.completed({"done": True})


def _call(run: RunState, ctx: object) -> StepPlan:
    return StepPlan("call", effect=Effect(EffectType.TOOL_CALLS, {}, "called"), next_node="end")


def _end(run: RunState, ctx: object) -> StepPlan:
    return StepPlan("end", complete_output={"ok": True})


CALLS = WorkflowSpec("calls", "call", {"call": _call, "end": _end})

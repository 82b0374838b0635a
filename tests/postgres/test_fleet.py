"""Runners that share the runs of one database: who has which, and what becomes of one that stands still."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from abstractgateway.clock import SystemClock
from abstractgateway.errors import LeaseLost
from abstractgateway.runner import COMMANDS, Runner
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, RunState, Runtime, StepPlan, WorkflowSpec
from abstractgateway.runtime.commit import Commit
from abstractgateway.stores.base import RUN_SLOTS, Changes
from abstractgateway_postgres import PostgresStores, open_postgres_stores
from abstractgateway_postgres.batch import Batch
from abstractgateway_postgres.database import Connection
from abstractgateway_postgres.fleet import Fleet
from tests.postgres.fleet_loop import run_fleet
from tests.postgres.networks import ServerHost, can_make_namespaces
from tests.postgres.pair import Pair
from tests.postgres.server import Server, shared
from tests.stores.shapes import a_command, a_run, save, write

PATIENCE_S = 30.0
LEASE_S = 0.5
ALL = frozenset(range(COMMANDS, RUN_SLOTS))


class Crew:
    """Stores on one database, each with a tenure; `changed` is set whenever one of them has changed."""

    def __init__(self) -> None:
        self.url = shared().new_database()
        self._opened = ExitStack()
        self.changed = threading.Condition()
        self.busy: set[int] = set()

    def stores(self) -> PostgresStores:
        stores = open_postgres_stores(self.url)
        self._opened.callback(stores.close)
        return stores

    def join(self, stores: PostgresStores | None = None) -> tuple[Fleet, int]:
        fleet = (stores or self.stores()).share(LEASE_S)
        epoch = fleet.begin(self._tell, self.busy.__contains__)
        self._opened.callback(fleet.end)
        assert epoch is not None
        return fleet, epoch

    def taken(self, epoch: int) -> int:
        """Return how many slots the database says somebody has."""
        database = self.url.rpartition("/")[2]
        ((count,),) = shared().execute(f"SELECT COUNT(*) FROM abstractgateway.slots WHERE epoch = {epoch}", database)
        return int(count)

    def wait_for(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, PATIENCE_S)

    def close(self) -> None:
        self._opened.close()

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def stall(crew: Crew, stores: PostgresStores) -> int:
    """Join, take all runs, and then never again say that one lives; return the epoch."""
    fleet, epoch = crew.join(stores)
    crew.wait_for(lambda: held(fleet) == ALL)
    fleet._beat = lambda connection, epoch: LEASE_S
    return epoch


def counted_beats(fleet: Fleet) -> threading.Semaphore:
    """Return what is released whenever a tenure has been renewed."""
    beats, beat = threading.Semaphore(0), fleet._beat

    def counted(connection: Connection, epoch: int) -> float:
        pause = beat(connection, epoch)
        beats.release()
        return pause

    fleet._beat = counted
    return beats


def held(fleet: Fleet) -> frozenset[int]:
    return frozenset(slot for slot in ALL if fleet.holds(slot))


def test_one_runner_has_all_runs_and_two_have_half_of_them_each(crew: Crew) -> None:
    first, _ = crew.join()
    crew.wait_for(lambda: held(first) == ALL)

    second, _ = crew.join()
    crew.wait_for(lambda: held(first) | held(second) == ALL and len(held(second)) == RUN_SLOTS // 2)

    assert held(first) & held(second) == frozenset()
    assert first.holds(COMMANDS) and not second.holds(COMMANDS)


def test_what_a_runner_that_leaves_had_is_the_others_at_once(crew: Crew) -> None:
    first, _ = crew.join()
    second, _ = crew.join()
    crew.wait_for(lambda: len(held(second)) == RUN_SLOTS // 2)

    first.end()
    crew.wait_for(lambda: held(second) == ALL)

    assert second.holds(COMMANDS)
    assert {*range(RUN_SLOTS // 2)} <= {*second.take_gained()} | held(second)


def test_a_slot_is_not_given_away_while_a_run_of_it_is_driven(crew: Crew) -> None:
    first, epoch = crew.join()
    crew.wait_for(lambda: held(first) == ALL)
    crew.busy |= set(range(RUN_SLOTS))
    second, _ = crew.join()
    crew.wait_for(lambda: len(held(first)) == RUN_SLOTS // 2 + 1)
    beats = counted_beats(first)
    for _ in range(2):
        assert beats.acquire(timeout=PATIENCE_S)
    assert held(second) == frozenset()
    assert crew.taken(epoch) == len(ALL)

    crew.busy.clear()
    crew.wait_for(lambda: len(held(second)) == RUN_SLOTS // 2)

    assert held(first) & held(second) == frozenset()


def test_the_runs_of_a_runner_that_stands_still_move_on(crew: Crew) -> None:
    stores = crew.stores()
    epoch = stall(crew, stores)
    stored = save(stores, a_run("r1"), count=1)
    second, _ = crew.join()

    crew.wait_for(lambda: held(second) == ALL)

    with pytest.raises(LeaseLost):
        stores.commit(Commit(runs=(write(a_run("r1"), stored, count=1),), epoch=epoch))
    with pytest.raises(LeaseLost):
        stores.commit(Commit(command=a_command("c1"), epoch=epoch))
    assert stores.runs.open("r1") == stored
    assert stores.commands.get("c1") is None


def test_a_commit_that_stands_still_on_its_way_does_not_hold_up_the_others(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = crew.stores()
    epoch = stall(crew, stores)
    stored = save(stores, a_run("r1"), count=1)
    is_inside, may_go_on = threading.Event(), threading.Event()
    admit = Batch.admit

    def stand_still(batch: Batch) -> None:
        if not is_inside.is_set():
            is_inside.set()
            assert may_go_on.wait(PATIENCE_S)
        admit(batch)

    monkeypatch.setattr(Batch, "presume", lambda batch: False)
    monkeypatch.setattr(Batch, "admit", stand_still)
    decided = threading.Event()
    errors: list[Exception | None] = []
    commit = Commit(runs=(write(a_run("r1"), stored, count=1),), epoch=epoch)

    def decide(receipt: object, error: Exception | None) -> None:
        errors.append(error)
        decided.set()

    stores.submit(commit, decide)
    assert is_inside.wait(PATIENCE_S)

    begun = time.monotonic()
    second, _ = crew.join()
    crew.wait_for(lambda: held(second) == ALL)
    took = time.monotonic() - begun
    may_go_on.set()

    assert decided.wait(PATIENCE_S)
    assert isinstance(errors[0], LeaseLost)
    assert stores.runs.open("r1") == stored
    assert took < 8.0, "the server itself ends such a transaction after 10 s"


def test_a_runner_that_was_taken_for_dead_notices_and_begins_again(crew: Crew) -> None:
    first, epoch = crew.join()
    crew.wait_for(lambda: held(first) == ALL)

    shared().execute("DELETE FROM abstractgateway.runners", crew.url.rpartition("/")[2])
    first.check()
    crew.wait_for(lambda: first.is_over)

    assert held(first) == frozenset()
    assert not first.is_sure()
    again = first.begin(crew._tell, crew.busy.__contains__)
    crew.wait_for(lambda: held(first) == ALL)
    assert again is not None and again > epoch
    assert first.is_sure()


def test_children_are_driven_by_whoever_drives_their_parent(crew: Crew) -> None:
    stores = crew.stores()
    save(stores, a_run("root"))
    for name in ("a", "b", "c"):
        save(stores, a_run(name, parent_run_id="root"))
    save(stores, a_run("grandchild", parent_run_id="a"))

    slots = {stores.runs.row(name).slot for name in ("root", "a", "b", "c", "grandchild")}

    assert len(slots) == 1


def test_a_process_that_drives_nothing_can_tell_whether_somebody_does(crew: Crew) -> None:
    stores = crew.stores()
    assert (stores.watch.is_free(), stores.watch.last_held()) == (True, None)

    fleet, _ = crew.join()
    crew.wait_for(lambda: fleet.holds(COMMANDS))
    found = stores.watch.holder()
    fleet.end()

    assert found is not None and found.pid > 0
    assert stores.watch.is_free()


class Model:
    """A model whose first answer takes until `may_answer`."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.may_answer = threading.Event()

    def __call__(self, run: RunState, effect: Effect, following: str | None) -> EffectOutcome:
        self.calls.put(run.run_id)
        assert self.may_answer.wait(PATIENCE_S)
        return EffectOutcome.completed({"content": "hi"})


class Member:
    """A runner on stores of its own."""

    def __init__(self, crew: Crew, model: Model) -> None:
        self.stores = crew.stores()
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.stores.subscribe(self._note)
        self.runtime = Runtime(stores=self.stores, effect_handlers={EffectType.LLM_CALL: model})
        self.tenure = self.stores.share(LEASE_S)
        self.runner = Runner(
            stores=self.stores,
            runtime=self.runtime,
            find_workflow=lambda name: ASKS,
            clock=SystemClock(),
            tenure=self.tenure,
        )
        self.runner.start()

    def _note(self, changes: Changes) -> None:
        for row in changes.runs:
            if row.status.is_terminal:
                self.ended.put(row.run_id)


def _ask(run: RunState, ctx: object) -> StepPlan:
    return StepPlan("ask", effect=Effect(EffectType.LLM_CALL, {"prompt": "?"}, "said"), next_node="end")


def _end(run: RunState, ctx: object) -> StepPlan:
    return StepPlan("end", complete_output={"ok": True})


ASKS = WorkflowSpec("asks", "ask", {"ask": _ask, "end": _end})


def intents(stores: PostgresStores, run_id: str) -> int:
    return sum(record["status"] == "started" for record in stores.ledger.list(run_id) if record["effect"])


def test_a_runner_whose_lease_is_over_begins_anew_and_what_it_was_doing_is_in_doubt(crew: Crew) -> None:
    model = Model()
    member = Member(crew, model)
    run_id = member.runtime.start(workflow=ASKS, actor_id="gateway")
    assert model.calls.get(timeout=PATIENCE_S) == run_id

    shared().execute("DELETE FROM abstractgateway.runners", crew.url.rpartition("/")[2])
    later = member.runtime.start(workflow=ASKS, actor_id="gateway")  # whoever asks for a run must not suffer from it
    assert {model.calls.get(timeout=PATIENCE_S) for _ in range(2)} == {run_id, later}
    model.may_answer.set()

    assert {member.ended.get(timeout=PATIENCE_S) for _ in range(2)} == {run_id, later}
    member.runner.stop()
    assert intents(member.stores, run_id) == 2
    assert member.stores.runs.open(run_id).state.output == {"ok": True}


def test_two_runners_drive_each_run_once_also_where_one_of_them_leaves(crew: Crew) -> None:
    model = Model()
    model.may_answer.set()
    first, second = Member(crew, model), Member(crew, model)
    run_ids = {second.runtime.start(workflow=ASKS, actor_id="gateway") for _ in range(10)}
    first.runner.stop()
    run_ids |= {second.runtime.start(workflow=ASKS, actor_id="gateway") for _ in range(10)}

    ended = {second.ended.get(timeout=PATIENCE_S) for _ in range(20)}
    second.runner.stop()

    assert ended == run_ids
    assert model.calls.qsize() == 20
    assert {intents(second.stores, run_id) for run_id in run_ids} == {1}


def test_a_disturbed_fleet_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    shared()  # skips where there is no server
    server = Server()
    try:
        done = run_fleet(tmp_path, server, 2, faults=("runner killed", "runner stopped beyond its lease"))
    finally:
        server.stop()

    assert len(done.runs) >= 2
    assert len(done.commands) >= 2


def test_a_fleet_on_networks_of_its_own_goes_on_when_a_replica_takes_over(tmp_path: Path) -> None:
    """Where namespaces cannot be made, the networks are proxies."""
    shared()
    in_namespaces = can_make_namespaces()
    faults = ("primary killed, its replica took over", "runner cut off")
    with ServerHost() if in_namespaces else nullcontext():
        pair = Pair(is_open=in_namespaces)
        try:
            done = run_fleet(tmp_path, pair, 2, faults=faults, in_namespaces=in_namespaces)
        finally:
            pair.stop()

    assert len(done.runs) >= 2
    assert len(done.commands) >= 2

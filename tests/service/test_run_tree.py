"""The ledgers of a run and of those below it, read as one."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.runtime import EffectType, WorkflowSpec
from abstractgateway.service import run_tree
from abstractgateway.service.ledger import LedgerService
from abstractgateway.service.run_tree import Place
from tests.runner.bench import Bench
from tests.runtime.workflows import ask_then_end, effect, end, spec

EVERYTHING = 1 << 20

PLACES = st.recursive(
    st.builds(Place, st.integers(0, 10**6)),
    lambda inner: st.builds(Place, st.integers(0, 99), st.dictionaries(st.integers(1, 99), inner, max_size=3)),
    max_leaves=8,
)


def starting(workflow_id: str, child: str, *, times: int = 1, is_async: bool = False) -> WorkflowSpec:
    """Return a workflow that starts children one after the other, waiting for each of them or for none."""
    nodes: dict[str, Any] = {}
    for number in range(times):
        then = "end" if number == times - 1 else f"start{number + 1}"
        request = {"workflow_id": child, "async": is_async}
        nodes[f"start{number}"] = effect(f"start{number}", EffectType.START_SUBWORKFLOW, request, then=then)
    return spec(workflow_id, **nodes, end=end())


class World:
    """Runs in memory, and one stream of a run and those below it, which is read a bit at a time."""

    def __init__(self, *workflows: WorkflowSpec) -> None:
        self.bench = Bench()
        self.bench.know(*workflows)
        self.runner = self.bench.runner()
        self.service = LedgerService(stores=self.bench.stores)

    def start(self, workflow: WorkflowSpec) -> str:
        run_id = self.bench.start(workflow)
        self.runner.run_until_idle()
        return run_id

    def answer(self, run_id: str) -> None:
        self.bench.send(run_id, "resume", {"payload": {"response": "yes"}})
        self.runner.run_until_idle()

    def below(self, run_id: str) -> list[str]:
        found = [run_id]
        for parent in found:
            found += self.bench.stores.runs.children_of(parent)
        return found

    def read_all(self, run_id: str, place: str = "", max_bytes: int = EVERYTHING) -> tuple[list[Any], str, bool]:
        """Return what is there after a place, where one stands then, and whether it was all."""
        entries: list[Any] = []
        while True:
            tail = self.service.read_tree(run_id, place, max_bytes)
            entries += tail.entries
            place = tail.next_after
            if tail.ended or not tail.entries:
                return entries, place, tail.ended


def keys(entries: list[Any]) -> list[tuple[str, int]]:
    return [(entry.run_id, entry.cursor) for entry in entries]


def whole(world: World, run_id: str) -> set[tuple[str, int]]:
    """Return every record of a run and of those below it, by run and cursor."""
    return {(one, cursor) for one in world.below(run_id) for cursor in range(1, len(world.bench.ledger(one)) + 1)}


@pytest.fixture
def three_deep() -> World:
    asks = ask_then_end()
    return World(asks, starting("middle", "asks", times=2), starting("top", "middle", times=2, is_async=True))


def run_to_end(world: World, run_id: str) -> None:
    while waiting := [
        one
        for one in world.below(run_id)
        if world.bench.state(one).workflow_id == "asks" and world.bench.state(one).waiting
    ]:
        world.answer(waiting[0])


def top(world: World) -> WorkflowSpec:
    return world.bench.registry.get_or_raise("top")


@pytest.mark.parametrize("max_bytes", [1, 3_000, EVERYTHING])
def test_every_record_comes_once_and_those_of_each_run_in_their_order(three_deep: World, max_bytes: int) -> None:
    run_id = three_deep.start(top(three_deep))
    run_to_end(three_deep, run_id)

    entries, place, ended = three_deep.read_all(run_id, max_bytes=max_bytes)

    assert ended
    assert len(three_deep.below(run_id)) == 7
    assert len(entries) == len(set(keys(entries)))
    assert set(keys(entries)) == whole(three_deep, run_id)
    assert all(
        [cursor for one, cursor in keys(entries) if one == run]
        == sorted(cursor for one, cursor in keys(entries) if one == run)
        for run in three_deep.below(run_id)
    )
    assert place == str(len(three_deep.bench.ledger(run_id)))


def test_a_reader_that_comes_back_anywhere_misses_and_repeats_nothing(three_deep: World) -> None:
    run_id = three_deep.start(top(three_deep))
    seen: list[tuple[str, int]] = []
    place = ""
    chance = random.Random(1)
    for _ in range(200):
        tail = three_deep.service.read_tree(run_id, place, chance.choice([1, 2_000, EVERYTHING]))
        kept = tail.entries[: chance.randint(0, len(tail.entries))]  # the connection is lost in the middle of a batch
        seen += keys(list(kept))
        place = kept[-1].place if kept else place
        waiting = [
            one
            for one in three_deep.below(run_id)
            if three_deep.bench.state(one).waiting and three_deep.bench.state(one).workflow_id == "asks"
        ]
        if waiting and chance.random() < 0.3:
            three_deep.answer(chance.choice(waiting))
    run_to_end(three_deep, run_id)
    rest, _, ended = three_deep.read_all(run_id, place)

    assert ended
    assert len(seen + keys(rest)) == len(set(seen + keys(rest)))
    assert set(seen + keys(rest)) == whole(three_deep, run_id)


def test_it_is_not_over_while_a_run_below_goes_on(three_deep: World) -> None:
    run_id = three_deep.start(top(three_deep))

    _, place, ended = three_deep.read_all(run_id)
    is_over = three_deep.bench.state(run_id).status.is_terminal
    run_to_end(three_deep, run_id)
    more, _, ended_then = three_deep.read_all(run_id, place)

    assert is_over
    assert not ended
    assert ended_then
    assert run_id not in {entry.run_id for entry in more}


def test_who_reads_hears_of_the_runs_that_may_have_more(three_deep: World) -> None:
    run_id = three_deep.start(top(three_deep))

    tail = three_deep.service.read_tree(run_id, "", EVERYTHING)

    assert tail.runs == set(three_deep.below(run_id))


def test_a_place_does_not_grow_with_runs_that_are_over() -> None:
    world = World(spec("quick", end=end()), starting("many", "quick", times=40))
    run_id = world.start(world.bench.registry.get_or_raise("many"))

    entries, _, _ = world.read_all(run_id, max_bytes=1)

    assert len(world.below(run_id)) == 41
    assert max(len(entry.place) for entry in entries) < 20


def test_further_runs_follow_when_those_before_them_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tree, "MOST_OPEN", 2)
    world = World(ask_then_end(), starting("many", "asks", times=5, is_async=True))
    run_id = world.start(world.bench.registry.get_or_raise("many"))

    first, place, _ = world.read_all(run_id)
    for child in world.below(run_id)[1:]:
        world.answer(child)
    rest, _, ended = world.read_all(run_id, place)

    assert len({entry.run_id for entry in first}) == 3
    assert ended
    assert set(keys(first + rest)) == whole(world, run_id)
    assert len(first + rest) == len(whole(world, run_id))


def test_an_unknown_run_is_refused() -> None:
    with pytest.raises(NotFound):
        World().service.read_tree("nope", "", 1)


@given(PLACES)
def test_a_place_is_what_its_text_says(place: Place) -> None:
    assert Place.of(str(place)) == place


@pytest.mark.parametrize(
    "text",
    ["x", "-1", "1(", "1()", "1(2)", "1(2:3", "1(2:3))", "1(2:3)4", "1,2", "(1:2)", "1(:2)", "1 ", "²", "1(" * 200],
)
def test_what_is_no_place_is_refused_or_begins_anew(text: str) -> None:
    service = World().service

    with pytest.raises(Invalid):
        Place.of(text)

    assert service.place_in_tree(text, 3) == "3"


def test_the_later_of_two_places_counts() -> None:
    service = World().service

    assert [service.place_in_tree("5(2:1)", after) for after in (0, 5, 6)] == ["5(2:1)", "5(2:1)", "6"]


def test_a_place_that_names_records_which_began_nothing_reads_what_there_is(three_deep: World) -> None:
    run_id = three_deep.start(top(three_deep))

    tail = three_deep.service.read_tree(run_id, "0(1:0,99:7)", EVERYTHING)

    assert set(keys(list(tail.entries))) == whole(three_deep, run_id)

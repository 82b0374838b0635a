"""What holds of drawn flows wherever they are kept: in a directory, or on the shelf of a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.service.drawn_flows import DrawnFlowFiles, DrawnFlows, KeptDirectory
from abstractgateway.service.shared_drawings import DRAWER, SharedDrawings
from tests.postgres.server import open_test_database


def in_files(directory: Path) -> DrawnFlowFiles:
    return DrawnFlowFiles(KeptDirectory(directory))


@pytest.fixture
def shared_at(tmp_path: Path) -> Iterator[Callable[[Path], SharedDrawings]]:
    """Opens the drawn flows of a fleet as a process with a directory of its own has them."""
    with ExitStack() as closing:

        def open_at(directory: Path) -> SharedDrawings:
            stores = open_test_database(tmp_path)
            closing.callback(stores.close)
            return SharedDrawings(stores.shelf, before=in_files(directory))

        yield open_at


@pytest.fixture(params=["files", "shared"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def flows(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> DrawnFlows:
    if kind == "files":
        return in_files(tmp_path / "drawn")
    shared: DrawnFlows = request.getfixturevalue("shared_at")(tmp_path / "empty")
    return shared


@pytest.fixture
def damage(kind: str, flows: Any, tmp_path: Path) -> Callable[[str], None]:
    """Put something that is no flow in the place of one."""
    if kind == "files":
        return lambda flow_id: (tmp_path / "drawn" / f"{flow_id}.json").write_text("{")
    return lambda flow_id: flows._shelf.put(DRAWER, flow_id, b"{")


def test_a_flow_is_kept_changed_and_removed(flows: DrawnFlows) -> None:
    added = flows.add({"id": "a", "name": "é"})
    changed = flows.change("a", lambda flow: {**flow, "n": 1})

    assert added
    assert changed == flows.get("a") == {"id": "a", "name": "é", "n": 1}
    assert [flows.remove("a"), flows.remove("a")] == [True, False]
    assert (flows.get("a"), flows.change("a", dict), flows.all()) == (None, None, [])


def test_an_id_that_is_taken_is_not_given_again(flows: DrawnFlows) -> None:
    flows.add({"id": "a", "name": "first"})

    assert not flows.add({"id": "a", "name": "second"})
    assert flows.get("a") == {"id": "a", "name": "first"}
    flows.remove("a")
    assert flows.add({"id": "a"})


def test_flows_are_listed_by_file_name_without_those_that_cannot_be_read(
    flows: DrawnFlows, damage: Callable[[str], None]
) -> None:
    for flow_id in ("b", "a", "a-1", "bad"):
        flows.add({"id": flow_id})
    damage("bad")

    assert [flow["id"] for flow in flows.all()] == ["a-1", "a", "b"]


def test_a_damaged_flow_is_told_and_may_be_removed(flows: DrawnFlows, damage: Callable[[str], None]) -> None:
    flows.add({"id": "a"})
    damage("a")

    for action in (lambda: flows.get("a"), lambda: flows.change("a", dict)):
        with pytest.raises(Unavailable) as refused:
            action()
        assert refused.value.code == "flow_damaged"
    assert flows.remove("a")


@pytest.mark.parametrize("flow_id", ["..", "a/b", "", "é", "x" * 201, "a\0"])
def test_an_id_that_could_not_be_a_file_name_is_refused(flows: DrawnFlows, flow_id: str) -> None:
    for action in (
        lambda: flows.get(flow_id),
        lambda: flows.add({"id": flow_id}),
        lambda: flows.change(flow_id, dict),
        lambda: flows.remove(flow_id),
    ):
        with pytest.raises(Invalid):
            action()


def test_a_value_that_json_lacks_is_refused_and_changes_nothing(flows: DrawnFlows) -> None:
    flows.add({"id": "a"})

    with pytest.raises(Invalid):
        flows.add({"id": "b", "n": float("nan")})
    with pytest.raises(Invalid):
        flows.change("a", lambda flow: {**flow, "n": float("nan")})

    assert flows.all() == [{"id": "a"}]


def test_changes_at_once_lose_nothing(flows: DrawnFlows) -> None:
    flows.add({"id": "a", "seen": []})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: flows.change("a", lambda flow: {**flow, "seen": [*flow["seen"], n]}), range(12)))

    assert sorted(flows.get("a")["seen"]) == list(range(12))


def test_what_a_directory_has_is_taken_over_once(shared_at, tmp_path: Path) -> None:
    before = in_files(tmp_path / "drawn")
    for flow_id in ("a", "b"):
        before.add({"id": flow_id, "name": "before"})
    (tmp_path / "drawn" / "not an id.json").write_text("{}")

    fleet = shared_at(tmp_path / "drawn")
    listed = fleet.all()
    fleet.change("a", lambda flow: {**flow, "name": "after"})
    fleet.remove("b")
    again = shared_at(tmp_path / "drawn").all()

    assert listed == [{"id": "a", "name": "before"}, {"id": "b", "name": "before"}]
    assert again == [{"id": "a", "name": "after"}]
    assert len(list((tmp_path / "drawn").iterdir())) == 3

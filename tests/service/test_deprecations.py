"""What holds of deprecations wherever they are kept: in memory, in a file, or on the shelf of a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from abstractgateway.clock import SystemClock
from abstractgateway.errors import Conflict
from abstractgateway.service.deprecations import ALL_FLOWS, FILE_NAME, DeprecationFile, Deprecations
from abstractgateway.service.shared_deprecations import SharedDeprecations
from tests.postgres.server import open_test_database

Open = Callable[[], Deprecations]


def in_file(path: Path | None) -> DeprecationFile:
    return DeprecationFile(path, clock=SystemClock())


@pytest.fixture
def shared_at(tmp_path: Path) -> Iterator[Callable[[Path], SharedDeprecations]]:
    """Opens the deprecations of a fleet as a process with its own data directory has them."""
    with ExitStack() as closing:

        def open_at(data_dir: Path) -> SharedDeprecations:
            stores = open_test_database(tmp_path)
            closing.callback(stores.close)
            return SharedDeprecations(stores.shelf, before=in_file(data_dir / FILE_NAME))

        yield open_at


@pytest.fixture(params=["memory", "file", "shared"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the deprecations; again for another process, where there can be one."""
    if request.param == "shared":
        shared_at = request.getfixturevalue("shared_at")
        return lambda: Deprecations(shared_at(tmp_path / "empty"), clock=SystemClock())
    path = tmp_path / FILE_NAME if request.param == "file" else None
    only = Deprecations(in_file(None), clock=SystemClock())
    return lambda: Deprecations(in_file(path), clock=SystemClock()) if path is not None else only


def test_a_deprecated_flow_is_not_started_until_that_is_taken_back(opened: Open) -> None:
    deprecations = opened()
    entry = deprecations.add("b", "f", "use g")

    with pytest.raises(Conflict, match=r"Workflow 'b:f' is deprecated: use g"):
        deprecations.check_start("b@1:f")
    deprecations.check_start("b@1:g")
    deprecations.check_start("unbundled")

    assert deprecations.find("b", "f") == entry
    assert opened().find("b", "f") == entry
    assert [deprecations.remove("b", "f"), deprecations.remove("b", "f")] == [True, False]
    deprecations.check_start("b@1:f")


def test_a_bundle_is_deprecated_as_a_whole_beside_its_flows(opened: Open) -> None:
    deprecations = opened()
    whole = deprecations.add("b", ALL_FLOWS, None)
    own = deprecations.add("b", "f", "again")

    assert "reason" not in whole
    assert (deprecations.find("b", "f"), deprecations.find("b", "g")) == (own, whole)
    assert deprecations.remove("b", "f")
    assert deprecations.find("b", "f") == whole
    assert deprecations.find("other", "f") is None


@pytest.mark.parametrize("text", ["é\0", "\ud800", '"]', " "])
def test_ids_may_be_any_text(opened: Open, text: str) -> None:
    deprecations = opened()

    assert not deprecations.remove(text, text)


def test_what_a_data_directory_has_is_taken_over_once(shared_at, tmp_path: Path) -> None:
    before = Deprecations(in_file(tmp_path / FILE_NAME), clock=SystemClock())
    old, other = before.add("b", "old", "from before"), before.add("c", ALL_FLOWS, None)

    fleet = Deprecations(shared_at(tmp_path), clock=SystemClock())
    found = [fleet.find("b", "old"), fleet.find("c", "x")]
    fleet.remove("b", "old")
    again = Deprecations(shared_at(tmp_path), clock=SystemClock())

    assert found == [old, other]
    assert (again.find("b", "old"), again.find("c", "x")) == (None, other)
    assert json.loads((tmp_path / FILE_NAME).read_text())["bundles"].keys() == {"b", "c"}

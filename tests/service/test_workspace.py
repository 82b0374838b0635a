from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.security.workspace import WorkspacePolicy
from abstractgateway.service.workspace import MOST_INDICES, FileIndices, WorkspaceService
from abstractgateway.service.workspace_view import WorkspaceViews, relative_to_base
from abstractgateway.testing import ManualClock

Open = Callable[..., WorkspaceService]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("a")
    return tmp_path


@pytest.fixture
def service_of(top: Path, clock: ManualClock) -> Open:
    def open_one(*, may_choose: bool = False, **limits: Any) -> WorkspaceService:
        policy = WorkspacePolicy((str(top),), str(top), may_clients_choose=may_choose)
        indices = FileIndices(clock=clock, **limits)
        return WorkspaceService(views=WorkspaceViews(policy, ()), indices=indices, max_attachment_bytes=1)

    return open_one


def paths(answer: dict[str, Any]) -> list[str]:
    return [item["path"] for item in answer["items"]]


def test_which_files_there_are_is_looked_up_again_after_a_while(
    service_of: Open, top: Path, clock: ManualClock
) -> None:
    service = service_of(ttl_s=30)
    before = paths(service.search(".txt"))
    (top / "b.txt").write_text("b")

    meanwhile = paths(service.search(".txt"))
    clock.move(30)
    after = paths(service.search(".txt"))

    assert (before, meanwhile, after) == (["a.txt"], ["a.txt"], ["a.txt", "b.txt"])


def test_clients_with_different_directories_do_not_forget_each_others(
    service_of: Open, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(may_choose=True)
    for name in ("one", "two"):
        (top / name).mkdir()
        (top / name / f"{name}.txt").write_text("")
    listed: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: listed.append(place) or scandir(place))

    found = [paths(service.search("txt", workspace_root=str(top / name))) for name in ("one", "two", "one", "two")]

    assert found == [["one.txt"], ["two.txt"], ["one.txt"], ["two.txt"]]
    assert len(listed) == 2


def test_only_so_many_directories_are_remembered(service_of: Open, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(may_choose=True)
    roots = [top / str(number) for number in range(MOST_INDICES + 1)]
    for root in roots:
        root.mkdir()
        service.search("txt", workspace_root=str(root))
    listed: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: listed.append(place) or scandir(place))

    service.search("txt", workspace_root=str(roots[-1]))
    service.search("txt", workspace_root=str(roots[0]))

    assert len(listed) == 1


def test_at_most_so_many_entries_are_looked_at(service_of: Open, top: Path) -> None:
    for number in range(40):
        (top / f"{number}.md").write_text("")

    assert len(paths(service_of(max_files=10).search("md", limit=200))) <= 10


def test_hidden_directories_do_not_count(service_of: Open, top: Path) -> None:
    (top / ".cache").mkdir()
    for number in range(100):
        (top / ".cache" / f"{number}").write_text("")

    assert paths(service_of(max_files=10).search("a.txt")) == ["a.txt"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/base", "."),
        ("/base/", "."),
        ("/base/a/b", "a/b"),
        ("/base/../x", "/base/../x"),
        ("/based", "/based"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_a_path_inside_the_base_becomes_relative(path: str, shown: str) -> None:
    assert relative_to_base(path, "/base") == shown

"""Walking a long listing page by page, while runs change and after a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime.models import RunStatus, WaitReason
from abstractgateway.stores.base import PageKey, RunQuery, Stores
from tests.stores.shapes import AT, Backend, a_run, at, save, waiting

R, W, C = RunStatus.RUNNING, RunStatus.WAITING, RunStatus.COMPLETED
SECONDS = 1795244400.0
"""The instant `AT` as seconds since the epoch."""

QUERIES = [
    {},
    {"statuses": (R,)},
    {"statuses": (R, C, W)},
    {"workflow_id": "even"},
    {"workflow_id": "even", "statuses": (C,)},
    {"session_id": "s"},
    {"session_id": "s", "statuses": (R, W), "workflow_id": "even"},
    {"parent_run_id": "r0"},
    {"root_only": True},
    {"hide_internal": True, "wait_reason": WaitReason.UNTIL},
    {"updated_from": SECONDS + 3, "updated_to": SECONDS + 9},
    {"updated_to": SECONDS + 9},
    {"updated_from": SECONDS + 3, "statuses": (C, R)},
]


@pytest.fixture
def thirty(stores: Stores) -> Stores:
    """Thirty runs of all kinds, three of each instant, some of no instant."""
    for number in range(30):
        fields = {
            "workflow_id": "even" if number % 2 == 0 else "odd",
            "session_id": "s" if number % 3 else None,
            "parent_run_id": "r0" if number % 5 else None,
            "updated_at": at(number // 3) if number % 11 else "whenever",
        }
        run_id = f"r{number * 7 % 30}"
        if number % 4 == 3:
            save(stores, waiting(run_id, until=at(999), **fields))
        else:
            save(stores, a_run(run_id, status=C if number % 4 == 2 else R, **fields))
    return stores


def page(stores: Stores, key: PageKey | None, size: int = 4, **query: object) -> tuple[list[str], PageKey | None]:
    rows = stores.runs.find(RunQuery(**{**query, "before": key, "limit": size}))
    return [row.run_id for row in rows], PageKey.of(rows[-1]) if rows else None


def walk(stores: Stores, size: int = 4, key: PageKey | None = None, **query: object) -> list[str]:
    ids: list[str] = []
    while True:
        found, key = page(stores, key, size, **query)
        if not found:
            return ids
        ids += found


@pytest.mark.parametrize("query", QUERIES, ids=repr)
@pytest.mark.parametrize("size", [1, 4, 7])
def test_the_pages_of_a_listing_make_the_listing(thirty: Stores, query: dict[str, object], size: int) -> None:
    whole = [row.run_id for row in thirty.runs.find(RunQuery(**{**query, "limit": None}))]

    assert whole
    assert walk(thirty, size, **query) == whole


def test_runs_between_two_times_are_found(thirty: Stores) -> None:
    rows = thirty.runs.find(RunQuery(updated_from=SECONDS + 3, updated_to=SECONDS + 5, limit=None))

    assert [row.updated_at for row in rows] == [at(4)] * 3 + [at(3)] * 2


def test_an_update_or_a_new_run_neither_hides_nor_repeats_another_one(thirty: Stores) -> None:
    whole = walk(thirty)
    first, key = page(thirty, None, 10)
    on_page, before_page = first[3], whole[20]
    last = first[-1]

    for run_id in (on_page, before_page, last):
        save(thirty, a_run(run_id, updated_at=at(500)))
    save(thirty, a_run("new", updated_at=at(600)))

    assert walk(thirty, key=key) == [run_id for run_id in whole[10:] if run_id != before_page]
    assert page(thirty, None)[0] == ["new", *walk(thirty)[1:4]]
    assert set(walk(thirty)[1:4]) == {on_page, before_page, last}


def test_a_key_of_a_run_that_is_not_there_goes_on_at_its_time(stores: Stores) -> None:
    for number in range(4):
        save(stores, a_run(f"r{number}", updated_at=at(number)))

    assert walk(stores, key=PageKey(SECONDS + 2.5, "gone")) == ["r2", "r1", "r0"]
    assert walk(stores, key=PageKey(SECONDS - 1, "gone")) == []


def test_a_page_goes_on_after_a_restart(
    durable: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path
) -> None:
    stores = opened(durable, tmp_path)
    for number in range(9):
        save(stores, a_run(f"r{number}", updated_at=at(number)))
    first, key = page(stores, None)
    stores.close()

    rest = walk(opened(durable, tmp_path), key=key)

    assert first + rest == [f"r{number}" for number in reversed(range(9))]


def test_a_key_survives_being_written_down() -> None:
    key = PageKey(1795244400.123457, "r,1")

    assert PageKey.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "r1", "nan,r1", "inf,r1", "1.5", "soon,r1"])
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="next_cursor"):
        PageKey.parse(text)


def test_the_key_of_a_row_has_its_instant(stores: Stores) -> None:
    save(stores, a_run(updated_at=AT))

    assert PageKey.of(stores.runs.row("r1")) == PageKey(SECONDS, "r1")

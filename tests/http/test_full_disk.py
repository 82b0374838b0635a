"""A disk that is full, under a running gateway: clear refusals, and nothing acknowledged that is not kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.conftest import packed
from tests.small_disk import small_disk

SIZE = 16 << 20
ENOUGH = 4_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    with small_disk(tmp_path / "data", SIZE):
        yield tmp_path / "data"


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_full_disk_is_told_and_what_was_acknowledged_is_there_afterwards(small, go_live, connect_to, backend):
    live = go_live(store_backend=backend, runner_enabled=False, max_body_bytes=1 << 20)
    live.upload(packed())
    reserve = small / "reserve"
    reserve.write_bytes(b"x" * (12 << 20))
    kept = []
    for number in range(ENOUGH):
        body = {"bundle_id": "echo", "input_data": {"prompt": f"{number} " + "y" * 20_000}}
        answer = live.ask("POST", "/runs/start", body=body)
        if answer.status != 200:
            break
        kept.append(answer.json["run_id"])

    assert (answer.status, answer.json["code"]) == (503, "store_failed")
    assert answer.headers["retry-after"]
    fill(small)
    ready = connect_to(live.server).send("GET", "/readyz").answer()
    assert (ready.status, ready.json["code"]) == (503, "not_ready")
    assert live.ask("GET", "/runs?limit=1").status == 200

    free(small)
    live.server.stop()
    live.service.close()
    again = go_live(store_backend=backend, runner_enabled=False)
    assert [again.ask("GET", f"/runs/{run_id}").status for run_id in kept] == [200] * len(kept)
    assert again.ask("POST", "/runs/start", body={"bundle_id": "echo"}).status == 200


def fill(directory: Path) -> None:
    """Leave no room at all."""
    with (directory / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"x" * size):
                    continue
            except OSError:
                continue


def free(directory: Path) -> None:
    for name in ("filler", "reserve"):
        (directory / name).unlink()

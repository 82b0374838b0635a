from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores.base import Commit, Stores
from tests.small_disk import small_disk
from tests.stores.other import ROOT
from tests.stores.shapes import ON_A_DISK, Backend, a_command, a_run, save, write

SIZE = 4 << 20
RESERVE = 3 << 20
"""What a file that is in the way takes, until somebody deletes it."""
ENOUGH = 10_000
"""More commits than there is room for."""

Open = Callable[[Backend, Path], Stores]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    with small_disk(tmp_path / "small", SIZE):
        yield tmp_path / "small"


def fill(stores: Stores, name: str) -> int:
    """Save runs and commands until there is no room, and return how many were acknowledged."""
    for number in range(ENOUGH):
        try:
            save(stores, a_run(f"{name}{number % 5}", vars={"n": number}), count=2, text="x" * 500)
            stores.commands.append(a_command(f"{name}-{number}"))
        except Unavailable as error:
            assert error.code == "store_failed"
            assert "full" in str(error) or "No space left" in str(error)
            return number
    raise AssertionError("the disk never was full")


def contents(stores: Stores) -> dict[str, tuple[int, int]]:
    """Return revision and length of each run whose ledger holds together."""
    found = {}
    for row in stores.runs.list_run_index(limit=100):
        run_id = row["run_id"]
        stored = stores.runs.open(run_id)
        report = verify_chain(stores.ledger.list(run_id))
        assert (report.ok, report.count) == (True, stored.ledger_len)
        assert stored.ledger_len == 2 * stored.revision
        found[run_id] = (stored.revision, stored.ledger_len)
    return found


@ON_A_DISK
def test_a_full_disk_refuses_commits_and_once_there_is_room_they_go_on(
    durable: Backend, opened: Open, small: Path
) -> None:
    in_the_way = small / "in-the-way"
    in_the_way.write_bytes(bytes(RESERVE))
    stores = opened(durable, small / "data")
    acknowledged = fill(stores, "r")
    before = contents(stores)
    seq = stores.commands.get_last_seq()

    for name in ("one", "two"):
        with pytest.raises(Unavailable, match="full|No space left"):
            stores.commit(Commit(runs=(write(a_run(name, vars={"text": "x" * 100_000})),)))
    during = contents(stores)
    in_the_way.unlink()
    more = save(stores, a_run("after", vars={"text": "x" * 100_000}), count=2)
    after = contents(stores)
    stores.close()
    again = opened(durable, small / "data")

    assert acknowledged > 5
    assert during == before
    assert more.revision == 1
    assert after == {**before, "after": (1, 2)} == contents(again)
    assert again.commands.get_last_seq() == seq
    assert all(again.commands.get(f"r-{number}") is not None for number in range(acknowledged))
    assert again.commands.append(a_command("after")).seq == seq + 1


@ON_A_DISK
def test_a_gateway_that_is_started_on_a_full_disk_loses_nothing(durable: Backend, opened: Open, small: Path) -> None:
    in_the_way = small / "in-the-way"
    in_the_way.write_bytes(bytes(RESERVE))
    stores = opened(durable, small / "data")
    fill(stores, "r")
    before = contents(stores)
    _take_the_rest(small / "the-rest")
    stores.close()

    try:
        again = opened(durable, small / "data")
        assert contents(again) == before
        again.close()
    except Unavailable as error:
        assert error.code in ("store_failed", "database_unusable", "data_dir_unusable")
    in_the_way.unlink()
    again = opened(durable, small / "data")

    assert contents(again) == before
    save(again, a_run("after"), count=2)


def _take_the_rest(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, bytes(4096)):
            continue
    except OSError:
        return
    finally:
        os.close(fd)


@ON_A_DISK
def test_files_that_may_not_grow_refuse_commits_and_lose_nothing(
    durable: Backend, opened: Open, tmp_path: Path
) -> None:
    code = """
import json, resource, signal, sys
from pathlib import Path
from abstractgateway.errors import Unavailable
from tests.stores.shapes import FILES, SQLITE, a_run, save
from tests.stores.test_full_disk import contents
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
backend = SQLITE if sys.argv[1] == "sqlite" else FILES
stores = backend.open_at(Path(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
try:
    while True:
        save(stores, a_run(vars={"text": "x" * 3000}), count=2)
except Unavailable as error:
    assert error.code == "store_failed", error
full = contents(stores)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if sys.version_info < (3, 11) and backend is SQLITE:  # it does not tell this error from a failed fsync
    stores.close()
    stores = backend.open_at(Path(sys.argv[2]))
save(stores, a_run("after"), count=2)
print(json.dumps([full, contents(stores)]))
stores.close()
"""

    finished = subprocess.run(
        [sys.executable, "-c", code, durable.name, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert finished.returncode == 0, finished.stderr
    full, after = json.loads(finished.stdout)
    assert full["r1"][0] > 5
    assert after == {**full, "after": [1, 2]}
    assert {run_id: list(found) for run_id, found in contents(opened(durable, tmp_path)).items()} == after

"""The bell between processes: whatever happens to it, a process finds out what the others did."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from abstractgateway.stores.wake import Wake
from tests.stores.shapes import PATIENCE_S

LOGGER = "abstractgateway.stores.wake"


@pytest.fixture
def rings() -> queue.Queue[bool]:
    """What the bell of the test said, one after another: whether it was rung, or its process looked on its own."""
    return queue.Queue()


@pytest.fixture
def bell(tmp_path: Path, rings: queue.Queue[bool], monkeypatch: pytest.MonkeyPatch) -> Iterator[Wake]:
    """A bell whose process does not look on its own while the test lasts."""
    monkeypatch.setattr("abstractgateway.stores.wake.LOOK_S", 10 * PATIENCE_S)
    with closing(Wake(tmp_path, rings.put)) as wake:
        yield wake


def a_neighbour(directory: Path, on_wake: Callable[[bool], None] = lambda has_rung: None) -> Wake:
    return Wake(directory, on_wake)


def test_a_bell_that_was_closed_leaves_its_descriptors_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    fstat = os.fstat

    def noting(fd: int) -> os.stat_result:
        used.append(fd)
        return fstat(fd)

    closed = a_neighbour(tmp_path)
    monkeypatch.setattr("abstractgateway.stores.wake.os.fstat", noting)
    closed.ring()
    assert closed._fd in used
    closed.close()
    used.clear()

    closed.ring()
    closed.close()

    assert closed._fd not in used


def test_a_bell_may_be_closed_by_whoever_it_wakes(bell: Wake, tmp_path: Path) -> None:
    done = threading.Event()

    def close(has_rung: bool) -> None:
        woken.close()
        done.set()

    woken = a_neighbour(tmp_path, close)
    bell.ring()

    assert done.wait(PATIENCE_S)
    woken._thread.join(PATIENCE_S)
    assert not woken._thread.is_alive()
    assert len(os.listdir(tmp_path / "wake")) == 1


def test_a_process_whose_bell_cannot_be_heard_looks_on_its_own(
    tmp_path: Path, rings: queue.Queue[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(socket.socket):
        def recv(self, *arguments: object) -> bytes:
            raise OSError("no memory for it")

    monkeypatch.setattr("abstractgateway.stores.wake.LOOK_S", 0.001)
    with monkeypatch.context() as patched:
        patched.setattr("abstractgateway.stores.wake.socket.socket", Broken)
        wake = Wake(tmp_path, rings.put)

    assert [rings.get(timeout=PATIENCE_S) for _ in range(3)] == [False] * 3
    wake.close()


def test_a_store_that_cannot_be_read_for_a_while_is_told_of_once_and_read_again(
    bell: Wake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looks: queue.Queue[str] = queue.Queue()
    troubles = iter(["disk", "disk", "", "disk"])

    def look(has_rung: bool) -> None:
        trouble = next(troubles)
        looks.put(trouble)
        if trouble:
            raise OSError(trouble)

    with closing(a_neighbour(tmp_path, look)):
        for expected in ("disk", "disk", "", "disk"):
            bell.ring()
            assert looks.get(timeout=PATIENCE_S) == expected

    told = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert told == ["changes of other processes cannot be read: OSError: disk"] * 2


def test_a_look_that_ends_its_thread_is_told_of(bell: Wake, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def look(has_rung: bool) -> None:
        raise SystemExit("enough")

    deaf = a_neighbour(tmp_path, look)
    bell.ring()
    deaf._thread.join(PATIENCE_S)
    deaf.close()

    told = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert told == ["changes of other processes are no longer read: SystemExit: enough"]

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from abstractgateway.clock import parse_iso
from abstractgateway.runner import RunnerLock
from abstractgateway.service.runner_status import RunnerStatus

PATH = "/api/gateway/runner"


def ask(live, connect_to):
    return connect_to(live.server).send("GET", PATH).answer()


@pytest.mark.parametrize("backend", ["memory", "file", "sqlite"])
def test_a_process_that_drives_its_runs_says_so(go_live, connect_to, backend):
    live = go_live(store_backend=backend)

    answer = ask(live, connect_to)

    assert answer.status == 200
    assert set(answer.json) == {"owner", "standby", "last_seen"}
    owner = answer.json["owner"]
    assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
    assert parse_iso(owner["since"]) <= parse_iso(answer.json["last_seen"])
    assert answer.json["standby"] is None


def test_it_takes_a_token(go_live, connect_to):
    live = go_live(store_backend="memory")

    assert connect_to(live.server).send("GET", PATH, "Authorization: none").answer().status == 401


def test_of_a_directory_that_nobody_drove_nothing_is_known(tmp_path: Path):
    status = of_directory(tmp_path)

    assert status.get() == {"owner": None, "standby": None, "last_seen": None}


def test_the_owner_and_the_one_that_waits_are_told_apart(tmp_path: Path):
    lock, standby = RunnerLock(tmp_path / "lock"), RunnerLock(tmp_path / "standby")
    assert lock.try_acquire()
    assert standby.try_acquire()
    just_become_owner = of_directory(tmp_path).get()
    (tmp_path / "standby").write_text("pid=42\nhost=there\nsince=2026-01-01T00:00:00+00:00\n")

    status = of_directory(tmp_path).get()

    assert status["owner"]["pid"] == os.getpid()
    assert status["standby"] == {"pid": 42, "host": "there", "since": "2026-01-01T00:00:00+00:00"}
    assert just_become_owner["standby"] is None


def test_when_an_owner_that_is_gone_was_last_seen_is_known(tmp_path: Path):
    lock = RunnerLock(tmp_path / "lock")
    assert lock.try_acquire()
    since = of_directory(tmp_path).get()["owner"]["since"]
    lock.release()

    status = of_directory(tmp_path).get()

    assert status["owner"] is None
    assert parse_iso(status["last_seen"]).timestamp() >= parse_iso(since).timestamp() - 0.1


def test_a_lock_that_an_earlier_version_wrote_names_a_process_only(tmp_path: Path):
    lock = RunnerLock(tmp_path / "lock")
    assert lock.try_acquire()
    (tmp_path / "lock").write_text("pid=42\n")

    assert of_directory(tmp_path).get()["owner"] == {"pid": 42, "host": None, "since": None}


def of_directory(directory: Path) -> RunnerStatus:
    return RunnerStatus(runner=None, lock=RunnerLock(directory / "lock"), standby=RunnerLock(directory / "standby"))

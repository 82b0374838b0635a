from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.processes import Client, Process, environment, port_of, serve

HIGHEST_LATENCY_S = 1.0
"""Generous for a busy machine; a runner that polled would be found out by the median of several commands."""


@pytest.fixture(params=["file", "sqlite"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, str(request.param))


@contextmanager
def runner(env: dict[str, str]) -> Iterator[Process]:
    with Process("-m", "abstractgateway", "runner", env=env) as process:
        process.wait_for_line("drives the runs")
        yield process


def test_runs_started_over_http_are_driven_by_another_process(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as api, runner(env) as driver:
        client = Client(port_of(api))
        run_id = client.start(bundle_id="ask")
        _, key = client.question(run_id)
        client.answer(run_id, key, "Bob", "c-1")
        cursors = [cursor for cursor, _ in client.follow(run_id)]
        run = client.run(run_id)
        codes = (driver.end(), api.end())

    assert run["status"] == "completed"
    assert "Bob" in str(run["output"])
    assert cursors == list(range(1, run["ledger_len"] + 1))
    assert codes == (0, 0)


def test_a_server_without_a_runner_says_what_its_runs_wait_for(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as api:
        client = Client(port_of(api))
        run_id = client.start(bundle_id="hello")
        blocked = client.run(run_id)["blocked_by"]
        with runner(env):
            list(client.follow(run_id))
        run = client.run(run_id)

    assert "start 'abstractgateway runner'" in blocked["reason"]
    assert (run["status"], run["blocked_by"]) == ("completed", None)


def test_a_runner_that_is_killed_is_replaced_by_the_next(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as api:
        client = Client(port_of(api))
        with runner(env) as first:
            asking = client.start(bundle_id="ask")
            _, key = client.question(asking)
            first.end(signal.SIGKILL)
        later = client.start(bundle_id="hello")
        client.answer(asking, key, "Bob", "c-1")
        with runner(env):
            for run_id in (asking, later):
                list(client.follow(run_id))
        runs = [client.run(run_id) for run_id in (asking, later)]

    assert [run["status"] for run in runs] == ["completed", "completed"]


def test_a_second_runner_takes_over_from_one_that_was_killed(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as api, runner(env) as first, runner(env):
        client = Client(port_of(api))
        asking = client.start(bundle_id="ask")
        _, key = client.question(asking)
        first.end(signal.SIGKILL)

        client.answer(asking, key, "Bob", "c-1")
        list(client.follow(asking))
        run = client.run(asking)

    assert run["status"] == "completed"


def test_a_command_reaches_the_other_process_at_once(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as api, runner(env):
        client = Client(port_of(api))
        took = []
        for number in range(7):
            run_id = client.start(bundle_id="ask")
            _, key = client.question(run_id)
            begun = time.monotonic()
            client.answer(run_id, key, "Bob", f"c-{number}")
            list(client.follow(run_id))
            took.append(time.monotonic() - begun)

    assert sorted(took)[3] < 0.15
    assert max(took) < HIGHEST_LATENCY_S

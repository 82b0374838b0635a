from __future__ import annotations

import http.client
import os
import signal
import time
from pathlib import Path

import pytest

from abstractgateway.stores import open_file_stores
from tests.cli.kill_loop import write_bundle
from tests.cli.processes import PATIENCE_S, TOKEN, Client, Process, environment, port_of, serve

PROGRAM = str(Path(__file__).with_name("slow_gateway.py"))
LONG_S = 20


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    flows = tmp_path / "flows"
    flows.mkdir()
    write_bundle(flows / "busy.flow")
    os.mkfifo(tmp_path / "gate")
    settings = environment(tmp_path / "data", "file", FLOWS_DIR=flows, PROVIDER="scripted", MODEL="scripted")
    return {**settings, "GATE": str(tmp_path / "gate")}


def begin(process: Process) -> tuple[Client, int, str]:
    """Start a run that stands still in its model or tool."""
    port = port_of(process)
    client = Client(port)
    run_id = client.start(
        bundle_id="busy", input_data={"key": "k", "calls": [{"name": "post", "arguments": {"key": "k"}}]}
    )
    process.wait_for_line("has begun")
    return client, port, run_id


def effects(data_dir: Path, run_id: str) -> list[tuple[str, str]]:
    stores = open_file_stores(data_dir)
    try:
        records = stores.ledger.list(run_id)
    finally:
        stores.close()
    return [(record["effect"]["type"], record["status"]) for record in records if record["effect"]]


def open_stream(port: int, run_id: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    connection.request("GET", f"/api/gateway/runs/{run_id}/ledger/stream", headers=headers)
    return connection.getresponse()


def test_a_tool_that_ends_in_time_is_taken_in(env: dict[str, str], tmp_path: Path) -> None:
    env |= {"SLOW": "tool", "ABSTRACTGATEWAY_SHUTDOWN_GRACE_S": str(LONG_S)}
    with Process(PROGRAM, env=env) as process:
        _, port, run_id = begin(process)
        stream = open_stream(port, run_id)
        process.send(signal.SIGTERM)
        stream.read()  # its end says that the stop has begun
        (tmp_path / "gate").write_bytes(b"go")
        code = process.wait()

    assert code == 0, process.output
    assert ("tool_calls", "completed") in effects(tmp_path / "data", run_id)


def test_a_model_call_that_hangs_is_made_again_by_the_next_process(env: dict[str, str], tmp_path: Path) -> None:
    with Process(PROGRAM, env={**env, "SLOW": "model", "ABSTRACTGATEWAY_SHUTDOWN_GRACE_S": "0.3"}) as process:
        _, _, run_id = begin(process)
        begun = time.monotonic()
        code = process.end(signal.SIGTERM)
        took = time.monotonic() - begun
    with Process(PROGRAM, env=env) as process:
        client = Client(port_of(process))
        _, key = client.question(run_id)
        client.answer(run_id, key, "Bob", "c-1")
        list(client.follow(run_id))
        status = client.run(run_id)["status"]
        process.end()

    assert code == 0, process.output
    assert took < LONG_S / 2
    assert status == "completed"


def test_an_open_stream_is_told_when_to_come_back(env: dict[str, str]) -> None:
    with Process(PROGRAM, env={**env, "SLOW": "model", "ABSTRACTGATEWAY_SHUTDOWN_GRACE_S": "0.3"}) as process:
        _, port, run_id = begin(process)
        stream = open_stream(port, run_id)
        assert stream.readline().startswith(b"retry: ")
        code = process.end(signal.SIGTERM)
        content = stream.read()

    assert code == 0
    assert content.rstrip().splitlines()[-1].startswith(b"retry: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_second_signal_ends_at_once(env: dict[str, str], number: int) -> None:
    with Process(PROGRAM, env={**env, "SLOW": "model", "ABSTRACTGATEWAY_SHUTDOWN_GRACE_S": "600"}) as process:
        _, port, run_id = begin(process)
        stream = open_stream(port, run_id)
        process.send(number)
        stream.read()
        code = process.end(number)

    assert code == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_both_commands_end_in_order(env: dict[str, str], number: int) -> None:
    with (
        serve("--no-runner", "--grace", "3", env=env) as api,
        Process("-m", "abstractgateway", "runner", env=env) as runner,
    ):
        port_of(api)
        runner.wait_for_line("drives the runs")
        codes = (runner.end(number), api.end(number))

    assert codes == (0, 0)

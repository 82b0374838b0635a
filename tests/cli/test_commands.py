from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from abstractgateway import __version__
from abstractgateway.cli import main
from tests.cli.processes import Client, Process, environment, port_of, serve


def run_command(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    with Process("-m", "abstractgateway", *arguments, env=env) as process:
        code = process.wait()
    return code, "".join(process.output)


def test_serve_refuses_to_start_without_a_token_and_says_how_to_make_one(tmp_path: Path) -> None:
    code, said = run_command("serve", env=environment(tmp_path / "data", "file", AUTH_TOKEN=None))

    assert code == 1
    assert "ABSTRACTGATEWAY_AUTH_TOKEN" in said
    assert "secrets.token_urlsafe(32)" in said
    assert not (tmp_path / "data").exists()


def test_the_version_is_printed(tmp_path: Path) -> None:
    code, said = run_command("--version", env=environment(tmp_path, "file"))

    assert (code, said) == (0, f"abstractgateway {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("explode",),
        ("serve", "--port", "many"),
        ("serve", "--port", "70000"),
        ("serve", "--nothing"),
        ("runner", "x"),
    ],
)
def test_a_command_line_that_is_wrong_ends_with_two(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "usage: abstractgateway" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"STORE_BACKEND": "paper"}, "store_backend: 'paper' is not one of"),
        ({"TICK_WORKERS": "none"}, "ABSTRACTGATEWAY_TICK_WORKERS: 'none' cannot be read"),
        ({"DB_PATH": "/elsewhere.sqlite3", "STORE_BACKEND": "sqlite"}, "must point to a file under"),
        ({"DATA_DIR": "/proc/nowhere"}, "the data directory '/proc/nowhere' cannot be used"),
    ],
)
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("runner",)])
def test_settings_that_cannot_work_end_with_one_and_a_sentence(
    tmp_path: Path, command: tuple[str, ...], settings: dict[str, str], text: str
) -> None:
    code, said = run_command(*command, env={**environment(tmp_path, "file", **settings)})

    assert code == 1
    assert text in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_ends_with_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        code, said = run_command("serve", "--port", port, env=environment(tmp_path, "file"))

    assert code == 1
    assert port in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [("runner",), ("serve", "--no-runner", "--port", "0")])
def test_stores_in_memory_are_not_for_two_processes(tmp_path: Path, command: tuple[str, ...]) -> None:
    code, said = run_command(*command, env=environment(tmp_path, "memory"))

    assert code == 1
    assert "ABSTRACTGATEWAY_STORE_BACKEND" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_runner_starts_and_ends_in_order_when_it_is_told_to(
    tmp_path: Path, backend: str, number: signal.Signals
) -> None:
    with Process("-m", "abstractgateway", "runner", env=environment(tmp_path, backend)) as process:
        process.wait_for_line("drives the runs")

        code = process.end(number)

    assert code == 0


@pytest.mark.parametrize("backend", ["file", "sqlite", "memory"])
def test_a_server_serves_until_it_is_told_to_end(tmp_path: Path, backend: str) -> None:
    with serve(env=environment(tmp_path, backend)) as process:
        client = Client(port_of(process))
        health = client.call("/api/health")
        run_id = client.start(bundle_id="hello", input_data={"prompt": "Ada"})
        records = [record for _, record in client.follow(run_id)]
        code = process.end()

    assert code == 0
    assert health["status"] in ("ok", "healthy")
    assert records[-1]["effect"]["payload"]["name"] == "abstract.status"


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_server_that_is_started_again_finds_everything(tmp_path: Path, backend: str) -> None:
    env = environment(tmp_path, backend)
    with serve(env=env) as process:
        client = Client(port_of(process))
        asking = client.start(bundle_id="ask", session_id="s-1")
        _, key = client.question(asking)
        finished = client.start(bundle_id="hello")
        list(client.follow(finished))
        ledgers = {run_id: client.ledger(run_id) for run_id in (asking, finished)}
        first = process.end()

    with serve(env=env) as process:
        client = Client(port_of(process))
        again = {run_id: client.ledger(run_id) for run_id in (asking, finished)}
        client.answer(asking, key, "Bob", "c-1")
        list(client.follow(asking))
        run = client.run(asking)
        second = process.end()

    assert (first, second) == (0, 0)
    assert again == ledgers
    assert (run["status"], run["session_id"]) == ("completed", "s-1")


def test_a_server_ends_although_a_stream_is_open(tmp_path: Path) -> None:
    with serve(env=environment(tmp_path, "file")) as process:
        client = Client(port_of(process))
        run_id = client.start(bundle_id="ask")
        stream = client.follow(run_id)
        next(stream)

        code = process.end()
        rest = list(stream)

    assert code == 0
    assert len(rest) <= 1

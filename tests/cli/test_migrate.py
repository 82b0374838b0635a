from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Unavailable
from abstractgateway.runner import RunnerLock
from abstractgateway.stores import migrate as migration
from tests.cli.processes import SAMPLES
from tests.commands import Said, said_by


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def ag(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `migrate` on the data directory."""

    def run(*arguments: str) -> Said:
        return said_by(capsys, "migrate", "--data-dir", str(data), *arguments)

    return run


def gateway(data: Path, backend: str) -> GatewayService:
    return GatewayService.open(GatewayConfig(data_dir=data, flows_dir=SAMPLES, store_backend=backend))


def fill(data: Path, backend: str) -> str:
    """Run `hello` and leave `ask` waiting; return the id of the latter."""
    with gateway(data, backend) as opened:
        list(opened.ledger.follow(opened.runs.start(bundle_id="hello", input_data={"prompt": "World"})))
        run_id = opened.runs.start(bundle_id="ask", input_data={"prompt": "Who?"})
        next(entry for entry in opened.ledger.follow(run_id) if entry.record["status"] == "waiting")
        opened.commands.submit(run_id="nope", type="pause", payload={}, command_id="c1")
    return run_id


def answers(data: Path, backend: str) -> dict[str, Any]:
    """Return what a gateway on the data tells of everything, without driving it."""
    config = GatewayConfig(data_dir=data, flows_dir=SAMPLES, store_backend=backend, runner_enabled=False)
    with GatewayService.open(config) as opened:
        listed = opened.runs.list(include_metrics=True)
        run_ids = [run["run_id"] for run in listed["items"]]
        return {
            "list": listed,
            "runs": [opened.runs.get(run_id) for run_id in run_ids],
            "history": [opened.runs.history_bundle(run_id)["ledgers"] for run_id in run_ids],
            "ledgers": [opened.ledger.read(run_id).records for run_id in run_ids],
            "artifacts": [opened.artifacts.list(run_id) for run_id in run_ids],
            "command": opened.commands.outcome("c1"),
        }


@pytest.mark.parametrize(("source", "target"), [("file", "sqlite"), ("sqlite", "file")])
def test_a_gateway_on_the_migrated_data_answers_alike_and_goes_on(ag, data, source, target):
    run_id = fill(data, source)
    before = answers(data, source)

    said = ag("--from", source, "--to", target)

    assert said.code == 0, said.err
    assert "2 runs" in said.out and f"ABSTRACTGATEWAY_STORE_BACKEND={target}" in said.out
    assert answers(data, target) == before == answers(data, source)
    with gateway(data, target) as opened:
        opened.commands.submit(run_id=run_id, type="resume", payload={"payload": {"response": "Bob"}})
        list(opened.ledger.follow(run_id))
        assert opened.runs.get(run_id)["output"]["response"] == "You answered: Bob"


def test_there_and_back_again(ag, data):
    fill(data, "file")
    before = answers(data, "file")
    ag("--from", "file", "--to", "sqlite")

    refused = ag("--from", "sqlite", "--to", "file")
    done = ag("--from", "sqlite", "--to", "file", "--overwrite", "--json")

    assert (refused.code, "--overwrite" in refused.err) == (1, True)
    assert json.loads(done.out) == {"runs": 2, "records": 6, "commands": 1, "broken": {}}
    assert answers(data, "file") == before


def test_a_runner_at_work_is_not_disturbed(ag, data):
    fill(data, "file")
    lock = RunnerLock(data / "gateway_runner.lock")
    assert lock.try_acquire()

    said = ag("--from", "file", "--to", "sqlite")

    lock.release()
    assert said.code == 1
    assert "a runner drives the runs" in said.err
    assert not (data / "gateway.sqlite3").exists()


def test_a_migration_that_was_interrupted_is_gone_on_with(ag, data, monkeypatch):
    fill(data, "file")
    before = answers(data, "file")
    copy_commands = migration._copy_commands
    monkeypatch.setattr(migration, "_copy_commands", _refuse)
    interrupted = ag("--from", "file", "--to", "sqlite")
    monkeypatch.setattr(migration, "_copy_commands", copy_commands)

    again = ag("--from", "file", "--to", "sqlite")

    assert (interrupted.code, again.code) == (1, 0)
    assert "0 records, 1 commands" in again.out
    assert answers(data, "sqlite") == before
    assert ag("--from", "file", "--to", "sqlite").code == 1  # it is finished: what is there is not touched any more


def _refuse(*arguments: object) -> None:
    raise Unavailable("the disk is full")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--from", "file", "--to", "file"), "the same backend"),
        (("--from", "sqlite", "--to", "file"), "nothing of the sqlite backend"),
        (("--from", "file", "--to", "sqlite", "--data-dir", "/nowhere"), "no data directory '/nowhere'"),
        (("--from", "file", "--to", "sqlite", "--db-path", "/elsewhere.sqlite3"), "must point to a file under"),
    ],
)
def test_what_cannot_be_migrated_is_told_and_changes_nothing(ag, data, arguments, text):
    fill(data, "file")
    before = sorted(path.name for path in data.iterdir())

    said = ag(*arguments)

    assert (said.code, said.out) == (1, "")
    assert text in said.err
    assert {path.name for path in data.iterdir()} - {"gateway_runner.lock"} == set(before) - {"gateway_runner.lock"}


def test_a_backend_that_does_not_exist_is_a_wrong_command_line(ag):
    with pytest.raises(SystemExit) as raised:
        ag("--from", "paper", "--to", "sqlite")

    assert raised.value.code == 2

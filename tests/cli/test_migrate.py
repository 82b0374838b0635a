from __future__ import annotations

import json
import signal
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.compose import migration_ends
from abstractgateway.errors import Conflict, Unavailable
from abstractgateway.runner import RunnerLock
from abstractgateway.runtime.commit import Commit, Removal
from abstractgateway.stores import migrate as migration
from abstractgateway.stores.ends import Standing
from tests.cli.processes import ROOT, SAMPLES, Process, environment
from tests.commands import Said, said_by
from tests.postgres.server import url_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def ag(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs `migrate` on the data directory and, where it is named, its database."""

    def run(*arguments: str) -> Said:
        if "postgres" in arguments:
            monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", url_of(data.parent))
        return said_by(capsys, "migrate", "--data-dir", str(data), *arguments)

    return run


def settings(data: Path, backend: str, **more: Any) -> GatewayConfig:
    given = {"database_url": url_of(data.parent)} if backend == "postgres" else {}
    return GatewayConfig(data_dir=data, flows_dir=SAMPLES, store_backend=backend, **given, **more)


def gateway(data: Path, backend: str) -> GatewayService:
    return GatewayService.open(settings(data, backend))


def fill(data: Path, backend: str) -> str:
    """Run `hello`, also with a large input, and leave `ask` waiting; return the id of the latter."""
    with gateway(data, backend) as opened:
        for prompt in ("World", "é" * 200_000):
            list(opened.ledger.follow(opened.runs.start(bundle_id="hello", input_data={"prompt": prompt})))
        run_id = opened.runs.start(bundle_id="ask", input_data={"prompt": "Who?"}, idempotency_key="asked-once")
        next(entry for entry in opened.ledger.follow(run_id) if entry.record["status"] == "waiting")
        opened.commands.submit(run_id="nope", type="pause", payload={}, command_id="c1")
    return run_id


def answers(data: Path, backend: str) -> dict[str, Any]:
    """Return what a gateway on the data tells of everything, without driving it."""
    with GatewayService.open(settings(data, backend, runner_enabled=False)) as opened:
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


@pytest.mark.parametrize(("source", "target"), [*permutations(("file", "sqlite", "postgres"), 2)])
def test_a_gateway_on_the_migrated_data_answers_alike_and_goes_on(ag, data, source, target):
    run_id = fill(data, source)
    before = answers(data, source)

    said = ag("--from", source, "--to", target)

    assert said.code == 0, said.err
    assert "3 runs" in said.out and f"ABSTRACTGATEWAY_STORE_BACKEND={target}" in said.out
    assert len(before["artifacts"]) == 3 and any(before["artifacts"])
    assert answers(data, target) == before == answers(data, source)
    with gateway(data, target) as opened:
        assert opened.runs.start(bundle_id="ask", input_data={"prompt": "Who?"}, idempotency_key="asked-once") == run_id
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
    moved = {"runs": 3, "records": 10, "commands": 1, "artifacts": 0}
    assert json.loads(done.out) == {**moved, "broken": {}, "lost": {}}
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


WAYS = [("file", "sqlite"), ("sqlite", "file"), ("file", "postgres"), ("postgres", "sqlite")]


@pytest.mark.parametrize(("source", "target"), WAYS)
@pytest.mark.parametrize("error", [Unavailable("the disk is full"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_migration_that_was_interrupted_is_gone_on_with(ag, data, monkeypatch, source, target, error):
    def refuse(*arguments: object) -> None:
        raise error

    fill(data, source)
    before = answers(data, source)
    with monkeypatch.context() as patched:
        patched.setattr(migration, "_copy_commands", refuse)
        interrupted = ag("--from", source, "--to", target)
    with pytest.raises(Conflict, match="run the same") as refused:
        gateway(data, target)
    as_source = ag("--from", target, "--to", source, "--overwrite")

    again = ag("--from", source, "--to", target)

    assert (interrupted.code, interrupted.out, as_source.code, again.code) == (1, "", 1, 0)
    assert (refused.value.code, "was interrupted" in as_source.err) == ("migration_unfinished", True)
    assert "0 records, 1 commands, 0 artifacts" in again.out
    assert answers(data, target) == before == answers(data, source)
    assert ag("--from", source, "--to", target).code == 1  # it is finished: what is there is not touched any more


def test_a_source_that_cannot_be_opened_leaves_the_target_alone(ag, data):
    fill(data, "file")
    (data / "gateway.sqlite3").write_bytes(b"no database" * 1000)

    said = ag("--from", "sqlite", "--to", "file", "--overwrite")

    assert (said.code, "cannot be used as a database" in said.err) == (1, True)
    assert len(answers(data, "file")["runs"]) == 3


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_a_target_that_was_left_unfinished_can_be_begun_anew(ag, data, monkeypatch, source, target):
    def refuse(*arguments: object) -> None:
        raise Unavailable("the disk is full")

    fill(data, source)
    with monkeypatch.context() as patched:
        patched.setattr(migration, "_copy_commands", refuse)
        ag("--from", source, "--to", target)
    with gateway(data, source) as opened:
        (asking,) = opened.runs.list(status="waiting")["items"]
        row = opened.stores.runs.row(asking["run_id"])
        opened.stores.commit(Commit(removed=(Removal(row.run_id, row.revision),)))

    refused = ag("--from", source, "--to", target)
    anew = ag("--from", source, "--to", target, "--overwrite")

    assert (refused.code, "--overwrite" in refused.err) == (1, True)
    assert (anew.code, "2 runs" in anew.out) == (0, True)
    assert answers(data, target) == answers(data, source)


@pytest.mark.parametrize(("source", "target"), [("file", "sqlite"), ("sqlite", "postgres"), ("postgres", "file")])
def test_a_migration_that_is_killed_leaves_the_source_alone_and_no_half_of_it_to_use(ag, data, source, target):
    fill(data, source)
    before = answers(data, source)
    url = url_of(data.parent) if "postgres" in (source, target) else None
    env = environment(data, "file", DATABASE_URL=url)
    script = str(ROOT / "tests" / "cli" / "killed_migration.py")
    codes = []
    for steps in (0, 1, 2, 4, 6):
        command = (script, str(steps), "--from", source, "--to", target, "--overwrite")
        with Process(*command, env=env) as process:
            codes.append(process.wait())
        if steps:
            with pytest.raises(Conflict, match="was interrupted"):
                gateway(data, target)
        else:
            _, end = migration_ends(settings(data, "file", database_url=url), source, target)
            assert end.standing() is Standing.EMPTY
        assert answers(data, source) == before

    said = ag("--from", source, "--to", target)

    assert codes == [-signal.SIGKILL] * 5
    assert said.code == 0, said.err
    assert answers(data, target) == before


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

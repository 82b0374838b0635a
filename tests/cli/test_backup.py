from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Conflict
from tests.cli.processes import SAMPLES
from tests.cli.test_migrate import answers, fill, gateway
from tests.commands import Said, said_by


@pytest.fixture
def ag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs command lines with the settings of a backend."""

    def run(backend: str, *arguments: str) -> Said:
        monkeypatch.setenv("ABSTRACTGATEWAY_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("ABSTRACTGATEWAY_FLOWS_DIR", str(SAMPLES))
        monkeypatch.setenv("ABSTRACTGATEWAY_STORE_BACKEND", backend)
        return said_by(capsys, *arguments)

    return run


@pytest.mark.parametrize("there", ["file", "sqlite"])
@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_backup_is_restored_to_any_backend_and_goes_on(ag, tmp_path, backend, there):
    run_id = fill(tmp_path / "data", backend)
    before = answers(tmp_path / "data", backend)
    backup, new = tmp_path / "backup", tmp_path / "new"

    made = ag(backend, "backup", str(backup))
    restored = ag(there, "restore", str(backup), "--data-dir", str(new / "data"), "--flows-dir", str(new / "flows"))

    assert (made.code, restored.code) == (0, 0), made.err + restored.err
    assert answers(tmp_path / "data", backend) == before
    assert sorted(path.name for path in (new / "flows").iterdir()) == sorted(
        path.name for path in SAMPLES.glob("*.flow")
    )
    assert answers(new / "data", there) == before
    with gateway(new / "data", there) as opened:
        opened.commands.submit(run_id=run_id, type="resume", payload={"payload": {"response": "Bob"}})
        list(opened.ledger.follow(run_id))
        assert opened.runs.get(run_id)["output"]["response"] == "You answered: Bob"


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_backup_of_a_gateway_at_work_has_whole_runs(ag, tmp_path, backend):
    begun = threading.Semaphore(0)
    config = GatewayConfig(data_dir=tmp_path / "data", flows_dir=SAMPLES, store_backend=backend)
    with GatewayService.open(config) as opened:

        def work() -> None:
            for _ in range(200):
                opened.runs.start(bundle_id="hello", input_data={"prompt": "World"})
                begun.release()

        worker = threading.Thread(target=work)
        worker.start()
        said = []
        for number in range(2):
            for _ in range(20):
                begun.acquire(timeout=10)
            said.append(ag(backend, "backup", str(tmp_path / str(number))))
        worker.join()

    assert [each.code for each in said] == [0, 0], said
    for number in range(2):
        backup, new = tmp_path / str(number), tmp_path / f"new-{number}"
        ag(backend, "restore", str(backup), "--data-dir", str(new), "--flows-dir", str(tmp_path / f"flows-{number}"))
        with GatewayService.open(GatewayConfig(data_dir=new, flows_dir=SAMPLES, store_backend=backend)) as again:
            for run in again.runs.list(limit=500)["items"]:
                list(again.ledger.follow(run["run_id"]))
                assert again.runs.get(run["run_id"])["output"]["response"] == "Hello, World"


def test_other_files_come_along_and_databases_as_they_are_at_one_moment(ag, tmp_path):
    data = tmp_path / "data"
    fill(data, "file")
    (data / "workspaces" / "r").mkdir(parents=True)
    (data / "workspaces" / "r" / "note.txt").write_text("hi")
    (data / "elsewhere").symlink_to("/etc/passwd")
    other = sqlite3.connect(data / "knowledge.sqlite3")
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("CREATE TABLE t (x)")
    other.commit()

    ag("file", "backup", str(tmp_path / "all"))
    ag("file", "backup", "--no-workspaces", str(tmp_path / "few"))
    other.close()

    copied = sqlite3.connect(tmp_path / "all" / "data" / "knowledge.sqlite3")
    assert copied.execute("SELECT count(*) FROM t").fetchone() == (0,)
    copied.close()
    assert (tmp_path / "all" / "data" / "workspaces" / "r" / "note.txt").read_text() == "hi"
    assert not (tmp_path / "few" / "data" / "workspaces").exists()
    names = {path.name for path in (tmp_path / "all" / "data").iterdir()}
    assert names == {"artifacts", "workspaces", "knowledge.sqlite3"}


@pytest.mark.parametrize("damage", ["change", "remove", "manifest", "escape", "later"])
def test_a_backup_that_is_damaged_is_found_and_not_restored(ag, tmp_path, damage):
    fill(tmp_path / "data", "file")
    backup, new = tmp_path / "backup", tmp_path / "new"
    ag("file", "backup", str(backup))
    manifest = json.loads((backup / "backup.json").read_text())
    if damage == "change":
        (backup / "gateway.sqlite3").write_bytes((backup / "gateway.sqlite3").read_bytes() + b"x")
    elif damage == "remove":
        shutil.rmtree(backup / "data")
    elif damage == "manifest":
        (backup / "backup.json").write_text("{}")
    else:
        changed = {"escape": {"files": {"../data/x": "0"}}, "later": {"format": 99}}[damage]
        (backup / "backup.json").write_text(json.dumps({**manifest, **changed}))

    verified = ag("file", "backup", "--verify", str(backup))
    restored = ag("file", "restore", str(backup), "--data-dir", str(new))

    assert (verified.code, restored.code) == (1, 1)
    assert "backup.json" in verified.err or "not what was written" in verified.err
    assert not new.exists()


def test_a_whole_backup_is_verified(ag, tmp_path):
    fill(tmp_path / "data", "sqlite")
    ag("sqlite", "backup", str(tmp_path / "backup"))

    said = ag("sqlite", "backup", "--verify", "--json", str(tmp_path / "backup"))

    assert (said.code, json.loads(said.out)["runs"]) == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("backup", "full"), "has something in it already"),
        (("restore", "full"), "is no backup"),
        (("restore", "nowhere"), "is no backup"),
        (("backup", "/proc/nowhere"), "cannot be made"),
    ],
)
def test_what_cannot_be_done_is_told(ag, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "data", "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")

    said = ag("file", *arguments)

    assert (said.code, said.out) == (1, "")
    assert text in said.err
    assert (tmp_path / "full" / "x").read_text() == "mine"


def test_nothing_is_restored_over_what_is_there(ag, tmp_path):
    fill(tmp_path / "data", "file")
    before = answers(tmp_path / "data", "file")
    ag("file", "backup", str(tmp_path / "backup"))

    said = ag("file", "restore", str(tmp_path / "backup"))

    assert said.code == 1 and "has something in it already" in said.err
    assert answers(tmp_path / "data", "file") == before


def test_a_database_is_left_to_pg_dump(ag, tmp_path, monkeypatch):
    monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", "postgresql://me:s3cr3t@127.0.0.1:1/db")
    fill(tmp_path / "data", "sqlite")
    ag("sqlite", "backup", str(tmp_path / "backup"))

    made = ag("postgres", "backup", str(tmp_path / "another"))
    restored = ag("postgres", "restore", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "new"))
    verified = ag("postgres", "backup", "--verify", str(tmp_path / "backup"))

    assert (made.code, restored.code, verified.code) == (1, 1, 0)
    assert "pg_dump" in made.err and str(tmp_path / "data") in made.err
    assert "migrate --from sqlite --to postgres" in restored.err
    assert "s3cr3t" not in made.err + restored.err
    assert not (tmp_path / "another").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_what_an_interrupted_restore_left_is_opened_by_no_gateway(ag, tmp_path, monkeypatch, backend):
    fill(tmp_path / "data", "file")
    ag("file", "backup", str(tmp_path / "backup"))
    new = tmp_path / "new" / "data"
    command = ("restore", str(tmp_path / "backup"), "--data-dir", str(new), "--flows-dir", str(tmp_path / "flows"))

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("abstractgateway.stores.migrate._copy_commands", die)
        assert ag(backend, *command).code == 1

    with pytest.raises(Conflict, match="remove the directory and restore again"):
        gateway(new, backend)
    shutil.rmtree(new)
    shutil.rmtree(tmp_path / "flows")
    assert ag(backend, *command).code == 0
    assert answers(new, backend) == answers(tmp_path / "data", "file")

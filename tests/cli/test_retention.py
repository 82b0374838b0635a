from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.cli import main
from abstractgateway.errors import Conflict, NotFound
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.service.retention import Removed, old_trees, remove_trees
from abstractgateway.service.retention_archive import archive_tree, check_archive
from tests.cli.processes import SAMPLES
from tests.cli.test_backup import Said
from tests.postgres.server import shared, url_of

FOR_EVER = 4e9
LARGE = {"prompt": "é" * 200_000}


@pytest.fixture(params=["file", "sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ag(tmp_path, backend, monkeypatch, capsys) -> Callable[..., Said]:
    """Runs command lines beside the gateway."""
    monkeypatch.setenv("ABSTRACTGATEWAY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ABSTRACTGATEWAY_FLOWS_DIR", str(SAMPLES))
    monkeypatch.setenv("ABSTRACTGATEWAY_STORE_BACKEND", backend)
    if backend == "postgres":
        monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", url_of(tmp_path))

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(["retention", *arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def gateway(tmp_path: Path, backend: str) -> Iterator[GatewayService]:
    config = GatewayConfig(
        data_dir=tmp_path / "data",
        flows_dir=SAMPLES,
        store_backend=backend,
        database_url=url_of(tmp_path) if backend == "postgres" else None,
        max_inline_bytes=10_000,
        auth_tokens=("t",),
    )
    with GatewayService.open(config) as opened:
        yield opened


def ended(gateway: GatewayService, **request: object) -> str:
    run_id = gateway.runs.start(bundle_id="hello", **request)
    list(gateway.ledger.follow(run_id))
    return run_id


def archives(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.tar.gz*"))


def test_nothing_is_removed_unless_it_is_applied(ag, gateway, tmp_path):
    run_id = ended(gateway)

    said = ag("--older-than", "0s")

    assert said.code == 0
    assert run_id in said.out
    assert "nothing was removed" in said.out
    assert gateway.runs.get(run_id)["status"] == "completed"
    assert not (tmp_path / "data" / "archive").exists()


def test_ended_runs_are_archived_and_then_unknown_to_a_gateway_that_goes_on(ag, gateway, tmp_path):
    run_id, asking = ended(gateway, input_data=LARGE), gateway.runs.start(bundle_id="ask")
    stored = gateway.stores.runs.open(run_id)
    records = list(gateway.stores.ledger.read(run_id, 0, 1000).records)
    artifacts = gateway.stores.artifacts.list_by_run(run_id)

    said = ag("--older-than", "0s", "--apply", "--json")

    told = json.loads(said.out)
    assert (said.code, [tree["run_id"] for tree in told["trees"]]) == (0, [run_id])
    with pytest.raises(NotFound):
        gateway.runs.get(run_id)
    assert gateway.runs.get(asking)["status"] in ("running", "waiting")
    assert artifacts
    assert gateway.stores.artifacts.list_by_run(run_id) == []
    with tarfile.open(tmp_path / "data" / "archive" / f"{run_id}.tar.gz") as tar:
        kept = tar.extractfile(f"ledgers/{run_id}.jsonl").read().splitlines()
        state = json.loads(tar.extractfile(f"runs/{run_id}.json").read())
        history = json.loads(tar.extractfile("history.json").read())
        blob = tar.extractfile(f"artifacts/{artifacts[0].artifact_id}.bin").read()
    assert kept == records
    assert verify_chain([json.loads(record) for record in kept]).ok
    assert state == stored.state.to_dict()
    assert history["root_run_id"] == run_id
    assert len(blob) == artifacts[0].size_bytes


def test_runs_that_go_on_are_left_and_so_are_young_ones(ag, gateway):
    young, asking = ended(gateway), gateway.runs.start(bundle_id="ask")

    assert "No run is that old" in ag("--older-than", "1h", "--apply").out
    ag("--older-than", "0s", "--apply", "--status", "failed")

    assert gateway.runs.get(young)["status"] == "completed"
    assert gateway.runs.get(asking)["status"] in ("running", "waiting")


def test_a_key_whose_run_was_removed_starts_no_second_one(ag, gateway):
    run_id = ended(gateway, idempotency_key="k-1")
    assert gateway.runs.start(bundle_id="hello", idempotency_key="k-1") == run_id

    ag("--older-than", "0s", "--apply")

    with pytest.raises(Conflict) as refused:
        gateway.runs.start(bundle_id="hello", idempotency_key="k-1")
    assert refused.value.code == "run_removed"
    assert ended(gateway, idempotency_key="k-2")


def test_artifacts_that_another_run_refers_to_stay(ag, gateway):
    first = ended(gateway, input_data=LARGE)
    kept = gateway.stores.artifacts.store(b"a picture", run_id=first, content_type="image/png")
    unused = gateway.stores.artifacts.store(b"another picture", run_id=first, content_type="image/png")
    gateway.runs.start(bundle_id="ask", input_data={"picture": {"$artifact": kept.artifact_id}})

    said = ag("--older-than", "0s", "--apply")

    assert said.code == 0, said.err
    assert gateway.stores.artifacts.load(kept.artifact_id) == b"a picture"
    assert gateway.stores.artifacts.get_metadata(unused.artifact_id) is None


def lose_bytes(backend: str, tmp_path: Path, blob_id: str) -> None:
    if backend == "postgres":
        lost = f"DELETE FROM abstractgateway.blob_pieces WHERE blob_id = '{blob_id}'"
        shared().execute(lost, url_of(tmp_path).rpartition("/")[2])
    else:
        (tmp_path / "data" / "artifacts" / "blobs" / f"{blob_id}.bin").unlink()


def test_what_cannot_be_archived_is_not_removed(gateway, backend, tmp_path):
    run_id = ended(gateway, input_data=LARGE)
    artifact = gateway.stores.artifacts.list_by_run(run_id)[0]
    lose_bytes(backend, tmp_path, artifact.blob_id)

    removed = remove_trees(gateway.stores, old_trees(gateway.stores, before=FOR_EVER), tmp_path / "archive")

    assert removed.trees == []
    assert list(removed.left) == [run_id]
    assert gateway.runs.get(run_id)["status"] == "completed"
    assert archives(tmp_path / "archive") == []


def test_a_run_that_changes_while_it_is_archived_is_left(gateway, tmp_path):
    run_id = ended(gateway)
    trees = list(old_trees(gateway.stores, before=FOR_EVER))
    gateway.stores.runs.save(gateway.stores.runs.load(run_id))

    removed = remove_trees(gateway.stores, trees, tmp_path / "archive")

    assert "changed meanwhile" in removed.left[run_id]
    assert gateway.stores.runs.row(run_id) is not None


def test_what_an_interrupted_retention_left_is_removed_by_the_next(gateway, tmp_path, monkeypatch):
    run_id = ended(gateway, input_data=LARGE)
    archive = tmp_path / "archive"

    def die(*arguments: object, **named: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(gateway.stores.artifacts), "delete_by_run", die)
        remove_trees(gateway.stores, old_trees(gateway.stores, before=FOR_EVER), archive)
    assert gateway.stores.artifacts.list_by_run(run_id)

    removed = remove_trees(gateway.stores, [], archive)

    assert removed.artifacts > 0
    assert gateway.stores.artifacts.list_by_run(run_id) == []


def test_an_archive_that_was_damaged_says_so(gateway, tmp_path):
    ended(gateway)
    (tree,) = old_trees(gateway.stores, before=FOR_EVER)
    states = [gateway.stores.runs.open(row.run_id).state for row in tree.rows]
    path = archive_tree(gateway.stores, tree.rows, states, [], tmp_path)
    again = archive_tree(gateway.stores, tree.rows, states, [], tmp_path)
    content = path.read_bytes()

    path.write_bytes(content[: len(content) // 2])

    assert again != path
    assert check_archive(again)["root_run_id"] == tree.root.run_id
    with pytest.raises(Exception, match="cannot be archived"):
        check_archive(path)


@pytest.mark.parametrize("arguments", [(), ("--older-than", "soon"), ("--older-than", "1d", "--status", "running")])
def test_a_command_line_that_is_wrong_is_refused(ag, arguments):
    with pytest.raises(SystemExit) as refused:
        ag(*arguments)

    assert refused.value.code == 2


def test_one_retention_at_a_time_removes_runs_of_the_same_stores(ag, gateway, tmp_path, monkeypatch):
    """The others are told, wherever they archive; what they would have removed is left to the first."""
    run_ids = [ended(gateway, input_data=LARGE) for _ in range(3)]
    second = []

    def meanwhile(*arguments: object, **named: object) -> Removed:
        second.append(ag("--older-than", "0s", "--apply", "--archive", str(tmp_path / "elsewhere")))
        return remove_trees(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr("abstractgateway.cli.retention.remove_trees", meanwhile)
        first = ag("--older-than", "0s", "--apply", "--json")

    assert (second[0].code, "another retention" in second[0].err) == (1, True)
    assert {tree["run_id"] for tree in json.loads(first.out)["trees"]} == set(run_ids)
    assert archives(tmp_path / "elsewhere") == []
    assert "No run is that old" in ag("--older-than", "0s", "--apply").out


def test_retentions_that_follow_each_other_closely_archive_each_run_once(ag, gateway, tmp_path, monkeypatch):
    """A second one that has listed the runs before the first removed them leaves what is gone, and fails in nothing."""
    run_ids = [ended(gateway, input_data=LARGE) for _ in range(2)]
    listed = list(old_trees(gateway.stores, before=FOR_EVER))
    ag("--older-than", "0s", "--apply")

    again = remove_trees(gateway.stores, listed, tmp_path / "elsewhere")

    assert (again.trees, set(again.left)) == ([], set(run_ids))
    assert archives(tmp_path / "elsewhere") == []
    assert len(archives(tmp_path / "data" / "archive")) == 2

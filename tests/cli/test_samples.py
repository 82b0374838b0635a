"""The bundles that come with the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from abstractgateway import GatewayConfig, GatewayService
from tests.commands import Said, said_by, without_settings


@pytest.fixture
def ag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs command lines in an empty directory, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    without_settings(monkeypatch)
    return lambda *arguments: said_by(capsys, *arguments)


def test_the_samples_are_written_where_a_gateway_looks_and_can_be_run(ag, tmp_path):
    said = ag("bundle", "sample")

    assert (said.code, said.out.splitlines()[:2]) == (0, ["wrote flows/ask@0.1.0.flow", "wrote flows/hello@0.1.0.flow"])
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path / "data", flows_dir=tmp_path / "flows")
    with GatewayService.open(config) as gateway:
        run_id = gateway.runs.start(bundle_id="hello", input_data={"prompt": "World"})
        list(gateway.ledger.follow(run_id))
        assert gateway.runs.get(run_id)["output"]["response"] == "Hello, World"


def test_writing_them_again_changes_nothing(ag):
    before = json.loads(ag("bundle", "sample", "here", "--json").out)

    assert json.loads(ag("bundle", "sample", "here", "--json").out) == before
    assert ag("bundle", "list", "here").code == 0


def test_what_is_there_under_their_names_stays(ag, tmp_path):
    (tmp_path / "flows").mkdir()
    mine = tmp_path / "flows" / "ask@0.1.0.flow"
    mine.write_bytes(b"mine")

    said = ag("bundle", "sample")

    assert said.code == 1 and "is something else" in said.err
    assert mine.read_bytes() == b"mine"


def test_a_place_that_is_no_directory_is_told_of(ag, tmp_path):
    (tmp_path / "file").write_text("")

    said = ag("bundle", "sample", "file")

    assert (said.code, said.err) == (1, "abstractgateway: directory: 'file' is not a directory\n")

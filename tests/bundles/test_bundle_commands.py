from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.cli import main


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    path = tmp_path / "root.json"
    start = {"id": "s", "type": "on_flow_start", "data": {"outputs": [{"id": "exec-out", "type": "execution"}]}}
    path.write_text(json.dumps({"id": "root", "name": "Root", "nodes": [start], "edges": []}))
    return path


def test_pack_writes_a_bundle_that_list_and_inspect_show(flow: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "bundles" / "my.flow"

    codes = [
        main(["bundle", "pack", str(flow), "--out", str(target), "--bundle-id", "my", "--bundle-version", "1.0.0"]),
        main(["bundle", "list", str(target.parent)]),
        main(["bundle", "inspect", str(target)]),
    ]
    lines = capsys.readouterr().out.splitlines()

    assert codes == [0, 0, 0]
    assert lines[0] == f"packed 1 flows into {target}"
    assert lines[1] == "my@1.0.0  Root  (my.flow)"
    shown = json.loads("\n".join(lines[2:]))
    assert (shown["bundle_ref"], shown["flows"]["root"]["nodes"]) == ("my@1.0.0", 1)


def test_what_was_packed_and_checked_is_told_as_json(flow: Path, tmp_path: Path, capsys: Any) -> None:
    target, bad = tmp_path / "my.flow", tmp_path / "bad.flow"
    bad.write_bytes(b"no zip")

    packed = main(["bundle", "pack", str(flow), "--out", str(target), "--json"])
    told = json.loads(capsys.readouterr().out)
    validated = main(["bundle", "validate", str(target), str(bad), "--json"])
    good, wrong = json.loads(capsys.readouterr().out)

    assert (packed, validated) == (0, 1)
    assert (told["file"], told["flows"]) == (str(target), ["root"])
    assert (good["path"], good["error"]) == (str(target), None)
    assert (wrong["path"], wrong["warnings"]) == (str(bad), [])
    assert "zip" in wrong["error"]


def test_pack_names_the_file_after_the_bundle(flow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    code = main(["bundle", "pack", str(flow)])

    assert (code, (tmp_path / "root@0.0.0.flow").is_file()) == (0, True)


def test_pack_packs_a_directory_with_the_tree_of_a_bundle(pack: Any, flow: Path, tmp_path: Path, capsys: Any) -> None:
    directory = tmp_path / "tree"
    (directory / "flows").mkdir(parents=True)
    (directory / "flows" / "root.json").write_bytes(flow.read_bytes())
    manifest = {
        "bundle_format_version": "1",
        "bundle_id": "tree",
        "entrypoints": [{"flow_id": "root"}],
        "flows": {"root": "flows/root.json"},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))

    code = main(["bundle", "pack", str(directory), "--out", str(tmp_path / "t.flow")])
    main(["bundle", "list", str(tmp_path / "t.flow")])

    assert code == 0
    assert "tree@0.0.0" in capsys.readouterr().out


def test_validate_says_what_can_be_run(flow: Path, pack: Any, capsys: Any) -> None:
    code = main(["bundle", "validate", str(flow), str(pack())])

    assert code == 0
    assert capsys.readouterr().out.count("can be run") == 2


def test_validate_prints_every_problem_of_every_file(flow: Path, pack: Any, capsys: Any) -> None:
    odd = {"id": "root", "nodes": [{"id": "a", "type": "odd"}, {"id": "b", "type": "odder"}, {"id": "c", "type": "if"}]}
    bad = pack(members={"flows/root.json": odd})
    flow.write_text("{")

    code = main(["bundle", "validate", str(bad), str(flow), "nowhere.flow"])
    told = capsys.readouterr().err

    assert code == 1
    assert "node 'a' has the type 'odd'" in told and "node 'b' has the type 'odder'" in told
    assert "not valid JSON" in told and "'nowhere.flow' cannot be read" in told


def test_list_shows_what_cannot_be_used(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "broken.flow").write_text("no zip")

    code = main(["bundle", "list", str(tmp_path)])

    assert code == 0
    assert "broken.flow is not usable" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["pack", "nothing.json"], ["inspect", "nothing.flow"], ["validate", "nothing.json"]]
)
def test_a_file_that_is_not_there_is_told(command: list[str], capsys: Any) -> None:
    code = main(["bundle", *command])

    assert code == 1
    assert "cannot be read" in capsys.readouterr().err

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.config import SETTINGS
from abstractgateway.errors import Invalid
from abstractgateway.testing import GatewayHarness
from abstractgateway.testing.harness import RunOutcome
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]


def reading() -> Json:
    nodes = [
        node("s", "on_flow_start", "", "> file_path"),
        node("r", "read_file", "> file_path", "> content"),
        node("e", "on_flow_end", "> content"),
    ]
    return flow(nodes, ["s > r", "r > e", "s/file_path -> r/file_path", "r/content -> e/content"])


def writing() -> Json:
    nodes = [
        node("s", "on_flow_start", "", "> file_path content"),
        node("w", "write_file", "> file_path content", "> bytes file_path"),
        node("e", "on_flow_end", "> bytes file_path"),
    ]
    edges = ["s/file_path -> w/file_path", "s/content -> w/content", "w/bytes -> e/bytes"]
    return flow(nodes, ["s > w", "w > e", *edges, "w/file_path -> e/file_path"])


def both() -> Json:
    """Write in this run, read in a child of it."""
    nodes = [
        node("s", "on_flow_start", "", "> file_path content"),
        node("w", "write_file", "> file_path content", "> file_path"),
        node("sub", "subflow", "> file_path", "> content", subflowId="read"),
        node("e", "on_flow_end", "> content"),
    ]
    edges = ["s/file_path -> w/file_path", "s/content -> w/content", "w/file_path -> sub/file_path"]
    return flow(nodes, ["s > w", "w > sub", "sub > e", *edges, "sub/content -> e/content"])


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def harness(tmp_path: Path, shared: Path) -> GatewayHarness:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path / "data", workspace_dir=shared)
    return GatewayHarness(flows={"read": reading(), "write": writing(), "both": both()}, config=config)


def read(harness: GatewayHarness, path: str, **variables: Any) -> RunOutcome:
    return harness.run("read", {"file_path": path, "workspace_root": ".", **variables})


def write(harness: GatewayHarness, path: str, content: Any, **variables: Any) -> RunOutcome:
    return harness.run("write", {"file_path": path, "content": content, "workspace_root": ".", **variables})


def content_of(outcome: RunOutcome) -> Any:
    assert outcome.status == "completed", outcome.error
    return (outcome.output or {}).get("content")


@pytest.mark.parametrize(
    ("name", "text", "content"),
    [
        ("a.txt", "hello ü", "hello ü"),
        ("a.txt", "", ""),
        ("a.txt", "{not json", "{not json"),
        ("a.txt", ' {"a": 1}', {"a": 1}),
        ("a.md", "[1, 2]", [1, 2]),
        ("a.json", '"text"', "text"),
        ("A.JSON", "null", None),
    ],
)
def test_a_file_is_read_as_text_or_as_the_value_it_holds(
    harness: GatewayHarness, shared: Path, name: str, text: str, content: Any
) -> None:
    (shared / name).write_text(text, encoding="utf-8")

    assert content_of(read(harness, name)) == content


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", "hello", "hello"),
        ("a.txt", None, ""),
        ("a.txt", 5, "5"),
        ("a.txt", {"a": "ü"}, '{\n  "a": "ü"\n}'),
        ("deep/er/a.txt", "x", "x"),
        ("a.json", '{"a":1}', '{\n  "a": 1\n}\n'),
        ("a.json", [1], "[\n  1\n]\n"),
    ],
)
def test_a_file_is_written_as_text_or_as_indented_json(
    harness: GatewayHarness, shared: Path, name: str, content: Any, text: str
) -> None:
    outcome = write(harness, name, content)

    assert outcome.output == {"success": True, "bytes": len(text.encode()), "file_path": name}
    assert (shared / name).read_text(encoding="utf-8") == text


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(harness: GatewayHarness, shared: Path) -> None:
    (shared / "a.txt").write_text("a longer text than what comes")

    write(harness, "a.txt", "short")

    assert {path.name: path.read_text() for path in shared.iterdir()} == {"a.txt": "short"}


def test_what_is_read_and_written_is_an_effect_in_the_ledger(harness: GatewayHarness) -> None:
    outcome = write(harness, "a.txt", "x")

    effects = [(record["effect"]["type"], record["status"]) for record in outcome.records if record.get("effect")]
    assert effects[:2] == [("write_file", "started"), ("write_file", "completed")]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../outside.txt", "path escapes workspace root"),
        ("/etc/passwd", "path is outside workspace roots"),
        ("gone.txt", "File not found: 'gone.txt'"),
        ("no/where.txt", "File not found"),
        ("folder", "is not a file"),
        ("link.txt", "leads through a link"),
        ("way/secret.txt", "leads through a link"),
        ("plain.txt/x", "leads through a link or a file"),
        ("binary.txt", "no UTF-8 text"),
        ("broken.json", "not valid JSON"),
        ("pipe", "is not a file"),
        ("  ", "name the file"),
    ],
)
def test_what_cannot_be_read_fails_the_run_and_says_why(
    harness: GatewayHarness, shared: Path, tmp_path: Path, path: str, why: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (shared / "folder").mkdir()
    (shared / "plain.txt").write_text("plain")
    (shared / "link.txt").symlink_to(outside / "secret.txt")
    (shared / "way").symlink_to(outside)
    (shared / "binary.txt").write_bytes(b"\xff\xfe")
    (shared / "broken.json").write_text("{")
    os.mkfifo(shared / "pipe")

    outcome = read(harness, path)

    assert outcome.status == "failed"
    assert why in str(outcome.error)
    assert str(tmp_path) not in str(outcome.error)


@pytest.mark.parametrize("path", ["../x", "way/x", "link.txt", "folder", "/etc/x"])
def test_what_may_not_be_written_fails_the_run_and_changes_nothing(
    harness: GatewayHarness, shared: Path, tmp_path: Path, path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old.txt").write_text("old")
    (shared / "folder").mkdir()
    (shared / "link.txt").symlink_to(outside / "old.txt")
    (shared / "way").symlink_to(outside)

    outcome = write(harness, path, "new")

    assert outcome.status == "failed"
    assert {item.name: item.read_text() for item in outside.iterdir()} == {"old.txt": "old"}
    assert not (tmp_path / "x").exists()


def test_a_workspace_that_is_reached_through_a_link_is_refused(
    harness: GatewayHarness, shared: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.txt").write_text("secret")
    (shared / "way").symlink_to(tmp_path / "outside")

    outcome = read(harness, "a.txt", workspace_root="way")

    assert "leads through a link" in str(outcome.error)


def test_a_file_that_is_too_large_is_refused(
    harness: GatewayHarness, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abstractgateway.tools.workspace_files.MAX_FILE_BYTES", 10)
    (shared / "a.txt").write_text("x" * 11)

    assert "larger than 10 bytes" in str(read(harness, "a.txt").error)


def test_a_run_without_a_workspace_has_one_of_its_own_that_its_children_share(
    harness: GatewayHarness, tmp_path: Path
) -> None:
    outcome = harness.run("both", {"file_path": "notes/a.txt", "content": "mine"})
    other = harness.run("read", {"file_path": "notes/a.txt"})

    assert content_of(outcome) == "mine"
    assert (tmp_path / "data" / "workspaces" / outcome.run_id / "notes" / "a.txt").read_text() == "mine"
    assert "File not found" in str(other.error)


def test_a_workspace_that_the_operator_does_not_serve_is_not_given(harness: GatewayHarness, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.txt").write_text("secret")

    outcome = read(
        harness, "a.txt", workspace_root=str(tmp_path / "outside"), workspace_access_mode="all_except_ignored"
    )

    assert "File not found" in str(outcome.error)


def test_mounts_are_lines_of_names_and_directories() -> None:
    environ = {"ABSTRACTGATEWAY_WORKSPACE_MOUNTS": "# team\nnotes=/mnt/notes\n\nother = /mnt/other\n"}

    assert GatewayConfig.from_env(environ).workspace_mounts == (("notes", "/mnt/notes"), ("other", "/mnt/other"))


@pytest.mark.parametrize("line", ["notes", "notes=relative", "no/te=/x", "=/x", f"{'n' * 33}=/x"])
def test_a_mount_that_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(Invalid, match="is not name=/directory"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_WORKSPACE_MOUNTS": line})


def test_the_settings_of_workspaces_are_in_the_table() -> None:
    assert {"workspace_dir", "workspace_mounts", "client_workspace_scope"} <= {row.field for row in SETTINGS}


def test_json_that_is_not_json_is_not_written(harness: GatewayHarness, shared: Path) -> None:
    outcome = write(harness, "a.json", "{")

    assert "content" in str(outcome.error)
    assert list(shared.iterdir()) == []


def test_a_written_json_file_is_read_back_as_its_value(harness: GatewayHarness) -> None:
    write(harness, "a.json", json.dumps({"deep": [1, None, "ü"]}))

    assert content_of(read(harness, "a.json")) == {"deep": [1, None, "ü"]}


@pytest.mark.parametrize(("flow_id", "content"), [("write", "mine"), ("read", "old")])
def test_a_crash_before_the_outcome_is_known_asks_nobody(
    harness: GatewayHarness, shared: Path, flow_id: str, content: str
) -> None:
    """What is read changes nothing, and a file that is replaced again by the same text is the same file."""
    (shared / "a.txt").write_text("old")
    run_id = harness.start(flow_id, {"file_path": "a.txt", "content": "mine", "workspace_root": "."})
    interrupted = harness.runtime.open_execution(harness.host.workflow(flow_id), run_id)
    interrupted.advance(10)
    harness.stores.commit(interrupted.to_commit())

    harness.runner.run_until_idle()

    outcome = harness.outcome(run_id)
    assert interrupted.pending is not None
    assert outcome.status == "completed"
    assert (shared / "a.txt").read_text() == content

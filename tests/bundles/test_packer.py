from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.bundles import open_bundle
from abstractgateway.bundles.naming import clean_bundle_id, clean_version
from abstractgateway.bundles.packer import BundleWishes, pack_bundle, pack_directory
from abstractgateway.errors import Invalid

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "flows" / "visualflows"


def drawn(flow_id: str, *subflows: str, reached: bool = True, **fields: Any) -> dict[str, Any]:
    pins = {"inputs": [{"id": "exec-in", "type": "execution"}], "outputs": [{"id": "exec-out", "type": "execution"}]}
    nodes = [{"id": "start", "type": "on_flow_start", "data": {"outputs": pins["outputs"]}}]
    edges = []
    for number, subflow in enumerate(subflows):
        nodes.append({"id": f"s{number}", "type": "subflow", "data": {**pins, "subflowId": subflow}})
        before = f"s{number - 1}" if number else "start"
        if reached:
            edges.append(
                {"source": before, "sourceHandle": "exec-out", "target": f"s{number}", "targetHandle": "exec-in"}
            )
    return {"id": flow_id, "nodes": nodes, "edges": edges, **fields}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def save(document: Any, name: str | None = None) -> Path:
        path = tmp_path / f"{name or document['id']}.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document, indent=3))
        return path

    return save


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_all_flows_that_are_run_are_packed_whatever_their_files_are_called(write: Any) -> None:
    root = write(drawn("root", "child", "root"))
    write(drawn("child", "grandchild"), "some other name")
    write(drawn("grandchild"), "x")
    write(drawn("stranger"))

    packed = pack_bundle(root)

    assert sorted(members(packed.content)) == [
        "flows/child.json",
        "flows/grandchild.json",
        "flows/root.json",
        "manifest.json",
    ]


def test_a_packed_bundle_can_be_opened(write: Any, tmp_path: Path) -> None:
    root = write(drawn("root", name=" My Flow ", description="What it does", interfaces=["i.v1"]))
    target = tmp_path / "out.flow"

    target.write_bytes(pack_bundle(root, wishes=BundleWishes(bundle_id="mine", bundle_version="1.2.0")).content)
    bundle = open_bundle(target)

    (entry,) = bundle.manifest.entrypoints
    assert (bundle.ref, bundle.manifest.default_entrypoint) == ("mine@1.2.0", "root")
    assert (entry.flow_id, entry.name, entry.description, entry.interfaces) == (
        "root",
        "My Flow",
        "What it does",
        ("i.v1",),
    )


def test_flow_files_are_packed_byte_for_byte(write: Any) -> None:
    root = write('{"id": "root",   "nodes": [{"id": "s", "type": "on_flow_start"}], "odd": "é\\u00e9"}\r\n', "root")

    packed = pack_bundle(root)

    assert members(packed.content)["flows/root.json"] == root.read_bytes()


def test_packing_again_gives_the_same_bytes_whenever_and_wherever(write: Any, tmp_path: Path) -> None:
    root = write(drawn("root", "child", updated_at="2026-01-02T03:04:05Z"))
    child = write(drawn("child", created_at="2026-02-01T00:00:00+00:00"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    first = pack_bundle(root)
    for path in (root, child):
        (elsewhere / path.name).write_bytes(path.read_bytes())
        os.utime(elsewhere / path.name, (1, 1))
    second = pack_bundle(elsewhere / "root.json")

    assert first.content == second.content
    assert first.manifest["created_at"] == "2026-02-01T00:00:00+00:00"


def test_of_two_files_with_one_id_the_one_named_after_it_is_taken(write: Any) -> None:
    root = write(drawn("root", "child"))
    write(drawn("child", name="copy"), "a copy")
    write(drawn("child", name="right"))

    packed = pack_bundle(root)

    assert json.loads(members(packed.content)["flows/child.json"])["name"] == "right"


def test_everything_that_is_missing_is_named(write: Any) -> None:
    root = write(drawn("root", "b", "a", "b"))

    with pytest.raises(Invalid, match=r"the flows \['a', 'b'\] are needed"):
        pack_bundle(root)


def test_a_subflow_that_is_never_reached_is_not_needed(write: Any) -> None:
    root = write(drawn("root", "missing", reached=False))

    packed = pack_bundle(root)

    assert list(packed.manifest["flows"]) == ["root"]
    assert any("never reached" in text for text in packed.warnings)


def test_more_entrypoints_bring_their_flows(write: Any) -> None:
    root = write(drawn("root"))
    write(drawn("second", "child"))
    write(drawn("child"))

    packed = pack_bundle(root, wishes=BundleWishes(entrypoints=("second", "root"), default_entrypoint="second"))

    assert [item["flow_id"] for item in packed.manifest["entrypoints"]] == ["second", "root"]
    assert (packed.manifest["default_entrypoint"], sorted(packed.manifest["flows"])) == (
        "second",
        ["child", "root", "second"],
    )


def test_a_default_entrypoint_must_be_an_entrypoint(write: Any) -> None:
    root = write(drawn("root"))

    with pytest.raises(Invalid, match="default_entrypoint"):
        pack_bundle(root, wishes=BundleWishes(default_entrypoint="other"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not valid JSON"),
        ("[]", "no flow"),
        ('{"nodes": []}', "no 'id'"),
        ('{"id": "root", "nodes": []}', "no execution node"),
    ],
)
def test_a_file_that_is_no_flow_is_refused(write: Any, content: str, why: str) -> None:
    root = write(content, "root")

    with pytest.raises(Invalid, match=why):
        pack_bundle(root)


def test_a_flow_that_does_not_compile_is_not_packed(write: Any) -> None:
    document = drawn("root")
    document["nodes"].append({"id": "odd", "type": "frobnicate"})
    root = write(document)

    with pytest.raises(Invalid, match="'odd' has the type 'frobnicate'"):
        pack_bundle(root)


@pytest.mark.parametrize(
    ("bundle_id", "version", "proposal"),
    [("a b/c", "1", "use 'a-b-c'"), ("a.b", "1", "use 'a-b'"), ("a", "1 0", "use '1-0'"), ("é", "1", "use letters")],
)
def test_a_name_that_cannot_be_used_is_refused_with_a_proposal(
    write: Any, bundle_id: str, version: str, proposal: str
) -> None:
    root = write(drawn("root"))

    with pytest.raises(Invalid, match=proposal):
        pack_bundle(root, wishes=BundleWishes(bundle_id=bundle_id, bundle_version=version))


@pytest.mark.parametrize(
    ("text", "bundle_id", "version"),
    [
        ("a b/c", "a-b-c", "a-b-c"),
        ("a.b", "a-b", "a.b"),
        ("..", "", ".."),
        ("a@1", "a-1", "a-1"),
        (" --x--y ", "x-y", "x-y"),
    ],
)
def test_names_are_cleaned_as_the_editor_does(text: str, bundle_id: str, version: str) -> None:
    assert (clean_bundle_id(text), clean_version(text)) == (bundle_id, version)


def test_a_directory_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"manifest\.json"):
        pack_directory(tmp_path)


def test_a_directory_with_a_link_that_leads_out_of_it_is_not_packed(manifest: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    tree = tmp_path / "tree"
    (tree / "flows").mkdir(parents=True)
    (tree / "manifest.json").write_text(json.dumps(manifest()))
    (tree / "flows" / "root.json").write_text(json.dumps(drawn("root")))
    (tree / "note.txt").symlink_to(secret)

    with pytest.raises(Invalid, match=r"'note\.txt' leads out of the bundle"):
        pack_directory(tree)


def test_a_directory_whose_flows_do_not_compile_is_not_packed(manifest: Any, tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest()))
    (tmp_path / "flows" / "root.json").write_text('{"id": "root", "nodes": [{"id": "n", "type": "odd"}]}')

    with pytest.raises(Invalid, match="node 'n' has the type 'odd'"):
        pack_directory(tmp_path)


def test_real_flows_are_packed_with_all_that_they_run() -> None:
    if not SHARED.is_dir():
        pytest.skip("the shared drawings are not here")

    packed = pack_bundle(SHARED / "benchmark-agentic-react-run.json")

    assert sorted(packed.manifest["flows"]) == ["be0a6c02", "be0a6c04"]

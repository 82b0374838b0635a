from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.hosts import BundleHost

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "flows" / "bundles"

EXEC = {"id": "exec-out", "type": "execution"}


def _start(**data: Any) -> dict[str, Any]:
    return {"id": "s", "type": "on_flow_start", "data": {"outputs": [EXEC], **data}}


def _document(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"id": "whatever", "nodes": [_start(), *nodes], "edges": []}


def _refusal(
    host: BundleHost, bundle_id: str | None = None, bundle_version: str | None = None, flow_id: str | None = None
) -> str:
    with pytest.raises((NotFound, Invalid)) as caught:
        host.resolve(bundle_id=bundle_id, bundle_version=bundle_version, flow_id=flow_id)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.fixture
def several(pack: Any, tmp_path: Path) -> BundleHost:
    pack("ask1.flow")
    pack(
        "ask2.flow",
        bundle_version="0.0.2",
        entrypoints=[{"flow_id": "root"}, {"flow_id": "side"}],
        flows={"root": "r", "side": "s"},
    )
    pack(
        "def.flow",
        bundle_id="def",
        entrypoints=[{"flow_id": "a"}, {"flow_id": "b"}],
        default_entrypoint="b",
        flows={"a": "a", "b": "b", "inner": "c"},
    )
    return BundleHost(tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("ask", "0.0.1", None), "ask@0.0.1:root"),
        (("ask@0.0.1", None, ""), "ask@0.0.1:root"),
        ((" ask@0.0.1 ", "0.0.1", "root"), "ask@0.0.1:root"),
        (("ask", None, "root"), "ask@0.0.2:root"),
        ((None, None, "ask:side"), "ask@0.0.2:side"),
        ((None, None, "ask@0.0.1:root"), "ask@0.0.1:root"),
        (("ask", None, "ask@0.0.1:root"), "ask@0.0.1:root"),
        ((None, "0.0.1", "ask:root"), "ask@0.0.1:root"),
        (("def", None, None), "def@0.0.1:b"),
        (("def", None, "inner"), "def@0.0.1:inner"),
    ],
)
def test_a_request_names_a_workflow_in_many_ways(several: BundleHost, given: Any, expected: str) -> None:
    bundle_id, bundle_version, flow_id = given

    assert several.resolve(bundle_id=bundle_id, bundle_version=bundle_version, flow_id=flow_id) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None, None), "Invalid: flow_id is required (or provide bundle_id to start a bundle entrypoint)"),
        (("nope", None, None), "NotFound: Bundle not found"),
        (("ask", "9", None), "NotFound: Bundle not found"),
        (("nope", None, "root"), "NotFound: Flow 'root' not found"),
        (("ask", None, "zzz"), "NotFound: Flow 'zzz' not found"),
        ((None, None, "ask:zzz"), "NotFound: Flow 'ask:zzz' not found"),
        ((None, None, "other:root"), "NotFound: Flow 'other:root' not found"),
        (("ask@0.0.1", "0.0.2", None), "Invalid: bundle_version conflicts with bundle_id"),
        (("ask", None, None), "Invalid: Bundle 'ask@0.0.2' has 2 entrypoints; specify flow_id (root, side)"),
        (("def", None, "ask:root"), "Invalid: flow_id bundle prefix does not match bundle_id"),
        ((None, "0.0.2", "ask@0.0.1:root"), "Invalid: flow_id version does not match bundle_version"),
        (("ask@0.0.2", None, "ask@0.0.1:root"), "Invalid: flow_id version does not match bundle_id"),
        ((None, None, "root"), "Invalid: bundle_id is required when multiple bundles are loaded (ask, def)"),
    ],
)
def test_a_request_that_fits_nothing_is_refused(several: BundleHost, given: Any, said: str) -> None:
    assert _refusal(several, *given).startswith(said)


def test_the_only_bundle_is_the_default_one(pack: Any, tmp_path: Path) -> None:
    pack()
    host = BundleHost(tmp_path)

    assert host.resolve(bundle_id=None, bundle_version=None, flow_id="root") == "ask@0.0.1:root"
    assert host.list_bundles()["default_bundle_id"] == "ask"


def test_workflows_are_found_by_full_and_by_older_ids(several: BundleHost) -> None:
    assert several.workflow("ask@0.0.1:root").workflow_id == "ask@0.0.1:root"
    assert several.workflow("ask:root").workflow_id == "ask@0.0.2:root"


def test_an_unknown_workflow_is_refused_with_some_that_exist(several: BundleHost) -> None:
    with pytest.raises(NotFound, match="no workflow 'x'; known: 'ask@0.0.1:root', 'ask@0.0.2:root'"):
        several.workflow("x")


def test_bundles_are_listed_in_the_shape_that_clients_read(pack: Any, tmp_path: Path) -> None:
    pack("ask.flow")
    pack("wrong.flow", bundle_id="wrong", flows={})

    listed = BundleHost(tmp_path).list_bundles()

    assert listed == {
        "items": [
            {
                "bundle_id": "ask",
                "bundle_version": "0.0.1",
                "bundle_ref": "ask@0.0.1",
                "created_at": "2026-01-08T00:00:00+00:00",
                "default_entrypoint": None,
                "entrypoints": [
                    {
                        "flow_id": "root",
                        "name": "root",
                        "description": "desc root",
                        "interfaces": ["i"],
                        "deprecated": False,
                        "deprecated_at": None,
                        "deprecated_reason": None,
                    }
                ],
            }
        ],
        "default_bundle_id": "ask",
        "load_errors": [
            {"file": "wrong.flow", "bundle_ref": "wrong@0.0.1", "error": "manifest: 'flows' lists no flow"}
        ],
    }


def test_the_latest_versions_or_all_are_listed(several: BundleHost) -> None:
    latest = [item["bundle_ref"] for item in several.list_bundles()["items"]]
    every = [item["bundle_ref"] for item in several.list_bundles(all_versions=True)["items"]]

    assert latest == ["ask@0.0.2", "def@0.0.1"]
    assert every == ["ask@0.0.1", "ask@0.0.2", "def@0.0.1"]
    assert several.list_bundles()["default_bundle_id"] is None


def test_one_bundle_is_shown_with_inputs_and_nodes(pack: Any, tmp_path: Path) -> None:
    pins = [
        EXEC,
        {"id": "prompt", "label": "Prompt", "type": "string"},
        {"id": "n"},
        {"id": "exec"},
        {"label": "no id"},
    ]
    document = {
        "id": "root",
        "nodes": [
            _start(outputs=pins, pinDefaults={"n": None}, label="Begin", nodeType="on_flow_start", headerColor="#fff")
        ],
        "edges": [],
    }
    pack(members={"flows/root.json": document}, metadata={"k": "v"})

    shown = BundleHost(tmp_path).get_bundle("ask@0.0.1")

    assert shown["flows"] == ["root"]
    assert shown["metadata"] == {"k": "v"}
    assert shown["entrypoints"] == [
        {
            "flow_id": "root",
            "workflow_id": "ask@0.0.1:root",
            "name": "root",
            "description": "desc root",
            "interfaces": ["i"],
            "inputs": [
                {"id": "prompt", "label": "Prompt", "type": "string"},
                {"id": "n", "label": "n", "type": "unknown", "default": None},
            ],
            "node_index": {"s": {"type": "on_flow_start", "label": "Begin", "headerColor": "#fff"}},
            "deprecated": False,
            "deprecated_at": None,
            "deprecated_reason": None,
        }
    ]


def test_a_bundle_that_is_not_there_is_not_shown(several: BundleHost) -> None:
    with pytest.raises(NotFound, match="^Bundle 'nope' not found$"):
        several.get_bundle("nope")
    with pytest.raises(NotFound, match="^Bundle 'ask@9' not found$"):
        several.get_bundle("ask", "9")
    with pytest.raises(Invalid, match="bundle_version conflicts with bundle_id"):
        several.get_bundle("ask@0.0.1", "0.0.2")


def test_a_flow_that_does_not_compile_spoils_its_own_bundle_only(pack: Any, tmp_path: Path) -> None:
    pack("good.flow")
    pack("bad.flow", {"flows/root.json": _document({"id": "n7", "type": "frobnicate"})}, bundle_id="bad")

    listed = BundleHost(tmp_path).list_bundles()

    assert [item["bundle_id"] for item in listed["items"]] == ["ask"]
    assert listed["load_errors"] == [
        {
            "file": "bad.flow",
            "bundle_ref": "bad@0.0.1",
            "error": "flow 'root' does not compile: "
            "node 'n7' has the type 'frobnicate', which this gateway does not run",
        }
    ]


def test_subflows_and_agents_get_ids_of_their_bundle(pack: Any, tmp_path: Path) -> None:
    nodes = [
        {"id": "sub", "type": "subflow", "data": {"subflowId": "inner"}},
        {"id": "a.1", "type": "agent", "data": {}},
    ]
    document = {
        **_document(*nodes),
        "edges": [
            {"source": "s", "sourceHandle": "exec-out", "target": "sub", "targetHandle": "exec-in"},
            {"source": "sub", "sourceHandle": "exec-out", "target": "a.1", "targetHandle": "exec-in"},
        ],
    }
    pack(members={"flows/root.json": document}, flows={"root": "flows/root.json", "inner": "i"})

    host = BundleHost(tmp_path)

    assert host.workflow("visual_react_agent_ask_0_0_1_root_a_1").entry_node == "think"
    assert host.workflow("ask@0.0.1:inner").entry_node == "s"


def test_model_defaults_come_from_the_bundle_itself(pack: Any, tmp_path: Path) -> None:
    pack("none.flow", bundle_id="none")
    call = {"id": "c", "type": "llm_call", "data": {"effectConfig": {"provider": "half"}}}
    agent = {"id": "a", "type": "agent", "data": {"agentConfig": {"provider": " LMStudio ", "model": "m"}}}
    pack("ask.flow", {"flows/root.json": _document(call, agent)})
    host = BundleHost(tmp_path)

    found = [host.runtime_defaults(name) for name in ("ask@0.0.1:root", "none@0.0.1:root", "gone")]

    assert found == [{"provider": "lmstudio", "model": "m"}, {}, {}]


def test_bundles_that_another_process_adds_are_found_when_they_are_asked_for(pack: Any, tmp_path: Path) -> None:
    host = BundleHost(tmp_path)
    missing = _refusal(host, "ask")
    pack()

    assert missing == "NotFound: Bundle not found; known: none"
    assert host.workflow("ask:root").workflow_id == "ask@0.0.1:root"
    pack("new.flow", bundle_id="new")
    assert host.resolve(bundle_id="new", bundle_version=None, flow_id=None) == "new@0.0.1:root"


def test_a_refresh_rereads_what_changed_and_keeps_the_rest(pack: Any, tmp_path: Path) -> None:
    pack("a.flow", bundle_id="a")
    replaced = pack("b.flow", bundle_id="b")
    host = BundleHost(tmp_path)
    before = host.workflow("a:root")
    replaced.write_text("broken")

    changed = [host.refresh(), host.refresh()]

    assert changed == [True, False]
    assert host.workflow("a:root") is before
    assert [error["file"] for error in host.list_bundles()["load_errors"]] == ["b.flow"]


def test_removed_bundles_are_gone_after_a_refresh(pack: Any, tmp_path: Path) -> None:
    path = pack()
    host = BundleHost(tmp_path)
    path.unlink()
    host.refresh()

    with pytest.raises(NotFound):
        host.workflow("ask:root")


def test_readers_see_whole_indexes_while_bundles_come_and_go(pack: Any, tmp_path: Path) -> None:
    pack("stay.flow", bundle_id="stay")
    host = BundleHost(tmp_path)
    failures: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                host.workflow("stay:root")
                assert host.list_bundles()["items"][-1]["bundle_id"] == "stay"
            except BaseException as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(5):
        path = pack("come.flow", bundle_id="come", bundle_version=f"0.0.{number}")
        host.refresh()
        path.unlink()
        host.refresh()
    is_over.set()
    for reader in readers:
        reader.join()

    assert failures == []


def test_a_missing_directory_is_an_empty_host(tmp_path: Path) -> None:
    host = BundleHost(tmp_path / "gone")

    assert host.list_bundles() == {"items": [], "default_bundle_id": None, "load_errors": []}
    assert _refusal(host, flow_id="x") == "NotFound: Flow 'x' not found; known: none"


def test_the_drawing_of_a_workflow_is_what_the_bundle_holds(pack: Any, tmp_path: Path) -> None:
    document = _document()
    pack(members={"flows/root.json": json.dumps(document)})
    host = BundleHost(tmp_path)

    assert host.document("ask:root") == document
    assert host.start_pins("ask:root") == []
    with pytest.raises(NotFound):
        host.start_pins("zz")


def test_the_shared_bundles_all_load() -> None:
    if not SHARED.is_dir():
        pytest.skip("the shared bundles are not here")

    listed = BundleHost(SHARED).list_bundles()

    assert listed["load_errors"] == []
    assert [item["bundle_ref"] for item in listed["items"]] == [
        "basic@dev",
        "basic-agent@0.0.0",
        "basic-followup@dev",
        "basic-llm-test@0.0.0",
        "yoda@dev",
    ]

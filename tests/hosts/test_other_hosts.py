from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.hosts import BundleHost, FlowSet, Hosts


def _flow(*nodes: dict[str, Any]) -> dict[str, Any]:
    pins = [{"id": "exec-out", "type": "execution"}, {"id": "prompt", "type": "string"}]
    start = {"id": "s", "type": "on_flow_start", "data": {"outputs": pins}}
    return {"nodes": [start, *nodes], "edges": []}


def _ask(host: Any, bundle_id: str | None = None, flow_id: str | None = None) -> str:
    return str(host.resolve(bundle_id=bundle_id, bundle_version=None, flow_id=flow_id))


def test_plain_documents_are_served_under_their_own_ids() -> None:
    host = FlowSet({"root": _flow(), "other": {**_flow(), "id": "inner name"}})

    assert _ask(host, flow_id="root") == "root"
    assert host.workflow("other").workflow_id == "other"
    assert host.start_pins("root") == [{"id": "prompt", "label": "prompt", "type": "string"}]


def test_plain_documents_suggest_a_model() -> None:
    agent = {"id": "a", "type": "agent", "data": {"agentConfig": {"provider": "P", "model": "m"}}}
    host = FlowSet({"root": _flow(agent)})

    assert host.runtime_defaults("root") == {"provider": "p", "model": "m"}
    assert host.runtime_defaults("gone") == {}


def test_a_document_that_does_not_compile_is_named() -> None:
    with pytest.raises(Invalid, match="flow: 'root' does not compile: node 'x' has the type 'nope'"):
        FlowSet({"root": _flow({"id": "x", "type": "nope"})})


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, Invalid, "flow_id is required"),
        ({"flow_id": "zz"}, NotFound, "Flow 'zz' not found"),
        ({"bundle_id": "b"}, NotFound, "Bundle not found"),
        ({"bundle_id": "b", "flow_id": "root"}, NotFound, "Flow 'root' not found"),
    ],
)
def test_what_plain_documents_do_not_have_is_refused(given: dict[str, str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        _ask(FlowSet({"root": _flow()}), **given)


def test_unknown_workflows_are_refused_with_a_hint() -> None:
    host = FlowSet({"root": _flow()})

    with pytest.raises(NotFound, match="known: 'root'"):
        host.workflow("zz")
    with pytest.raises(NotFound, match="known: 'root'"):
        host.start_pins("zz")


def test_several_hosts_answer_as_one(pack: Any, tmp_path: Path) -> None:
    pack()
    host = Hosts(BundleHost(tmp_path), FlowSet({"plain": _flow()}))

    assert (_ask(host, "ask"), _ask(host, flow_id="plain")) == ("ask@0.0.1:root", "plain")
    assert host.workflow("plain").workflow_id == "plain"
    assert host.workflow("ask:root").workflow_id == "ask@0.0.1:root"
    assert host.start_pins("plain")[0]["id"] == "prompt"
    assert host.runtime_defaults("plain") == {}


def test_several_hosts_refuse_what_none_of_them_has(pack: Any, tmp_path: Path) -> None:
    pack("a.flow")
    pack("b.flow", bundle_id="b")
    host = Hosts(BundleHost(tmp_path), FlowSet({"plain": _flow()}))

    with pytest.raises(Invalid, match="bundle_id is required when multiple bundles are loaded"):
        _ask(host, flow_id="zz")
    with pytest.raises(NotFound, match="Bundle not found"):
        _ask(host, "zz")
    with pytest.raises(NotFound, match="no workflow 'zz'"):
        host.workflow("zz")
    with pytest.raises(NotFound, match="there is no host"):
        Hosts().workflow("zz")

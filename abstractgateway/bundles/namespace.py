"""Flow ids are unique in a bundle only; as workflow ids they carry the bundle and its version."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..jsonvalue import JsonObject
from ..visualflow.flow import type_name
from ..visualflow.nodes.subflow import REFERENCE_KEYS


def namespaced_id(bundle_ref: str, flow_id: str) -> str:
    """Return the workflow id of a bundle's flow: `id@version:flow`."""
    return f"{bundle_ref}:{flow_id}"


def namespaced_flow(document: JsonObject, bundle_ref: str, flow_id: str, siblings: Collection[str]) -> JsonObject:
    """Return a copy of a flow under its workflow id, whose subflow nodes name their siblings by workflow id as well.

    References to anything that is not in the bundle stay as they are.
    """
    nodes = document.get("nodes")
    renamed = {**document, "id": namespaced_id(bundle_ref, flow_id)}
    if isinstance(nodes, list):
        renamed["nodes"] = [_with_references(node, bundle_ref, siblings) for node in nodes]
    return renamed


def _with_references(node: Any, bundle_ref: str, siblings: Collection[str]) -> Any:
    if not isinstance(node, dict) or type_name(node.get("type")) != "subflow" or not isinstance(node.get("data"), dict):
        return node
    data = dict(node["data"])
    for key in REFERENCE_KEYS:
        target = data.get(key)
        if isinstance(target, str) and target.strip() in siblings:
            data[key] = namespaced_id(bundle_ref, target.strip())
    return {**node, "data": data}

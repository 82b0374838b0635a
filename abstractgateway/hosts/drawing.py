"""What can be read off a drawing without running it: its inputs, its nodes, its models and its subflows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..jsonvalue import JsonObject

_EXEC_PINS = frozenset({"exec-out", "exec"})
_CONFIGS = {"llm_call": "effectConfig", "agent": "agentConfig"}


def start_inputs(document: JsonObject) -> list[JsonObject]:
    """Return the inputs that a flow's first start node declares."""
    data = next((_data(node) for node in _nodes(document) if "on_flow_start" in _types(node)), {})
    outputs, defaults = data.get("outputs"), data.get("pinDefaults")
    known = defaults if isinstance(defaults, dict) else {}
    pins = [pin for pin in outputs if isinstance(pin, dict)] if isinstance(outputs, list) else []
    return [_input(pin, known) for pin in pins if _is_input(pin)]


def node_index(document: JsonObject) -> JsonObject:
    """Return type and label of each node by its id."""
    return {str(node["id"]): _index_entry(node) for node in _nodes(document) if node.get("id")}


def model_defaults(documents: Iterable[JsonObject]) -> JsonObject:
    """Return the first complete pair of `provider` and `model` that a node of the flows names, or an empty object."""
    for document in documents:
        for node in _nodes(document):
            data = _data(node)
            for source in (data.get(_CONFIGS.get(str(node.get("type")), "")), data.get("pinDefaults")):
                pair = _pair(source)
                if pair:
                    return pair
    return {}


def _pair(source: Any) -> JsonObject:
    if not isinstance(source, dict):
        return {}
    provider, model = source.get("provider"), source.get("model")
    if not (isinstance(provider, str) and provider.strip() and isinstance(model, str) and model.strip()):
        return {}
    return {"provider": provider.strip().lower(), "model": model.strip()}


def _input(pin: JsonObject, defaults: JsonObject) -> JsonObject:
    identity = str(pin["id"])
    shown = {"id": identity, "label": pin.get("label") or identity, "type": pin.get("type") or "unknown"}
    return {**shown, "default": defaults[identity]} if identity in defaults else shown


def _is_input(pin: JsonObject) -> bool:
    return bool(pin.get("id")) and pin.get("type") != "execution" and str(pin["id"]) not in _EXEC_PINS


def _index_entry(node: JsonObject) -> JsonObject:
    data = _data(node)
    entry = {
        "type": data.get("nodeType") or node.get("type") or "unknown",
        "label": data.get("label") or node.get("label") or str(node["id"]),
    }
    color = data.get("headerColor") or node.get("headerColor")
    return {**entry, "headerColor": color} if color else entry


def _nodes(document: JsonObject) -> list[JsonObject]:
    nodes = document.get("nodes")
    return [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []


def _data(node: JsonObject) -> JsonObject:
    data = node.get("data")
    return data if isinstance(data, dict) else {}


def _types(node: JsonObject) -> tuple[Any, Any]:
    return node.get("type"), _data(node).get("nodeType")

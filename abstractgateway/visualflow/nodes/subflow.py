"""Flows that run as children of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...jsonvalue import JsonObject
from ...runtime.models import EffectType
from ..flow import Node
from ..node import Ask, Inputs, NodeType, Site
from ..state import Step
from ..values import MISSING, as_list, as_object, first_text

REFERENCE_KEYS = ("subflowId", "flowId", "workflowId", "workflow_id")
_INHERIT = ("inherit_context", "inheritContext")
_SESSION = ("child_session_id", "childSessionId", "session_id", "sessionId")
_CONTROL = frozenset((*_INHERIT, *_SESSION))


def referenced_flow(node: Node) -> str | None:
    """Return the id of the flow that a subflow node runs."""
    return first_text(*(node.data.get(key) for key in REFERENCE_KEYS))


def _check(node: Node) -> str | None:
    return None if referenced_flow(node) else "names no flow to run: set 'subflowId'"


def _subflow(site: Site) -> Callable[[Inputs, Step], JsonObject]:
    node = site.node
    workflow_id, pins = referenced_flow(node), node.data_inputs
    config = node.config("effectConfig")

    def payload(inputs: Inputs, step: Step) -> JsonObject:
        child = _child_variables(inputs, pins)
        inherit = next((inputs[name] for name in _INHERIT if inputs.get(name) is not None), None)
        if inherit if inherit is not None else next((config[name] for name in _INHERIT if name in config), False):
            child["context"] = _merged_context(as_object(step.vars.get("context")), as_object(child.get("context")))
        session = first_text(*(inputs.get(name) for name in _SESSION))
        return {
            "workflow_id": workflow_id,
            "vars": child,
            "async": True,
            "wait": True,
            **({"session_id": session} if session is not None else {}),
        }

    return payload


def _child_variables(inputs: Inputs, pins: tuple[str, ...]) -> JsonObject:
    base: JsonObject = next((inputs[name] for name in ("vars", "input") if isinstance(inputs.get(name), dict)), {})
    named = pins or tuple(inputs)
    own = {pin: inputs[pin] for pin in named if pin in inputs and pin not in _CONTROL}
    for name in ("vars", "input"):
        if isinstance(own.get(name), dict):
            del own[name]
    return {**base, **own}


def _merged_context(parent: JsonObject, child: JsonObject) -> JsonObject:
    """The child's instructions come first, then the parent's conversation, then what else the child has to say."""
    own, inherited = as_list(child.get("messages")), as_list(parent.get("messages"))
    ordered = [
        *(item for item in own if _is_system(item)),
        *(item for item in inherited if _is_system(item)),
        *(item for item in inherited if not _is_system(item)),
        *(item for item in own if not _is_system(item)),
    ]
    attachments = (
        {"attachments": parent["attachments"]} if "attachments" in parent and "attachments" not in child else {}
    )
    return {**attachments, **child, "messages": _without_repetition(ordered)}


def _is_system(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "system"


def _without_repetition(messages: list[Any]) -> list[Any]:
    seen: set[str] = set()
    kept: list[Any] = []
    for message in messages:
        identity = as_object(as_object(message).get("metadata")).get("message_id")
        if isinstance(identity, str) and identity in seen:
            continue
        if isinstance(identity, str):
            seen.add(identity)
        kept.append(message)
    return kept


def _present(node: Node, wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    pins = [pin for pin in dict.fromkeys((*node.data_outputs, *sorted(wired))) if pin not in _OWN_OUTPUTS]
    declared = [pin for pin in node.data_outputs if pin not in _OWN_OUTPUTS]
    is_only_pin = len(declared) == 1

    def present(raw: Any, _step: Step) -> JsonObject:
        received = as_object(raw)
        output = received.get("output")
        value = output["result"] if isinstance(output, dict) and "result" in output else output
        shown: JsonObject = {"output": value, "child_output": output, "sub_run_id": received.get("sub_run_id")}
        for pin in pins:
            if pin == "result" and value is not output:
                found = value
            elif isinstance(value, dict):
                found = value.get(pin, None if pin in declared else MISSING)
            else:
                found = value if is_only_pin else None
            if found is not MISSING:
                shown[pin] = found
        return shown

    return present


_OWN_OUTPUTS = frozenset({"output", "child_output", "sub_run_id"})

TYPES = (
    NodeType(
        "subflow",
        "subflow",
        Ask(EffectType.START_SUBWORKFLOW, _subflow, _present, "output"),
        ("inherit_context", "input", "vars"),
        ("output", "sub_run_id", "child_output"),
        "Runs another flow as a child and waits for its output.",
        {"inherit_context": False},
        _check,
    ),
)

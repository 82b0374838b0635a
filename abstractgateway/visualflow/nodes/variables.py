"""The run's own variables, and its conversation."""

from __future__ import annotations

import json
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject
from ..flow import Node
from ..node import Action, Evaluate, Inputs, NodeType, Pure
from ..state import Step, read_variable
from ..values import as_list, as_object, split_path, with_path, write_path

_NATURAL_DEFAULTS: dict[str, Any] = {"boolean": False, "number": 0, "string": ""}
_TYPES: dict[str, tuple[type | tuple[type, ...], Any]] = {
    "boolean": (bool, False),
    "number": ((int, float), 0),
    "string": (str, ""),
    "object": (dict, {}),
    "array": (list, []),
}


def _get_var(_node: Node) -> Evaluate:
    def get(inputs: Inputs, step: Step) -> JsonObject:
        name = inputs.get("name")
        return {"value": read_variable(step.vars, name.strip()) if isinstance(name, str) else None}

    return get


def writable_path(name: Any, pin: str = "name") -> list[str]:
    """Return the path of a variable that a flow may write. Raises `Invalid` for no name and for reserved ones."""
    text = name.strip() if isinstance(name, str) else ""
    segments = split_path(text, brackets=False)
    if not segments:
        raise Invalid(pin, f"{name!r} is not the name of a variable")
    if segments[0].startswith("_"):
        raise Invalid(pin, f"{text!r} is reserved; names of variables do not start with '_'")
    return segments


def _set_var(node: Node) -> Evaluate:
    kind = next((pin.type for pin in node.inputs if pin.id == "value"), "")
    natural = _NATURAL_DEFAULTS.get(kind)

    def write(inputs: Inputs, step: Step) -> JsonObject:
        segments = writable_path(inputs.get("name"))
        value = inputs.get("value", natural)
        write_path(step.vars, segments, value)
        return {"value": value}

    return write


def _set_vars(_node: Node) -> Evaluate:
    def write(inputs: Inputs, step: Step) -> JsonObject:
        updates = _updates(inputs.get("updates"))
        paths = [(writable_path(name, "updates"), value) for name, value in updates.items()]
        for segments, value in paths:
            write_path(step.vars, segments, value)
        return {"updates": updates}

    return write


def _updates(value: Any) -> JsonObject:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return as_object(value)


def _set_var_property(_node: Node) -> Evaluate:
    def write(inputs: Inputs, step: Step) -> JsonObject:
        segments = writable_path(inputs.get("name"))
        key = split_path(str(inputs.get("key") or "").strip(), brackets=False)
        if not key:
            raise Invalid("key", "is missing: name the property to set")
        before = as_object(read_variable(step.vars, ".".join(segments)))
        changed = with_path(before, key, inputs.get("value"))
        write_path(step.vars, segments, changed)
        return {"value": changed}

    return write


def _finish(key: str | None) -> Any:
    def finish(step: Step, output: JsonObject) -> JsonObject:
        added = {key: output[key]} if key is not None else {}
        return {"success": True, "result": step.bus, **added}

    return finish


def _declaration(node: Node) -> JsonObject:
    literal = node.data.get("literalValue")
    return {"name": literal} if isinstance(literal, str) else as_object(literal)


def _bool_var(node: Node) -> Evaluate:
    declared = _declaration(node)
    name, default = str(declared.get("name") or "").strip(), declared.get("default") is True

    def read(_inputs: Inputs, step: Step) -> JsonObject:
        value = read_variable(step.vars, name)
        return {"name": name, "value": value if isinstance(value, bool) else default}

    return read


def _var_decl(node: Node) -> Evaluate:
    declared = _declaration(node)
    name, kind = str(declared.get("name") or "").strip(), str(declared.get("type") or "any").strip().lower()
    default = declared.get("default")

    def read(_inputs: Inputs, step: Step) -> JsonObject:
        value = read_variable(step.vars, name)
        return {"name": name, "value": value if kind not in _TYPES else _typed(kind, value, default)}

    return read


def _typed(kind: str, *candidates: Any) -> Any:
    wanted, zero = _TYPES[kind]
    for value in candidates:
        if isinstance(value, wanted) and (kind == "boolean" or not isinstance(value, bool)):
            return value
    return zero


def _get_context(_node: Node) -> Evaluate:
    def read(_inputs: Inputs, step: Step) -> JsonObject:
        context = as_object(step.vars.get("context"))
        task, messages = context.get("task"), as_list(context.get("messages"))
        return {"context": context, "task": "" if task is None else str(task), "messages": messages}

    return read


def _make_message(_node: Node) -> Evaluate:
    def make(inputs: Inputs, step: Step) -> JsonObject:
        role, content = inputs.get("role"), inputs.get("content")
        message = {
            "role": str(role).strip() if role else "user",
            "content": "" if content is None else str(content),
            "timestamp": step.ctx.now_iso(),
            "metadata": {"message_id": "msg_" + step.ctx.new_id().replace("-", "")},
        }
        return {"message": message}

    return make


def _add_message(node: Node) -> Evaluate:
    make = _make_message(node)

    def add(inputs: Inputs, step: Step) -> JsonObject:
        made: JsonObject = make(inputs, step)
        return {**made, **append_messages(step, [made["message"]])}

    return add


def append_messages(step: Step, added: list[JsonObject]) -> JsonObject:
    """Add messages to the run's conversation; return the context with its task and messages."""
    context = as_object(step.vars.get("context"))
    messages = [*as_list(context.get("messages")), *added]
    step.vars["context"] = {**context, "messages": messages}
    task = context.get("task")
    return {"context": step.vars["context"], "task": "" if task is None else str(task), "messages": messages}


def _finish_message(_step: Step, output: JsonObject) -> JsonObject:
    return {"success": True, "message": output["message"]}


_WRITE = "variables"

TYPES = (
    NodeType("get_var", _WRITE, Pure(_get_var), ("name",), ("value",), "Reads a variable; dots lead into objects."),
    NodeType(
        "set_var",
        _WRITE,
        Action(_set_var, sets_bus=False, finish=_finish(None)),
        ("name", "value"),
        ("value",),
        "Writes a variable; dots lead into objects.",
    ),
    NodeType(
        "set_vars",
        _WRITE,
        Action(_set_vars, sets_bus=False, finish=_finish("updates")),
        ("updates",),
        ("updates",),
        "Writes several variables, or none when a name is not allowed.",
    ),
    NodeType(
        "set_var_property",
        _WRITE,
        Action(_set_var_property, sets_bus=False, finish=_finish("value")),
        ("name", "key", "value"),
        ("value",),
        "Sets one property of a variable that is an object.",
    ),
    NodeType("bool_var", _WRITE, Pure(_bool_var), (), ("name", "value"), "Reads a variable that is true or false."),
    NodeType(
        "var_decl",
        _WRITE,
        Pure(_var_decl),
        (),
        ("name", "value"),
        "Reads a variable of a declared type, or its default.",
    ),
    NodeType(
        "get_context", _WRITE, Pure(_get_context), (), ("context", "task", "messages"), "Reads the run's conversation."
    ),
    NodeType(
        "add_message",
        _WRITE,
        Action(_add_message, sets_bus=False, finish=_finish_message, as_pure=_make_message),
        ("role", "content"),
        ("message", "context", "task", "messages"),
        "Adds a message to the run's conversation.",
        {"role": "user"},
    ),
)

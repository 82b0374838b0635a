"""Objects, JSON texts, and the records that agents and their callers exchange."""

from __future__ import annotations

import json
import locale
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject
from ..flow import Node
from ..lenient import parse_json, read_json
from ..node import Evaluate, Inputs, NodeType, Pure
from ..state import Step
from ..values import MISSING, as_list, as_object, first_text, read_path, split_path, with_path
from .reports import agent_trace_report, format_tool_results

_AGENT_META = "abstractcode.agent.v1.meta"


def _get(_node: Node) -> Evaluate:
    def get(inputs: Inputs, _step: Step) -> JsonObject:
        segments = split_path(str(inputs.get("key") if inputs.get("key") is not None else ""))
        found = read_path(inputs.get("object"), segments) if segments else MISSING
        return {"value": inputs.get("default") if found is MISSING or found is None else found}

    return get


def _set(_node: Node) -> Evaluate:
    def put(inputs: Inputs, _step: Step) -> JsonObject:
        target = _object_of(inputs.get("object", {}), "object")
        segments = split_path(str(inputs.get("key", "")), brackets=False) or [""]
        return with_path(target, segments, inputs.get("value"))

    return put


def _object_of(value: Any, pin: str) -> JsonObject:
    if isinstance(value, dict):
        return value
    try:
        if isinstance(value, list) or value == "":
            return {str(key): item for key, item in value}
    except (TypeError, ValueError):
        raise Invalid(pin, "is a list, but not one of pairs of a key and a value") from None
    raise Invalid(pin, f"{value!r} is not an object")


def _merge(_node: Node) -> Evaluate:
    return lambda inputs, _step: {**_object_of(inputs.get("a", {}), "a"), **_object_of(inputs.get("b", {}), "b")}


def _make_object(_node: Node) -> Evaluate:
    return lambda inputs, _step: {name: value for name, value in inputs.items() if not name.startswith("_")}


def _break_object(node: Node) -> Evaluate:
    listed = node.config("breakConfig").get("selectedPaths")
    paths = [path for path in listed if isinstance(path, str)] if isinstance(listed, list) else []
    table = [(path, split_path(path, brackets=False)) for path in paths]

    def take_apart(inputs: Inputs, _step: Step) -> JsonObject:
        value = inputs.get("object")
        if isinstance(value, str):
            value = read_json(value)
        found = ((path, read_path(value, segments)) for path, segments in table)
        return {path: None if item is MISSING else item for path, item in found}

    return take_apart


def _parse_json(_node: Node) -> Evaluate:
    return lambda inputs, _step: parse_json(inputs.get("text"), wrap_scalar=bool(inputs.get("wrap_scalar", True)))


def _stringify_json(_node: Node) -> Evaluate:
    def write(inputs: Inputs, _step: Step) -> str:
        value = inputs.get("value")
        if isinstance(value, str):
            parsed = read_json(value)
            value = value if parsed is MISSING or parsed is None else parsed
        return json.dumps(value, ensure_ascii=False, sort_keys=inputs.get("sort_keys") is True, **_layout(inputs))

    return write


def _layout(inputs: Inputs) -> dict[str, Any]:
    minified = {"separators": (",", ":")}
    mode = str(inputs.get("mode") or "").strip().lower()
    if mode in ("minified", "none"):
        return minified if mode == "minified" else {}
    try:
        indent = int(inputs.get("indent", 2))
    except (TypeError, ValueError, OverflowError):
        indent = 2
    if indent <= 0:
        return {"indent": 2} if mode == "beautify" else minified
    return {"indent": min(indent, 16)}


def _make_context(_node: Node) -> Evaluate:
    def make(inputs: Inputs, _step: Step) -> JsonObject:
        context = {**as_object(inputs.get("context_extra")), **_task_and_messages(inputs)}
        return {"context": context, "task": context["task"], "messages": context["messages"]}

    return make


def _task_and_messages(inputs: Inputs) -> JsonObject:
    task = inputs.get("task")
    return {"task": "" if task is None else str(task), "messages": list(as_list(inputs.get("messages")))}


def _make_meta(_node: Node) -> Evaluate:
    def make(inputs: Inputs, _step: Step) -> JsonObject:
        meta = dict(as_object(inputs.get("extra")))
        meta["schema"] = first_text(inputs.get("schema")) or _AGENT_META
        meta["version"] = _whole(inputs.get("version"), 1)
        for name, convert in _META_FIELDS.items():
            value = convert(inputs.get(name))
            if value is not None:
                meta[name] = value
        return {"meta": meta}

    return make


def _whole(value: Any, default: int | None = None) -> int | None:
    try:
        return default if value is None or isinstance(value, bool) else int(float(value))
    except (TypeError, ValueError, OverflowError):
        return default


def _measure(value: Any) -> Any:
    """Whoever measured decides how it is written; only a truth value is no measure."""
    return None if isinstance(value, bool) else value


def _shown(value: Any) -> str | None:
    return None if value is None else str(value).strip() or None


def _warnings(value: Any) -> list[str] | None:
    if isinstance(value, str) and value.strip():
        return [value.strip()]
    return [text.strip() for text in map(str, value) if text.strip()] if isinstance(value, list) else None


def _object(value: Any) -> JsonObject | None:
    return value if isinstance(value, dict) else None


def _words(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _trace(value: Any) -> JsonObject | None:
    if isinstance(value, str):
        return {"trace_id": value.strip()} if value.strip() else None
    return value if isinstance(value, dict) else None


def _any(value: Any) -> Any:
    return value


_META_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("output_mode", "sub_run_id", "finish_reason"), _words),
    **dict.fromkeys(("provider", "model"), _shown),
    **dict.fromkeys(("iterations", "tool_calls", "tool_results"), _whole),
    **dict.fromkeys(("gen_time", "ttft_ms"), _measure),
    "usage": _object,
    "warnings": _warnings,
    "debug": _any,
    "trace": _trace,
}


def _make_scratchpad(_node: Node) -> Evaluate:
    def make(inputs: Inputs, _step: Step) -> JsonObject:
        scratchpad = _task_and_messages(inputs)
        scratchpad["node_traces"] = as_object(inputs.get("node_traces"))
        scratchpad.update({name: as_list(inputs.get(name)) for name in ("steps", "tool_calls", "tool_results")})
        for name in ("sub_run_id", "workflow_id"):
            text = _words(inputs.get(name))
            scratchpad.update({name: text} if text is not None else {})
        extra = inputs.get("context_extra")
        scratchpad.update({"context_extra": extra} if isinstance(extra, dict) else {})
        return {"scratchpad": scratchpad}

    return make


def _format_tool_results(_node: Node) -> Evaluate:
    return lambda inputs, _step: format_tool_results(inputs.get("tool_results", inputs.get("results")))


def _agent_trace_report(_node: Node) -> Evaluate:
    return lambda inputs, _step: agent_trace_report(inputs.get("scratchpad"))


def _system_datetime(_node: Node) -> Evaluate:
    def read(_inputs: Inputs, step: Step) -> JsonObject:
        now = step.ctx.now().astimezone()
        offset = now.utcoffset()
        return {
            "iso": now.isoformat(),
            "timezone": now.tzname() or "UTC",
            "utc_offset_minutes": int(offset.total_seconds() // 60) if offset is not None else 0,
            "locale": locale.getlocale()[0] or "",
        }

    return read


def _row(
    name: str,
    run: Pure,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    text: str,
    defaults: JsonObject | None = None,
) -> NodeType:
    return NodeType(name, "objects", run, inputs, outputs, text, defaults or {})


_RESULT = ("result",)
_META_PINS = ("schema", "version", *_META_FIELDS, "extra")
_PAD_PINS = (
    *("sub_run_id", "workflow_id", "task", "messages", "context_extra", "node_traces"),
    *("steps", "tool_calls", "tool_results"),
)

TYPES = (
    _row("get", Pure(_get), ("object", "key", "default"), ("value",), "Reads what lies at a path such as `a.b[0]`."),
    _row("set", Pure(_set), ("object", "key", "value"), _RESULT, "Gives a copy of an object with a value at a path."),
    _row("merge", Pure(_merge), ("a", "b"), _RESULT, "Puts two objects together; the second wins."),
    _row("make_object", Pure(_make_object), (), _RESULT, "Makes an object of its inputs."),
    _row("break_object", Pure(_break_object), ("object",), (), "Gives the chosen paths of an object, one pin each."),
    _row("parse_json", Pure(_parse_json), ("text",), _RESULT, "Reads the JSON in a text.", {"wrap_scalar": True}),
    _row(
        "stringify_json",
        Pure(_stringify_json),
        ("value", "mode"),
        _RESULT,
        "Writes a value as JSON.",
        {"mode": "beautify"},
    ),
    _row(
        "make_context",
        Pure(_make_context),
        ("task", "messages", "context_extra"),
        ("context",),
        "Makes a conversation.",
    ),
    _row("make_meta", Pure(_make_meta), _META_PINS, ("meta",), "Makes the record of how an answer came about."),
    _row("make_scratchpad", Pure(_make_scratchpad), _PAD_PINS, ("scratchpad",), "Makes the record of an agent's work."),
    _row(
        "format_tool_results",
        Pure(_format_tool_results),
        ("tool_results",),
        _RESULT,
        "Writes one line per tool result.",
    ),
    _row(
        "agent_trace_report", Pure(_agent_trace_report), ("scratchpad",), _RESULT, "Writes an agent's work as Markdown."
    ),
    _row(
        "system_datetime",
        Pure(_system_datetime),
        (),
        ("iso", "timezone", "utc_offset_minutes", "locale"),
        "Gives the local time of this step.",
    ),
)

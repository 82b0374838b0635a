"""Tool results and agent work as texts that people and models read."""

from __future__ import annotations

import json
from typing import Any

from ...jsonvalue import JsonObject
from ..values import as_list, as_object

_VALUE_CHARS = 160
_OBSERVATION_CHARS = 420


def format_tool_results(results: Any) -> str:
    """Return one line per result: name and first argument, how it ended, and what it said."""
    return "\n".join(_result_line(item) for item in as_list(results) if isinstance(item, dict))


def agent_trace_report(scratchpad: Any) -> str:
    """Return an agent's work as Markdown: its task, its steps, its tool calls and their results."""
    pad = as_object(scratchpad)
    if not pad:
        return "# Agent trace report\n\nNo scratchpad was given."
    calls, results = as_list(pad.get("tool_calls")), as_list(pad.get("tool_results"))
    lines = ["# Agent trace report", "", f"Task: {pad.get('task') or '(none)'}"]
    lines += [f"Run: {pad['sub_run_id']}"] if pad.get("sub_run_id") else []
    lines += [
        "",
        f"Steps: {len(as_list(pad.get('steps')))}, tool calls: {len(calls)}, tool results: {len(results)}",
        "",
    ]
    if not calls and not results:
        return "\n".join([*lines, "No tools were used."])
    lines += ["## Tool calls", *(_call_line(call) for call in calls if isinstance(call, dict)), ""]
    return "\n".join([*lines, "## Tool results", format_tool_results(results)])


def clip(value: Any, limit: int) -> str:
    """Return the text of a value on one line, cut to a number of characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _call_line(call: JsonObject) -> str:
    return f"- {call.get('name') or 'tool'}({_first_value(call.get('arguments'))})"


def _result_line(result: JsonObject) -> str:
    success = result.get("success")
    state = "DONE" if success is None else "SUCCESS" if success else "FAILURE"
    said = result.get("output") if success is not False else result.get("error") or result.get("output")
    subject = _first_value(result.get("arguments")) or (_first_key(result.get("output")))
    text = clip("" if said is None else said, _OBSERVATION_CHARS)
    return f"- {result.get('name') or 'tool'}({subject}) [{state}] {text}"


def _first_value(arguments: Any) -> str:
    found = next((value for value in as_object(arguments).values() if value is not None), None)
    return "" if found is None else clip(found, _VALUE_CHARS)


def _first_key(output: Any) -> str:
    return next(iter(as_object(output)), "")

"""Tools as a port, and the effect that executes tool calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import Invalid
from ...jsonvalue import JsonObject, check_json, loads
from ..models import Effect, EffectOutcome, RunState


class ToolBox(Protocol):
    """The tools a gateway offers to models and flows."""

    def specs(self) -> list[JsonObject]:
        """Return `[{name, description, parameters}]`; parameters are a JSON schema of the arguments."""

    def execute(self, name: str, arguments: JsonObject) -> Any:
        """Execute one tool and return its JSON output. Raises whatever the tool raises."""


class FunctionTools:
    """Plain functions as tools: `{"add": lambda a, b: a + b}`."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = dict(functions)

    def specs(self) -> list[JsonObject]:
        return [_spec_of(name, function) for name, function in sorted(self._functions.items())]

    def execute(self, name: str, arguments: JsonObject) -> Any:
        return self._functions[name](**arguments)


def call_tools(tools: ToolBox) -> Callable[..., EffectOutcome]:
    """Return the handler of `tool_calls`: every call gets one result, in order; a failing one stops no other."""
    known = {str(spec["name"]) for spec in tools.specs()}

    def perform(run: RunState, effect: Effect, default_next_node: str | None) -> EffectOutcome:
        calls = effect.payload.get("tool_calls")
        if not isinstance(calls, list):
            return EffectOutcome.failed("tool_calls requires payload.tool_calls, a list of {name, arguments, call_id}")
        allowed = effect.payload.get("allowed_tools")
        permitted = known & {str(name) for name in allowed} if isinstance(allowed, list) else known
        results = [_result_of(tools, call, known, permitted) for call in calls]
        return EffectOutcome.completed({"mode": "executed", "results": results})

    return perform


def _result_of(tools: ToolBox, call: Any, known: set[str], permitted: set[str]) -> JsonObject:
    fields = call if isinstance(call, dict) else {}
    name = str(fields.get("name") or "")
    result: JsonObject = {
        "call_id": str(fields.get("call_id") or ""),
        "runtime_call_id": fields.get("runtime_call_id"),
        "name": name,
        "success": False,
        "output": None,
        "error": None,
    }
    if name not in known:
        result["error"] = f"there is no tool {name!r}; known: {', '.join(sorted(known)) or 'none'}"
    elif name not in permitted:
        result["error"] = f"Tool '{name}' is not allowed"
    else:
        result |= _executed(tools, name, fields.get("arguments"))
    return result


def _executed(tools: ToolBox, name: str, arguments: Any) -> JsonObject:
    try:
        output = tools.execute(name, _argument_object(arguments))
        check_json(output, field="output")
    except Exception as error:  # a tool may raise anything; its failure is this call's result
        return {"error": f"{type(error).__name__}: {error}"}
    return {"success": True, "output": output}


def _argument_object(arguments: Any) -> JsonObject:
    if isinstance(arguments, str):
        arguments = loads(arguments or "{}", field="arguments")
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise Invalid("arguments", f"are {type(arguments).__name__}, not an object")
    return arguments


_JSON_TYPES = {
    "int": "integer",
    "float": "number",
    "str": "string",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}


_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _spec_of(name: str, function: Callable[..., Any]) -> JsonObject:
    parameters = [item for item in inspect.signature(function).parameters.values() if item.kind not in _COLLECTING]
    properties = {parameter.name: _schema_of(parameter) for parameter in parameters}
    required = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": inspect.getdoc(function) or "", "parameters": schema}


def _schema_of(parameter: inspect.Parameter) -> JsonObject:
    hint = parameter.annotation
    name = hint if isinstance(hint, str) else getattr(hint, "__name__", "")
    return {"type": _JSON_TYPES[name]} if name in _JSON_TYPES else {}

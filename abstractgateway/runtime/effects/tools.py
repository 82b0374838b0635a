"""Tools as a port, and the effect that executes tool calls."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from ...errors import Invalid
from ...jsonvalue import JsonObject, check_json, loads
from .. import tool_waits
from ..json_schema import problems
from ..models import Effect, EffectOutcome, RunState, WaitState
from ..signals import Stop
from ..tool_waits import failed_result, succeeded_result

_log = logging.getLogger(__name__)

ToolMode = Literal["approval", "passthrough", "delegated", "local"]
"""Who executes tool calls: the gateway, those that are guarded or all of them once a person agrees; or a program."""

NEEDS_APPROVAL = "requires_approval"
"""The field of a tool's spec that says whether the tool is guarded: true, or not there."""


class ToolBox(Protocol):
    """The tools a gateway offers to models and flows.

    An `execute` that has parameters called `timeout_s`, `idempotency_key`, `stop` or `tool_context` is given what a
    `ToolContext` has by these names, or the context itself.
    """

    def specs(self) -> list[JsonObject]:
        """Return `[{name, description, parameters}]`; parameters are a JSON schema of the arguments.

        Asked anew for each use: tools may come and go. One with `requires_approval: true` is executed only once a
        person agrees, where the tool mode has them asked. A box whose `specs` has a parameter `wanted` is given the
        names of the tools that are about to be used, and may wait for these.
        """

    def execute(self, name: str, arguments: JsonObject) -> Any:
        """Execute one tool and return its JSON output. Raises whatever the tool raises."""


@dataclass(frozen=True)
class ToolContext:
    """The call that a tool is executed for.

    `idempotency_key` is the same whenever this call is executed again; `timeout_s` is how many seconds it may take,
    None for any number; `stop`, where there is one, says that the result is not wanted any more.
    """

    run: RunState
    call_id: str = ""
    idempotency_key: str = ""
    timeout_s: float | None = None
    stop: Stop | None = None


_TOLD: Mapping[str, Callable[[ToolContext], object]] = {
    "timeout_s": lambda context: context.timeout_s,
    "idempotency_key": lambda context: context.idempotency_key,
    "stop": lambda context: context.stop,
    "tool_context": lambda context: context,
}
"""What is told to a tool, or a tool box, that has a parameter of this name; a model is not asked for it."""


def _told_names(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()  # a builtin tells no signature
    return tuple(name for name in _TOLD if name in parameters)


def execute_tool(tools: ToolBox, name: str, arguments: JsonObject, context: ToolContext) -> Any:
    """Execute a tool of a box, telling the box what it takes of the context."""
    told = {known: _TOLD[known](context) for known in _told_names(tools.execute)}
    return tools.execute(name, arguments, **told)


def specs_of(tools: ToolBox, wanted: Collection[str]) -> list[JsonObject]:
    """Return the specs of a box, telling it which tools are about to be used if it wants to know."""
    asks: Callable[..., list[JsonObject]] = tools.specs
    return asks(wanted=wanted) if "wanted" in inspect.signature(asks).parameters else asks()


class FunctionTools:
    """Plain functions as tools: `{"add": lambda a, b: a + b}`.

    The schema of the arguments is made of a function's parameters and their types; without a signature, as some of
    Python's own functions are, it takes anything. Parameters called `timeout_s`, `idempotency_key`, `stop` and
    `tool_context` are filled in by the gateway. Raises `Invalid` for what cannot be called with named arguments.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = dict(functions)
        self._told = {name: _told_names(function) for name, function in self._functions.items()}
        self._specs = [_spec_of(name, function) for name, function in sorted(self._functions.items())]

    def specs(self) -> list[JsonObject]:
        return list(self._specs)

    def execute(self, name: str, arguments: JsonObject, *, tool_context: ToolContext | None = None) -> Any:
        told = {known: _TOLD[known](tool_context) if tool_context else None for known in self._told[name]}
        return self._functions[name](**arguments, **told)


def as_tool_box(tools: ToolBox | Mapping[str, Callable[..., Any]] | None) -> ToolBox:
    """Return tools as a tool box: functions by name become one, none an empty one. Raises `Invalid` for neither."""
    if tools is None or isinstance(tools, Mapping):
        return FunctionTools(tools or {})
    if not all(callable(getattr(tools, name, None)) for name in ("specs", "execute")):
        raise Invalid("tools", f"is {type(tools).__name__}, neither functions by name nor a tool box")
    return tools


class ToolSource(NamedTuple):
    """A tool box and what it is called in messages; `is_guarded` is for tools that do not say it themselves."""

    label: str
    tools: ToolBox
    is_guarded: bool = False


class CombinedTools:
    """Several tool boxes as one.

    Raises `Invalid` when two of them have a tool of the same name. Boxes whose tools come and go are asked anew each
    time; a name that is taken by then belongs to the box that is listed first.
    """

    def __init__(self, sources: Iterable[ToolSource]) -> None:
        self._sources = tuple(sources)
        owners: dict[str, str] = {}
        for source in self._sources:
            for name in (str(spec["name"]) for spec in source.tools.specs()):
                if name in owners:
                    raise Invalid("tools", f"{name!r} is offered by {owners[name]} and by {source.label}; rename one")
                owners[name] = source.label

    def specs(self, wanted: Collection[str] = ()) -> list[JsonObject]:
        return [spec for spec, _ in self._offers(wanted).values()]

    def execute(self, name: str, arguments: JsonObject, *, tool_context: ToolContext | None = None) -> Any:
        offer = self._offers().get(name)
        if offer is None:
            raise Invalid("name", f"there is no tool {name!r} any more")
        if tool_context is None:
            return offer[1].execute(name, arguments)
        return execute_tool(offer[1], name, arguments, tool_context)

    def _offers(self, wanted: Collection[str] = ()) -> dict[str, tuple[JsonObject, ToolBox]]:
        found: dict[str, tuple[JsonObject, ToolBox]] = {}
        for source in self._sources:
            for spec in specs_of(source.tools, wanted):
                name = str(spec["name"])
                if name in found:
                    _log.warning("the tool %r of %s is not offered: its name is taken", name, source.label)
                    continue
                guard = {NEEDS_APPROVAL: True} if source.is_guarded and NEEDS_APPROVAL not in spec else {}
                found[name] = {**spec, **guard}, source.tools
        return found


@dataclass
class _Batch:
    """The calls of one effect, by index: those with a result already, to execute now, and to ask about."""

    calls: list[Any]
    results: dict[int, JsonObject] = field(default_factory=dict)
    ready: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)


def call_tools(tools: ToolBox, mode: ToolMode = "local") -> Callable[..., EffectOutcome]:
    """Return the handler of `tool_calls`: every call gets one result, in order; a failing one stops no other.

    Arguments that do not fit the tool's schema are such a failure, and nothing is executed. By the mode, guarded calls
    or all of them wait for a person or a program first; those that need not wait have been executed by then.
    """

    def perform(
        run: RunState,
        effect: Effect,
        default_next_node: str | None,
        timeout_s: float | None = None,
        idempotency_key: str = "",
        stop: Stop | None = None,
    ) -> EffectOutcome:
        calls = effect.payload.get("tool_calls")
        if not isinstance(calls, list):
            return EffectOutcome.failed("tool_calls requires payload.tool_calls, a list of {name, arguments, call_id}")
        context = ToolContext(run, idempotency_key=idempotency_key, timeout_s=timeout_s, stop=stop)
        specs = {str(spec["name"]): spec for spec in specs_of(tools, [_name_of(call) for call in calls])}
        decided = effect.payload.get(tool_waits.DECIDED)
        if isinstance(decided, dict):
            return EffectOutcome.completed(_approved(tools, specs, calls, decided, context))
        batch = _sorted(effect.payload, calls, specs, mode)
        executed = {index: _executed(tools, specs, calls[index], context) for index in batch.ready}
        if not batch.asked:
            return EffectOutcome.completed(tool_waits.executed({**batch.results, **executed}, len(calls)))
        wait = _wait(batch, executed, mode, specs, context, effect)
        wait.resume_to_node = effect.payload.get("resume_to_node") or default_next_node
        wait.result_key = effect.result_key
        return EffectOutcome.waiting(wait)

    return perform


def _sorted(payload: JsonObject, calls: list[Any], specs: Mapping[str, JsonObject], mode: ToolMode) -> _Batch:
    """Decide about each call: its name and arguments are refused, or it is executed now, or asked about."""
    batch = _Batch(calls)
    allowed = payload.get("allowed_tools")
    permitted = {str(name) for name in allowed} if isinstance(allowed, list) else None
    for index, call in enumerate(calls):
        name = _name_of(call)
        error = _refusal(call, name, specs, permitted, mode)
        if error is not None:
            batch.results[index] = failed_result(call, error)
        elif _waits(specs.get(name, {}), mode):
            batch.asked.append(index)
        else:
            batch.ready.append(index)
    return batch


def _waits(spec: JsonObject, mode: ToolMode) -> bool:
    return mode in ("passthrough", "delegated") or (mode == "approval" and spec.get(NEEDS_APPROVAL) is True)


def _refusal(
    call: Any, name: str, specs: Mapping[str, JsonObject], permitted: set[str] | None, mode: ToolMode
) -> str | None:
    """Return why a call is not made. A program that executes calls may have tools that the gateway does not know."""
    is_elsewhere = mode == "delegated" and bool(name)
    if name not in specs and not is_elsewhere:
        return f"there is no tool {name!r}; known: {', '.join(sorted(specs)) or 'none'}"
    if permitted is not None and name not in permitted:
        return f"Tool '{name}' is not allowed"
    return _argument_problem(call, specs.get(name, {}))


def _argument_problem(call: JsonObject, spec: JsonObject) -> str | None:
    try:
        arguments = _argument_object(call.get("arguments"))
    except Invalid as error:
        return f"{type(error).__name__}: {error}"
    found = problems(arguments, spec.get("parameters") or {})
    return f"the arguments are not what the tool takes: {'; '.join(found)}" if found else None


def _wait(
    batch: _Batch,
    executed: Mapping[int, JsonObject],
    mode: ToolMode,
    specs: Mapping[str, JsonObject],
    context: ToolContext,
    effect: Effect,
) -> WaitState:
    asked = {index: _as_asked(batch.calls[index]) for index in batch.asked}
    if mode == "delegated":
        key = effect.payload.get("wait_key") or f"tool_calls:{context.run.run_id}:{context.idempotency_key}"
        return tool_waits.job_wait(asked, count=len(batch.calls), refused=batch.results, wait_key=str(key))
    policy = {
        "auto_approve_tools": sorted(name for name, spec in specs.items() if not _waits(spec, mode)),
        "require_approval_tools": sorted(name for name, spec in specs.items() if _waits(spec, mode)),
    }
    return tool_waits.approval_wait(
        asked,
        count=len(batch.calls),
        refused=batch.results,
        executed=executed,
        key=context.idempotency_key,
        policy=policy,
    )


def _as_asked(call: JsonObject) -> JsonObject:
    """Return a call as it is shown to whoever decides, and executed: its arguments as an object."""
    return {**call, "name": _name_of(call), "arguments": _argument_object(call.get("arguments"))}


def _approved(
    tools: ToolBox, specs: Mapping[str, JsonObject], calls: list[Any], decided: JsonObject, context: ToolContext
) -> JsonObject:
    """Execute what was approved, and return it among the results of all calls."""
    results = {int(index): result for index, result in decided["results_by_index"].items()}
    for index, call in zip(decided["indexes"], calls, strict=True):
        name = _name_of(call)
        error = _refusal(call, name, specs, None, "local")
        results[index] = failed_result(call, error) if error else _executed(tools, specs, call, context)
    return tool_waits.executed(results, int(decided["original_call_count"]))


def _name_of(call: Any) -> str:
    return str(call.get("name") or "").strip() if isinstance(call, dict) else ""


def _executed(tools: ToolBox, specs: Mapping[str, JsonObject], call: JsonObject, context: ToolContext) -> JsonObject:
    identity = str(call.get("runtime_call_id") or context.idempotency_key)
    own = ToolContext(context.run, str(call.get("call_id") or ""), identity, context.timeout_s, context.stop)
    if context.stop is not None and context.stop.is_set():
        return failed_result(call, "it was not wanted any more before it was executed")
    try:
        output = execute_tool(tools, _name_of(call), _argument_object(call.get("arguments")), own)
        check_json(output, field="output")
    except (Exception, SystemExit) as error:  # a tool may raise anything; its failure is this call's result
        return failed_result(call, f"{type(error).__name__}: {error}")
    return succeeded_result(call, output)


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
    if not callable(function):
        raise Invalid("tools", f"{name!r} is {type(function).__name__}, which cannot be called")
    described = {"name": name, "description": inspect.getdoc(function) or ""}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {**described, "parameters": {"type": "object", "properties": {}, "additionalProperties": True}}
    asked = [item for item in parameters if item.kind not in _COLLECTING and item.name not in _TOLD]
    nameless = next((item.name for item in asked if item.kind is inspect.Parameter.POSITIONAL_ONLY), None)
    if nameless is not None:
        raise Invalid("tools", f"{name!r} takes {nameless!r} by position only; wrap it in a function that names it")
    properties = {parameter.name: _schema_of(parameter) for parameter in asked}
    required = [parameter.name for parameter in asked if parameter.default is inspect.Parameter.empty]
    return {**described, "parameters": {"type": "object", "properties": properties, "required": required}}


def _schema_of(parameter: inspect.Parameter) -> JsonObject:
    hint = parameter.annotation
    name = hint if isinstance(hint, str) else getattr(hint, "__name__", "")
    if name not in _JSON_TYPES:
        return {}
    type_name = _JSON_TYPES[name]
    return {"type": [type_name, "null"] if parameter.default is None else type_name}

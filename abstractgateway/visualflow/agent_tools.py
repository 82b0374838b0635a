"""The tools that an agent has of its own: they are effects of its run, not tools of the gateway.

An agent has those that its `tools` name. Their names are taken: a tool of the gateway by the same name is not called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..runtime.effects.memory.compact import MODES
from ..runtime.effects.memory.inputs import SCOPES
from ..runtime.json_schema import problems
from ..runtime.models import Effect, EffectType
from .values import as_list, as_object

_NAME = {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class OwnTool:
    """What a model is told of a tool, and the effect that its arguments ask for."""

    spec: JsonObject
    effect: EffectType
    payload: Callable[[JsonObject], JsonObject]

    def effect_of(self, arguments: Any, result_key: str) -> Effect:
        """Return the effect that a call asks for. Raises `Invalid` for arguments that the model was not told of.

        Null is no argument, and a text of blanks none that is required.
        """
        given = _given(arguments) if isinstance(arguments, dict) else arguments
        found = problems(given, self.spec["parameters"])
        if found:
            raise Invalid("arguments", "; ".join(found))
        return Effect(self.effect, self.payload(given), result_key)


def _given(arguments: JsonObject) -> JsonObject:
    is_blank = {name: isinstance(value, str) and not value.strip() for name, value in arguments.items()}
    return {name: value for name, value in arguments.items() if value is not None and not is_blank[name]}


def _tool(
    name: str,
    text: str,
    effect: EffectType,
    properties: JsonObject,
    required: tuple[str, ...] = (),
    payload: Callable[[JsonObject], JsonObject] = dict,
) -> tuple[str, OwnTool]:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return name, OwnTool({"name": name, "description": text, "parameters": schema}, effect, payload)


def _question(arguments: JsonObject) -> JsonObject:
    return {"prompt": arguments["question"], "choices": arguments.get("choices"), "allow_free_text": True}


def _in_session(arguments: JsonObject) -> JsonObject:
    """An agent's run ends with its answer, so what it is to remember is the session's unless it says otherwise."""
    return {"scope": "session", **arguments}


OWN_TOOLS: Mapping[str, OwnTool] = dict(
    (
        _tool(
            "ask_user",
            "Ask the user a question and wait for the answer.",
            EffectType.ASK_USER,
            {"question": _NAME, "choices": {"type": "array", "items": {"type": "string"}}},
            ("question",),
            _question,
        ),
        _tool(
            "recall_memory",
            "Look for notes and archived conversations that mention a text.",
            EffectType.MEMORY_QUERY,
            {
                "query": _NAME,
                "scope": {"type": "string", "enum": [*SCOPES, "all"]},
                "recall_level": {"type": "string", "enum": ["urgent", "standard", "deep"]},
                "limit_spans": {"type": "integer", "minimum": 1},
            },
            ("query",),
            _in_session,
        ),
        _tool(
            "remember_note",
            "Write a note into memory, to be found by recall_memory later.",
            EffectType.MEMORY_NOTE,
            {
                "note": {"type": "string", "minLength": 1},
                "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                "scope": {"type": "string", "enum": list(SCOPES)},
            },
            ("note",),
            _in_session,
        ),
        _tool(
            "compact_memory",
            "Replace the older part of this conversation by a summary.",
            EffectType.MEMORY_COMPACT,
            {
                "preserve_recent": {"type": "integer", "minimum": 0},
                "compression_mode": {"type": "string", "enum": list(MODES)},
                "focus": {"type": "string"},
            },
        ),
        _tool(
            "inspect_vars",
            "Read one of your variables, such as scratchpad or context.task.",
            EffectType.VARS_QUERY,
            {"path": _NAME, "keys_only": {"type": "boolean"}},
        ),
    )
)


def name_of(tool: Any) -> str | None:
    """Return the name of a tool that is given by name or by specification."""
    if isinstance(tool, str):
        return tool
    fields = as_object(tool)
    name = as_object(fields.get("function")).get("name") or fields.get("name")
    return name if isinstance(name, str) else None


def offered(tools: list[Any]) -> list[Any]:
    """Return tools as a model call names them: an agent's own by specification, others as they were given."""
    return [OWN_TOOLS[tool].spec if isinstance(tool, str) and tool in OWN_TOOLS else tool for tool in tools]


def result_of(call: JsonObject, raw: Any) -> JsonObject:
    """Return what an own tool gave, in the form that results of tools have."""
    fields = as_object(raw)
    entry = as_object(next(iter(as_list(fields.get("results"))), None))
    given = entry or {"success": True, "output": fields.get("response", raw)}
    told = {name: given.get(name) for name in ("success", "output", "error")}
    return {"call_id": call["call_id"], "name": call["name"], **told}

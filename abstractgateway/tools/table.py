"""The built-in tools as a tool box: one row for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..runtime.effects.tools import NEEDS_APPROVAL, ToolContext

ALL, NONE = "all", "none"


@dataclass(frozen=True)
class BuiltinTool:
    """A tool: what a model is told of it, and the function that does it, called `(context, **arguments)`.

    `parameters` are JSON schemas by name; those in `optional` may be left out. A guarded tool waits for approval where
    the tool mode says so; one that is not repeatable must not be executed a second time unasked.
    """

    name: str
    toolset: str
    description: str
    when_to_use: str
    parameters: Mapping[str, JsonObject]
    function: Callable[..., Any]
    optional: tuple[str, ...] = ()
    examples: tuple[JsonObject, ...] = ()
    is_guarded: bool = False
    is_repeatable: bool = True

    @cached_property
    def spec(self) -> JsonObject:
        """What models and clients are told: `{name, description, when_to_use, parameters, required_args, …}`."""
        required = [name for name in self.parameters if name not in self.optional]
        schema = {
            "type": "object",
            "properties": dict(self.parameters),
            "required": required,
            "additionalProperties": False,
        }
        return {
            "name": self.name,
            "description": self.description,
            "when_to_use": self.when_to_use,
            "parameters": schema,
            "required_args": required,
            "examples": [{"arguments": arguments} for arguments in self.examples],
            "toolset": self.toolset,
            NEEDS_APPROVAL: self.is_guarded,
        }


@dataclass(frozen=True)
class BuiltinTools:
    """Those of the built-in tools that are switched on."""

    tools: Mapping[str, BuiltinTool] = field(default_factory=dict)

    @staticmethod
    def of(rows: Iterable[BuiltinTool], wanted: Iterable[str] = (ALL,), without: Iterable[str] = ()) -> BuiltinTools:
        """Return the tools that are wanted by name, or all, or none; `without` are names that others have.

        Raises `Invalid` for a name that no tool has.
        """
        known, names = {row.name: row for row in rows}, tuple(wanted)
        unknown = next((name for name in names if name not in known and name not in (ALL, NONE)), None)
        if unknown is not None:
            listed = ", ".join((ALL, NONE, *sorted(known)))
            raise Invalid("ABSTRACTGATEWAY_TOOLS", f"there is no tool {unknown!r}; known: {listed}")
        on = known if ALL in names else {name: known[name] for name in names if name in known}
        taken = frozenset(without)
        return BuiltinTools({name: row for name, row in on.items() if name not in taken})

    def specs(self) -> list[JsonObject]:
        return [row.spec for row in self.tools.values()]

    def execute(self, name: str, arguments: JsonObject, *, tool_context: ToolContext | None = None) -> Any:
        """Execute a tool for a run. Raises `Invalid` for one that is not on, and what the tool raises."""
        row = self.tools.get(name)
        if row is None or tool_context is None:
            raise Invalid("name", f"there is no tool {name!r}, or no run to execute it for")
        return row.function(tool_context, **arguments)

    def repeatable(self) -> frozenset[str]:
        """Return the names of the tools that may be executed again after a crash."""
        return frozenset(name for name, row in self.tools.items() if row.is_repeatable)

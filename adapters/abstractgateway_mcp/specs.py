"""Tools as their servers list them, and as models are told of them."""

from __future__ import annotations

import hashlib
import re

from mcp.types import Tool

from abstractgateway.errors import Invalid
from abstractgateway.jsonvalue import JsonObject, check_json, dumps
from abstractgateway.security import Redactor

from .servers import Server

SEPARATOR = "__"
MAX_TOOLS = 2_000
"""Of one server; far more than a model can be offered at once."""

_MOST_NAME = 64  # what OpenAI and Anthropic allow
_MOST_DESCRIPTION = 8_000
_MOST_SCHEMA_BYTES = 65_536
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def offered(server: Server, tools: list[Tool], redactor: Redactor) -> dict[str, tuple[str, JsonObject]]:
    """Return, by the name that models use, the server's own name and the spec of each tool that may be called.

    A tool that cannot be described to a model, because its schema is too large or no JSON, is left out.
    """
    found: dict[str, tuple[str, JsonObject]] = {}
    for tool in tools:
        spec = redactor.value(_spec(server, tool))
        if server.has_allowed(tool.name) and spec is not None:
            found[str(spec["name"])] = (tool.name, spec)
    return found


def exposed_name(server: str, tool: str) -> str:
    """Return the name that models use: `server__tool`; what is odd or too long is replaced by a piece of its hash."""
    name = f"{server}{SEPARATOR}{_UNSAFE.sub('_', tool)}"
    if len(name) <= _MOST_NAME and name.endswith(tool) and tool:
        return name
    mark = hashlib.sha256(tool.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _MOST_NAME - len(mark) - 1]}_{mark}"


def _spec(server: Server, tool: Tool) -> JsonObject | None:
    spec: JsonObject = {
        "name": exposed_name(server.name, tool.name),
        "description": (tool.description or tool.title or "")[:_MOST_DESCRIPTION],
        "parameters": {"type": "object", "properties": {}, **tool.input_schema},
        "annotations": tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {},
        "server": server.name,
    }
    try:
        check_json(spec)
        return spec if len(dumps(spec)) <= _MOST_SCHEMA_BYTES else None
    except Invalid:
        return None

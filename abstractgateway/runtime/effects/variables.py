"""Looking into a run's variables, as a tool an agent can call."""

from __future__ import annotations

import json
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject
from ..models import EffectOutcome
from ..offloading import check_whole
from .request import EffectRequest

_MISSING = object()


def vars_query(request: EffectRequest) -> EffectOutcome:
    """Read a variable: payload `path` (default `scratchpad`), `keys_only`, `target_run_id`; the result is a tool's."""
    path = str(request.first("path", "var_path", default="scratchpad"))
    target = request.first("target_run_id", default=request.state.run_id)
    state = request.draft.peek(str(target))
    if state is None:
        return _tool_result(request, error=f"unknown run {target!r}")
    try:
        value = resolve_vars_path(check_whole(state).vars, path)
    except Invalid as error:
        return _tool_result(request, error=error.why)
    found: JsonObject = {"path": path, "type": type(value).__name__}
    if request.payload.get("keys_only") and isinstance(value, dict):
        found["keys"] = sorted(value)
    elif request.payload.get("keys_only") and isinstance(value, list):
        found["length"] = len(value)
    else:
        found["value"] = value
    return _tool_result(request, output=json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False))


def parse_vars_path(path: str) -> list[str]:
    """Return the segments of `a.b[0].c`, `a.b.0` or `/a/b/0`."""
    if path.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    return [part for part in path.replace("[", ".").replace("]", "").split(".") if part]


def resolve_vars_path(vars: JsonObject, path: str) -> Any:
    """Return the value at a path. Raises `Invalid` saying which segment is missing."""
    value: Any = vars
    for segment in parse_vars_path(path):
        if isinstance(value, dict):
            value = value.get(segment, _MISSING)
            if value is _MISSING:
                raise Invalid("path", f"Missing key {segment!r} in {path!r}")
        elif isinstance(value, list):
            if not segment.isdigit() or int(segment) >= len(value):
                raise Invalid("path", f"Index {segment!r} is not in the list of {len(value)} in {path!r}")
            value = value[int(segment)]
        else:
            raise Invalid("path", f"Expected object or list at {segment!r} in {path!r}")
    return value


def _tool_result(request: EffectRequest, *, output: str | None = None, error: str | None = None) -> EffectOutcome:
    entry = {
        "call_id": str(request.first("call_id", default="vars")),
        "name": str(request.first("tool_name", default="inspect_vars")),
        "success": error is None,
        "output": output,
        "error": error,
    }
    return EffectOutcome.completed({"mode": "executed", "results": [entry]})

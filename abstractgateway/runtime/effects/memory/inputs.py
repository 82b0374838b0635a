"""Reading the payloads of the memory effects: each field is what it should be, or named in an error."""

from __future__ import annotations

import math
from typing import Any, Protocol

from ....clock import parse_iso
from ....errors import Invalid
from ....jsonvalue import JsonObject
from ...draft import OpenRun
from ..request import EffectRequest

SCOPES = ("run", "session", "global")


class Fields(Protocol):
    """A payload whose fields may have several names."""

    def first(self, *names: str, default: Any = None) -> Any:
        """Return the first of these fields that is there and not null."""


def scope_of(request: EffectRequest, *, may_be_all: bool) -> str:
    """Return the scope an effect names, `run` by default. Raises `Invalid` for an unknown one."""
    scope = str(request.payload.get("scope") or "run").strip().lower()
    known = (*SCOPES, "all") if may_be_all else SCOPES
    if scope not in known:
        raise Invalid("scope", f"{scope!r} is not one of {', '.join(known)}")
    return scope


def base_run(request: EffectRequest) -> OpenRun:
    """Return the run an effect is about: `target_run_id`, else its own. Raises `NotFound` for an unknown one."""
    target = request.payload.get("target_run_id")
    return request.draft.open(str(target)) if target else request.run


def whole(request: Fields, *names: str) -> int | None:
    """Return the first of these fields as a whole number; None when none is there."""
    value = request.first(*names)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number != int(number):
        raise Invalid(names[0], f"{value!r} is not a whole number")
    return int(number)


def flag(request: Fields, *names: str) -> bool | None:
    """Return the first of these fields as true or false; None when none is there."""
    value = request.first(*names)
    if isinstance(value, str):
        lowered = value.strip().lower()
        if lowered in ("true", "false", ""):
            return None if not lowered else lowered == "true"
        raise Invalid(names[0], f"{value!r} is neither true nor false")
    return bool(value) if value is not None else None


def text(request: Fields, *names: str) -> str | None:
    """Return the first of these fields as a text without blanks around it; None for a blank or missing one."""
    value = request.first(*names)
    return (str(value).strip() or None) if value is not None else None


def texts(value: Any) -> list[str]:
    """Return a text, or a list of them, as a list of texts that are not blank."""
    items = value if isinstance(value, list) else [value]
    return [item.strip() for item in items if isinstance(item, str) and item.strip()]


def references(request: EffectRequest) -> list[str | int] | None:
    """Return the spans that `span_ids` or `span_id` names: artifact ids, and numbers from 1; None when neither does.

    A text of up to six digits is a number. Raises `Invalid` for anything else.
    """
    value = request.first("span_ids", "span_id")
    if value is None or value == "":
        return None
    return [_reference(item) for item in (value if isinstance(value, list) else [value])]


def _reference(item: Any) -> str | int:
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, int) and not isinstance(item, bool):
        return item
    if not isinstance(item, str) or not item.strip():
        raise Invalid("span_ids", f"{item!r} is neither the id of a span nor its number")
    name = item.strip()
    return int(name) if name.isdecimal() and len(name) <= 6 else name


def tags_of(value: Any) -> dict[str, str]:
    """Return tags as texts by name; `kind` belongs to the kernel and is left out, and so is what is empty.

    Raises `Invalid` for a value that is no object, and for a tag that is a list or an object.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid("tags", f"must be an object of texts, not {type(value).__name__}")
    found: dict[str, str] = {}
    for name, tag in value.items():
        if isinstance(tag, (dict, list)):
            raise Invalid("tags", f"{name!r} is {tag!r}; a tag is a text")
        shown = str(tag).strip() if tag is not None else ""
        if name.strip() and name.strip() != "kind" and shown:
            found[name.strip()] = shown
    return found


def instant(request: Fields, name: str) -> float | None:
    """Return a time field as seconds since the epoch; None when it is not there. Raises `Invalid` for no time."""
    value = text(request, name)
    return parse_iso(value, field=name).timestamp() if value is not None else None


def tool_result(
    request: EffectRequest, output: str, meta: JsonObject | None, *, name: str, call_id: str = "memory"
) -> JsonObject:
    """Return a result in the form of an executed tool call; `tool_name` and `call_id` of the payload win."""
    entry = {
        "call_id": str(request.first("call_id", default=call_id)),
        "name": str(request.first("tool_name", default=name)),
        "success": True,
        "output": output,
        "error": None,
        "meta": meta,
    }
    return {"mode": "executed", "results": [entry]}

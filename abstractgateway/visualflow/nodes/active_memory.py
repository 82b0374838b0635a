"""A run's active memory: what a model is to be reminded of, in named modules, filled from a knowledge graph.

It is kept at `vars._runtime.active_memory` in the layout of AbstractRuntime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...jsonvalue import JsonObject
from ..flow import Node
from ..node import Action, Evaluate, Inputs, NodeType
from ..state import Step
from ..values import as_list, as_object, first_text

_CONTEXT = "current_context"
_LIMITS: Mapping[str, int] = {
    "relationships": 40,
    "current_tasks": 8,
    _CONTEXT: 60,
    "critical_insights": 60,
    "references": 80,
    "history": 200,
}
_TITLES = {"persona": "MY PERSONA", **{name: name.replace("_", " ").upper() for name in _LIMITS}}
_TOLD = ("ok", "count", "packed_count", "estimated_tokens", "dropped", "effort", "warnings")
_MARKER = "KG:"
_TRACED = 50
"""How many statements a trace names; it is for people."""


def _compose(_node: Node) -> Evaluate:
    def compose(inputs: Inputs, step: Step) -> JsonObject:
        result = inputs.get("kg_result")
        if not isinstance(result, dict):
            kind = "nothing" if result is None else f"a {type(result).__name__}"
            error = f"'kg_result' is {kind}, not an object: connect 'raw' of a memory_kg_query"
            return {**_outputs({}), "ok": False, "delta": {}, "trace": {}, "error": error}
        marker = first_text(inputs.get("marker")) or _MARKER
        source, packets = _packets(result, _most(inputs.get("max_items")))
        memory = _memory_of(step)
        added = [f"{marker} {_line(packet)}" for packet in packets]
        removed = _replace(memory, marker, added, step)
        trace = {
            "stimulus": str(inputs.get("stimulus") or ""),
            "marker": marker,
            "packet_source": source,
            "kg": {name: result.get(name) for name in _TOLD},
            "delta_preview": {"removed": len(removed), "added": len(added)},
            "selected": packets[:_TRACED],
        }
        return {
            **_outputs(memory),
            "ok": True,
            "delta": {_CONTEXT: {"added": added, "removed": removed}},
            "trace": trace,
        }

    return compose


def _most(value: Any) -> int | None:
    """Return how many statements are wanted at most; what is not a positive number means all of them."""
    try:
        number = 0 if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number > 0 else None


def _packets(result: JsonObject, most: int | None) -> tuple[str, list[JsonObject]]:
    """Return where the statements come from, and each of them once, in the order of the result."""
    packed = as_list(result.get("packets"))
    given = packed or as_list(result.get("items"))
    found = (_packet(item) for item in given if isinstance(item, dict))
    distinct = list({(item["statement"], item["span_id"]): item for item in found if item is not None}.values())
    source = "none" if not given else "kg_result.packets" if packed else "kg_result.items"
    return source, distinct[:most]


def _packet(item: JsonObject) -> JsonObject | None:
    own = first_text(item.get("statement"))
    parts = [_word(item.get(name)) for name in ("subject", "predicate", "object")]
    if own is None and not all(parts):
        return None
    attributes = as_object(as_object(item.get("attributes")).get("_retrieval"))
    return {
        "statement": own or f"{parts[0]} —{parts[1]}→ {parts[2]}",
        "span_id": first_text(item.get("span_id"), as_object(item.get("provenance")).get("span_id")),
        "observed_at": item.get("observed_at"),
        "retrieval_score": attributes.get("score", item.get("retrieval_score")),
    }


def _word(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _line(packet: JsonObject) -> str:
    span = packet["span_id"]
    return f"{packet['statement']} (span:{span})" if span else str(packet["statement"])


def _memory_of(step: Step) -> JsonObject:
    """Return a copy of the run's active memory with everything that belongs into one."""
    own = as_object(step.vars.get("_runtime"))
    stored = as_object(own.get("active_memory"))
    modules = {name: [item for item in as_list(stored.get(name)) if isinstance(item, dict)] for name in _LIMITS}
    begun = {"version": 1, "persona": "", "created_at": step.ctx.now_iso()}
    return {**begun, **stored, **modules, "limits": {**_LIMITS, **as_object(stored.get("limits"))}}


def _replace(memory: JsonObject, marker: str, added: list[str], step: Step) -> list[str]:
    """Put statements in the place of those with the same marker, the last first, and return which went."""
    now = step.ctx.now_iso()
    old = memory[_CONTEXT]
    gone = [str(item.get("text")) for item in old if str(item.get("text") or "").startswith(marker)]
    kept = [item for item in old if not str(item.get("text") or "").startswith(marker)]
    shown_at = step.ctx.now().strftime("%y/%m/%d %H:%M:%S")
    made = [{"id": f"ctx_{step.ctx.new_id()}", "text": text, "ts": shown_at, "created_at": now} for text in added]
    memory[_CONTEXT] = [*reversed(made), *kept][: _most(memory["limits"][_CONTEXT]) or _LIMITS[_CONTEXT]]
    memory["updated_at"] = now
    step.vars["_runtime"] = {**as_object(step.vars.get("_runtime")), "active_memory": memory}
    return gone


def _outputs(memory: JsonObject) -> JsonObject:
    blocks = [_block(name, memory.get(name)) for name in _TITLES] if memory else []
    prompt = "\n\n".join(f"## {block['title']}\n{block['content']}" for block in blocks)
    return {"active_memory": memory, "memact_blocks": blocks, "memact_system_prompt": prompt}


def _block(name: str, value: Any) -> JsonObject:
    lines = [_entry(item) for item in value] if isinstance(value, list) else [str(value or "")]
    return {"component_id": name, "title": _TITLES[name], "content": "\n".join(lines).strip() or "(empty)"}


def _entry(item: JsonObject) -> str:
    when = first_text(item.get("ts"))
    return f"- [{when}] {item.get('text') or ''}" if when else f"- {item.get('text') or ''}"


TYPES = (
    NodeType(
        "memact_compose",
        "memory",
        Action(_compose),
        ("kg_result", "stimulus", "marker", "max_items"),
        ("ok", "delta", "trace", "active_memory", "memact_blocks", "memact_system_prompt"),
        "Puts the statements of a knowledge graph into the run's active memory, in place of those put there before.",
        {"marker": _MARKER},
    ),
)

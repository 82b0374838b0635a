"""Packing statements into a text that fits a model's input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..jsonvalue import JsonObject

VERSION = 0

_TOLD = {"observed_at": "observed_at", "scope": "scope", "owner_id": "owner_id"}
_FROM_PROVENANCE = ("span_id", "writer_run_id", "writer_workflow_id")
_BYTES_PER_TOKEN = 4


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has for any model: one for each four bytes of UTF-8."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def packets_of(items: Iterable[JsonObject]) -> list[JsonObject]:
    """Return what a model is told of statements, each once for each time it was observed, in their order."""
    distinct: dict[tuple[str, ...], JsonObject] = {}
    for packet in map(_packet, items):
        said = (packet["subject"], packet["predicate"], packet["object"].casefold(), str(packet.get("observed_at")))
        distinct.setdefault(said, packet)
    return list(distinct.values())


def _packet(item: JsonObject) -> JsonObject:
    subject, relation, target = (" ".join(item[name].split()) for name in ("subject", "predicate", "object"))
    score = item["attributes"].get("_retrieval", {}).get("score")
    packet: JsonObject = {
        "version": VERSION,
        "statement": f"{subject} —{relation}→ {target}",
        "subject": subject,
        "predicate": relation,
        "object": target,
        **{name: item.get(field) for name, field in _TOLD.items()},
        **{name: item["provenance"].get(name) for name in _FROM_PROVENANCE},
        "retrieval_score": score,
    }
    return {name: value for name, value in packet.items() if value is not None}


def packed(packets: Sequence[JsonObject], *, scope: str, budget: int) -> JsonObject:
    """Return the fields of a result that show as many of the first packets as fit `budget` tokens.

    That is `{packets_version, packets, packed_count, active_memory_text, estimated_tokens, dropped}`.
    """
    by = "relevance" if any("retrieval_score" in packet for packet in packets) else "time"
    heading = f"## KG ACTIVE MEMORY\n(scope={scope}; order={by}; budget={budget} tokens)\n"
    lines, tokens = [heading], estimated_tokens(heading)
    for packet in packets:
        line = _line(packet)
        cost = estimated_tokens(f"\n{line}")
        if tokens + cost > budget:
            break
        lines.append(line)
        tokens += cost
    kept = len(lines) - 1
    return {
        "packets_version": VERSION,
        "packets": list(packets[:kept]),
        "packed_count": kept,
        "active_memory_text": "\n".join(lines) if kept else "",
        "estimated_tokens": tokens if kept else 0,
        "dropped": len(packets) - kept,
    }


def _line(packet: JsonObject) -> str:
    observed, span, score = (packet.get(name) for name in ("observed_at", "span_id", "retrieval_score"))
    facts = [f"span:{span}"] if span else []
    facts += [f"score:{score:.3f}"] if score is not None else []
    when = f"[{observed}] " if observed else ""
    return f"- {when}{packet['statement']}" + (f" ({'; '.join(facts)})" if facts else "")

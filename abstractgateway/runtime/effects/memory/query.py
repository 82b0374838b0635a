"""Looking into memory: which spans match, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....errors import Invalid, NotFound
from ....jsonvalue import JsonObject
from ...models import EffectOutcome
from ..request import EffectRequest
from .inputs import base_run, flag, references, scope_of, text, texts, tool_result, whole
from .matching import connected, filter_of
from .messages import Message, text_of
from .owners import find_owners
from .reading import Found, SpanReader
from .recall import Effort, recall_level
from .spans import EVIDENCE, artifacts_of, newest_first, resolve, seconds, spans_of

_RETURNS = ("rendered", "meta", "both")
_DEFAULT_SPANS, _DEEP_SPANS, _DEEP_MESSAGES = 5, 50, 400
_META = ("created_by", "location", "note_preview", "message_count", "summary_message_id")
NOTHING = "No matching memory spans."


@dataclass(frozen=True)
class Breadth:
    """How far a query looks, after its recall level."""

    spans: int
    is_deep: bool
    deep_spans: int
    deep_messages: int
    is_connected: bool
    hops: int
    messages: int


def memory_query(request: EffectRequest) -> EffectOutcome:
    """Find what is remembered; the fields of the payload are in docs/memory.md.

    Spans are looked at newest first, and numbers in `span_ids` count in that order from 1. The result is a tool's:
    `output` is a text to read, `meta` (where `return` asks for it) the matches as data.
    """
    scope, shape = scope_of(request, may_be_all=True), (text(request, "return", "return_mode") or "rendered").lower()
    if shape not in _RETURNS:
        raise Invalid("return", f"{shape!r} is not one of {', '.join(_RETURNS)}")
    named, query = references(request), text(request, "query")
    if scope == "all" and any(isinstance(item, int) for item in named or ()):
        raise Invalid("span_ids", "has a number, which means nothing in scope 'all'; give artifact ids")
    effort = Effort(recall_level(request.first("recall_level", "recallLevel")))
    breadth = _breadth(request, effort, query is not None)
    reader = SpanReader(artifacts_of(request), warnings=effort.warnings)
    known = _candidates(request, scope)
    matches = _matches(request, named, query, known, breadth, reader)
    if breadth.is_connected:
        matches += _connected(request, matches, known, breadth.hops)
    output = render(matches, reader, breadth.messages) if shape != "meta" else ""
    meta = _meta(matches, effort) if shape != "rendered" else None
    return EffectOutcome.completed(tool_result(request, output, meta, name="recall_memory"))


def _breadth(request: EffectRequest, effort: Effort, has_query: bool) -> Breadth:
    level, spans = effort.level, whole(request, "limit_spans")
    spans = spans if spans is None else max(1, spans)
    is_deep, is_connected = flag(request, "deep"), flag(request, "connected")
    messages = whole(request, "max_messages")
    if level is None:
        return Breadth(
            spans=effort.number("limit_spans", spans, None, otherwise=_DEFAULT_SPANS),
            is_deep=effort.switch("deep", is_deep, None, otherwise=has_query),
            deep_spans=_at_most(request, effort, "deep_limit_spans", _DEEP_SPANS, None),
            deep_messages=_at_most(request, effort, "deep_limit_messages_per_span", _DEEP_MESSAGES, None),
            is_connected=effort.switch("connected", is_connected, None, otherwise=False),
            hops=_at_most(request, effort, "neighbor_hops", 1, None),
            messages=effort.number("max_messages", messages, None, otherwise=-1),
        )
    return Breadth(
        spans=effort.number("limit_spans", spans, level.spans, otherwise=_DEFAULT_SPANS),
        is_deep=effort.switch("deep", is_deep, level.is_deep, otherwise=has_query),
        deep_spans=_at_most(request, effort, "deep_limit_spans", _DEEP_SPANS, level.deep_spans),
        deep_messages=_at_most(request, effort, "deep_limit_messages_per_span", _DEEP_MESSAGES, level.deep_messages),
        is_connected=effort.switch("connected", is_connected, level.is_connected, otherwise=level.is_connected),
        hops=_at_most(request, effort, "neighbor_hops", 1, level.hops),
        messages=effort.number("max_messages", messages, level.messages, otherwise=-1),
    )


def _at_most(request: EffectRequest, effort: Effort, name: str, otherwise: int, most: int | None) -> int:
    """Return a number that a level bounds without a default of its own: what it allows is what it uses."""
    wish = whole(request, name)
    chosen = wish if wish is not None else (otherwise if most is None else most)
    if most is not None and (chosen > most or chosen < 0):
        effort.warnings.append(f"{name}: {chosen} is more than the recall level gives; {most} is used")
        chosen = most
    effort.applied[name] = chosen
    return chosen


def _candidates(request: EffectRequest, scope: str) -> list[Found]:
    """Return the spans of a scope, newest first; evidence is not memory."""
    owners = find_owners(request.draft, base_run(request).state, scope, request.global_memory)
    spans = [(span, owner.state) for owner in owners for span in spans_of(owner.state)]
    order = newest_first([span for span, _ in spans if span.get("kind") != EVIDENCE])
    owner_of = {id(span): owner for span, owner in spans}
    return [Found(span, owner_of[id(span)]) for span in order]


def _matches(
    request: EffectRequest,
    named: Sequence[str | int] | None,
    query: str | None,
    known: list[Found],
    breadth: Breadth,
    reader: SpanReader,
) -> list[Found]:
    wanted = filter_of(request)
    chosen = known if named is None else _named(named, known, reader)
    chosen = [found for found in chosen if wanted.accepts(found.span)]
    if query is not None:
        chosen = _saying(query.lower(), chosen, breadth, reader)
    return chosen[: breadth.spans]


def _named(named: Sequence[str | int], known: list[Found], reader: SpanReader) -> list[Found]:
    spans = [found.span for found in known]
    chosen: dict[int, Found] = {}
    for reference in named:
        try:
            span = resolve(spans, reference)
        except NotFound as error:
            reader.warnings.append(str(error))
            continue
        chosen.setdefault(id(span), next(found for found in known if found.span is span))
    return list(chosen.values())


def _saying(needle: str, chosen: list[Found], breadth: Breadth, reader: SpanReader) -> list[Found]:
    """Return the spans that mention a text; archived messages are read only while the budget for it lasts."""
    left = breadth.deep_spans if breadth.is_deep else 0
    hits: list[Found] = []
    for found in chosen:
        if len(hits) >= breadth.spans:
            break
        is_hit = reader.mentions(found, needle)
        if not is_hit and left != 0:
            left -= 1
            is_hit = reader.says(found, needle, limit=breadth.deep_messages)
        if is_hit:
            hits.append(found)
    return hits


def _connected(request: EffectRequest, matches: list[Found], known: list[Found], hops: int) -> list[Found]:
    by_time = sorted(known, key=lambda found: seconds(found.span.get("created_at")) or 0.0)
    places = [place for place, found in enumerate(by_time) if any(found.span is match.span for match in matches)]
    connect_by = request.payload.get("connect_by")
    names = texts(connect_by) if connect_by is not None else ["topic", "person"]
    more = connected(places, [found.span for found in by_time], hops=max(0, hops), connect_by=names)
    return [by_time[place] for place in more]


def _meta(matches: list[Found], effort: Effort) -> JsonObject:
    meta: JsonObject = {"matches": [_entry(found) for found in matches], "span_ids": [found.id for found in matches]}
    told = effort.to_dict()
    if told is not None:
        meta |= {"effort": told, "warnings": list(effort.warnings)}
    elif effort.warnings:
        meta["warnings"] = list(effort.warnings)
    return meta


def _entry(found: Found) -> JsonObject:
    span = found.span
    entry: JsonObject = {
        "span_id": found.id,
        "kind": found.kind,
        "created_at": span.get("created_at"),
        "from_timestamp": span.get("from_timestamp"),
        "to_timestamp": span.get("to_timestamp"),
        "tags": dict(span["tags"]) if isinstance(span.get("tags"), dict) else {},
    }
    return {**entry, **{name: span[name] for name in _META if span.get(name) is not None}}


def render(matches: list[Found], reader: SpanReader, max_messages: int) -> str:
    """Return matches as a text: a heading, and for each span a line about it and what it says.

    Of archived conversations at most `max_messages` messages are shown in all; -1 shows every one.
    """
    if not matches:
        return NOTHING
    lines = [f"Memory spans found: {len(matches)}"]
    left = max_messages
    for number, found in enumerate(matches, 1):
        lines += ["", _headline(number, found)]
        summary, note = found.summary(), reader.note(found)
        lines += [f"  {summary}"] if summary else []
        lines += [f"  {line}" for line in note.splitlines()]
        messages = reader.messages(found)
        shown = messages if left < 0 else messages[:left]
        left = left if left < 0 else left - len(shown)
        lines += [_spoken(message) for message in shown]
        if len(shown) < len(messages):
            lines.append(f"  … {len(messages) - len(shown)} more messages")
    return "\n".join(lines)


def _headline(number: int, found: Found) -> str:
    span = found.span
    line = f"[{number}] span_id={found.id} kind={found.kind} msgs={span.get('message_count') or 0}"
    line += f" created_at={span.get('created_at')}"
    for name in ("created_by", "location"):
        if span.get(name):
            line += f" {name}={span[name]}"
    tags = span.get("tags")
    if isinstance(tags, dict) and tags:
        line += " tags=" + ",".join(f"{name}:{tag}" for name, tag in sorted(tags.items()))
    return line


def _spoken(message: Message) -> str:
    return f"  - {message.get('role') or 'unknown'}: {text_of(message)}"

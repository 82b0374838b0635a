"""Bringing what was archived back into the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ....errors import GatewayError, Invalid, NotFound
from ....jsonvalue import JsonObject
from ...commit import KernelArtifacts
from ...models import EffectOutcome
from ..request import EffectRequest
from .inputs import base_run, references, text, whole
from .messages import (
    SUMMARY_KIND,
    Message,
    is_system,
    message_id,
    messages_of,
    metadata_of,
    note_message,
    put_messages,
    text_of,
    with_metadata,
)
from .recall import Effort, recall_level
from .spans import CONVERSATION, NOTE, artifacts_of, load_json, newest_first, preview, resolve, span_id, spans_of

_PLACEMENTS = ("after_summary", "after_system", "end")


@dataclass
class Revived:
    """A span on its way back: its messages, and what is told about it."""

    span_id: str
    kind: str | None = None
    messages: list[Message] = field(default_factory=list)
    preview: str | None = None
    error: str | None = None
    inserted: int = 0
    skipped: int = 0

    def to_dict(self) -> JsonObject:
        names = ("span_id", "inserted", "skipped", "error", "kind", "preview")
        return {name: getattr(self, name) for name in names}


def memory_rehydrate(request: EffectRequest) -> EffectOutcome:
    """Insert archived messages and notes into `context.messages`; the fields are in docs/memory.md.

    Numbers in `span_ids` count the run's spans newest first, from 1. What is there already is skipped. The result is
    `{inserted, skipped, artifacts, effort, warnings}`; a span that cannot be brought back has its reason in
    `artifacts` and does not keep the others away.
    """
    named = references(request)
    if named is None:
        raise Invalid("", "requires payload.span_ids")
    placement = (text(request, "placement") or "after_summary").lower()
    if placement not in _PLACEMENTS:
        raise Invalid("placement", f"{placement!r} is not one of {', '.join(_PLACEMENTS)}")
    dedup_by = text(request, "dedup_by") or "message_id"
    effort = Effort(recall_level(request.first("recall_level", "recallLevel")))
    bound = effort.level.rehydrated if effort.level else None
    left = effort.number("max_messages", whole(request, "max_messages"), bound, otherwise=-1)
    artifacts, base = artifacts_of(request), base_run(request)
    spans = newest_first(spans_of(base.state))
    revived = [_revive(artifacts, spans, reference) for reference in dict.fromkeys(named)]
    messages = messages_of(base.state)
    _choose(revived, messages, dedup_by, left)
    if any(item.inserted for item in revived):
        placed = _placed(messages, revived, placement)
        put_messages(request.draft, base, placed)
        if isinstance(base.state.output, dict):
            base.state.output = {**base.state.output, "messages": placed}
    return EffectOutcome.completed(_told(revived, effort))


def _told(revived: list[Revived], effort: Effort) -> JsonObject:
    return {
        "inserted": sum(item.inserted for item in revived),
        "skipped": sum(item.skipped for item in revived),
        "artifacts": [item.to_dict() for item in revived],
        "effort": effort.to_dict(),
        "warnings": list(effort.warnings),
    }


def _revive(artifacts: KernelArtifacts, spans: Sequence[JsonObject], reference: str | int) -> Revived:
    """Read a span by its number in this run, or by its id, whoever's memory it is in."""
    try:
        name = span_id(resolve(spans, reference)) if isinstance(reference, int) else reference
        metadata = artifacts.get_metadata(name)
        if metadata is None:
            raise NotFound(f"no span {name!r}")
        return _read(artifacts, name, metadata.tags.get("kind"))
    except GatewayError as error:
        return Revived(str(reference), error=str(error))


def _read(artifacts: KernelArtifacts, name: str, kind: str | None) -> Revived:
    if kind not in (NOTE, CONVERSATION):
        return Revived(name, kind, error=f"spans of kind {kind!r} are not part of a conversation")
    body = load_json(artifacts, name)
    if kind == NOTE:
        note = str(body.get("note") or "")
        return Revived(name, kind, [note_message(name, note)], preview(note))
    archived = body.get("messages")
    found = [item for item in archived if isinstance(item, dict)] if isinstance(archived, list) else []
    messages = [with_metadata(item, rehydrated=True, source_artifact_id=name) for item in found]
    return Revived(name, kind, messages, preview(text_of(found[0])) if found else None)


def _choose(revived: list[Revived], present: list[Message], dedup_by: str, limit: int) -> None:
    """Leave in each span what is to be inserted: nothing twice, and of the rest the latest `limit` (-1: all)."""
    seen = {metadata_of(message).get(dedup_by) for message in present} - {None}
    left = limit
    for item in revived:
        fresh: list[Message] = []
        for message in item.messages:
            key = metadata_of(message).get(dedup_by)
            if key is None or key not in seen:
                fresh.append(message)
                seen.add(key)
        kept = fresh if left < 0 else fresh[max(0, len(fresh) - left) :]
        left = left if left < 0 else left - len(kept)
        item.inserted, item.skipped = len(kept), len(item.messages) - len(kept)
        item.messages = kept


def _placed(messages: list[Message], revived: list[Revived], placement: str) -> list[Message]:
    """Return the conversation with the spans in it: notes before conversations, each in the order they were named."""
    ordered = sorted(revived, key=lambda item: item.kind != NOTE)
    if placement == "end":
        return [*messages, *(message for item in ordered for message in item.messages)]
    behind: dict[str | None, list[Message]] = {}
    for item in ordered:
        summary = _summary_of(messages, item.span_id) if placement == "after_summary" else None
        behind.setdefault(summary, []).extend(item.messages)
    return _inserted(messages, behind)


def _inserted(messages: list[Message], behind: dict[str | None, list[Message]]) -> list[Message]:
    """Insert after the summaries with these ids, and what has none after the system messages at the beginning."""
    head = next((at for at, message in enumerate(messages) if not is_system(message)), len(messages))
    placed: list[Message] = []
    for at, message in enumerate(messages):
        if at == head:
            placed += behind.get(None, [])
        placed.append(message)
        name = message_id(message)
        placed += behind.get(name, []) if name is not None else []
    return placed + (behind.get(None, []) if head == len(messages) else [])


def _summary_of(messages: list[Message], name: str) -> str | None:
    """Return the id of the summary that stands for a span in a conversation."""
    for message in messages:
        metadata = metadata_of(message)
        if metadata.get("kind") == SUMMARY_KIND and metadata.get("source_artifact_id") == name:
            return message_id(message)
    return None

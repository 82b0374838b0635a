"""The content of spans, read once per query; an artifact that cannot be read is a warning, not an error."""

from __future__ import annotations

from dataclasses import dataclass, field

from ....errors import GatewayError
from ....jsonvalue import JsonObject, dumps
from ...commit import KernelArtifacts
from ...models import RunState
from .messages import Message, message_id, messages_of, text_of
from .spans import CONVERSATION, NOTE, Span, load_json, span_id


@dataclass(frozen=True)
class Found:
    """A span and the run whose memory it is in."""

    span: Span
    owner: RunState

    @property
    def id(self) -> str:
        return span_id(self.span)

    @property
    def kind(self) -> str:
        return str(self.span.get("kind") or "")

    def summary(self) -> str:
        """Return the summary that stands for an archived conversation in its run, or nothing."""
        wanted = self.span.get("summary_message_id")
        if not wanted:
            return ""
        return next((text_of(item) for item in messages_of(self.owner) if message_id(item) == wanted), "")


@dataclass
class SpanReader:
    """Reads the artifacts of spans."""

    artifacts: KernelArtifacts
    warnings: list[str] = field(default_factory=list)
    _bodies: dict[str, JsonObject] = field(default_factory=dict)

    def note(self, found: Found) -> str:
        """Return the text of a note; nothing for other spans."""
        if found.kind != NOTE:
            return ""
        return str(self._body(found).get("note") or found.span.get("note_preview") or "")

    def messages(self, found: Found) -> list[Message]:
        """Return the messages of an archived conversation; none for other spans."""
        if found.kind != CONVERSATION:
            return []
        archived = self._body(found).get("messages")
        return [item for item in archived if isinstance(item, dict)] if isinstance(archived, list) else []

    def mentions(self, found: Found, needle: str) -> bool:
        """Say whether the summary, the note or the metadata of a span contain a text (given in lower case)."""
        metadata = dumps(found.span, field="span").decode()
        return any(needle in shown.lower() for shown in (metadata, found.summary(), self.note(found)))

    def says(self, found: Found, needle: str, *, limit: int) -> bool:
        """Say whether one of the first messages of an archived conversation contains a text (in lower case)."""
        messages = self.messages(found)
        searched = messages if limit < 0 else messages[:limit]
        return any(needle in text_of(message).lower() for message in searched)

    def _body(self, found: Found) -> JsonObject:
        known = self._bodies.get(found.id)
        if known is None:
            try:
                known = load_json(self.artifacts, found.id)
            except GatewayError as error:
                self.warnings.append(f"span {found.id!r} cannot be read: {error}")
                known = {}
            self._bodies[found.id] = known
        return known

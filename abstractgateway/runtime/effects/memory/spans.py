"""Spans: what a run remembers, as an index in `vars._runtime.memory_spans` of artifacts that hold the content.

Lists are never changed in place, because whoever read them before may still hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....clock import parse_iso
from ....errors import Invalid, NotFound
from ....jsonvalue import JsonObject, dumps, loads
from ...commit import KernelArtifacts
from ...draft import Draft, OpenRun
from ...models import RunState
from ...paths import namespace
from ..request import EffectRequest

PREVIEW_CHARS = 160
NOTE, CONVERSATION, EVIDENCE = "memory_note", "conversation_span", "evidence"

Span = JsonObject


def artifacts_of(request: EffectRequest) -> KernelArtifacts:
    """Return the artifact store. Raises `Invalid` saying what to give when there is none."""
    found: KernelArtifacts | None = getattr(request.draft.stores, "artifacts", None)
    if found is None:
        raise Invalid(
            "artifacts",
            "the stores of this Runtime have no artifact store; give it stores that do, "
            "such as abstractgateway.stores.open_file_stores(directory)",
        )
    return found


def store_json(artifacts: KernelArtifacts, body: JsonObject, *, run_id: str, tags: dict[str, str]) -> str:
    """Keep a JSON object durably and return its artifact id."""
    stored = artifacts.store(dumps(body, field="artifact"), content_type="application/json", run_id=run_id, tags=tags)
    return stored.artifact_id


def load_json(artifacts: KernelArtifacts, artifact_id: str) -> JsonObject:
    """Return the JSON object of an artifact. Raises `NotFound` for an unknown one, `Invalid` for another content."""
    content = artifacts.load(artifact_id)
    if content is None:
        raise NotFound(f"no artifact {artifact_id!r}; a span id is that of a note or an archived conversation")
    body = loads(content, field=f"artifact {artifact_id}")
    if not isinstance(body, dict):
        raise Invalid("span_id", f"artifact {artifact_id!r} does not hold a span")
    return body


def spans_of(state: RunState) -> list[Span]:
    """Return a run's spans in the order they were added."""
    own = state.vars.get("_runtime")
    found = own.get("memory_spans") if isinstance(own, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def put_spans(draft: Draft, run: OpenRun, spans: list[Span]) -> None:
    """Give a run another list of spans."""
    namespace(run.state.vars, "_runtime")["memory_spans"] = spans
    run.touch(draft.now_iso())


def add_span(draft: Draft, run: OpenRun, span: Span) -> None:
    """Add a span to a run; one that is there already under the same id is replaced."""
    others = [item for item in spans_of(run.state) if span_id(item) != span["artifact_id"]]
    put_spans(draft, run, [*others, span])


def span_id(span: Span) -> str:
    return str(span.get("artifact_id") or "")


def newest_first(spans: Sequence[Span]) -> list[Span]:
    """Return spans by the time they were made, the newest first; of equal ones the later added comes first."""
    latest_first = list(reversed(spans))
    latest_first.sort(key=lambda span: seconds(span.get("created_at")) or 0.0, reverse=True)
    return latest_first


def resolve(ordered: Sequence[Span], reference: str | int) -> Span:
    """Return the span that an id or a number (from 1) means. Raises `NotFound`, saying how many there are."""
    if isinstance(reference, int):
        if 1 <= reference <= len(ordered):
            return ordered[reference - 1]
        raise NotFound(f"no span number {reference!r}; there are {len(ordered)}")
    found = next((span for span in ordered if span_id(span) == reference), None)
    if found is None:
        raise NotFound(f"no span {reference!r} among the {len(ordered)} there are")
    return found


def seconds(stamp: Any) -> float | None:
    """Return a stored time as seconds since the epoch; None for one that is missing or is no time."""
    if not isinstance(stamp, str) or not stamp:
        return None
    try:
        return parse_iso(stamp).timestamp()
    except Invalid:
        return None


def preview(note: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(note.split())
    return line if len(line) <= PREVIEW_CHARS else line[: PREVIEW_CHARS - 1] + "…"

"""Naming what is remembered, so that it can be found by its tags."""

from __future__ import annotations

from ....errors import Invalid, NotFound
from ....jsonvalue import JsonObject
from ...draft import OpenRun
from ...models import EffectOutcome
from ..request import EffectRequest
from .inputs import base_run, flag, references, scope_of, tags_of, tool_result
from .owners import find_owners
from .spans import put_spans, resolve, span_id, spans_of


def memory_tag(request: EffectRequest) -> EffectOutcome:
    """Tag a span: payload `span_id`, `tags`, `merge` (true), `scope`, `target_run_id`.

    `span_id` is an artifact id, or a number that counts the spans in the order they were added, 1 being the oldest;
    scope `all` takes ids only. Without `merge` the tags replace those there were. The result is a tool's, with
    `meta.applied`: `[{run_id, artifact_id, tags}]`.
    """
    named = references(request)
    if not named:
        raise Invalid("", "requires payload.span_id")
    scope, tags = scope_of(request, may_be_all=True), tags_of(request.payload.get("tags"))
    if not tags:
        raise Invalid("tags", "is empty; give texts by name, such as {'topic': 'billing'}")
    if scope == "all" and isinstance(named[0], int):
        raise Invalid("span_id", "is a number, which means nothing in scope 'all'; give the span's artifact id")
    is_merged = flag(request, "merge") is not False
    owners = find_owners(request.draft, base_run(request).state, scope, request.global_memory)
    applied = [_tag(request, owner, named[0], tags, is_merged) for owner in _with_span(owners, named[0])]
    shown = ", ".join(f"{name}={tag}" for name, tag in applied[0]["tags"].items())
    output = f"Tagged span_id={applied[0]['artifact_id']}: {shown}"
    return EffectOutcome.completed(tool_result(request, output, {"applied": applied}, name="remember"))


def _with_span(owners: list[OpenRun], reference: str | int) -> list[OpenRun]:
    """Return the runs that have the span. Raises `NotFound` when none has."""
    found: list[OpenRun] = []
    for owner in owners:
        try:
            resolve(spans_of(owner.state), reference)
        except NotFound:
            if len(owners) == 1:
                raise
            continue
        found.append(owner)
    if not found:
        raise NotFound(f"no span {reference!r} in this scope")
    return found


def _tag(
    request: EffectRequest, owner: OpenRun, reference: str | int, tags: dict[str, str], is_merged: bool
) -> JsonObject:
    spans = spans_of(owner.state)
    chosen = resolve(spans, reference)
    before = chosen.get("tags")
    all_tags = {**(before if is_merged and isinstance(before, dict) else {}), **tags}
    tagged = {**chosen, "tags": all_tags, "tagged_at": request.draft.now_iso()}
    if request.state.actor_id:
        tagged["tagged_by"] = request.state.actor_id
    put_spans(request.draft, owner, [tagged if span is chosen else span for span in spans])
    return {"run_id": owner.state.run_id, "artifact_id": span_id(chosen), "tags": all_tags}

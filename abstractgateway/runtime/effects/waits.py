"""Effects that make a run wait: for an event, for a time, for a person; and the message to a person."""

from __future__ import annotations

from typing import Any

from ...clock import parse_iso
from ...errors import Invalid
from .. import lifecycle, mailbox
from ..models import EffectOutcome, WaitReason, WaitState
from .events import event_key_for
from .request import EffectRequest

_LEVELS = {"warn": "warning", "warning": "warning", "error": "error"}


def wait_event(request: EffectRequest) -> EffectOutcome:
    """Wait for an event: payload `wait_key`, or `name` with `scope` and `session_id`; and what to show a person.

    An event that came before and was kept for this key ends the wait at once.
    """
    key = request.first("wait_key")
    try:
        wait_key = str(key) if key else event_key_for(request.state, request.payload)
    except Invalid as error:
        return EffectOutcome.failed(f"wait_event: {error}")
    details = request.payload.get("details")
    wait = WaitState(
        reason=WaitReason.EVENT,
        wait_key=wait_key,
        resume_to_node=request.resume_target,
        result_key=request.effect.result_key,
        prompt=_text_or_none(request.payload.get("prompt")),
        choices=_choices(request.payload.get("choices")),
        allow_free_text=bool(request.first("allow_free_text", "allowFreeText", default=True)),
        details=details if isinstance(details, dict) else None,
    )
    event = mailbox.take(request.draft, wait_key) if lifecycle.takes_events(wait) else None
    return EffectOutcome.waiting(wait) if event is None else EffectOutcome.completed(event)


def wait_until(request: EffectRequest) -> EffectOutcome:
    """Wait for an instant: payload `until`, ISO 8601. A text that names no instant fails at once."""
    until = request.first("until")
    if not until:
        return EffectOutcome.failed("wait_until requires payload.until")
    try:
        is_due = parse_iso(str(until), field="until") <= request.draft.clock.now()
    except Invalid as error:
        return EffectOutcome.failed(f"wait_until: {error}")
    if is_due:
        return EffectOutcome.completed({"until": str(until), "ready": True})
    return EffectOutcome.waiting(
        WaitState(
            reason=WaitReason.UNTIL,
            until=str(until),
            resume_to_node=request.resume_target,
            result_key=request.effect.result_key,
        )
    )


def ask_user(request: EffectRequest) -> EffectOutcome:
    """Ask a person: payload `prompt`, `choices`, `allow_free_text`, `wait_key`.

    The default key is `user:<run>:<node>`; when the node asks again the number of the visit follows, so that a late
    copy of the first answer cannot answer the second question.
    """
    prompt = request.payload.get("prompt")
    if not prompt:
        return EffectOutcome.failed("ask_user requires payload.prompt")
    default_key = f"user:{request.state.run_id}:{request.state.current_node}"
    if request.visit > 1:
        default_key += f":{request.visit}"
    return EffectOutcome.waiting(
        WaitState(
            reason=WaitReason.USER,
            wait_key=str(request.payload.get("wait_key") or default_key),
            resume_to_node=request.resume_target,
            result_key=request.effect.result_key,
            prompt=str(prompt),
            choices=_choices(request.payload.get("choices")),
            allow_free_text=bool(request.first("allow_free_text", "allowFreeText", default=True)),
        )
    )


def answer_user(request: EffectRequest) -> EffectOutcome:
    """Show a person a message: payload `message` (or `text`, `content`) and `level` (message, warning, error)."""
    message = request.first("message", "text", "content")
    if message is None:
        return EffectOutcome.failed("answer_user requires payload.message")
    level = _LEVELS.get(str(request.payload.get("level") or "").strip().lower(), "message")
    return EffectOutcome.completed({"message": str(message), "level": level})


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _choices(value: Any) -> list[str] | None:
    if not isinstance(value, list):
        return None
    return [item.strip() for item in value if isinstance(item, str) and item.strip()] or None

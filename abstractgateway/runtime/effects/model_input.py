"""What a model is asked: a payload and its run as a call of the port, no longer than it may be."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject, compact_text
from ..artifact_refs import REF
from ..models import RunState
from ..turns import PENDING_MEDIA
from .tools import ToolBox, specs_of

ReadArtifact = Callable[[str], "tuple[str, bytes] | None"]
"""Returns the content type and the bytes of an artifact, or None for an unknown id."""

MAX_MEDIA_BYTES = 26_214_400
"""The most that one attachment may have, as for the attachments of tools."""

_CHARS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_CACHE_NAMESPACE = "abstractgateway"


def call_of(run: RunState, payload: JsonObject, tools: ToolBox | None) -> JsonObject:
    """Return the call of a payload, without the contents of its media; names of tools become their specs."""
    call = {key: value for key, value in payload.items() if key != "resume_to_node"}
    if not call.get("prompt") and call.get("text"):
        call["prompt"] = call["text"]
    call.update(_model_of(run, call))
    limit = _output_limit(run, call)
    call.update({"max_output_tokens": limit} if limit else {})
    wanted = call.get("tools")
    call["tools"] = _specs(wanted, tools) if isinstance(wanted, list) else []
    media = [*_listed(call.get("media")), *_listed(_own(run).get(PENDING_MEDIA))]
    call.update({"media": media} if media else {})
    call["params"] = {**_object(call.get("params")), **_cache_key(run, call), "trace_metadata": _trace(run, call)}
    return call


def unknown_tools(payload: JsonObject, call: JsonObject) -> list[str]:
    """Return the names of tools in a payload that its call does without, because there are none of these names."""
    known = {spec.get("name") for spec in call["tools"]}
    names = (str(item) for item in _listed(payload.get("tools")) if not isinstance(item, dict))
    return [name for name in names if name not in known]


def trimmed(run: RunState, call: JsonObject) -> tuple[JsonObject, JsonObject | None]:
    """Return the call without the oldest messages where it is too long, and what was left out, or None.

    System messages, the prompt and the latest message of the user stay, and the calls of tools stay with their results.
    The limit is `max_input_tokens` of the call, else of the run; tokens are estimated.
    """
    most = positive(call.get("max_input_tokens")) or positive(_object(run.vars.get("_limits")).get("max_input_tokens"))
    messages = call.get("messages")
    if most is None or not isinstance(messages, list) or _own(run).get("disable_input_trimming"):
        return call, None
    fixed = sum(_tokens(call.get(name)) for name in ("system_prompt", "prompt", "tools", "response_schema"))
    before = fixed + sum(map(_message_tokens, messages))
    if before <= most:
        return call, None
    kept = _kept(messages, most - fixed, has_prompt=bool(call.get("prompt")))
    note = {
        "max_input_tokens": most,
        "dropped_messages": len(messages) - len(kept),
        "estimated_tokens": fixed + sum(map(_message_tokens, kept)),
        "estimated_tokens_before": before,
    }
    return {**call, "messages": kept}, note


def media_of(items: list[Any], read_artifact: ReadArtifact | None) -> list[JsonObject]:
    """Return media with their bytes in base64. Raises `Invalid` for what is neither an artifact nor given whole."""
    return [_medium(item, read_artifact) for item in items]


def positive(value: Any) -> int | None:
    """Return a number as a whole one, or None where it is none or below 1."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and value >= 1 else None


def _own(run: RunState) -> JsonObject:
    return _object(run.vars.get("_runtime"))


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _model_of(run: RunState, call: JsonObject) -> JsonObject:
    """Return the provider and model of a call; the run's own model is one of the run's own provider."""
    known = _own(run)
    provider = call.get("provider") or known.get("provider")
    is_own = str(provider).lower() == str(known.get("provider")).lower()
    model = call.get("model") or (known.get("model") if is_own else None)
    return {name: value for name, value in (("provider", provider), ("model", model)) if value}


def _output_limit(run: RunState, call: JsonObject) -> int | None:
    own, of_run = _object(call.get("params")), _object(run.vars.get("_limits"))
    names = ("max_output_tokens", "max_out_tokens")
    given = [own.get("max_tokens"), *(source.get(name) for source in (own, call) for name in names)]
    found = (positive(value) for value in (*given, of_run.get("max_output_tokens")))
    return next((number for number in found if number), None)


def _trace(run: RunState, call: JsonObject) -> JsonObject:
    """Return whose call it is, added to what the payload says of that itself."""
    given = _object(_object(call.get("params")).get("trace_metadata"))
    own = {"run_id": run.run_id, "workflow_id": run.workflow_id, "node_id": run.current_node}
    more = {"actor_id": run.actor_id, "session_id": run.session_id, "parent_run_id": run.parent_run_id}
    return {**given, **own, **{name: value for name, value in more.items() if value}}


def _cache_key(run: RunState, call: JsonObject) -> JsonObject:
    """Return the name under which the provider may keep what the calls of a node in a session begin with.

    A key that the run was given is that name, for all of its nodes.
    """
    wish = _own(run).get("prompt_cache")
    settings = wish if isinstance(wish, dict) else {"enabled": bool(wish)}
    if not settings.get("enabled") or not run.session_id or _object(call.get("params")).get("prompt_cache_key"):
        return {}
    if isinstance(settings.get("key"), str) and settings["key"]:
        return {"prompt_cache_key": settings["key"]}
    named = (run.session_id, call.get("provider"), call.get("model"), run.workflow_id, run.current_node)
    digest = hashlib.sha256("|".join(["v1", *(str(name or "") for name in named)]).encode()).hexdigest()
    return {"prompt_cache_key": f"{settings.get('namespace') or _CACHE_NAMESPACE}:{digest[:24]}"}


def _specs(wanted: list[Any], tools: ToolBox | None) -> list[JsonObject]:
    named = [str(item) for item in wanted if not isinstance(item, dict)]
    known = {spec["name"]: spec for spec in specs_of(tools, named)} if tools is not None and named else {}
    found = (item if isinstance(item, dict) else known.get(str(item)) for item in wanted)
    return [spec for spec in found if spec]


def _tokens(value: Any) -> int:
    if not value:
        return 0
    text = value if isinstance(value, str) else compact_text(value)
    return -(-len(text) // _CHARS_PER_TOKEN)


def _message_tokens(message: Any) -> int:
    fields = _object(message)
    return _TOKENS_PER_MESSAGE + _tokens(fields.get("content")) + _tokens(fields.get("tool_calls"))


def _kept(messages: list[Any], budget: int, *, has_prompt: bool) -> list[Any]:
    """Return the messages that stay, in their order."""
    asked = None if has_prompt else _last_of("user", messages)
    kept = {at for at, message in enumerate(messages) if _role(message) == "system" or at == asked}
    left = budget - sum(_message_tokens(messages[at]) for at in kept)
    for group in reversed(list(_turns(messages))):
        fresh = [at for at in group if at not in kept]
        left -= sum(_message_tokens(messages[at]) for at in fresh)
        if left < 0:
            break
        kept.update(fresh)
    return _begun_by_user([messages[at] for at in sorted(kept)])


def _turns(messages: list[Any]) -> Iterator[list[int]]:
    """Yield the places of what belongs together: a message, and the results of the tools that it calls."""
    turn: list[int] = []
    for at, message in enumerate(messages):
        if turn and _role(message) != "tool":
            yield turn
            turn = []
        turn.append(at)
    if turn:
        yield turn


def _begun_by_user(messages: list[Any]) -> list[Any]:
    """Return messages without answers to what is not there any more; some providers refuse to read these first."""
    roles = [_role(message) for message in messages]
    first = roles.index("user") if "user" in roles else 0
    return [message for at, message in enumerate(messages) if at >= first or roles[at] == "system"]


def _last_of(role: str, messages: list[Any]) -> int | None:
    return next((at for at in reversed(range(len(messages))) if _role(messages[at]) == role), None)


def _role(message: Any) -> str:
    return str(_object(message).get("role") or "user")


def _medium(item: Any, read_artifact: ReadArtifact | None) -> JsonObject:
    fields = _object(item)
    artifact_id = fields.get(REF) or fields.get("artifact_id")
    if artifact_id is None:
        if fields.get("url") or (fields.get("data") and fields.get("content_type")):
            return fields
        raise Invalid("media", "has an item that is no artifact; files of the machine are not read, store them first")
    found = read_artifact(str(artifact_id)) if read_artifact else None
    if found is None:
        raise Invalid("media", f"names the artifact {artifact_id!r}, which does not exist")
    content_type, content = found
    if len(content) > MAX_MEDIA_BYTES:
        raise Invalid("media", f"has an artifact of {len(content)} bytes; at most {MAX_MEDIA_BYTES} go to a model")
    name = fields.get("filename") or fields.get("name")
    described = {"content_type": content_type, "data": base64.b64encode(content).decode()}
    return {**described, "name": str(name)} if name else described

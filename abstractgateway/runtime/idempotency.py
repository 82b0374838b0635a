"""The name of one performance of an effect, so that performing it again after a crash can be recognised.

The rule is AbstractRuntime's (a hash of run, node, effect type and payload), with one addition: from the second time
that a node performs an effect the number of the visit is part of the name. A loop that asks the same question twice
asks twice; a crash in between does not.
"""

from __future__ import annotations

import hashlib
import json
from json.encoder import encode_basestring_ascii
from typing import Any

from ..jsonvalue import JsonObject, ascii_text
from .models import Effect, EffectType
from .tool_waits import DECIDED

_MODEL_GIVEN = ("call_id", "id", "runtime_call_id", "model_call_id", "idempotency_key")


def compute_idempotency_key(*, run_id: str, node_id: str, effect: Effect, visit: int = 1) -> str:
    """Return the 32 hexadecimal digits that name this performance; `visit` counts from 1."""
    return key_of_visit(_digest(f'{{"effect_payload":{_payload(effect)},{_rest(run_id, node_id, effect)}'), visit)


def key_of_visit(key: str, visit: int) -> str:
    """Return the name of a node's n-th performance, given that of its first."""
    return key if visit == 1 else _digest(f"{key}:{visit}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def with_call_ids(effect: Effect, key: str) -> Effect:
    """Return a tool effect whose calls carry ids: `runtime_call_id` from the key, and `call_id` where it is missing.

    What only the kernel may say, that somebody has agreed to the calls, is taken off.
    """
    if effect.type is not EffectType.TOOL_CALLS or not isinstance(effect.payload.get("tool_calls"), list):
        return effect
    calls = [_with_ids(call, f"rtcall_{key}_{number}") for number, call in enumerate(effect.payload["tool_calls"], 1)]
    payload = {name: value for name, value in effect.payload.items() if name != DECIDED} | {"tool_calls": calls}
    if isinstance(payload.get("allowed_tools"), list):
        payload["allowed_tools"] = _allowed(payload["allowed_tools"])
    return Effect(effect.type, payload, effect.result_key)


def _with_ids(call: Any, runtime_id: str) -> Any:
    if not isinstance(call, dict):
        return call
    named = {**call, "runtime_call_id": call.get("runtime_call_id") or runtime_id}
    named["call_id"] = str(call.get("call_id") or call.get("id") or named["runtime_call_id"])
    if isinstance(call.get("name"), str):
        named["name"] = call["name"].strip()
    return named


def _rest(run_id: str, node_id: str, effect: Effect) -> str:
    quoted = encode_basestring_ascii
    return f'"effect_type":{quoted(effect.type)},"node_id":{quoted(node_id)},"run_id":{quoted(run_id)}}}'


def _payload(effect: Effect) -> str:
    """Return the ASCII JSON of the payload; where that is the text the record has, it is not made again."""
    if effect.type is EffectType.TOOL_CALLS:
        return ascii_text(_normalised(effect))
    text = effect.payload_text
    return text if text.isascii() and "\x7f" not in text else ascii_text(effect.payload)


def _normalised(effect: Effect) -> JsonObject:
    payload = dict(effect.payload)
    if isinstance(payload.get("tool_calls"), list):
        payload["tool_calls"] = [_bare_call(call) for call in payload["tool_calls"]]
    if isinstance(payload.get("allowed_tools"), list):
        payload["allowed_tools"] = _allowed(payload["allowed_tools"])
    return payload


def _bare_call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    bare = {key: value for key, value in call.items() if key not in _MODEL_GIVEN}
    if isinstance(bare.get("name"), str):
        bare["name"] = bare["name"].strip()
    if "arguments" in bare:
        bare["arguments"] = _arguments(bare["arguments"])
    if isinstance(bare.get("function"), dict):
        bare["function"] = _bare_call(bare["function"])
    return bare


def _arguments(value: Any) -> JsonObject:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _allowed(names: list[Any]) -> list[str]:
    return sorted({name.strip() for name in names if isinstance(name, str) and name.strip()})

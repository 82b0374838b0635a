"""The caches in which providers keep the beginning of prompts.

What a provider offers over its API is a name, the `prompt_cache_key`, under which calls with the same beginning find
each other; that is the mode `keyed`. Nothing here holds such a cache itself, so that there is none to read, fork, save
or load, and these operations say so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ..jsonvalue import JsonObject, dumps_canonical

KEYED_PROVIDERS = ("openai", "openrouter", "openai-compatible")
"""Those that are told the key; what others do with a cache is their own affair."""

_LABEL_CHARS = 36
_NO_LABEL = re.compile(r"[^A-Za-z0-9_-]+")
_PARTS = (("s", "session_id"), ("b", "bundle_id"), ("v", "bundle_version"), ("f", "flow_id"), ("t", "template_id"))
_UNNAMED = {
    "session_id": "session",
    "bundle_id": "bundle",
    "bundle_version": "latest",
    "flow_id": "flow",
    "template_id": "template",
    "provider": "provider",
    "model": "model",
}
"""What stands in a name for what is blank."""


class PromptCacheService:
    """The use cases around prompt caches; every answer says by `supported` whether it is one."""

    def capabilities(self, *, provider: str, model: str) -> JsonObject:
        """Return `{supported, operation, provider, model, capabilities: {supported, mode}}`."""
        told = _capabilities(provider)
        answer = {"supported": told["supported"], "operation": "capabilities", "provider": provider, "model": model}
        return {**answer, "capabilities": told, **({} if told["supported"] else _refusal(provider))}

    def control(self, operation: str, *, provider: str, model: str, key: str | None = None) -> JsonObject:
        """Say that an operation on a cache at the provider, such as `set` or `fork`, is not there."""
        named = {"provider": provider, "model": model, **({"key": key} if key else {})}
        return {"supported": False, "operation": operation, **named, **_refusal(provider), "capabilities": _NONE}

    def saved(self, *, provider: str, model: str) -> JsonObject:
        """Return `{items: []}`: no caches are saved."""
        return {"items": [], **self.control("saved", provider=provider, model=model)}

    def session(self, operation: str, session_id: str, *, version: int = 1, **given: Any) -> JsonObject:
        """Return the cache of a session: its namespace and key, and `runtime_hint`, which a start gives to a run.

        `operation` is `status`, `prepare`, `clear` or `rebuild`. `given` has `provider`, `model` and, where known,
        `bundle_id`, `bundle_version`, `flow_id`, `template_id`; what else is in it has no effect on a keyed cache, and
        is named in `unused`.
        """
        identity = _identity(session_id, version, given)
        namespace = _namespace(identity)
        told = _capabilities(identity["provider"])
        is_done = told["supported"] and operation in ("status", "prepare")
        unused = sorted(name for name, value in given.items() if value and name not in identity)
        return {
            "ok": is_done,
            "supported": is_done,
            "operation": operation,
            "mode": told["mode"] if told["supported"] else "unsupported",
            "session_id": session_id,
            "namespace": namespace,
            "prompt_cache_key": f"{namespace}:session",
            "runtime_hint": _hint(namespace, version) if told["supported"] else {},
            "identity": identity,
            "capabilities": told,
            **({} if is_done else _refusal(identity["provider"])),
            **({"unused": unused} if unused else {}),
        }


_NONE: JsonObject = {"supported": False, "mode": "none"}


def _capabilities(provider: str) -> JsonObject:
    is_keyed = provider.strip().lower().replace("_", "-") in KEYED_PROVIDERS
    return {"supported": True, "mode": "keyed"} if is_keyed else _NONE


def _refusal(provider: str) -> JsonObject:
    if _capabilities(provider)["supported"]:
        why = f"provider {provider!r} takes a key for its cache and keeps it itself; another version gives another key"
    else:
        why = f"provider {provider!r} has no prompt cache that can be told anything"
    return {"code": "prompt_cache_unavailable", "error": why}


def _identity(session_id: str, version: int, given: Mapping[str, Any]) -> JsonObject:
    named = {name: given.get(name) or None for _, name in _PARTS[1:]}
    provider, model = str(given["provider"]).strip().lower(), str(given["model"]).strip()
    return {"session_id": session_id, **named, "provider": provider, "model": model, "version": version}


def _namespace(identity: JsonObject) -> str:
    """Return a name such as `agw.pc.v1.s-….b-….v-….f-….t-….p-….m-….h-<16 hex>`, the same for the same identity."""
    parts = (*_PARTS, ("p", "provider"), ("m", "model"))
    labels = [f"{letter}-{_label(identity[name] or _UNNAMED[name])}" for letter, name in parts]
    digest = hashlib.sha256(dumps_canonical(identity)).hexdigest()[:16]
    return ".".join([f"agw.pc.v{identity['version']}", *labels, f"h-{digest}"])


def _label(text: str) -> str:
    """Return a text as a part of a name; that different texts may look alike is what the hash is for."""
    return _NO_LABEL.sub("-", text).strip("-")[:_LABEL_CHARS] or "x"


def _hint(namespace: str, version: int) -> JsonObject:
    key = f"{namespace}:session"
    cache = {"enabled": True, "key": key, "namespace": namespace, "mode": "keyed", "version": version}
    return {"prompt_cache_key": key, "_runtime": {"prompt_cache": cache}}

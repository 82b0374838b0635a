"""The versioned contracts that clients read before they call: which routes there are, and what is behind them.

A tree of data. A test compares every endpoint in it with the routes of the HTTP adapter, and what is said to be
available is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..jsonvalue import JsonObject
from ..runner.commands import COMMAND_TYPES
from .media import AUDIO_TYPES, IMAGE_EVENT, IMAGE_TYPES, MAX_AUDIO_BYTES, SPEECH_TYPES

VERSION = 1
API = "/api/gateway"

_RUN = f"{API}/runs/{{run_id}}"
_BUNDLE = f"{API}/bundles/{{bundle_id}}"
_CACHE = f"{API}/prompt_cache"
_SESSION_CACHE = f"{API}/sessions/{{session_id}}/prompt_cache"
_VISUALFLOWS = f"{API}/visualflows"


@dataclass(frozen=True)
class Facts:
    """What this gateway has; `knowledge` describes its knowledge graph, None where the program keeps that."""

    has_bundles: bool
    has_speech: bool
    has_transcripts: bool
    has_images: bool
    voices: tuple[str, ...]
    knowledge: Mapping[str, object] | None
    max_attachment_bytes: int
    max_image_bytes: int


def contracts(facts: Facts) -> JsonObject:
    """Return the tree: what is common, and what the editor, the assistant and the command line rely on."""
    return {
        "version": VERSION,
        "common": _of_all(facts),
        "flow_editor": _flow_editor(facts),
        "assistant": _assistant(facts),
        "abstractcode": {
            "available": True,
            "version": VERSION,
            "runs": _runs(),
            "ledger": _ledger(),
            "artifacts": _artifacts(),
            "workspace": _WORKSPACE,
            "prompt_cache": _prompt_cache(),
        },
    }


def _at(endpoint: str, *, available: bool = True, **more: Any) -> JsonObject:
    return {"available": available, "endpoint": endpoint, **more}


_WORKSPACE: JsonObject = {"policy_endpoint": f"{API}/workspace/policy"}


def _of_all(facts: Facts) -> JsonObject:
    return {
        "runs": _runs(),
        "ledger": _ledger(),
        "artifacts": _artifacts(),
        "attachments": {
            "upload": _at(f"{API}/attachments/upload"),
            "max_upload_bytes": facts.max_attachment_bytes,
        },
        "workspace": _WORKSPACE,
        "discovery": _discovery(),
        "prompt_cache": _prompt_cache(),
        "memory": _memory(facts),
    }


def _runs() -> JsonObject:
    return {
        "start": _at(f"{API}/runs/start"),
        "schedule": _at(f"{API}/runs/schedule"),
        "summary": _at(_RUN),
        "list": _at(f"{API}/runs"),
        "input_data": _at(f"{_RUN}/input_data"),
        "history_bundle": _at(f"{_RUN}/history_bundle"),
        "commands": _at(f"{API}/commands", types=list(COMMAND_TYPES)),
    }


def _ledger() -> JsonObject:
    return {
        "replay": _at(f"{_RUN}/ledger"),
        "batch": _at(f"{API}/runs/ledger/batch"),
        "stream": _at(f"{_RUN}/ledger/stream", transport="sse"),
    }


def _artifacts() -> JsonObject:
    artifact = f"{_RUN}/artifacts/{{artifact_id}}"
    return {"list": _at(f"{_RUN}/artifacts"), "metadata": _at(artifact), "content": _at(f"{artifact}/content")}


def _discovery() -> JsonObject:
    discovery = f"{API}/discovery"
    return {
        "capabilities": f"{discovery}/capabilities",
        "providers": f"{discovery}/providers",
        "provider_models": f"{discovery}/providers/{{provider_name}}/models",
        "model_capabilities": f"{discovery}/models/capabilities",
        "voice_voices": f"{API}/voice/voices",
        "audio_speech_models": f"{API}/audio/speech/models",
        "vision_provider_models": f"{API}/vision/provider_models",
        "tools": f"{discovery}/tools",
        "semantics": f"{API}/semantics",
    }


def _prompt_cache() -> JsonObject:
    names = ("capabilities", "stats", "set", "update", "fork", "clear", "prepare_modules")
    return {
        "provider_controls": False,
        "session_lifecycle": True,
        "endpoints": {name: f"{_CACHE}/{name}" for name in names},
        "session_endpoints": {name: f"{_SESSION_CACHE}/{name}" for name in ("status", "prepare", "clear", "rebuild")},
    }


def _memory(facts: Facts) -> JsonObject:
    known = facts.knowledge
    return {
        "installed": True,
        "route_available": True,
        "available": known is not None,
        "endpoint": f"{API}/kg/query",
        "backend": known.get("backend") if known is not None else None,
        "path": known.get("path") if known is not None else None,
        "persistent": known is not None and known.get("backend") != "memory",
        "structured_query": known is not None,
        "semantic_query": known is not None,
        "vector_capable": False,
        "embedder_configured": False,
        **({} if known is not None else {"error": "the embedding program keeps the knowledge graph"}),
    }


def _flow_editor(facts: Facts) -> JsonObject:
    has = facts.has_bundles
    return {
        "available": True,
        "version": VERSION,
        "visualflows": {
            "crud": {
                "available": True,
                "collection_endpoint": _VISUALFLOWS,
                "item_endpoint": f"{_VISUALFLOWS}/{{flow_id}}",
            },
            "publish": _at(f"{_VISUALFLOWS}/{{flow_id}}/publish", available=has),
        },
        "bundles": {
            "list": _at(f"{API}/bundles"),
            "inspect": _at(_BUNDLE, available=has),
            "upload": _at(f"{API}/bundles/upload", available=has),
            "reload": _at(f"{API}/bundles/reload"),
            "remove": _at(_BUNDLE, available=has),
            "deprecate": _at(f"{_BUNDLE}/deprecate", available=has),
            "undeprecate": _at(f"{_BUNDLE}/undeprecate", available=has),
            "flow": _at(f"{_BUNDLE}/flows/{{flow_id}}", available=has),
        },
        "run_input_schema": _at(f"{_BUNDLE}/flows/{{flow_id}}/input_schema", available=has, version=1),
        "runs": _runs(),
        "ledger": _ledger(),
        "artifacts": _artifacts(),
        "helpers": {
            "providers": f"{API}/discovery/providers",
            "tools": f"{API}/discovery/tools",
            "semantics": f"{API}/semantics",
            "workspace_policy": f"{API}/workspace/policy",
            "kg_query": f"{API}/kg/query",
            "embeddings": f"{API}/embeddings",
        },
    }


def _assistant(facts: Facts) -> JsonObject:
    speech = _speech(facts)
    workflow = {"available": False, "reason": "no node of a flow makes it"}
    return {
        "available": True,
        "version": VERSION,
        "runs": _runs(),
        "ledger": _ledger(),
        "artifacts": _artifacts(),
        "voice": {"tts": speech, "stt": _transcripts(facts)},
        "media": {
            "generated_image": {"workflow": workflow, "direct_endpoint": _images(facts)},
            "generated_voice": {"workflow": workflow, "direct_endpoint": speech},
        },
        "prompt_cache": {
            "capabilities_endpoint": f"{_CACHE}/capabilities",
            "stats_endpoint": f"{_CACHE}/stats",
            "status_endpoint": f"{_SESSION_CACHE}/status",
            "prepare_endpoint": f"{_SESSION_CACHE}/prepare",
            "clear_endpoint": f"{_SESSION_CACHE}/clear",
            "rebuild_endpoint": f"{_SESSION_CACHE}/rebuild",
        },
    }


def _maker(is_there: bool, prefix: str) -> JsonObject:
    hint = f"set ABSTRACTGATEWAY_{prefix}_PROVIDER and ABSTRACTGATEWAY_{prefix}_MODEL"
    found = {"available": is_there, "installed": True, "configured": is_there, "unsupported": False}
    return found if is_there else {**found, "config_hint": hint}


def _speech(facts: Facts) -> JsonObject:
    return {
        **_maker(facts.has_speech, "SPEECH"),
        "endpoint": f"{_RUN}/voice/tts",
        "catalog_endpoint": f"{API}/voice/voices",
        "models_endpoint": f"{API}/audio/speech/models",
        "delivery_modes": ["artifact"],
        "formats": list(SPEECH_TYPES),
        "content_types": dict(SPEECH_TYPES),
        "voices": list(facts.voices),
        "streaming": False,
    }


def _transcripts(facts: Facts) -> JsonObject:
    return {
        **_maker(facts.has_transcripts, "TRANSCRIPTION"),
        "endpoint": f"{_RUN}/audio/transcribe",
        "upload_endpoint": f"{API}/attachments/upload",
        "input_modes": ["artifact"],
        "content_types": list(AUDIO_TYPES),
        "languages": [],
        "max_upload_bytes": min(MAX_AUDIO_BYTES, facts.max_attachment_bytes),
        "streaming": False,
    }


def _images(facts: Facts) -> JsonObject:
    return {
        **_maker(facts.has_images, "IMAGE"),
        "route_available": True,
        "endpoint": f"{_RUN}/images/generate",
        "provider_models_endpoint": f"{API}/vision/provider_models",
        "event_name": IMAGE_EVENT,
        "formats": list(IMAGE_TYPES),
        "max_image_bytes": facts.max_image_bytes,
    }

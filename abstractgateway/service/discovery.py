"""What this gateway has: tools, model providers, models, and the contracts that clients read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from .._version import __version__
from ..errors import GatewayError, Invalid
from ..jsonvalue import JsonObject
from ..runtime.effects.tools import ToolBox
from .contracts import Facts, contracts
from .media import Media
from .model_capabilities import capabilities_of
from .model_choice import ModelChoice

_PACKAGES = ("abstractruntime", "abstractcore", "abstractmemory", "abstractvoice", "abstractvision")
_OWN_TOOLSET = "program"
TASKS = ("text_to_image", "image_to_image", "text_to_video", "image_to_video")


class ProviderCatalogue(Protocol):
    """What is known of model providers."""

    def providers(self, *, include_models: bool) -> list[JsonObject]:
        """Return `[{name, display_name, …, models}]`; with `include_models` those that answer are asked."""

    def models(self, provider: str) -> list[str]:
        """Return the names of a provider's models. Raises `GatewayError` saying why they are not known."""


@dataclass(frozen=True)
class Described:
    """What of the settings is told: the tool mode, the speaking voices, and the sizes of uploads and images."""

    tool_mode: str
    voices: tuple[str, ...]
    speech: tuple[str | None, str | None]
    images: tuple[str | None, str | None]
    max_attachment_bytes: int
    max_image_bytes: int
    has_bundles: bool


class DiscoveryService:
    """The use cases of clients that look at what there is before they do anything."""

    def __init__(
        self,
        *,
        tools: ToolBox,
        catalogue: ProviderCatalogue | None,
        choice: ModelChoice,
        media: Media,
        described: Described,
        knowledge: Callable[[], Mapping[str, object] | None],
    ) -> None:
        self._tools = tools
        self._catalogue = catalogue
        self._choice = choice
        self._media = media
        self._described = described
        self._knowledge = knowledge

    def tools(self) -> JsonObject:
        """Return `{items, tool_mode}`: what agents and flows may call, by name."""
        items = sorted(map(_tool, self._tools.specs()), key=lambda item: str(item["name"]))
        return {"items": items, "tool_mode": self._described.tool_mode}

    def providers(self, *, include_models: bool = False) -> JsonObject:
        """Return `{items, default_provider, default_model, default_source}`; `error` says why there are no items."""
        try:
            found = self._catalogue.providers(include_models=include_models) if self._catalogue is not None else []
        except GatewayError as error:
            return {"items": [], "error": error.message, **self._default()}
        return {"items": sorted(found, key=lambda item: str(item["name"])), **self._default()}

    def provider_models(self, provider: str) -> JsonObject:
        """Return `{provider, models}` with the models by name; `error` says why there are none."""
        if self._catalogue is None:
            return {"provider": provider, "models": [], "error": "the model is the embedding program's own"}
        try:
            return {"provider": provider, "models": sorted(set(self._catalogue.models(provider)))}
        except GatewayError as error:
            return {"provider": provider, "models": [], "error": error.message}

    def model_capabilities(self, model_name: str) -> JsonObject:
        """Return `{model, capabilities}`; what is not known of a model is null."""
        return {"model": model_name, "capabilities": capabilities_of(model_name)}

    def voices(self, *, base_url: str | None = None) -> JsonObject:
        """Return `{available, provider, model, voices}`: the voices that the settings name for speech.

        This and the next two raise `Invalid` for a `base_url`: no server is asked that a client names.
        """
        _refuse(base_url)
        provider, model = self._described.speech
        items = [{"id": name, "name": name, "provider": provider, "model": model} for name in self._described.voices]
        return {**self._made_by(self._media.speech, self._described.speech), "voices": items, "source": "settings"}

    def speech_models(self, *, base_url: str | None = None) -> JsonObject:
        """Return `{available, provider, model, models}`: what reads texts aloud."""
        _refuse(base_url)
        return {**self._made_by(self._media.speech, self._described.speech), "models": _models(self._described.speech)}

    def vision_models(self, *, task: str, base_url: str | None = None) -> JsonObject:
        """Return `{task, available, provider, model, models}`: what makes images for a task, one of `TASKS`.

        Only the first is done here. Raises `Invalid` for another one.
        """
        _refuse(base_url)
        if task not in TASKS:
            raise Invalid("task", f"{task!r} is not one of {', '.join(TASKS)}")
        is_made = task == TASKS[0]
        made = self._described.images if is_made else (None, None)
        maker = self._media.images if is_made else None
        return {"task": task, **self._made_by(maker, made), "models": _models(made)}

    def capabilities(self) -> JsonObject:
        """Return `{capabilities}`: what is installed and configured, and under `contracts` what clients may rely on."""
        facts = self._facts()
        voice, images = facts.has_speech or facts.has_transcripts, facts.has_images
        found: JsonObject = {name: _package(name) for name in _PACKAGES}
        return {
            "capabilities": {
                **found,
                "voice": {"installed": voice, "tts": facts.has_speech, "stt": facts.has_transcripts},
                "capability_plugins": {"installed": False, "items": []},
                "multimodal": {
                    "installed": voice or images,
                    "capabilities": {"voice": voice, "audio": facts.has_transcripts, "vision": images, "music": False},
                },
                "tools": {"installed": True, "count": len(self._tools.specs())},
                "visualflow": {"installed": True, "version": __version__},
                "vision_fallback": {"installed": False},
                "media": {"installed": False, "available_processors": []},
                "contracts": contracts(facts),
            }
        }

    def _default(self) -> JsonObject:
        chosen = self._choice.default()
        if chosen is None:
            why = "no default model: set ABSTRACTGATEWAY_PROVIDER and ABSTRACTGATEWAY_MODEL"
            return {"default_provider": None, "default_model": None, "default_error": why}
        return {
            "default_provider": chosen.provider,
            "default_model": chosen.model,
            "default_source": chosen.source,
        }

    def _facts(self) -> Facts:
        return Facts(
            has_bundles=self._described.has_bundles,
            has_speech=self._media.speech is not None,
            has_transcripts=self._media.transcriber is not None,
            has_images=self._media.images is not None,
            voices=self._described.voices,
            knowledge=self._knowledge(),
            max_attachment_bytes=self._described.max_attachment_bytes,
            max_image_bytes=self._described.max_image_bytes,
        )

    @staticmethod
    def _made_by(maker: object | None, named: tuple[str | None, str | None]) -> JsonObject:
        return {"available": maker is not None, "provider": named[0], "model": named[1]}


def _tool(spec: JsonObject) -> JsonObject:
    """Return what clients are told of a tool, also of one that says less of itself than the gateway's own do."""
    schema = spec.get("parameters")
    required = schema.get("required") if isinstance(schema, dict) else None
    return {
        "description": "",
        "parameters": {},
        "required_args": required if isinstance(required, list) else [],
        "examples": [],
        "toolset": _OWN_TOOLSET,
        **spec,
    }


def _refuse(base_url: str | None) -> None:
    if base_url is not None:
        raise Invalid("base_url", "is not asked: a client does not choose which servers the gateway calls")


def _models(named: tuple[str | None, str | None]) -> list[JsonObject]:
    provider, model = named
    return [{"id": model, "name": model, "provider": provider}] if model else []


def _package(name: str) -> JsonObject:
    try:
        return {"installed": True, "version": version(name)}
    except PackageNotFoundError:
        return {"installed": False, "error": f"the package {name} is not installed; this gateway does not need it"}

"""The providers of the settings, for what is not a model call; their adapter is loaded by the first who needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..jsonvalue import JsonObject
from .discovery import ProviderCatalogue
from .media import ImageMaker, Media, SpeechMaker, Transcriber


class _Closes(Protocol):
    def close(self) -> None: ...


class ClosingCatalogue(ProviderCatalogue, _Closes, Protocol):
    """A catalogue that lets go of its connections."""


class MediaMaker(SpeechMaker, Transcriber, ImageMaker, _Closes, Protocol):
    """What makes all kinds of media, and lets go of its connections."""


Part = TypeVar("Part", bound=_Closes)


class _Loaded(Generic[Part]):
    """Something that is loaded once, by the first who needs it."""

    def __init__(self, load: Callable[[], Part]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._part: Part | None = None

    def get(self) -> Part:
        with self._lock:
            if self._part is None:
                self._part = self._load()
            return self._part

    def close(self) -> None:
        with self._lock:
            if self._part is not None:
                self._part.close()


class ProvidersOfSettings:
    """A catalogue of providers, and what makes media. Raises what loading raises when the adapter is not installed."""

    def __init__(self, *, catalogue: Callable[[], ClosingCatalogue], media: Callable[[], MediaMaker]) -> None:
        self._catalogue = _Loaded(catalogue)
        self._media = _Loaded(media)

    def providers(self, *, include_models: bool) -> list[JsonObject]:
        return self._catalogue.get().providers(include_models=include_models)

    def models(self, provider: str) -> list[str]:
        return self._catalogue.get().models(provider)

    def media(self, *, has_speech: bool, has_transcripts: bool, has_images: bool) -> Media:
        """Return those makers that the settings name a provider for."""
        return Media(
            speech=self if has_speech else None,
            transcriber=self if has_transcripts else None,
            images=self if has_images else None,
        )

    def speak(self, text: str, *, voice: str | None, format: str, timeout_s: float) -> bytes:
        return self._media.get().speak(text, voice=voice, format=format, timeout_s=timeout_s)

    def transcribe(self, audio: bytes, *, content_type: str, language: str | None, timeout_s: float) -> str:
        maker = self._media.get()
        return maker.transcribe(audio, content_type=content_type, language=language, timeout_s=timeout_s)

    def draw(self, wish: JsonObject, *, timeout_s: float) -> bytes | None:
        return self._media.get().draw(wish, timeout_s=timeout_s)

    def close(self) -> None:
        """Let go of the connections that no request uses."""
        self._catalogue.close()
        self._media.close()

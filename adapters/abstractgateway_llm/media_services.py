"""Speech, transcripts and images of providers that are compatible with OpenAI."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from abstractgateway.clock import Clock, SystemClock
from abstractgateway.config import GatewayConfig
from abstractgateway.jsonvalue import JsonObject

from .asking import Asker
from .calls import objects
from .errors import ModelError, Refused
from .providers import PROVIDERS, Endpoint, endpoint_of, known_provider
from .transport import parsed

_DEFAULT_VOICE = "alloy"
"""The API of OpenAI insists on a voice; this one it has always had."""
_SUFFIXES = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/ogg": "ogg",
    "audio/webm": "webm",
    "audio/flac": "flac",
}
_WISHES = ("quality", "style", "negative_prompt", "seed", "steps", "guidance_scale")
_BASE64_GROWTH = 2
_MOST_TEXT_BYTES = 4_000_000
_NOT_FOR_MEDIA = ("anthropic",)


def open_media(config: GatewayConfig) -> MediaServices:
    """Return what makes speech, transcripts and images as the settings say."""
    return MediaServices(config)


class MediaServices:
    """Asks the providers of the settings; raises `ModelError` for whatever keeps them from it."""

    def __init__(self, config: GatewayConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._asker = Asker(clock or SystemClock(), connect_timeout_s=config.llm_connect_timeout_s)

    def speak(self, text: str, *, voice: str | None, format: str, timeout_s: float) -> bytes:
        """Return a text read aloud, as a `wav` or `mp3` file."""
        config = self._config
        voices = config.speech_voices
        body = {
            "model": _named(config.speech_model, "SPEECH"),
            "input": text,
            "voice": voice or (voices[0] if voices else _DEFAULT_VOICE),
            "response_format": format,
        }
        endpoint, most = self._endpoint(config.speech_provider), config.llm_max_response_bytes
        return self._asker.post(endpoint, "/audio/speech", body, timeout_s=timeout_s, most=most)

    def transcribe(self, audio: bytes, *, content_type: str, language: str | None, timeout_s: float) -> str:
        """Return the words of a sound file."""
        kind = content_type.partition(";")[0].strip().lower()
        suffix = _SUFFIXES.get(kind, "wav")
        fields: dict[str, Any] = {
            "model": _named(self._config.transcription_model, "TRANSCRIPTION"),
            "response_format": "json",
            "file": (f"audio.{suffix}", audio, kind),
            **({"language": language} if language else {}),
        }
        endpoint = self._endpoint(self._config.transcription_provider)
        limits = {"timeout_s": timeout_s, "most": _MOST_TEXT_BYTES}
        said = self._asker.post_form(endpoint, "/audio/transcriptions", fields, **limits)  # type: ignore[arg-type]
        text = parsed(said.decode("utf-8", "replace")).get("text")
        if not isinstance(text, str):
            raise ModelError(f"{endpoint.name}: the answer has no text")
        return text

    def draw(self, wish: JsonObject, *, timeout_s: float) -> bytes | None:
        """Return an image file; None when the answer has none. An image is not fetched from an address it names."""
        endpoint = self._endpoint(wish.get("provider") or self._config.image_provider)
        body = self._image_body(wish)
        while True:
            try:
                said = self._asker.post(
                    endpoint,
                    "/images/generations",
                    body,
                    timeout_s=timeout_s,
                    most=_BASE64_GROWTH * self._config.image_max_bytes,
                )
            except Refused as refused:
                option = _refused_option(body, refused.said)
                if option is None:
                    raise
                del body[option]
                continue
            return _image(endpoint, parsed(said.decode("utf-8", "replace")))

    def close(self) -> None:
        """Close the connections that no request uses."""
        self._asker.close()

    def _image_body(self, wish: JsonObject) -> JsonObject:
        size = wish.get("size")
        if not size and wish.get("width") and wish.get("height"):
            size = f"{wish['width']}x{wish['height']}"
        extra = wish.get("extra")
        return {
            **(extra if isinstance(extra, dict) else {}),
            "model": wish.get("model") or _named(self._config.image_model, "IMAGE"),
            "prompt": wish["prompt"],
            "n": 1,
            **{name: wish[name] for name in _WISHES if wish.get(name) is not None},
            **({"size": size} if size else {}),
            "output_format": wish["format"],
            "response_format": "b64_json",
        }

    def _endpoint(self, name: Any) -> Endpoint:
        provider = known_provider(str(name))
        if provider is None or provider.name in _NOT_FOR_MEDIA:
            known = ", ".join(row.name for row in PROVIDERS if row.name not in _NOT_FOR_MEDIA)
            raise ModelError(f"provider {name!r} makes no media here; known: {known}")
        return endpoint_of(self._config, provider)


def _named(model: str | None, prefix: str) -> str:
    if not model:
        raise ModelError(f"no model is named; set ABSTRACTGATEWAY_{prefix}_MODEL")
    return model


def _refused_option(body: JsonObject, said: str) -> str | None:
    """Return the field that a provider names in its refusal, if it can do without."""
    optional = (*_WISHES, "output_format", "response_format")
    return next((name for name in optional if name in body and re.search(rf"\b{name}\b", said)), None)


def _image(endpoint: Endpoint, answer: JsonObject) -> bytes | None:
    item: JsonObject = next(iter(objects(answer.get("data"))), {})
    encoded = item.get("b64_json")
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ModelError(f"{endpoint.name}: the image is no base64") from None

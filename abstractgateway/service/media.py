"""Speech, transcripts and images that are made for a run on request, outside of its steps.

What makes them are ports: an embedding program gives its own, or the providers of the settings are asked. What is made
becomes an artifact of the run, and the run's ledger tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import GatewayError, Invalid, NotFound
from ..ids import is_safe_id, new_hex
from ..jsonvalue import JsonObject
from ..runtime.effects.memory.owners import session_memory_id
from ..runtime.models import RunState
from ..stores.base import ArtifactMetadata, Stores
from .direct_calls import DirectCalls
from .run_events import RunEvent, RunEvents

Made = TypeVar("Made")

NODE = "gateway"
SPEECH_TYPES: Mapping[str, str] = {"wav": "audio/wav", "mp3": "audio/mpeg"}
IMAGE_TYPES: Mapping[str, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
AUDIO_TYPES = ("audio/wav", "audio/mpeg", "audio/mp4", "audio/ogg", "audio/webm", "audio/flac")
MAX_SPEECH_CHARS = 20_000
MAX_AUDIO_BYTES = 26_214_400
"""As for attachments, which most providers take up to about this size."""
IMAGE_EVENT = "abstract.media.image.generated"

_SIGNS = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"RIFF", "webp"))


class SpeechMaker(Protocol):
    """Something that reads texts aloud."""

    def speak(self, text: str, *, voice: str | None, format: str, timeout_s: float) -> bytes:
        """Return the sound as a file; `format` is `wav` or `mp3`. Raises whatever keeps it from doing so."""


class Transcriber(Protocol):
    """Something that writes down what is said."""

    def transcribe(self, audio: bytes, *, content_type: str, language: str | None, timeout_s: float) -> str:
        """Return the words of a sound file. Raises whatever keeps it from doing so."""


class ImageMaker(Protocol):
    """Something that draws."""

    def draw(self, wish: JsonObject, *, timeout_s: float) -> bytes | None:
        """Return an image file, None when there is none. Raises whatever keeps it from drawing.

        `wish` has `prompt` and `format`, and where given `provider`, `model`, `size`, `width`, `height`,
        `negative_prompt`, `seed`, `steps`, `guidance_scale`, `quality`, `style` and `extra`.
        """


@dataclass(frozen=True)
class Media:
    """What can be made: None where nothing makes it."""

    speech: SpeechMaker | None = None
    transcriber: Transcriber | None = None
    images: ImageMaker | None = None


NO_MEDIA = Media()


class _Request(NamedTuple):
    """A request with the id that its records have; the same one again is answered without doing it again."""

    run: RunState
    request_id: str
    key: str
    known: JsonObject | None


class MediaService:
    """The use cases around speech, transcripts and images."""

    def __init__(
        self, *, stores: Stores, events: RunEvents, media: Media, calls: DirectCalls, max_image_bytes: int
    ) -> None:
        self._stores = stores
        self._events = events
        self._media = media
        self._calls = calls
        self._max_image_bytes = max_image_bytes

    def speak(
        self,
        run_id: str,
        *,
        text: str | None = None,
        voice: str | None = None,
        format: str = "wav",
        request_id: str | None = None,
    ) -> JsonObject:
        """Have a text read aloud; return `{ok, run_id, request_id, audio_artifact}`.

        The run's ledger gets the event `abstract.voice.tts`. Raises `NotFound` for an unknown run, `Invalid` for no or
        too much text, an unknown format, and where nothing speaks; `Unavailable` when too many calls are under way, and
        `GatewayError` with the code `media_failed` when it did not work.
        """
        run = self._events.run(run_id)
        said = _speakable(text)
        _check_format(format, SPEECH_TYPES)
        speech = _configured(self._media.speech, "text to speech", "SPEECH")
        asked: JsonObject = {"text": said, "voice": voice, "format": format}
        request = self._request(run, "voice_tts", request_id, asked)
        ref = request.known["audio_artifact"] if request.known else None
        if ref is None:
            audio = self._made(lambda: speech.speak(said, voice=voice, format=format, timeout_s=self._calls.timeout_s))
            if not audio or len(audio) > MAX_AUDIO_BYTES:
                raise _failed(f"the sound has {len(audio)} bytes, which is none or more than {MAX_AUDIO_BYTES}")
            ref = self._keep(request, audio, SPEECH_TYPES[format], "generated_voice", f"speech.{format}")
            self._tell(request, "abstract.voice.tts", {**asked, "audio_artifact": ref})
        return {"ok": True, "run_id": run_id, "request_id": request.request_id, "audio_artifact": ref}

    def transcribe(
        self, run_id: str, *, audio_artifact: JsonObject, language: str | None = None, request_id: str | None = None
    ) -> JsonObject:
        """Have a sound artifact written down; return `{ok, run_id, request_id, text, transcript_artifact}`.

        The artifact is `{"$artifact": id}` of the run or of its session. The run's ledger gets the event
        `abstract.audio.transcript`. Raises as `speak`, and `NotFound` for an unknown artifact.
        """
        run = self._events.run(run_id)
        metadata = self._audio(run, audio_artifact)
        transcriber = _configured(self._media.transcriber, "speech to text", "TRANSCRIPTION")
        asked: JsonObject = {"audio_artifact": {"$artifact": metadata.artifact_id}, "language": language}
        request = self._request(run, "audio_transcribe", request_id, asked)
        made = request.known
        if made is None:
            content = self._stores.artifacts.load(metadata.artifact_id) or b""
            options = {"content_type": metadata.content_type, "language": language}
            text = self._made(
                lambda: transcriber.transcribe(content, **options, timeout_s=self._calls.timeout_s)  # type: ignore[arg-type]
            )
            ref = self._keep(request, text.encode(), "text/plain; charset=utf-8", "transcript", "transcript.txt")
            made = {**asked, "text": text, "transcript_artifact": ref}
            self._tell(request, "abstract.audio.transcript", made)
        shown = {name: made[name] for name in ("text", "transcript_artifact")}
        return {"ok": True, "run_id": run_id, "request_id": request.request_id, **shown}

    def draw(
        self, run_id: str, *, prompt: str, format: str = "png", request_id: str | None = None, **wishes: Any
    ) -> JsonObject:
        """Have an image made; return `{ok, supported, run_id, request_id, image_artifact, event_name, code, error}`.

        `wishes` are those of `ImageMaker.draw`. That it did not work is said by `ok`, `code` and `error`. The run's
        ledger gets the event `abstract.media.image.generated`. Raises `NotFound` for an unknown run, `Invalid` for a
        blank prompt or an unknown format, and `Unavailable` when too many calls are under way.
        """
        run = self._events.run(run_id)
        if not prompt.strip():
            raise Invalid("prompt", "is blank; say what the image is to show")
        _check_format(format, IMAGE_TYPES)
        given = {name: value for name, value in wishes.items() if value is not None}
        asked: JsonObject = {"prompt": prompt.strip(), "format": format, **given}
        request = self._request(run, "image", request_id, asked)
        answer = {"run_id": run_id, "request_id": request.request_id, "event_name": IMAGE_EVENT}
        nothing: JsonObject = {**answer, "image_artifact": None, "ok": False, "supported": True}
        if request.known is not None:
            return {**answer, **_OK, "image_artifact": request.known["image_artifact"]}
        if self._media.images is None:
            why = "nothing makes images here; set ABSTRACTGATEWAY_IMAGE_PROVIDER and ABSTRACTGATEWAY_IMAGE_MODEL"
            return {**nothing, "supported": False, "code": "generated_image_unavailable", "error": why}
        images = self._media.images
        try:
            content = self._made(lambda: images.draw(asked, timeout_s=self._calls.timeout_s))
        except GatewayError as error:
            if error.code != _FAILED:
                raise
            return {**nothing, "code": "generated_image_error", "error": error.message}
        if not content:
            why = "the provider answered without an image"
            return {**nothing, "code": "generated_image_no_artifact", "error": why}
        kind = _image_kind(content)
        if kind is None or len(content) > self._max_image_bytes:
            why = f"what the provider made is no image of at most {self._max_image_bytes} bytes"
            return {**nothing, "code": "generated_image_error", "error": why}
        ref = self._keep(request, content, IMAGE_TYPES[kind], "generated_image", f"image.{kind}")
        self._tell(request, IMAGE_EVENT, {**asked, "image_artifact": ref})
        return {**answer, **_OK, "image_artifact": ref}

    def _made(self, make: Callable[[], Made]) -> Made:
        """Return what a port makes. Raises `GatewayError` with the code `media_failed` when it does not."""
        with self._calls.place():
            try:
                return make()
            except Exception as error:  # a program's own maker may raise anything; the client is told what
                why = error.message if isinstance(error, GatewayError) else f"{type(error).__name__}: {error}"
                raise _failed(why) from error

    def _request(self, run: RunState, what: str, request_id: str | None, asked: JsonObject) -> _Request:
        """Return a request, with the payload of its event when the same one was served before."""
        identity = (request_id or "").strip() or new_hex()
        key = f"gateway:{what}:{identity}"
        found = self._events.find(run.run_id, key) if request_id else None
        is_same = found is not None and all(found.get(name) == value for name, value in asked.items())
        return _Request(run, identity, key, found if is_same else None)

    def _tell(self, request: _Request, name: str, payload: JsonObject) -> None:
        told = {"request_id": request.request_id, "generated_at": self._events.now_iso(), **payload}
        self._events.append(request.run.run_id, RunEvent(NODE, name, told, request.key))

    def _keep(self, request: _Request, content: bytes, content_type: str, kind: str, filename: str) -> JsonObject:
        """Store what was made and return a reference to it."""
        tags = {"kind": kind, "source": NODE, "request_id": request.request_id, "filename": filename}
        if request.run.session_id:
            tags["session_id"] = request.run.session_id
        run_id = request.run.run_id
        kept = self._stores.artifacts.store(content, content_type=content_type, run_id=run_id, tags=tags)
        return {
            "$artifact": kept.artifact_id,
            "content_type": kept.content_type,
            "filename": kept.tags.get("filename", filename),
            "sha256": kept.blob_id,
            "size_bytes": kept.size_bytes,
        }

    def _audio(self, run: RunState, ref: JsonObject) -> ArtifactMetadata:
        """Return the sound that a reference names, if it is the run's or its session's."""
        identity = ref.get("$artifact") or ref.get("artifact_id")
        if not isinstance(identity, str) or not is_safe_id(identity):
            raise Invalid("audio_artifact", "names no artifact; give {'$artifact': id}")
        owners = {run.run_id, *([session_memory_id(run.session_id)] if run.session_id else [])}
        metadata = self._stores.artifacts.get_metadata(identity)
        if metadata is None or metadata.run_id not in owners:
            raise NotFound(f"Artifact '{identity}' not found", code="artifact_not_found")
        if not metadata.content_type.lower().startswith("audio/"):
            raise Invalid("audio_artifact", f"is {metadata.content_type!r}, not audio/*")
        if metadata.size_bytes > MAX_AUDIO_BYTES:
            raise Invalid("audio_artifact", f"has {metadata.size_bytes} bytes, more than {MAX_AUDIO_BYTES}")
        return metadata


_FAILED = "media_failed"
_OK: JsonObject = {"ok": True, "supported": True, "code": None, "error": None}


def _failed(why: str) -> GatewayError:
    return GatewayError(f"it could not be made: {why}", code="media_failed")


def _speakable(text: str | None) -> str:
    said = (text or "").strip()
    if not said:
        raise Invalid("text", "is missing; say what is to be read aloud")
    if len(said) > MAX_SPEECH_CHARS:
        raise Invalid("text", f"has {len(said)} characters; at most {MAX_SPEECH_CHARS} are read aloud at once")
    return said


def _check_format(format: str, known: Mapping[str, str]) -> None:
    if format not in known:
        raise Invalid("format", f"{format!r} is not one of {', '.join(known)}")


def _configured(port: Made | None, what: str, prefix: str) -> Made:
    if port is None:
        setting = f"ABSTRACTGATEWAY_{prefix}"
        why = f"{what} is not available; set {setting}_PROVIDER and {setting}_MODEL"
        raise Invalid("", why, code="media_unavailable")
    return port


def _image_kind(content: bytes) -> str | None:
    """Return what kind of image some bytes are, by how they begin; None for none of those that are known."""
    kind = next((kind for sign, kind in _SIGNS if content.startswith(sign)), None)
    return None if kind == "webp" and content[8:12] != b"WEBP" else kind

"""Media: speech, transcripts and images that are made for a run on request, and what makes them."""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from ..fields import Field, Mismatch, Reader, choice, json_object, query_text, text, whole
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..sessions import anything
from ..shapes import named
from .inputs import optional_text
from .knowledge import NUMBER


def make_speech(call: Call) -> Response:
    """Have a text read aloud; the sound becomes an artifact of the run."""
    return json_answer(call.gateway.media.speak(call.path["run_id"], **call.body))


def transcribe_audio(call: Call) -> Response:
    """Have a sound artifact written down."""
    return json_answer(call.gateway.media.transcribe(call.path["run_id"], **call.body))


def generate_image(call: Call) -> Response:
    """Have an image made; it becomes an artifact of the run."""
    return json_answer(call.gateway.media.draw(call.path["run_id"], **call.body))


def list_voices(call: Call) -> Response:
    """List the voices that texts can be read aloud with."""
    return json_answer(call.gateway.discovery.voices(**call.query))


def list_speech_models(call: Call) -> Response:
    """List the models that read texts aloud."""
    return json_answer(call.gateway.discovery.speech_models(**call.query))


def list_vision_models(call: Call) -> Response:
    """List the models that make images."""
    return json_answer(call.gateway.discovery.vision_models(**call.query))


_MOST_PROMPT_CHARS = 20_000


def _read_prompt(value: Any) -> str:
    prompt: str = text.read(value)
    if len(prompt) > _MOST_PROMPT_CHARS:
        why = f"String should have at most {_MOST_PROMPT_CHARS} characters"
        raise Mismatch("string_too_long", why, max_length=_MOST_PROMPT_CHARS)
    return prompt


_PROMPT = Reader(_read_prompt, {"type": "string", "maxLength": _MOST_PROMPT_CHARS})
_REQUEST_ID = optional_text("request_id", "Chosen by the client; the same request again is answered as the first was.")
_BASE_URL = Field("base_url", query_text, about="Refused: no server is asked that a client names.")
_SIDE = whole(1, 8192)
_TASKS = ("text_to_image", "image_to_image", "text_to_video", "image_to_video")

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/runs/{{run_id}}/voice/tts",
        make_speech,
        answers=(Answer("The sound is kept durably.", named("SpeechMade")),),
        body=(
            optional_text("text", "What is read aloud, up to 20,000 characters."),
            optional_text("voice", "One of the provider's voices; without it, the first of the settings."),
            Field("format", choice("wav", "mp3"), default=lambda: "wav", about="`wav` or `mp3`."),
            _REQUEST_ID,
        ),
        refusals=(400, 404, 409, 503),
        scope="command",
    ),
    Route(
        "POST",
        f"{API}/runs/{{run_id}}/audio/transcribe",
        transcribe_audio,
        answers=(Answer("The transcript is kept durably.", named("TranscriptMade")),),
        body=(
            Field(
                "audio_artifact",
                json_object,
                required=True,
                about='`{"$artifact": id}` of the run or of its session.',
            ),
            optional_text("language", "The language that is spoken, such as `en`; without it, the provider finds out."),
            _REQUEST_ID,
        ),
        refusals=(400, 404, 409, 503),
        scope="command",
    ),
    Route(
        "POST",
        f"{API}/runs/{{run_id}}/images/generate",
        generate_image,
        answers=(Answer("`ok` says whether there is an image; it is kept durably.", named("ImageMade")),),
        body=(
            Field("prompt", _PROMPT, required=True, about="What the image is to show."),
            optional_text("provider", "The provider; without it, that of the settings."),
            optional_text("model", "The model; without it, that of the settings."),
            optional_text("size", "Such as `1024x1024`."),
            Field("width", _SIDE, nullable=True, about="In pixels, together with `height`."),
            Field("height", _SIDE, nullable=True, about="In pixels, together with `width`."),
            Field("format", choice("png", "jpeg", "webp"), default=lambda: "png", about="`png`, `jpeg` or `webp`."),
            optional_text("negative_prompt", "What it is not to show."),
            Field("seed", whole(-(2**63)), nullable=True, about="The same one gives the same image, where models can."),
            Field("steps", whole(1, 500), nullable=True, about="How many steps the model takes."),
            Field("guidance_scale", NUMBER, nullable=True, about="How closely it follows the prompt."),
            optional_text("quality", "As the provider names qualities."),
            optional_text("style", "As the provider names styles."),
            _REQUEST_ID,
            Field("extra", json_object, nullable=True, about="Further fields that the provider knows."),
        ),
        refusals=(400, 404, 409, 503),
        scope="command",
    ),
    Route(
        "GET",
        f"{API}/voice/voices",
        list_voices,
        answers=(Answer("The voices that the settings name.", named("Voices")),),
        query=(_BASE_URL,),
        refusals=(400,),
        session=anything,
    ),
    Route(
        "GET",
        f"{API}/audio/speech/models",
        list_speech_models,
        answers=(Answer("The model of the settings.", named("MediaModels")),),
        query=(_BASE_URL,),
        refusals=(400,),
        session=anything,
    ),
    Route(
        "GET",
        f"{API}/vision/provider_models",
        list_vision_models,
        answers=(Answer("The model of the settings.", named("MediaModels")),),
        query=(Field("task", choice(*_TASKS), default=lambda: _TASKS[0], about="What is made of what."), _BASE_URL),
        refusals=(400,),
        session=anything,
    ),
)

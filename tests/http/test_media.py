from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from abstractgateway import GatewayService
from abstractgateway.service.media import IMAGE_EVENT, Media
from tests.http.conftest import LiveGateway, packed
from tests.llm.provider import KEY, Provider, Reply, failed, said

Json = dict[str, Any]
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
JPEG = b"\xff\xd8\xff" + b"pixels"
WEBP = b"RIFF\x00\x00\x00\x00WEBP" + b"pixels"


class Studio:
    """Makes what it is asked for, and remembers that; a failure is raised instead."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.failure: Exception | None = None
        self.image: bytes | None = PNG
        self.sound = b"sound"

    def _note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise self.failure

    def speak(self, text: str, *, voice: str | None, format: str, timeout_s: float) -> bytes:
        self._note("speak", text, voice, format, timeout_s)
        return self.sound

    def transcribe(self, audio: bytes, *, content_type: str, language: str | None, timeout_s: float) -> str:
        self._note("transcribe", audio, content_type, language)
        return "what was said"

    def draw(self, wish: Json, *, timeout_s: float) -> bytes | None:
        self._note("draw", wish)
        return self.image


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def live(go_live: Callable[..., LiveGateway], studio: Studio) -> LiveGateway:
    return go_live({"media": Media(studio, studio, studio)}, store_backend="file")


@pytest.fixture
def run_id(live: LiveGateway) -> str:
    return ended(live)


def ended(live: LiveGateway, session_id: str = "s1") -> str:
    if not live.service.bundles.list()["items"]:
        live.upload(packed())
    run_id = live.start(bundle_id="echo", session_id=session_id)
    live.finish(run_id)
    return run_id


def told(service: GatewayService, run_id: str) -> list[Json]:
    records = [json.loads(body) for body in service.ledger.read(run_id, 0, 2000).records]
    return [record for record in records if record["node_id"] == "gateway"]


def keep_audio(live: LiveGateway, run_id: str | None, content_type: str = "audio/wav") -> Json:
    kept = live.service.stores.artifacts.store(b"a sound", content_type=content_type, run_id=run_id)
    return {"$artifact": kept.artifact_id}


def content_of(live: LiveGateway, run_id: str, ref: Json) -> Any:
    return live.ask("GET", f"/runs/{run_id}/artifacts/{ref['$artifact']}/content")


def test_a_text_that_is_read_aloud_becomes_an_artifact(live: LiveGateway, run_id: str, studio: Studio) -> None:
    body = {"text": " Hello. ", "voice": "amy", "format": "mp3", "request_id": "r1"}

    answer = live.ask("POST", f"/runs/{run_id}/voice/tts", body=body)

    ref = answer.json["audio_artifact"]
    content = content_of(live, run_id, ref)
    assert answer.json == {"ok": True, "run_id": run_id, "request_id": "r1", "audio_artifact": ref}
    assert ref == {
        "$artifact": ref["$artifact"],
        "content_type": "audio/mpeg",
        "filename": "speech.mp3",
        "sha256": hashlib.sha256(b"sound").hexdigest(),
        "size_bytes": 5,
    }
    assert (content.body, content.headers["content-type"]) == (b"sound", "audio/mpeg")
    (record,) = told(live.service, run_id)
    assert record["idempotency_key"] == "gateway:voice_tts:r1"
    assert record["effect"]["payload"]["name"] == "abstract.voice.tts"
    assert record["effect"]["payload"]["payload"]["audio_artifact"] == ref
    assert studio.asked == [("speak", "Hello.", "amy", "mp3", 120.0)]


def test_the_same_request_again_is_answered_without_doing_it_again(
    live: LiveGateway, run_id: str, studio: Studio
) -> None:
    body = {"text": "Hello.", "request_id": "r1"}
    first, again = (live.ask("POST", f"/runs/{run_id}/voice/tts", body=body).json for _ in range(2))
    other = live.ask("POST", f"/runs/{run_id}/voice/tts", body={**body, "text": "Bye."}).json
    unnamed = [live.ask("POST", f"/runs/{run_id}/voice/tts", body={"text": "Hi."}).json for _ in range(2)]

    assert again == first
    assert other["ok"] is True
    assert unnamed[0]["request_id"] != unnamed[1]["request_id"]
    assert [what[1] for what in studio.asked] == ["Hello.", "Bye.", "Hi.", "Hi."]


def test_a_sound_is_written_down(live: LiveGateway, run_id: str, studio: Studio) -> None:
    audio = keep_audio(live, run_id)

    answer = live.ask(
        "POST", f"/runs/{run_id}/audio/transcribe", body={"audio_artifact": audio, "language": "en", "request_id": "r"}
    ).json
    again = live.ask(
        "POST", f"/runs/{run_id}/audio/transcribe", body={"audio_artifact": audio, "language": "en", "request_id": "r"}
    ).json

    assert set(answer) == {"ok", "run_id", "request_id", "text", "transcript_artifact"}
    assert answer["text"] == "what was said"
    assert content_of(live, run_id, answer["transcript_artifact"]).body == b"what was said"
    (record,) = told(live.service, run_id)
    assert record["effect"]["payload"]["name"] == "abstract.audio.transcript"
    assert record["effect"]["payload"]["payload"]["text"] == "what was said"
    assert again == answer
    assert studio.asked == [("transcribe", b"a sound", "audio/wav", "en")]


def test_a_sound_of_the_session_may_be_written_down_and_none_of_others(live: LiveGateway, run_id: str) -> None:
    path = f"/runs/{run_id}/audio/transcribe"
    own = keep_audio(live, "session_memory_s1")
    foreign = keep_audio(live, "session_memory_s2")

    assert live.ask("POST", path, body={"audio_artifact": own}).status == 200
    for ref in (foreign, {"$artifact": "nope"}):
        answer = live.ask("POST", path, body={"audio_artifact": ref})
        assert (answer.status, answer.json["code"]) == (404, "artifact_not_found")


@pytest.mark.parametrize(
    ("content_type", "ref", "detail"),
    [
        ("text/plain", None, "is 'text/plain', not audio/*"),
        ("audio/wav", {}, "names no artifact"),
        ("audio/wav", {"$artifact": "../x"}, "names no artifact"),
    ],
)
def test_what_is_no_sound_is_refused(
    live: LiveGateway, run_id: str, content_type: str, ref: Json | None, detail: str
) -> None:
    kept = keep_audio(live, run_id, content_type)

    answer = live.ask("POST", f"/runs/{run_id}/audio/transcribe", body={"audio_artifact": kept if ref is None else ref})

    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert detail in answer.json["detail"]


@pytest.mark.parametrize(("content", "kind"), [(PNG, "png"), (JPEG, "jpeg"), (WEBP, "webp")])
def test_an_image_becomes_an_artifact_of_the_kind_that_it_is(
    live: LiveGateway, run_id: str, studio: Studio, content: bytes, kind: str
) -> None:
    studio.image = content
    body = {"prompt": " a cat ", "width": 64, "height": 32, "seed": 7, "request_id": "r1", "extra": {"n": 2}}

    answer = live.ask("POST", f"/runs/{run_id}/images/generate", body=body).json
    again = live.ask("POST", f"/runs/{run_id}/images/generate", body=body).json

    ref = answer["image_artifact"]
    assert answer == {
        "ok": True,
        "supported": True,
        "run_id": run_id,
        "request_id": "r1",
        "image_artifact": ref,
        "event_name": IMAGE_EVENT,
        "code": None,
        "error": None,
    }
    assert (ref["content_type"], ref["filename"]) == (f"image/{kind}", f"image.{kind}")
    assert content_of(live, run_id, ref).body == content
    (record,) = told(live.service, run_id)
    assert record["idempotency_key"] == "gateway:image:r1"
    assert record["effect"]["payload"]["name"] == IMAGE_EVENT
    assert again == answer
    wish = {"prompt": "a cat", "format": "png", "width": 64, "height": 32, "seed": 7, "extra": {"n": 2}}
    assert studio.asked == [("draw", wish)]


@pytest.mark.parametrize(
    ("image", "failure", "code", "error"),
    [
        (None, None, "generated_image_no_artifact", "without an image"),
        (b"", None, "generated_image_no_artifact", "without an image"),
        (b"<html>", None, "generated_image_error", "no image of at most"),
        (PNG + b"x" * 1000, None, "generated_image_error", "no image of at most 1000 bytes"),
        (PNG, RuntimeError("no paint"), "generated_image_error", "RuntimeError: no paint"),
    ],
)
def test_an_image_that_could_not_be_made_is_told_of(
    go_live: Callable[..., LiveGateway],
    studio: Studio,
    image: bytes | None,
    failure: Exception | None,
    code: str,
    error: str,
) -> None:
    live = go_live({"media": Media(images=studio)}, image_max_bytes=1000)
    run_id = ended(live)
    studio.image, studio.failure = image, failure

    answer = live.ask("POST", f"/runs/{run_id}/images/generate", body={"prompt": "a cat"})

    assert (answer.status, answer.json["ok"], answer.json["supported"], answer.json["code"]) == (200, False, True, code)
    assert error in answer.json["error"]
    assert answer.json["image_artifact"] is None
    assert told(live.service, run_id) == []


def test_what_is_not_configured_says_so(go_live: Callable[..., LiveGateway]) -> None:
    live = go_live()
    run_id = ended(live)
    audio = keep_audio(live, run_id)

    speech = live.ask("POST", f"/runs/{run_id}/voice/tts", body={"text": "Hello."})
    transcript = live.ask("POST", f"/runs/{run_id}/audio/transcribe", body={"audio_artifact": audio})
    image = live.ask("POST", f"/runs/{run_id}/images/generate", body={"prompt": "a cat"})

    for answer, name in ((speech, "SPEECH"), (transcript, "TRANSCRIPTION")):
        assert (answer.status, answer.json["code"]) == (400, "media_unavailable")
        assert f"ABSTRACTGATEWAY_{name}_PROVIDER" in answer.json["detail"]
    assert image.status == 200
    assert (image.json["ok"], image.json["supported"]) == (False, False)
    assert (image.json["code"], image.json["event_name"]) == ("generated_image_unavailable", IMAGE_EVENT)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("voice/tts", {}),
        ("voice/tts", {"text": "  "}),
        ("voice/tts", {"text": "x" * 20_001}),
        ("voice/tts", {"text": "x", "format": "ogg"}),
        ("images/generate", {"prompt": " "}),
        ("images/generate", {"prompt": "x", "format": "gif"}),
    ],
)
def test_what_means_nothing_is_refused(live: LiveGateway, run_id: str, studio: Studio, name: str, body: Json) -> None:
    answer = live.ask("POST", f"/runs/{run_id}/{name}", body=body)

    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert studio.asked == []


@pytest.mark.parametrize(
    ("name", "body", "place"),
    [
        ("voice/tts", {"text": 5}, "text"),
        ("audio/transcribe", {}, "audio_artifact"),
        ("audio/transcribe", {"audio_artifact": "x"}, "audio_artifact"),
        ("images/generate", {}, "prompt"),
        ("images/generate", {"prompt": "x" * 20_001}, "prompt"),
        ("images/generate", {"prompt": "x", "width": 0}, "width"),
        ("images/generate", {"prompt": "x", "height": 8193}, "height"),
        ("images/generate", {"prompt": "x", "steps": 501}, "steps"),
        ("images/generate", {"prompt": "x", "guidance_scale": "high"}, "guidance_scale"),
        ("images/generate", {"prompt": "x", "extra": []}, "extra"),
    ],
)
def test_a_body_of_another_shape_is_refused(live: LiveGateway, name: str, body: Json, place: str) -> None:
    answer = live.ask("POST", f"/runs/x/{name}", body=body)

    assert (answer.status, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["detail"][0]["loc"] == ["body", place]


@pytest.mark.parametrize(
    ("name", "body"),
    [("voice/tts", {"text": "x"}), ("audio/transcribe", {"audio_artifact": {}}), ("images/generate", {"prompt": "x"})],
)
def test_an_unknown_run_is_not_found(live: LiveGateway, name: str, body: Json) -> None:
    answer = live.ask("POST", f"/runs/nope/{name}", body=body)

    assert (answer.status, answer.json["code"]) == (404, "run_not_found")


@pytest.mark.parametrize("sound", [b"", b"x" * 26_214_401])
def test_a_sound_that_is_none_or_too_large_is_a_failure(
    live: LiveGateway, run_id: str, studio: Studio, sound: bytes
) -> None:
    studio.sound = sound

    answer = live.ask("POST", f"/runs/{run_id}/voice/tts", body={"text": "x"})

    assert (answer.status, answer.json["code"]) == (500, "media_failed")


def test_a_maker_that_fails_is_told_of(live: LiveGateway, run_id: str, studio: Studio) -> None:
    studio.failure = OSError("no air")
    audio = keep_audio(live, run_id)

    for name, body in (("voice/tts", {"text": "x"}), ("audio/transcribe", {"audio_artifact": audio})):
        answer = live.ask("POST", f"/runs/{run_id}/{name}", body=body)
        assert (answer.status, answer.json["code"]) == (500, "media_failed")
        assert "OSError: no air" in answer.json["detail"]
    assert told(live.service, run_id) == []


def test_what_was_made_is_there_after_a_restart(
    live: LiveGateway, run_id: str, go_live: Callable[..., LiveGateway]
) -> None:
    made = live.ask("POST", f"/runs/{run_id}/voice/tts", body={"text": "Hello.", "request_id": "r"}).json
    live.server.stop()
    live.service.close()

    again = go_live({"media": Media()}, store_backend="file")

    assert content_of(again, run_id, made["audio_artifact"]).body == b"sound"
    assert len(told(again.service, run_id)) == 1


def providers(provider: Provider) -> Json:
    return {
        "openai_base_url": f"{provider.url}/v1",
        "openai_api_key": KEY,
        "speech_provider": "openai",
        "speech_model": "tts-1",
        "transcription_provider": "openai",
        "transcription_model": "whisper-1",
        "image_provider": "openai",
        "image_model": "image-1",
    }


def image(content: bytes = PNG) -> Reply:
    return said({"data": [{"b64_json": base64.b64encode(content).decode()}]})


def test_a_provider_reads_aloud(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(Reply([b"so", b"und"], headers={"Content-Type": "audio/wav"})) as provider:
        live = go_live(**providers(provider), speech_voices=("bob",))
        run_id = ended(live)
        answer = live.ask("POST", f"/runs/{run_id}/voice/tts", body={"text": "Hello."})
        named = live.ask("POST", f"/runs/{run_id}/voice/tts", body={"text": "Hello.", "voice": "amy"})

    assert (answer.status, named.status) == (200, 200)
    assert content_of(live, run_id, answer.json["audio_artifact"]).body == b"sound"
    assert [request.path for request in provider.requests] == ["/v1/audio/speech"] * 2
    assert provider.bodies[0] == {"model": "tts-1", "input": "Hello.", "voice": "bob", "response_format": "wav"}
    assert provider.bodies[1]["voice"] == "amy"
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_provider_writes_down(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(said({"text": "good morning"})) as provider:
        live = go_live(**providers(provider))
        run_id = ended(live)
        body = {"audio_artifact": keep_audio(live, run_id, "audio/mpeg"), "language": "en"}
        answer = live.ask("POST", f"/runs/{run_id}/audio/transcribe", body=body)

    (request,) = provider.requests
    assert answer.json["text"] == "good morning"
    assert request.path == "/v1/audio/transcriptions"
    assert request.headers["content-type"].startswith("multipart/form-data")
    for part in (b'name="model"\r\n\r\nwhisper-1', b'name="language"\r\n\r\nen', b'filename="audio.mp3"', b"a sound"):
        assert part in request.content


def test_a_provider_draws_and_is_asked_again_without_what_it_refuses(go_live: Callable[..., LiveGateway]) -> None:
    replies = [failed(400, "Unknown parameter: 'response_format'."), failed(400, "unknown: steps"), image()]
    with Provider(*replies) as provider:
        live = go_live(**providers(provider))
        run_id = ended(live)
        body = {"prompt": "a cat", "width": 64, "height": 32, "steps": 5, "extra": {"background": "auto", "n": 9}}
        answer = live.ask("POST", f"/runs/{run_id}/images/generate", body=body)

    assert (answer.json["ok"], answer.json["image_artifact"]["content_type"]) == (True, "image/png")
    assert provider.bodies[0] == {
        "background": "auto",
        "model": "image-1",
        "prompt": "a cat",
        "n": 1,
        "steps": 5,
        "size": "64x32",
        "output_format": "png",
        "response_format": "b64_json",
    }
    assert "response_format" not in provider.bodies[1]
    assert "steps" not in provider.bodies[2]


@pytest.mark.parametrize(
    ("reply", "code", "error"),
    [
        (said({"data": [{"url": "http://169.254.169.254/"}]}), "generated_image_no_artifact", "without an image"),
        (said({}), "generated_image_no_artifact", "without an image"),
        (said({"data": [{"b64_json": "***"}]}), "generated_image_error", "no base64"),
        (failed(400, "that is not allowed"), "generated_image_error", "400: that is not allowed"),
        (failed(500, f"bad {KEY}"), "generated_image_error", "500: bad [key]"),
        (None, "generated_image_error", "the connection broke"),
    ],
)
def test_a_provider_that_does_not_draw_is_told_of(
    go_live: Callable[..., LiveGateway], reply: Reply | None, code: str, error: str
) -> None:
    with Provider(reply) as provider:
        live = go_live(**providers(provider))
        run_id = ended(live)
        answer = live.ask("POST", f"/runs/{run_id}/images/generate", body={"prompt": "a cat"})

    assert (answer.status, answer.json["code"]) == (200, code)
    assert error in answer.json["error"]
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"speech_provider": "anthropic"}, "makes no media here; known: openai"),
        ({"speech_provider": "nope"}, "makes no media here"),
        ({"speech_model": None}, "set ABSTRACTGATEWAY_SPEECH_MODEL"),
        ({"openai_base_url": "http://127.0.0.1:1"}, "no connection"),
    ],
)
def test_settings_that_cannot_work_are_told_of(go_live: Callable[..., LiveGateway], settings: Json, why: str) -> None:
    with Provider(said({})) as provider:
        live = go_live(**{**providers(provider), **settings})
        run_id = ended(live)
        answer = live.ask("POST", f"/runs/{run_id}/voice/tts", body={"text": "x"})

    assert (answer.status, answer.json["code"]) == (500, "media_failed")
    assert why in answer.json["detail"]


def test_an_image_of_another_provider_may_be_asked_for(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(image()) as provider:
        live = go_live(**providers(provider), vllm_base_url=provider.url)
        run_id = ended(live)
        body = {"prompt": "a cat", "provider": "vllm", "model": "flux"}
        answer = live.ask("POST", f"/runs/{run_id}/images/generate", body=body)

    assert answer.json["ok"] is True
    assert (provider.requests[0].path, provider.bodies[0]["model"]) == ("/v1/images/generations", "flux")
    assert "authorization" not in provider.requests[0].headers

"""What is made for a request while it waits: summaries, answers about runs, speech, transcripts, images."""

from __future__ import annotations

from ..parsing import at_least, parse_list, seconds
from ..setting import Setting, env

ROWS: tuple[Setting, ...] = (
    Setting(
        "direct_calls",
        env("DIRECT_CALLS"),
        at_least(1),
        "How many model calls may be made for waiting requests at once; two threads of the server always stay free.",
    ),
    Setting("direct_timeout_s", env("DIRECT_TIMEOUT_S"), seconds, "How many seconds such a call may take."),
    Setting(
        "speech_provider", env("SPEECH_PROVIDER"), str, "The provider that reads texts aloud; without it nothing does."
    ),
    Setting("speech_model", env("SPEECH_MODEL"), str, "The model that does it."),
    Setting(
        "speech_voices",
        env("SPEECH_VOICES"),
        parse_list,
        "The voices that clients are told of; the first is the default.",
    ),
    Setting(
        "transcription_provider",
        env("TRANSCRIPTION_PROVIDER"),
        str,
        "The provider that writes down what is said; without it nothing does.",
    ),
    Setting("transcription_model", env("TRANSCRIPTION_MODEL"), str, "The model that does it."),
    Setting("image_provider", env("IMAGE_PROVIDER"), str, "The provider that makes images; without it nothing does."),
    Setting("image_model", env("IMAGE_MODEL"), str, "The model that does it."),
    Setting("image_max_bytes", env("IMAGE_MAX_BYTES"), at_least(1000), "The largest image that is kept."),
    Setting(
        "max_chat_thread_bytes",
        env("MAX_CHAT_THREAD_BYTES"),
        at_least(1000),
        "The largest conversation about a run that is kept.",
    ),
)

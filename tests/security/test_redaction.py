from __future__ import annotations

import io
import logging
import time

import pytest

from abstractgateway.config import GatewayConfig, McpServers
from abstractgateway.security import RedactingFormatter, Redactor

SECRET = "s3cret-of-the-operator"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}",
        f'{{"Authorization": "Bearer {SECRET}"}}',
        f"{{'authorization': '{SECRET}'}}",
        f"sent bearer {SECRET} to it",
        f"api_key={SECRET}",
        f"https://x.example/?api-key={SECRET}&a=1",
        f'"x-api-key": "{SECRET}"',
        f"ANTHROPIC_API_KEY: {SECRET}",
        f"postgresql://user:{SECRET}@host:5432/db",
        f"password = {SECRET}",
        f"access_token={SECRET}",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text):
    cleaned = Redactor().text(text)

    assert SECRET not in cleaned
    assert "[redacted]" in cleaned


@pytest.mark.parametrize("text", ["agw_0123abcd_" + "x" * 43, "sk-proj-" + "a" * 40])
def test_a_bare_key_is_known_by_its_form(text):
    assert Redactor().text(f"it said {text}!") == "it said [redacted]!"


@pytest.mark.parametrize(
    "text",
    ["run 5f0c completed", "the token 'ci' is revoked", "http://127.0.0.1:8080/api", "the bearer of news", "password"],
)
def test_other_texts_stay_as_they_are(text):
    assert Redactor().text(text) == text


def test_every_secret_of_the_settings_is_known():
    config = GatewayConfig(
        auth_tokens=("first-secret-token", "second-secret-token"),
        openai_api_key="key-of-openai",
        anthropic_api_key="key-of-anthropic",
        database_url="postgresql://gateway:hunter22@db/x",
    )
    text = "first-secret-token second-secret-token key-of-openai key-of-anthropic hunter22"

    assert Redactor.of(config).known(text) == " ".join(["[redacted]"] * 5)


def test_what_mcp_servers_are_given_in_secret_is_known():
    entries = {
        "web": {"url": "https://x.example", "headers": {"Authorization": "Bearer header-secret"}},
        "local": {
            "command": "run",
            "env": {"GITHUB_TOKEN": "env-secret", "MODE": "production", "OTHER": "${FROM_OUTSIDE}"},
        },
        "odd": "nothing",
    }
    servers = McpServers.of(entries, {"FROM_OUTSIDE": "outer-secret", "PATH": "/usr/local/bin"})

    told = Redactor.of(GatewayConfig(mcp_servers=servers)).known(
        "header-secret env-secret outer-secret production /usr/local/bin"
    )

    assert told == "[redacted] [redacted] [redacted] production /usr/local/bin"


def test_no_log_line_and_no_traceback_has_a_secret():
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(RedactingFormatter(Redactor([SECRET]), "%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)

    try:
        raise ValueError(f"cannot connect with {SECRET}")
    except ValueError:
        log.exception("failed: %s", {"Authorization": "Bearer another-secret"})

    assert SECRET not in written.getvalue()
    assert "another-secret" not in written.getvalue()
    assert "ValueError: cannot connect with [redacted]" in written.getvalue()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "it failed: [Errno 28] No space left on device: '/srv/data/run_1.json'",
            "it failed: [Errno 28] No space left on device",
        ),
        (
            "[Errno 2] No such file or directory: '/a/b' -> '/c/d'; try again",
            "[Errno 2] No such file or directory; try again",
        ),
        ('[Errno 2] No such file or directory: "/a/it\'s"', "[Errno 2] No such file or directory"),
        ('syntax error at or near "x"\nLINE 1: SELECT * FROM runs\n        ^', 'syntax error at or near "x"'),
        ("Run 'r-1' not found", "Run 'r-1' not found"),
    ],
)
def test_an_answer_names_no_file_and_no_statement(text, told):
    assert Redactor().answer(text) == told


@pytest.mark.parametrize(
    "piece",
    ["a.", "a", "x://", "x://a:", "bearer ", "api_key", "password ", "authorization", "agw_01234567_", "sk-", " ", "\n"]
    + ["[Errno 2] x", "[Errno 2] x: '", "[Errno 2] x: ", "\nLINE 1", "\nLINE 1:"],
)
def test_a_long_text_of_a_client_takes_no_longer_than_its_length(piece):
    text, redactor = piece * (300_000 // len(piece)), Redactor([SECRET])
    began = time.process_time()

    redactor.text(text)
    redactor.answer(text)

    # About half a second; what grows with the square of the length takes minutes.
    assert time.process_time() - began < 10

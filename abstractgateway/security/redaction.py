"""Secrets are taken out before anything is written: of log lines, of errors for clients, and of what effects give."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ..config import GatewayConfig, McpServers
from ..config.mcp_servers import FOR_CHILDREN
from ..errors import Invalid
from ..jsonvalue import compact_text
from .tokens import PREFIX

REDACTED = "[redacted]"

_LEAST_SECRET = 6
"""Shorter texts are no secrets, and taking them out would make a log unreadable."""

_LEAST_IN_VALUES = 15
"""In what effects give, texts that are no weak tokens: local servers take words such as `lm-studio` for a key."""

_TELLING = re.compile(r"(?i)key|token|secret|pass|pwd|credential|auth(?!or)|cookie|dsn|signature|private")
_PLAIN = re.compile(r"[/.~]|[A-Za-z]:\\|https?://[^@?]*\Z|.*\s", re.DOTALL)
_HARMLESS_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-type", "user-agent"}
)
_NAMED = f"{PREFIX}_"
_SHAPE_OF_NAMED = re.compile(rf"\b{_NAMED}[0-9a-f]{{8}}_[A-Za-z0-9_-]{{20,}}")
# What repeats in these has a bound, or ends where another match could begin: texts may be a client's, and long.
_SHAPES = (
    re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?)[^\r\n'\",}\]]+"),
    re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(
        r"(?i)((?:api[-_]?key|access[-_]?token|auth[-_]?token|client[-_]?secret|password|passwd)"
        r"['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&}\]]+"
    ),
    re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@]{0,200}:)[^\s/@]+(?=@)"),
    re.compile(rf"(){_SHAPE_OF_NAMED.pattern}"),
    re.compile(r"()\bsk-[A-Za-z0-9_-]{16,}"),
)


# What a system call names, and what PostgreSQL quotes: neither is for clients.
_QUOTED = r"(?:'[^']{0,5000}'|\"[^\"]{0,5000}\")"
_NAMED_FILES = re.compile(rf"(\[Errno -?\d{{1,9}}\] [^:'\"\[]{{1,200}}): {_QUOTED}(?: -> {_QUOTED})?")
_STATEMENT = re.compile(r"\nLINE \d{1,9}:")


class Redactor:
    """Replaces the secrets it knows, and what looks like one, by `[redacted]`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        given = frozenset(secrets)
        known, in_values = _spellings(given, _LEAST_SECRET), _spellings(given, _LEAST_IN_VALUES)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None
        self._in_values = re.compile("|".join([*map(re.escape, in_values), _SHAPE_OF_NAMED.pattern]))
        # As they are spelt in JSON, without the quotes around them.
        self._marks = tuple({_NAMED, *(compact_text(secret)[1:-1] for secret in in_values)})

    @staticmethod
    def of(config: GatewayConfig) -> Redactor:
        """Return a redactor that knows every secret of the settings."""
        keys = (getattr(config, name) for name in vars(config) if name.endswith("_api_key"))
        urls = (getattr(config, name) for name in vars(config) if name.endswith(("_base_url", "database_url")))
        of_urls = (secret for url in urls if url for secret in secrets_of_url(url))
        of_servers = secrets_of(config.mcp_servers) if config.mcp_servers is not None else ()
        return Redactor(str(secret) for secret in (*config.auth_tokens, *keys, *of_urls, *of_servers) if secret)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        cleaned = self.known(text)
        for shape in _SHAPES:
            cleaned = shape.sub(rf"\g<1>{REDACTED}", cleaned)
        return cleaned

    def answer(self, text: str) -> str:
        """Return a text for clients: no secrets of the settings, no names of files, no SQL."""
        found = _STATEMENT.search(text)
        shown = text[: found.start()].rstrip() if found is not None else text
        return _NAMED_FILES.sub(r"\1", self.known(shown))

    def known(self, text: str) -> str:
        """Return a text without the secrets of the settings; what only looks like a secret stays."""
        return self._known.sub(REDACTED, text) if self._known is not None else text

    def error(self, text: str) -> str:
        """Return the error of an effect as it may be kept: no secrets of the settings, no token of this gateway."""
        return _SHAPE_OF_NAMED.sub(REDACTED, self.known(text))

    def value(self, value: Any) -> Any:
        """Return a JSON value, keys included, without the secrets of the settings that are long enough for one.

        Nearly all values have none, and come back as they are; so does what is no JSON, which nobody can store.
        """
        try:
            text = compact_text(value)
        except Invalid:
            return value
        if not any(mark in text for mark in self._marks):
            return value
        try:
            return self._without(value)
        except RecursionError:  # deeper than we can look, not deeper than JSON can be written
            return REDACTED

    def _without(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._in_values.sub(REDACTED, value)
        if isinstance(value, Mapping):
            return {self._without(key): self._without(inner) for key, inner in value.items()}
        return list(map(self._without, value)) if isinstance(value, (list, tuple)) else value


def _spellings(secrets: Iterable[str], least: int) -> list[str]:
    """Return secrets as they are and as URLs have them, the longest first, so that none leaves a rest of another."""
    long_enough = {secret for secret in secrets if len(secret) >= least}
    return sorted(long_enough | {quote(secret, safe="") for secret in long_enough}, key=len, reverse=True)


def secrets_of_url(url: str) -> Iterator[str]:
    """Return the password of a URL, as it is written and as it is meant, and the secrets of its query."""
    parts = urlsplit(url)
    if parts.password:
        yield from (parts.password, unquote(parts.password))
    yield from (value for name, value in parse_qsl(parts.query) if _TELLING.search(name))


def secrets_of(servers: McpServers) -> Iterator[str]:
    """Return what MCP servers are given that must not be seen.

    That is their headers, what their environment and arguments have under a telling name, and what their entries take
    from the gateway's environment, unless its name says nothing and it is a path, a URL or several words.
    """
    for name, value in servers.environment.items():
        if name not in FOR_CHILDREN and (_TELLING.search(name) or not _PLAIN.match(value)):
            yield value
    for entry in servers.entries.values():
        if isinstance(entry, dict):
            yield from _secrets_of_entry(entry)


def _secrets_of_entry(entry: Mapping[str, Any]) -> Iterator[str]:
    headers, env, args, url = (entry.get(name) for name in ("headers", "env", "args", "url"))
    if isinstance(headers, dict):
        secret = (str(value) for name, value in headers.items() if str(name).lower() not in _HARMLESS_HEADERS)
        yield from (value.rpartition(" ")[2] for value in secret)
    if isinstance(env, dict):
        yield from (str(value) for name, value in env.items() if _TELLING.search(str(name)))
    if isinstance(args, list):
        yield from _secrets_of_arguments(list(map(str, args)))
    if isinstance(url, str):
        yield from secrets_of_url(url)


def _secrets_of_arguments(arguments: list[str]) -> Iterator[str]:
    """Return the values of flags with telling names: `--token=x`, `--token x`."""
    for flag, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, is_whole, value = flag.partition("=")
        if flag.startswith("-") and _TELLING.search(name):
            yield value if is_whole else following


class RedactingFormatter(logging.Formatter):
    """Formats a log record, its traceback included, without secrets."""

    def __init__(self, redactor: Redactor, format: str) -> None:
        super().__init__(format)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))

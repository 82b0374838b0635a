"""Secrets are taken out of texts before they are written: log lines, and errors that clients read."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from ..config import GatewayConfig, McpServers
from ..config.mcp_servers import FOR_CHILDREN

REDACTED = "[redacted]"

_LEAST_SECRET = 6
"""Shorter texts are no secrets, and taking them out would make a log unreadable."""

_TELLING = re.compile(r"(?i)key|token|secret|passw|credential|auth")
_SHAPES = (
    re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?)[^\r\n'\",}\]]+"),
    re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(
        r"(?i)((?:api[-_]?key|access[-_]?token|auth[-_]?token|client[-_]?secret|password|passwd)"
        r"['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&}\]]+"
    ),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)"),
    re.compile(r"()\bagw_[0-9a-f]{8}_[A-Za-z0-9_-]{20,}"),
    re.compile(r"()\bsk-[A-Za-z0-9_-]{16,}"),
)


# What a system call names, and what PostgreSQL quotes: neither is for clients.
_NAMED_FILES = re.compile(r"(\[Errno -?\d+\] [^:'\"]+): (?:'[^']*'|\"[^\"]*\")(?: -> (?:'[^']*'|\"[^\"]*\"))?")
_STATEMENT = re.compile(r"\s*\nLINE \d+:.*", re.DOTALL)


class Redactor:
    """Replaces the secrets it knows, and what looks like one, by `[redacted]`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= _LEAST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    @staticmethod
    def of(config: GatewayConfig) -> Redactor:
        """Return a redactor that knows every secret of the settings."""
        keys = (getattr(config, name) for name in vars(config) if name.endswith("_api_key"))
        password = urlsplit(config.database_url).password if config.database_url else None
        of_servers = secrets_of(config.mcp_servers) if config.mcp_servers is not None else ()
        return Redactor(str(secret) for secret in (*config.auth_tokens, *keys, password, *of_servers) if secret)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        cleaned = self.known(text)
        for shape in _SHAPES:
            cleaned = shape.sub(rf"\g<1>{REDACTED}", cleaned)
        return cleaned

    def answer(self, text: str) -> str:
        """Return a text for clients: no secrets of the settings, no names of files, no SQL."""
        return _STATEMENT.sub("", _NAMED_FILES.sub(r"\1", self.known(text)))

    def known(self, text: str) -> str:
        """Return a text without the secrets of the settings; what only looks like a secret stays."""
        return self._known.sub(REDACTED, text) if self._known is not None else text


def secrets_of(servers: McpServers) -> Iterator[str]:
    """Return what MCP servers are given that must not be seen: their headers, and the secrets of their environments."""
    yield from (value for name, value in servers.environment.items() if name not in FOR_CHILDREN)
    for entry in servers.entries.values():
        given = entry if isinstance(entry, dict) else {}
        headers, env = given.get("headers"), given.get("env")
        if isinstance(headers, dict):
            yield from (str(value).rpartition(" ")[2] for value in headers.values())
        if isinstance(env, dict):
            yield from (str(value) for name, value in env.items() if _TELLING.search(str(name)))


class RedactingFormatter(logging.Formatter):
    """Formats a log record, its traceback included, without secrets."""

    def __init__(self, redactor: Redactor, format: str) -> None:
        super().__init__(format)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))

"""What the settings say about each server, checked before anything is started."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from abstractgateway.config import GatewayConfig, McpServers
from abstractgateway.errors import Invalid

HIDDEN = "[secret]"
_LEAST_SECRET = 4
"""Shorter values, such as `1` or `en`, would blot out half of every message."""

_NAME = re.compile(r"\A[A-Za-z0-9](?:[A-Za-z0-9-]|_(?=[A-Za-z0-9-])){0,31}\Z")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER = re.compile(r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_ALWAYS = frozenset({"type", "allow", "deny", "timeout_s", "disabled"})
_OF_PROCESSES = frozenset({"command", "args", "env", "cwd"})
_OF_URLS = frozenset({"url", "headers"})
_TYPES = {"stdio": "command", "http": "url", "streamable-http": "url"}


@dataclass(frozen=True)
class Server:
    """One server: a `command` with arguments, its whole environment and directory, or a `url` with headers.

    `allow` and `deny` are patterns of tool names such as `read_*`; `secrets` are the texts that no error may show.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    timeout_s: float = 300.0
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def has_allowed(self, tool: str) -> bool:
        """Say whether the settings let a tool of this server be called."""
        return _is_matched(tool, self.allow) and not _is_matched(tool, self.deny)

    def hidden(self, text: str) -> str:
        """Return a text without the secrets of the server's settings."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text


def servers_of(config: GatewayConfig) -> tuple[Server, ...]:
    """Return the servers that the settings name and do not disable. Raises `Invalid` for an entry that is wrong."""
    given = config.mcp_servers or McpServers()
    entries = [_Entry(name, entry, given.environment) for name, entry in given.entries.items()]
    return tuple(entry.server(config.mcp_timeout_s) for entry in entries if not entry.is_disabled)


class _Entry:
    """The settings of one server, read field by field."""

    def __init__(self, name: str, fields: Any, environment: Mapping[str, str]) -> None:
        self._where = f"mcpServers.{name}"
        self._environment = environment
        self._references: set[str] = set()
        if not _NAME.match(name):
            self._refuse("", "is not a name of up to 32 letters, digits, '-' and single '_' that begins with no '_'")
        if not isinstance(fields, Mapping):
            self._refuse("", "is not an object")
        self._name = name
        self._fields = {key: value for key, value in fields.items() if value is not None}
        self._check_fields()

    @property
    def is_disabled(self) -> bool:
        return bool(self._typed("disabled", False, lambda value: isinstance(value, bool), "true or false"))

    def server(self, timeout_s: float) -> Server:
        read = self._url_server if "url" in self._fields else self._process_server
        return read(
            allow=self._texts("allow", ["*"]),
            deny=self._texts("deny", []),
            timeout_s=float(self._typed("timeout_s", timeout_s, _is_seconds, "a number of seconds above 0")),
        )

    def _process_server(self, **rules: Any) -> Server:
        always = {name: self._environment[name] for name in ("PATH", "HOME", "LANG") if name in self._environment}
        own = self._pairs("env")
        command, args = self._text("command"), self._texts("args", [])
        return Server(
            name=self._name,
            command=command,
            args=args,
            env={"PATH": os.defpath, **always, **own},
            cwd=self._text("cwd") if "cwd" in self._fields else None,
            secrets=self._secrets(own),
            **rules,
        )

    def _url_server(self, **rules: Any) -> Server:
        url, headers = self._text("url"), self._pairs("headers")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            self._refuse("url", "is no URL such as https://tools.example/mcp; credentials belong into headers")
        for name, value in headers.items():
            if not _HEADER.match(name) or not (value.isascii() and value.isprintable()):
                self._refuse(f"headers.{name}", "has characters that no header may have")
        return Server(name=self._name, url=url, headers=headers, secrets=self._secrets(headers, parts.query), **rules)

    def _secrets(self, pairs: Mapping[str, str], *more: str) -> tuple[str, ...]:
        """Longer ones first, so that none leaves the rest of another behind."""
        words = (word for value in pairs.values() for word in (value, *value.split()))
        referred = (self._environment[name] for name in self._references - {"PATH", "HOME", "LANG"})
        found = {text for text in (*words, *referred, *more) if len(text) >= _LEAST_SECRET}
        return tuple(sorted(found, key=len, reverse=True))

    def _check_fields(self) -> None:
        kinds = [name for name in ("command", "url") if name in self._fields]
        if len(kinds) != 1:
            self._refuse("", "has to have either a command or a url")
        if _TYPES.get(self._fields.get("type", _kind_name(kinds[0]))) != kinds[0]:
            self._refuse("type", f"{self._fields['type']!r} does not go with a {kinds[0]}; known: stdio, http")
        known = _ALWAYS | (_OF_URLS if kinds == ["url"] else _OF_PROCESSES)
        for name in sorted(self._fields.keys() - known):
            self._refuse(name, f"is not a field of such an entry; known: {', '.join(sorted(known))}")

    def _text(self, name: str) -> str:
        return self._expanded(name, self._typed(name, "", _is_text, "a text that is not empty"))

    def _texts(self, name: str, default: list[str]) -> tuple[str, ...]:
        is_list = lambda value: isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)  # noqa: E731
        return tuple(self._expanded(name, item) for item in self._typed(name, default, is_list, "a list of texts"))

    def _pairs(self, name: str) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for key, value in self._typed(name, {}, lambda value: isinstance(value, Mapping), "an object").items():
            if not isinstance(value, str) or not _is_text(key):
                self._refuse(f"{name}.{key}", "is not a text")
            pairs[key] = self._expanded(f"{name}.{key}", value)
        return pairs

    def _typed(self, name: str, default: Any, is_right: Callable[[Any], bool], what: str) -> Any:
        value = self._fields.get(name, default)
        if not is_right(value):
            self._refuse(name, f"is not {what}")
        return value

    def _expanded(self, name: str, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] not in self._environment:
                self._refuse(name, f"refers to ${{{match[1]}}}, which is not set")
            self._references.add(match[1])
            return self._environment[match[1]]

        expanded = _REFERENCE.sub(value, text)
        if "\0" in expanded:
            self._refuse(name, "has a character that no program can be given")
        return expanded

    def _refuse(self, name: str, why: str) -> None:
        raise Invalid(f"{self._where}.{name}" if name else self._where, why)


def _kind_name(kind: str) -> str:
    return "http" if kind == "url" else "stdio"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _is_matched(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

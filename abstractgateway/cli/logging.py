"""What the commands log, and how: one line for each event, as text or JSON, without secrets."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from ..security import Redactor

LEVELS = ("debug", "info", "warning", "error")

_OURS = (
    "abstractgateway",
    "abstractgateway_http",
    "abstractgateway_llm",
    "abstractgateway_mcp",
    "abstractgateway_postgres",
)
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_PLAIN = (type(None), bool, int, float)
_ESCAPES = {code: f"\\x{code:02x}" for code in range(32)} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def set_up_logging(redactor: Redactor, *, level: str = "warning", format: str = "text") -> None:
    """Log the events of the gateway from a level on, and warnings of everybody else, to the standard error.

    Called again, it changes what was set up. A program that has its own handlers keeps them as they are.
    """
    logging.basicConfig(level=logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    formatter = (JsonLines if format == "json" else TextLines)(redactor)
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(formatter)


class _Lines(logging.Formatter):
    """Formats a record without secrets; `extra` fields are named values of the event."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def _parts(self, record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
        """Return the message and the fields of a record."""
        fields = {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        texts = {name: str(value) for name, value in fields.items() if not isinstance(value, _PLAIN)}
        message, *cleaned = self._clean([record.getMessage(), *texts.values()])
        return message, {**fields, **dict(zip(texts, cleaned, strict=True))}

    def _clean(self, texts: list[str]) -> list[str]:
        """Return texts without secrets: all at once where none has a line break, because each search costs time."""
        together = self._redactor.text("\n".join(texts)).split("\n")
        return together if len(together) == len(texts) else [self._redactor.text(text) for text in texts]


class TextLines(_Lines):
    """`2026-01-01T12:00:00.000Z INFO abstractgateway.http: text name=value …`; line breaks are written as `\\n`."""

    def format(self, record: logging.LogRecord) -> str:
        message, fields = self._parts(record)
        shown = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        return f"{_at(record)} {record.levelname} {record.name}: {message}{shown}".translate(_ESCAPES)


class JsonLines(_Lines):
    """An object with `at`, `level`, `logger`, `message` and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        message, fields = self._parts(record)
        head = {"at": _at(record), "level": record.levelname.lower(), "logger": record.name, "message": message}
        return json.dumps({**head, **fields}, ensure_ascii=False)


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text

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

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        found = {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return {name: self._clean(value) for name, value in found.items()}

    def _clean(self, value: Any) -> Any:
        plain = value is None or isinstance(value, (bool, int, float))
        return value if plain else self._redactor.text(str(value))

    def _message(self, record: logging.LogRecord) -> str:
        return self._redactor.text(record.getMessage())


class TextLines(_Lines):
    """`2026-01-01T12:00:00.000Z INFO abstractgateway.http: text name=value …`; line breaks are written as `\\n`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_shown(value)}" for name, value in self._fields(record).items())
        text = f"{_at(record)} {record.levelname} {record.name}: {self._message(record)}{fields}"
        return text.translate(_ESCAPES)


class JsonLines(_Lines):
    """An object with `at`, `level`, `logger`, `message` and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"at": _at(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**head, "message": self._message(record), **self._fields(record)}, ensure_ascii=False)


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text

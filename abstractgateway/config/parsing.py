"""How the texts of settings are read; each raises `ValueError` that says what to use."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

_MOUNT_NAME = re.compile(r"\A[A-Za-z0-9_-]{1,32}\Z")
_LEAST_INLINE_BYTES = 1000  # so that what the gateway itself keeps in a run stays there
TOOL_MODES = {  # with the names that AbstractGateway knows them by as well
    "approval": ("local_approval", "local-approval"),
    "passthrough": (),
    "delegated": ("delegate", "job"),
    "local": ("local_all",),
}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def parse_bool(text: str) -> bool:
    """Return what `1 true yes on` or `0 false no off` mean, in any case."""
    lowered = text.lower()
    if lowered in _TRUE or lowered in _FALSE:
        return lowered in _TRUE
    raise ValueError("use 1 or 0")


def parse_list(text: str) -> tuple[str, ...]:
    """Return the non-blank items of a comma-separated text, in order and without repetition."""
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def parse_rules(text: str) -> tuple[tuple[str, str], ...]:
    """Return the names and rules of items `name=rule`; a rule is `retry`, `ask` or `fail`."""
    return tuple(_rule(item) for item in parse_list(text))


def _rule(item: str) -> tuple[str, str]:
    name, _, rule = (part.strip() for part in item.rpartition("="))
    if not name or rule.lower() not in ("retry", "ask", "fail"):
        raise ValueError(f"{item!r} is not name=retry, name=ask or name=fail")
    return name, rule.lower()


def parse_mounts(text: str) -> tuple[tuple[str, str], ...]:
    """Return the names and absolute directories of lines `name=/directory`; blank lines and comments do not count."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(_mount(line) for line in lines if line and not line.startswith("#"))


def _mount(line: str) -> tuple[str, str]:
    name, equals, directory = (part.strip() for part in line.partition("="))
    if not equals or not _MOUNT_NAME.match(name) or not Path(directory).is_absolute():
        raise ValueError(f"{line!r} is not name=/directory, with a name of up to 32 letters, digits, '_' and '-'")
    return name, directory


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads whole numbers from `least` on."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError(f"use a whole number from {least}")
        return number

    return parse


def between(least: int, most: int) -> Callable[[str], int]:
    """Return what reads whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise ValueError(f"use a whole number from {least} to {most}")
        return number

    return parse


def header_names(text: str) -> tuple[str, ...]:
    """Return the names of headers in a comma-separated text, in lower case."""
    return tuple(dict.fromkeys(name.lower() for name in parse_list(text)))


def percent(text: str) -> int:
    """Return a whole number from 0 to 100."""
    number = int(text)
    if not 0 <= number <= 100:
        raise ValueError("use a whole number from 0 to 100")
    return number


def inline_bytes(text: str) -> int:
    """Return a number of bytes, 0 or large enough for what the gateway itself keeps in a run."""
    number = int(text)
    if 0 < number < _LEAST_INLINE_BYTES:
        raise ValueError(f"use 0, or a whole number from {_LEAST_INLINE_BYTES}")
    return number


def seconds(text: str) -> float:
    """Return a number of seconds above 0, up to an hour."""
    number = float(text)
    if not 0 < number <= 3600:
        raise ValueError("use a number of seconds above 0, up to 3600")
    return number


def time_limit(text: str) -> float:
    """Return a number of seconds; 0 is for no limit."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError("use 0, or a number of seconds above 0")
    return number


def plain_id(text: str) -> str:
    """Return an id that may name a run."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", text):
        raise ValueError("use letters, digits, '_' and '-', 200 at most")
    return text


def lower(text: str) -> str:
    """Return a name in lower case."""
    return text.lower()


def tool_mode(text: str) -> str:
    """Return the mode of tools that a name, or one of its other names, is for."""
    wished = text.lower()
    found = next((mode for mode, others in TOOL_MODES.items() if wished == mode or wished in others), None)
    if found is None:
        raise ValueError(f"use one of {', '.join(TOOL_MODES)}")
    return found


def memory_backend(text: str) -> str:
    """Return the backend that a name, or one of its other names, is for."""
    lowered = text.lower()
    return {"sqlite3": "sqlite", "in_memory": "memory", "inmemory": "memory"}.get(lowered, lowered)


def base_url(text: str) -> str:
    """Return a URL without the slash at its end."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 0) < 0:
        raise ValueError("use a URL such as http://127.0.0.1:8000/v1")
    return text.rstrip("/")


def ollama_url(text: str) -> str:
    """Ollama's own variable may be the bare address that its server listens on, such as `0.0.0.0`."""
    if "://" in text:
        return base_url(text)
    parts = urlsplit(f"http://{text}")
    host = parts.hostname or "0.0.0.0"
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return base_url(f"http://{reachable}:{parts.port or 11434}")

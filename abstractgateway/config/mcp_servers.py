"""The servers of the Model Context Protocol, as they are given in a file or a text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Invalid
from ..jsonvalue import loads_foreign

FOR_CHILDREN = ("PATH", "HOME", "LANG")
"""What every started server may see of the environment; without it hardly any program starts."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class McpServers:
    """Servers, and the part of the environment that they may see.

    `entries` are by name `{command, args, env, cwd}` or `{url, headers}`; `environment` has what their texts refer to
    as `${NAME}`, and `PATH`, `HOME` and `LANG`.
    """

    entries: Mapping[str, Any] = field(default_factory=dict, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(entries: Mapping[str, Any], environ: Mapping[str, str]) -> McpServers:
        """Return servers with their part of an environment, such as `os.environ`."""
        names = (*FOR_CHILDREN, *_references(entries))
        return McpServers(entries=entries, environment={name: environ[name] for name in names if name in environ})


def parsed(name: str, text: str, environ: Mapping[str, str]) -> McpServers:
    """Return the servers of a setting: the path of a JSON file with `mcpServers`, or that JSON itself.

    Raises `Invalid(name, …)` when it cannot be read or has no such object.
    """
    value = loads_foreign(text, field=name) if text.startswith("{") else _of_file(name, text)
    entries = value.get("mcpServers") if isinstance(value, dict) else None
    if not isinstance(entries, dict):
        raise Invalid(name, 'has no object {"mcpServers": {name: {"command": …} or {"url": …}}}')
    return McpServers.of(entries, environ)


def _of_file(name: str, path: str) -> Any:
    try:
        return loads_foreign(Path(path).read_bytes(), field=f"{name}: {path!r}")
    except OSError as error:
        raise Invalid(name, f"{path!r} cannot be read: {error}") from error


def _references(value: Any) -> set[str]:
    """Return the names that texts anywhere in a value refer to as `${NAME}`."""
    if isinstance(value, str):
        return set(_REFERENCE.findall(value))
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return set().union(*map(_references, inner))

"""One setting: a row that says which field it fills, from which variables, and how their text is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Invalid
from .mcp_servers import parsed as parsed_mcp_servers
from .parsing import parse_list

PREFIX = "ABSTRACTGATEWAY_"
UNSET: Any = object()
"""What a setting is read as that no variable gives: it has its default."""


@dataclass(frozen=True)
class Setting:
    """One row: the field it fills, its environment names, how its text is read, and one sentence about it.

    Of the names, the first that is set and not blank wins.
    """

    field: str
    names: tuple[str, ...]
    parse: Callable[[str], Any]
    text: str

    def set_by(self, environ: Mapping[str, str]) -> str | None:
        """Return the name of the variable that gives this setting its value; None where it has its default."""
        return next((name for name in self.names if environ.get(name, "").strip()), None)

    def read(self, environ: Mapping[str, str]) -> Any:
        """Return the value the environment gives this setting, or `UNSET`. Raises `Invalid` naming the variable."""
        name = self.set_by(environ)
        if name is None:
            return UNSET
        if self.field == "auth_tokens":
            return _merged_tokens(environ, self.names)
        text = environ[name].strip()
        if self.field == "mcp_servers":
            return parsed_mcp_servers(name, text, environ)
        try:
            return self.parse(text)
        except ValueError as error:
            raise Invalid(name, f"{text!r} cannot be read: {error}") from error


def env(suffix: str, *fallbacks: str) -> tuple[str, ...]:
    """Return the names of a setting: ours, and those that are looked at where it is not set."""
    return (PREFIX + suffix, *fallbacks)


def legacy(suffix: str) -> tuple[str, ...]:
    """Return the names of a setting that once belonged to AbstractFlow."""
    return env(suffix, "ABSTRACTFLOW_GATEWAY_" + suffix)


def _merged_tokens(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
    current, legacy = names[:2], names[2:]
    for group in (current, legacy):
        merged = parse_list(",".join(environ.get(name, "") for name in group))
        if merged:
            return merged
    return ()

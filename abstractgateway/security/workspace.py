"""Which files a run may reach: decided from texts alone; whoever opens a file also refuses links on its way.

The operator names the roots: `ABSTRACTGATEWAY_WORKSPACE_DIR`, the mounts, and the directory in which the gateway makes
workspaces. A run's own wishes are its variables `workspace_root`, `workspace_access_mode`, `workspace_allowed_paths`
and `workspace_ignored_paths`; they count inside the roots only, unless clients are trusted to choose.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Denied, Invalid
from ..jsonvalue import JsonObject

ROOT_KEY, MODE_KEY = "workspace_root", "workspace_access_mode"
ALLOWED_KEY, IGNORED_KEY = "workspace_allowed_paths", "workspace_ignored_paths"
WORKSPACE_KEYS = (ROOT_KEY, MODE_KEY, ALLOWED_KEY, IGNORED_KEY)
_OTHER_SPELLINGS = {
    "workspaceRoot": ROOT_KEY,
    "workspaceAccessMode": MODE_KEY,
    "workspaceAllowedPaths": ALLOWED_KEY,
    "workspaceIgnoredPaths": IGNORED_KEY,
}
ONLY, OR_ALLOWED, ALL = "workspace_only", "workspace_or_allowed", "all_except_ignored"


@dataclass(frozen=True)
class Scope:
    """What one run may reach: its root, other directories it was allowed, and what is taken out of them.

    `bounds` are the operator's directories; below them no link is followed, not even to the run's own root.
    """

    root: str
    bounds: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    is_open: bool = False


@dataclass(frozen=True)
class Place:
    """A file or directory: a directory that is trusted, the names that lead from there, and its name for the run.

    `shown` is relative to the last of the directories that lead to it which the run was given: so many of `parts` as
    `base` says.
    """

    root: str
    parts: tuple[str, ...]
    shown: str
    base: int = field(default=0, compare=False)


@dataclass(frozen=True)
class WorkspacePolicy:
    """The operator's part: absolute directories, and whether clients may choose others."""

    roots: tuple[str, ...]
    base: str
    may_clients_choose: bool = False

    def clamp(self, data: JsonObject) -> JsonObject:
        """Return the variables that a run is started with, without the wishes that the policy does not grant."""
        wished = {_OTHER_SPELLINGS.get(key, key): value for key, value in data.items() if key in _OTHER_SPELLINGS}
        given = {**wished, **{key: value for key, value in data.items() if key not in _OTHER_SPELLINGS}}
        kept = {key: value for key, value in given.items() if key not in WORKSPACE_KEYS}
        return {**kept, **self._granted(given)}

    def scope(self, variables: Mapping[str, Any], default_root: str) -> Scope:
        """Return what a run with these variables may reach; `default_root` is its workspace when it names none."""
        granted = self._granted(variables)
        mode = granted.get(MODE_KEY, ONLY)
        root = str(granted.get(ROOT_KEY, default_root))
        allowed = _listed(granted.get(ALLOWED_KEY)) if mode == OR_ALLOWED else []
        ignored = (_absolute(path, root) for path in _listed(granted.get(IGNORED_KEY)))
        return Scope(root, self.roots, tuple(allowed), tuple(ignored), is_open=mode == ALL)

    def _granted(self, given: Mapping[str, Any]) -> JsonObject:
        granted: JsonObject = {}
        root = given.get(ROOT_KEY)
        if isinstance(root, str) and root.strip() and self._may_reach(path := _absolute(root.strip(), self.base)):
            granted[ROOT_KEY] = path
        if given.get(MODE_KEY) is not None:
            granted[MODE_KEY] = self._mode(given[MODE_KEY])
        allowed = [_absolute(path, self.base) for path in _listed(given.get(ALLOWED_KEY))]
        allowed = [path for path in allowed if self._may_reach(path)]
        if allowed:
            granted[ALLOWED_KEY] = allowed
        if ignored := _listed(given.get(IGNORED_KEY)):
            granted[IGNORED_KEY] = "\n".join(ignored)
        return granted

    def _mode(self, value: Any) -> str:
        known = (ONLY, OR_ALLOWED, ALL) if self.may_clients_choose else (ONLY, OR_ALLOWED)
        return str(value) if value in known else ONLY

    def _may_reach(self, path: str) -> bool:
        return self.may_clients_choose or any(_is_inside(path, root) for root in self.roots)


def place(scope: Scope, path: Any, *, is_directory: bool = False) -> Place:
    """Return where a path lies; only a directory may be what the run was given as a whole, shown as `.`.

    Raises `Invalid` for no path, `Denied` for one that the scope does not reach.
    """
    text = _cleaned(path)
    is_absolute = text.startswith("/")
    root = _root_of(text, scope) if is_absolute else scope.root
    full = posixpath.normpath(text if is_absolute else posixpath.join(root, text))
    if is_ignored(scope, full):
        raise Denied("path is blocked by workspace_ignored_paths", code="path_denied")
    shown = _below(full, root)
    if not shown and not is_directory:
        raise Invalid("path", "names a directory, not a file")
    trusted = max((bound for bound in scope.bounds if _is_inside(full, bound)), key=len, default=root)
    base = len(_names(_below(root, trusted))) if _is_inside(root, trusted) else 0
    return Place(trusted, _names(_below(full, trusted)), shown or ".", base)


def is_ignored(scope: Scope, full: str) -> bool:
    """Say whether an absolute path is one that the run is not to see."""
    return any(_is_inside(full, ignored) for ignored in scope.ignored)


def _below(path: str, root: str) -> str:
    return path[len(root.rstrip("/")) :].strip("/")


def _names(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")) if path else ()


def _cleaned(path: Any) -> str:
    if not isinstance(path, str) or not path.strip():
        raise Invalid("path", "is required")
    text = path.strip().removeprefix("@").replace("\\", "/")
    if "\0" in text:
        raise Invalid("path", "holds a null character")
    if ".." in text.split("/") or text.startswith("~"):
        raise Denied("path escapes workspace root", code="path_denied")
    return text


def _root_of(path: str, scope: Scope) -> str:
    """Return the nearest directory of the scope that holds an absolute path."""
    normal = posixpath.normpath(path)
    holding = [root for root in (scope.root, *scope.allowed) if _is_inside(normal, root)]
    if holding:
        return max(holding, key=len)
    if scope.is_open:
        return "/"
    raise Denied("path is outside workspace roots", code="path_denied")


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _absolute(path: str, base: str) -> str:
    joined = posixpath.normpath(posixpath.join(base, path.replace("\\", "/")))
    return "/" + joined.lstrip("/") if joined.startswith("//") else joined


def _listed(value: Any) -> list[str]:
    """Return the paths of a list, of a JSON list in a text, or of the lines of a text."""
    if isinstance(value, str):
        value = _read_list(value)
    items: Iterable[Any] = value if isinstance(value, list) else ()
    return [item.strip() for item in items if isinstance(item, str) and item.strip()]


def _read_list(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return []
    return text.splitlines()

"""The operator's directories as clients see them: one base, mounts beside it by name, and no path of this machine."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Any

from ..errors import Invalid
from ..security.workspace import ALL, ONLY, OR_ALLOWED, WORKSPACE_KEYS, Scope, WorkspacePolicy
from ..tools.workspace_files import Workspace

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 32


@dataclass(frozen=True)
class WorkspaceView:
    """What one request may reach: a base, and more directories by name.

    Paths are `rel` in the base or `mount/rel`. A first name means a mount only where another name follows it.
    """

    scope: Scope
    mounts: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def open_file(self, path: str) -> Iterator[tuple[IO[bytes], str]]:
        """Open a file for reading; with the path by which clients know it.

        Raises `NotFound`, `Denied` for what lies elsewhere, is hidden or ignored, and `Invalid` for what is no file.
        """
        if not path.strip() or "\0" in path:
            raise Invalid("", "path is required" if not path.strip() else "path holds a null character")
        text = path.strip().removeprefix("@").replace("\\", "/")
        mount, workspace, inner = self._find(text)
        try:
            with workspace.open_file(inner) as (file, shown):
                yield file, self._shown(workspace.scope, mount, inner, shown)
        except Invalid as error:
            if error.field != "path":
                raise
            raise Invalid("", f"Path is not a file: {text!r}", code="not_a_file") from error

    def parts(self) -> Iterator[tuple[str | None, Workspace]]:
        """Return the base and the mounts, each with its name; the base has none."""
        yield None, self._workspace(self.scope.root)
        for name, directory in sorted(self.mounts.items()):
            yield name, self._workspace(directory)

    def _find(self, path: str) -> tuple[str | None, Workspace, str]:
        """Return the mount that a path is in, what may be reached there, and the path there."""
        first, slash, rest = path.partition("/")
        if slash and first in self.mounts and rest.strip("/"):
            return first, self._workspace(self.mounts[first]), rest.lstrip("/")
        if path.startswith("/"):
            name = _holding(posixpath.normpath(path), self.scope.root, self.mounts)
            return name, self._workspace(self.mounts[name] if name else self.scope.root), path
        return None, self._workspace(self.scope.root), path

    def _workspace(self, root: str) -> Workspace:
        return Workspace(replace(self.scope, root=root, allowed=()), has_hidden=False)

    @staticmethod
    def _shown(scope: Scope, mount: str | None, inner: str, shown: str) -> str:
        if inner.startswith("/") and not _is_inside(posixpath.normpath(inner), scope.root):
            return f"/{shown}"  # clients may name any path, and this one is in no directory that has a name
        return f"{mount}/{shown}" if mount else shown


class WorkspaceViews:
    """Makes the view of each request: the operator's, or where clients may choose, what they ask for."""

    def __init__(self, policy: WorkspacePolicy, mounts: Iterable[tuple[str, str]]) -> None:
        self.policy = policy
        self._mounts = dict(mounts)

    @property
    def mount_names(self) -> list[str]:
        return sorted(self._mounts)

    @property
    def modes(self) -> list[str]:
        """The access modes that clients may ask for."""
        return [ONLY, OR_ALLOWED, *([ALL] if self.policy.may_clients_choose else [])]

    def of(self, wishes: Mapping[str, Any]) -> WorkspaceView:
        """Return what a request with these `workspace_` fields may reach; without overrides they count for nothing."""
        given = {key: value for key in WORKSPACE_KEYS if (value := wishes.get(key)) not in (None, "")}
        if not self.policy.may_clients_choose or not given:
            return WorkspaceView(Scope(self.policy.base, self.policy.roots), self._mounts)
        scope = self.policy.scope(given, self.policy.base)
        return WorkspaceView(scope, _named(scope.allowed))


def relative_to_base(path: str, base: str) -> str:
    """Return a path inside a directory relative to it, `.` for itself; any other as it is."""
    if not path.startswith("/") or not _is_inside(posixpath.normpath(path), base):
        return path
    return posixpath.relpath(path, base)


def _named(directories: Iterable[str]) -> dict[str, str]:
    """Give directories the names under which they are mounts: their own, as far as these are different."""
    named: dict[str, str] = {}
    for directory in directories:
        plain = _NOT_IN_A_NAME.sub("-", posixpath.basename(directory)).strip("-")[:_LONGEST_NAME] or "mount"
        name, number = plain, 1
        while name in named:
            number += 1
            end = f"-{number}"
            name = plain[: _LONGEST_NAME - len(end)] + end
        named[name] = directory
    return named


def _holding(path: str, base: str, mounts: Mapping[str, str]) -> str | None:
    """Return the name of the mount that holds a path most closely; None for the base, or for none of them."""
    holding = [(len(root), name) for name, root in ((None, base), *mounts.items()) if _is_inside(path, root)]
    return max(holding, key=lambda item: item[0])[1] if holding else None


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")

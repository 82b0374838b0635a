"""Files of the operator's directories: finding them by name, and reading them."""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..clock import Clock
from ..config import GatewayConfig
from ..errors import GatewayError, Invalid, NotFound
from ..jsonvalue import JsonObject
from ..security.workspace import WorkspacePolicy
from ..tools.files import numbered_lines, sampled_lines
from ..tools.workspace_files import MAX_FILE_BYTES
from .workspace_view import WorkspaceView, WorkspaceViews

MOST_INDICES = 8
"""Of how many different scopes the files are remembered; an index of 50,000 files takes about 20 MB."""


class _File(NamedTuple):
    """A file of an index: its path for clients, both in lower case, its size, and the mount it is in."""

    path: str
    name: str
    lowered: str
    size: int
    mount: str | None


@dataclass
class _Index:
    """The files of one view as they were at a moment, and why some could not be listed; made once for all who wait."""

    made_at: float | None = None
    files: tuple[_File, ...] = ()
    error: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class FileIndices:
    """Remembers for `ttl_s` seconds which files there are; at most `max_files` entries of each view are looked at."""

    def __init__(self, *, clock: Clock, ttl_s: float = 30, max_files: int = 50_000) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._max_files = max_files
        self._lock = threading.Lock()
        self._known: OrderedDict[object, _Index] = OrderedDict()

    def of(self, view: WorkspaceView) -> _Index:
        """Return the files of a view."""
        index = self._remembered((view.scope, tuple(sorted(view.mounts.items()))))
        with index.lock:
            now = self._clock.monotonic()
            if index.made_at is None or now - index.made_at >= self._ttl_s:
                index.files, index.error = self._listed(view)
                index.made_at = now
        return index

    def _remembered(self, key: object) -> _Index:
        with self._lock:
            index = self._known.setdefault(key, _Index())
            self._known.move_to_end(key)
            while len(self._known) > MOST_INDICES:
                self._known.popitem(last=False)
        return index

    def _listed(self, view: WorkspaceView) -> tuple[tuple[_File, ...], str | None]:
        found: list[_File] = []
        errors: list[str] = []
        left = self._max_files
        for mount, workspace in view.parts():
            try:
                for entry in workspace.walk(".", most=left):
                    left -= 1
                    if not entry.is_directory and _is_text(entry.path):
                        found.append(_file(mount, entry.path, entry.name, entry.size))
            except GatewayError as error:
                errors.append(f"{mount}: {error}" if mount else str(error))
        return tuple(found), errors[0] if errors else None


class WorkspaceService:
    """The use cases around the operator's directories. Hidden files, links and devices are no part of them."""

    @staticmethod
    def of(config: GatewayConfig, policy: WorkspacePolicy, clock: Clock) -> WorkspaceService:
        """Return the service on the directories of the settings."""
        mounts = ((name, str(Path(directory))) for name, directory in config.workspace_mounts)
        return WorkspaceService(
            views=WorkspaceViews(policy, mounts),
            indices=FileIndices(clock=clock, ttl_s=config.file_index_ttl_s, max_files=config.file_index_max_files),
            max_attachment_bytes=config.max_attachment_bytes,
        )

    def __init__(self, *, views: WorkspaceViews, indices: FileIndices, max_attachment_bytes: int) -> None:
        self._views = views
        self._indices = indices
        self._max_attachment_bytes = max_attachment_bytes

    def policy(self) -> JsonObject:
        """Return `{ok, policy}`: what clients may reach, without a path of this machine."""
        return {
            "ok": True,
            "policy": {
                "target": "server",
                "mounts": [{"name": name} for name in self._views.mount_names],
                "max_attachment_bytes": self._max_attachment_bytes,
                "client_workspace_scope_overrides": self._views.policy.may_clients_choose,
                "allowed_access_modes": self._views.modes,
            },
        }

    def search(self, query: str | None, *, limit: int = 20, **wishes: Any) -> JsonObject:
        """Return `{"items": [{path, size_bytes, mount?}]}`: files whose path has a text in it, the best first.

        Names that begin with it come before names that have it, and these before paths that do; then the shorter. What
        cannot be listed is told in `error` and hides nothing else. `wishes` are the `workspace_` fields of a request.
        """
        wanted = (query or "").strip().removeprefix("@").lower()
        if not wanted:
            return {"items": []}
        index = self._indices.of(self._views.of(wishes))
        items = [_item(file) for file in _best(index.files, wanted, limit)]
        return {"items": items, **({"error": index.error} if index.error else {})}

    def read(self, path: str, *, start_line: int = 1, end_line: int | None = None, **wishes: Any) -> JsonObject:
        """Return `{path, content}`: lines of a text file with their numbers.

        A missing file, a directory, or what is no text says so in `content`, which then begins with `Error:`. Raises
        `Denied` for what lies elsewhere, is hidden or ignored, and `Invalid` for no path.
        """
        return self._shown(path, wishes, lambda file, shown: numbered_lines(shown, file, start_line, end_line))

    def skim(
        self, path: str, *, target_percent: float = 8, head_lines: int = 25, tail_lines: int = 25, **wishes: Any
    ) -> JsonObject:
        """Return `{path, content}` as `read` does: the first and last lines of a text file, and some between."""

        def sampled(file: IO[bytes], shown: str) -> str:
            content = file.read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                raise Invalid("", f"{shown!r} is larger than {MAX_FILE_BYTES} bytes; read it by ranges of lines")
            return sampled_lines(shown, content, target_percent, head_lines, tail_lines)

        return self._shown(path, wishes, sampled)

    @contextmanager
    def open_file(self, path: str, wishes: Mapping[str, Any]) -> Iterator[tuple[IO[bytes], str]]:
        """Open a file for reading; with the path by which clients know it. Raises as `WorkspaceView.open_file`."""
        with self._views.of(wishes).open_file(path) as opened:
            yield opened

    def _shown(self, path: str, wishes: Mapping[str, Any], content_of: Callable[[IO[bytes], str], str]) -> JsonObject:
        try:
            with self.open_file(path, wishes) as (file, shown):
                try:
                    return {"path": shown, "content": content_of(file, shown)}
                except Invalid as error:
                    return {"path": shown, "content": f"Error: {error.why}"}
        except (NotFound, Invalid) as error:
            if isinstance(error, Invalid) and error.code != "not_a_file":
                raise
            return {"path": path, "content": f"Error: {error}"}


def _file(mount: str | None, inner: str, name: str, size: int) -> _File:
    path = f"{mount}/{inner}" if mount else inner
    return _File(path, name.lower(), path.lower(), size, mount)


def _is_text(path: str) -> bool:
    """Say whether a path can be told to clients; a name need not be text on this system."""
    return path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path)


def _best(files: Iterable[_File], wanted: str, most: int) -> list[_File]:
    fitting = (file for file in files if wanted in file.lowered)
    return heapq.nsmallest(most, fitting, key=lambda file: (_rank(file, wanted), len(file.path), file.path))


def _rank(file: _File, wanted: str) -> int:
    return 0 if file.name.startswith(wanted) else 1 if wanted in file.name else 2


def _item(file: _File) -> JsonObject:
    return {"path": file.path, "size_bytes": file.size, **({"mount": file.mount} if file.mount else {})}

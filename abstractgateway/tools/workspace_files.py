"""Files of a run's workspace: opened name by name, so that no link leads out of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import Denied, GatewayError, Invalid, NotFound, Unavailable
from ..ids import new_id
from ..runtime.models import RunState
from ..security.workspace import WORKSPACE_KEYS, Place, Scope, WorkspacePolicy, is_ignored, place
from ..stores.base import RunStore
from .ignored import FILE_NAME, MAX_BYTES, IgnoreRules

MAX_FILE_BYTES = 8_000_000
"""What a flow reads becomes part of its run; more than this belongs into an artifact."""
MOST_ENTRIES = 20_000
"""How many files and directories are looked at in one walk."""
MOST_LEVELS = 30
UNSEEN = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache"})
"""Directories that a walk does not enter unless it begins in them."""

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class Entry(NamedTuple):
    """A file or directory that a walk has come by: `path` for the run, `size` in bytes, and how deep it lies."""

    path: str
    name: str
    is_directory: bool
    size: int
    level: int


@dataclass(frozen=True)
class Workspace:
    """What one run may reach, and how it is opened; a link on the way, or what is no file, is refused.

    `has_hidden` says whether files and directories whose names begin with a dot are part of it.
    """

    scope: Scope
    has_hidden: bool = True

    @contextmanager
    def open_file(self, path: object) -> Iterator[tuple[IO[bytes], str]]:
        """Open a file for reading; with the name under which the run knows it."""
        found = place(self.scope, path)
        with _directory(found, is_made=False) as directory, _named(found):
            self._check_seen(found)
            with open(found.parts[-1], "rb", opener=_opener(directory)) as file:
                _check(os.fstat(file.fileno()), found)
                yield file, found.shown

    def read_bytes(self, path: object, limit: int = MAX_FILE_BYTES) -> tuple[bytes, str]:
        """Return the content of a file and its name for the run. Raises `Invalid` when it is larger than the limit."""
        with self.open_file(path) as (file, shown):
            content = file.read(limit + 1)
        if len(content) > limit:
            raise Invalid("path", f"{shown!r} is larger than {limit} bytes")
        return content, shown

    def read_text(self, path: object, limit: int = MAX_FILE_BYTES) -> tuple[str, str]:
        """Return the text of a file and its name for the run. Raises `Invalid` for one that is no UTF-8 text."""
        content, shown = self.read_bytes(path, limit)
        try:
            return content.decode("utf-8"), shown
        except UnicodeDecodeError as error:
            raise Invalid("path", f"{shown!r} is no UTF-8 text ({error})") from None

    def write_text(self, path: object, text: str) -> str:
        """Put a text in the place of a file, durably and as a whole, and return the path as the run knows it."""
        found = place(self.scope, path)
        content = text.encode("utf-8")
        if found.parts[-1] == FILE_NAME:
            raise Denied(f"{found.shown!r} says what runs may see; they may not change it", code="path_denied")
        self._check_seen(found)
        with _directory(found, is_made=True) as directory, _named(found):
            mode = _check_target(found, directory)
            _replace(directory, found.parts[-1], content, mode)
        return found.shown

    @contextmanager
    def open_directory(self, path: object, *, is_made: bool = False) -> Iterator[tuple[int, str]]:
        """Open a directory, and with `is_made` create it; with the name under which the run knows it."""
        found = place(self.scope, path, is_directory=True)
        self._check_seen(found, is_directory=True)
        with _directory(found, is_made=is_made, is_whole=True) as directory:
            yield directory, found.shown

    def walk(self, path: object, *, levels: int = MOST_LEVELS, most: int | None = None) -> Iterator[Entry]:
        """Return what lies in a directory, sorted by name, down to a level, links left out.

        `most` is how many entries are looked at, `MOST_ENTRIES` if it is not given. A workspace that nothing has been
        written to is empty.
        """
        found = place(self.scope, path, is_directory=True)
        rules = self._check_seen(found, is_directory=True)
        left = [MOST_ENTRIES if most is None else most]
        try:
            with _directory(found, is_made=False, is_whole=True) as directory:
                yield from self._entries(directory, found, rules, 1, min(levels, MOST_LEVELS), left)
        except NotFound:
            if found.shown != ".":
                raise

    def _entries(
        self, directory: int, top: Place, rules: IgnoreRules, level: int, levels: int, left: list[int]
    ) -> Iterator[Entry]:
        with os.scandir(directory) as listing:
            items = sorted(_listed(listing, left), key=lambda item: item[0])
        for name, status in items:
            inner = Place(
                top.root, (*top.parts, name), name if top.shown == "." else f"{top.shown}/{name}", base=top.base
            )
            is_directory = stat.S_ISDIR(status.st_mode)
            if self._is_hidden(inner, rules, is_directory):
                continue
            yield Entry(inner.shown, name, is_directory, status.st_size, level)
            if not is_directory or level >= levels or name in UNSEEN:
                continue
            with suppress(OSError):  # it went, or became something else, since it was listed
                opened = os.open(name, _DIRECTORY | _NO_LINK, dir_fd=directory)
                try:
                    yield from self._entries(opened, inner, rules, level + 1, levels, left)
                finally:
                    os.close(opened)

    def _check_seen(self, found: Place, *, is_directory: bool = False) -> IgnoreRules:
        if not self.has_hidden and any(name.startswith(".") for name in found.parts[found.base :]):
            raise Denied(f"{found.shown!r} is hidden: a name in it begins with a dot", code="path_denied")
        rules = self._rules(found)
        if rules.hides(found.parts[found.base :], is_directory=is_directory):
            raise Denied(f"File is ignored by {FILE_NAME} policy", code="path_denied")
        return rules

    def _is_hidden(self, found: Place, rules: IgnoreRules, is_directory: bool) -> bool:
        if not self.has_hidden and found.parts[-1].startswith("."):
            return True
        full = "/".join((found.root.rstrip("/"), *found.parts))
        return is_ignored(self.scope, full) or rules.hides(found.parts[found.base :], is_directory=is_directory)

    def _rules(self, found: Place) -> IgnoreRules:
        """Return the rules of the directory that a path is relative to."""
        top = Place(found.root, (*found.parts[: found.base], FILE_NAME), FILE_NAME)
        try:
            with (
                _directory(top, is_made=False) as directory,
                _named(top),
                open(FILE_NAME, "rb", opener=_opener(directory)) as file,
            ):
                _check(os.fstat(file.fileno()), top)
                content = file.read(MAX_BYTES + 1)
        except NotFound:
            return IgnoreRules()
        if len(content) > MAX_BYTES:
            raise Unavailable(f"{FILE_NAME!r} is larger than {MAX_BYTES} bytes", code="file_unusable")
        return IgnoreRules(content.decode("utf-8", "replace"))


class WorkspaceFiles:
    """Finds the workspaces of runs.

    A run that says nothing of a workspace has that of the nearest run above it that does. Where none of them names one
    they share one: a directory of `workspaces_dir` with the id of the topmost, made when something is first written.
    """

    def __init__(self, *, policy: WorkspacePolicy, workspaces_dir: str, runs: RunStore) -> None:
        self._policy = policy
        self._workspaces_dir = workspaces_dir
        self._runs = runs

    def workspace(self, run: RunState) -> Workspace:
        """Return what a run may reach."""
        variables, topmost = run.vars, run.run_id
        for above in self._above(run):
            topmost = above.run_id
            if not any(key in variables for key in WORKSPACE_KEYS):
                variables = above.vars
        return Workspace(self._policy.scope(variables, os.path.join(self._workspaces_dir, topmost)))

    def read(self, run: RunState, path: object) -> str:
        """Return the text of a file. Raises `NotFound`, `Denied`, or `Invalid` for one that is no UTF-8 text."""
        return self.workspace(run).read_text(path, MAX_FILE_BYTES)[0]

    def write(self, run: RunState, path: object, text: str) -> str:
        """Put a text in the place of a file, durably and as a whole, and return the path as the run knows it."""
        return self.workspace(run).write_text(path, text)

    def _above(self, run: RunState) -> Iterator[RunState]:
        parent_id, seen = run.parent_run_id, {run.run_id}
        while parent_id and parent_id not in seen:
            seen.add(parent_id)
            found = self._runs.open(parent_id)
            if found is None:
                return
            yield found.state
            parent_id = found.state.parent_run_id


def _listed(listing: Any, left: list[int]) -> Iterator[tuple[str, os.stat_result]]:
    """Return names and states of files and directories; neither links nor devices are part of a workspace."""
    for item in listing:
        left[0] -= 1
        if left[0] < 0:
            return
        with suppress(OSError):
            status = item.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                yield item.name, status


def _opener(directory: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags | os.O_NONBLOCK | _NO_LINK, dir_fd=directory)


@contextmanager
def _directory(found: Place, *, is_made: bool, is_whole: bool = False) -> Iterator[int]:
    """Open the directory that a file lies in, step by step from its root; `is_made` creates what is missing.

    With `is_whole`, the place is a directory itself, and that one is opened.
    """
    if os.open not in os.supports_dir_fd:
        raise Unavailable("files of a workspace cannot be opened safely on this system", code="files_unavailable")
    if is_made:
        Path(found.root).mkdir(parents=True, exist_ok=True)
    with _named(found):
        current = os.open(found.root, _DIRECTORY)
    try:
        for name in found.parts if is_whole else found.parts[:-1]:
            with _named(found):
                if is_made:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=current)
                following = os.open(name, _DIRECTORY | _NO_LINK, dir_fd=current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


@contextmanager
def _named(found: Place) -> Iterator[None]:
    """Raise what the system says about a file with the name that the run knows."""
    try:
        yield
    except OSError as error:
        raise _refusal(error, found) from error


def _refusal(error: OSError, found: Place) -> GatewayError:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"File not found: {found.shown!r}", code="file_not_found")
    if isinstance(error, IsADirectoryError):
        return _no_file(found)
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return Denied(f"{found.shown!r} leads through a link or a file", code="path_denied")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
        return Invalid("path", f"{found.shown!r} cannot be the name of a file: {error.strerror}")
    return Unavailable(f"{found.shown!r} cannot be opened: {error.strerror}", code="file_unusable")


def _check(status: os.stat_result, found: Place) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(found)


def _no_file(found: Place) -> Invalid:
    return Invalid("path", f"{found.shown!r} is not a file")


def _check_target(found: Place, directory: int) -> int | None:
    """Return the mode of the file that is replaced, None where there is none.

    What is replaced has to be a file: a link in its place was put there to lead somewhere else.
    """
    with suppress(FileNotFoundError):
        status = os.stat(found.parts[-1], dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise Denied(f"{found.shown!r} leads through a link or a file", code="path_denied")
        _check(status, found)
        return stat.S_IMODE(status.st_mode) & 0o777
    return None


def _replace(directory: int, name: str, content: bytes, mode: int | None) -> None:
    temporary = f".{new_id()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
    try:
        with os.fdopen(os.open(temporary, flags, 0o644 if mode is None else 0o600, dir_fd=directory), "wb") as file:
            file.write(content)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise

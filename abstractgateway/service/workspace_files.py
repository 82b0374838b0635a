"""Files of a run's workspace: opened name by name, so that no link leads out of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import Denied, GatewayError, Invalid, NotFound, Unavailable
from ..ids import new_id
from ..runtime.models import RunState
from ..security.workspace import Place, WorkspacePolicy, place
from ..stores.base import RunStore

MAX_FILE_BYTES = 8_000_000
"""What a flow reads becomes part of its run; more than this belongs into an artifact."""

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class WorkspaceFiles:
    """Reads and writes for runs what the policy lets them reach.

    A run that names no workspace shares one with the runs above it: a directory of `workspaces_dir` with the id of the
    topmost, made when something is first written.
    """

    def __init__(self, *, policy: WorkspacePolicy, workspaces_dir: str, runs: RunStore) -> None:
        self._policy = policy
        self._workspaces_dir = workspaces_dir
        self._runs = runs

    def read(self, run: RunState, path: object) -> str:
        """Return the text of a file. Raises `NotFound`, `Denied`, or `Invalid` for one that is no UTF-8 text."""
        found = self._place(run, path)
        with (
            _directory(found, is_made=False) as directory,
            _named(found),
            open(found.parts[-1], "rb", opener=_opener(directory)) as file,
        ):
            _check(os.fstat(file.fileno()), found)
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise Invalid("path", f"{found.shown!r} is larger than {MAX_FILE_BYTES} bytes")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Invalid("path", f"{found.shown!r} is no UTF-8 text ({error})") from None

    def write(self, run: RunState, path: object, text: str) -> str:
        """Put a text in the place of a file, durably and as a whole, and return the path as the run knows it."""
        found = self._place(run, path)
        content = text.encode("utf-8")
        with _directory(found, is_made=True) as directory, _named(found):
            _check_target(found, directory)
            _replace(directory, found.parts[-1], content)
        return found.shown

    def _place(self, run: RunState, path: object) -> Place:
        default = os.path.join(self._workspaces_dir, self._topmost(run))
        return place(self._policy.scope(run.vars, default), path)

    def _topmost(self, run: RunState) -> str:
        run_id, parent_id, seen = run.run_id, run.parent_run_id, {run.run_id}
        while parent_id and parent_id not in seen:
            run_id = parent_id
            seen.add(run_id)
            parent = self._runs.open(run_id)
            parent_id = parent.state.parent_run_id if parent is not None else None
        return run_id


def _opener(directory: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags | os.O_NONBLOCK | _NO_LINK, dir_fd=directory)


@contextmanager
def _directory(found: Place, *, is_made: bool) -> Iterator[int]:
    """Open the directory that a file lies in, step by step from its root; `is_made` creates what is missing."""
    if os.open not in os.supports_dir_fd:
        raise Unavailable("files of a workspace cannot be opened safely on this system", code="files_unavailable")
    if is_made:
        Path(found.root).mkdir(parents=True, exist_ok=True)
    with _named(found):
        current = os.open(found.root, _DIRECTORY)
    try:
        for name in found.parts[:-1]:
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
    return Unavailable(f"{found.shown!r} cannot be opened: {error.strerror}", code="file_unusable")


def _check(status: os.stat_result, found: Place) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(found)


def _no_file(found: Place) -> Invalid:
    return Invalid("path", f"{found.shown!r} is not a file")


def _check_target(found: Place, directory: int) -> None:
    """What is replaced has to be a file: a link in its place was put there to lead somewhere else."""
    with suppress(FileNotFoundError):
        status = os.stat(found.parts[-1], dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise Denied(f"{found.shown!r} leads through a link or a file", code="path_denied")
        _check(status, found)


def _replace(directory: int, name: str, content: bytes) -> None:
    temporary = f".{new_id()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
    try:
        with os.fdopen(os.open(temporary, flags, 0o644, dir_fd=directory), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise

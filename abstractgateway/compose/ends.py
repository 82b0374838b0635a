"""The ends of a migration: a data directory, or a database."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import GatewayConfig
from ..errors import Conflict, Unavailable
from ..runner import RunnerLock
from ..stores.base import Stores
from ..stores.ends import MigrationEnd, Standing
from ..stores.layout import Layout
from .stores import open_directory_stores, postgres_part, runner_lock, unfinished_mark

_POSTGRES_END = "abstractgateway_postgres.ends:PostgresEnd"


def migration_ends(config: GatewayConfig, source: str, target: str) -> tuple[MigrationEnd, MigrationEnd]:
    """Return what to migrate from and to, given the names of the backends."""
    lock = runner_lock(config)  # one for both: the two may share the directory
    return _end(config, source, lock), _end(config, target, lock)


def share_artifacts(config: GatewayConfig, source: str, target: str) -> bool:
    """Say whether two backends have their artifacts in the same directory."""
    places = {_artifacts_of(config, backend) for backend in (source, target)}
    return len(places) == 1 and None not in places


def _artifacts_of(config: GatewayConfig, backend: str) -> Path | None:
    directory = config.database_artifacts_dir if backend == "postgres" else config.data_dir
    return Path(directory).resolve() if directory is not None else None


def _end(config: GatewayConfig, backend: str, lock: RunnerLock) -> MigrationEnd:
    own = replace(config, store_backend=backend, durability="full")
    if backend != "postgres":
        return DirectoryEnd(own, lock)
    make_end: Callable[..., MigrationEnd] = postgres_part(_POSTGRES_END)
    return make_end(own.database_url, artifacts_dir=own.database_artifacts_dir)


class DirectoryEnd:
    """The stores of the file or the SQLite backend in a data directory.

    A file there says for as long as they are being filled that they are not whole.
    """

    def __init__(self, config: GatewayConfig, lock: RunnerLock) -> None:
        self._config = config
        self._directory = Path(config.data_dir)
        self._lock = lock
        self._mark = unfinished_mark(config)
        is_file = config.store_backend == "sqlite"
        self.place = str(config.database_path if is_file else config.data_dir)

    def take(self) -> None:
        try:
            is_mine = self._lock.try_acquire()
        except OSError as error:
            raise self._unusable(error) from error
        if not is_mine:
            raise Conflict(
                f"a runner drives the runs of {str(self._directory)!r}; stop 'abstractgateway serve' or "
                "'abstractgateway runner' first",
                code="runner_active",
            )

    def release(self) -> None:
        self._lock.release()

    def standing(self) -> Standing:
        if not self._directory.is_dir():
            return Standing.EMPTY
        if self._mark.exists():
            return Standing.UNFINISHED
        return Standing.FILLED if self._files() else Standing.EMPTY

    def begin(self, *, anew: bool) -> None:
        try:
            self._mark.touch()
            self._sync()
            for path in self._files() if anew else ():
                path.unlink()
        except OSError as error:
            raise self._unusable(error) from error

    def open(self) -> Stores:
        return open_directory_stores(self._config)

    def finish(self) -> None:
        try:
            self._mark.unlink()
            self._sync()
        except OSError as error:
            raise self._unusable(error) from error

    def _files(self) -> list[Path]:
        if self._config.store_backend != "sqlite":
            return Layout(self._directory).files()
        path = self._config.database_path
        return [each for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if each.exists()]

    def _unusable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"the data directory {str(self._directory)!r} cannot be used: {error}", code="data_dir_unusable"
        )

    def _sync(self) -> None:
        """Make durable which files the directory has."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

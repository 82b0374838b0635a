"""Where a gateway keeps what it keeps, and who may drive its runs."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from ..config import GatewayConfig
from ..errors import Unavailable
from ..runner import Runner, RunnerLock, Tenure, Watch
from ..service.runner_status import RunnerStatus
from ..stores import ends, open_file_stores, open_memory_stores, open_sqlite_stores
from ..stores.base import Stores
from ..stores.ends import DatabaseFacts, unfinished
from ..stores.shelf import SharedShelf

LOCK_FILE = "gateway_runner.lock"
STANDBY_FILE = "gateway_runner.standby.lock"

RETENTION_LOCK_FILE = "retention.lock"

_POSTGRES = "abstractgateway_postgres:open_postgres_stores"
_LOOK_AT = "abstractgateway_postgres.checks:look_at"
_OPEN_SHELF = "abstractgateway_postgres.opening:open_shelf"
_LOOK_AT_SHELF = "abstractgateway_postgres.opening:look_at_shelf"


class Lock(Protocol):
    """What one process at a time may have."""

    def try_acquire(self) -> bool:
        """Take it if nobody has it, and say whether it is held here now."""

    def release(self) -> None:
        """Give it back; without it nothing happens."""


class SharedStores(Stores, Protocol):
    """Stores whose runs several runners share."""

    @property
    def watch(self) -> Watch: ...

    @property
    def shelf(self) -> SharedShelf: ...

    def share(self, lease_s: float) -> Tenure:
        """Return what the runner of this process needs to have its share."""

    def retention_lock(self) -> Lock:
        """Return the lock of whoever removes old runs."""


def open_stores(config: GatewayConfig) -> Stores:
    """Return the stores that the settings name. Raises `Unavailable` when the data directory cannot be used."""
    if config.store_backend == "postgres":
        return _open_postgres_stores(config, config.durability == "full")
    if config.store_backend != "memory" and unfinished_mark(config).exists():
        raise unfinished(f"the {config.store_backend} backend of {str(config.data_dir)!r}")
    return open_directory_stores(config)


def unfinished_mark(config: GatewayConfig) -> Path:
    """Return the file that is there while the backend of a data directory is being filled."""
    return ends.unfinished_mark(Path(config.data_dir), config.store_backend)


def open_directory_stores(config: GatewayConfig) -> Stores:
    """Return the stores in the data directory, or in memory, also where a migration has not filled them to the end."""
    is_durable = config.durability == "full"
    try:
        if config.store_backend == "sqlite":
            return open_sqlite_stores(config.data_dir, database=config.database_path, is_durable=is_durable)
        if config.store_backend == "file":
            return open_file_stores(config.data_dir, is_durable=is_durable)
        return open_memory_stores()
    except OSError as error:
        raise Unavailable(
            f"the data directory {str(config.data_dir)!r} cannot be used: {error}; "
            "set ABSTRACTGATEWAY_DATA_DIR to one that can be written",
            code="data_dir_unusable",
        ) from error


def postgres_part(name: str) -> Any:
    """Return what the package for PostgreSQL has under a name. Raises `Unavailable` where it is not installed."""
    try:
        return pkgutil.resolve_name(name)
    except ImportError as error:
        raise Unavailable(
            f"the store backend 'postgres' needs the extra postgres: pip install 'abstractgateway[postgres]' ({error})",
            code="postgres_extra_missing",
        ) from error


def _open_postgres_stores(config: GatewayConfig, is_durable: bool) -> Stores:
    stores: Stores = postgres_part(_POSTGRES)(
        config.database_url,
        artifacts_dir=config.database_artifacts_dir,
        is_durable=is_durable,
        connections=config.database_connections,
    )
    return stores


def look_at_database(config: GatewayConfig) -> DatabaseFacts:
    """Return what can be seen of the database without using it. Raises `Unavailable` when it cannot be used."""
    facts: DatabaseFacts = postgres_part(_LOOK_AT)(config.database_url)
    return facts


def retention_lock(config: GatewayConfig, stores: Stores) -> Lock:
    """Return the lock of whoever removes old runs of the stores."""
    if config.store_backend == "postgres":
        return cast(SharedStores, stores).retention_lock()
    return RunnerLock(Path(config.data_dir) / RETENTION_LOCK_FILE)


def shelf_of(config: GatewayConfig, stores: Stores) -> SharedShelf | None:
    """Return what processes share besides runs; None where they share a directory, or nothing."""
    return cast(SharedStores, stores).shelf if config.store_backend == "postgres" else None


@contextmanager
def opened_shelf(config: GatewayConfig) -> Iterator[SharedShelf | None]:
    """Give what processes share besides runs, to a command that needs nothing else of the stores; None as above.

    Raises `Unavailable` and `Conflict` for a database that cannot be used now.
    """
    if config.store_backend != "postgres":
        yield None
        return
    open_shelf: Callable[[str | None], AbstractContextManager[SharedShelf]] = postgres_part(_OPEN_SHELF)
    with open_shelf(config.database_url) as shelf:
        yield shelf


@contextmanager
def shelf_to_read(config: GatewayConfig) -> Iterator[SharedShelf | None]:
    """Like `opened_shelf`, but nothing is made or changed; None also for a database that has no tables yet."""
    if config.store_backend != "postgres":
        yield None
        return
    look_at_shelf: Callable[[str | None], AbstractContextManager[SharedShelf | None]] = postgres_part(_LOOK_AT_SHELF)
    with look_at_shelf(config.database_url) as shelf:
        yield shelf


def durable_dir(config: GatewayConfig) -> Path | None:
    """Return the data directory; None where nothing survives the process."""
    return None if config.store_backend == "memory" else Path(config.data_dir)


def runner_lock(config: GatewayConfig) -> RunnerLock:
    """Return the lock of whoever drives the runs of the data directory."""
    return RunnerLock(Path(config.data_dir) / LOCK_FILE)


def standby_lock(config: GatewayConfig) -> RunnerLock:
    """Return the lock of whoever waits to drive them."""
    return RunnerLock(Path(config.data_dir) / STANDBY_FILE)


def watch_of(config: GatewayConfig, stores: Stores) -> Watch:
    """Return what tells who drives the runs."""
    return cast(SharedStores, stores).watch if config.store_backend == "postgres" else runner_lock(config)


def place_of(config: GatewayConfig) -> str:
    """Return where the runs are, as people are told."""
    return "this database" if config.store_backend == "postgres" else "this data directory"


def runner_status_of(config: GatewayConfig, stores: Stores, runner: Runner | None) -> RunnerStatus:
    """Return the use case that tells who drives the runs."""
    if config.store_backend == "memory":
        return RunnerStatus(runner=runner)
    if config.store_backend == "postgres":
        return RunnerStatus(runner=runner, lock=watch_of(config, stores))
    return RunnerStatus(runner=runner, lock=runner_lock(config), standby=standby_lock(config))

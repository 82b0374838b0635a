"""Where a gateway keeps what it keeps, and who may drive its runs."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Protocol, cast

from ..config import GatewayConfig
from ..errors import Unavailable
from ..runner import Runner, RunnerLock, Tenure, Watch
from ..service.runner_status import RunnerStatus
from ..stores import open_file_stores, open_memory_stores, open_sqlite_stores
from ..stores.base import Stores

LOCK_FILE = "gateway_runner.lock"
STANDBY_FILE = "gateway_runner.standby.lock"

_POSTGRES = "abstractgateway_postgres:open_postgres_stores"


class SharedStores(Stores, Protocol):
    """Stores whose runs several runners share."""

    @property
    def watch(self) -> Watch: ...

    def share(self, lease_s: float) -> Tenure:
        """Return what the runner of this process needs to have its share."""


def open_stores(config: GatewayConfig) -> Stores:
    """Return the stores that the settings name. Raises `Unavailable` when the data directory cannot be used."""
    is_durable = config.durability == "full"
    if config.store_backend == "postgres":
        return _open_postgres_stores(config, is_durable)
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


def _open_postgres_stores(config: GatewayConfig, is_durable: bool) -> Stores:
    try:
        open_stores = pkgutil.resolve_name(_POSTGRES)
    except ImportError as error:
        raise Unavailable(
            f"the store backend 'postgres' needs the extra postgres: pip install 'abstractgateway[postgres]' ({error})",
            code="postgres_extra_missing",
        ) from error
    stores: Stores = open_stores(
        config.database_url,
        artifacts_dir=config.database_artifacts_dir,
        is_durable=is_durable,
        connections=config.database_connections,
    )
    return stores


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


def runner_status_of(config: GatewayConfig, stores: Stores, runner: Runner | None) -> RunnerStatus:
    """Return the use case that tells who drives the runs."""
    if config.store_backend == "memory":
        return RunnerStatus(runner=runner)
    if config.store_backend == "postgres":
        return RunnerStatus(runner=runner, lock=watch_of(config, stores))
    return RunnerStatus(runner=runner, lock=runner_lock(config), standby=standby_lock(config))

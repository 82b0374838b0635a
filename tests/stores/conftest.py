from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import GatewayError
from abstractgateway.stores.artifacts import FileArtifactStore, InMemoryArtifactStore
from abstractgateway.stores.base import Stores
from tests.postgres.server import open_test_database
from tests.stores.shapes import FILES, MEMORY, POSTGRES, SQLITE, Backend


@pytest.fixture(params=[MEMORY, FILES, SQLITE, POSTGRES], ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.fixture(params=[FILES, SQLITE, POSTGRES], ids=lambda backend: backend.name)
def durable(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory where there is such a thing: these tests open thousands of stores."""
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if os.access(in_memory, os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture
def opened() -> Iterator[Callable[[Backend, Path], Stores]]:
    """Open stores that are closed when the test ends."""
    known: list[Stores] = []

    def open_at(backend: Backend, directory: Path) -> Stores:
        known.append(backend.open_at(directory))
        return known[-1]

    yield open_at
    for stores in known:
        with suppress(GatewayError, OSError):
            stores.close()


@pytest.fixture
def stores(backend: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path) -> Stores:
    return opened(backend, tmp_path)


@pytest.fixture(params=["memory", "files", "postgres"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The artifacts of each backend that has some of its own."""
    if request.param == "postgres":
        stores = open_test_database(tmp_path)
        yield stores.artifacts
        stores.close()
    else:
        yield InMemoryArtifactStore() if request.param == "memory" else FileArtifactStore(tmp_path)

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from tests.runtime.workflows import World

Reopen = Callable[[], World]

_OPEN = {"file": open_file_stores, "sqlite": open_sqlite_stores}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["memory", "file", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """A function that opens the same stores again, as a process that was restarted does; on every backend."""
    memory = open_memory_stores()
    with ExitStack() as current:

        def open_world() -> World:
            if request.param == "memory":
                return World(memory)
            current.close()
            return World(current.enter_context(closing(_OPEN[request.param](tmp_path / "data"))))

        yield open_world

"""Two threads that write to a store for as long as a test disturbs its server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from abstractgateway.runtime.chain import verify_chain
from abstractgateway_postgres import PostgresStores
from tests.stores.shapes import a_command, a_run, save

PATIENCE_S = 60.0


class Writers:
    """What was acknowledged to the threads: the ids of runs, each with a command of the same id."""

    def __init__(self, stores: PostgresStores) -> None:
        self._stores = stores
        self._is_over = threading.Event()
        self._written = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._write, args=(name,)) for name in "ab"]
        self.acknowledged: list[str] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        for _ in range(count):
            assert self._written.acquire(timeout=PATIENCE_S)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def check(self) -> list[int]:
        """Check that everything acknowledged is there, once; return the places of the commands in the inbox."""
        for name in self.acknowledged:
            assert self._stores.runs.open(name).revision == 1
            assert verify_chain(self._stores.ledger.list(name)).ok
        places = [self._stores.commands.get(name).seq for name in self.acknowledged]
        assert len(set(places)) == len(self.acknowledged)
        return places

    def _write(self, prefix: str) -> None:
        number = 0
        while not self._is_over.is_set():
            name = f"{prefix}{number}"
            save(self._stores, a_run(name), count=2)
            self._stores.commands.append(a_command(name))
            self.acknowledged.append(name)
            self._written.release()
            number += 1


@contextmanager
def writing(stores: PostgresStores) -> Iterator[Writers]:
    """Write until the end of the block."""
    writers = Writers(stores)
    writers.start()
    try:
        yield writers
    finally:
        writers.stop()

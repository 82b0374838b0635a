"""Another process: it keeps statements one by one in a file, and says after each how many there are by now."""

from __future__ import annotations

import sys

from abstractgateway.knowledge import SqliteTripleStore
from tests.knowledge.conftest import a_triple


def main(path: str, name: str, count: int) -> None:
    store = SqliteTripleStore(path)
    for number in range(count):
        both = [a_triple(object=f"of {name} {number}"), a_triple(object=f"shared {number}", id=f"{name}{number}")]
        store.add(both, skip_known=True)
        print(number + 1, flush=True)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

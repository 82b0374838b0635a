from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.target import Target, attacked


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway in a process of its own, for all tests of a file."""
    with attacked(tmp_path_factory.mktemp("attacked")) as target:
        yield target

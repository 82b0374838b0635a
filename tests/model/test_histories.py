from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests.model.histories import HISTORIES, History, play
from tests.model.world import BACKENDS, SELDOM

IN_MEMORY = Path("/dev/shm")

ALWAYS_THE_SAME = settings(
    max_examples=80, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_every_backend_does_what_the_model_says_whatever_clients_time_and_crashes_do() -> None:
    tally: Counter[str] = Counter()

    @ALWAYS_THE_SAME
    @given(HISTORIES)
    def plays_as_the_model(history: History) -> None:
        with tempfile.TemporaryDirectory(dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None) as directory:
            play(history, Path(directory), tally)

    plays_as_the_model()

    print(tally)
    assert all(tally[f"{backend} crashes"] > (3 if backend in SELDOM else 10) for backend in BACKENDS)
    assert tally["seen calls interrupted after they were performed"] > 5

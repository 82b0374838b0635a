from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.kill_loop import run_rounds

ROUNDS = 5


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_gateway_that_is_killed_again_and_again_loses_nothing_it_acknowledged(tmp_path: Path, backend: str) -> None:
    done = run_rounds(tmp_path, backend, ROUNDS)

    assert len(done.runs) >= 8 * ROUNDS
    assert len(done.commands) >= 5 * ROUNDS

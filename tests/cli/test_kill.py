from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.kill_loop import run_rounds

ROUNDS = 15


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_gateway_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing_unseen(
    tmp_path: Path, backend: str
) -> None:
    done = run_rounds(tmp_path, backend, ROUNDS, runs=5, commands=3)

    assert len(done.runs) >= 5 * ROUNDS
    assert len(done.commands) >= 3 * ROUNDS
    assert done.effects.performed >= 5 * ROUNDS
    assert done.effects.in_doubt > 0, "no kill met an effect"

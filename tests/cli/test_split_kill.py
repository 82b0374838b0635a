from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.split_loop import run_split_rounds

ROUNDS = 4


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_either_process_may_be_killed_and_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path, backend: str) -> None:
    done = run_split_rounds(tmp_path, backend, ROUNDS, seed=3, commands_measured=5)

    assert sum(done.kills.values()) == ROUNDS
    assert min(done.kills.values()) > 0
    assert len(done.commands) >= ROUNDS

"""The short form of the campaign with thousands of streams."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.sources import ROOT

SHORT = ("--streams", "200", "--stuck", "5", "--seconds", "4", "--stuck-s", "1")


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_no_reader_misses_or_repeats_a_record_while_runs_are_started(backend):
    command = [sys.executable, str(ROOT / "scripts" / "streams-at-scale"), *SHORT, "--backend", backend]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=180)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "206 streams open" in ran.stdout
    assert "every reader got every record once and in order" in ran.stdout

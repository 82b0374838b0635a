from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.house.sources import ROOT


def fuzz(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz"), "--keep", str(directory / "found"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_damaged_bundles_and_flows_are_used_or_refused_and_nothing_else(tmp_path: Path) -> None:
    finished = fuzz(tmp_path, "--seconds", "6")

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert all(f"{kind} refused" in finished.stdout for kind in ("zip", "manifest", "flow"))


def test_what_takes_too_long_is_a_finding_and_is_kept(tmp_path: Path) -> None:
    finished = fuzz(tmp_path, "--cases", "40", "--slowest", "0.000001")

    kept = list((tmp_path / "found").iterdir())
    assert finished.returncode == 1
    assert f"{len(kept)} findings" in finished.stdout

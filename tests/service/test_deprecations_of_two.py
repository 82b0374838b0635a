from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from abstractgateway.clock import SystemClock
from abstractgateway.service.deprecations import FILE_NAME, DeprecationFile, Deprecations

_ADD = """
import sys
from pathlib import Path
from abstractgateway.clock import SystemClock
from abstractgateway.service.deprecations import DeprecationFile, Deprecations

deprecations = Deprecations(DeprecationFile(Path(sys.argv[1]), clock=SystemClock()), clock=SystemClock())
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    deprecations.add("bundle", f"{sys.argv[2]}-{number}", None)
"""


def test_two_processes_that_deprecate_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ADD, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0

    found = Deprecations(DeprecationFile(path, clock=SystemClock()), clock=SystemClock())
    lost = [f"{name}-{n}" for name in ("one", "two") for n in range(60) if found.find("bundle", f"{name}-{n}") is None]

    assert lost == []

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from abstractgateway.cli import commands
from abstractgateway.cli.commands import main
from abstractgateway.errors import Unavailable

HIDE = "from abstractgateway.cli.private import keep_memory_private; keep_memory_private()"
NOBODY = 65534
LOOK = f"""
import ctypes, os, subprocess
if os.getuid() == 0:
    os.setgid({NOBODY}); os.setuid({NOBODY})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as it is after any exec
{{hide}}
subprocess.run(["cat", "/proc/%d/environ" % os.getpid()], stderr=subprocess.DEVNULL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone shows environments as files")
@pytest.mark.parametrize(("hide", "seen"), [(HIDE, False), ("", True)])
def test_what_a_process_starts_cannot_read_its_environment_once_it_is_private(hide: str, seen: bool) -> None:
    program = f"import sys; sys.path[:] = {sys.path!r}\nimport abstractgateway.cli.private\n{LOOK.format(hide=hide)}"

    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "KEY": "a-key"}
    )

    assert told.returncode == 0, told.stderr
    assert ("KEY=a-key" in told.stdout) is seen


@pytest.mark.parametrize("command", ["serve", "runner"])
def test_processes_that_serve_or_drive_are_private_before_anything_else(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise Unavailable("it is private now")

    monkeypatch.setattr(commands, "keep_memory_private", refuse)

    assert main([command]) == 1
    assert "it is private now" in capsys.readouterr().err

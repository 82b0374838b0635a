"""Command lines that are run in this process, and what they said."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

from abstractgateway.cli import main


class Said(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> Said:
    """Run a command line and return what it said."""
    code = main(arguments)
    printed = capsys.readouterr()
    return Said(code, printed.out, printed.err)


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every setting out of the environment."""
    for name in list(os.environ):
        if name.startswith("ABSTRACT"):
            monkeypatch.delenv(name)

"""The command line: one module per group of commands, put together in `commands`."""

from __future__ import annotations

from .commands import main

__all__ = ["main"]

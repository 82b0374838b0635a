"""The command line: one module per group of commands, put together in `commands`."""

from __future__ import annotations

from collections.abc import Sequence

from .ending import INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    try:
        from .commands import main as run  # takes a while to load, and Ctrl-C may come meanwhile
    except KeyboardInterrupt:
        return INTERRUPTED
    return run(argv)


__all__ = ["main"]

"""File systems of their own with little room, for the tests of full disks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mount one of `size` bytes at a new directory; the function gives it another size. Skips where nobody may."""

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")

    place.mkdir()
    mount(f"size={size}")
    try:
        yield lambda new_size: mount(f"remount,size={new_size}")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)

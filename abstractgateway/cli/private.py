"""What other processes of the same user may learn of this one."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Keep other processes of the same user, commands of flows among them, from this one's environment and memory.

    The settings hold keys, and Linux shows `/proc/<pid>/environ` to every process of the user unless told not to; it
    keeps nothing from root. Elsewhere nothing is done.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

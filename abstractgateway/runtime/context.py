"""What a node handler may ask of the world: the time, random numbers and new ids.

All three come through the run, so that executing a step again gives the same values (promise G9): random numbers and
ids are derived from the run id and the number of steps the run has taken.
"""

from __future__ import annotations

import hashlib
import random
from datetime import datetime

from ..clock import Clock, to_iso


class StepContext:
    """The second argument of a node handler."""

    def __init__(self, clock: Clock, run_id: str, step: int) -> None:
        self._clock = clock
        self._seed = f"{run_id}:{step}"
        self._ids = 0
        self._random: random.Random | None = None

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        return self._clock.now()

    def now_iso(self) -> str:
        """Return the current instant in its stored text form."""
        return to_iso(self.now())

    def random(self) -> random.Random:
        """Return this step's generator; a step that is executed again draws the same numbers."""
        if self._random is None:
            self._random = random.Random(self._seed)
        return self._random

    def new_id(self) -> str:
        """Return a new UUID text; a step that is executed again gets the same ids in the same order."""
        self._ids += 1
        return derive_id(self._seed, str(self._ids))


def derive_id(*parts: str) -> str:
    """Return the UUID text (version 4 in form) that belongs to these parts, always the same for the same parts."""
    digits = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"

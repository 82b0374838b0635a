"""What passes between an effect that is being performed and whoever has it performed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..jsonvalue import JsonObject

OnDelta = Callable[[JsonObject], object]
"""Is given `{content}` or `{reasoning}` with a piece of text, and `{restart: true}` when what was given is void."""


class Stop(Protocol):
    """Says that the outcome of an effect is not wanted any more."""

    def is_set(self) -> bool:
        """Say whether it is so."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is so, `timeout` seconds at most, and say whether it is."""

    def on_set(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have a quick function called once when it is so, at once if it is; return how to take that back.

        Once it is taken back the function does not run, and is not running, in any thread.
        """


class Signals(NamedTuple):
    """How an effect is told to stop, and whom it tells of its partial results; None where nobody does either."""

    stop: Stop | None = None
    on_delta: OnDelta | None = None


NO_SIGNALS = Signals()

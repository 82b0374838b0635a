"""How a model call can fail, classed by what may be done about it."""

from __future__ import annotations

from abstractgateway.errors import GatewayError


class ModelError(GatewayError):
    """A model call failed for good: the message says what the provider said, never with a key in it."""

    code = "model_failed"


class Passing(ModelError):
    """The call may succeed when it is made again, after `pause_s` seconds where the provider says so."""

    def __init__(self, message: str, *, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class Refused(ModelError):
    """The provider does not take the request as it is; `said` is its answer, in which it may name what it refuses."""

    def __init__(self, message: str, *, said: str) -> None:
        super().__init__(message)
        self.said = said


class Stopped(ModelError):
    """Whoever asked does not want the answer any more, or the time for it is over."""

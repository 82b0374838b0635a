"""What can go wrong, classed by what the caller can do about it.

Every error has a stable `code` for programs and a one-sentence message for people that names the value and the
cure. `NotFound` is also a `KeyError`, `Invalid` and `Conflict` are also `ValueError`s, because programs written
for AbstractRuntime catch those.
"""

from __future__ import annotations


class GatewayError(Exception):
    """The root of every error this library raises on purpose."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class NotFound(GatewayError, KeyError):
    """The thing named does not exist: check the name against the known ones in the message."""

    code = "not_found"


class Conflict(GatewayError, ValueError):
    """The thing exists but is not in the state that the request needs: read it again and decide anew."""

    code = "conflict"


class StaleWrite(Conflict):
    """Somebody else changed a run since it was read: load it again and repeat the transition."""

    code = "stale_write"


class LeaseLost(Conflict):
    """Another runner owns the runs of this store now: stop driving them."""

    code = "lease_lost"


class Invalid(GatewayError, ValueError):
    """The request itself is wrong: correct `field`, because of `why`."""

    code = "invalid"

    def __init__(self, field: str, why: str, *, code: str | None = None) -> None:
        super().__init__(f"{field}: {why}" if field else why, code=code)
        self.field = field
        self.why = why


class Denied(GatewayError):
    """The caller may not do this: use a token, origin or host that is allowed."""

    code = "denied"


class Unavailable(GatewayError):
    """The gateway cannot do this now: try again after `retry_after` seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: float = 1.0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after

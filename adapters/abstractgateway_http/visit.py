"""One request on its way through the app, and what is learnt about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Request

from abstractgateway.security import ANYONE, Caller

from .route import Call


@dataclass(eq=False)
class Visit:
    """The request, who makes it, and what the audit log shows of it.

    `began` is the time at which it was taken up, in seconds of the monotonic clock.
    """

    request: Request
    request_id: str
    began: float
    client: str = ""
    needs_token: bool = True
    is_stream: bool = False
    caller: Caller = ANYONE
    asked: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def note(self, audited: tuple[str, ...], call: Call) -> None:
        """Keep the inputs that the audit log shows, and where the handler puts what it made."""
        given = {**call.path, **{name: call.body.get(name) for name in audited}}
        self.asked = {name: value for name, value in given.items() if value is not None}
        self.made = call.made

"""A route as a declaration: where it is, what it takes, what it answers, and who handles it.

Routing, the checks of inputs, `/openapi.json` and the route table of docs/http.md are all made from these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Request, Response

from abstractgateway.security import ANYONE, READS, Caller, Scope

from .fields import Field
from .stream import StreamRequest

API = "/api/gateway"


@dataclass(frozen=True)
class Call:
    """A request that passed every check: what its route was asked, as values.

    `request` is for what HTTP itself defines, such as ranges and conditions. A handler puts into `made` what the audit
    log shall show of its answer. Answers that take long to make, and are sent later, are made `aside`.
    """

    gateway: Any
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    headers: Mapping[str, Any]
    open_stream: Callable[[StreamRequest], Any]
    request: Request
    aside: Any
    caller: Caller = ANYONE
    made: dict[str, Any] = field(default_factory=dict)


Handler = Callable[[Call], Response]

SessionRule = Callable[[Call, str], Call]
"""What a request becomes for a caller who knows one session only; raises `Refused` or `NotFound`."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One kind of answer that is no error: when it is given, and the shape of its body; without one it is empty."""

    text: str
    schema: Mapping[str, Any] | None = None
    content_type: str = "application/json"
    status: int = 200


@dataclass(frozen=True, eq=False)
class Route:
    """One row. `refusals` are the statuses that the handler itself may answer with, besides those of every route.

    A body is JSON, or a form with files where `is_form` says so. A route that is not `is_listed` is a page for people.
    `scope` is what a caller needs; without one that is `read` for a read, `admin` for anything else. `session` is the
    rule for callers of one session. `audited` names the inputs that the audit log shows.
    """

    method: str
    path: str
    handler: Handler
    answers: tuple[Answer, ...]
    query: tuple[Field, ...] = ()
    body: tuple[Field, ...] | None = None
    headers: tuple[Field, ...] = ()
    refusals: tuple[int, ...] = ()
    is_form: bool = False
    may_lack_body: bool = False
    needs_token: bool = True
    scope: Scope | None = None
    session: SessionRule | None = None
    audited: tuple[str, ...] = ()
    is_listed: bool = True

    @property
    def needed_scope(self) -> Scope:
        """What a caller needs: a new route that changes something is for administrators until it says otherwise."""
        return self.scope or ("read" if self.method in READS else "admin")

    @property
    def summary(self) -> str:
        """What the route does, in one sentence: the first of its handler's."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]

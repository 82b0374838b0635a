"""The gateway's answers as values, and its refusals as the errors that an embedded gateway would raise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Conflict, Denied, GatewayError, Invalid, NotFound, Unavailable
from ..jsonvalue import loads

_KINDS: dict[int, type[GatewayError]] = {401: Denied, 403: Denied, 404: NotFound, 409: Conflict}
_PASSING = (429, 502, 503, 504)
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What the server sent: headers with names in lower case, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value. Raises `GatewayError` when it is no JSON: then it is no gateway that answers."""
        try:
            return loads(self.body, field="answer")
        except Invalid as error:
            raise GatewayError(
                f"the answer is not JSON ({error.why}); is there a gateway at this URL?", code="not_a_gateway"
            ) from error


def is_passing(status: int) -> bool:
    """Say whether the same request may be answered otherwise in a while."""
    return status in _PASSING


def pause_of(headers: Mapping[str, str], default_s: float) -> float:
    """Return the seconds that the server asks to wait for, within bounds; `default_s` where it asks for none."""
    text = headers.get("retry-after", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isdecimal() else default_s


def refusal(answer: Answer) -> GatewayError:
    """Return the error of an answer that is none of the 2xx: its `code` is the server's, its text the detail."""
    told = _told(answer)
    text, code = _text(told.get("detail"), answer.status), str(told.get("code") or f"http_{answer.status}")
    if is_passing(answer.status):
        return Unavailable(text, retry_after=pause_of(answer.headers, 1.0), code=code)
    kind = _KINDS.get(answer.status)
    if kind is not None:
        return kind(text, code=code)
    return Invalid("", text, code=code) if 400 <= answer.status < 500 else GatewayError(text, code=code)


def _told(answer: Answer) -> Mapping[str, Any]:
    try:
        told = loads(answer.body, field="answer")
    except Invalid:
        return {}
    return told if isinstance(told, dict) else {}


def _text(detail: Any, status: int) -> str:
    if isinstance(detail, str) and detail:
        return detail
    if not isinstance(detail, list):
        return f"the server answered {status}"
    problems = [item for item in detail if isinstance(item, dict)]
    return "; ".join(f"{_place(item.get('loc'))}: {item.get('msg')}" for item in problems)


def _place(loc: Any) -> str:
    return ".".join(str(part) for part in loc) if isinstance(loc, list) else "request"

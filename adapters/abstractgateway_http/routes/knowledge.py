"""The knowledge graph: looking for statements."""

from __future__ import annotations

import math
from typing import Any

from werkzeug.wrappers import Response

from ..fields import Field, Mismatch, Reader, choice, whole
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..shapes import named
from .inputs import optional_text, switch


def query_knowledge(call: Call) -> Response:
    """Find statements by what they say, whose they are, when they hold, or a text."""
    return json_answer(call.gateway.knowledge.query(**call.body))


def _read_number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf:
        return float(value)
    raise Mismatch("float_type", "Input should be a valid number")


NUMBER = Reader(_read_number, {"type": "number"})

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/kg/query",
        query_knowledge,
        scope="read",
        answers=(Answer("The statements.", named("KnowledgeFound")),),
        body=(
            Field(
                "scope",
                choice("run", "session", "global", "all"),
                default=lambda: "session",
                about="Whose statements: `run`, `session`, `global`, or `all` three.",
            ),
            optional_text("run_id", "The run that is the owner, or from which scopes are seen."),
            optional_text("session_id", "The session that is the owner."),
            optional_text("owner_id", "Exactly this owner; not with scope `all`."),
            optional_text("subject", "Exactly this subject, in any case."),
            optional_text("predicate", "Exactly this predicate, in any case."),
            optional_text("object", "Exactly this object, in any case."),
            optional_text("since", "Observed at this time (ISO 8601) or later."),
            optional_text("until", "Observed at this time or earlier."),
            optional_text("active_at", "Holding at this time."),
            optional_text("query_text", "Words to look for; the most relevant statements come first."),
            Field("min_score", NUMBER, nullable=True, about="The least relevance to `query_text`, from 0 to 1."),
            switch("all_owners", "The statements of every owner of the scope."),
            Field("limit", whole(-1, 10_000), default=lambda: 500, about="How many at most; 0 and -1 for all."),
            Field(
                "order",
                choice("desc", "asc"),
                default=lambda: "desc",
                about="`desc`: the last observed first; `asc`: the first.",
            ),
        ),
        refusals=(400, 404, 503),
    ),
)

"""The life of a run as a table, and nothing else: no input, no output, no clock.

`TRANSITIONS[status][verb]` is the status that a verb leads to; a verb that is not listed is not possible there. The
diagram in docs/states.md is made from this table.
"""

from __future__ import annotations

from ..errors import Conflict
from .models import RunStatus

RUNNING, WAITING = RunStatus.RUNNING, RunStatus.WAITING
COMPLETED, FAILED, CANCELLED = RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED

TRANSITIONS: dict[RunStatus, dict[str, RunStatus]] = {
    RUNNING: {
        "step": RUNNING,
        "wait": WAITING,
        "complete": COMPLETED,
        "fail": FAILED,
        "cancel": CANCELLED,
        "pause": WAITING,
    },
    WAITING: {
        "resume": RUNNING,
        "complete": COMPLETED,
        "fail": FAILED,
        "cancel": CANCELLED,
        "pause": WAITING,
        "unpause": RUNNING,
        "keep": WAITING,
    },
    COMPLETED: {},
    FAILED: {},
    CANCELLED: {},
}

VERBS: dict[str, str] = {
    "step": "a node was executed and the next one follows",
    "wait": "the node needs something from outside: an answer, an event, a time, a child run",
    "resume": "what the run waited for has come",
    "complete": "the workflow ended with an output",
    "fail": "a node or an effect failed",
    "cancel": "somebody cancelled the run",
    "pause": "somebody paused the run; what it waits for is kept",
    "unpause": "somebody resumed a run that was paused between two steps",
    "keep": "somebody resumed a run that was paused while it waited: it waits on",
}


def next_status(status: RunStatus, verb: str) -> RunStatus:
    """Return where a verb leads from a status. Raises `Conflict` when it is not possible there."""
    allowed = TRANSITIONS[status]
    if verb not in allowed:
        raise Conflict(f"a run that is {status.value} cannot {verb}", code="not_possible_now")
    return allowed[verb]


def to_mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> running: start"]
    for status, verbs in TRANSITIONS.items():
        lines += [f"    {status.value} --> {target.value}: {verb}" for verb, target in verbs.items()]
        if not verbs:
            lines.append(f"    {status.value} --> [*]")
    return "\n".join(lines) + "\n"

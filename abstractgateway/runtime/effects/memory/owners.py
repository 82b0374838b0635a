"""Whose memory a scope means: the run's own, its session's, or everybody's.

Session and global memory belong to owner runs: completed runs of internal workflows that exist to hold spans. They
are made by the first note, in the same commit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from ....jsonvalue import JsonObject
from ...draft import Draft, OpenRun
from ...models import RunState, RunStatus
from ..request import GLOBAL_RUN_ID
from .inputs import SCOPES

SESSION_MEMORY = "__session_memory__"
GLOBAL_MEMORY = "__global_memory__"

_PLAIN_SESSION_ID = re.compile(r"[a-zA-Z0-9_-]{1,200}\Z")
"""The length leaves room for the prefix: a run id has at most 255 characters."""
_MOST_ANCESTORS = 100
"""A chain of parents that long is a circle in damaged data."""


def session_memory_id(session_id: str) -> str:
    """Return the id of the run that holds a session's memory."""
    if _PLAIN_SESSION_ID.match(session_id):
        return f"session_memory_{session_id}"
    return f"session_memory_sha_{hashlib.sha256(session_id.encode()).hexdigest()[:32]}"


def owner_run_id(
    peek: Callable[[str], RunState | None], base: RunState, scope: str, global_id: str = GLOBAL_RUN_ID
) -> str:
    """Return the id of the run that holds the memory of a scope as seen from a run; `peek` looks at others.

    The session of a run without a session id is the tree it belongs to.
    """
    if scope == "global":
        return global_id
    if scope == "run":
        return base.run_id
    return session_memory_id(base.session_id) if base.session_id else _root_of(peek, base)


def open_owner(draft: Draft, base: RunState, scope: str, global_id: str) -> OpenRun:
    """Open the run that holds the memory of a scope, made where it is missing."""
    owner_id = owner_run_id(draft.peek, base, scope, global_id)
    session_id = base.session_id if scope == "session" else None
    workflow_id = SESSION_MEMORY if scope == "session" else GLOBAL_MEMORY
    return draft.find(owner_id) or draft.create(_new_owner(draft, owner_id, workflow_id, session_id))


def open_session_owner(draft: Draft, session_id: str) -> OpenRun:
    """Open the run that holds what belongs to a session, made where it is missing."""
    owner_id = session_memory_id(session_id)
    return draft.find(owner_id) or draft.create(_new_owner(draft, owner_id, SESSION_MEMORY, session_id))


def find_owners(draft: Draft, base: RunState, scope: str, global_id: str) -> list[OpenRun]:
    """Open the runs that hold the memory of a scope, for `all` of every scope; those that do not exist are left out."""
    scopes = SCOPES if scope == "all" else (scope,)
    ids = dict.fromkeys(owner_run_id(draft.peek, base, wanted, global_id) for wanted in scopes)
    opened = (draft.find(run_id) for run_id in ids)
    return [run for run in opened if run is not None]


def _root_of(peek: Callable[[str], RunState | None], base: RunState) -> str:
    state = base
    for _ in range(_MOST_ANCESTORS):
        parent = peek(state.parent_run_id) if state.parent_run_id else None
        if parent is None:
            break
        state = parent
    return state.run_id


def _new_owner(draft: Draft, owner_id: str, workflow_id: str, session_id: str | None) -> RunState:
    now = draft.now_iso()
    vars: JsonObject = {
        "context": {"task": "", "messages": []},
        "scratchpad": {},
        "_runtime": {"memory_spans": []},
        "_temp": {},
        "_limits": {},
    }
    return RunState(
        run_id=owner_id,
        workflow_id=workflow_id,
        status=RunStatus.COMPLETED,
        current_node="done",
        vars=vars,
        output={"messages": []},
        created_at=now,
        updated_at=now,
        session_id=session_id,
    )

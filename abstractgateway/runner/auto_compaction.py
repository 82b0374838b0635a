"""Shortening conversations in recurrent schedules before they no longer fit the model."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from ..errors import GatewayError, LeaseLost, Unavailable
from ..jsonvalue import JsonObject
from ..runtime.draft import Draft, OpenRun
from ..runtime.effects.memory.compact import COMPACT_WORKFLOW_ID, begin_compaction
from ..runtime.limits import token_use
from ..runtime.models import RunState, RunStatus
from ..runtime.paths import namespace
from ..runtime.runtime import Runtime
from ..schedules import Timing, definition_of, find_schedule, is_schedule_id
from .commands import patience
from .compaction import conversation_of

_log = logging.getLogger(__name__)

LEAST_MESSAGES = 12
"""A shorter conversation is not worth a summary."""
_PAYLOAD: JsonObject = {"preserve_recent": 6, "compression_mode": "standard"}
_KEPT = 10_000


class AutoCompaction:
    """Shortens conversations in recurrent schedules whose model calls use `pct` percent of what they may; 0: never.

    `note` may be called by any thread and is quick; `work` does what was noted, in one thread at a time.
    """

    def __init__(self, runtime: Runtime, *, pct: int, quietly: Callable[[], AbstractContextManager[None]]) -> None:
        self._runtime = runtime
        self._pct = pct
        self._quietly = quietly
        self._due: deque[tuple[Callable[[Draft, str], None], str]] = deque()
        self._seen: dict[str, int] = {}  # run ids, and the tokens at which they were looked at last

    def __len__(self) -> int:
        return len(self._due)

    def note(self, state: RunState) -> bool:
        """Look at a run whose steps have just become durable; say whether there is something to do."""
        if state.workflow_id == COMPACT_WORKFLOW_ID and state.status in (RunStatus.FAILED, RunStatus.CANCELLED):
            self._due.append((_note_failure, state.run_id))
            return True
        if not self._is_crowded(state):
            return False
        self._due.append((_compact, state.run_id))
        return True

    def work(self) -> bool:
        """Do what was noted, and say whether there was anything.

        Raises `LeaseLost` and `Unavailable` like any commit; what could not be done then is kept.
        """
        has_any = bool(self._due)
        while self._due:
            action, run_id = self._due[0]
            try:
                self._transact(action, run_id)
            except (LeaseLost, Unavailable, OSError):
                raise
            except GatewayError as error:
                self._transact(_telling(str(error)), run_id)
            except Exception as error:  # a run that cannot be opened any more must not keep the others from theirs
                _log.warning("the conversation of run %s could not be looked at: %s", run_id, error)
            self._due.popleft()
        return has_any

    def _transact(self, action: Callable[[Draft, str], None], run_id: str) -> None:
        with ExitStack() as stack:
            self._runtime.transact(lambda draft: action(draft, run_id), on_stale=patience(stack, self._quietly))

    def _is_crowded(self, state: RunState) -> bool:
        if not self._pct or state.status.is_terminal:
            return False
        if state.parent_run_id is None and not is_schedule_id(state.workflow_id):
            return False
        used = token_use(state.vars)
        tokens = used["estimated_used"]
        if used["pct"] is None or used["pct"] < self._pct or len(conversation_of(state)) < LEAST_MESSAGES:
            return False
        if tokens <= max(self._seen.get(state.run_id, 0), _last_trigger(state)):
            return False
        self._seen[state.run_id] = tokens
        if len(self._seen) > _KEPT:
            self._seen.pop(next(iter(self._seen)))
        return True


def _last_trigger(state: RunState) -> int:
    own = state.vars.get("_runtime")
    known = own.get("auto_compact") if isinstance(own, dict) else None
    last = known.get("last_trigger_tokens_used") if isinstance(known, dict) else None
    return last if isinstance(last, int) else 0


def _compact(draft: Draft, run_id: str) -> None:
    root = find_schedule(draft, run_id)
    run = draft.open(run_id)
    used = int(token_use(run.state.vars)["estimated_used"])
    if root is None or not Timing.of(definition_of(root) or {}).is_recurrent or used <= _last_trigger(run.state):
        return
    if run.state.status.is_terminal:
        return
    told = namespace(namespace(run.state.vars, "_runtime"), "auto_compact")
    told |= {"last_trigger_tokens_used": used, "last_trigger_at": draft.now_iso()}
    told["run_id"] = begin_compaction(draft, run, dict(_PAYLOAD), key=f"auto_compact:{run_id}:{run.next_cursor}")
    run.touch(draft.now_iso())


def _note_failure(draft: Draft, child_id: str) -> None:
    """Keep in a run why its conversation could not be shortened."""
    child = draft.peek(child_id)
    parent = draft.find(child.parent_run_id or "") if child is not None else None
    own = namespace(parent.state.vars, "_runtime").get("auto_compact") if parent is not None else None
    if child is None or parent is None or not isinstance(own, dict) or own.get("run_id") != child_id:
        return
    _tell_error(draft, parent, child.error or child.status.value)


def _telling(error: str) -> Callable[[Draft, str], None]:
    return lambda draft, run_id: _tell_error(draft, draft.open(run_id), error)


def _tell_error(draft: Draft, run: OpenRun, error: str) -> None:
    told = namespace(namespace(run.state.vars, "_runtime"), "auto_compact")
    told |= {"last_error": error, "last_error_at": draft.now_iso()}
    run.touch(draft.now_iso())

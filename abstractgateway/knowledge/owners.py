"""Whose statements a scope means, as seen from a run: the owner ids are those of the memory of the same scope."""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.effects.memory.owners import owner_run_id, session_memory_id
from ..runtime.effects.request import GLOBAL_RUN_ID
from ..runtime.models import RunState
from .triples import SCOPES, Owner


class Owners:
    """Finds owner ids; `peek` returns the state of a run, or None for an unknown one, `global_id` is everybody's."""

    def __init__(self, peek: Callable[[str], RunState | None], global_id: str = GLOBAL_RUN_ID) -> None:
        self.peek = peek
        self._global_id = global_id

    def of_run(self, run: RunState, scope: str) -> str:
        """Return the id of the owner of a scope (`run`, `session` or `global`) as seen from a run."""
        return owner_run_id(self.peek, run, scope, self._global_id)

    def of_session(self, session_id: str) -> str:
        """Return the id of the owner of a session's statements."""
        return session_memory_id(session_id)

    def of_everybody(self) -> str:
        """Return the id of the owner of what everybody knows."""
        return self._global_id

    def seen_from(self, run: RunState, scope: str) -> tuple[Owner, ...]:
        """Return the owners of a scope; of `all`, the three of them."""
        scopes = SCOPES if scope == "all" else (scope,)
        return tuple((name, self.of_run(run, name)) for name in scopes)

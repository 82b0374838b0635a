"""Outcomes of effects that came when nobody waited for them any more."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from ..errors import LeaseLost, Unavailable
from ..runtime.draft import Draft
from ..runtime.execution import PendingEffect, discard
from ..runtime.models import EffectOutcome
from ..runtime.runtime import Runtime
from .commands import patience

_log = logging.getLogger(__name__)


class LateOutcomes:
    """Outcomes to be recorded as discarded; `add` may be called by any thread, `record` by one at a time."""

    def __init__(self, runtime: Runtime, *, quietly: Callable[[], AbstractContextManager[None]]) -> None:
        self._runtime = runtime
        self._quietly = quietly
        self._outcomes: deque[tuple[str, PendingEffect, EffectOutcome]] = deque()

    def __len__(self) -> int:
        return len(self._outcomes)

    def add(self, run_id: str, pending: PendingEffect, outcome: EffectOutcome) -> None:
        self._outcomes.append((run_id, pending, outcome))

    def record(self) -> bool:
        """Record what has come, and say whether there was anything.

        Raises `LeaseLost` and `Unavailable` like any commit; what could not be recorded then is kept.
        """
        has_any = bool(self._outcomes)
        while self._outcomes:
            run_id, pending, outcome = self._outcomes[0]
            try:
                self._discard(run_id, pending, outcome)
            except (LeaseLost, Unavailable, OSError):
                raise
            except Exception as error:  # a run that cannot be opened any more must not keep the others from theirs
                _log.warning("a late outcome of run %s could not be recorded: %s", run_id, error)
            self._outcomes.popleft()
        return has_any

    def _discard(self, run_id: str, pending: PendingEffect, outcome: EffectOutcome) -> None:
        def change(draft: Draft) -> None:
            discard(draft, draft.open(run_id), pending.record, outcome)

        with ExitStack() as stack:
            self._runtime.transact(change, on_stale=patience(stack, self._quietly))

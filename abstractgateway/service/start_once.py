"""Starts that may be repeated: the key of a request decides the id of its run, so a second start finds the first."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from ..errors import Conflict
from ..jsonvalue import dumps_canonical
from ..runtime.models import RunState
from ..stores.base import RunStore

_MARK = "start_request"


@dataclass(frozen=True)
class StartOnce:
    """A start under a key: the id that its run has, and the SHA-256 of what was asked for."""

    key: str
    run_id: str
    digest: str

    @staticmethod
    def of(key: str, request: Any) -> StartOnce:
        """Return the start that a key and a request, a JSON value, stand for. Raises `Invalid` for other values."""
        name = hashlib.sha256(b"start\0" + key.encode()).digest()
        digest = hashlib.sha256(dumps_canonical(request, field="input_data")).hexdigest()
        return StartOnce(key, str(uuid.UUID(bytes=name[:16], version=5)), digest)

    def is_done(self, runs: RunStore) -> bool:
        """Say whether the run is there already.

        Raises `Conflict` when the key stood for another request, or for a run that was removed since.
        """
        known = runs.open(self.run_id)
        if known is None:
            self._check_removed(runs)
            return False
        own = known.state.vars.get("_runtime")
        if not isinstance(own, dict) or own.get(_MARK) != self.digest:
            raise Conflict(
                f"the idempotency key {self.key!r} was used for another start; use a new key",
                code="idempotency_key_reused",
            )
        return True

    def _check_removed(self, runs: RunStore) -> None:
        if runs.was_removed(self.run_id):
            raise Conflict(
                f"the run that the idempotency key {self.key!r} started has ended and was removed since; use a new key",
                code="run_removed",
            )

    def mark(self, state: RunState) -> None:
        """Give a run that is about to be stored the id of this start, and note in it what was asked for."""
        state.run_id = self.run_id
        state.vars["_runtime"] = {**state.vars.get("_runtime", {}), _MARK: self.digest}


def was_started_once(state: RunState) -> bool:
    """Say whether a run was started under a key."""
    own = state.vars.get("_runtime")
    return isinstance(own, dict) and _MARK in own

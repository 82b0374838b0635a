"""Who drives the runs."""

from __future__ import annotations

from ..clock import Clock, SystemClock, to_iso
from ..jsonvalue import JsonObject
from ..runner.lock import Holder, Watch
from ..runner.runner import Runner


class RunnerStatus:
    """Tells which process drives the runs, in this one or another; without locks there is no other."""

    def __init__(
        self,
        *,
        runner: Runner | None,
        lock: Watch | None = None,
        standby: Watch | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._runner = runner
        self._lock = lock
        self._standby = standby
        self._clock = clock or SystemClock()

    def get(self) -> JsonObject:
        """Return `{owner, standby, last_seen}`.

        `owner` drives the runs and `standby` waits to take over, each `{pid, host, since}`, or None where there is no
        such process. `last_seen` is when an owner was last known to be there, None where there never was one.
        """
        owner = self._owner()
        standby = self._standby_of(owner)
        return {"owner": _as_json(owner), "standby": _as_json(standby), "last_seen": self._last_seen(owner)}

    def _standby_of(self, owner: Holder | None) -> Holder | None:
        """Return who waits; a process that has just become the owner waits no more."""
        standby = self._standby.holder() if self._standby is not None else None
        is_owner = standby is not None and owner is not None and (standby.pid, standby.host) == (owner.pid, owner.host)
        return None if is_owner else standby

    def _owner(self) -> Holder | None:
        if self._runner is not None and self._runner.is_owner:
            return self._runner.holder
        return self._lock.holder() if self._lock is not None else None

    def _last_seen(self, owner: Holder | None) -> str | None:
        if owner is not None:
            return to_iso(self._clock.now())
        last = self._lock.last_held() if self._lock is not None else None
        return to_iso(last) if last is not None else None


def _as_json(holder: Holder | None) -> JsonObject | None:
    return {"pid": holder.pid, "host": holder.host, "since": holder.since} if holder is not None else None

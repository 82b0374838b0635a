"""Snapshots: named copies of a run's state, to come back to.

A snapshot is the state alone, without ledger and artifacts; putting one back is `run_store.save(snapshot.to_run())` by
whoever took it. `abstractgateway.stores.snapshots` keeps them as files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..clock import Clock, SystemClock, to_iso
from ..errors import Invalid
from ..ids import check_safe_id, new_id
from ..jsonvalue import JsonObject, dumps, loads
from .models import RunState


@dataclass(frozen=True)
class Snapshot:
    """A run's state at one moment, under a name; `step_id` is the ledger's name of the step it stood at."""

    snapshot_id: str
    run_id: str
    step_id: str | None
    name: str
    description: str | None
    tags: list[str] = field(default_factory=list)
    created_at: str = ""
    updated_at: str = ""
    run_state: JsonObject = field(default_factory=dict)

    @staticmethod
    def from_run(
        *,
        run: RunState,
        name: str,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        step_id: str | None = None,
        clock: Clock | None = None,
    ) -> Snapshot:
        """Return a snapshot of a run as it is now; later changes of the run do not reach it.

        Raises `Invalid` for a blank name, and for a state that JSON cannot hold.
        """
        if not name or not name.strip():
            raise Invalid("name", "is blank; name the snapshot")
        now = to_iso((clock or SystemClock()).now())
        state: JsonObject = loads(dumps(run.to_dict(), field="run"), field="run")
        labels = list(tags or ())
        return Snapshot(new_id(), run.run_id, step_id, name.strip(), description, labels, now, now, state)

    def to_run(self) -> RunState:
        """Return the run that was copied. Raises `Invalid` when this is not one."""
        return RunState.from_dict(loads(dumps(self.run_state, field="run_state"), field="run_state"))

    def to_dict(self) -> JsonObject:
        return {name: getattr(self, name) for name in Snapshot.__dataclass_fields__}

    @staticmethod
    def from_dict(data: Any) -> Snapshot:
        """Return the snapshot of a stored form, ignoring unknown fields. Raises `Invalid` for anything else."""
        if not isinstance(data, dict) or not isinstance(data.get("run_state"), dict):
            raise Invalid("snapshot", "is not a stored snapshot: it has no run_state")
        missing = [name for name in ("snapshot_id", "run_id", "name") if not isinstance(data.get(name), str)]
        if missing:
            raise Invalid("snapshot", f"is not a stored snapshot: it has no {missing[0]}")
        known = {name: data[name] for name in Snapshot.__dataclass_fields__ if data.get(name) is not None}
        return Snapshot(**{"step_id": None, "description": None, **known})

    def is_about(self, *, run_id: str | None, tag: str | None, query: str | None) -> bool:
        """Say whether every condition given holds: the run, a tag in any case, a text in name or description."""
        texts = (self.name.lower(), (self.description or "").lower())
        return (
            (run_id is None or self.run_id == run_id)
            and (not tag or tag.strip().lower() in (label.strip().lower() for label in self.tags))
            and (not query or any(query.strip().lower() in shown for shown in texts))
        )


class SnapshotStore(Protocol):
    """Where snapshots are kept."""

    def save(self, snapshot: Snapshot) -> Snapshot:
        """Keep a snapshot, in place of one with its id, and return it as it is stored: `updated_at` is now."""

    def load(self, snapshot_id: str) -> Snapshot | None:
        """Return a snapshot, or None for an unknown id. Raises `Invalid` for one that is damaged."""

    def delete(self, snapshot_id: str) -> bool:
        """Take a snapshot away; False when there was none."""

    def list(
        self, *, run_id: str | None = None, tag: str | None = None, query: str | None = None, limit: int = 100
    ) -> list[Snapshot]:
        """Return the snapshots that all given conditions hold for, the newest first."""


class InMemorySnapshotStore:
    """Snapshots in memory."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._bodies: dict[str, bytes] = {}

    def save(self, snapshot: Snapshot) -> Snapshot:
        """Keep a snapshot; see `SnapshotStore.save`."""
        stored = checked(snapshot, self._clock)
        self._bodies[stored.snapshot_id] = dumps(stored.to_dict(), field="snapshot")
        return stored

    def load(self, snapshot_id: str) -> Snapshot | None:
        """Return a copy of a snapshot, or None for an unknown id."""
        body = self._bodies.get(snapshot_id)
        return Snapshot.from_dict(loads(body)) if body is not None else None

    def delete(self, snapshot_id: str) -> bool:
        """Take a snapshot away; False when there was none."""
        return self._bodies.pop(snapshot_id, None) is not None

    def list(
        self, *, run_id: str | None = None, tag: str | None = None, query: str | None = None, limit: int = 100
    ) -> list[Snapshot]:
        """Return the snapshots that all given conditions hold for, the newest first."""
        found = [Snapshot.from_dict(loads(body)) for body in list(self._bodies.values())]
        return chosen(found, run_id=run_id, tag=tag, query=query, limit=limit)


def checked(snapshot: Snapshot, clock: Clock) -> Snapshot:
    """Return a snapshot as it is to be stored now. Raises `Invalid` for an id that cannot be part of a file name."""
    check_safe_id(snapshot.snapshot_id, field="snapshot_id")
    return replace(snapshot, updated_at=to_iso(clock.now()))


def chosen(
    snapshots: Sequence[Snapshot], *, run_id: str | None, tag: str | None, query: str | None, limit: int
) -> list[Snapshot]:
    """Return the snapshots that all given conditions hold for, the newest first, at least one if there is any."""
    wanted = [item for item in snapshots if item.is_about(run_id=run_id, tag=tag, query=query)]
    wanted.sort(key=lambda item: item.created_at, reverse=True)
    return wanted[: max(1, limit)]

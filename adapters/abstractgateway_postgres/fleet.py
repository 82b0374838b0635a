"""Runners that share the runs of a database: each holds some slots of runs, under a lease that it renews.

A runner's lease is a row with an epoch, which its commits carry and hold while they are made. Once the row is gone they
are refused, whatever the runner believes. A row goes when its runner leaves, or when its time is up and another runner
notices; its slots are then free for the taking. Only the database's clock counts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime

import psycopg

from abstractgateway.clock import to_iso
from abstractgateway.errors import GatewayError
from abstractgateway.runner import COMMANDS, Holder
from abstractgateway.stores.base import RUN_SLOTS

from . import sql
from .database import Connection, Database
from .faults import one_line

_log = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
RELEASE_LOOK_S = 0.1
"""How often a runner that has more than its share looks whether something of it has become idle."""


class Fleet:
    """A runner's tenure among others. Slots come and go: each of n runners holds about 1/n of them.

    Everything here is done by a thread of its own, on a connection of its own.
    """

    may_return = True

    def __init__(self, database: Database, writer_id: str, lease_s: float) -> None:
        self._database = database
        self._writer_id = writer_id
        self._lease_s = lease_s
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._told = threading.Condition()
        self._epoch: int | None = None
        self._held: frozenset[int] = frozenset()
        self._leaving: frozenset[int] = frozenset()
        self._gained: set[int] = set()
        self._sure_until = 0.0
        self._is_closed = False
        self._is_troubled = False
        self._starts_over = False
        self._on_change: Callable[[], None] = lambda: None
        self._drives: Callable[[int], bool] = lambda slot: False
        self.is_over = False

    def begin(self, on_change: Callable[[], None], drives: Callable[[int], bool]) -> int | None:
        """Join the others, and return the epoch. Raises `Unavailable` when the database cannot be reached."""
        if self._epoch is not None:
            return self._epoch
        self._on_change, self._drives = on_change, drives
        asked_at = time.monotonic()
        epoch = self._database.repeatable(self._join)
        with self._told:
            self._sure_until = asked_at + self._lease_s
            self._epoch, self.is_over = epoch, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gateway-postgres-fleet", daemon=True)
            self._thread.start()
        self._woken.set()
        return epoch

    def holds(self, slot: int) -> bool:
        return slot in self._held

    def take_gained(self) -> Collection[int]:
        with self._told:
            gained, self._gained = self._gained, set()
        return gained

    def check(self) -> None:
        self._woken.set()

    def look(self) -> None:
        """Look soon what has become of the shares: others have come, gone, or given something back."""
        self._woken.set()

    def start_over(self) -> None:
        """Give everything back and join anew: what is known of the runs may not be so any more."""
        self._starts_over = True
        self._woken.set()

    def is_sure(self) -> bool:
        """Say whether the lease holds; a process that stood still is told once the database has answered."""
        with self._told:
            epoch = self._epoch
            while time.monotonic() >= self._sure_until and self._epoch == epoch is not None and not self._is_closed:
                self._woken.set()
                self._told.wait(self._lease_s)
            return self._epoch == epoch is not None

    def end(self) -> None:
        """Leave the others: what was held here is theirs at once."""
        with self._told:
            self._is_closed = True
            self._told.notify_all()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
        self._hang_up()

    def _join(self, connection: Connection) -> int:
        ((epoch,),) = connection.execute(sql.NEXT_EPOCH).fetchall()
        connection.execute(sql.DROP_CLAIMED)
        whoami = (epoch, self._writer_id, os.getpid(), socket.gethostname(), self._lease_s)
        connection.execute(sql.ADD_RUNNER, whoami)
        connection.execute(sql.TELL_RUNNERS)
        return int(epoch)

    def _run(self) -> None:
        while not self._is_closed:
            self._woken.clear()
            pause = self._lease_s / BEATS_PER_LEASE
            try:
                if self._epoch is not None:
                    pause = min(pause, self._beat(self._connected(), self._epoch))
                self._is_troubled = False
            except (psycopg.Error, GatewayError) as error:
                self._note_trouble(error)
                pause /= BEATS_PER_LEASE
            self._woken.wait(pause)
        with contextlib.suppress(psycopg.Error, GatewayError):
            self._leave(self._connected())

    def _beat(self, connection: Connection, epoch: int) -> float:
        """Renew the lease and put the shares right; return after how many seconds there is more of that to do."""
        if self._starts_over:
            self._starts_over = False
            connection.execute(sql.LEAVE, (epoch,))
        asked_at = time.monotonic()
        if not connection.execute(sql.RENEW, (self._lease_s, epoch)).fetchall():
            self._lose(epoch)
            return 0.0
        with self._told:
            self._sure_until = asked_at + self._lease_s
            self._told.notify_all()
        self._give(connection, epoch)
        connection.execute(sql.END_STALLED)
        has_expired = bool(connection.execute(sql.DROP_EXPIRED).fetchall())
        ((runners, are_some_left, held),) = connection.execute(sql.STANDING, (epoch,)).fetchall()
        if has_expired:
            connection.execute(sql.TELL_RUNNERS)
        held = {*held, *self._take(connection, epoch, len(set(held) - {COMMANDS}), _share(runners))}
        self._settle(held, _share(runners))
        return RELEASE_LOOK_S if self._leaving or are_some_left else self._lease_s

    def _take(self, connection: Connection, epoch: int, has: int, share: int) -> set[int]:
        """Take what is free, up to the share, and the commands if nobody applies them."""
        taken = connection.execute(sql.TAKE_SLOTS, (epoch, COMMANDS, COMMANDS, 1)).fetchall()
        if has < share:
            taken += connection.execute(sql.TAKE_SLOTS, (epoch, 0, RUN_SLOTS - 1, share - has)).fetchall()
        return {slot for (slot,) in taken}

    def _settle(self, held: set[int], share: int) -> None:
        """Decide which of the slots to keep; of more than the share, those that are idle go first."""
        runs = sorted(held - {COMMANDS}, key=lambda slot: (self._drives(slot), slot in self._held, slot))
        leaving = frozenset(runs[: max(0, len(runs) - share)])
        with self._told:
            fresh = (held - leaving) - self._held
            self._held, self._leaving = frozenset(held - leaving), leaving
            self._gained = (self._gained | fresh) - leaving
        if fresh or leaving:
            self._on_change()

    def _give(self, connection: Connection, epoch: int) -> None:
        """Give back what is more than the share, as far as nothing of it is being driven."""
        idle = [slot for slot in self._leaving if not self._drives(slot)]
        if idle:
            connection.execute(sql.GIVE_SLOTS, (epoch, idle))
            connection.execute(sql.TELL_RUNNERS)
            self._leaving -= set(idle)

    def _lose(self, epoch: int) -> None:
        _log.warning("lease epoch %s is over: other runners have taken its runs over; this one joins them anew", epoch)
        with self._told:
            self._epoch, self._held, self._leaving, self._gained = None, frozenset(), frozenset(), set()
            self.is_over = True
            self._told.notify_all()
        self._on_change()

    def _leave(self, connection: Connection) -> None:
        if self._epoch is not None:
            connection.execute(sql.LEAVE, (self._epoch,))
            connection.execute(sql.TELL_RUNNERS)
        self._held = frozenset()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(patience_s=0.0)
        return self._connection

    def _note_trouble(self, error: Exception) -> None:
        if not self._is_troubled:
            _log.warning("the lease of this runner could not be renewed: %s", one_line(error))
        self._is_troubled = True
        self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class FleetWatch:
    """What can be seen of the runners of a database; of several, the one that applies the commands stands for all."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_free(self) -> bool:
        return self.holder() is None

    def holder(self) -> Holder | None:
        found = self._database.row(sql.APPLIER)
        return Holder(found[0], found[1], to_iso(found[2])) if found is not None else None

    def last_held(self) -> datetime | None:
        found = self._database.row(sql.LAST_LEASE)
        return found[0] if found is not None else None


def _share(runners: int) -> int:
    return -(-RUN_SLOTS // max(1, runners))

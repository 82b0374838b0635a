"""The real thing, made to be crashed: a gateway's runner on a backend, and the outside world that survives it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from abstractgateway.clock import to_iso
from abstractgateway.errors import GatewayError, Unavailable
from abstractgateway.runner import Runner
from abstractgateway.runtime import (
    CommandAppendResult,
    CommandRecord,
    Commit,
    CommitReceipt,
    Effect,
    EffectOutcome,
    EffectType,
    RetryPolicy,
    RunState,
    Runtime,
    StepPlan,
    WorkflowRegistry,
    WorkflowSpec,
)
from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from abstractgateway.stores.base import RunQuery, Stores
from abstractgateway.testing import FaultyDisk, ManualClock, PowerLoss
from tests.model.model import MAX_ATTEMPTS, Command, Interruption, during
from tests.postgres.proxy import Proxy
from tests.postgres.server import has_server, shared, url_of

SESSION = "s"
WORKFLOW = "reads"
AT = "2026-01-01T00:00:00+00:00"
MESSAGES_OF_A_COMMIT = 35
"""About how many messages a commit has on its way to PostgreSQL."""


class Crash(BaseException):
    """The process ends here: nothing of the product catches it."""


@dataclass
class Doom:
    """When the process is to die: at the `left`-th commit or call from now on, and where in it.

    `share` says how much of a torn commit is kept, in percent of its bytes.
    """

    place: str = ""
    left: int = 0
    share: int = 50

    def strikes(self, *places: str) -> bool:
        """Count one commit or call, and say whether the process dies now."""
        if self.place not in places or self.left <= 0:
            return False
        self.left -= 1
        return self.left == 0

    @property
    def is_spent(self) -> bool:
        return self.left <= 0


@dataclass
class Outside:
    """What survives a crash: the time, what the tool calls did to the world, and when the next crash comes."""

    clock: ManualClock = field(default_factory=ManualClock)
    doom: Doom = field(default_factory=Doom)
    performed: list[tuple[str, str, int]] = field(default_factory=list)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    broken_promises: list[str] = field(default_factory=list)


class Backend:
    """Where a gateway keeps its data, and what of it a crash leaves."""

    name = "memory"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_down = False
        self.stores: Any = None

    def open(self, doom: tuple[str, int] | None = None) -> Stores:
        """Open the data; `doom` is a mode and a number of disk operations after which the disk is to fail."""
        self.stores = self.stores or open_memory_stores()
        self.is_down = False
        found: Stores = self.stores
        return found

    def close(self) -> None:
        """End in good order; the memory backend keeps what it has, as if another process served it."""

    def crash(self) -> None:
        """Leave what a process leaves that dies now."""

    def in_the_middle(self, commit: Callable[[], CommitReceipt], share: int) -> None:
        """Leave the first `share` percent of a commit; a backend that has no middle leaves nothing of it."""


class Files(Backend):
    """Files; the disk may die at any of its operations, and a power loss takes what was not synced."""

    name = "files"

    def open(self, doom: tuple[str, int] | None = None) -> Stores:
        self.disk = FaultyDisk(doom[1], doom[0]) if doom is not None else FaultyDisk()
        self.stores = None
        try:
            self.stores = open_file_stores(self.directory, disk=self.disk, journal_bytes=20_000, pending_bytes=2_000)
        except (PowerLoss, Unavailable):
            self.crash()
            raise Crash from None
        found: Stores = self.stores
        return found

    @property
    def is_down(self) -> bool:
        return self.disk.is_off

    @is_down.setter
    def is_down(self, value: bool) -> None:
        """The disk knows."""

    def close(self) -> None:
        self.stores.close()

    def crash(self) -> None:
        self.disk.is_off = True
        with suppress(PowerLoss, Unavailable):
            if self.stores is not None:
                self.stores.close()
        self.disk.cut_power()

    def in_the_middle(self, commit: Callable[[], CommitReceipt], share: int) -> None:
        self.disk.fail("torn")
        with suppress(PowerLoss, Unavailable):
            commit()


class Sqlite(Backend):
    """SQLite; a crash leaves the database and its log as they are, with the last commit whole, torn or missing."""

    name = "sqlite"
    _copies = 0
    _cut_log_at: int | None = None

    def open(self, doom: tuple[str, int] | None = None) -> Stores:
        self.is_down = False
        self.stores = open_sqlite_stores(self.directory, is_durable=False)
        found: Stores = self.stores
        return found

    def close(self) -> None:
        self.stores.close()

    def crash(self) -> None:
        """Go on in a copy, without what only a living process has: closing the original would tidy it up."""
        self._copies += 1
        old, self.directory = self.directory, self.directory.with_name(f"sqlite-{self._copies}")
        shutil.copytree(old, self.directory, ignore=shutil.ignore_patterns("*-shm", "*.lock", "wake"))
        if self._cut_log_at is not None:
            with (self.directory / "gateway.sqlite3-wal").open("r+b") as log:
                log.truncate(self._cut_log_at)
            self._cut_log_at = None
        self.stores.close()
        shutil.rmtree(old)

    def in_the_middle(self, commit: Callable[[], CommitReceipt], share: int) -> None:
        before = self._log_bytes()
        commit()
        written = self._log_bytes() - before
        if written > 0:
            self._cut_log_at = before + written * share // 100

    def _log_bytes(self) -> int:
        log = self.directory / "gateway.sqlite3-wal"
        return log.stat().st_size if log.exists() else 0


class Postgres(Backend):
    """PostgreSQL behind a proxy; a crash ends all connections, in a commit at any of its messages."""

    name = "postgres"

    def open(self, doom: tuple[str, int] | None = None) -> Stores:
        from abstractgateway_postgres import open_postgres_stores

        if self.stores is None:
            self._proxy = Proxy(shared().port)
            self._url = url_of(self.directory).replace(f":{shared().port}/", f":{self._proxy.port}/")
        self._proxy.heal()
        self.is_down = False
        self.stores = open_postgres_stores(self._url, patience_s=0.01)
        found: Stores = self.stores
        return found

    def close(self) -> None:
        self.stores.close()

    def crash(self) -> None:
        self._proxy.cut_now(stays_away=True)
        self.stores.close()

    def in_the_middle(self, commit: Callable[[], CommitReceipt], share: int) -> None:
        self._proxy.cut_at(1 + MESSAGES_OF_A_COMMIT * share // 100, "after", stays_away=True)
        with suppress(Unavailable):
            commit()


BACKENDS: dict[str, type[Backend]] = {"memory": Backend, "files": Files, "sqlite": Sqlite}
SELDOM = {"postgres": 2}
"""Each crash costs new connections there: it is played one in so many of the histories that have any."""
if has_server():
    BACKENDS["postgres"] = Postgres


class Gateway:
    """One process after the other on one backend."""

    def __init__(self, backend: Backend, in_doubt: Any) -> None:
        self.outside = Outside()
        self.backend = backend.name
        self.crashes = 0
        self._backend = backend
        self._in_doubt = in_doubt
        self._runner: Runner | None = None
        self._spec = WorkflowSpec(WORKFLOW, "read", {"read": self._read})
        self._boot()

    # What a client does. Whoever has no answer asks again.

    def start(self, name: str, program: Any) -> None:
        """Start a run with an id of the client's, so that asking again starts nothing twice."""
        self._until_answered(lambda: self._create(name, program))

    def begin(self, name: str, program: Any) -> dict[tuple[str, str, int], Interruption]:
        """Start a run together with its first steps; return what crashes interrupted until it can go no further."""
        found = self.settle()
        while not self._survives(lambda: self._create(name, program, with_steps=True)):
            for attempt, interruption in self._interrupted().items():
                found.setdefault(attempt, interruption)
        for attempt, interruption in self.settle().items():
            found.setdefault(attempt, interruption)
        return found

    def _create(self, name: str, program: Any, *, with_steps: bool = False) -> None:
        if self.stores.runs.row(name) is not None:
            return
        vars = {"name": name, "program": program, "results": []}
        state = self.runtime.new_run(self._spec, vars, actor_id="gateway", session_id=SESSION)
        state.run_id = name
        if with_steps:
            self.runner.own()
            assert self.runner.create(state)
        else:
            self.runtime.transact(lambda draft: draft.create(state))

    def send(self, command: Command) -> tuple[CommandAppendResult, bool]:
        """Put a command into the inbox; return the receipt, and whether it is that of the first attempt."""
        crashes = self.crashes
        receipt = self._until_answered(lambda: self._append(command))
        return receipt, self.crashes == crashes

    def settle(self) -> dict[tuple[str, str, int], Interruption]:
        """Do what can be done, in as many processes as it takes; return what the crashes interrupted."""
        found: dict[tuple[str, str, int], Interruption] = {}
        while not self._survives(lambda: self.runner.run_until_idle()):
            for attempt, interruption in self._interrupted().items():
                found.setdefault(attempt, interruption)
        return found

    def tick(self, name: str, steps: int) -> dict[tuple[str, str, int], Interruption] | None:
        """Let one run take steps; return what a crash interrupted, if there was one."""
        run_id = self.ids()[name]
        if self._survives(lambda: self.runtime.tick(workflow=self._spec, run_id=run_id, max_steps=steps)):
            return None
        return self._interrupted()

    def restart(self, doom: tuple[str, int] | None = None) -> None:
        """End in good order and begin anew, on a disk that is to fail if `doom` says so."""
        if self._survives(self._shut_down):
            self._boot(doom)

    def end(self) -> None:
        self.outside.doom = Doom()
        self.runner.stop()
        self._backend.stores.close()

    def ids(self) -> dict[str, str]:
        """Return the ids of all runs by their names."""
        rows = self.stores.runs.find(RunQuery(limit=None))
        stored = [self.stores.runs.open(row.run_id) for row in rows if row.workflow_id == WORKFLOW]
        return {found.state.vars["name"]: found.state.run_id for found in stored if found is not None}

    def wait_key(self, name: str) -> str | None:
        """Return the key that an answer to a run may name."""
        stored = self.stores.runs.open(self.ids().get(name, name))
        return stored.state.waiting.wait_key if stored is not None and stored.state.waiting is not None else None

    # Processes come and go.

    def _until_answered(self, ask: Callable[[], Any]) -> Any:
        answers: list[Any] = []
        while not self._survives(lambda: answers.append(ask())):
            continue
        return answers[-1]

    def _survives(self, action: Callable[[], Any]) -> bool:
        """Do something, and say whether the process is still there; if not, another one is by then."""
        try:
            action()
        except (Crash, PowerLoss):
            pass
        except GatewayError:
            if not self._backend.is_down:
                raise
        else:
            if not self._backend.is_down:
                return True
        self.crashes += 1
        self._backend.crash()
        with suppress(Crash, PowerLoss, Unavailable):
            self.runner.stop()
        self._boot()
        return False

    def _shut_down(self) -> None:
        self.runner.stop()
        self._backend.close()

    def _boot(self, doom: tuple[str, int] | None = None) -> None:
        try:
            self.stores = self._backend.open(doom)
        except Crash:
            self.crashes += 1
            self.stores = self._backend.open()
        vars(self.stores).pop("commit", None)
        self._commit = self.stores.commit
        self.stores.commit = self._doomed_commit  # type: ignore[method-assign]
        registry = WorkflowRegistry()
        registry.register(self._spec)
        self.runtime = Runtime(
            stores=self.stores,
            effect_handlers={EffectType.TOOL_CALLS: self._perform},
            workflow_registry=registry,
            effect_policy=RetryPolicy(tool_max_attempts=MAX_ATTEMPTS, backoff_base=10.0),
            in_doubt={EffectType.TOOL_CALLS: self._in_doubt},
            clock=self.outside.clock,
        )
        self.runner = Runner(
            stores=self.stores,
            runtime=self.runtime,
            find_workflow=registry.get_or_raise,
            clock=self.outside.clock,
            inline=True,
        )

    def _doomed_commit(self, commit: Commit) -> CommitReceipt:
        doom = self.outside.doom
        if not doom.strikes("before", "after", "middle"):
            return self._commit(commit)
        if doom.place == "after":
            self._commit(commit)
        elif doom.place == "middle":
            self._backend.in_the_middle(lambda: self._commit(commit), doom.share)
        raise Crash

    def _append(self, command: Command) -> CommandAppendResult:
        run_id = self.ids().get(command.run, command.run)
        return self.stores.commands.append(
            CommandRecord(command.command_id, run_id, command.type, command.payload, AT, "client")
        )

    def _interrupted(self) -> dict[tuple[str, str, int], Interruption]:
        """Return the attempts that have an intent and no outcome in the ledgers."""
        found = {}
        for name, run_id in self.ids().items():
            records = [record for record in self.stores.ledger.list(run_id) if _is_call(record)]
            closed = {_attempt_of(name, record) for record in records if record["status"] != "started"}
            for record in records:
                attempt = _attempt_of(name, record)
                if attempt not in closed:
                    arrived = during(name, _call_of(record["effect"])).command_id
                    has_sent = self.stores.commands.get(arrived) is not None
                    found[attempt] = Interruption(attempt in self.outside.performed, has_sent)
        return found

    # The workflow: it reads its program, one word per step.

    def _read(self, run: RunState, ctx: Any) -> StepPlan:
        vars, program = run.vars, run.vars["program"]
        if "got" in vars:
            vars["results"].append(_told(vars.pop("got")))
        at = vars.get("at", 0)
        if at == len(program):
            return StepPlan("read", complete_output={"results": vars["results"]})
        vars["at"] = at + 1
        kind, *arguments = program[at]
        if kind == "set":
            vars["set"] = arguments[0]
            return StepPlan("read", next_node="read")
        if kind == "raise":
            raise ValueError("as the program says")
        return StepPlan("read", effect=self._effect(run, kind, arguments), next_node="read")

    def _effect(self, run: RunState, kind: str, arguments: list[Any]) -> Effect:
        at = f"{run.vars['name']}.{run.vars['at']}"
        first: Any = arguments[0] if arguments else None
        if kind in ("child", "await", "spawn"):
            payload = {
                "workflow_id": WORKFLOW,
                "vars": {"name": at, "program": first, "results": []},
                "async": kind != "child",
                "wait": kind == "await",
            }
            return Effect(EffectType.START_SUBWORKFLOW, payload, None if kind == "spawn" else "got")
        if kind == "rest":
            until = to_iso(self.outside.clock.now() + timedelta(seconds=first))
            return Effect(EffectType.WAIT_UNTIL, {"until": until})
        if kind == "ask":
            payload = {"prompt": "?", "choices": first, "allow_free_text": not first}
            return Effect(EffectType.ASK_USER, payload, "got")
        return {
            "say": Effect(EffectType.ANSWER_USER, {"message": at}),
            "note": Effect(EffectType.MEMORY_NOTE, {"note": at}),
            "emit": Effect(EffectType.EMIT_EVENT, {"name": first, "session_id": SESSION}),
            "hear": Effect(EffectType.WAIT_EVENT, {"name": run.vars["name"], "session_id": SESSION}, "got"),
            "call": Effect(EffectType.TOOL_CALLS, {"tool_calls": [{"name": "act", "arguments": first}]}, "got"),
        }[kind]

    # The tool: it looks at what is durable when it is performed.

    def _perform(self, run: RunState, effect: Effect, next_node: str | None) -> EffectOutcome:
        """Act on the world; what the gateway promised of the moment of an act is checked here."""
        if self.outside.doom.strikes("calling"):
            raise Crash
        name, call = run.vars["name"], _call_of({"payload": effect.payload})
        intent = self.stores.ledger.list(run.run_id)[-1]
        if not _is_call(intent) or intent["status"] != "started" or _call_of(intent["effect"]) != call:
            self.outside.broken_promises.append(f"{name} performs {call} before the intent is durable")
        attempt = _attempt_of(name, intent)
        if attempt in self.outside.performed:
            self.outside.broken_promises.append(f"{attempt} is performed twice")
        if self.outside.keys.setdefault(attempt[:2], intent["idempotency_key"]) != intent["idempotency_key"]:
            self.outside.broken_promises.append(f"{attempt} has another key than the attempt before it")
        self.outside.performed.append(attempt)
        if call["during"]:
            self._append(during(name, call))
        if self.outside.doom.strikes("called"):
            raise Crash
        if attempt[2] <= call["fails"]:
            return EffectOutcome.failed("as the program says")
        return EffectOutcome.completed({"label": call["label"], "attempt": attempt[2]})


def _is_call(record: Any) -> bool:
    return (record["effect"] or {}).get("type") == "tool_calls"


def _call_of(effect: Any) -> Any:
    return effect["payload"]["tool_calls"][0]["arguments"]


def _attempt_of(name: str, record: Any) -> tuple[str, str, int]:
    return name, _call_of(record["effect"])["label"], record["attempt"]


def _told(got: Any) -> Any:
    """Return what a run was told in the model's form: an event, a child's end, an answer, or a call's result."""
    if "event_id" in got:
        return ["event", got["payload"]]
    if "sub_run_id" in got:
        output = got["output"]
        if output.get("success") is False:
            return ["child", "cancelled" if output.get("cancelled") else "failed", None]
        return ["child", "completed", output["results"]]
    if "response" in got:
        return ["answer", got["response"]]
    return ["call", got["label"], got["attempt"]]

"""What a user of the gateway may rely on, as a plain simulation in memory.

The model knows runs, their waits, the inbox and the mailbox. It knows nothing of commits, revisions, queues, threads
or files, and takes from the product only the form of what is compared. A program is a list of words:

    ["set", value]            change a variable
    ["say"]  ["note"]         a message to the user; a note in the run's memory
    ["call", {label, fails, during}]
                              a tool call whose first `fails` attempts fail; while it is performed the first time, the
                              command `during` (pause or cancel) for the run itself arrives
    ["ask", choices]          a question to a person; with choices, only one of them is an answer
    ["hear"]                  wait for the event that has the run's own name
    ["emit", name]            emit the event of that name
    ["rest", seconds]         wait for a time
    ["child", program]        start a child and wait for it; fails when it fails
    ["await", program]        the same, but its failure is a result
    ["spawn", program]        start a child and go on
    ["raise"]                 raise

A program that comes to its end completes its run with what it was told: answers, events, outputs, results of calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Word = list[Any]
Program = list[Word]
Entry = tuple[str, str | None]

MAX_ATTEMPTS = 3
BACKOFF_S = (10.0, 20.0)
QUIET = {"say": "answer_user", "note": "memory_note"}


@dataclass
class Wait:
    """What a run stands still for; `has_key` where an answer may name it, `takes` where the answer is a result."""

    kind: str
    has_key: bool = True
    takes: bool = True
    due: float | None = None
    child: Run | None = None
    choices: tuple[str, ...] = ()


@dataclass
class Flight:
    """A tool call without outcome; `then` is what has been decided about it."""

    call: dict[str, Any]
    attempt: int
    then: str | None = None


@dataclass
class Run:
    """A run as a user sees it; `ledger` has the status and the effect type of every record."""

    name: str
    program: Program
    parent: Run | None = None
    at: int = 0
    status: str = "running"
    wait: Wait | None = None
    is_paused: bool = False
    flight: Flight | None = None
    results: list[Any] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    children: list[Run] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")

    def tree(self) -> Iterator[Run]:
        """Return the run and everything below it, breadth first."""
        found = [self]
        for run in found:
            yield run
            found += run.children


@dataclass(frozen=True)
class Command:
    command_id: str
    run: str
    type: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Interruption:
    """What is known of an attempt that a crash interrupted: was it performed, and had it sent its command?"""

    was_performed: bool
    has_sent: bool


class Rejected(Exception):
    """A command that changes nothing but its outcome."""


class Model:
    """All runs of a gateway. `in_doubt` is the rule for tool calls that a crash interrupted: retry, ask or fail."""

    def __init__(self, in_doubt: str) -> None:
        self.now = 0.0
        self.runs: dict[str, Run] = {}
        self.inbox: list[Command] = []
        self.outcomes: list[tuple[str, str]] = []
        self.mailbox: dict[str, list[Any]] = {}
        self.performed: list[tuple[str, str, int]] = []
        self.interruptions: dict[tuple[str, str, int], Interruption] = {}
        self._in_doubt = in_doubt
        self._applies_at_once = False

    # What a client does.

    def start(self, name: str, program: Program, parent: Run | None = None) -> Run:
        run = self.runs[name] = Run(name, program, parent)
        return run

    def send(self, command: Command) -> tuple[bool, int]:
        """Put a command into the inbox; return whether it is a duplicate, and its place."""
        for place, known in enumerate(self.inbox, 1):
            if known.command_id == command.command_id:
                return True, place
        self.inbox.append(command)
        return False, len(self.inbox)

    def settle(self) -> None:
        """Do what can be done: first the commands, then every run that can go on, in any order."""
        self._applies_at_once = True
        self._apply_commands()
        while ready := [run for run in self.runs.values() if self._can_go_on(run)]:
            self._wake(ready[0])
            self._step(ready[0])
        self._applies_at_once = False

    def tick(self, name: str, steps: int) -> bool:
        """Let one run take steps, and the child it stands still for; say whether it has ended."""
        run, left = self.runs[name], steps
        while True:
            if left > 0 and self._is_due(run):
                self._wake(run)
            while left > 0 and run.status == "running":
                self._step(run)
                left -= 1
            child = run.wait.child if run.wait is not None and run.wait.kind == "child" else None
            if child is None or left <= 0 or child.has_ended or not self.tick(child.name, left):
                return run.has_ended

    # Commands: each is applied once, in the order of the inbox, and has an outcome.

    def _apply_commands(self) -> None:
        for command in self.inbox[len(self.outcomes) :]:
            try:
                self._apply(command)
                self.outcomes.append((command.command_id, "applied"))
            except Rejected:
                self.outcomes.append((command.command_id, "rejected"))

    def _apply(self, command: Command) -> None:
        if command.type == "emit_event":
            self._emit(command.payload["name"], command.payload["payload"])
            return
        if command.type not in ("pause", "resume", "cancel") or command.run not in self.runs:
            raise Rejected
        run = self.runs[command.run]
        if "payload" in command.payload:
            self._answer_by_hand(run, command.payload)
            return
        change = {"pause": self._pause, "resume": self._unpause, "cancel": self._cancel}[command.type]
        for each in list(run.tree()):
            change(each)

    def _pause(self, run: Run) -> None:
        """A question to a person is a pause already."""
        if run.has_ended or run.is_paused or (run.wait is not None and run.wait.kind in ("ask", "in_doubt")):
            return
        run.is_paused = True
        if run.status == "running":
            self._stand_still(run, Wait("pause"))

    def _unpause(self, run: Run) -> None:
        """What happened meanwhile is caught up with: the end of a child, and one event."""
        if not run.is_paused:
            return
        run.is_paused = False
        if run.wait is not None and run.wait.kind == "pause":
            run.wait, run.status = None, "running"
        if run.wait is not None and run.wait.child is not None and run.wait.child.has_ended:
            self._tell_parent(run.wait.child)
        if run.wait is not None and run.wait.kind == "hear" and self.mailbox.get(run.name):
            self._answer(run, ["event", self.mailbox[run.name].pop(0)])

    def _cancel(self, run: Run) -> None:
        if not run.has_ended:
            self._end(run, "cancelled")

    def _answer_by_hand(self, run: Run, payload: dict[str, Any]) -> None:
        """An answer is refused by a run that is paused, waits for nothing or something else, or offers choices."""
        if run.is_paused or run.wait is None:
            raise Rejected
        if payload.get("wait_key") == "stale" and run.wait.has_key:
            raise Rejected
        response = payload["payload"]["response"]
        if run.wait.choices and response not in run.wait.choices:
            raise Rejected
        if run.flight is not None and run.wait.kind == "in_doubt":
            run.flight.then = "again" if response == "retry" else "give_up"
        self._answer(run, ["answer", response])

    # The steps of a run.

    def _can_go_on(self, run: Run) -> bool:
        return run.status == "running" or self._is_due(run)

    def _is_due(self, run: Run) -> bool:
        return run.wait is not None and run.wait.due is not None and run.wait.due <= self.now and not run.is_paused

    def _wake(self, run: Run) -> None:
        run.wait, run.status = None, "running"

    def _step(self, run: Run) -> None:
        if run.flight is not None:
            self._take_up(run, run.flight)
            return
        if run.at == len(run.program):
            run.ledger.append(("completed", None))
            self._end(run, "completed")
            return
        word, run.at = run.program[run.at], run.at + 1
        if word[0] in QUIET:
            run.ledger += [("started", QUIET[word[0]]), ("completed", QUIET[word[0]])]
            return
        getattr(self, f"_do_{word[0]}")(run, *word[1:])

    def _do_set(self, run: Run, value: Any) -> None:
        """Nothing of it is seen from outside."""

    def _do_raise(self, run: Run) -> None:
        run.ledger.append(("failed", None))
        self._end(run, "failed")

    def _do_call(self, run: Run, call: dict[str, Any]) -> None:
        self._attempt(run, call, 1)

    def _do_ask(self, run: Run, choices: list[str]) -> None:
        self._record(run, "ask_user", "waiting")
        self._stand_still(run, Wait("ask", choices=tuple(choices)))

    def _do_rest(self, run: Run, seconds: float) -> None:
        self._record(run, "wait_until", "waiting")
        self._stand_still(run, Wait("rest", has_key=False, takes=False, due=self.now + seconds))

    def _do_hear(self, run: Run) -> None:
        """An event that came early was kept."""
        if self.mailbox.get(run.name):
            self._record(run, "wait_event", "completed")
            run.results.append(["event", self.mailbox[run.name].pop(0)])
            return
        self._record(run, "wait_event", "waiting")
        self._stand_still(run, Wait("hear"))

    def _do_emit(self, run: Run, name: str) -> None:
        run.ledger.append(("started", "emit_event"))
        self._emit(name, {})
        run.ledger.append(("completed", "emit_event"))

    def _do_child(self, run: Run, program: Program) -> None:
        self._record(run, "start_subworkflow", "waiting")
        self._stand_still(run, Wait("child", child=self._bear(run, program)))

    def _do_await(self, run: Run, program: Program) -> None:
        self._record(run, "start_subworkflow", "waiting")
        self._stand_still(run, Wait("await", child=self._bear(run, program)))

    def _do_spawn(self, run: Run, program: Program) -> None:
        self._record(run, "start_subworkflow", "completed")
        self._bear(run, program)

    def _bear(self, run: Run, program: Program) -> Run:
        run.children.append(self.start(f"{run.name}.{run.at}", program, run))
        return run.children[-1]

    # Tool calls: the intent is recorded, then the call is performed, then its outcome is recorded.

    def _attempt(self, run: Run, call: dict[str, Any], attempt: int) -> None:
        run.ledger.append(("started", "tool_calls"))
        run.flight = Flight(call, attempt)
        name = (run.name, call["label"], attempt)
        interruption = self.interruptions.get(name, Interruption(True, True))
        if interruption.was_performed:
            self.performed.append(name)
        if call["during"] and interruption.has_sent:
            self.send(during(run.name, call))
        if self._applies_at_once:
            self._apply_commands()
        if name not in self.interruptions:
            self._take_outcome(run, call, attempt)

    def _take_outcome(self, run: Run, call: dict[str, Any], attempt: int) -> None:
        """An outcome that comes after the end of its run is recorded and not used; a pause keeps it."""
        failed = attempt <= call["fails"]
        run.ledger.append(("failed" if failed else "completed", "tool_calls"))
        if run.has_ended:
            return
        pause = run.wait
        run.flight, run.wait, run.status = None, None, "running"
        if not failed:
            run.results.append(["call", call["label"], attempt])
        elif attempt >= MAX_ATTEMPTS:
            self._end(run, "failed")
        else:
            run.flight = Flight(call, attempt, "again")
            due = self.now + BACKOFF_S[attempt - 1]
            self._stand_still(run, Wait("retry", has_key=False, takes=False, due=due))
        if pause is not None and run.status == "running":
            self._stand_still(run, pause)

    def _take_up(self, run: Run, flight: Flight) -> None:
        """Try again after a failure; an attempt that a crash interrupted is in doubt, and the rule decides."""
        then = flight.then or self._in_doubt
        if then in ("again", "retry"):
            self._attempt(run, flight.call, flight.attempt + 1)
        elif then == "ask":
            run.ledger.append(("waiting", "tool_calls"))
            flight.then = "asked"
            self._stand_still(run, Wait("in_doubt", takes=False, choices=("retry", "fail")))
        else:
            run.ledger.append(("failed", "tool_calls"))
            self._end(run, "failed")

    # What one run means for others.

    def _record(self, run: Run, effect: str, status: str) -> None:
        run.ledger += [("started", effect), (status, effect)]

    def _stand_still(self, run: Run, wait: Wait) -> None:
        run.wait, run.status = wait, "waiting"

    def _answer(self, run: Run, result: Any) -> None:
        """Let a run go on with what it waited for."""
        assert run.wait is not None
        if run.wait.takes:
            run.results.append(result)
        run.ledger.append(("completed", "resume"))
        run.wait, run.status = None, "running"

    def _emit(self, name: str, payload: Any) -> None:
        listener = self.runs.get(name)
        waits = listener is not None and listener.wait is not None and listener.wait.kind == "hear"
        if listener is not None and waits and not listener.is_paused:
            self._answer(listener, ["event", payload])
        else:
            self.mailbox.setdefault(name, []).append(payload)

    def _end(self, run: Run, status: str) -> None:
        run.status, run.wait, run.flight, run.is_paused = status, None, None, False
        run.ledger.append(("completed", "emit_event"))
        parent = run.parent
        if parent is not None and parent.wait is not None and parent.wait.child is run and not parent.is_paused:
            self._tell_parent(run)

    def _tell_parent(self, child: Run) -> None:
        parent = child.parent
        assert parent is not None and parent.wait is not None
        if parent.wait.kind == "child" and child.status != "completed":
            self._end(parent, "failed")
        else:
            self._answer(parent, ["child", child.status, child.results if child.status == "completed" else None])


def during(run: str, call: dict[str, Any]) -> Command:
    """Return the command that arrives while a call is performed."""
    return Command(f"during-{run}-{call['label']}", run, call["during"], {})

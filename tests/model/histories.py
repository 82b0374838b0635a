"""Random histories: what clients, time and bad luck do to a gateway, and playing it against the model.

A history is data, so that it can be made smaller and printed. Its operations choose among the runs there are by
number; one that makes no sense at its place does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from hypothesis import strategies as st

from tests.model import pictures
from tests.model.model import Command, Model, Program
from tests.model.world import BACKENDS, SELDOM, Doom, Gateway

Operation = tuple[Any, ...]
History = tuple[str, list[Operation]]

NAMES = ("r1", "r2", "r3")
CHILDREN = ("child", "await", "spawn")
RESPONSES = ("yes", "other", "retry", "fail")


def _programs(depth: int, *, min_size: int = 0) -> st.SearchStrategy[Program]:
    calls = st.fixed_dictionaries(
        {"fails": st.sampled_from((0, 0, 0, 1, 2, 3)), "during": st.sampled_from((None, None, None, "pause", "cancel"))}
    )
    words: list[st.SearchStrategy[Any]] = [
        _word("call", calls),
        st.sampled_from((["hear"], ["say"], ["note"], ["ask", []], ["ask", ["yes", "no"]], ["set", 1])).map(list),
        _word("emit", st.sampled_from(NAMES)),
        _word("rest", st.sampled_from((5, 30))),
        st.just(["raise"]),
    ]
    if depth:
        words += [_word(kind, _programs(depth - 1)) for kind in CHILDREN]
    return st.lists(st.one_of(words), min_size=min_size, max_size=4).map(_labelled)


def _word(kind: str, argument: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return argument.map(lambda found: [kind, found])


def _labelled(program: Program) -> Program:
    """Give every call a name of its own; a command that arrives during one concerns no run but its own."""
    spawns = _spawns(program)
    found = []
    for place, word in enumerate(program, 1):
        if word[0] == "call":
            call = {**word[1], "label": f"call{place}"}
            word = ["call", {**call, "during": None} if spawns else call]
        found.append(word)
    return found


_run = st.sampled_from((0, 0, 0, 1, 1, 2, 3, 4, 5))
_starts = st.tuples(st.sampled_from(("start", "begin")), _programs(2, min_size=1))
_answers = st.tuples(st.just("answer"), _run, st.sampled_from(RESPONSES), st.sampled_from(("", "own", "stale")))
_crashes = st.one_of(
    st.tuples(st.just("crash"), st.sampled_from(("before", "after")), st.integers(1, 6)),
    st.tuples(st.just("crash"), st.just("middle"), st.integers(1, 6), st.sampled_from((30, 60, 80, 90, 99))),
    st.tuples(st.just("crash"), st.sampled_from(("calling", "called")), st.integers(1, 2)),
)
_bad_disks = st.tuples(st.just("bad disk"), st.sampled_from(("crash", "torn", "lose", "empty")), st.integers(1, 60))
OPERATIONS = st.one_of(
    _starts,
    st.just(("settle",)),
    _crashes,
    _answers,
    st.tuples(st.just("control"), _run, st.sampled_from(("pause", "pause", "resume", "resume", "cancel", "dance"))),
    st.tuples(st.just("meanwhile"), _run),
    st.tuples(st.just("event"), st.sampled_from(NAMES)),
    st.tuples(st.just("again"), st.integers(0, 9)),
    st.tuples(st.just("tick"), _run, st.integers(0, 4)),
    st.tuples(st.just("later"), st.sampled_from((3, 10, 40))),
    _bad_disks,
    st.just(("restart",)),
)
HISTORIES = st.tuples(
    st.sampled_from(("ask", "retry", "fail")),
    st.tuples(_starts, st.lists(OPERATIONS, min_size=3, max_size=18)).map(lambda found: [found[0], *found[1]]),
)


class Player:
    """Plays a history to a gateway on one backend and to the model, and compares them whenever nothing is under way."""

    def __init__(self, backend: str, directory: Path, in_doubt: str) -> None:
        directory.mkdir()
        self.model = Model(in_doubt)
        self.gateway = Gateway(BACKENDS[backend](directory), in_doubt)
        self.steps = 0
        self._numbers = 0

    def play(self, operations: list[Operation]) -> None:
        try:
            for operation in operations:
                self.steps += 1
                play: Callable[..., None] = getattr(self, f"_{operation[0].replace(' ', '_')}")
                play(*operation[1:])
            self._settle()
            self._restart()
            self._compare()
        finally:
            self.gateway.end()

    def seen(self) -> Iterator[str]:
        """Return what the history led to, once for each time: how runs ended, calls went and commands fared."""
        yield from (f"runs {run.status}" for run in self.model.runs.values())
        yield from (f"commands {status}" for _, status in self.model.outcomes)
        yield from ("calls performed" for _ in self.model.performed)
        for interruption in self.model.interruptions.values():
            yield "calls interrupted after they were performed" if interruption.was_performed else "calls interrupted"
        for run in self.model.runs.values():
            yield from ("events heard" for entry in run.ledger if entry == ("started", "wait_event"))
            yield from ("waits answered" for entry in run.ledger if entry == ("completed", "resume"))
        yield from ("events kept" for kept in self.model.mailbox.values() for _ in kept)

    def _compare(self) -> None:
        broken = self.gateway.outside.broken_promises
        assert not broken, f"on {self.gateway.backend}: {broken}"
        found, foreseen = pictures.of_gateway(self.gateway), pictures.of_model(self.model)
        odd = [f"{name}: {found[name]}, not {foreseen[name]}" for name in found if found[name] != foreseen[name]]
        assert not odd, f"on {self.gateway.backend}: " + "; ".join(odd)

    def _start(self, program: Program) -> None:
        name = f"r{sum('.' not in known for known in self.model.runs) + 1}"
        self.gateway.start(name, program)
        self.model.start(name, program)

    def _begin(self, program: Program) -> None:
        """Start a run as whoever drives it does: its first steps are part of the commit that makes it."""
        name = f"r{sum('.' not in known for known in self.model.runs) + 1}"
        interruptions = self.gateway.begin(name, program)
        self.model.start(name, program)
        self._caught_up(interruptions)
        self._compare()

    def _settle(self) -> None:
        self._caught_up(self.gateway.settle())
        self._compare()

    def _caught_up(self, interruptions: Any) -> None:
        for attempt, interruption in interruptions.items():
            self.model.interruptions.setdefault(attempt, interruption)
        self.model.settle()

    def _tick(self, number: int, steps: int) -> None:
        """Tick a run between two settlings: with nothing in the inbox, so that it is known which came first."""
        self._settle_inbox()
        run = self._named(number)
        if run not in self.model.runs:
            return
        if not self.gateway.outside.doom.is_spent and any(_sends(each.program) for each in self.model.runs.values()):
            return
        interruptions = self.gateway.tick(run, steps)
        if interruptions is None:
            self.model.tick(run, steps)
            self._compare()
        else:
            self._caught_up(interruptions | self.gateway.settle())
            self._compare()

    def _settle_inbox(self) -> None:
        if len(self.model.outcomes) < len(self.model.inbox):
            self._settle()

    def _later(self, seconds: int) -> None:
        self.gateway.outside.clock.move(seconds)
        self.model.now += seconds

    def _restart(self) -> None:
        self.gateway.restart()

    def _bad_disk(self, mode: str, operations: int) -> None:
        """Begin anew on a disk that will fail; where there is no such disk, a commit will be torn."""
        self.gateway.restart((mode, operations))
        if self.gateway.backend != "files":
            self.gateway.outside.doom = Doom("middle", 1 + operations // 5)

    def _crash(self, place: str, count: int, share: int = 0) -> None:
        self.gateway.outside.doom = Doom(place, count, share)

    # Commands.

    def _control(self, number: int, type: str) -> None:
        self._send(self._named(number), type, {})

    def _answer(self, number: int, response: str, key: str) -> None:
        run = self._waiting("ask", "in_doubt", number=number)
        payload: dict[str, Any] = {"payload": {"response": response}}
        if key == "stale":
            payload["wait_key"] = "stale"
        elif key == "own" and self.gateway.wait_key(run):
            payload["wait_key"] = self.gateway.wait_key(run)
        self._send(run, "resume", payload)

    def _meanwhile(self, number: int) -> None:
        """Let what a run waits for come while it is paused: its event, and the end of its children."""
        run = self._waiting("hear", "child", "await", number=number)
        self._send(run, "pause", {})
        self._event(run)
        for child in self.model.runs[run].children if run in self.model.runs else ():
            self._send(child.name, "cancel", {})
        self._settle()
        self._send(run, "resume", {})

    def _event(self, name: str) -> None:
        payload = {"name": name, "scope": "session", "session_id": "s", "payload": {"n": self._numbers}}
        self._send(name, "emit_event", payload)

    def _again(self, number: int) -> None:
        """Send a command a second time, as a client does that lost the answer."""
        own = [command for command in self.model.inbox if command.command_id.startswith("c")]
        if own:
            self._compare_receipt(own[number % len(own)])

    def _send(self, run: str, type: str, payload: dict[str, Any]) -> None:
        self._numbers += 1
        self._compare_receipt(Command(f"c{self._numbers}", run, type, payload))

    def _compare_receipt(self, command: Command) -> None:
        receipt, is_first = self.gateway.send(command)
        is_duplicate, place = self.model.send(command)
        assert receipt.seq == place
        assert receipt.accepted != receipt.duplicate
        assert receipt.duplicate == is_duplicate or (receipt.duplicate and not is_first)

    def _named(self, number: int) -> str:
        """Return the name of a run; now and then of one that there is not."""
        return self._chosen(sorted(self.model.runs), number)

    def _waiting(self, *kinds: str, number: int) -> str:
        """Return the name of a run that waits for something of a kind; of any run where none does."""
        runs = self.model.runs.values()
        names = sorted(run.name for run in runs if run.wait is not None and run.wait.kind in kinds)
        return self._chosen(names, number) if names else self._named(number)

    def _chosen(self, names: list[str], number: int) -> str:
        return names[number % len(names)] if names and number < 5 else "nobody"


def _spawns(program: Program) -> bool:
    """Say whether a program or one of its children starts a child and goes on."""
    return any(word[0] == "spawn" or (word[0] in CHILDREN and _spawns(word[1])) for word in program)


def _sends(program: Program) -> bool:
    """Say whether a command arrives during one of the calls of a program or of its children."""
    return any(word[1]["during"] if word[0] == "call" else word[0] in CHILDREN and _sends(word[1]) for word in program)


def _is_among(operations: list[Operation], one_in: int) -> bool:
    """Say whether a history with crashes is one of so many, always the same ones."""
    has_crash = any(operation[0] == "crash" for operation in operations)
    return has_crash and crc32(repr(operations).encode()) % one_in == 0


def play(history: History, directory: Path, tally: Counter[str] | None = None) -> None:
    """Play a history on every backend."""
    in_doubt, operations = history
    for backend in BACKENDS:
        if backend in SELDOM and not _is_among(operations, SELDOM[backend]):
            continue
        player = Player(backend, directory / backend, in_doubt)
        player.play(operations)
        if tally is not None:
            tally[f"{backend} histories"] += 1
            tally[f"{backend} steps"] += player.steps
            tally[f"{backend} crashes"] += player.gateway.crashes
            tally.update(f"seen {what}" for what in player.seen())

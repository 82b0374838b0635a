"""Kill one of the two processes of a split gateway in the middle of its work, again and again, and see what is lost.

A round starts runs and answers their questions while both processes are up, kills one of them with SIGKILL at a moment
of chance, starts it anew, and goes on. At the end every acknowledged run is followed to its end, and every command is
looked up: each one applied once. The time from sending a command until the record of its application can be read is
measured in rounds where nothing is killed.
"""

from __future__ import annotations

import queue
import random
import signal
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores import open_file_stores, open_sqlite_stores
from tests.cli.kill_loop import GONE
from tests.cli.processes import PATIENCE_S, Client, Process, environment, port_of, question_in

MOST_WAIT_S = 0.6
"""Up to so many seconds of work come before a kill."""
MOST_UNANSWERED = 20
"""With so many runs that ask, the client that starts them waits for the one that answers."""


@dataclass
class SplitWork:
    """What was acknowledged, who was killed how often, and how long commands took, in seconds."""

    runs: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    kills: dict[str, int] = field(default_factory=lambda: {"api": 0, "runner": 0})
    latencies: list[float] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """Return the latency, in milliseconds, that this part of the commands did not exceed."""
        in_order = sorted(self.latencies)
        return 1000 * in_order[min(int(part * len(in_order)), len(in_order) - 1)]


class _Split:
    """Both processes, each of which can be killed and started anew; the API keeps its port."""

    def __init__(self, env: dict[str, str]) -> None:
        self.port = _free_port()
        self._env = env
        self._processes: dict[str, Process] = {}

    def __enter__(self) -> _Split:
        try:
            for name in ("api", "runner"):
                self.start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.__exit__()

    def start(self, name: str) -> None:
        command = ["serve", "--no-runner", "--port", str(self.port)] if name == "api" else ["runner"]
        process = self._processes[name] = Process("-m", "abstractgateway", *command, env=self._env)
        if name == "api":
            assert port_of(process) == self.port
        else:
            process.wait_for_line("drives the runs")

    def kill(self, name: str) -> None:
        self._processes[name].end(signal.SIGKILL)
        self._processes[name].__exit__()

    def end(self) -> list[int]:
        return [process.end() for process in self._processes.values()]


def run_split_rounds(
    directory: Path, backend: str, rounds: int, *, seed: int = 0, commands_measured: int = 40
) -> SplitWork:
    """Kill one of the two processes `rounds` times; return what was acknowledged after all of it has been found again.

    Raises `AssertionError` naming the run or command that was lost or went wrong.
    """
    chance = random.Random(seed)
    done = SplitWork()
    env = environment(directory / "data", backend)
    with _Split(env) as split:
        for _ in range(commands_measured):
            done.latencies.append(_timed_command(split.port, done))
        with _Clients(split.port, done) as clients:
            for _ in range(rounds):
                clients.work_for(chance.uniform(0.05, MOST_WAIT_S))
                name = chance.choice(("api", "runner"))
                split.kill(name)
                done.kills[name] += 1
                split.start(name)
        client = Client(split.port)
        for run_id in done.runs:
            _to_the_end(client, run_id, done)
        assert split.end() == [0, 0]
    _look_up(directory / "data", backend, done)
    return done


class _Clients:
    """One client that starts runs and one that answers them; both outlive a server that goes away."""

    def __init__(self, port: int, done: SplitWork) -> None:
        self._client = Client(port)
        self._done = done
        self._begun: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._progress = threading.Condition()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._start_runs, self._answer)]

    def __enter__(self) -> _Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._begun.put(None)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def work_for(self, seconds: float) -> None:
        """Return after one more command was acknowledged and some time has passed."""
        before = len(self._done.commands)
        with self._progress:
            assert self._progress.wait_for(lambda: len(self._done.commands) > before, PATIENCE_S), "no progress"
        self._over.wait(seconds)

    def _start_runs(self) -> None:
        while not self._over.is_set():
            key = uuid.uuid4().hex
            run_id = self._until_answered(lambda key=key: self._client.start(bundle_id="ask", idempotency_key=key))
            if run_id is not None and run_id not in self._done.runs:
                self._done.runs.append(run_id)
                self._begun.put(run_id)
            self._over.wait(0.01 if self._begun.qsize() < MOST_UNANSWERED else 0.2)

    def _answer(self) -> None:
        while not self._over.is_set():
            run_id = self._begun.get()
            if run_id is not None:
                self._until_answered(lambda run_id=run_id: _to_the_end(self._client, run_id, self._done))
                with self._progress:
                    self._progress.notify_all()

    def _until_answered(self, ask: Any) -> Any:
        """Ask again with the same key while the server is away."""
        while not self._over.is_set():
            try:
                return ask()
            except GONE:
                self._over.wait(0.02)
        return None


def _timed_command(port: int, done: SplitWork) -> float:
    """Start a run, answer its question, and return how long the answer's record took to arrive."""
    client = Client(port)
    run_id = client.start(bundle_id="ask")
    done.runs.append(run_id)
    cursor, key = client.question(run_id)
    records = client.follow(run_id, after=cursor)
    opened = threading.Event()
    arrived: list[float] = []

    def read() -> None:
        opened.set()
        for _ in records:
            arrived.append(time.monotonic())
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    opened.wait(PATIENCE_S)
    sent = time.monotonic()
    client.answer(run_id, key, "Bob", f"{run_id}:{cursor}")
    reader.join(PATIENCE_S)
    done.commands.append(f"{run_id}:{cursor}")
    assert arrived, f"nothing came of a command to run {run_id}"
    return arrived[0] - sent


def _to_the_end(client: Client, run_id: str, done: SplitWork) -> None:
    """Follow a run and answer what it asks until it has ended; a command is sent anew under its id."""
    while True:
        for cursor, record in client.follow(run_id):
            key = question_in(record)
            if key is not None:
                command_id = f"{run_id}:{cursor}"
                client.answer(run_id, key, "Bob", command_id)
                if command_id not in done.commands:
                    done.commands.append(command_id)
        if client.run(run_id)["status"] in ("completed", "failed", "cancelled"):
            return


def _look_up(data_dir: Path, backend: str, done: SplitWork) -> None:
    stores = open_sqlite_stores(data_dir) if backend == "sqlite" else open_file_stores(data_dir)
    try:
        for run_id in done.runs:
            stored = stores.runs.open(run_id)
            assert stored is not None, f"run {run_id} was acknowledged and is gone"
            assert stored.state.status.value == "completed", f"run {run_id} is {stored.state.status}"
            records = stores.ledger.list(run_id)
            assert verify_chain(records).ok, f"the ledger of run {run_id} is broken"
            answers = sum((record["effect"] or {}).get("type") == "resume" for record in records)
            assert answers == 1, f"run {run_id} got {answers} answers"
        for command_id in done.commands:
            outcome = stores.commands.outcome(command_id)
            assert outcome is not None, f"command {command_id} was acknowledged and has no outcome"
            assert outcome.status == "applied", f"command {command_id} was {outcome.status}: {outcome.reason}"
    finally:
        stores.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

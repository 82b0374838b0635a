"""Disturb a fleet on one PostgreSQL server, again and again, and see that it loses nothing and does nothing twice.

Three runners and two API processes share a database, each through a network of its own that can be cut. A round does
one bad thing to one of them, or to the server, while clients start runs, answer their questions and make schedules. At
the end every acknowledged run is followed to its end, every command is looked up, the executions of every schedule are
counted, and what the effects wrote outside is compared with what the ledgers say.
"""

from __future__ import annotations

import http.client
import json
import queue
import random
import signal
import socket
import threading
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores.base import RunQuery, Stores
from tests.cli.kill_loop import GONE, MODEL_CALLS, Effects, _compare_effects, _node, write_bundle
from tests.cli.processes import PATIENCE_S, Client, Process, environment, question_in
from tests.postgres.networks import Namespace, Proxied
from tests.postgres.pair import Pair
from tests.postgres.server import Server

RUNNER = str(Path(__file__).with_name("scripted_runner.py"))
LEASE_S = 2.0
SETTLE_S = 120.0
"""How long what was acknowledged may take to come to its end once nothing is disturbed any more."""


class Away(OSError):
    """The gateway said that it cannot just now."""


class PatientClient(Client):
    """A client that is told of 503 by `Away`, and names its requests, so that it may repeat them."""

    def __init__(self, place: tuple[str, int]) -> None:
        super().__init__(place[1])
        self.host = place[0]

    def call(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        headers = {**self._headers, **({"Idempotency-Key": key} if key is not None else {})}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            content = json.dumps(body) if body is not None else None
            connection.request("POST" if body is not None else "GET", path, content, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status == 503:
            raise Away(str(answer))
        assert response.status == 200, answer
        return answer

    def follow(self, run_id: str, after: int = 0) -> Iterator[tuple[int, Any]]:
        try:
            yield from super().follow(run_id, after)
        except AssertionError as error:
            raise Away("no stream") from error


@dataclass
class FleetWork:
    """What was acknowledged, what was done to the fleet how often, and how long streams and commands took, in s."""

    runs: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    schedules: dict[str, int] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    late: int = 0
    effects: Effects = Effects()

    def percentile(self, part: float) -> float:
        """Return the latency, in milliseconds, that this part of the answers did not exceed."""
        in_order = sorted(self.latencies)
        return 1000 * in_order[min(int(part * len(in_order)), len(in_order) - 1)]


class Fleet:
    """The processes by name, and the network of each, with `in_namespaces` one of Linux; `apis` is where those are."""

    def __init__(
        self,
        directory: Path,
        server: Server | Pair,
        *,
        runners: int = 3,
        apis: int = 2,
        in_namespaces: bool = False,
    ) -> None:
        self.server = server
        self.url = server.new_database()
        self._directory = directory
        self.outside = directory / "outside.txt"
        self.outside.touch()
        (directory / "flows").mkdir(parents=True)
        write_bundle(directory / "flows" / "busy.flow")
        write_tick(directory / "flows" / "tick.flow")
        self.runners = [f"runner{number}" for number in range(runners)]
        names = (*self.runners, *(f"api{number}" for number in range(apis)))
        self.networks: dict[str, Namespace | Proxied] = {
            name: Namespace(number, server.ports) if in_namespaces else Proxied(server.ports)
            for number, name in enumerate(names, 1)
        }
        self.apis = {name: (self.networks[name].address, _free_port()) for name in names[runners:]}
        self.processes: dict[str, Process] = {}

    def __enter__(self) -> Fleet:
        try:
            for name in (*self.runners, *self.apis):
                self.begin(name)
            for name in (*self.runners, *self.apis):
                self.wait_for(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.__exit__()
        for network in self.networks.values():
            network.close()

    def start(self, name: str) -> None:
        """Start a process and wait until it is ready."""
        self.begin(name)
        self.wait_for(name)

    def wait_for(self, name: str) -> None:
        process = self.processes[name]
        process.wait_for_line(r"on http://" if name in self.apis else "drives")

    def begin(self, name: str) -> None:
        network = self.networks[name]
        places = ",".join(f"{network.host}:{port}" for port in network.ports)
        env = environment(
            self._directory / name,
            "postgres",
            FLOWS_DIR=self._directory / "flows",
            DATABASE_URL=f"postgresql://postgres@{places}/{self.url.rpartition('/')[2]}",
            LEASE_S=LEASE_S,
            PROVIDER="scripted",
            MODEL="scripted",
        )
        env["OUTSIDE"] = str(self.outside)
        if name in self.apis:
            host, port = self.apis[name]
            command = ["-m", "abstractgateway", "serve", "--no-runner", "--host", host, "--port", str(port)]
        else:
            command = [RUNNER]
        self.processes[name] = Process(*command, env=env, prefix=network.prefix)

    def end(self, name: str, number: int) -> int:
        """End a process with a signal and return its exit code."""
        process = self.processes[name]
        code = process.end(number)
        process.__exit__()
        return code


class Chaos:
    """The bad things that may happen, each over when it returns."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self._fleet = fleet
        self._chance = chance
        self.faults: dict[str, Callable[[], None]] = {
            "runner killed": self._kill_runner,
            "runner stopped beyond its lease": self._stall_runner,
            "runner cut off": lambda: self._cut_off(self._a_runner(), (0.5, 2.5)),
            "runner left in order": self._end_runner,
            "api killed": self._kill_api,
            "api cut off": lambda: self._cut_off(chance.choice(list(fleet.apis)), (0.2, 1.0)),
            "server restarted": self._restart_server,
        }
        if isinstance(fleet.server, Pair):
            self.faults["primary killed, its replica took over"] = self._fail_over

    def _a_runner(self) -> str:
        return self._chance.choice(self._fleet.runners)

    def _kill_runner(self) -> None:
        name = self._a_runner()
        self._fleet.end(name, signal.SIGKILL)
        self._fleet.start(name)

    def _stall_runner(self) -> None:
        process = self._fleet.processes[self._a_runner()]
        process.send(signal.SIGSTOP)
        time.sleep(self._chance.uniform(1.5, 3.0) * LEASE_S)
        process.send(signal.SIGCONT)

    def _end_runner(self) -> None:
        name = self._a_runner()
        code = self._fleet.end(name, signal.SIGTERM)
        assert code == 0, self._fleet.processes[name].output
        self._fleet.start(name)

    def _kill_api(self) -> None:
        name = self._chance.choice(list(self._fleet.apis))
        self._fleet.end(name, signal.SIGKILL)
        self._fleet.start(name)

    def _cut_off(self, name: str, leases: tuple[float, float]) -> None:
        self._fleet.networks[name].cut()
        time.sleep(self._chance.uniform(*leases) * LEASE_S)
        self._fleet.networks[name].heal()

    def _fail_over(self) -> None:
        assert isinstance(self._fleet.server, Pair)
        self._fleet.server.fail_over()
        time.sleep(self._chance.uniform(0.0, 1.0) * LEASE_S)
        self._fleet.server.restore()

    def _restart_server(self) -> None:
        if self._chance.random() < 0.5:
            self._fleet.server.restart()
        else:
            self._fleet.server.kill()
            self._fleet.server.start()


class Clients:
    """Clients that start runs at one API, answer them at the other, and make schedules; all outlive what happens."""

    def __init__(self, fleet: Fleet, done: FleetWork) -> None:
        first, second = list(fleet.apis.values())[:2]
        self._starting, self._answering = PatientClient(first), PatientClient(second)
        self._done = done
        self._begun: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._progress = threading.Condition()
        works = (self._start_runs, self._answer, self._answer, self._schedule)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for _ in self._threads:
            self._begun.put(None)
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive()

    def work_for(self, commands: int, seconds: float) -> None:
        """Return after some more commands were acknowledged, and some time has passed."""
        wanted = len(self._done.commands) + commands
        with self._progress:
            assert self._progress.wait_for(lambda: len(self._done.commands) >= wanted, SETTLE_S), "no progress"
        self._over.wait(seconds)

    def _start_runs(self) -> None:
        while not self._over.is_set():
            key = f"{uuid.uuid4().hex} é"
            inputs = {"key": key, "calls": [{"name": "post", "arguments": {"key": key}}]}
            self._start_one(key, inputs)
            self._over.wait(0.05)

    def _start_one(self, key: str, inputs: dict[str, Any]) -> None:
        given = {"bundle_id": "busy", "input_data": inputs}
        made = self._until_answered(lambda: self._starting.call("/api/gateway/runs/start", given, key=key[:32]))
        run_id = made["run_id"] if made is not None else None
        if run_id is not None and run_id not in self._done.runs:
            self._done.runs.append(run_id)
            self._begun.put(run_id)

    def _answer(self) -> None:
        while not self._over.is_set():
            run_id = self._begun.get()
            if run_id is not None:
                self._until_answered(lambda run_id=run_id: to_the_end(self._answering, run_id, self._done, self._over))
                with self._progress:
                    self._progress.notify_all()

    def _schedule(self) -> None:
        while not self._over.is_set():
            soon = datetime.now(timezone.utc) + timedelta(seconds=random.uniform(0.2, 2.0))
            times = random.choice([{}, {"interval": "0.7s", "repeat_count": 3}])
            key = f"{uuid.uuid4().hex} é"
            given = {
                "bundle_id": "tick",
                "flow_id": "tick",
                "start_at": soon.isoformat(),
                "input_data": {"key": key},
                **times,
            }
            made = self._until_answered(lambda given=given, key=key: self._schedule_once(given, key))
            if made is not None:
                self._done.schedules[made["run_id"]] = int(times.get("repeat_count", 1))
            self._over.wait(0.5)

    def _schedule_once(self, given: dict[str, Any], key: str) -> Any:
        return self._starting.call("/api/gateway/runs/schedule", given, key=key[:32])

    def _until_answered(self, ask: Any) -> Any:
        """Ask again, with the same key, while the gateway is away."""
        while not self._over.is_set():
            try:
                return ask()
            except GONE:
                self._over.wait(0.05)
        return None


def to_the_end(client: Client, run_id: str, done: FleetWork, over: threading.Event | None = None) -> None:
    """Follow a run and answer what it asks until it has ended; a command is sent anew under its id."""
    after = 0
    while over is None or not over.is_set():
        for cursor, record in client.follow(run_id, after):
            assert cursor == after + 1, f"run {run_id}: record {cursor} came after {after}"
            after = cursor
            key = question_in(record)
            if key is not None:
                command_id = f"{run_id}:{cursor}"
                client.answer(run_id, key, "retry" if key.startswith("in_doubt:") else "Bob", command_id)
                if command_id not in done.commands:
                    done.commands.append(command_id)
        if client.run(run_id)["status"] in ("completed", "failed", "cancelled"):
            return


def run_fleet(
    directory: Path,
    server: Server | Pair,
    rounds: int,
    *,
    seed: int = 0,
    faults: tuple[str, ...] = (),
    commands_measured: int = 0,
    in_namespaces: bool = False,
    on_round: Callable[[str], None] = lambda name: None,
) -> FleetWork:
    """Disturb a fleet `rounds` times, and return what was acknowledged after all of it has been found again.

    The faults are the named ones, by default all, one after the other. Before, some commands are sent to one API whose
    records are read from another, while nothing is disturbed.

    Raises `AssertionError` naming what was lost, went wrong or was done twice.
    """
    chance = random.Random(seed)
    done = FleetWork()
    with Fleet(directory, server, in_namespaces=in_namespaces) as fleet:
        chaos = Chaos(fleet, chance)
        names = faults or tuple(chaos.faults)
        for _ in range(commands_measured):
            done.latencies.append(_timed_command(fleet, done))
        with Clients(fleet, done) as clients:
            for number in range(rounds):
                clients.work_for(1, chance.uniform(0.05, 0.5))
                name = names[number % len(names)]
                on_round(name)
                chaos.faults[name]()
                done.faults[name] += 1
        _settle(fleet, done)
        codes = {name: fleet.end(name, signal.SIGTERM) for name in list(fleet.processes)}
        assert set(codes.values()) == {0}, codes
        look_up(fleet, done)
    return done


def _timed_command(fleet: Fleet, done: FleetWork) -> float:
    """Answer a run's question at one API, and return after how many seconds another one streamed its record."""
    here, there = (PatientClient(port) for port in list(fleet.apis.values())[:2])
    key = f"{uuid.uuid4().hex} é"
    inputs = {"key": key, "calls": [{"name": "post", "arguments": {"key": key}}]}
    run_id = here.start(bundle_id="busy", input_data=inputs)
    done.runs.append(run_id)
    records = there.follow(run_id)
    cursor, wait_key = next((cursor, found) for cursor, record in records if (found := question_in(record)) is not None)
    sent = time.monotonic()
    here.answer(run_id, wait_key, "Bob", f"{run_id}:{cursor}")
    next(records)
    took = time.monotonic() - sent
    done.commands.append(f"{run_id}:{cursor}")
    return took


def _settle(fleet: Fleet, done: FleetWork) -> None:
    """Bring all runs to their end, also those whose acknowledgement was lost."""
    from abstractgateway_postgres import open_postgres_stores

    client = PatientClient(next(iter(fleet.apis.values())))
    until = time.monotonic() + SETTLE_S
    with closing(open_postgres_stores(fleet.url)) as stores:
        known = {row.run_id: row.status.is_terminal for row in stores.runs.find(RunQuery(root_only=True, limit=None))}
    lost = {*done.runs, *done.schedules} - {*known}
    assert not lost, f"acknowledged and gone: {lost}"
    for run_id in (run_id for run_id, has_ended in known.items() if not has_ended):
        while True:
            try:
                to_the_end(client, run_id, done)
                break
            except GONE:
                assert time.monotonic() < until, f"run {run_id} did not come to its end"
                time.sleep(0.2)


def look_up(fleet: Fleet, done: FleetWork) -> None:
    """Compare the database with what was acknowledged."""
    from abstractgateway_postgres import open_postgres_stores

    with closing(open_postgres_stores(fleet.url)) as stores:
        for run_id in done.runs:
            done.late += check_run(stores, run_id)
        for command_id in done.commands:
            outcome = stores.commands.outcome(command_id)
            assert outcome is not None, f"command {command_id} was acknowledged and has no outcome"
            assert outcome.status == "applied", f"command {command_id} was {outcome.status}: {outcome.reason}"
        for run_id, times in done.schedules.items():
            _check_schedule(stores, run_id, times)
        done.effects = _compare_effects(stores, fleet.outside.read_text().splitlines())


def check_run(stores: Stores, run_id: str) -> int:
    """Check one run, and return how many outcomes came too late because its runner had stood still."""
    stored = stores.runs.open(run_id)
    assert stored is not None, f"run {run_id} was acknowledged and is gone"
    assert stored.state.status.value == "completed", f"run {run_id} is {stored.state.status}: {stored.state.error}"
    assert stored.state.output == {"said": "Bob", "success": True}, f"run {run_id}: {stored.state.output}"
    records = stores.ledger.list(run_id)
    assert verify_chain(records).ok, f"the ledger of run {run_id} is broken"
    ended = [record for record in records if record["status"] == "completed" and record["effect"]]
    used = Counter(record["effect"]["type"] for record in ended if not (record["result"] or {}).get("discarded"))
    asked = sum(question_in(record) is not None for record in records)
    assert used["llm_call"] == MODEL_CALLS, f"run {run_id} used {used['llm_call']} answers of its model"
    assert used["tool_calls"] == 1, f"run {run_id} used {used['tool_calls']} results of its tool"
    assert used["resume"] == asked, f"run {run_id} asked {asked} times and got {used['resume']} answers"
    return len(ended) - used.total()


def _check_schedule(stores: Stores, run_id: str, times: int) -> None:
    executions = stores.runs.find(RunQuery(parent_run_id=run_id, limit=None))
    states = Counter(row.status.value for row in executions)
    assert states == {"completed": times}, f"schedule {run_id} was to run {times} times: {dict(states)}"


def write_tick(path: Path) -> None:
    """Write a bundle whose runs say something and end; schedules start it."""
    nodes = [
        _node("start", "on_flow_start", "", ">exec-out key"),
        _node("say", "answer_user", ">exec-in message", ">exec-out", {"message": "tick"}),
        _node("end", "on_flow_end", ">exec-in", ""),
    ]
    edges = [("start", "exec-out", "say", "exec-in"), ("say", "exec-out", "end", "exec-in")]
    names = ("source", "sourceHandle", "target", "targetHandle")
    drawing = {
        "id": "tick",
        "name": "tick",
        "nodes": nodes,
        "edges": [dict(zip(names, edge, strict=True)) for edge in edges],
    }
    manifest = {
        "bundle_format_version": "1",
        "bundle_id": "tick",
        "bundle_version": "1.0.0",
        "created_at": "2026-01-01T00:00:00+00:00",
        "entrypoints": [{"flow_id": "tick", "name": "tick", "description": "", "interfaces": []}],
        "flows": {"tick": "flows/tick.json"},
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("flows/tick.json", json.dumps(drawing))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

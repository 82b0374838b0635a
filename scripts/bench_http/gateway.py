"""The gateways that are measured: which interpreter has them, where they keep their data, and their processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import processes
from .wire import Refused, Wire

TOKEN = "bench-" + "t" * 32
PROGRAMS = Path(__file__).resolve().parent.parent / "bench_subjects"
# What both may be asked to hold at once, and what one client may, is not what is measured.
_ROOM = {
    "ABSTRACTGATEWAY_MAX_SSE": "20000",
    "ABSTRACTGATEWAY_MAX_CLIENT_SSE": "0",
    "ABSTRACTGATEWAY_MAX_CLIENT_CONNECTIONS": "0",
}
_RUNS = "/api/gateway/runs"


@dataclass(frozen=True)
class Subject:
    """A gateway as it is installed: its interpreter, the module that serves it, the program that fills its stores."""

    name: str
    python: Path
    app: str
    filler: str

    @contextlib.contextmanager
    def fresh_site(self, backend: str, flows: Path) -> Iterator[Site]:
        """Return an empty data directory for as long as the block lasts."""
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            yield Site(self, backend, flows, Path(directory) / "data")

    def program(self, script: str, *arguments: str) -> Any:
        """Run a program with the subject's interpreter and return the JSON it prints last."""
        command = [str(self.python), str(PROGRAMS / script), *arguments]
        ended = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300)
        if ended.returncode != 0:
            raise SystemExit(f"{self.name}: {script} failed:\n{ended.stderr[-2000:]}")
        return json.loads(ended.stdout.strip().splitlines()[-1])


@dataclass(frozen=True)
class Site:
    """A data directory of a subject, on which its gateway can be started again and again."""

    subject: Subject
    backend: str
    flows: Path
    data_dir: Path

    @property
    def errors(self) -> Path:
        """What its processes say on standard error."""
        return self.data_dir.with_name("errors.log")

    @property
    def name(self) -> str:
        return f"{self.subject.name}, {self.backend}"

    def copy_run(self, run_id: str, copies: int) -> list[str]:
        """Add copies of a run, written through the subject's own stores while no gateway is running."""
        return [str(copy) for copy in self._fill("runs", run_id, copies)]

    def lengthen_ledger(self, run_id: str, records: int) -> None:
        """Repeat the last record of a run until its ledger has so many."""
        self._fill("records", run_id, records)

    def _fill(self, what: str, run_id: str, count: int) -> Any:
        return self.subject.program(self.subject.filler, self.backend, str(self.data_dir), what, run_id, str(count))

    @contextlib.contextmanager
    def served(self, *roles: str) -> Iterator[Gateway]:
        """Run the gateway for as long as the block lasts, once it answers.

        `roles` are further processes on the same data directory, such as `runner`; the API then drives no runs.
        """
        port = processes.free_port()
        api = ["serve", "--host", "127.0.0.1", "--port", str(port), *(["--no-runner"] if roles else [])]
        with contextlib.ExitStack() as stack:
            begin = time.perf_counter()
            started = [stack.enter_context(self._process(*words)) for words in (api, *([role] for role in roles))]
            gateway = Gateway(self.name, started, port)
            self._wait_until_healthy(gateway)
            gateway.started_s = time.perf_counter() - begin
            yield gateway

    def _wait_until_healthy(self, gateway: Gateway) -> None:
        try:
            gateway.insist(lambda: gateway.wire.call("/api/health"))
        except OSError as error:
            said = self.errors.read_text().strip().splitlines()
            raise ConnectionError(f"it does not start: {said[-1] if said else error}") from error

    @contextlib.contextmanager
    def starting(self) -> Iterator[Gateway]:
        """Run the gateway for as long as the block lasts, without waiting for its first answer."""
        port = processes.free_port()
        with self._process("serve", "--host", "127.0.0.1", "--port", str(port)) as process:
            yield Gateway(self.name, [process], port)

    @contextlib.contextmanager
    def _process(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        settings = {
            **_ROOM,
            "ABSTRACTGATEWAY_FLOWS_DIR": str(self.flows),
            "ABSTRACTGATEWAY_DATA_DIR": str(self.data_dir),
            "ABSTRACTGATEWAY_STORE_BACKEND": self.backend,
            "ABSTRACTGATEWAY_AUTH_TOKEN": TOKEN,
        }
        command = [str(self.subject.python), "-m", "abstractgateway", *words]
        with self.errors.open("ab") as errors:
            process = subprocess.Popen(
                command,
                env={**_environment(), **settings},
                cwd=self.errors.parent,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:  # some wait for their streams to end
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("ABSTRACT", "PYTHON"))}


class Gateway:
    """A gateway that is running, and how to talk to it over one connection."""

    def __init__(self, name: str, started: Sequence[subprocess.Popen[Any]], port: int) -> None:
        self.name = name
        self.port = port
        self.started_s = 0.0
        self.wire = Wire(port, TOKEN)
        self._processes = started

    def connected_anew(self) -> Gateway:
        """Return the same gateway with a connection of its own, for another thread."""
        return Gateway(self.name, self._processes, self.port)

    def is_alive(self) -> bool:
        return all(process.poll() is None for process in self._processes)

    def cpu_s(self) -> float:
        return sum(processes.cpu_s(process.pid) for process in self._processes)

    def cpu_percent(self, seconds: float) -> float:
        """Return how much of one processor it uses for so long from now on."""
        used, begin = self.cpu_s(), time.monotonic()
        time.sleep(seconds)
        return 100 * (self.cpu_s() - used) / (time.monotonic() - begin)

    def resident_mb(self) -> float:
        return sum(processes.resident_mb(process.pid) for process in self._processes)

    def signal(self, number: int) -> None:
        """Send a signal to its processes."""
        for process in self._processes:
            process.send_signal(number)

    def insist(self, action: Callable[[], object], at_most_s: float = 60.0) -> None:
        """Do something that fails as long as the gateway is not up. Raises `OSError` when it does not come up."""
        deadline = time.monotonic() + at_most_s
        while True:
            try:
                action()
                return
            except (OSError, Refused):
                if not self.is_alive() or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def start(self, bundle: str, **data: Any) -> str:
        """Start a run and return its id."""
        return str(self.wire.json(f"{_RUNS}/start", start_of(bundle, **data))["run_id"])

    def status(self, run_id: str) -> str:
        return str(self.wire.json(f"{_RUNS}/{run_id}")["status"])

    def wait(self, run_id: str, *statuses: str, pause_s: float = 0.0, at_most_s: float = 120.0) -> str:
        """Wait until a run has one of the statuses, or, without any, has ended; return the status it has then."""
        deadline = time.monotonic() + at_most_s
        wanted = statuses or ("completed", "failed", "cancelled")
        while (status := self.status(run_id)) not in wanted and time.monotonic() < deadline:
            time.sleep(pause_s)
        return status

    def ask(self, bundle: str, **data: Any) -> str:
        """Start a run that asks, wait until it does, and return its id."""
        run_id = self.start(bundle, **data)
        self.wait(run_id, "waiting", pause_s=0.002)
        return run_id

    def answer(self, run_id: str) -> None:
        """Answer the question of a run."""
        self.command(run_id, "resume", payload={"response": "go"})

    def command(self, run_id: str, kind: str, **payload: Any) -> None:
        """Send a command to a run."""
        name = f"{kind}-{run_id}-{time.monotonic_ns()}"
        body = {"command_id": name, "run_id": run_id, "type": kind, "payload": payload}
        self.wire.call("/api/gateway/commands", body)

    def page(self, run_id: str, after: int, limit: int = 1000) -> Any:
        """Return a page of a ledger: `items` and `next_after`."""
        return self.wire.json(f"{_RUNS}/{run_id}/ledger?after={after}&limit={limit}")


@contextlib.contextmanager
def others_asleep(others: Iterable[object]) -> Iterator[None]:
    """Have those of them that are running gateways stand still while the block lasts."""
    running = [other for other in others if isinstance(other, Gateway)]
    for other in running:
        other.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for other in running:
            other.signal(signal.SIGCONT)


def start_of(bundle: str, **data: Any) -> dict[str, Any]:
    return {"bundle_id": bundle, "input_data": data}

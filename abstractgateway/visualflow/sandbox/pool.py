"""Processes that execute code, kept warm, and the calls to them."""

from __future__ import annotations

import atexit
import functools
import json
import math
import os
import platform
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import GatewayError, Invalid, Unavailable
from ...jsonvalue import dumps, loads
from .program import Program
from .seccomp import seccomp_filter
from .vocabulary import BUILTINS, MODULES

MAX_ARGUMENT_BYTES = 16_777_216
MAX_RESULT_BYTES = 4_194_304
_LONGEST_START_S = 10.0
"""Starting a process takes 40 ms, on a busy machine much longer; the time of a call does not include it."""

_WORKER = Path(__file__).with_name("worker.py")
_CHUNK = 65_536
_READY = b"ready\n"
_RESULT, _RAISED, _NO_SANDBOX = b"R", b"E", b"N"
_ANSWERED = (_RESULT, _RAISED)
"""A child that answers has read its whole call; after any other the next child might read the rest of it."""

_DEATHS = {
    signal.SIGXCPU: "took too much processor time",
    signal.SIGKILL: "was killed, most likely because it took too much processor time or memory",
}


class CodeFailed(GatewayError, ValueError):
    """Code of a flow raised, took too much, or returned what JSON cannot hold: correct the code of the node."""

    code = "code_failed"


@dataclass(frozen=True)
class CodeLimits:
    """What one call may take: seconds by the clock, and megabytes of memory with the interpreter's own 16."""

    timeout_s: float = 5.0
    memory_mb: int = 256


class TakesLong(Exception):
    """A call is not ready after the time that its caller can wait; it has been given up."""


class CodeRunner(Protocol):
    """Executes the code of a node."""

    def run(self, program: Program, argument: Any, *, seed: str, now: str, is_urgent: bool = False) -> Any:
        """Return what the program makes of a JSON value.

        `seed` is what random numbers follow from, `now` the time that the code is told, ISO 8601. Raises `CodeFailed`
        for whatever is the code's fault, `Unavailable` where code cannot be run safely, and `TakesLong` for an urgent
        call that the runner does not finish while its caller waits.
        """


class CodePool:
    """Executes code in up to `workers` processes at once; they are started when they are first needed.

    Without `may_be_open` nothing is run on a system whose kernel cannot close a process in. With `patience_s` an urgent
    call that is not ready in that time, queueing included, is given up with `TakesLong`. Safe to use from many threads.
    `close` ends the processes; they also end when the gateway does, however it does.
    """

    def __init__(
        self,
        limits: CodeLimits | None = None,
        *,
        workers: int = 2,
        may_be_open: bool = False,
        patience_s: float | None = None,
    ) -> None:
        self.limits = limits or CodeLimits()
        self._patience_s = patience_s
        self._may_be_open = may_be_open
        self._slots = threading.BoundedSemaphore(workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._is_closed = False

    def run(self, program: Program, argument: Any, *, seed: str, now: str, is_urgent: bool = False) -> Any:
        """Return what the program makes of a JSON value; see `CodeRunner.run`."""
        call = {"function": program.function, "seed": seed, "now": now, "argument": argument}
        body = dumps(call, field="input")
        if len(body) > MAX_ARGUMENT_BYTES:
            raise CodeFailed(f"the input has {len(body)} bytes; at most {MAX_ARGUMENT_BYTES} are given to code")
        request = struct.pack(">II", len(program.code), len(body)) + program.code + body
        patience_s = self._patience_s if is_urgent else None
        until = None if patience_s is None else time.monotonic() + patience_s
        if not self._slots.acquire(timeout=patience_s):
            raise TakesLong
        try:
            return _result(self._call(request, until))
        finally:
            self._slots.release()

    def close(self) -> None:
        """End all processes; calls that are under way fail."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            busy = self._all.difference(idle)
            self._all.clear()
        for worker in busy:
            worker.kill()  # whoever waits for it puts it away
        for worker in idle:
            worker.end()

    def _call(self, request: bytes, until: float | None) -> bytes:
        try:
            return self._attempt(request, until)
        except _WorkerGone:  # it died before the call, or with it; computing leaves no traces, so it may be tried again
            pass
        try:
            return self._attempt(request, until)
        except _WorkerGone as error:
            raise Unavailable(f"the process for code nodes cannot be used: {error}", code="code_unavailable") from error

    def _attempt(self, request: bytes, until: float | None) -> bytes:
        worker = self._take()
        try:
            answer = worker.call(request, self.limits.timeout_s, until)
        except BaseException:  # whatever it was, the process may be in the middle of something
            self._drop(worker)
            raise
        with self._lock:
            is_kept = not self._is_closed and answer[:1] in _ANSWERED
            if is_kept:
                self._idle.append(worker)
            else:
                self._all.discard(worker)
        if not is_kept:
            worker.end()
        return answer

    def _take(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise Unavailable("the gateway is closing; code is not run any more", code="code_unavailable")
            if self._idle:
                return self._idle.pop()
        rules = _closing_rules(self._may_be_open)
        try:
            worker = _Worker(self.limits, rules, self._may_be_open)
        except OSError as error:
            raise Unavailable(
                f"the process for code nodes cannot be started: {error}", code="code_unavailable"
            ) from error
        with self._lock:
            self._all.add(worker)
        return worker

    def _drop(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.end()


@functools.cache
def shared_pool() -> CodePool:
    """Return the pool of those who bring none of their own; it is closed when the program ends."""
    pool = CodePool()
    atexit.register(pool.close)
    return pool


class _WorkerGone(Exception):
    """The process ended, or could not be started, for no reason that lies in the call."""


class _Worker:
    """One process that executes one call after the other, each in a child of its own."""

    def __init__(self, limits: CodeLimits, rules: bytes, may_be_open: bool) -> None:
        config = {
            "memory_bytes": limits.memory_mb * 1_048_576,
            "cpu_s": math.ceil(limits.timeout_s) + 1,
            "filter": rules.hex(),
            "modules": MODULES,
            "builtins": BUILTINS,
            "may_be_open": may_be_open,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-B", str(_WORKER), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            cwd="/",
            env={"PYTHONHASHSEED": "0"},  # sets of texts are walked in the same order in every process
            start_new_session=True,
        )
        self._call, self._answer, self._report = (
            stream.fileno() for stream in (self._process.stdin, self._process.stdout, self._process.stderr) if stream
        )
        os.set_blocking(self._call, False)
        os.set_blocking(self._answer, False)
        self._is_ready = False

    def call(self, request: bytes, timeout_s: float, until: float | None) -> bytes:
        """Send a call and return the answer of the child that took it, once that child has ended.

        Raises `TakesLong` at the instant `until` of the monotonic clock, `CodeFailed` after the timeout.
        """
        if not self._is_ready:
            self._await_start(until)
        deadline = time.monotonic() + timeout_s
        exchange = _Exchange(self._call, self._answer, self._report, request)
        while not exchange.is_over:
            left = min(deadline, until or deadline) - time.monotonic()
            if left > 0:
                exchange.go_on(left)
            elif until is not None and until < deadline:
                raise TakesLong
            else:
                raise CodeFailed(f"took longer than {timeout_s:g} s")
        return exchange.answer()

    def _await_start(self, until: float | None) -> None:
        deadline = time.monotonic() + _LONGEST_START_S
        poll = select.poll()
        poll.register(self._report, select.POLLIN)
        left = min(deadline, until or deadline) - time.monotonic()
        if not poll.poll(max(0, math.ceil(left * 1000))):
            if until is not None and until < deadline:
                raise TakesLong
            raise _WorkerGone(f"it did not start in {_LONGEST_START_S:g} s")
        said = os.read(self._report, _CHUNK)
        if said != _READY:
            raise _WorkerGone(said.decode(errors="replace")[-500:] or "it ended")
        self._is_ready = True

    def kill(self) -> None:
        """Let the process and its child end."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._process.kill()

    def end(self) -> None:
        """Kill the process, take note of its end, and let go of its pipes."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class _Exchange:
    """One call on its way: bytes still to send, bytes received, and the report of how the child ended."""

    def __init__(self, call: int, answer: int, report: int, request: bytes) -> None:
        self.is_over = False
        self._is_open = True
        self._call, self._answer, self._report = call, answer, report
        self._unsent = memoryview(request)
        self._received = bytearray()
        self._reported = b""
        self._poll = select.poll()
        self._poll.register(call, select.POLLOUT)
        self._poll.register(answer, select.POLLIN)
        self._poll.register(report, select.POLLIN)

    def go_on(self, timeout_s: float) -> None:
        """Move bytes as far as they go, or wait until some can be moved."""
        ready = dict(self._poll.poll(math.ceil(timeout_s * 1000)))
        if self._call in ready:
            self._send()
        if self._answer in ready:
            self._receive()
        if self._report in ready:
            self._take_report()

    def answer(self) -> bytes:
        """Return what the child wrote. Raises `CodeFailed` when it died of something."""
        try:
            status = int(self._reported)
        except ValueError:
            raise _WorkerGone(self._reported.decode(errors="replace")[-500:] or "it ended") from None
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            raise CodeFailed(_DEATHS.get(signal.Signals(number), f"ended with signal {number}"))
        return bytes(self._received)

    def _send(self) -> None:
        try:
            sent = os.write(self._call, self._unsent[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:
            sent = len(self._unsent)  # the process has ended; its report follows
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._poll.unregister(self._call)

    def _receive(self) -> bool:
        """Take in what is there; False when there is no more."""
        try:
            chunk = os.read(self._answer, _CHUNK)
        except BlockingIOError:
            return False
        self._received += chunk
        if len(self._received) > MAX_RESULT_BYTES:
            raise CodeFailed(f"returned more than {MAX_RESULT_BYTES} bytes")
        if not chunk and self._is_open:
            self._is_open = False
            self._poll.unregister(self._answer)
        return bool(chunk)

    def _take_report(self) -> None:
        """The report comes after the child's end: all that it wrote is in the pipe by now."""
        chunk = os.read(self._report, _CHUNK)
        self._reported += chunk
        self.is_over = not chunk or self._reported.endswith(b"\n")
        while self.is_over and self._receive():
            continue


def _result(answer: bytes) -> Any:
    kind, text = answer[:1], answer[1:]
    if kind == _NO_SANDBOX:
        raise _no_sandbox()
    if kind not in _ANSWERED:
        raise CodeFailed("ended without a result")
    try:
        value = loads(text, field="result")
    except Invalid as error:
        raise CodeFailed(f"returned what cannot be read: {error}") from error
    if kind == _RESULT:
        return value
    raise CodeFailed(_told(value))


def _told(value: Any) -> str:
    told = value if isinstance(value, dict) else {}
    line = f" (line {told['line']})" if isinstance(told.get("line"), int) else ""
    return f"{told.get('type')}: {told.get('message')}{line}"


def _closing_rules(may_be_open: bool) -> bytes:
    """Return the filter that closes a process in. Raises `Unavailable` where there is none and one is wanted."""
    rules = seccomp_filter(platform.machine(), output=1) if sys.platform == "linux" else None
    if rules is None and not may_be_open:
        raise _no_sandbox()
    if not hasattr(os, "fork"):
        raise Unavailable("code nodes need a system with fork, such as Linux or macOS", code="code_unavailable")
    return rules or b""


def _no_sandbox() -> Unavailable:
    return Unavailable(
        "this system cannot close a process in (that takes Linux with seccomp on x86_64 or aarch64), so code nodes are "
        "not run; set ABSTRACTGATEWAY_CODE_UNSANDBOXED=1 to run them without protection",
        code="code_unavailable",
    )

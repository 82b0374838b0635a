"""One process that executes code, seen from the gateway: how it is started, called and ended."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ...errors import GatewayError
from .vocabulary import BUILTINS, MODULES

MAX_RESULT_BYTES = 4_194_304
_LONGEST_START_S = 10.0
"""Starting a process takes 40 ms, on a busy machine much longer; the time of a call does not include it."""

_PROGRAM = Path(__file__).with_name("worker.py")
_CHUNK = 65_536
_READY = b"ready\n"
_DEATHS = {
    signal.SIGXCPU: "took too much processor time",
    signal.SIGKILL: "was killed, most likely because it took too much processor time or memory",
}


class CodeFailed(GatewayError, ValueError):
    """Code of a flow raised, took too much, or returned what JSON cannot hold: correct the code of the node."""

    code = "code_failed"


class TakesLong(Exception):
    """A call is not ready after the time that its caller can wait; it has been given up."""


@dataclass(frozen=True)
class CodeLimits:
    """What one call may take: seconds by the clock, and megabytes of memory with the interpreter's own 16."""

    timeout_s: float = 5.0
    memory_mb: int = 256


class WorkerGone(Exception):
    """The process ended, or could not be started, for no reason that lies in the call."""


class NotClosedIn(Exception):
    """The process could not give up the system calls that code must not make; it ran no code."""


class Worker:
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
            [sys.executable, "-s", "-S", "-B", str(_PROGRAM), json.dumps(config)],
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

        Raises `TakesLong` at the instant `until` of the monotonic clock, `CodeFailed` after the timeout, and
        `NotClosedIn` when the child could not be made harmless.
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
            raise WorkerGone(f"it did not start in {_LONGEST_START_S:g} s")
        said = os.read(self._report, _CHUNK)
        if said != _READY:
            raise WorkerGone(said.decode(errors="replace")[-500:] or "it ended")
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
        """Return what the child wrote. Raises `CodeFailed` when it died of something, `NotClosedIn` when of that."""
        try:
            status = int(self._reported)
        except ValueError:
            raise WorkerGone(self._reported.decode(errors="replace")[-500:] or "it ended") from None
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGUSR1:
                raise NotClosedIn
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

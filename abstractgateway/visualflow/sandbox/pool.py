"""Processes that execute code, kept warm, and the calls to them."""

from __future__ import annotations

import atexit
import functools
import os
import platform
import struct
import sys
import threading
import time
from typing import Any, Protocol

from ...errors import Invalid, Unavailable
from ...jsonvalue import MAX_DEPTH, check_json, dumps, loads
from .process import CodeFailed, CodeLimits, NotClosedIn, TakesLong, Worker, WorkerGone
from .program import Program
from .seccomp import seccomp_filter

MAX_ARGUMENT_BYTES = 16_777_216
_RESULT, _RAISED = b"R", b"E"
_ANSWERED = (_RESULT, _RAISED)
"""A child that answers has read its whole call; after any other the next child might read the rest of it."""


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
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
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
        except NotClosedIn:
            raise _no_sandbox() from None
        except WorkerGone:  # it died before the call, or with it; computing leaves no traces, so it may be tried again
            pass
        try:
            return self._attempt(request, until)
        except WorkerGone as error:
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

    def _take(self) -> Worker:
        with self._lock:
            if self._is_closed:
                raise Unavailable("the gateway is closing; code is not run any more", code="code_unavailable")
            if self._idle:
                return self._idle.pop()
        rules = _closing_rules(self._may_be_open)
        try:
            worker = Worker(self.limits, rules, self._may_be_open)
        except OSError as error:
            raise Unavailable(
                f"the process for code nodes cannot be started: {error}", code="code_unavailable"
            ) from error
        with self._lock:
            self._all.add(worker)
        return worker

    def _drop(self, worker: Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.end()


@functools.cache
def shared_pool() -> CodePool:
    """Return the pool of those who bring none of their own; it is closed when the program ends."""
    pool = CodePool()
    atexit.register(pool.close)
    return pool


def _result(answer: bytes) -> Any:
    kind, text = answer[:1], answer[1:]
    if kind not in _ANSWERED:
        raise CodeFailed("ended without a result")
    try:
        value = loads(text, field="result")
        if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
            check_json(value, field="result")
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

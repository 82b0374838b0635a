"""Processes that cannot outlast their time, fill the memory, or be left behind: for commands and hostile texts."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import GatewayError, Unavailable
from ..jsonvalue import JsonObject, loads
from ..runtime.signals import Stop

_PROGRAM = Path(__file__).with_name("worker.py")
_CHUNK = 65_536
_LOOK_S = 0.1
"""How long it takes at most until a process that is not wanted any more is killed."""
_SHORT_LOOK_S = 0.002
_MOST_ANSWER_BYTES = 8_000_000


class Limits(NamedTuple):
    """What a process may take: seconds by the clock and of processor time, and megabytes; 0 for no limit."""

    timeout_s: float
    cpu_s: int = 0
    memory_mb: int = 0
    file_mb: int = 0


TEXT_LIMITS = Limits(timeout_s=10.0, cpu_s=10, memory_mb=1024)
"""For searching and parsing what others wrote."""


class ToolFailed(GatewayError):
    """A tool took too long, wrote too much, or ended in a way it should not have: ask for less."""

    code = "tool_failed"


class Ended(NamedTuple):
    """How a process ended: its exit code (negative for a signal), and what it wrote, as far as that is kept."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    is_cut: bool


@dataclass
class _Output:
    kept: bytearray = field(default_factory=bytearray)
    size: int = 0

    def take(self, chunk: bytes, most: int) -> None:
        self.size += len(chunk)
        self.kept += chunk[: max(0, most - len(self.kept))]


def run_command(
    words: Sequence[str],
    *,
    directory: int,
    environment: Mapping[str, str],
    limits: Limits,
    keep_bytes: int,
    most_bytes: int,
    stop: Stop | None = None,
) -> Ended:
    """Run a program in an open directory, with nothing of this process's environment.

    `keep_bytes` of each output are kept. Raises `ToolFailed` when it takes longer than it may, writes more than
    `most_bytes`, or `stop` is set; it is killed then, with every process of its group.
    """
    config = {"command": list(words), "directory": directory}
    process = _started(config, limits, environment, (directory,))
    return _watched(process, None, limits.timeout_s, keep_bytes, most_bytes, stop)


def run_task(task: str, request: JsonObject, content: Iterable[bytes] = (), stop: Stop | None = None) -> JsonObject:
    """Have a task of `worker.py` done. Raises `ToolFailed` when it takes too much, or answers with an error."""
    process = _started({"task": task}, TEXT_LIMITS, {}, ())
    ended = _watched(
        process, _said(request, content), TEXT_LIMITS.timeout_s, _MOST_ANSWER_BYTES, _MOST_ANSWER_BYTES, stop
    )
    if ended.exit_code != 0:
        raise ToolFailed(f"the {task} took too much memory or processor time, or broke (exit code {ended.exit_code})")
    answer: JsonObject = loads(ended.stdout, field=task)
    if "error" in answer:
        raise ToolFailed(str(answer["error"]))
    return answer


def _said(request: JsonObject, content: Iterable[bytes]) -> Iterator[bytes]:
    yield json.dumps(request).encode() + b"\n"
    yield from content


def _started(
    config: JsonObject, limits: Limits, environment: Mapping[str, str], passed: Sequence[int]
) -> subprocess.Popen[bytes]:
    given = {"limits": {"cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb, "file_mb": limits.file_mb}}
    try:
        return subprocess.Popen(
            [sys.executable, "-s", "-S", "-E", "-B", str(_PROGRAM), json.dumps({**config, **given})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            pass_fds=passed,
            cwd="/",
            env=dict(environment),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise Unavailable(f"no process could be started: {error}", code="process_unavailable") from error


def _watched(
    process: subprocess.Popen[bytes],
    said: Iterable[bytes] | None,
    timeout_s: float,
    keep_bytes: int,
    most_bytes: int,
    stop: Stop | None,
) -> Ended:
    """Speak with a process until it has ended; whatever happens, nothing of its group is left behind.

    Where nothing is `said`, not even its end, stdin stays open as long as this process lives.
    """
    try:
        return _Conversation(process, said, keep_bytes, most_bytes).run(time.monotonic() + timeout_s, stop)
    except _TooLong:
        raise ToolFailed(f"took longer than {timeout_s:g} s and was killed") from None
    finally:
        if process.returncode is None:
            _kill_group(process)
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


class _TooLong(Exception):
    pass


class _Conversation:
    """What goes to a process and comes from it, in one thread."""

    def __init__(
        self, process: subprocess.Popen[bytes], said: Iterable[bytes] | None, keep_bytes: int, most_bytes: int
    ) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process = process
        self._said = iter(said or ())
        self._keep, self._most = keep_bytes, most_bytes
        self._unsent = memoryview(b"")
        self._outputs = {process.stdout: _Output(), process.stderr: _Output()}
        self._selector = selectors.DefaultSelector()
        for stream in self._outputs:
            self._open(stream, selectors.EVENT_READ)
        if said is not None:
            self._open(process.stdin, selectors.EVENT_WRITE)

    def run(self, deadline: float, stop: Stop | None) -> Ended:
        with self._selector:
            while self._is_going_on():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _TooLong
                if stop is not None and stop.is_set():
                    raise ToolFailed("was stopped: its result is not wanted any more")
                look_s = _LOOK_S if self._heard() else _SHORT_LOOK_S
                for key, _ in self._selector.select(min(left, look_s)):
                    self._move(key.fileobj)
        stdout, stderr = self._outputs.values()
        is_cut = any(output.size > len(output.kept) for output in (stdout, stderr))
        _kill_group(self._process)
        return Ended(self._process.wait(), bytes(stdout.kept), bytes(stderr.kept), is_cut)

    def _is_going_on(self) -> bool:
        """Whether the program runs, or has left output in the pipes; what it left running in the background has not."""
        if not _has_ended(self._process):
            return True
        for stream in self._heard():
            while self._read(stream):
                continue
        return False

    def _heard(self) -> list[IO[bytes]]:
        return [stream for stream in self._outputs if stream in self._selector.get_map()]

    def _open(self, stream: IO[bytes], event: int) -> None:
        os.set_blocking(stream.fileno(), False)
        self._selector.register(stream, event)

    def _move(self, stream: Any) -> None:
        if stream in self._outputs:
            self._read(stream)
        else:
            self._send(stream)

    def _send(self, stream: IO[bytes]) -> None:
        if not self._unsent:
            self._unsent = memoryview(next(self._said, b""))
            if not self._unsent:
                self._close(stream)
                stream.close()
                return
        try:
            self._unsent = self._unsent[os.write(stream.fileno(), self._unsent[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close(stream)  # it wants no more; how it ended is another matter

    def _read(self, stream: IO[bytes]) -> bool:
        """Take in what is there; False when there is nothing more just now."""
        try:
            chunk = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(stream)
            return False
        output = self._outputs[stream]
        output.take(chunk, self._keep)
        if output.size > self._most:
            begins = bytes(output.kept[:500]).decode("utf-8", "replace")
            raise ToolFailed(f"wrote more than {self._most} bytes and was killed; its output begins: {begins}")
        return True

    def _close(self, stream: IO[bytes]) -> None:
        with suppress(KeyError):
            self._selector.unregister(stream)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Say whether a process has ended, and leave its number taken, so that nothing else can be killed in its place."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started, as far as that stayed in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)

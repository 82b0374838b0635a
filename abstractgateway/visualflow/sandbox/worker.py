"""The process that executes code of drawn flows. `pool.py` starts this file as a script; nothing imports it.

It forks a child for each call, ahead of time. The child takes the call from stdin, closes itself in, computes, writes
the result to stdout and ends; what it did to itself ends with it. The parent of the child never sees a call, so
that nothing of one call is in the memory of the next; it reports on stderr how each child ended. When the gateway is
gone, however it went, stdin is closed, and both end.

Call: two lengths (big-endian, 4 bytes each), marshalled code, JSON. Result: `R` and JSON, or `E` and JSON. A child that
cannot close itself in ends with SIGUSR1, which code that is closed in cannot do.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # the directory of this file is no place to import from

import builtins
import ctypes
import datetime
import gc
import importlib
import json
import marshal
import os
import random
import resource
import select
import signal
import struct
from typing import Any, NoReturn

CALL, RESULT, REPORT = 0, 1, 2
LATER = ("_strptime", "encodings.ascii", "encodings.latin_1", "encodings.utf_16", "weakref", "types", "typing")
"""Modules that the allowed ones load at their first use, when no file can be opened any more."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
MAX_MESSAGE = 500


def main(config: dict[str, Any]) -> None:
    """Fork children until the gateway is gone."""
    for name in (*config["modules"], *LATER):
        importlib.import_module(name)
    random.seed("")  # Python 3.13 loads what seeding needs at the first use
    known = make_builtins(config["builtins"], frozenset((*config["modules"], *LATER)))
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    gc.collect()
    gc.freeze()
    os.write(REPORT, b"ready\n")
    while True:
        ended, alive = os.pipe()
        child = os.fork()
        if child == 0:
            serve_one_call(config, known, libc)
        os.close(alive)
        status = await_end(child, ended)
        os.close(ended)
        os.write(REPORT, b"%d\n" % status)


def await_end(child: int, ended: int) -> int:
    """Return how a child ended; end with it when the gateway is gone."""
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(CALL, 0)
    events = dict(poll.poll())
    if ended not in events:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def serve_one_call(config: dict[str, Any], known: dict[str, Any], libc: Any) -> NoReturn:
    """Take a call, compute, write the result, and end."""
    try:
        os.close(REPORT)
        limit_resources(config, libc)
        call = read_call()
        if call is not None:
            os.close(CALL)
            if not close_in(config, libc):
                os.kill(os.getpid(), signal.SIGUSR1)
            write_all(compute(call, known))
    finally:
        os._exit(0)


def limit_resources(config: dict[str, Any], libc: Any) -> None:
    """Bound memory, processor time and everything that can be counted; hard limits cannot be raised again."""
    limits = {
        "RLIMIT_AS": config["memory_bytes"],
        "RLIMIT_CPU": config["cpu_s"],
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_NOFILE": 0,
    }
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):  # not every system has every limit
            if not config["may_be_open"]:
                raise
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def close_in(config: dict[str, Any], libc: Any) -> bool:
    """Give up every system call that computing does not need. Return whether code may be run now."""
    rules = bytes.fromhex(config["filter"])
    if rules and libc is not None:
        kept = ctypes.create_string_buffer(rules, len(rules))
        program = ctypes.create_string_buffer(struct.pack("@HP", len(rules) // 8, ctypes.addressof(kept)))
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and not libc.prctl(
            PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0
        ):
            return True
    return bool(config["may_be_open"])


def read_call() -> tuple[bytes, bytes] | None:
    """Return the code and the JSON of the next call, or None when there will be none."""
    head = read_exactly(8)
    if head is None:
        return None
    code_size, call_size = struct.unpack(">II", head)
    code, call = read_exactly(code_size), read_exactly(call_size)
    return (code, call) if code is not None and call is not None else None


def read_exactly(size: int) -> bytes | None:
    chunks, left = [], size
    while left:
        chunk = os.read(CALL, min(left, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(RESULT, view) :]


def compute(parts: tuple[bytes, bytes], known: dict[str, Any]) -> bytes:
    """Return the answer to a call; whatever the code raises is an answer as well."""
    try:
        call = json.loads(parts[1])
        random.seed(call["seed"])
        FixedDatetime.moment = datetime.datetime.fromisoformat(call["now"])
        datetime.datetime, datetime.date = FixedDatetime, FixedDate  # type: ignore[misc]
        result = evaluate(marshal.loads(parts[0]), call, known)
        return b"R" + json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
    except BaseException as error:  # this is the end of the line: nobody else could catch it
        return b"E" + json.dumps(describe(error)).encode()


def evaluate(code: Any, call: dict[str, Any], known: dict[str, Any]) -> Any:
    names: dict[str, Any] = {"__builtins__": known, "__name__": "code"}
    argument = call["argument"]
    if call["function"] is None:
        named = argument if isinstance(argument, dict) else {}
        return eval(code, {"x": argument, "input": argument, **named, **names})
    exec(code, names)
    function = names.get(call["function"])
    if not callable(function):
        raise NameError(f"there is no function {call['function']!r}")
    return function(argument)


def describe(error: BaseException) -> dict[str, Any]:
    """Return type, message and the line of the code that raised it, without trusting the error itself."""
    try:
        message = str(error)[:MAX_MESSAGE]
    except BaseException:  # its __str__ is code as well
        message = ""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<code>":
            line = trace.tb_lineno
        trace = trace.tb_next
    message = message.encode("utf-8", "backslashreplace").decode()
    return {"type": type(error).__name__[:80], "message": message, "line": line}


def make_builtins(names: list[str], modules: frozenset[str]) -> dict[str, Any]:
    """Return what code finds without importing it."""

    def load(name: str, _globals: Any = None, _locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level or name not in modules:
            raise ImportError(f"{name!r} cannot be imported")
        return __import__(name, None, None, fromlist, 0)

    errors = {
        name: value
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    chosen = {name: getattr(builtins, name) for name in names}
    return {**chosen, **errors, "print": lambda *_values, **_options: None, "__import__": load}


class StandIn(type):
    """Takes every day for a day, and every time for a time, whichever of the two classes made it."""

    def __instancecheck__(cls, item: Any) -> bool:
        return isinstance(item, cls.__mro__[1])

    def __subclasscheck__(cls, other: Any) -> bool:
        return issubclass(other, cls.__mro__[1])


class FixedDatetime(datetime.datetime, metaclass=StandIn):
    """Tells the time of the step, so that a step that is executed again computes the same."""

    moment: datetime.datetime

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        there = cls.moment.astimezone(tz) if tz is not None else cls.moment.replace(tzinfo=None)
        return cls.combine(there.date(), there.timetz())

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now()

    @classmethod
    def today(cls) -> Any:
        return cls.now()


class FixedDate(datetime.date, metaclass=StandIn):
    """The same for days."""

    @classmethod
    def today(cls) -> Any:
        return cls(FixedDatetime.moment.year, FixedDatetime.moment.month, FixedDatetime.moment.day)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

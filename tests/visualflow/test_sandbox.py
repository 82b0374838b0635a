"""What code can and cannot do; the check of the text is bypassed here, so that the process alone has to hold."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.visualflow.sandbox import CodeFailed, CodeLimits, CodePool, Program, TakesLong
from abstractgateway.visualflow.sandbox import pool as pool_module

NOW = "2026-03-01T12:00:00+00:00"
ROOT = Path(__file__).resolve().parents[2]
OS = "import random\nos = random._os\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes can only be closed in on Linux")


@pytest.fixture(scope="module")
def pool() -> Iterator[CodePool]:
    made = CodePool(CodeLimits(timeout_s=1.0, memory_mb=96), workers=2)
    yield made
    made.close()


@pytest.fixture
def call(pool: CodePool) -> Callable[..., Any]:
    def run(source: str, argument: Any = None, **options: Any) -> Any:
        return pool.run(program(source), argument, **{"seed": "s", "now": NOW, **options})

    return run


def program(source: str) -> Program:
    """Compile a text without checking it."""
    return Program(marshal.dumps(compile(source, "<code>", "exec")), "transform")


def body(text: str, head: str = "") -> str:
    """Return the module whose function has this body."""
    return f"{head}def transform(value):\n{textwrap.indent(textwrap.dedent(text).strip(), '    ')}\n"


WALK = """
match ():
    case object(__class__=kind):
        pass
match kind:
    case object(__mro__=kinds):
        pass
found = [item for item in type.__subclasses__(kinds[-1]) if item.__name__ == "_wrap_close"]
system = found[0].__init__.__globals__["system"]
return [found[0].__init__.__globals__["listdir"]("/"), system("true")]
"""
FRAME = """
def walk():
    yield frames.gi_frame.f_back.f_back.f_back.f_globals
frames = walk()
return next(frames)["os"].listdir("/")
"""
HOSTILE = {
    "walking the object graph": body(WALK),
    "walking by getattr": body(
        "return [].__class__.__base__.__getattribute__(random._os, 'listdir')('/')", "import random\n"
    ),
    "walking a generator's frames": body(FRAME),
    "making a type": body("return type('T', (), {'x': property(lambda self: os.listdir('/'))})().x", OS),
    "unpickling": body("return random.__dict__['_pickle'].loads(b'x')", "import random\n"),
    "ctypes": body(
        "return 1 // (1 + sys.modules['ctypes'].CDLL(None).open(b'/etc/passwd', 0))",
        "import random\nsys = random._os.sys\n",
    ),
    "os by the table of modules": body(
        "return sys.modules['os'].listdir('/')", "import random\nsys = random._os.sys\n"
    ),
    "a fork": body("return os.fork()", OS),
    "a fork bomb": body("while True:\n    os.fork()", OS),
    "a thread": body(
        "return sys.modules['_thread'].start_new_thread(print, ())", "import random\nsys = random._os.sys\n"
    ),
    "another program": body("return os.execv('/bin/true', ['true'])", OS),
    "a shell": body("return 1 // (os.system('true') == 0)", OS),
    "a list of everything": body("return [0] * 10**10"),
    "a text without end": body("text = 'x'\nwhile True:\n    text += text"),
    "a power": body("return 7 ** 10**9"),
    "a loop": body("while True:\n    pass"),
    "a loop that catches": body("while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
    "an iteration without end": "import itertools\ndef transform(value):\n    return list(itertools.count())\n",
    "a regular expression that backtracks": body("return re.match('(a+)+$', 'a' * 50 + 'b')", "import re\n"),
    "a result without end": body("return 'x' * 5_000_000"),
    "a deep result": body("found = []\nfor _ in range(10**6):\n    found = [found]\nreturn found"),
    "a recursion": body("return transform(value)"),
    "a recursion without bounds": body(
        "random._os.sys.setrecursionlimit(10**9)\ndef go(): return [*map(lambda _: go(), [1])]\nreturn go()",
        "import random\n",
    ),
    "a signal to the gateway": body("return os.kill(value, 9)", OS),
    "a signal to the parent": body("return os.kill(os.getppid() or 1, 9)", OS),
    "reading a file": body("return os.open('/etc/passwd', 0)", OS),
    "reading the environment": body("return os.open('/proc/self/environ', 0)", OS),
    "reading its own memory": body("return os.open('/proc/self/mem', 0)", OS),
    "writing a file": body("return os.open('/tmp/escaped', os.O_CREAT | os.O_WRONLY)", OS),
    "listing a directory": body("return os.listdir('/')", OS),
    "a socket": body("return sys.modules['_socket'].socket()", "import random\nsys = random._os.sys\n"),
    "writing to other files": body("return [os.write(fd, b'x') for fd in (0, 2, 3, 4, 5)]", OS),
    "reading from other files": body("return [os.read(fd, 1) for fd in (0, 2, 3, 4, 5)]", OS),
    "raising its limits": body(
        "import resource\nreturn resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ),
    "a module": body("import socket\nreturn 1"),
    "a coroutine": "async def transform(value):\n    return 1\n",
    "a generator": body("yield 1"),
    "not a number": body("return float('nan')"),
    "infinity": body("return [1e999]"),
    "a set": body("return {1}"),
    "a function": body("return transform"),
    "itself": body("found = []\nfound.append(found)\nreturn found"),
    "half a character": body("return chr(0xD800)"),
    "a key of two parts": body("return {(1, 2): 3}"),
    "leaving": body("raise SystemExit(0)"),
    "leaving without a word": body("os._exit(0)", OS),
    "aborting": body("os.abort()", OS),
    "an error that cannot be shown": body(
        "class Odd(Exception):\n    def __str__(self): raise self\nraise Odd()",
    ),
    "no function": "x = 1\n",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_code_that_tries_to_get_out_or_never_ends_only_fails(call: Callable[..., Any], source: str) -> None:
    with pytest.raises(CodeFailed):
        call(source, os.getpid())

    assert call(body("return value + 1"), 1) == 2
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize(
    "attempt",
    [
        "os.fork()",
        "os.open('/etc/passwd', 0)",
        "os.listdir('/')",
        "os.execv('/bin/true', ['true'])",
        "os.kill(1, 0)",
        "os.read(0, 1)",
        "os.write(2, b'x')",
        "os.dup(1)",
        "os.pipe()",
        "os.setsid()",
        "os.urandom(1)",
        "os.memfd_create('x')",
    ],
)
def test_the_kernel_refuses_what_is_no_computing(call: Callable[..., Any], attempt: str) -> None:
    with pytest.raises(CodeFailed, match="Operation not permitted"):
        call(body(f"return {attempt}", OS))


def test_an_escape_by_format_strings_sees_only_its_own_process(call: Callable[..., Any]) -> None:
    seen = call(body("return '{0.__class__.__init__.__globals__}'.format(random.Random(1))", "import random\n"))

    assert "_os" in seen
    assert str(ROOT) not in seen


def test_a_call_begins_with_a_clean_namespace(call: Callable[..., Any]) -> None:
    remember = "import random, json\n" + body(
        "random.left, json.left = value, value\nreturn [globals for globals in [1]]"
    )
    look = "import random, json\n" + body("return [hasattr(random, 'left'), hasattr(json, 'left')]")

    call(remember, "secret")

    assert call(look) == [False, False]


def test_nothing_of_an_earlier_call_is_in_the_memory_of_a_later_one(call: Callable[..., Any]) -> None:
    secret = "".join(["se", "cret-", "of-the-first-call"])
    search = body("return [item for item in gc.get_objects() if isinstance(item, str) and needle in item]").replace(
        "def transform(value):", "def transform(value):\n    gc, needle = random._os.sys.modules['gc'], value[::-1]"
    )

    call(body("return value"), {"secret": secret})

    assert call("import random\n" + search, secret[::-1]) == []


def test_the_environment_of_the_process_is_empty(call: Callable[..., Any]) -> None:
    assert call(body("return sorted(os.environ)", OS)) in (["PYTHONHASHSEED"], ["LC_CTYPE", "PYTHONHASHSEED"])


def test_printing_goes_nowhere_and_costs_nothing(call: Callable[..., Any]) -> None:
    assert call(body("for _ in range(10_000):\n    print('x' * 1_000, flush=True)\nreturn 1")) == 1


def test_random_numbers_follow_from_the_seed(call: Callable[..., Any]) -> None:
    source = "import random\n" + body("return [random.random(), random.choice([1, 2, 3]), random.randint(1, 10**9)]")

    first, again, other = (call(source, seed=seed) for seed in ("1:1", "1:1", "1:2"))

    assert first == again != other


def test_the_clock_stands_at_the_time_of_the_step(call: Callable[..., Any]) -> None:
    source = "import datetime as d\n" + body(
        "now = d.datetime.now(d.timezone.utc)\n"
        "return [now.isoformat(), d.date.today().isoformat(), (now - d.timedelta(days=1)).isoformat(),"
        " d.datetime.strptime('2024-02-03', '%Y-%m-%d').isoformat(), isinstance(now, d.date)]"
    )

    assert call(source) == [NOW, "2026-03-01", "2026-02-28T12:00:00+00:00", "2024-02-03T00:00:00", True]


def test_a_set_is_walked_in_the_same_order_in_every_process(call: Callable[..., Any]) -> None:
    source = body("return list({'alpha', 'beta', 'gamma', 'delta', 'epsilon'})")
    other = CodePool(workers=1)

    orders = [call(source), other.run(program(source), None, seed="s", now=NOW)]
    other.close()

    assert orders[0] == orders[1]


def test_an_error_tells_its_type_its_message_and_its_line(call: Callable[..., Any]) -> None:
    with pytest.raises(CodeFailed, match=r"ValueError: no such thing \(line 3\)"):
        call("def deeper():\n    pass\n    raise ValueError('no such thing')\ndef transform(value):\n    deeper()\n")


@pytest.mark.parametrize("module", ["json", "math", "re", "statistics", "string", "collections.abc", "decimal"])
def test_modules_that_compute_can_be_imported(call: Callable[..., Any], module: str) -> None:
    assert call(f"import {module}\ndef transform(value):\n    return {module}.__name__\n") == module


def test_a_large_input_and_a_large_result_pass(call: Callable[..., Any]) -> None:
    value = {"items": ["x" * 1_000] * 2_000}

    assert call(body("return value"), value) == value


def test_an_input_that_is_too_large_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises(CodeFailed, match="at most 16777216"):
        call(body("return 1"), "x" * 17_000_000)


def test_an_input_for_which_there_is_no_memory_spoils_no_later_call() -> None:
    pool = CodePool(CodeLimits(memory_mb=64), workers=1)

    with pytest.raises(CodeFailed):
        pool.run(program(body("return 1")), [[0]] * 2_500_000, seed="s", now=NOW)
    answer = pool.run(program(body("return value")), 2, seed="s", now=NOW)
    pool.close()

    assert answer == 2


def test_a_worker_that_was_killed_between_calls_is_replaced(pool: CodePool, call: Callable[..., Any]) -> None:
    call(body("return 1"))
    for worker in list(pool._all):
        os.kill(worker._process.pid, signal.SIGKILL)

    assert call(body("return 2")) == 2


def test_an_urgent_call_that_takes_long_is_given_up() -> None:
    pool = CodePool(CodeLimits(timeout_s=30), workers=1, patience_s=0.3)
    pool.run(program(body("return 1")), None, seed="s", now=NOW)

    with pytest.raises(TakesLong):
        pool.run(program(body("while True: pass")), None, seed="s", now=NOW, is_urgent=True)
    pool.close()


def test_an_urgent_call_does_not_queue_for_long() -> None:
    pool = CodePool(CodeLimits(timeout_s=30), workers=1, patience_s=0.05)
    busy = threading.Thread(target=_expect_failure, args=(pool,))
    busy.start()
    while not pool._all:
        threading.Event().wait(0.01)

    with pytest.raises(TakesLong):
        pool.run(program(body("return 1")), None, seed="s", now=NOW, is_urgent=True)
    pool.close()
    busy.join(10)

    assert not busy.is_alive()


def _expect_failure(pool: CodePool) -> None:
    with pytest.raises(Unavailable):
        pool.run(program(body("while True: pass")), None, seed="s", now=NOW)


def test_a_closed_pool_leaves_no_process_and_runs_nothing() -> None:
    pool = CodePool(workers=1)
    pool.run(program(body("return 1")), None, seed="s", now=NOW)
    (worker,) = pool._all

    pool.close()

    assert worker._process.returncode is not None
    assert _wait_until(lambda: not _is_alive(worker._process.pid))  # its child dies of the same signal, a moment later
    with pytest.raises(Unavailable, match="closing"):
        pool.run(program(body("return 1")), None, seed="s", now=NOW)


@pytest.mark.parametrize("source", ["return 1", "while True: pass"])
def test_the_processes_end_with_a_gateway_that_is_killed(tmp_path: Path, source: str) -> None:
    script = textwrap.dedent(
        f"""
        import marshal, threading
        from abstractgateway.visualflow.sandbox import CodeLimits, CodePool, Program
        pool = CodePool(CodeLimits(timeout_s=60))
        code = Program(marshal.dumps(compile("def transform(value):\\n  {source}", "<code>", "exec")), "transform")
        go = lambda: pool.run(code, None, seed="s", now="{NOW}")
        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        thread.join(1)
        print(*(worker._process.pid for worker in pool._all), flush=True)
        input()
        """
    )
    gateway = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert gateway.stdout is not None and gateway.stdin is not None
    group = int(gateway.stdout.readline())

    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    gateway.stdin.close()

    assert _wait_until(lambda: not _is_alive(group))


def _is_alive(group: int) -> bool:
    """Say whether a process of the group still does something; one that only waits to be noticed does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(pgrp) == group and state != "Z":
            return True
    return False


def _wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if holds():
            return True
        threading.Event().wait(0.02)
    return False


def test_code_cannot_pretend_that_there_is_no_sandbox(call: Callable[..., Any]) -> None:
    with pytest.raises(CodeFailed, match="ended without a result"):
        call(body("os.write(1, b'N')\nos._exit(0)", OS))


def test_a_result_that_is_nested_too_deeply_is_refused(call: Callable[..., Any]) -> None:
    nest = "found = []\nfor _ in range(value):\n    found = [found]\nreturn found"

    assert call(body(nest), 150) is not None
    with pytest.raises(CodeFailed, match="nested more than 200 levels deep"):
        call(body(nest), 700)


def test_where_the_filter_is_refused_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "seccomp_filter", lambda machine, output: b"\xff" * 8)
    pool = CodePool()

    with pytest.raises(Unavailable, match="ABSTRACTGATEWAY_CODE_UNSANDBOXED=1"):
        pool.run(program(body("return 1")), None, seed="s", now=NOW)
    pool.close()


def test_where_no_process_can_be_closed_in_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module.platform, "machine", lambda: "vax")
    pool = CodePool()

    with pytest.raises(Unavailable, match="ABSTRACTGATEWAY_CODE_UNSANDBOXED=1"):
        pool.run(program(body("return 1")), None, seed="s", now=NOW)


def test_code_is_run_without_protection_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module.platform, "machine", lambda: "vax")
    pool = CodePool(may_be_open=True)

    answer = pool.run(program(body("return os.getppid() > 1", OS)), None, seed="s", now=NOW)
    pool.close()

    assert answer is True

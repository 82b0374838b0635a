"""Another process on a data directory, told what to do by lines of JSON; it answers each, and tells what it hears."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from abstractgateway.errors import GatewayError, StaleWrite
from abstractgateway.runtime.commit import CommandOutcome, Commit
from abstractgateway.stores import open_file_stores, open_sqlite_stores
from abstractgateway.stores.base import Changes, Stores
from tests.postgres.server import open_test_database
from tests.stores.shapes import AT, PATIENCE_S, a_command, a_run, save, write

ROOT = Path(__file__).resolve().parents[2]


class Other:
    """A process of its own with stores on a directory, as its parent sees it."""

    def __init__(self, backend: str, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stores.other", backend, str(directory)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "adapters")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: queue.Queue[Any] = queue.Queue()
        self._heard: queue.Queue[Any] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._answers.get(timeout=PATIENCE_S) == "ready"

    def ask(self, action: str, *arguments: Any) -> Any:
        """Have the process do something and return its answer."""
        self.tell(action, *arguments)
        return self._answers.get(timeout=PATIENCE_S)

    def tell(self, action: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([action, *arguments]) + "\n")
        self._process.stdin.flush()

    def wait_to_hear(self, wanted: Callable[[Any], bool], timeout_s: float = 1.0) -> Any:
        """Return the first news of the other process that is wanted. Raises `queue.Empty` when none comes in time."""
        while True:
            heard = self._heard.get(timeout=timeout_s)
            if wanted(heard):
                return heard

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        assert self._answers.get(timeout=PATIENCE_S) is None

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.leave()

    def leave(self) -> None:
        """Close the streams, which ends the process if it still runs, and wait until it is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._process.poll()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, value = json.loads(line)
            (self._answers if kind == "answer" else self._heard).put(value)


def _save(stores: Stores, run_id: str, count: int = 1, times: int = 1) -> int:
    return [save(stores, a_run(run_id), count=count).revision for _ in range(times)][-1]


def _save_stale(stores: Stores, run_id: str) -> str:
    try:
        stores.commit(Commit(runs=(write(a_run(run_id)),)))
    except GatewayError as error:
        return error.code
    return "saved"


def _command(stores: Stores, prefix: str, times: int = 1) -> list[int]:
    return [stores.commands.append(a_command(f"{prefix}{number}")).seq for number in range(times)]


def _settle(stores: Stores, command_id: str, seq: int) -> None:
    stores.commit(
        Commit(outcome=CommandOutcome(seq, command_id, "applied", None, AT), runs=(write(a_run("by-command")),))
    )


def _look_up(stores: Stores, run_id: str) -> list[int]:
    stored = stores.runs.open(run_id)
    return [stored.revision, len(stores.ledger.read(run_id, 0, 1000).records)] if stored is not None else [0, 0]


def _outcome(stores: Stores, command_id: str) -> str | None:
    found = stores.commands.outcome(command_id)
    return found.status if found is not None else None


def _save_for_ever(stores: Stores, prefix: str) -> None:
    """Save runs and say so after each, until somebody ends the process."""
    number = 0
    while True:
        save(stores, a_run(f"{prefix}{number % 7}"), count=2)
        stores.commands.append(a_command(f"{prefix}-{number}"))
        _say("heard", number)
        number += 1


def _fight(stores: Stores, name: str, for_s: float) -> dict[str, list[Any]]:
    """Start runs, send commands, claim the runs and change a shared one, and return what was acknowledged."""
    done: dict[str, list[Any]] = {"runs": [], "won": [], "seqs": [], "epochs": [], "shared": []}
    until = time.monotonic() + for_s
    number = 0
    while time.monotonic() < until:
        done["runs"].append(save(stores, a_run(f"{name}-{number}"), count=2).state.run_id)
        done["seqs"].append(stores.commands.append(a_command(f"{name}-{number}")).seq)
        with suppress(StaleWrite):
            stores.commit(Commit(runs=(write(a_run(f"contested-{number}", vars={"of": name}), count=1),)))
            done["won"].append(number)
        with suppress(StaleWrite):
            save(stores, a_run("shared"), count=1)
            done["shared"].append(number)
        if number % 10 == 0:
            done["epochs"].append(stores.claim(name))
        number += 1
    return done


def _die_holding_the_lock(stores: Any) -> None:
    holder = stores.database if hasattr(stores, "database") else stores
    with holder.exclusive() if hasattr(holder, "exclusive") else holder._exclusive():
        os.kill(os.getpid(), signal.SIGKILL)


def _die_with_an_entry_in_the_journal_only(stores: Any, run_id: str) -> None:
    stores._apply_pending = lambda size: os.kill(os.getpid(), signal.SIGKILL)
    stores._writer.submit(Commit(runs=(write(a_run(run_id), count=3),)), lambda receipt, error: None)


ACTIONS: dict[str, Callable[..., Any]] = {
    "save": _save,
    "save_stale": _save_stale,
    "command": _command,
    "settle": _settle,
    "look_up": _look_up,
    "outcome": _outcome,
    "stop": lambda stores: os.kill(os.getpid(), signal.SIGSTOP),
    "claim": lambda stores: stores.claim("other"),
    "fight": _fight,
    "save_for_ever": _save_for_ever,
    "die_holding_the_lock": _die_holding_the_lock,
    "die_with_an_entry_in_the_journal_only": _die_with_an_entry_in_the_journal_only,
}

_saying = threading.Lock()


def _say(kind: str, value: Any) -> None:
    with _saying:
        sys.stdout.write(json.dumps([kind, value]) + "\n")
        sys.stdout.flush()


def _hear(changes: Changes) -> None:
    _say("heard", {"runs": {row.run_id: row.revision for row in changes.runs}, "has_commands": changes.has_commands})


def main(backend: str, directory: str) -> None:
    known = {"files": open_file_stores, "sqlite": open_sqlite_stores, "postgres": open_test_database}
    stores: Stores = known[backend](Path(directory))
    stores.subscribe(_hear)
    _say("answer", "ready")
    for line in sys.stdin:
        action, *arguments = json.loads(line)
        _say("answer", ACTIONS[action](stores, *arguments))
    stores.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Gateways in processes of their own, and a client that speaks plain HTTP to them."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "docs" / "samples"
TOKEN = "a-token-for-processes-of-tests"
PATIENCE_S = 30.0


def environment(data_dir: Path, backend: str, **settings: Any) -> dict[str, str]:
    """Return the environment of a gateway on a data directory; a setting of None is left out."""
    chosen = {
        "DATA_DIR": data_dir,
        "FLOWS_DIR": SAMPLES,
        "STORE_BACKEND": backend,
        "AUTH_TOKEN": TOKEN,
        **settings,
    }
    ours = {f"ABSTRACTGATEWAY_{name}": str(value) for name, value in chosen.items() if value is not None}
    search = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ABSTRACT")}
    return {**kept, **ours, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1"}


class Process:
    """A command of the gateway, and what it has said; it is killed when the block is left.

    `prefix` is a command that runs it, in its own place.
    """

    def __init__(self, *command: str, env: dict[str, str], prefix: Sequence[str] = ()) -> None:
        self.output: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """Return the first line that matches; fails when the process ends or says nothing for too long."""
        while True:
            line = self._lines.get(timeout=PATIENCE_S)
            assert line is not None, f"ended without saying {pattern!r}: {self.output}"
            found = re.search(pattern, line)
            if found is not None:
                return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.send(number)
        return self.wait()

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        code = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)


def serve(*arguments: str, env: dict[str, str]) -> Process:
    return Process("-m", "abstractgateway", "serve", "--port", "0", *arguments, env=env)


def port_of(process: Process) -> int:
    """Return the port a serving process says it listens on."""
    return int(process.wait_for_line(r"on http://127\.0\.0\.1:(\d+)")[1])


class Client:
    """What curl does, in a few lines."""

    host = "127.0.0.1"

    def __init__(self, port: int, token: str = TOKEN) -> None:
        self.port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            content = json.dumps(body) if body is not None else None
            connection.request("POST" if body is not None else "GET", path, content, self._headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        assert response.status == 200, answer
        return answer

    def start(self, **request: Any) -> str:
        return str(self.call("/api/gateway/runs/start", request)["run_id"])

    def run(self, run_id: str) -> Any:
        return self.call(f"/api/gateway/runs/{run_id}")

    def ledger(self, run_id: str) -> list[Any]:
        items: list[Any] = self.call(f"/api/gateway/runs/{run_id}/ledger?limit=2000")["items"]
        return items

    def answer(self, run_id: str, wait_key: str, response: str, command_id: str) -> Any:
        payload = {"wait_key": wait_key, "payload": {"response": response}}
        command = {"command_id": command_id, "run_id": run_id, "type": "resume", "payload": payload}
        return self.call("/api/gateway/commands", command)

    def follow(self, run_id: str, after: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield cursor and record of each step until the run has ended; the server may go away meanwhile."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", f"/api/gateway/runs/{run_id}/ledger/stream?after={after}", headers=self._headers)
            response = connection.getresponse()
            assert response.status == 200
            for line in response:
                if line.startswith(b'data: {"cursor"'):
                    data = json.loads(line[6:])
                    yield data["cursor"], data["record"]
        finally:
            connection.close()

    def question(self, run_id: str) -> tuple[int, str]:
        """Follow the run until it asks; return the cursor of the question and the key to answer with."""
        for cursor, record in self.follow(run_id):
            key = question_in(record)
            if key is not None:
                return cursor, key
        raise AssertionError(f"run {run_id} ended without a question")


def question_in(record: Any) -> str | None:
    """Return the key that a record's question waits on, or None."""
    wait = (record.get("result") or {}).get("wait") or {}
    return str(wait["wait_key"]) if record["status"] == "waiting" and wait.get("reason") == "user" else None

"""Kill a gateway in the middle of its work, again and again, and see that it lost nothing it had acknowledged.

A round starts a server on the same data directory, starts runs and answers their questions until enough of both is
acknowledged, and kills it. At the end every acknowledged run is followed to its end and every command is looked up.
"""

from __future__ import annotations

import http.client
import json
import queue
import signal
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores import open_file_stores, open_sqlite_stores
from tests.cli.processes import PATIENCE_S, Client, Process, environment, port_of, question_in

PROGRAM = str(Path(__file__).with_name("scripted_gateway.py"))
MODEL_CALLS = 3
GONE = (OSError, http.client.HTTPException, ValueError)
"""What a client meets when its server is killed: a reset, an empty answer, half an answer."""


@dataclass
class Acknowledged:
    """What the gateway has said yes to: runs, and commands by id."""

    runs: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def run_rounds(directory: Path, backend: str, rounds: int, *, runs: int = 8, commands: int = 5) -> Acknowledged:
    """Kill `rounds` servers, and return what was acknowledged after all of it has been found again.

    Raises `AssertionError` naming the run or command that was lost or went wrong.
    """
    flows = directory / "flows"
    flows.mkdir(parents=True)
    _write_bundle(flows / "busy.flow")
    env = environment(directory / "runtime", backend, FLOWS_DIR=flows, PROVIDER="scripted", MODEL="scripted")
    done = Acknowledged()
    for _ in range(rounds):
        _kill_one(env, done, runs=runs, commands=commands)
    with Process(PROGRAM, env=env) as process:
        client = Client(port_of(process))
        for run_id in done.runs:
            _drive_to_end(client, run_id, done)
        assert process.end() == 0, process.output
    _look_up(directory / "runtime", backend, done)
    return done


def _kill_one(env: dict[str, str], done: Acknowledged, *, runs: int, commands: int) -> None:
    with Process(PROGRAM, env=env) as process:
        client = Client(port_of(process))
        begun: queue.SimpleQueue[str] = queue.SimpleQueue()
        enough = threading.Event()
        wanted = (len(done.runs) + runs, len(done.commands) + commands)

        def start_runs() -> None:
            while not enough.is_set():
                run_id = client.start(bundle_id="busy", input_data={"note": "é" * 50})
                done.runs.append(run_id)
                begun.put(run_id)

        def answer_questions() -> None:
            while not enough.is_set():
                _drive_to_end(client, begun.get(timeout=PATIENCE_S), done, enough)
                if len(done.runs) >= wanted[0] and len(done.commands) >= wanted[1]:
                    enough.set()

        workers = [threading.Thread(target=_until_gone, args=(work, enough)) for work in (start_runs, answer_questions)]
        for worker in workers:
            worker.start()
        assert enough.wait(PATIENCE_S), f"not enough was acknowledged: {process.output}"
        process.end(signal.SIGKILL)
        for worker in workers:
            worker.join(PATIENCE_S)


def _until_gone(work: Any, enough: threading.Event) -> None:
    try:
        work()
    except GONE:
        assert enough.is_set(), "the server went away before it was killed"


def _drive_to_end(client: Client, run_id: str, done: Acknowledged, enough: threading.Event | None = None) -> None:
    """Follow a run and answer what it asks, until it has ended or enough is acknowledged."""
    for cursor, record in client.follow(run_id):
        key = question_in(record)
        if key is not None:
            command_id = f"{run_id}:{cursor}"
            client.answer(run_id, key, "Bob", command_id)
            if command_id not in done.commands:
                done.commands.append(command_id)
        if enough is not None and enough.is_set():
            return


def _look_up(data_dir: Path, backend: str, done: Acknowledged) -> None:
    stores = open_sqlite_stores(data_dir) if backend == "sqlite" else open_file_stores(data_dir)
    try:
        for run_id in done.runs:
            _check_run(stores, run_id)
        for command_id in done.commands:
            outcome = stores.commands.outcome(command_id)
            assert outcome is not None, f"command {command_id} was acknowledged and has no outcome"
            assert outcome.status == "applied", f"command {command_id} was {outcome.status}: {outcome.reason}"
    finally:
        stores.close()


def _check_run(stores: Any, run_id: str) -> None:
    stored = stores.runs.open(run_id)
    assert stored is not None, f"run {run_id} was acknowledged and is gone"
    assert stored.state.status.value == "completed", f"run {run_id} is {stored.state.status}: {stored.state.error}"
    assert stored.state.output == {"said": "Bob", "success": True}, f"run {run_id}: {stored.state.output}"
    records = stores.ledger.list(run_id)
    assert verify_chain(records).ok, f"the ledger of run {run_id} is broken"
    effects = [record["effect"]["type"] for record in records if record["status"] == "completed" and record["effect"]]
    assert effects.count("llm_call") == MODEL_CALLS, f"run {run_id} made other model calls than it was drawn to"
    assert effects.count("resume") == 1, f"run {run_id} was answered {effects.count('resume')} times"


def _write_bundle(path: Path) -> None:
    manifest = {
        "bundle_format_version": "1",
        "bundle_id": "busy",
        "bundle_version": "1.0.0",
        "created_at": "2026-01-01T00:00:00+00:00",
        "entrypoints": [{"flow_id": "busy", "name": "busy", "description": "", "interfaces": []}],
        "flows": {"busy": "flows/busy.json"},
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("flows/busy.json", json.dumps(_drawing()))


def _drawing() -> dict[str, Any]:
    """Return a flow that calls its model some times, says something as often, asks, and ends with the answer."""
    nodes = [
        _node("start", "on_flow_start", "", ">exec-out"),
        _node("for", "for", ">exec-in start end step", ">loop >done i", {"start": 0, "end": MODEL_CALLS, "step": 1}),
        _node("call", "llm_call", ">exec-in prompt", ">exec-out response", {"prompt": "work"}),
        _node("say", "answer_user", ">exec-in message", ">exec-out", {"message": "worked"}),
        _node("ask", "ask_user", ">exec-in prompt", ">exec-out response", {"prompt": "Who?"}),
        _node("end", "on_flow_end", ">exec-in said", ""),
    ]
    edges = [
        ("start", "exec-out", "for", "exec-in"),
        ("for", "loop", "call", "exec-in"),
        ("call", "exec-out", "say", "exec-in"),
        ("for", "done", "ask", "exec-in"),
        ("ask", "exec-out", "end", "exec-in"),
        ("ask", "response", "end", "said"),
    ]
    names = ("source", "sourceHandle", "target", "targetHandle")
    return {
        "id": "busy",
        "name": "busy",
        "nodes": nodes,
        "edges": [dict(zip(names, edge, strict=True)) for edge in edges],
    }


def _node(node_id: str, kind: str, inputs: str, outputs: str, defaults: Any = None) -> dict[str, Any]:
    data = {"inputs": _pins(inputs), "outputs": _pins(outputs), "pinDefaults": defaults or {}}
    return {"id": node_id, "type": kind, "data": data}


def _pins(text: str) -> list[dict[str, str]]:
    return [{"id": word.lstrip(">"), "type": "execution" if word.startswith(">") else "any"} for word in text.split()]

"""Kill a gateway in the middle of its work, again and again, and see that it lost nothing it had acknowledged.

A round starts a server on the same data directory, starts runs and answers their questions until enough of both is
acknowledged, and kills it. At the end every acknowledged run is followed to its end and every command is looked up.

The model and the tool of the runs write a line outside of the store each time, on stable storage before they return.
What is written twice must be in doubt in the ledger: a further attempt, for the tool after its user said so.
"""

from __future__ import annotations

import http.client
import json
import queue
import signal
import threading
import uuid
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores import open_file_stores, open_sqlite_stores
from abstractgateway.stores.base import RunQuery
from tests.cli.processes import PATIENCE_S, Client, Process, environment, port_of, question_in

PROGRAM = str(Path(__file__).with_name("scripted_gateway.py"))
MODEL_CALLS = 3
GONE = (OSError, http.client.HTTPException, ValueError)
"""What a client meets when its server is killed: a reset, an empty answer, half an answer."""


@dataclass(frozen=True)
class Effects:
    """How many effects were performed outside, begun again after a kill, and performed a second time by that."""

    performed: int = 0
    in_doubt: int = 0
    doubled: int = 0


@dataclass
class Acknowledged:
    """What the gateway has said yes to: runs, and commands by id."""

    runs: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    effects: Effects = Effects()


def run_rounds(directory: Path, backend: str, rounds: int, *, runs: int = 8, commands: int = 5) -> Acknowledged:
    """Kill `rounds` servers, and return what was acknowledged after all of it has been found again.

    Raises `AssertionError` naming the run or command that was lost or went wrong.
    """
    flows = directory / "flows"
    flows.mkdir(parents=True)
    write_bundle(flows / "busy.flow")
    outside = directory / "outside.txt"
    env = environment(directory / "runtime", backend, FLOWS_DIR=flows, PROVIDER="scripted", MODEL="scripted")
    env["OUTSIDE"] = str(outside)
    done = Acknowledged()
    for _ in range(rounds):
        _kill_one(env, done, runs=runs, commands=commands)
    with Process(PROGRAM, env=env) as process:
        client = Client(port_of(process))
        for run_id in done.runs:
            _drive_to_end(client, run_id, done)
        assert process.end() == 0, process.output
    _look_up(directory / "runtime", backend, done, outside)
    return done


def _kill_one(env: dict[str, str], done: Acknowledged, *, runs: int, commands: int) -> None:
    with Process(PROGRAM, env=env) as process:
        client = Client(port_of(process))
        begun: queue.SimpleQueue[str] = queue.SimpleQueue()
        enough = threading.Event()
        wanted = (len(done.runs) + runs, len(done.commands) + commands)

        def start_runs() -> None:
            while not enough.is_set():
                key = f"{uuid.uuid4().hex} é"
                calls = [{"name": "post", "arguments": {"key": key}}]
                run_id = client.start(bundle_id="busy", input_data={"key": key, "calls": calls})
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
            client.answer(run_id, key, "retry" if key.startswith("in_doubt:") else "Bob", command_id)
            if command_id not in done.commands:
                done.commands.append(command_id)
        if enough is not None and enough.is_set():
            return


def _look_up(data_dir: Path, backend: str, done: Acknowledged, outside: Path) -> None:
    stores = open_sqlite_stores(data_dir) if backend == "sqlite" else open_file_stores(data_dir)
    try:
        for run_id in done.runs:
            _check_run(stores, run_id)
        for command_id in done.commands:
            outcome = stores.commands.outcome(command_id)
            assert outcome is not None, f"command {command_id} was acknowledged and has no outcome"
            assert outcome.status == "applied", f"command {command_id} was {outcome.status}: {outcome.reason}"
        done.effects = _compare_effects(stores, outside.read_text().splitlines())
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
    asked = sum(question_in(record) is not None for record in records)
    assert effects.count("resume") == asked, f"run {run_id} asked {asked} times, got {effects.count('resume')} answers"


def _compare_effects(stores: Any, lines: list[str]) -> Effects:
    """Compare what was done outside with what every run's ledger says, acknowledged or not."""
    performed, intended, agreed = Counter(lines), Counter[str](), Counter[str]()
    for row in stores.runs.find(RunQuery(limit=None)):
        records = stores.ledger.list(row.run_id)
        for record in records:
            name = _name_of(record)
            intended[name] += record["status"] == "started"
            agreed[name] += record["status"] == "waiting" and record is not records[-1]
    for name, times in performed.items():
        assert times <= intended[name], f"{name!r} was performed {times} times, with {intended[name]} intents"
        if name.startswith("tool_calls"):
            assert intended[name] == 1 + agreed[name], f"{name!r} was begun again without being asked for"
    del intended[""]
    again = sum(times - 1 for times in intended.values())
    return Effects(performed.total(), again, performed.total() - len(performed))


def _name_of(record: Any) -> str:
    """Return the line that an effect writes outside; an empty one for a record of something else."""
    effect = record["effect"] or {}
    if effect.get("type") == "llm_call":
        return f"llm_call {effect['payload']['prompt']}"
    if effect.get("type") == "tool_calls":
        return f"tool_calls {effect['payload']['tool_calls'][0]['arguments']['key']}"
    return ""


def write_bundle(path: Path) -> None:
    """Write a bundle whose runs call a model three times, then a tool, ask, and end with the answer."""
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
    """Return a flow that calls its model and says so, some times, calls a tool, asks, and ends with the answer."""
    nodes = [
        _node("start", "on_flow_start", "", ">exec-out key calls"),
        _node("for", "for", ">exec-in start end step", ">loop >done i", {"start": 0, "end": MODEL_CALLS, "step": 1}),
        _node("text", "concat", "a b", "result"),
        _node("call", "llm_call", ">exec-in prompt", ">exec-out response"),
        _node("say", "answer_user", ">exec-in message", ">exec-out", {"message": "worked"}),
        _node("post", "tool_calls", ">exec-in tool_calls", ">exec-out success"),
        _node("ask", "ask_user", ">exec-in prompt", ">exec-out response", {"prompt": "Who?"}),
        _node("end", "on_flow_end", ">exec-in said", ""),
    ]
    edges = [
        ("start", "exec-out", "for", "exec-in"),
        ("for", "loop", "call", "exec-in"),
        ("call", "exec-out", "say", "exec-in"),
        ("start", "key", "text", "a"),
        ("for", "i", "text", "b"),
        ("text", "result", "call", "prompt"),
        ("for", "done", "post", "exec-in"),
        ("start", "calls", "post", "tool_calls"),
        ("post", "exec-out", "ask", "exec-in"),
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

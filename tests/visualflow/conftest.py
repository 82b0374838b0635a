from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.runtime.context import StepContext, derive_id
from abstractgateway.runtime.models import Effect, EffectType, RunState, RunStatus, WorkflowSpec
from abstractgateway.visualflow import compile_flow
from tests.visualflow.original import KNOWN

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


class FixedClock:
    def __init__(self) -> None:
        self.instant = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.instant.timestamp()


@dataclass
class Result:
    status: str
    output: dict[str, Any] | None
    error: str | None
    vars: dict[str, Any]
    waiting: Effect | None = None


@dataclass
class Driver:
    """Runs compiled flows without the kernel: effects are answered from scripts."""

    workflows: dict[str, WorkflowSpec] = field(default_factory=dict)
    llm: Callable[[dict[str, Any]], Any] | list[Any] = field(default_factory=list)
    tools: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    is_restarted_each_step: bool = False
    max_steps: int = 50_000
    effects: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    visited: list[str] = field(default_factory=list)
    children: list[RunState] = field(default_factory=list)
    clock: FixedClock = field(default_factory=FixedClock)

    def add(self, document: Any, workflow_id: str | None = None) -> str:
        compiled = compile_flow(document, workflow_id=workflow_id)
        for spec in (compiled.workflow, *compiled.derived):
            self.workflows[spec.workflow_id] = spec
        return compiled.workflow.workflow_id

    def payloads(self, effect: EffectType) -> list[dict[str, Any]]:
        return [payload for name, _, payload in self.effects if name == effect.value]

    def run(self, workflow_id: str, variables: dict[str, Any] | None = None, *, run_id: str = "run-1") -> Result:
        *_, last = self.steps(workflow_id, variables, run_id=run_id)
        return last

    def steps(
        self, workflow_id: str, variables: dict[str, Any] | None = None, *, run_id: str = "run-1"
    ) -> Iterator[Result]:
        spec = self.workflows[workflow_id]
        run = RunState(run_id, workflow_id, RunStatus.RUNNING, spec.entry_node, json.loads(json.dumps(variables or {})))
        for number in range(self.max_steps):
            if self.is_restarted_each_step:
                run.vars = json.loads(json.dumps(run.vars, allow_nan=False))
            result = self._step(spec, run, number)
            yield result
            if result.status != "running":
                return
        yield Result("stopped", None, "the run takes too many steps", run.vars)

    def _step(self, spec: WorkflowSpec, run: RunState, number: int) -> Result:
        node_id = run.current_node
        self.visited.append(node_id)
        try:
            plan = spec.get_node(node_id)(run, StepContext(self.clock, run.run_id, number))
        except Exception as error:
            return Result("failed", None, f"node {node_id!r}: {type(error).__name__}: {error}", run.vars)
        if plan.complete_output is not None:
            json.dumps(plan.complete_output, allow_nan=False)
            return Result("completed", plan.complete_output, None, run.vars)
        stored: Any = None
        if plan.effect is not None:
            payload = json.loads(json.dumps(plan.effect.payload, allow_nan=False))
            self.effects.append((plan.effect.type.value, node_id, payload))
            stored = self._perform(plan.effect.type, payload, run, node_id)
            if stored is NOTHING:
                return Result("waiting", None, None, run.vars, plan.effect)
            if isinstance(stored, Failure):
                return Result("failed", None, stored.text, run.vars)
            if stored is not None and plan.effect.result_key:
                store(run.vars, plan.effect.result_key, stored)
        if plan.next_node is None:
            return Result("completed", {"success": True, "result": stored}, None, run.vars)
        temp = run.vars.setdefault("_temp", {})
        temp["prev_node_id"], temp["prev_next_node"] = node_id, plan.next_node
        run.current_node = plan.next_node
        return Result("running", None, None, run.vars)

    def _perform(self, effect: EffectType, payload: dict[str, Any], run: RunState, node_id: str) -> Any:
        if effect is EffectType.LLM_CALL:
            return self._model(payload)
        if effect is EffectType.TOOL_CALLS:
            return {"mode": "executed", "results": [self._tool(call) for call in payload["tool_calls"]]}
        if effect is EffectType.ASK_USER:
            return {"response": self.answers.pop(0)} if self.answers else NOTHING
        if effect is EffectType.ANSWER_USER:
            return {"message": payload["message"], "level": payload["level"]}
        if effect is EffectType.EMIT_EVENT:
            return {"wait_key": "evt", "delivered": 0, "delivered_to": [], "resumed": [], "name": payload["name"]}
        if effect is EffectType.WAIT_EVENT:
            return self.events.pop(0) if self.events else NOTHING
        if effect is EffectType.WAIT_UNTIL:
            self.clock.instant += timedelta(hours=1)
            return None
        if effect.value in KNOWN:
            return dict(KNOWN[effect.value])
        if effect.value.startswith("memory_"):
            return {"mode": "executed", "results": []}
        assert effect is EffectType.START_SUBWORKFLOW
        return self._child(payload, run, node_id)

    def _model(self, payload: dict[str, Any]) -> Any:
        answer = self.llm(payload) if callable(self.llm) else self.llm.pop(0)
        if isinstance(answer, Failure):
            return answer
        given = answer if isinstance(answer, dict) else {"content": answer}
        return {
            "content": None,
            "data": None,
            "tool_calls": None,
            "finish_reason": "stop",
            "usage": {"total_tokens": 3},
            **given,
        }

    def _tool(self, call: dict[str, Any]) -> dict[str, Any]:
        base = {"call_id": call.get("call_id"), "name": call["name"]}
        if call["name"] not in self.tools:
            return {**base, "success": False, "output": None, "error": "unknown tool"}
        return {**base, "success": True, "output": self.tools[call["name"]](**call["arguments"]), "error": None}

    def _child(self, payload: dict[str, Any], run: RunState, node_id: str) -> Any:
        if payload["workflow_id"] not in self.workflows:
            return Failure(f"node {node_id!r}: no workflow {payload['workflow_id']!r}")
        child_id = derive_id(run.run_id, node_id, str(len(self.children)))
        child = RunState(child_id, payload["workflow_id"], RunStatus.RUNNING, "", payload["vars"])
        self.children.append(child)
        result = self.run(payload["workflow_id"], payload["vars"], run_id=child_id)
        if result.status == "completed":
            return {"sub_run_id": child_id, "output": result.output}
        return {"sub_run_id": child_id, "output": {"success": False, "error": result.error}}


@dataclass(frozen=True)
class Failure:
    text: str


NOTHING = object()


def store(variables: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    if key.startswith("/"):
        parts = [part.replace("~1", "/").replace("~0", "~") for part in key[1:].split("/")]
    for part in parts[:-1]:
        variables = variables.setdefault(part, {})
    variables[parts[-1]] = value


def node(
    node_id: str,
    kind: str,
    inputs: str = "",
    outputs: str = "",
    *,
    defaults: dict[str, Any] | None = None,
    **data: Any,
) -> dict[str, Any]:
    """Make a node; pins are words: `>` the usual execution pin, `>x` one named `x`, `x|type` a typed one."""
    given = {"inputs": _pins(inputs, "exec-in"), "outputs": _pins(outputs, "exec-out"), **data}
    if defaults is not None:
        given["pinDefaults"] = defaults
    return {"id": node_id, "type": kind, "data": given}


def _pins(text: str, exec_name: str) -> list[dict[str, Any]]:
    pins = []
    for word in text.split():
        if word.startswith(">"):
            pins.append({"id": word[1:] or exec_name, "type": "execution"})
        else:
            name, _, kind = word.partition("|")
            pins.append({"id": name, "type": kind or "any"})
    return pins


def flow(nodes: list[dict[str, Any]], edges: list[str], flow_id: str = "f", entry: str | None = None) -> dict[str, Any]:
    """Make a document; an edge is `a > b`, `a.true > b` or `a.value -> b.text`."""
    return {
        "id": flow_id,
        "nodes": nodes,
        "edges": [_edge(text) for text in edges],
        **({"entryNode": entry} if entry else {}),
    }


def _edge(text: str) -> dict[str, str]:
    arrow = " -> " if " -> " in text else " > "
    left, right = text.split(arrow)
    source, _, source_handle = left.partition("/")
    target, _, target_handle = right.partition("/")
    return {
        "source": source,
        "sourceHandle": source_handle or "exec-out",
        "target": target,
        "targetHandle": target_handle or "exec-in",
    }


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def make_driver() -> type[Driver]:
    return Driver


@pytest.fixture
def draw() -> Any:
    class Draw:
        pass

    drawing = Draw()
    drawing.node, drawing.flow, drawing.failure = node, flow, Failure  # type: ignore[attr-defined]
    return drawing


@pytest.fixture
def evaluate(driver: Driver) -> Callable[..., Any]:
    """Compute one pure node: its inputs come from the run's variables, its output ends the run."""

    def compute(
        kind: str, inputs: dict[str, Any] | None = None, *, out: str = "result", pins: str | None = None, **data: Any
    ) -> Any:
        given = inputs or {}
        names = pins if pins is not None else " ".join(given)
        document = flow(
            [
                node("start", "on_flow_start", "", "> " + " ".join(given)),
                node("x", kind, names, out, **data),
                node("end", "on_flow_end", "> y", ""),
            ],
            ["start > end", f"x/{out} -> end/y", *(f"start/{name} -> x/{name}" for name in given)],
        )
        result = driver.run(driver.add(document, "f"), given)
        if result.status != "completed" or result.output is None:
            raise ValueError(result.error)
        return result.output["y"]

    return compute


@pytest.fixture
def bundle() -> Callable[[str], dict[str, dict[str, Any]]]:
    def read(name: str) -> dict[str, dict[str, Any]]:
        path = SHARED / "flows" / "bundles" / name
        if not path.exists():
            pytest.skip(f"the shared bundle {name} is not here")
        with zipfile.ZipFile(path) as archive:
            names = [item for item in archive.namelist() if item.startswith("flows/")]
            return {Path(item).stem: json.loads(archive.read(item)) for item in names}

    return read

"""Nodes whose behaviour is written in Python, executed in a process that can only compute.

A call that is ready soon is part of its step. One that takes longer becomes the effect `run_code`, so that it holds up
no other run, can be cancelled, and is known to the ledger; code has no side effects, so it may be executed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...runtime.models import Effect, EffectOutcome, EffectType, RunState
from ..flow import Node
from ..node import Action, Deferred, Evaluate, Inputs, NodeType
from ..sandbox import (
    CodeFailed,
    CodeRunner,
    Program,
    TakesLong,
    code_problems,
    compile_expression,
    compile_function,
    is_for_newer_python,
    shared_pool,
)
from ..state import Step
from ..values import first_text

_DEFAULT_FUNCTION = "transform"


def code_types(runner: CodeRunner | None = None) -> tuple[NodeType, ...]:
    """Return the node types whose code the runner executes; without one, the pool of the whole program."""
    rows = (
        ("code", "Calls a Python function with its inputs and gives what it returns.", ("input",), ("output",)),
        ("function", "Calls a Python function, or computes an expression of its inputs.", (), ("result",)),
    )
    return tuple(
        NodeType(name, "code", _action(runner), inputs, outputs, text, check=_check, advise=_advise)
        for name, text, inputs, outputs in rows
    )


def run_code(runner: CodeRunner) -> Callable[[RunState, Effect, str | None], EffectOutcome]:
    """Return the handler of the effect `run_code`: payload `source`, `function`, `input`, `seed`, `now`."""

    def handle(_run: RunState, effect: Effect, _next_node: str | None) -> EffectOutcome:
        payload = effect.payload
        program = _compiled(str(payload["source"]), payload.get("function"))
        try:
            value = runner.run(program, payload.get("input"), seed=str(payload["seed"]), now=str(payload["now"]))
        except CodeFailed as error:
            return EffectOutcome.failed(f"{type(error).__name__}: {error}")
        return EffectOutcome.completed({"value": value})

    return handle


def _action(runner: CodeRunner | None) -> Action:
    return Action(
        lambda node: _evaluation(node, runner, is_executed=True),
        as_pure=lambda node: _evaluation(node, runner, is_executed=False),
        acts_without_pins=True,
        may_defer=True,
    )


def _evaluation(node: Node, runner: CodeRunner | None, *, is_executed: bool) -> Evaluate:
    source, function = _source_of(node)
    if source is None:
        return lambda inputs, step: _argument(node, inputs, step) if is_executed else inputs
    if is_for_newer_python(code_problems(source, function)):
        return _unreadable(source, function)
    program = _compiled(source, function)

    def call(inputs: Inputs, step: Step) -> Any:
        argument = _argument(node, inputs, step) if is_executed else inputs
        seed, now = str(step.ctx.random().getrandbits(64)), step.ctx.now_iso()
        try:
            return (runner or shared_pool()).run(program, argument, seed=seed, now=now, is_urgent=True)
        except TakesLong:
            payload = {"source": source, "function": function, "input": argument, "seed": seed, "now": now}
            raise Deferred(EffectType.RUN_CODE, payload) from None

    return call


def _unreadable(source: str, function: str | None) -> Evaluate:
    """The rest of the flow can run on this version of Python; the node fails when it is reached."""

    def refuse(_inputs: Inputs, _step: Step) -> Any:
        raise CodeFailed("; ".join(code_problems(source, function)))

    return refuse


def _argument(node: Node, inputs: Inputs, step: Step) -> Any:
    """Code sees all its inputs at once; where there are none, the bus as it is."""
    if inputs:
        return inputs
    key = first_text(node.data.get("inputKey"))
    return step.vars.get(key) if key else step.bus


def _source_of(node: Node) -> tuple[str | None, str | None]:
    """Return the node's text and the function to call in it; no text means that the input is the output."""
    code = first_text(node.data.get("code"))
    if code is not None:
        return str(node.data["code"]), first_text(node.data.get("functionName")) or _DEFAULT_FUNCTION
    expression = first_text(node.data.get("expression")) if node.type == "function" else None
    return expression, None


def _compiled(source: str, function: str | None) -> Program:
    return compile_function(source, function) if function is not None else compile_expression(source)


def _check(node: Node) -> str | None:
    problems = _problems(node)
    return None if is_for_newer_python(problems) else "; ".join(problems) or None


def _advise(node: Node) -> str | None:
    problems = _problems(node)
    return "; ".join(problems) if is_for_newer_python(problems) else None


def _problems(node: Node) -> tuple[str, ...]:
    source, function = _source_of(node)
    return () if source is None else code_problems(source, function)


TYPES = code_types()

"""Where a flow begins and where it ends."""

from __future__ import annotations

from typing import Any

from ...jsonvalue import JsonObject
from ..flow import Node
from ..node import Action, Evaluate, Inputs, NodeType
from ..state import Step, public_variables


def _start(node: Node) -> Evaluate:
    defaults, pins = node.pin_defaults, node.data_outputs

    def declared(_inputs: Inputs, step: Step) -> JsonObject:
        given = step.vars
        return {pin: given[pin] if pin in given else defaults.get(pin) for pin in pins}

    def everything(_inputs: Inputs, step: Step) -> JsonObject:
        return {**defaults, **public_variables(step.vars)}

    return declared if pins else everything


def _end(node: Node) -> Evaluate:
    pins = node.data_inputs

    def collect(inputs: Inputs, step: Step) -> Any:
        if pins:
            return {pin: inputs.get(pin) for pin in pins}
        return inputs or step.bus

    return collect


def _finish(_step: Step, output: Any) -> JsonObject:
    if not isinstance(output, dict):
        return {"response": output, "success": True}
    return output if "success" in output else {**output, "success": True}


def _user_request(_node: Node) -> Evaluate:
    return lambda _inputs, step: {"message": step.vars.get("message", ""), "context": step.vars.get("context", {})}


def _agent_message(node: Node) -> Evaluate:
    channel = node.config("eventConfig").get("channel", "")

    def receive(_inputs: Inputs, step: Step) -> JsonObject:
        given = step.vars
        return {"sender": given.get("sender", "unknown"), "message": given.get("message", ""), "channel": channel}

    return receive


TYPES = (
    NodeType("on_flow_start", "entry", Action(_start), (), ("exec-out",), "Begins the flow with the run's inputs."),
    NodeType(
        "on_user_request", "entry", Action(_user_request), (), ("message", "context"), "Begins with a user's message."
    ),
    NodeType(
        "on_agent_message",
        "entry",
        Action(_agent_message),
        (),
        ("sender", "message", "channel"),
        "Begins with a message from another agent.",
    ),
    NodeType(
        "on_flow_end",
        "entry",
        Action(_end, finish=_finish, is_end=True),
        ("exec-in",),
        (),
        "Ends the run with its inputs as output.",
    ),
)

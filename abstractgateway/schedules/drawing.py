"""A schedule as a flow that clients draw: the shapes and the names that AbstractGateway's drawings have.

The drawing shows a schedule; what drives it is `workflow`.
"""

from __future__ import annotations

from typing import Any

from ..jsonvalue import JsonObject
from .timing import Timing

Node = JsonObject
_WIDTH = 240


def draw_schedule(workflow_id: str, definition: JsonObject) -> JsonObject:
    """Return the VisualFlow document of a schedule, from what its run has in `_meta.schedule`."""
    timing = Timing.of(definition)
    is_isolated = definition.get("share_context") is False
    if not timing.is_recurrent:
        nodes, ways = _once(timing, definition)
    elif timing.repeat_count is None and timing.repeat_until is None:
        nodes, ways = _for_ever(timing, definition)
    else:
        nodes, ways = _so_often(timing, definition)
    edges = [_edge(way, is_execution=True) for way in ways]
    wires = _FIRST_ROUND if any(node["id"] == "is_first" for node in nodes) else []
    edges += [_edge("start/vars > run_target/vars"), *map(_edge, wires)]
    if is_isolated:
        nodes, edges = _isolated(nodes, edges, timing)
    return {
        "id": workflow_id,
        "name": "scheduled",
        "description": f"Runs {definition.get('target_workflow_id')} on a schedule.",
        "interfaces": [],
        "nodes": [{**node, "position": {"x": _WIDTH * place, "y": 0}} for place, node in enumerate(nodes)],
        "edges": edges,
        "entryNode": "start",
    }


def _once(timing: Timing, definition: JsonObject) -> tuple[list[Node], list[str]]:
    nodes = [_start(), _wait_start(timing), _target(definition), _end()]
    return nodes, ["start > wait_start", "wait_start > run_target", "run_target > end"]


def _for_ever(timing: Timing, definition: JsonObject) -> tuple[list[Node], list[str]]:
    nodes = [_start(), _wait_start(timing), _target(definition), _wait_interval(timing)]
    ways = ["start > wait_start", "wait_start > run_target", "run_target > wait_interval"]
    return nodes, [*ways, "wait_interval > run_target"]


def _so_often(timing: Timing, definition: JsonObject) -> tuple[list[Node], list[str]]:
    """Draw a loop; where only the last time is known, it is drawn without an end of its count."""
    rounds = {"start": 0, "step": 1, **({"end": timing.repeat_count} if timing.repeat_count is not None else {})}
    nodes = [
        _start(),
        _node("repeat", "for", "Repeat", inputs=["start", "end", "step"], outputs=["i", "index"], pinDefaults=rounds),
        _node("is_first", "compare", "First?", inputs=["a", "b"], outputs=["result"], pinDefaults={"b": 0, "op": "=="}),
        _node("pick_wait", "if", "Which wait", inputs=["condition"], outputs=[]),
        _wait_start(timing),
        _wait_interval(timing),
        _target(definition),
        _end(),
    ]
    ways = [
        "start > repeat",
        "repeat/loop > pick_wait",
        "pick_wait/true > wait_start",
        "pick_wait/false > wait_interval",
    ]
    return nodes, [*ways, "wait_start > run_target", "wait_interval > run_target", "repeat/done > end"]


def _isolated(nodes: list[Node], edges: list[JsonObject], timing: Timing) -> tuple[list[Node], list[JsonObject]]:
    """Add what gives each execution a session of its own, in front of the target."""
    place = next(number for number, node in enumerate(nodes) if node["id"] == "run_target")
    source, number = _number(timing)
    added = [
        *source,
        _node("prefix_colon", "concat", "Prefix", inputs=["a", "b"], outputs=["result"], pinDefaults={"b": ":"}),
        _node("child_sid", "concat", "Session", inputs=["a", "b"], outputs=["result"]),
        _node("set_child_sid", "set_var", "Keep", inputs=["value"], outputs=["value"], pinDefaults=_SESSION_NAME),
    ]
    for edge in edges:
        if edge["target"] == "run_target" and edge["animated"]:
            edge["target"] = "set_child_sid"
    wires = [
        "start/session_prefix > prefix_colon/a",
        "prefix_colon/result > child_sid/a",
        f"{number} > child_sid/b",
        "child_sid/result > set_child_sid/value",
        "set_child_sid/value > run_target/child_session_id",
        *(["repeat/index > idx_str/value"] if number == "idx_str/result" else []),
    ]
    drawn = [*edges, _edge("set_child_sid > run_target", is_execution=True), *map(_edge, wires)]
    return [*nodes[:place], *added, *nodes[place:]], drawn


_FIRST_ROUND = ["repeat/index > is_first/a", "is_first/result > pick_wait/condition"]
_SESSION_NAME = {"name": "child_session_id"}


def _number(timing: Timing) -> tuple[list[Node], str]:
    """Return the nodes that tell executions apart, and the pin where they do."""
    if not timing.is_recurrent:
        return [_node("zero", "literal_string", "0", inputs=[], outputs=["value"], literalValue="0")], "zero/value"
    if timing.repeat_count is None:
        return [_node("dt", "system_datetime", "Now", inputs=[], outputs=["iso"])], "dt/iso"
    return [_node("idx_str", "stringify_json", "Number", inputs=["value"], outputs=["result"])], "idx_str/result"


def _start() -> Node:
    return _node("start", "on_flow_start", "Start", inputs=[], outputs=["vars", "session_prefix"])


def _end() -> Node:
    return _node("end", "on_flow_end", "End", inputs=[], outputs=[])


def _target(definition: JsonObject) -> Node:
    target = definition.get("target_workflow_id")
    inputs = ["vars", "child_session_id"]
    return _node("run_target", "subflow", "Run", inputs=inputs, outputs=["output"], subflowId=target)


def _wait_start(timing: Timing) -> Node:
    return _waiting("wait_start", "Wait for the start", {"schedule": timing.start_at or "0s", "recurrent": False})


def _wait_interval(timing: Timing) -> Node:
    if timing.cron is not None:
        told = {"schedule": timing.cron, "cron": timing.cron, "timezone": timing.timezone, "recurrent": False}
        return _waiting("wait_interval", "Wait for the next time", told)
    return _waiting("wait_interval", "Wait for the next time", {"schedule": timing.interval, "recurrent": False})


def _waiting(node_id: str, label: str, config: JsonObject) -> Node:
    return _node(node_id, "on_schedule", label, inputs=[], outputs=["timestamp"], eventConfig=config)


_ENTRIES = frozenset({"start"})
_ENDS = frozenset({"end"})
_EXECUTED = frozenset({"on_flow_start", "on_flow_end", "on_schedule", "subflow", "for", "if", "set_var"})
_BRANCHES = {"for": ("loop", "done"), "if": ("true", "false")}


def _node(node_id: str, type: str, label: str, *, inputs: list[str], outputs: list[str], **data: Any) -> Node:
    ways_out = _BRANCHES.get(type, ("exec-out",)) if type in _EXECUTED and node_id not in _ENDS else ()
    ways_in = ("exec-in",) if type in _EXECUTED and node_id not in _ENTRIES else ()
    return {
        "id": node_id,
        "type": type,
        "data": {
            "nodeType": type,
            "label": label,
            "inputs": [*map(_execution, ways_in), *map(_value, inputs)],
            "outputs": [*map(_execution, ways_out), *map(_value, outputs)],
            **data,
        },
    }


def _execution(pin: str) -> JsonObject:
    return {"id": pin, "label": "", "type": "execution"}


def _value(pin: str) -> JsonObject:
    return {"id": pin, "label": pin, "type": "any"}


def _edge(text: str, *, is_execution: bool = False) -> JsonObject:
    """Return the edge that `source[/pin] > target[/pin]` describes."""
    source, _, target = text.partition(" > ")
    from_node, _, from_pin = source.partition("/")
    to_node, _, to_pin = target.partition("/")
    return {
        "id": "d_vars" if text == "start/vars > run_target/vars" else f"e_{from_node}_{from_pin or 'exec'}_{to_node}",
        "source": from_node,
        "sourceHandle": from_pin or "exec-out",
        "target": to_node,
        "targetHandle": to_pin or "exec-in",
        "animated": is_execution,
    }

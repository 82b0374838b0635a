"""A flow that asks a model once, as a bundle."""

from __future__ import annotations

from typing import Any

from tests.http.conftest import packed

EXEC = {"id": "exec-out", "type": "execution"}
PROMPT = {"id": "prompt", "label": "Prompt", "type": "string"}


def edge(source: str, target: str, pin: str | None = None) -> dict[str, Any]:
    """An edge of execution, or one between two pins of the same name."""
    handles = ("exec-out", "exec-in") if pin is None else (pin, pin)
    identity = f"{source}-{target}-{pin}"
    return {
        "id": identity,
        "source": source,
        "sourceHandle": handles[0],
        "target": target,
        "targetHandle": handles[1],
    }


def asking() -> bytes:
    """The bundle `asks`: its run gives its prompt to the model and ends with the response."""
    nodes = [
        {"id": "s", "type": "on_flow_start", "data": {"outputs": [EXEC, PROMPT]}},
        {"id": "m", "type": "llm_call", "data": {"effectConfig": {"provider": "openai", "model": "m"}}},
        {"id": "e", "type": "on_flow_end", "data": {"inputs": [{"id": "response", "type": "string"}]}},
    ]
    edges = [edge("s", "m"), edge("s", "m", "prompt"), edge("m", "e"), edge("m", "e", "response")]
    return packed("asks", flow={"id": "root", "name": "root", "nodes": nodes, "edges": edges})

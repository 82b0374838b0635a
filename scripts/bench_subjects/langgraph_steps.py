"""LangGraph with its SQLite checkpointer, in process."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from typing import TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    left: int
    said: str


def say(state: State) -> State:
    return {"left": state["left"] - 1, "said": f"step {state['left']}"}


builder = StateGraph(State)
builder.add_node("say", say)
builder.add_edge(START, "say")
builder.add_conditional_edges("say", lambda state: "say" if state["left"] > 0 else END)


def timed(graph, runs: int, steps: int) -> float:
    begin = time.perf_counter()
    for _ in range(runs):
        config = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": steps + 10}
        graph.invoke({"left": steps, "said": ""}, config, durability="sync")
    return runs * steps / (time.perf_counter() - begin)


directory = tempfile.TemporaryDirectory(prefix="bench-")
with SqliteSaver.from_conn_string(f"{directory.name}/g.sqlite") as saver:
    graph = builder.compile(checkpointer=saver)
    figures = {
        "1 run x 100 steps": timed(graph, 1, 100),
        "1 run x 1,000 steps": timed(graph, 1, 1000),
        "200 runs x 10 steps": timed(graph, 200, 10),
    }
print(json.dumps(figures))

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import EffectOutcome, EffectType, RunState
from tests.runtime.remembering import perform, said
from tests.runtime.workflows import Calls, Json, World


def call(world: World, payload: Json, answer: Any, *, vars: Json | None = None) -> RunState:
    handlers = {EffectType.LLM_CALL: Calls(then=EffectOutcome.completed(answer))}
    return perform(world, (EffectType.LLM_CALL, payload), vars=vars, handlers=handlers)


def turns(state: RunState) -> list[tuple[str, Any]]:
    context = state.vars.get("context") or {}
    return [(message["role"], message["content"]) for message in context.get("messages", [])]


@pytest.mark.parametrize("wish", ["include_context", "use_context"])
def test_a_turn_is_kept_where_the_call_asks_for_it(world: World, wish: str) -> None:
    vars = said("earlier")

    state = call(world, {"prompt": "hi", "system_prompt": "s", wish: True}, {"content": "hello"}, vars=vars)

    assert turns(state) == [("user", "earlier"), ("user", "hi"), ("assistant", "hello")]
    assert state.vars["context"]["messages"][-1]["metadata"] == {"kind": "llm_turn", "node_id": "n0"}
    assert state.vars["context"]["task"] == "t"


def test_nothing_is_kept_otherwise(world: World) -> None:
    state = call(world, {"prompt": "hi", "include_context": False}, {"content": "hello"})

    assert turns(state) == []


def test_of_complete_messages_the_last_one_of_the_user_is_the_turn(world: World) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]

    state = call(world, {"messages": messages, "include_context": True}, {"content": "five"})

    assert turns(state) == [("user", "three"), ("assistant", "five")]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ({"content": None, "data": {"a": 1}}, [("user", "hi"), ("assistant", '{"a":1}')]),
        ({"content": None, "text": "spoken"}, [("user", "hi"), ("assistant", "spoken")]),
        ({"content": None, "tool_calls": [{"name": "f"}]}, [("user", "hi")]),
        ("plain", [("user", "hi"), ("assistant", "plain")]),
    ],
)
def test_what_was_answered_is_kept_in_any_form(world: World, answer: Any, kept: list[tuple[str, Any]]) -> None:
    assert turns(call(world, {"text": "hi", "include_context": True}, answer)) == kept


def test_a_call_without_anything_said_keeps_nothing(world: World) -> None:
    state = call(world, {"media": "a.png", "include_context": True}, {"content": ""}, vars={"context": "odd"})

    assert state.vars["context"] == "odd"


def test_a_failed_call_keeps_no_turn(world: World) -> None:
    handlers = {EffectType.LLM_CALL: Calls(then=EffectOutcome.failed("no"))}

    state = perform(world, (EffectType.LLM_CALL, {"prompt": "hi", "include_context": True}), handlers=handlers)

    assert turns(state) == []

"""Looking into variables with an effect, and where results are put."""

from __future__ import annotations

import json
from typing import Any

import pytest

from abstractgateway.runtime import Effect, EffectType, RunStatus, StepPlan
from tests.runtime.workflows import Json, World, effect, end, spec

VARS = {
    "scratchpad": {"notes": ["a", {"b": 2}], "a/b": {"~": "tilde"}, "empty": {}},
    "other": [1, 2, 3],
    "text": "words",
}


def looked(world: World, payload: Json) -> Json:
    """Return the one tool result of a look into the variables."""
    workflow = spec("looks", look=effect("look", EffectType.VARS_QUERY, payload, then="end", key="found"))
    workflow.nodes["end"] = end("end", "found")
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow, vars=VARS)
    state = runtime.tick(workflow=workflow, run_id=run_id)
    assert state.status is RunStatus.COMPLETED and state.output is not None
    (entry,) = state.output["found"]["results"]
    return entry


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("scratchpad.notes[1].b", 2),
        ("scratchpad.notes.0", "a"),
        ("/scratchpad/notes/1/b", 2),
        ("/scratchpad/a~1b/~0", "tilde"),
        ("text", "words"),
        ("scratchpad.empty", {}),
    ],
)
def test_a_place_is_found_however_it_is_written(world: World, path: str, value: Any) -> None:
    entry = looked(world, {"path": path, "call_id": "c1", "tool_name": "peek"})

    assert (entry["success"], entry["error"], entry["call_id"], entry["name"]) == (True, None, "c1", "peek")
    assert json.loads(entry["output"]) == {"path": path, "type": type(value).__name__, "value": value}


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({}, {"path": "scratchpad", "type": "dict", "value": VARS["scratchpad"]}),
        ({"keys_only": True}, {"path": "scratchpad", "type": "dict", "keys": ["a/b", "empty", "notes"]}),
        ({"var_path": "other", "keys_only": True}, {"path": "other", "type": "list", "length": 3}),
        ({"path": "text", "keys_only": True}, {"path": "text", "type": "str", "value": "words"}),
    ],
    ids=["the default", "keys of an object", "length of a list", "a text has no keys"],
)
def test_what_is_found_is_told_whole_or_by_its_keys(world: World, payload: Json, found: Json) -> None:
    assert json.loads(looked(world, payload)["output"]) == found


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("scratchpad.nothing.b", "Missing key 'nothing'"),
        ("other[3]", "Index '3' is not in the list of 3"),
        ("other.first", "Index 'first' is not in the list of 3"),
        ("text.0", "Expected object or list at '0'"),
    ],
)
def test_a_place_that_is_not_there_is_a_failed_tool_call_and_fails_no_run(world: World, path: str, error: str) -> None:
    entry = looked(world, {"path": path})

    assert (entry["success"], entry["output"]) == (False, None)
    assert error in entry["error"] and repr(path) in entry["error"]


def test_the_variables_of_another_run_can_be_looked_into(world: World) -> None:
    other = spec("other", ask=effect("ask", EffectType.ASK_USER, {"prompt": "?"}))
    runtime = world.runtime({}, other)
    other_id = runtime.start(workflow=other, vars={"scratchpad": {"mine": 1}})

    assert json.loads(looked(world, {"target_run_id": other_id})["output"])["value"] == {"mine": 1}
    entry = looked(world, {"target_run_id": "nobody"})
    assert (entry["success"], entry["error"]) == (False, "unknown run 'nobody'")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("a.b.c", ["a", "b", "c"]),
        ("/a/b.c/d~1e/~0", ["a", "b.c", "d/e", "~"]),
    ],
)
def test_a_result_is_put_at_the_place_its_key_names(world: World, key: str, place: list[str]) -> None:
    answered = Effect(EffectType.ANSWER_USER, {"message": "hi"}, key)
    workflow = spec("puts", say=lambda run, ctx: StepPlan("say", effect=answered, next_node="end"), end=end("end", "a"))
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow, vars={"a": {"kept": 1}})

    state = runtime.tick(workflow=workflow, run_id=run_id)

    found: Any = state.output
    for name in place:
        found = found[name]
    assert found["message"] == "hi"
    assert state.output is not None and state.output["a"]["kept"] == 1


def test_a_message_without_words_fails_the_run_with_what_is_missing(world: World) -> None:
    workflow = spec("says", say=effect("say", EffectType.ANSWER_USER, {"level": "warning"}))
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.status is RunStatus.FAILED
    assert "answer_user requires payload.message" in str(state.error)

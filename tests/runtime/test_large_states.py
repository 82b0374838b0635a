"""A large state is written as what changed of it, and is always read back as it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractgateway.errors import Invalid
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, Runtime, StepPlan, WorkflowSpec
from abstractgateway.runtime import tracking as tracking_module
from abstractgateway.runtime.commit import Commit
from abstractgateway.runtime.delta import Checkpoint, encode_delta, encode_fields, encode_state
from abstractgateway.runtime.models import RunState
from abstractgateway.runtime.tracking import TrackedVars
from abstractgateway.stores import open_memory_stores

BIG = {f"k{number}": "x" * 1000 for number in range(100)}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.floats(-1, 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from("abc")


def set_a_key(vars: dict[str, Any], key: str, value: Any) -> None:
    vars[key] = value


def drop_a_key(vars: dict[str, Any], key: str, value: Any) -> None:
    vars.pop(key, None)


def delete_a_key(vars: dict[str, Any], key: str, value: Any) -> None:
    if key in vars:
        del vars[key]


def set_inside(vars: dict[str, Any], key: str, value: Any) -> None:
    inner = vars.get(key)
    if isinstance(inner, dict):
        inner["b"] = value
    elif isinstance(inner, list):
        inner.append(value)


def change_lists(vars: dict[str, Any], key: str, value: Any) -> None:
    for inner in vars.values():
        if isinstance(inner, list) and inner:
            inner.append(inner.pop(0))
            inner[0] = value


def shorten_lists(vars: dict[str, Any], key: str, value: Any) -> None:
    for _, inner in vars.items():
        if isinstance(inner, list):
            inner[:1] = []


def drop_inside(vars: dict[str, Any], key: str, value: Any) -> None:
    for name in list(vars):
        if isinstance(vars[name], dict):
            vars[name].pop(key, None)


def turn_around(vars: dict[str, Any], key: str, value: Any) -> None:
    inner = vars.get(key)
    if isinstance(inner, dict):
        for name in reversed(list(inner)):
            inner[name] = inner.pop(name)


def use_update(vars: dict[str, Any], key: str, value: Any) -> None:
    vars.update({key: value}, d=copy.deepcopy(value))
    vars |= {"e": [copy.deepcopy(value)]}


def use_setdefault(vars: dict[str, Any], key: str, value: Any) -> None:
    inner = vars.setdefault(key, [])
    if isinstance(inner, list):
        inner.extend([value, copy.deepcopy(value)])


def pop_the_last(vars: dict[str, Any], key: str, value: Any) -> None:
    if vars:
        vars.popitem()


def clear(vars: dict[str, Any], key: str, value: Any) -> None:
    vars.clear()


def look_only(vars: dict[str, Any], key: str, value: Any) -> None:
    assert vars.get("nothing") is None and key in vars or True


CHANGES = (
    set_a_key,
    drop_a_key,
    delete_a_key,
    set_inside,
    change_lists,
    shorten_lists,
    drop_inside,
    turn_around,
    use_update,
    use_setdefault,
    pop_the_last,
    clear,
    look_only,
)
ROUNDS = st.lists(st.lists(st.tuples(st.sampled_from(CHANGES), KEYS, VALUES), max_size=4), max_size=5)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_module, "LARGE_PART_BYTES", 8)
    monkeypatch.setattr(tracking_module, "SMALL_PART_BYTES", 1)


@pytest.mark.usefixtures("small_parts")
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES), ROUNDS)
def test_whatever_is_done_to_the_variables_is_read_back(start: dict[str, Any], rounds: list[list[Any]]) -> None:
    def run_of(vars: dict[str, Any]) -> RunState:
        return RunState.new(workflow_id="w", entry_node="n", vars=vars)

    state = run_of(json.loads(json.dumps(start)))
    checkpoint = Checkpoint(encode_state(state))
    state.vars = TrackedVars(state.vars)
    for changes in rounds:
        for change, key, value in changes:
            change(state.vars, key, json.loads(json.dumps(value)))
        checkpoint = checkpoint.with_delta(encode_delta(state, state.vars.take_changes()))

    read = checkpoint.state()
    assert json.dumps(read.vars, sort_keys=True) == json.dumps(state.vars.plain(), sort_keys=True)
    assert Checkpoint(checkpoint.whole()).state() == read
    for name, value in read.vars.items():
        assert json.dumps(value) == json.dumps(state.vars[name])  # objects keep the order of their keys


def test_reading_a_variable_costs_nothing_in_the_checkpoint() -> None:
    vars = TrackedVars({"text": "x", "list": [1, 2, 3]})

    assert vars["text"] == "x" and vars["list"] == [1, 2, 3] and dict(vars) == vars
    assert vars.take_changes() == []


def test_appending_to_a_long_list_writes_the_new_item_only() -> None:
    vars = TrackedVars({"messages": [{"content": "x" * 300, "n": n} for n in range(50)]})

    vars["messages"].append({"n": 50})
    assert vars.take_changes() == ['["append",["messages"],[{"n":50}]]']
    vars["messages"].pop(0)
    vars["messages"].append({"n": 51})
    assert vars.take_changes() == ['["drop",["messages"],1]', '["append",["messages"],[{"n":51}]]']
    vars["messages"][0] = None
    assert vars.take_changes() == ['["set",["messages",0],null]']


@pytest.mark.parametrize(
    "copied",
    [dict, copy.copy, lambda vars: vars.copy(), lambda vars: {**vars}, lambda vars: vars | {}, lambda vars: {} | vars],
    ids=["dict", "copy.copy", "copy", "unpacked", "or", "ror"],
)
def test_a_change_through_a_shallow_copy_is_written(copied: Callable[[Any], dict[str, Any]]) -> None:
    vars = TrackedVars({"a": [1], "b": "text"})

    copied(vars)["a"].append(2)

    assert vars.take_changes() == ['["set",["a"],[1,2]]']


@pytest.mark.parametrize("turn", [lambda inner: inner.update(a=inner.pop("a")), lambda inner: inner.update(c=0)])
@pytest.mark.usefixtures("small_parts")
def test_objects_keep_the_order_of_their_keys(turn: Callable[[dict[str, Any]], None]) -> None:
    state = RunState.new(workflow_id="w", entry_node="n", vars={"o": {"a": 1, "b": 2}})
    checkpoint = Checkpoint(encode_state(state))
    state.vars = TrackedVars(state.vars)

    turn(state.vars["o"])
    state.vars["o"] = dict(sorted(state.vars["o"].items(), key=lambda item: item[1]))

    read = checkpoint.with_delta(encode_delta(state, state.vars.take_changes())).state()
    assert list(read.vars["o"]) == list(state.vars["o"])


def test_a_deep_copy_of_the_variables_is_an_ordinary_dictionary() -> None:
    vars = TrackedVars({"a": {"b": [1]}})

    copied = copy.deepcopy(vars)

    assert type(copied) is dict and copied == {"a": {"b": [1]}} and copied["a"] is not vars["a"]


def test_a_value_that_json_lacks_is_refused() -> None:
    vars = TrackedVars({"a": 1})
    vars["a"] = {1, 2}

    with pytest.raises(Invalid, match="vars"):
        vars.take_changes()


@pytest.mark.parametrize(
    "changes",
    ['["set",["a","b"],1]', '["append",["n"],[1]]', '["remove",["no"],null]', '["turn",["a"],1]', '["set",[],1]', "7"],
)
def test_a_delta_that_does_not_fit_is_no_checkpoint(changes: str) -> None:
    state = RunState.new(workflow_id="w", entry_node="n", vars={"a": "text", "n": 1})
    delta = encode_delta(state, [changes])

    with pytest.raises(Invalid, match="does not fit"):
        Checkpoint(encode_state(state), (delta,)).fields()


def test_a_body_that_is_no_object_is_no_checkpoint() -> None:
    with pytest.raises(Invalid, match="not an object"):
        Checkpoint(b"[]").state()


def test_a_field_that_json_lacks_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot be written"):
        encode_fields({"output": "\ud800"})


def a_node(change: Callable[[dict[str, Any], int], None]) -> WorkflowSpec:
    def step(run: RunState, ctx: Any) -> StepPlan:
        run.vars["left"] -= 1
        change(run.vars, run.vars["left"])
        if run.vars["left"] == 0:
            return StepPlan("step", complete_output={"done": True})
        return StepPlan("step", effect=Effect(EffectType.TOOL_CALLS, {}, "called"), next_node="step")

    return WorkflowSpec("w", "step", {"step": step})


def test_a_run_with_a_large_state_writes_what_changes() -> None:
    stores = open_memory_stores()
    sizes: list[tuple[int, int]] = []
    commit = stores.commit

    def noting(what: Commit) -> Any:
        sizes.extend((len(write.body), len(write.delta)) for write in what.runs)
        return commit(what)

    stores.commit = noting  # type: ignore[method-assign]
    runtime = Runtime(
        stores=stores, effect_handlers={EffectType.TOOL_CALLS: lambda run, effect: EffectOutcome.completed(1)}
    )
    workflow = a_node(lambda vars, left: vars.__setitem__(f"k{left}", "y" * 1000))
    run_id = runtime.start(workflow=workflow, vars={"left": 20, **BIG})

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.output == {"done": True}
    whole, deltas = [body for body, _ in sizes if body], [delta for _, delta in sizes if delta]
    assert len(whole) == 2 and min(whole) > 100_000  # the start and the end
    assert len(deltas) == 19 and max(deltas) < 12_000
    assert state.vars["k1"] == "y" * 1000 and state.vars["k99"] == "x" * 1000


def test_deltas_give_way_to_a_whole_checkpoint_when_they_outgrow_it() -> None:
    stores = open_memory_stores()
    runtime = Runtime(
        stores=stores, effect_handlers={EffectType.TOOL_CALLS: lambda run, effect: EffectOutcome.completed(1)}
    )
    workflow = a_node(lambda vars, left: vars.update({f"k{n}": str(left) * 600 for n in range(30)}))
    run_id = runtime.start(workflow=workflow, vars={"left": 40, **BIG})

    runtime.tick(workflow=workflow, run_id=run_id, max_steps=30)

    stored = stores.runs.open(run_id)
    assert stored is not None
    assert stored.delta_bytes <= stored.body_bytes < 150_000


def test_a_transition_from_outside_writes_what_it_changes() -> None:
    stores = open_memory_stores()
    runtime = Runtime(stores=stores)

    def ask(run: RunState, ctx: Any) -> StepPlan:
        return StepPlan("ask", effect=Effect(EffectType.ASK_USER, {"prompt": "?"}, "answer"), next_node="ask")

    workflow = WorkflowSpec("w", "ask", {"ask": ask})
    run_id = runtime.start(workflow=workflow, vars=dict(BIG))
    runtime.tick(workflow=workflow, run_id=run_id)
    before = stores.runs.open(run_id)

    runtime.resume(workflow=workflow, run_id=run_id, wait_key=None, payload={"response": "yes"}, max_steps=0)

    after = stores.runs.open(run_id)
    assert before is not None and after is not None
    assert after.body_bytes == before.body_bytes and 0 < after.delta_bytes - before.delta_bytes < 5000
    assert after.state.vars["answer"] == {"response": "yes"} and after.state.vars["k7"] == BIG["k7"]


def test_an_object_whose_keys_are_numbers_is_read_back_with_their_texts() -> None:
    state = RunState.new(workflow_id="w", entry_node="n", vars={"a": {1: "x" * 5000, 2: "y"}})
    checkpoint = Checkpoint(encode_state(state))
    state.vars = TrackedVars(state.vars)

    state.vars["a"][1] = "z" * 5000
    state.vars["a"][3] = 7
    checkpoint = checkpoint.with_delta(encode_delta(state, state.vars.take_changes()))
    state.vars["a"].pop(2)
    checkpoint = checkpoint.with_delta(encode_delta(state, state.vars.take_changes()))

    assert checkpoint.state().vars == {"a": {"1": "z" * 5000, "3": 7}}

    for key in (1, 3):
        del state.vars["a"][key]
    state.vars["a"]["text"] = "w"
    checkpoint = checkpoint.with_delta(encode_delta(state, state.vars.take_changes()))
    assert checkpoint.state().vars == {"a": {"text": "w"}}


def test_a_run_that_grows_without_end_fails_and_says_why() -> None:
    stores = open_memory_stores()
    handlers = {EffectType.TOOL_CALLS: lambda run, effect: EffectOutcome.completed(1)}
    runtime = Runtime(stores=stores, effect_handlers=handlers, max_run_bytes=50_000)
    workflow = a_node(lambda vars, left: vars.setdefault("grows", []).append("x" * 1000))
    run_id = runtime.start(workflow=workflow, vars={"left": 1000})

    state = runtime.tick(workflow=workflow, run_id=run_id, max_steps=2000)

    assert state.status.value == "failed"
    assert "a run may have 50,000" in str(state.error) and "'step'" in str(state.error)
    stored = stores.runs.open(run_id)
    assert stored is not None and stored.body_bytes < 110_000

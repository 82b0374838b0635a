from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Invalid
from abstractgateway.runtime.models import EffectType, RunStatus
from abstractgateway.runtime.runtime import Runtime
from abstractgateway.stores import open_memory_stores
from abstractgateway.visualflow import compile_flow
from abstractgateway.visualflow.nodes.code import run_code
from abstractgateway.visualflow.sandbox import CodeLimits, CodePool, TakesLong, code_problems, compile_expression

SLOW = "def transform(_input):\n    return sum(range(_input['n']))\n"


@pytest.fixture
def compute(driver: Any, draw: Any) -> Callable[..., Any]:
    """Run start → code → end and return what the code node gave."""

    def run(
        source: str | None,
        inputs: dict[str, Any] | None = None,
        *,
        kind: str = "code",
        out: str = "output",
        **data: Any,
    ) -> Any:
        given = inputs or {}
        code = {"code": source} if source is not None else {}
        document = draw.flow(
            [
                draw.node("start", "on_flow_start", "", "> " + " ".join(given)),
                draw.node("x", kind, "> " + " ".join(given), "> " + out, **code, **data),
                draw.node("end", "on_flow_end", "> y", ""),
            ],
            ["start > x", "x > end", f"x/{out} -> end/y", *(f"start/{name} -> x/{name}" for name in given)],
        )
        result = driver.run(driver.add(document), given)
        if result.status != "completed":
            raise ValueError(result.error)
        return result.output["y"]

    return run


@pytest.mark.parametrize("name", ["input", "_input", "anything"])
def test_the_function_gets_all_inputs_in_one_argument_of_any_name(compute: Any, name: str) -> None:
    assert compute(f"def transform({name}):\n    return {name}['a'] + {name}['b']\n", {"a": 2, "b": 3}) == 5


def test_a_function_of_another_name_is_called_when_the_node_names_it(compute: Any) -> None:
    source = "FACTOR = 3\ndef twice(x):\n    return 2 * x\ndef main(d):\n    return FACTOR * twice(d['a'])\n"

    assert compute(source, {"a": 2}, functionName="main") == 12


@pytest.mark.parametrize("source", [None, "", "   "])
def test_a_node_without_code_gives_its_inputs(compute: Any, source: str | None) -> None:
    assert compute(source, {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", [1, [2]], {"a": {"b": None}}])
def test_whatever_json_can_hold_may_be_returned(compute: Any, value: Any) -> None:
    assert compute("def transform(d):\n    return [d['v']]\n", {"v": value}) == [value]


def test_keys_of_the_returned_object_are_pins(compute: Any) -> None:
    assert compute("def transform(d):\n    return {'sum': d['a'] + 1, 'other': 2}\n", {"a": 1}, out="sum") == 2


def test_changing_an_input_changes_nothing_elsewhere(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> items"),
            draw.node(
                "x", "code", "> items", "> output", code="def transform(d):\n    d['items'].append(3)\n    return 1\n"
            ),
            draw.node("end", "on_flow_end", "> items y", ""),
        ],
        ["start > x", "x > end", "start/items -> x/items", "start/items -> end/items", "x/output -> end/y"],
    )

    result = driver.run(driver.add(document), {"items": [1, 2]})

    assert result.output == {"items": [1, 2], "y": 1, "success": True}


def test_code_sees_the_bus_beside_its_pins(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("a", "code", ">", ">", code="def transform(_input):\n    return {'left': 1}\n"),
            draw.node(
                "b", "code", "> right", "> output", defaults={"right": 2}, code="def transform(d):\n    return d\n"
            ),
            draw.node("end", "on_flow_end", ">", ""),
        ],
        ["a > b", "b > end"],
    )

    result = driver.run(driver.add(document))

    assert result.output == {"left": 1, "right": 2, "success": True}


def test_code_that_has_no_inputs_gets_the_bus_as_it_is(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("a", "code", ">", ">", code="def transform(_input):\n    return [1, 2]\n"),
            draw.node("b", "code", ">", "> output", code="def transform(d):\n    return {'seen': d}\n"),
            draw.node("end", "on_flow_end", ">", ""),
        ],
        ["a > b", "b > end"],
    )

    result = driver.run(driver.add(document))

    assert result.output == {"seen": [1, 2], "success": True}


@pytest.mark.parametrize(("number", "taken"), [(1, "odd"), (2, "even")])
def test_code_chooses_the_branch(driver: Any, draw: Any, number: int, taken: str) -> None:
    source = "def transform(d):\n    return {'branch': 'true' if d['n'] % 2 else 'false'}\n"
    document = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> n"),
            draw.node("x", "code", "> n", ">true >false", code=source),
            draw.node("odd", "on_flow_end", "> y", "", defaults={"y": "odd"}),
            draw.node("even", "on_flow_end", "> y", "", defaults={"y": "even"}),
        ],
        ["start > x", "start/n -> x/n", "x/true > odd", "x/false > even"],
    )

    result = driver.run(driver.add(document), {"n": number})

    assert result.output["y"] == taken


def test_code_without_execution_pins_is_computed_when_it_is_needed(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> n"),
            draw.node("x", "code", "n", "output", code="def transform(d):\n    return d['n'] * 2\n"),
            draw.node("end", "on_flow_end", "> y", ""),
        ],
        ["start > end", "start/n -> x/n", "x/output -> end/y"],
    )

    result = driver.run(driver.add(document), {"n": 4})

    assert (result.output, driver.visited) == ({"y": 8, "success": True}, ["start", "end"])


def test_an_error_fails_the_run_with_node_type_message_and_line(compute: Any) -> None:
    with pytest.raises(ValueError, match=r"node 'x': CodeFailed: TypeError: unsupported operand .* \(line 3\)"):
        compute("def transform(d):\n    a = d['a']\n    return a + None\n", {"a": 1})


def test_code_in_a_loop_that_fails_is_not_passed_over(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("l", "loop", "> items", ">loop >done item", defaults={"items": [1, 2]}),
            draw.node("x", "code", "> item", ">", code="def transform(d):\n    return 1 / 0\n"),
        ],
        ["l/loop > x", "l/item -> x/item"],
    )

    result = driver.run(driver.add(document))

    assert result.status == "failed"
    assert "ZeroDivisionError" in result.error


@pytest.mark.parametrize(
    ("expression", "inputs", "value"),
    [
        ("a + b", {"a": 1, "b": 2}, 3),
        ("x['a'] * 2", {"a": 2}, 4),
        ("[item for item in input['items'] if item > 1]", {"items": [1, 2, 3]}, [2, 3]),
        ("x", {"x": "own"}, "own"),
        ("  max(a, 3)", {"a": 1}, 3),
    ],
)
def test_an_expression_names_its_inputs(compute: Any, expression: str, inputs: Any, value: Any) -> None:
    assert compute(None, inputs, kind="function", out="result", expression=expression) == value


def test_a_function_node_may_hold_code(compute: Any) -> None:
    source = "def transform(d):\n    return d['a'] + 1\n"

    assert compute(source, {"a": 1}, kind="function", out="result", expression="a + 100") == 2


def test_an_expression_that_fails_fails_the_run(compute: Any) -> None:
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        compute(None, {"a": 0}, kind="function", out="result", expression="1 / a")


def test_an_expression_cannot_reach_outside(compute: Any) -> None:
    with pytest.raises(Invalid, match="'__import__' may not be"):
        compute(None, {"a": 0}, kind="function", out="result", expression="__import__('os').getpid()")


def test_all_that_is_wrong_with_code_is_told_at_once_with_node_and_line(driver: Any, draw: Any) -> None:
    bad = "import os\ndef transform(d):\n    eval('1')\n    return d.__class__\n"
    document = draw.flow(
        [
            draw.node("a", "code", ">", ">", code=bad),
            draw.node("b", "code", ">", ">", code="def transform(d):\n    return (\n"),
            draw.node("c", "code", ">", ">", code="def other(d):\n    return 1\n"),
        ],
        ["a > b", "b > c"],
    )

    with pytest.raises(Invalid) as refused:
        driver.add(document)

    assert "node 'a' (code) line 1: 'os' cannot be imported" in refused.value.why
    assert "line 3: 'eval' may not be called; line 4: the attribute '__class__' may not be used" in refused.value.why
    assert "node 'b' (code) line 2: '(' was never closed" in refused.value.why
    assert "node 'c' (code) defines no function 'transform'" in refused.value.why


def test_wrong_code_that_is_never_reached_is_only_a_warning(draw: Any) -> None:
    document = draw.flow(
        [draw.node("s", "on_flow_start", "", ">"), draw.node("lost", "code", ">", ">", code="def transform(d:\n")], []
    )

    warnings = compile_flow(document, workflow_id="f").warnings

    assert any("node 'lost' (code) line 1" in warning for warning in warnings)


def test_wrong_code_behind_a_value_that_is_read_is_refused(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("x", "code", "n", "output", code="def transform(d): return d.__dict__"),
            draw.node("end", "on_flow_end", "> y", ""),
        ],
        ["x/output -> end/y"],
    )

    with pytest.raises(Invalid, match="'__dict__' may not be used"):
        driver.add(document)


@pytest.mark.parametrize(
    "source",
    [
        "def transform(d):\n    match d:\n        case object(__class__=c):\n            return c\n",
        "def transform(d):\n    g = (x for x in d)\n    return g.gi_frame\n",
        "def transform(d):\n    return __builtins__\n",
        "from . import x\ndef transform(d): return 1\n",
        "def transform(d):\n    return open('x')\n",
        "x" * 100_001,
        "def transform(d):\n    return " + "(" * 300 + ")" * 300,
        "\0",
        "def transform(d):\n    return 1\n  return 2\n",
    ],
)
def test_a_text_that_is_not_run_has_a_problem(source: str) -> None:
    assert code_problems(source, "transform")


@pytest.fixture
def impatient() -> Iterator[CodePool]:
    pool = CodePool(CodeLimits(timeout_s=20), workers=1, patience_s=0.4)
    warm = compile_expression("1")  # starting the process is no part of a call
    pool.run(warm, None, seed="s", now="2026-03-01T12:00:00+00:00")
    yield pool
    pool.close()


def _drawn(draw: Any, source: str) -> Any:
    return draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> n"),
            draw.node("x", "code", "> n", "> output", code=source),
            draw.node("end", "on_flow_end", "> y", ""),
        ],
        ["start > x", "x > end", "start/n -> x/n", "x/output -> end/y"],
    )


@pytest.mark.parametrize(("n", "is_recorded"), [(10, False), (50_000_000, True)])
def test_code_that_takes_long_becomes_an_effect_with_the_same_result(
    draw: Any, impatient: CodePool, n: int, is_recorded: bool
) -> None:
    spec = compile_flow(_drawn(draw, SLOW), workflow_id="f", code_runner=impatient).workflow
    runtime = Runtime(stores=open_memory_stores(), effect_handlers={EffectType.RUN_CODE: run_code(impatient)})

    run_id = runtime.start(workflow=spec, vars={"n": n})
    state = runtime.tick(workflow=spec, run_id=run_id)

    effects = [item["effect"]["type"] for item in runtime.get_ledger(run_id) if item.get("effect")]
    assert (state.status, state.output) == (RunStatus.COMPLETED, {"y": sum(range(n)), "success": True})
    assert ("run_code" in effects) is is_recorded
    assert "x" not in state.vars["_temp"].get("deferred", {})


class Slow:
    """Doubles `n`, but never while somebody waits for it."""

    def __init__(self) -> None:
        self.calls = 0

    def run(self, program: Any, argument: Any, *, seed: str, now: str, is_urgent: bool = False) -> Any:
        if is_urgent:
            raise TakesLong
        self.calls += 1
        return argument["n"] * 2


def _run_slowly(document: Any, variables: dict[str, Any]) -> tuple[Any, int]:
    runner = Slow()
    spec = compile_flow(document, workflow_id="f", code_runner=runner).workflow
    runtime = Runtime(stores=open_memory_stores(), effect_handlers={EffectType.RUN_CODE: run_code(runner)})
    state = runtime.tick(workflow=spec, run_id=runtime.start(workflow=spec, vars=variables), max_steps=200)
    assert state.status is RunStatus.COMPLETED, state.error
    assert not state.vars["_temp"].get("deferred")
    assert not state.vars["_temp"].get("deferred_steps")
    return state.output, runner.calls


def test_a_step_waits_for_no_value_that_takes_long(draw: Any) -> None:
    """Two values for one step are computed one after the other, each once, and again for the next step."""
    code = {"code": "def transform(d):\n    return d['n'] * 2\n"}
    document = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> n"),
            draw.node("a.1", "function", "n", "result", **code),
            draw.node("b", "code", "n", "output", **code),
            draw.node("sum", "add", "a b", "result"),
            draw.node("keep", "set_var", "> name value", ">", defaults={"name": "v"}),
            draw.node("x", "code", "> n", "> output", **code),
            draw.node("end", "on_flow_end", "> y z", ""),
        ],
        [
            *("start > keep", "start/n -> a.1/n", "a.1/result -> b/n", "a.1/result -> sum/a", "b/output -> sum/b"),
            *("sum/result -> keep/value", "keep > x", "b/output -> x/n", "x > end", "x/output -> end/y"),
            "a.1/result -> end/z",
        ],
    )

    assert _run_slowly(document, {"n": 1}) == ({"y": 8, "z": 2, "success": True}, 6)


def test_a_step_that_waited_for_a_value_knows_where_it_came_from(draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> n way"),
            draw.node("if", "if", "> condition", ">true >false"),
            draw.node("slow", "function", "n", "result", code="def transform(d):\n    return d['n'] * 2\n"),
            draw.node("end", "on_flow_end", "> y z", "", defaults={"z": "neither"}),
        ],
        ["start > if", "start/way -> if/condition", "if/true > end", "if/false > end", "start/n -> slow/n"],
    )
    document["edges"] += draw.flow([], ["slow/result -> end/y"])["edges"]
    document["nodes"][3]["data"]["inputRouteOverrides"] = {
        "z": {
            "if::true": {"sourceNodeId": "start", "sourceHandle": "n"},
            "if::false": {"sourceNodeId": "slow", "sourceHandle": "result"},
        }
    }

    assert _run_slowly(document, {"n": 3, "way": True})[0] == {"y": 6, "z": 3, "success": True}
    assert _run_slowly(document, {"n": 3, "way": False})[0] == {"y": 6, "z": 6, "success": True}


def test_a_loop_computes_its_condition_anew_however_long_it_takes(draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> n"),
            draw.node("while", "while", "> condition", ">loop >done index"),
            draw.node("read", "get_var", "name", "value", defaults={"name": "n"}),
            draw.node("slow", "function", "n", "result", code="def transform(d):\n    return d['n'] * 2\n"),
            draw.node("small", "compare", "a op b", "result", defaults={"op": "<", "b": 20}),
            draw.node("keep", "set_var", "> name value", ">", defaults={"name": "n"}),
            draw.node("end", "on_flow_end", "> y index", ""),
        ],
        [
            *("start > while", "read/value -> slow/n", "slow/result -> small/a", "small/result -> while/condition"),
            *("while/loop > keep", "slow/result -> keep/value", "while/done > end", "read/value -> end/y"),
            "while/index -> end/index",
        ],
    )

    assert _run_slowly(document, {"n": 1})[0] == {"y": 16, "index": 3, "success": True}


def test_code_that_takes_long_and_fails_fails_the_run(draw: Any, impatient: CodePool) -> None:
    source = "def transform(d):\n    return sum(range(50_000_000)) / 0\n"
    spec = compile_flow(_drawn(draw, source), workflow_id="f", code_runner=impatient).workflow
    runtime = Runtime(stores=open_memory_stores(), effect_handlers={EffectType.RUN_CODE: run_code(impatient)})

    state = runtime.tick(workflow=spec, run_id=runtime.start(workflow=spec, vars={"n": 1}))

    assert state.status is RunStatus.FAILED
    assert "ZeroDivisionError: division by zero (line 2)" in str(state.error)


def test_endless_code_keeps_no_other_run_waiting(tmp_path: Path, draw: Any) -> None:
    for name, source in (
        ("loop", "def transform(d):\n    while True: pass\n"),
        ("quick", "def transform(d): return 1\n"),
    ):
        manifest = {
            "bundle_format_version": "1",
            "bundle_id": name,
            "entrypoints": [{"flow_id": "f"}],
            "flows": {"f": "f.json"},
        }
        directory = tmp_path / f"{name}.flow"
        directory.mkdir()
        (directory / "manifest.json").write_text(json.dumps(manifest))
        (directory / "f.json").write_text(json.dumps(_drawn(draw, source)))
    config = GatewayConfig(
        data_dir=tmp_path / "data",
        flows_dir=tmp_path,
        store_backend="memory",
        advance_workers=1,
        code_workers=3,
        code_timeout_s=3.0,
    )
    changed = threading.Event()
    with GatewayService.open(config) as gateway:
        gateway.subscribe(lambda _runs: changed.set())

        endless = [gateway.runs.start(bundle_id="loop") for _ in range(2)]
        quick = gateway.runs.start(bundle_id="quick")
        quick_output = _output_of(gateway, quick, changed)
        states = [gateway.runs.get(run_id)["status"] for run_id in endless]
        for run_id in endless:
            _output_of(gateway, run_id, changed)
        errors = [gateway.runs.get(run_id)["error"] for run_id in endless]

    assert quick_output == {"y": 1, "success": True}
    assert states == ["running", "running"]
    assert all("took longer than 3 s" in error for error in errors)


def _output_of(gateway: GatewayService, run_id: str, changed: threading.Event) -> Any:
    while (run := gateway.runs.get(run_id))["status"] not in ("completed", "failed"):
        changed.wait(10)
        changed.clear()
    return run["output"]

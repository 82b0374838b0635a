"""Texts that are made to cost the square or the cube of their length, or to grow without end, in nodes of flows."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from abstractgateway.errors import GatewayError
from abstractgateway.knowledge.relevance import words_of_terms
from abstractgateway.runtime import Runtime
from abstractgateway.runtime.models import RunState
from abstractgateway.stores import open_memory_stores
from abstractgateway.visualflow import compile_flow
from tests.visualflow.conftest import flow, node

MOST_S = 10.0
"""What is linear takes less than a tenth of it, what is not minutes."""


def ran(kind: str, inputs: dict[str, Any]) -> RunState:
    """Run a flow with one pure node."""
    pins = " ".join(inputs)
    drawn = flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("n", kind, pins, "result", defaults=inputs),
            node("e", "on_flow_end", "> result"),
        ],
        ["s > e", "n/result -> e/result"],
        "f",
    )
    workflow = compile_flow(drawn).workflow
    runtime = Runtime(stores=open_memory_stores())
    return runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))


@pytest.fixture
def quick() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < MOST_S


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("string_template", {"template": "{{" * 50_000, "vars": {}}),
        ("string_template", {"template": "{{a|" * 25_000 + "}}", "vars": {}}),
        ("format", {"template": "{a:" + "a" * 100_000 + "}", "values": {"a": "x"}}),
        ("format", {"template": "{a:" + "a" * 5_000 + "11111}", "values": {"a": "x"}}),
        ("format", {"template": "{" * 100_000, "values": {}}),
        ("parse_json", {"text": "[" * 100_000}),
        ("parse_json", {"text": "```" * 30_000}),
        ("parse_json", {"text": "{'a':" * 20_000}),
        ("split", {"text": "," * 200_000}),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_long_text_takes_no_longer_than_its_length(kind: str, inputs: dict[str, Any]) -> None:
    assert ran(kind, inputs).status.is_terminal


@pytest.mark.usefixtures("quick")
def test_long_terms_take_no_longer_than_their_length() -> None:
    assert words_of_terms(["a" * 300_000, "a." * 100_000, "x:" * 100_000])


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("replace", {"text": "a" * 20_000, "pattern": "a", "replacement": "b" * 20_000}),
        ("join", {"items": ["x"] * 20_000, "delimiter": "y" * 20_000}),
        ("string_template", {"template": "{{a}}" * 20_000, "vars": {"a": "x" * 20_000}}),
        ("string_template", {"template": "{{ a | join(" + "y" * 20_000 + ") }}", "vars": {"a": ["x"] * 20_000}}),
        ("format", {"template": "{a:9999}" * 20_000, "values": {"a": "x"}}),
    ],
)
def test_a_text_that_would_be_enormous_fails_its_run_and_takes_no_memory(kind: str, inputs: dict[str, Any]) -> None:
    tracemalloc.start()
    try:
        state = ran(kind, inputs)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert state.status.value == "failed"
    assert "one that is put together may have 67,108,864" in str(state.error)
    assert most < 100_000_000


def test_ordinary_texts_are_put_together_as_ever() -> None:
    filled = {"template": "{{ a }}-{{b", "vars": {"a": "x"}}

    assert ran("string_template", filled).output["result"] == "x-{{b"
    assert ran("replace", {"text": "aaa", "pattern": "a", "replacement": "bb", "mode": "2"}).output["result"] == "bbbba"
    assert not isinstance(ran("join", {"items": [1, 2]}).error, GatewayError)

"""Settings that reach runs through their variables, and what a program may give a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Invalid
from abstractgateway.testing import GatewayHarness, ScriptedModel
from tests.visualflow.conftest import flow, node

TALK = flow(
    [
        node("s", "on_flow_start", "", "> prompt"),
        node("m", "llm_call", "> prompt", "> response", defaults={"provider": "p", "model": "m"}),
        node("n", "memory_note", "> content scope", "> note_id", defaults={"content": "kept", "scope": "global"}),
        node(
            "k",
            "memory_kg_assert",
            "> assertions scope",
            ">",
            defaults={
                "scope": "global",
                "assertions": [{"subject": "ex:a", "predicate": "schema:name", "object": "A"}],
            },
        ),
        node("e", "on_flow_end", "> response"),
    ],
    ["s > m", "m > n", "n > k", "k > e", "s/prompt -> m/prompt", "m/response -> e/response"],
    "talk",
)


def harness(**settings: Any) -> tuple[GatewayHarness, ScriptedModel]:
    model = ScriptedModel(["hi"])
    config = GatewayConfig(store_backend="memory", **settings)
    return GatewayHarness(flows={"talk": TALK}, model=model, config=config), model


@pytest.mark.parametrize(
    ("setting", "given", "has_key"),
    [(None, None, False), (True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
def test_the_prompt_cache_is_that_of_the_settings_unless_a_start_says_otherwise(
    setting: bool | None, given: bool | None, has_key: bool
) -> None:
    gateway, model = harness(prompt_cache=setting)
    own = {} if given is None else {"_runtime": {"prompt_cache": {"enabled": given}}}

    assert gateway.run("talk", {"prompt": "p", **own}, session_id="s").status == "completed"

    assert ("prompt_cache_key" in model.calls[0]["params"]) is has_key


def test_the_memory_of_everybody_is_where_the_settings_say() -> None:
    gateway, _ = harness(global_memory_run_id="team_memory")

    assert gateway.run("talk", {"prompt": "p"}).status == "completed"

    holder = gateway.stores.runs.load("team_memory")
    assert holder is not None and len(holder.vars["_runtime"]["memory_spans"]) == 1
    assert gateway.stores.runs.load("global_memory") is None
    assert gateway.knowledge.owners.of_everybody() == "team_memory"  # type: ignore[attr-defined]


def test_the_variables_of_these_settings() -> None:
    environment = {"ABSTRACTGATEWAY_PROMPT_CACHE": "1", "ABSTRACTRUNTIME_GLOBAL_MEMORY_RUN_ID": "team_memory"}

    config = GatewayConfig.from_env(environment)

    assert (config.prompt_cache, config.global_memory_run_id) == (True, "team_memory")


@pytest.mark.parametrize("wrong", ["../x", "a b", "é", "x" * 201])
def test_the_run_of_everybodys_memory_needs_a_plain_id(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="GLOBAL_MEMORY_RUN_ID"):
        GatewayConfig.from_env({"ABSTRACTRUNTIME_GLOBAL_MEMORY_RUN_ID": wrong})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"model": 5}, "model: is int, which has no method generate"),
        ({"tools": [len]}, "tools: is list, neither functions by name nor a tool box"),
        ({"tools": {"x": 5}}, "tools: 'x' is int, which cannot be called"),
    ],
)
def test_what_is_no_model_and_no_tools_is_refused_at_once(given: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        GatewayService.open(GatewayConfig(store_backend="memory"), **given)

"""Flows on the gateway's own knowledge graph, and what a crash leaves of it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.knowledge import MemoryTripleStore, Owners, Pattern, SqliteTripleStore, StoredKnowledge
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, RunState, RunStatus
from abstractgateway.testing import GatewayHarness
from abstractgateway.visualflow.nodes.knowledge import knowledge_effects, knowledge_in_doubt
from tests.runtime.workflows import Crash, World, call_then_end, loop
from tests.visualflow.conftest import flow, node

from .conftest import Json

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = Pattern(tuple((scope, None) for scope in ("run", "session", "global")))
TEA = {"subject": "alice", "predicate": "ex:likes", "object": "tea"}
SAY = {"assertions": [TEA, {**TEA, "object": "milk"}], "allow_custom_predicates": True}


def remember() -> Json:
    """Draw a flow that keeps two statements of its session and finds them again by a text."""
    kept = "assertions scope allow_custom_predicates"
    nodes = [
        node("s", "on_flow_start", "", ">"),
        node("say", "memory_kg_assert", f"> {kept}", "> count", defaults={**SAY, "scope": "session"}),
        node(
            "ask",
            "memory_kg_query",
            "> query_text scope recall_level",
            "> items count active_memory_text",
            defaults={"query_text": "what does Alice like?", "scope": "session", "recall_level": "urgent"},
        ),
        node("e", "on_flow_end", "> said found text"),
    ]
    edges = ["s > say", "say > ask", "ask > e", "say/count -> e/said", "ask/count -> e/found"]
    return {**flow(nodes, [*edges, "ask/active_memory_text -> e/text"]), "id": "remember"}


def test_a_flow_keeps_statements_without_any_setting() -> None:
    outcome = GatewayHarness(flows={"remember": remember()}).run("remember", session_id="s1")

    assert outcome.status == "completed", outcome.error
    assert outcome.output is not None
    assert (outcome.output["said"], outcome.output["found"]) == (2, 2)
    assert "alice —ex:likes→ tea (score:0.750)" in outcome.output["text"]


def test_a_wrong_statement_fails_its_run_and_the_error_names_it() -> None:
    nodes = [
        node("s", "on_flow_start", "", ">"),
        node("say", "memory_kg_assert", "> assertions", ">", defaults={"assertions": [{"subject": "alice"}]}),
    ]

    outcome = GatewayHarness(flows={"f": flow(nodes, ["s > say"])}).run("f")

    assert (outcome.status, "memory_kg_assert: assertions[0].predicate" in str(outcome.error)) == ("failed", True)


class DyingKnowledge(StoredKnowledge):
    """The process ends as soon as the statements are kept."""

    def assert_statements(self, run: RunState, request: Json, *, idempotency_key: str = "") -> Json:
        super().assert_statements(run, request, idempotency_key=idempotency_key)
        raise Crash


@pytest.mark.parametrize("dedupe", [True, False])
def test_a_crash_between_statements_and_outcome_keeps_them_once(dedupe: bool) -> None:
    world, store = World(), MemoryTripleStore()
    owners = Owners(lambda run_id: None)
    workflow = call_then_end(EffectType.MEMORY_KG_ASSERT, {**SAY, "dedupe": dedupe})
    dying = world.runtime(knowledge_effects(DyingKnowledge(store, owners, world.clock)), workflow)
    run_id = dying.start(workflow=workflow)
    with pytest.raises(Crash):
        dying.tick(workflow=workflow, run_id=run_id)

    graph = StoredKnowledge(store, owners, world.clock)
    runtime = world.runtime(knowledge_effects(graph), workflow, in_doubt=knowledge_in_doubt(graph))
    world.clock.move(60)
    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.status is RunStatus.COMPLETED
    assert state.output is not None
    ids = [found.triple.assertion_id for found in store.query(Pattern((("run", run_id),), is_newest_first=False))]
    assert (state.output["said"]["assertion_ids"], state.output["said"]["skipped_duplicates"]) == (ids, 0)
    assert len(ids) == 2


def test_a_loop_that_says_the_same_each_time_says_it_each_time() -> None:
    world, store = World(), MemoryTripleStore()
    graph = StoredKnowledge(store, Owners(lambda run_id: None), world.clock)
    workflow = loop(3, EffectType.MEMORY_KG_ASSERT, {**SAY, "dedupe": False})
    runtime = world.runtime(knowledge_effects(graph), workflow)

    runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert len(store.query(EVERYTHING)) == 6


class ForeignGraph:
    """A graph that knows nothing of keys."""

    def assert_statements(self, run: RunState, request: Json) -> Json:
        return {"ok": True, "count": 1, "assertion_ids": ["x"]}

    def query(self, run: RunState, request: Json) -> Json:
        return {"ok": True, "count": 0, "items": []}

    def resolve(self, run: RunState, request: Json) -> Json:
        raise Invalid("label", "is odd")


def test_a_graph_that_is_not_told_keys_is_asked_about_after_a_crash() -> None:
    rules = knowledge_in_doubt(ForeignGraph())

    assert EffectType.MEMORY_KG_ASSERT not in rules
    assert rules[EffectType.MEMORY_KG_QUERY] == rules[EffectType.MEMORY_KG_RESOLVE] == "retry"


def test_what_a_graph_refuses_is_a_failed_effect() -> None:
    perform = knowledge_effects(ForeignGraph())[EffectType.MEMORY_KG_RESOLVE]

    outcome = perform(RunState.new(workflow_id="w", entry_node="n"), Effect(EffectType.MEMORY_KG_RESOLVE, {}), None)

    assert outcome == EffectOutcome.failed("memory_kg_resolve: label: is odd")


def test_a_program_keeps_a_graph_of_its_own(tmp_path: Path) -> None:
    config = GatewayConfig(data_dir=tmp_path, flows_dir=tmp_path, store_backend="memory", runner_enabled=False)
    with (
        GatewayService.open(config, knowledge=ForeignGraph()) as gateway,
        pytest.raises(Unavailable, match="belongs to the program that embeds"),
    ):
        gateway.knowledge.query(scope="global")


def test_a_gateway_that_is_killed_after_its_statements_are_durable_keeps_them_once(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "remember.json").write_text(json.dumps(remember()))
    data = tmp_path / "data"
    command = [sys.executable, "-m", "tests.knowledge.dying", str(data), str(flows)]
    killed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    run_id = killed.stdout.strip()
    with closing(SqliteTripleStore(data / "abstractmemory" / "kg.sqlite3")) as store:
        assert len(store.query(EVERYTHING)) == 2

    config = GatewayConfig(data_dir=data, flows_dir=flows, workflow_source="visualflow")
    with GatewayService.open(config) as gateway:
        records: list[Any] = [entry.record for entry in gateway.ledger.follow(run_id)]
        output = gateway.runs.get(run_id)["output"]
        found = gateway.knowledge.query(session_id="s1")

    assert killed.returncode == -9
    assert (output["said"], output["found"], found["count"]) == (2, 2, 2)
    asserted = [r for r in records if (r["effect"] or {}).get("type") == "memory_kg_assert"]
    assert [(record["status"], record["attempt"]) for record in asserted] == [
        ("started", 1),
        ("started", 2),
        ("completed", 2),
    ]


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({}, "data/abstractmemory/kg.sqlite3"),
        ({"ABSTRACTGATEWAY_STORE_BACKEND": "sqlite"}, "data/abstractmemory/kg.sqlite3"),
        ({"ABSTRACTGATEWAY_STORE_BACKEND": "memory"}, None),
        ({"ABSTRACTGATEWAY_MEMORY_BACKEND": "InMemory"}, None),
        (
            {"ABSTRACTGATEWAY_STORE_BACKEND": "memory", "ABSTRACTGATEWAY_MEMORY_STORE_BACKEND": "sqlite3"},
            "data/abstractmemory/kg.sqlite3",
        ),
        ({"ABSTRACTGATEWAY_MEMORY_STORE_PATH": "elsewhere/x.db"}, "elsewhere/x.db"),
    ],
)
def test_where_the_graph_is_kept_can_be_set(environment: dict[str, str], path: str | None) -> None:
    config = GatewayConfig.from_env({"ABSTRACTGATEWAY_DATA_DIR": "data", **environment})

    assert config.knowledge_path == (Path(path) if path else None)


def test_a_backend_that_there_is_not_is_refused() -> None:
    with pytest.raises(Invalid, match="memory_store_backend: 'lancedb' is not one of 'sqlite', 'memory'"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_MEMORY_STORE_BACKEND": "lancedb"})

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.jsonvalue import loads
from abstractgateway.runtime import (
    Effect,
    EffectType,
    RunState,
    RunStatus,
    StepPlan,
    StepRecord,
    StepStatus,
    WorkflowSpec,
)
from abstractgateway.runtime.offloading import MAX_INLINE_BYTES
from abstractgateway.runtime.runtime import Runtime
from abstractgateway.service.history import MAX_RUNS, export_run_history_bundle, run_tree
from abstractgateway.service.turns import answer_in, prompt_of, run_stats
from abstractgateway.stores import open_memory_stores
from abstractgateway.testing import GatewayHarness, ManualClock, ScriptedModel

Json = dict[str, Any]


class Desk:
    """Stores with runs in them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.stores = open_memory_stores()
        self.runtime = Runtime(stores=self.stores, clock=self.clock)

    def run(self, output: Json | None = None, *, rounds: int = 0, wait: bool = False, **options: Any) -> str:
        """Run a workflow that speaks to the user some times and ends with an output, or asks and waits."""
        workflow_id = options.pop("workflow_id", "talks")

        def node(run: RunState, ctx: Any) -> StepPlan:
            said = run.vars["said"] = run.vars.get("said", -1) + 1
            self.clock.move(1)
            if said < rounds:
                return StepPlan("n", Effect(EffectType.ANSWER_USER, {"message": f"m{said}"}), next_node="n")
            if wait:
                return StepPlan("n", Effect(EffectType.ASK_USER, {"prompt": "?"}), next_node="n")
            return StepPlan("n", complete_output=output or {})

        workflow = WorkflowSpec(workflow_id, "n", {"n": node})
        run_id = self.runtime.start(workflow=workflow, **options)
        self.runtime.tick(workflow=workflow, run_id=run_id)
        return run_id

    def bundle(self, run_id: str, **options: Any) -> Json:
        return export_run_history_bundle(
            run_id=run_id,
            run_store=self.stores.runs,
            ledger_store=self.stores.ledger,
            artifact_store=self.stores.artifacts,
            clock=self.clock,
            **options,
        )

    def turns(self, run_id: str, **options: Any) -> list[Json]:
        turns: list[Json] = self.bundle(run_id, include_session=True, **options)["session"]["turns"]
        return turns


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_bundle_says_what_the_run_is(desk: Desk) -> None:
    run_id = desk.run({"answer": "x"}, vars={"prompt": "p", "_private": 1}, session_id="s1", actor_id="ar_1")

    bundle = desk.bundle(run_id)

    state = desk.runtime.get_state(run_id)
    assert list(bundle) == [
        "version",
        "generated_at",
        "root_run_id",
        "run",
        "workflow_snapshot",
        "input_data",
        "ledgers",
        "timeline",
        "session",
    ]
    assert (bundle["version"], bundle["root_run_id"], bundle["session"]) == (1, run_id, None)
    assert bundle["generated_at"] == desk.clock.now().isoformat()
    assert bundle["run"] == {
        "run_id": run_id,
        "workflow_id": "talks",
        "status": "completed",
        "current_node": "n",
        "created_at": state.created_at,
        "updated_at": state.updated_at,
        "actor_id": "ar_1",
        "session_id": "s1",
        "parent_run_id": None,
        "error": None,
        "waiting": None,
    }
    assert bundle["input_data"] == {"prompt": "p", "said": 0}
    assert bundle["workflow_snapshot"] is None


def test_a_waiting_run_tells_what_it_waits_for(desk: Desk) -> None:
    waiting = desk.bundle(desk.run(wait=True))["run"]["waiting"]

    assert (waiting["reason"], waiting["prompt"], len(waiting)) == ("user", "?", 9)


def test_the_tail_of_a_ledger_keeps_its_cursors(desk: Desk) -> None:
    run_id = desk.run(rounds=5)
    total = desk.stores.ledger.count(run_id)

    ledger = desk.bundle(run_id, ledger_max_items=3)["ledgers"][run_id]

    assert (ledger["total"], ledger["cursor_start"], ledger["cursor_end"]) == (total, total - 2, total)
    assert [item["cursor"] for item in ledger["items"]] == [total - 2, total - 1, total]
    assert [item["record"] for item in ledger["items"]] == desk.stores.ledger.list(run_id)[-3:]


@pytest.mark.parametrize("options", [{"ledger_mode": "full", "ledger_max_items": 1}, {"ledger_max_items": 0}])
def test_all_of_a_ledger_is_shown_where_asked_for(desk: Desk, options: Json) -> None:
    run_id = desk.run(rounds=5)

    ledger = desk.bundle(run_id, **options)["ledgers"][run_id]

    assert (ledger["cursor_start"], len(ledger["items"])) == (1, ledger["total"])


def test_an_empty_ledger_ends_before_it_begins(desk: Desk) -> None:
    workflow = WorkflowSpec("w", "n", {})
    run_id = desk.runtime.start(workflow=workflow)

    ledger = desk.bundle(run_id)["ledgers"][run_id]

    assert ledger == {"run_id": run_id, "total": 0, "cursor_start": 1, "cursor_end": 0, "items": []}


def test_the_timeline_is_the_records_of_all_runs_run_by_run(desk: Desk) -> None:
    parent = desk.run(rounds=1)
    child = desk.run(parent_run_id=parent)

    timeline = desk.bundle(parent)["timeline"]

    assert [(moment["run_id"], moment["cursor"]) for moment in timeline] == [
        *((parent, cursor) for cursor in range(1, 5)),
        *((child, cursor) for cursor in range(1, 3)),
    ]
    first = timeline[0]
    assert first == {
        "run_id": parent,
        "cursor": 1,
        "node_id": "n",
        "status": "started",
        "effect_type": "answer_user",
        "started_at": first["started_at"],
        "ended_at": first["started_at"],
        "duration_ms": 0.0,
    }


def test_the_runs_below_come_breadth_first_or_not_at_all(desk: Desk) -> None:
    root = desk.run()
    first, second = desk.run(parent_run_id=root), desk.run(parent_run_id=root)
    below = desk.run(parent_run_id=first)

    assert list(desk.bundle(root)["ledgers"]) == [root, first, second, below]
    assert list(desk.bundle(root, include_subruns=False)["ledgers"]) == [root]
    assert desk.bundle(below)["root_run_id"] == below


def test_a_circle_of_parents_ends(desk: Desk) -> None:
    root = desk.run()
    child = desk.run(parent_run_id=root)
    state = desk.runtime.get_state(root)
    state.parent_run_id = child
    desk.stores.runs.save(state)

    assert run_tree(desk.stores.runs, root) == [root, child]
    assert MAX_RUNS == 5000


def test_large_inputs_become_references(desk: Desk) -> None:
    long, many = "x" * (MAX_INLINE_BYTES + 1), list(range(60_000))
    run_id = desk.run(vars={"long": long, "deep": {"inner": {"list": many}, "small": 1}, "ref": {"$artifact": "a"}})

    data = desk.bundle(run_id)["input_data"]

    def fetched(ref: Json) -> Any:
        return desk.stores.artifacts.load(ref["$artifact"])

    metadata = desk.stores.artifacts.get_metadata(data["long"]["$artifact"])
    assert metadata is not None
    assert fetched(data["long"]) == long.encode()
    assert loads(fetched(data["deep"]["inner"]["list"])) == many
    assert (data["deep"]["small"], data["ref"]) == (1, {"$artifact": "a"})
    assert (metadata.run_id, metadata.content_type) == (run_id, "text/plain")
    assert metadata.tags == {"source": "history_bundle", "kind": "input_data", "path": "input_data.long"}
    assert desk.bundle(run_id)["input_data"] == data


def test_a_container_of_many_small_parts_becomes_one_reference(desk: Desk) -> None:
    parts = [["x" * 90_000] for _ in range(4)]
    run_id = desk.run(vars={"parts": parts, "other": 1})

    data = desk.bundle(run_id)["input_data"]

    assert loads(desk.stores.artifacts.load(data["parts"]["$artifact"]) or b"") == parts


def test_without_an_artifact_store_everything_stays_inline(desk: Desk) -> None:
    run_id = desk.run(vars={"long": "x" * (MAX_INLINE_BYTES + 1)})

    bundle = export_run_history_bundle(run_id=run_id, run_store=desk.stores.runs, ledger_store=desk.stores.ledger)

    assert len(bundle["input_data"]["long"]) == MAX_INLINE_BYTES + 1


def test_the_session_has_its_root_runs_oldest_first(desk: Desk) -> None:
    first = desk.run({"answer": "one"}, vars={"prompt": "p1"}, session_id="s1")
    second = desk.run({"answer": "two"}, vars={"prompt": "p2"}, session_id="s1")
    desk.run(parent_run_id=first, session_id="s1")
    desk.run(session_id="s1", workflow_id="__internal__")
    desk.run(session_id="s2")

    turns = desk.turns(first)

    assert [(turn["run_id"], turn["prompt"], turn["answer"]) for turn in turns] == [
        (first, "p1", "one"),
        (second, "p2", "two"),
    ]
    assert [turn["run_id"] for turn in desk.turns(first, session_turn_limit=1)] == [second]
    state = desk.runtime.get_state(first)
    assert turns[0] == {
        "run_id": first,
        "workflow_id": "talks",
        "kind": "run",
        "status": "completed",
        "created_at": state.created_at,
        "updated_at": state.updated_at,
        "prompt": "p1",
        "attachments": [],
        "answer": "one",
        "answer_meta": None,
        "stats": {
            "duration_ms": 2000,
            "llm_calls": 0,
            "tool_calls": 0,
            "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
            "tok_s": None,
        },
    }


def test_a_run_without_a_session_has_none(desk: Desk) -> None:
    assert desk.bundle(desk.run(), include_session=True)["session"] is None


def test_where_there_is_a_chat_only_chats_are_turns(desk: Desk) -> None:
    chat = {"context": {"messages": [{"role": "user", "content": "hi"}], "attachments": [{"$artifact": "a"}]}}
    desk.run(session_id="s1")
    run_id = desk.run(vars=chat, session_id="s1")

    (turn,) = desk.turns(run_id)

    assert (turn["run_id"], turn["kind"], turn["prompt"]) == (run_id, "chat", "hi")
    assert turn["attachments"] == [{"$artifact": "a"}]


@pytest.mark.parametrize("options", [{"workflow_id": "scheduled:x"}, {"vars": {"_meta": {"schedule": {"kind": "x"}}}}])
def test_a_scheduled_run_is_called_so(desk: Desk, options: Json) -> None:
    assert desk.turns(desk.run(session_id="s1", **options))[0]["kind"] == "scheduled"


def test_without_an_output_the_last_message_shown_is_the_answer(desk: Desk) -> None:
    run_id = desk.run(rounds=2, wait=True, session_id="s1")
    desk.run({"answer": "of the child"}, parent_run_id=run_id)

    assert desk.turns(run_id)[0]["answer"] == "m1"


def test_an_answer_that_was_moved_to_an_artifact_is_found(desk: Desk) -> None:
    run_id = desk.run(session_id="s1")
    state = desk.runtime.get_state(run_id)
    stored = desk.stores.artifacts.store(b'{"answer": "large"}')
    state.output = {"$artifact": stored.artifact_id}
    desk.stores.runs.save(state)

    assert desk.turns(run_id)[0]["answer"] == "large"


def test_an_answer_that_names_an_artifact_of_another_run_is_not_fetched(desk: Desk) -> None:
    other, run_id = desk.run(session_id="s2"), desk.run(session_id="s1")
    state = desk.runtime.get_state(run_id)
    stored = desk.stores.artifacts.store(b'{"answer": "of the other"}', run_id=other)
    state.output = {"$artifact": stored.artifact_id, "more": 1}
    desk.stores.runs.save(state)

    assert desk.turns(run_id)[0]["answer"] is None


@pytest.mark.parametrize("artifact", [None, b"no json"])
def test_an_answer_that_cannot_be_fetched_is_left_out(desk: Desk, artifact: bytes | None) -> None:
    run_id = desk.run(session_id="s1")
    state = desk.runtime.get_state(run_id)
    state.output = {"$artifact": desk.stores.artifacts.store(artifact).artifact_id if artifact else "gone"}
    desk.stores.runs.save(state)

    assert desk.turns(run_id)[0]["answer"] is None


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ({"response": "a", "answer": "b"}, "a"),
        ({"response": " ", "content": "c"}, "c"),
        ({"result": {"output": {"text": "deep"}}}, "deep"),
        ({"result": "plain"}, "plain"),
        ({"answer": {"text": "x"}}, None),
        (None, None),
        (5, None),
    ],
)
def test_an_answer_is_looked_for_inside_results(output: Any, answer: str | None) -> None:
    assert answer_in(output) == answer


@pytest.mark.parametrize(
    ("vars", "prompt"),
    [
        ({"prompt": "", "message": "m", "task": "t"}, "m"),
        ({"context": {"task": "t", "message": "m"}}, "t"),
        ({"context": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}}, "u"),
        ({"context": {"messages": "odd"}}, None),
        ({"prompt": 5}, None),
    ],
)
def test_the_prompt_is_looked_for_in_inputs_and_context(vars: Json, prompt: str | None) -> None:
    assert prompt_of(vars) == prompt


def test_the_stats_count_calls_and_tokens() -> None:
    def record(type: str, result: Json, second: int, status: str = "completed") -> Json:
        times = {"started_at": f"2026-01-01T00:00:0{second}+00:00", "ended_at": f"2026-01-01T00:00:0{second + 2}+00:00"}
        return {"status": status, "effect": {"type": type}, "result": result, **times}

    records = [
        record("llm_call", {"usage": {"input_tokens": 10, "output_tokens": 20, "total_tokens": 31}}, 0),
        record("llm_call", {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, 1),
        record("llm_call", {"usage": {"input_tokens": 99}}, 5, status="failed"),
        record("tool_calls", {"results": [{}, {}]}, 4),
        {"status": "completed", "effect": None, "result": None, "started_at": "odd", "ended_at": None},
    ]

    assert run_stats(records) == {
        "duration_ms": 6000,
        "llm_calls": 2,
        "tool_calls": 2,
        "usage": {"input_tokens": 11, "output_tokens": 22, "total_tokens": 34},
        "tok_s": 5.5,
    }


def test_an_unknown_run_and_a_blank_id_are_refused(desk: Desk) -> None:
    with pytest.raises(NotFound, match="Run 'nope' not found"):
        desk.bundle("nope")
    with pytest.raises(Invalid):
        desk.bundle(" ")


FLOW: Json = {
    "id": "chat",
    "nodes": [
        {
            "id": "start",
            "type": "on_flow_start",
            "data": {"nodeType": "on_flow_start", "outputs": [{"id": "exec-out", "type": "execution"}]},
        },
        {
            "id": "ask",
            "type": "llm_call",
            "data": {
                "nodeType": "llm_call",
                "inputs": [{"id": "exec-in", "type": "execution"}, {"id": "prompt", "type": "string"}],
                "outputs": [{"id": "exec-out", "type": "execution"}, {"id": "response", "type": "string"}],
                "pinDefaults": {"prompt": "hi"},
            },
        },
    ],
    "edges": [{"source": "start", "sourceHandle": "exec-out", "target": "ask", "targetHandle": "exec-in"}],
}


def test_the_gateway_exports_the_history_of_its_runs() -> None:
    harness = GatewayHarness(flows={"chat": FLOW}, model=ScriptedModel(["hello"]))
    run_id = harness.run("chat", {"prompt": "p"}, session_id="s1").run_id

    bundle = harness.runs.history_bundle(run_id, include_session=True, ledger_mode="full")

    assert bundle["run"]["status"] == RunStatus.COMPLETED.value
    assert bundle["session"]["turns"][0]["stats"]["llm_calls"] == 1
    assert bundle["session"]["turns"][0]["answer"] == "hello"


def test_the_gateway_refuses_an_unknown_mode() -> None:
    harness = GatewayHarness(flows={"chat": FLOW})
    run_id = harness.start("chat")

    with pytest.raises(Invalid, match="ledger_mode must be 'tail' or 'full'"):
        harness.runs.history_bundle(run_id, ledger_mode="some")


def test_compaction_and_its_child_are_driven_by_the_gateway() -> None:
    compact = {
        "id": "compact",
        "type": "memory_compact",
        "data": {
            "nodeType": "memory_compact",
            "inputs": [{"id": "exec-in", "type": "execution"}],
            "outputs": [{"id": "exec-out", "type": "execution"}, {"id": "span_id", "type": "string"}],
            "pinDefaults": {"preserve_recent": 1},
        },
    }
    edge = {"source": "start", "sourceHandle": "exec-out", "target": "compact", "targetHandle": "exec-in"}
    flow = {"id": "short", "nodes": [FLOW["nodes"][0], compact], "edges": [edge]}
    harness = GatewayHarness(flows={"short": flow}, model=ScriptedModel(['{"summary": "S"}']))
    messages = [{"role": "user", "content": text} for text in ("a", "b")]

    outcome = harness.run("short", {"context": {"messages": messages}})

    assert outcome.status == "completed", outcome.error
    assert [message["content"][-4:] for message in outcome.runs[0].vars["context"]["messages"]] == ["]: S", "b"]


@pytest.mark.parametrize(("started", "ended"), [("odd", "2026-01-01T00:00:00+00:00"), ("", None)])
def test_a_record_whose_times_are_none_has_no_duration(desk: Desk, started: str, ended: str | None) -> None:
    record = StepRecord("r1", "s1", "n", StepStatus.COMPLETED, started_at=started, ended_at=ended)
    desk.stores.ledger.append(record)
    state = RunState("r1", "w", RunStatus.RUNNING, "n")
    desk.stores.runs.save(state)

    (moment,) = desk.bundle("r1")["timeline"]

    assert moment["duration_ms"] is None

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import EffectOutcome, EffectType, RunState
from tests.runtime.workflows import Calls, Json, effect, end, spec
from tests.schedules.timetable import Timetable

SUMMARY = {"content": '{"summary": "They said hello.", "key_points": ["hello"], "confidence": 1}'}
NEARLY_FULL = {"content": "hi", "usage": {"input_tokens": 950}}


def conversation(count: int) -> Json:
    messages = [{"role": "user" if number % 2 else "assistant", "content": f"m{number}"} for number in range(count)]
    return {"context": {"messages": messages}, "_limits": {"max_tokens": 1000}}


def messages_of(state: RunState) -> list[str]:
    return [message["content"] for message in state.vars["context"]["messages"]]


def chatting(*answers: Any, then: Any = None) -> Timetable:
    """Return a table on which `b@1:chat` calls the model once and then waits for a person; `b@1:asks` only waits."""
    table = Timetable()
    table.bench.handlers = {EffectType.LLM_CALL: Calls(*answers, then=then or EffectOutcome.completed(SUMMARY))}
    call = effect("call", EffectType.LLM_CALL, {"prompt": "hi"}, then="ask", key="said")
    ask = effect("ask", EffectType.ASK_USER, {"prompt": "Go on?"}, then="end")
    table.bench.know(spec("b@1:chat", call=call, ask=ask, end=end()))
    table.restart()
    return table


def compactions(table: Timetable, run_id: str) -> list[Json]:
    records = table.bench.ledger(run_id)
    return [record for record in records if (record["effect"] or {}).get("type") == "memory_compact"]


@pytest.fixture
def table() -> Timetable:
    found = chatting()
    found.begin(interval="1h", target="b@1:asks", vars=conversation(10))
    return found


def test_the_conversation_that_is_under_way_is_shortened(table: Timetable) -> None:
    child = table.children[0].run_id

    outcome = table.send("compact_memory", preserve_recent=2, compression_mode="heavy", focus="greetings")

    assert outcome == ("applied", None)
    summary, *kept = messages_of(table.children[0])
    assert summary.endswith("They said hello.")
    assert kept == ["m8", "m9"]
    assert table.state.vars["_runtime"]["last_compact_memory"] == {
        "command_id": "c-1",
        "updated_at": "2026-01-01T00:00:00+00:00",
        "requested_run_id": table.run_id,
        "scheduled_root_run_id": table.run_id,
        "target_run_id": child,
    }


def test_what_becomes_of_a_compaction_is_in_the_ledger_of_the_run(table: Timetable) -> None:
    child = table.children[0].run_id

    table.send("compact_memory", child, preserveRecent=2, compressionMode="light")

    begun, accepted, ended = compactions(table, child)
    assert begun["effect"]["payload"] == {"target_run_id": child, "preserve_recent": 2, "compression_mode": "light"}
    assert (begun["node_id"], begun["idempotency_key"]) == ("compact_memory", "command:compact_memory:c-1")
    assert accepted["result"]["async"] is True
    assert table.bench.state(accepted["result"]["sub_run_id"]).status.value == "completed"
    assert ended["result"]["results"][0]["meta"]["compression_mode"] == "light"
    assert ended["result"]["results"][0]["output"].startswith("Compacted 8 messages")
    assert table.bench.state(child).vars["_temp"]["command"]["compact_memory"] == ended["result"]


def test_a_run_goes_on_with_its_shortened_conversation(table: Timetable) -> None:
    child = table.children[0].run_id
    table.send("compact_memory")

    table.send("resume", child, payload={"response": "yes"})

    assert table.bench.state(child).status.value == "completed"
    assert len(messages_of(table.bench.state(child))) == 7


def test_a_short_conversation_stays_and_the_ledger_says_so(table: Timetable) -> None:
    child = table.children[0].run_id

    outcome = table.send("compact_memory", preserve_recent=10)

    assert outcome == ("applied", None)
    assert len(messages_of(table.children[0])) == 10
    assert "Nothing to compact" in compactions(table, child)[-1]["result"]["results"][0]["output"]


def test_the_conversation_of_an_execution_that_has_ended_is_told_of_by_the_schedule(table: Timetable) -> None:
    child = table.children[0].run_id
    table.send("resume", child, payload={"response": "yes"})
    before = table.bench.ledger(child)

    for _ in range(2):
        assert table.send("compact_memory", preserve_recent=2) == ("applied", None)

    assert messages_of(table.bench.state(child))[1:] == ["m8", "m9"]
    assert table.bench.ledger(child) == before
    assert len(compactions(table, table.run_id)) == 5


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"target_run_id": "nobody"}, "unknown run 'nobody'"),
        ({"compression_mode": "total"}, "compression_mode: 'total' is not one of light, standard, heavy"),
        ({"preserve_recent": "few"}, "preserve_recent: 'few' is not a whole number"),
    ],
)
def test_a_compaction_that_makes_no_sense_is_rejected_and_changes_nothing(
    table: Timetable, payload: Json, reason: str
) -> None:
    before = [table.bench.stores.runs.open(run.run_id) for run in (table.state, *table.children)]

    outcome = table.send("compact_memory", **payload)

    assert outcome == ("rejected", reason)
    assert [table.bench.stores.runs.open(run.run_id) for run in (table.state, *table.children)] == before


def test_a_run_of_another_tree_is_not_compacted(table: Timetable) -> None:
    other = table.bench.start(table.bench.registry.get_or_raise("b@1:asks"), conversation(20))

    assert "is not part of a schedule" in str(table.send("compact_memory", other)[1])
    assert "is not part of the schedule" in str(table.send("compact_memory", target_run_id=other)[1])


def test_a_schedule_without_a_conversation_has_nothing_to_compact() -> None:
    table = chatting()
    table.begin(interval="1h")

    assert table.send("compact_memory") == ("rejected", f"no run of the schedule {table.run_id!r} has a conversation")


def test_a_conversation_that_nearly_fills_the_model_is_shortened_by_itself() -> None:
    table = chatting(EffectOutcome.completed(NEARLY_FULL))

    table.begin(interval="1h", target="b@1:chat", vars=conversation(14))

    (child,) = table.children
    assert len(messages_of(child)) == 7
    told = child.vars["_runtime"]["auto_compact"]
    assert (told["last_trigger_tokens_used"], told["last_trigger_at"]) == (950, "2026-01-01T00:00:00+00:00")
    assert table.bench.state(told["run_id"]).status.value == "completed"
    assert len(compactions(table, child.run_id)) == 3


@pytest.mark.parametrize(
    ("given", "messages", "tokens", "pct"),
    [
        ({"interval": "1h"}, 11, 950, 90),
        ({"interval": "1h"}, 14, 899, 90),
        ({"interval": "1h"}, 14, 950, 0),
        ({"interval": "1h"}, 14, 950, 96),
        ({}, 14, 950, 90),
    ],
    ids=["short", "room left", "switched off", "not so full", "not recurrent"],
)
def test_other_conversations_are_left_alone(given: Json, messages: int, tokens: int, pct: int) -> None:
    answer = {"content": "hi", "usage": {"input_tokens": tokens}}
    table = chatting(EffectOutcome.completed(answer))
    table.runner = table.bench.runner(auto_compact_pct=pct)

    table.begin(target="b@1:chat", vars=conversation(messages), **given)

    assert len(messages_of(table.children[0])) == messages


def test_a_run_outside_a_schedule_is_left_alone() -> None:
    table = chatting(EffectOutcome.completed(NEARLY_FULL))

    run_id = table.bench.start(table.bench.registry.get_or_raise("b@1:chat"), conversation(14))
    table.runner.run_until_idle()

    assert len(messages_of(table.bench.state(run_id))) == 14


def test_why_a_conversation_could_not_be_shortened_is_kept() -> None:
    failure = EffectOutcome.failed("the model is gone")
    table = chatting(EffectOutcome.completed(NEARLY_FULL), then=failure)

    table.begin(interval="1h", target="b@1:chat", vars=conversation(14))

    (child,) = table.children
    told = child.vars["_runtime"]["auto_compact"]
    assert "the model is gone" in told["last_error"]
    assert told["last_error_at"] == "2026-01-01T00:00:00+00:00"
    assert child.status.value == "waiting"
    assert len(messages_of(child)) == 14

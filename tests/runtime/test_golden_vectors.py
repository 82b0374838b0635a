from __future__ import annotations

import pytest

from abstractgateway.runtime import Effect, EffectType, StepRecord, StepStatus, compute_idempotency_key
from abstractgateway.runtime.chain import compute_record_hash, encode_record, verify_chain
from abstractgateway.runtime.idempotency import with_call_ids
from tests.runtime.workflows import Json

TOOLS = Effect(
    EffectType.TOOL_CALLS,
    {"tool_calls": [{"name": " t ", "arguments": '{"x": 1}', "call_id": "c1"}], "allowed_tools": ["b", "a"]},
)


@pytest.mark.parametrize(
    ("effect", "key"),
    [
        (Effect(EffectType.LLM_CALL, {"prompt": "test"}), "564fe8958917cea0cd42b1f242cccc34"),
        (Effect(EffectType.LLM_CALL, {"b": 1, "a": "é"}), "df4d9dea7622d7ba485fcec01ee557ca"),
        (TOOLS, "0c43efaecf32b1c3de0f5e5e7909e795"),
    ],
)
def test_the_key_of_an_effect_is_that_of_abstractruntime(effect: Effect, key: str) -> None:
    assert compute_idempotency_key(run_id="run-1", node_id="node-1", effect=effect) == key


def test_the_key_of_a_later_visit_is_another_one_of_the_same_length() -> None:
    effect = Effect(EffectType.LLM_CALL, {"prompt": "test"})

    keys = {compute_idempotency_key(run_id="run-1", node_id="node-1", effect=effect, visit=n) for n in (1, 2, 3)}

    assert len(keys) == 3
    assert {len(key) for key in keys} == {32}


def test_tool_calls_get_ids_from_the_key() -> None:
    key = "0c43efaecf32b1c3de0f5e5e7909e795"

    enriched = with_call_ids(TOOLS, key).payload

    assert enriched["tool_calls"] == [
        {"name": "t", "arguments": '{"x": 1}', "call_id": "c1", "runtime_call_id": f"rtcall_{key}_1"}
    ]
    assert enriched["allowed_tools"] == ["a", "b"]


def test_a_call_without_an_id_is_known_by_its_runtime_id() -> None:
    effect = Effect(EffectType.TOOL_CALLS, {"tool_calls": [{"name": "t", "arguments": {}}]})

    (call,) = with_call_ids(effect, "k").payload["tool_calls"]

    assert call["call_id"] == call["runtime_call_id"] == "rtcall_k_1"


@pytest.mark.parametrize("ids", [{"call_id": "c2"}, {"id": "x"}, {"runtime_call_id": "rtcall_a_1"}])
def test_the_ids_a_model_gives_its_calls_are_not_part_of_the_key(ids: Json) -> None:
    plain = Effect(EffectType.TOOL_CALLS, {"tool_calls": [{"name": "t", "arguments": {"x": 1}}]})
    named = Effect(EffectType.TOOL_CALLS, {"tool_calls": [{"name": "t", "arguments": {"x": 1}, **ids}]})

    keys = {compute_idempotency_key(run_id="r", node_id="n", effect=effect) for effect in (plain, named)}

    assert len(keys) == 1


def chained() -> list[StepRecord]:
    previous, records = None, []
    for index in (0, 1):
        record = StepRecord(
            run_id="r1",
            step_id=f"s{index}",
            node_id="n",
            status=StepStatus.COMPLETED,
            result={"i": index},
            started_at="2026-01-01T00:00:00+00:00",
            ended_at="2026-01-01T00:00:01+00:00",
            prev_hash=previous,
        )
        _, previous = encode_record(record)
        records.append(record)
    return records


def test_the_chain_of_two_records_has_the_hashes_of_abstractruntime() -> None:
    hashes = [record.record_hash for record in chained()]

    assert hashes == [
        "33d2cc3c697b78328ec3189d3bf961c8ba470da99ead979fcc2d2dc92fa3d94d",
        "375e7cc09a24df06c4e4263cb29c5f3caffc37d9b66084e8113970e36d757e70",
    ]


def test_the_hash_of_a_record_is_found_again_from_what_is_stored() -> None:
    record = StepRecord("r", "s", "n", StepStatus.FAILED, effect={"b": 1, "a": {"é": [None, 1.5]}}, error='"\n\x7f')

    _, digest = encode_record(record)

    assert compute_record_hash(record.to_dict()) == digest


def test_a_whole_chain_is_sound_and_its_head_is_the_last_hash() -> None:
    records = chained()

    report = verify_chain(record.to_dict() for record in records)

    assert (report.ok, report.count, report.head_hash) == (True, 2, records[1].record_hash)
    assert report.first_bad_index is None


def test_a_changed_record_and_a_missing_hash_are_found() -> None:
    first, second = (record.to_dict() for record in chained())
    first["result"] = {"i": 9}
    second["record_hash"] = None

    report = verify_chain([first, second])

    assert report.first_bad_index == 0
    assert [error["type"] for error in report.errors] == ["record_hash_mismatch", "missing_record_hash"]


def test_a_record_that_was_left_out_breaks_the_chain() -> None:
    _, second = chained()

    report = verify_chain([second.to_dict()])

    assert [error["type"] for error in report.errors] == ["prev_hash_mismatch"]


def test_records_from_before_chaining_may_come_first() -> None:
    old = {**chained()[0].to_dict(), "record_hash": None}

    report = verify_chain([old, *(record.to_dict() for record in chained())])

    assert report.ok

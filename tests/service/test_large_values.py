from __future__ import annotations

import io
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Invalid, NotFound, Unavailable
from abstractgateway.jsonvalue import loads
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.offloading import is_offloaded
from tests.service.conftest import Open
from tests.service.waiting import wait_for_status

LIMIT = 1000
LONG = "wörter " * 1000


@pytest.fixture
def gateway(open_gateway: Open) -> GatewayService:
    return open_gateway(max_inline_bytes=LIMIT)


def answered(gateway: GatewayService, **start: Any) -> str:
    """Run the flow that asks and repeats the answer, which is long, and return its run id."""
    run_id = gateway.runs.start(bundle_id="ask", **start)
    wait_for_status(gateway, run_id, "waiting")
    gateway.commands.submit(run_id=run_id, type="resume", payload={"payload": {"response": LONG}}, command_id=run_id)
    assert wait_for_status(gateway, run_id, "completed", "failed")["status"] == "completed"
    return run_id


def records(gateway: GatewayService, run_id: str) -> list[dict[str, Any]]:
    return [loads(body) for body in gateway.ledger.read(run_id).records]


def test_a_large_output_is_read_whole_and_its_ledger_is_small(gateway: GatewayService) -> None:
    run_id = answered(gateway)

    assert LONG in str(gateway.runs.get(run_id)["output"])
    assert loads(gateway.runs.snapshot(run_id)[0]) == gateway.runs.get(run_id)
    assert LONG[:2000] not in str(gateway.stores.runs.open(run_id))
    bodies = gateway.ledger.read(run_id).records
    assert max(map(len, bodies)) < 3 * LIMIT
    assert verify_chain(records(gateway, run_id)).ok


def test_a_large_answer_in_the_ledger_is_an_artifact_of_the_run(gateway: GatewayService) -> None:
    run_id = answered(gateway)

    resumed = next(r for r in records(gateway, run_id) if (r["effect"] or {}).get("type") == "resume")
    ref = resumed["effect"]["payload"]["payload"]["response"]

    assert is_offloaded(ref)
    assert gateway.artifacts.content(run_id, ref["$artifact"])[1] == LONG.encode()
    listed = {item["artifact_id"]: item["tags"] for item in gateway.artifacts.list(run_id)["items"]}
    assert listed[ref["$artifact"]]["path"] == "ledger.effect.payload.payload.response"


def test_the_inputs_of_an_ended_run_are_read_whole(gateway: GatewayService) -> None:
    run_id = answered(gateway, input_data={"prompt": LONG, "unknown": [LONG]})

    assert is_offloaded(gateway.stores.runs.open(run_id).state.vars["prompt"])
    assert gateway.inputs.get(run_id)["input_data"] == {"prompt": LONG}
    data = gateway.runs.history_bundle(run_id)["input_data"]
    assert (data["prompt"], data["unknown"]) == (LONG, [LONG])


def test_a_turn_shows_the_whole_question_and_answer(gateway: GatewayService) -> None:
    run_id = answered(gateway, input_data={"prompt": LONG}, session_id="s1")

    (turn,) = gateway.runs.history_bundle(run_id, include_session=True)["session"]["turns"]

    assert turn["prompt"] == LONG
    assert LONG in turn["answer"]


@pytest.mark.parametrize(
    "context", [{"messages": [{"role": "user", "content": LONG}]}, {str(n): "x" * 90 for n in range(99)}]
)
def test_a_long_chat_is_still_a_chat(gateway: GatewayService, context: dict[str, Any]) -> None:
    context = {"messages": [{"role": "user", "content": f"say {n}"} for n in range(200)], **context}

    run_id = answered(gateway, input_data={"context": context}, session_id="s1")

    (turn,) = gateway.runs.history_bundle(run_id, include_session=True)["session"]["turns"]
    assert (turn["run_id"], turn["kind"]) == (run_id, "chat")


def test_a_run_whose_artifact_is_gone_can_still_be_looked_at(gateway: GatewayService) -> None:
    run_id = answered(gateway, input_data={"prompt": LONG}, session_id="s1")
    gateway.stores.artifacts.delete_by_run(run_id)

    shown = gateway.runs.get(run_id)

    assert shown["status"] == "completed"
    assert "$offloaded" in str(shown["output"])
    assert "$offloaded" in str(gateway.inputs.get(run_id)["input_data"])
    assert len(gateway.runs.history_bundle(run_id, include_session=True)["session"]["turns"]) == 1


def test_artifacts_that_cannot_be_written_for_a_moment_only_delay_a_run(
    gateway: GatewayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = gateway.stores.artifacts
    store, left = artifacts.store, iter([True])

    def failing(content: bytes, **options: Any) -> Any:
        if options.get("run_id") and next(left, False):
            raise Unavailable("no space", code="store_failed")
        return store(content, **options)

    monkeypatch.setattr(artifacts, "store", failing)

    run_id = answered(gateway)

    assert next(left, None) is None
    assert LONG in str(gateway.runs.get(run_id)["output"])
    assert verify_chain(records(gateway, run_id)).ok


def test_without_a_limit_nothing_leaves(open_gateway: Open) -> None:
    gateway = open_gateway(max_inline_bytes=0)

    run_id = answered(gateway)

    assert [item["tags"]["kind"] for item in gateway.artifacts.list(run_id)["items"]] == ["workflow_snapshot"]
    assert LONG in str(gateway.stores.runs.open(run_id))


@pytest.mark.parametrize(
    ("environ", "limit"),
    [
        ({}, 262_144),
        ({"ABSTRACTRUNTIME_MAX_INLINE_BYTES": "5000"}, 5000),
        ({"ABSTRACTGATEWAY_MAX_INLINE_BYTES": "6000", "ABSTRACTRUNTIME_MAX_INLINE_BYTES": "5000"}, 6000),
        ({"ABSTRACTGATEWAY_MAX_INLINE_BYTES": "-1"}, -1),
        ({"ABSTRACTGATEWAY_MAX_INLINE_BYTES": "0"}, 0),
    ],
)
def test_the_environment_sets_the_limit(environ: dict[str, str], limit: int) -> None:
    assert GatewayConfig.from_env(environ).max_inline_bytes == limit


@pytest.mark.parametrize("text", ["999", "1", "many"])
def test_a_limit_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="ABSTRACTGATEWAY_MAX_INLINE_BYTES"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_MAX_INLINE_BYTES": text})


# -- artifacts as files ----------------------------------------------------------------------------------------------


def test_an_artifact_can_be_read_like_a_file(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="hello")
    stored = gateway.stores.artifacts.store(b"0123456789", run_id=run_id)

    with gateway.artifacts.open(run_id, stored.artifact_id) as file:
        assert (file.read(3), file.tell()) == (b"012", 3)
        assert (file.seek(-2, io.SEEK_END), file.read()) == (8, b"89")
        assert (file.seek(1), file.seek(1, io.SEEK_CUR), file.read(2)) == (1, 2, b"23")
        assert (file.seek(99), file.read(1)) == (99, b"")
        assert file.metadata == stored


def test_a_file_of_another_run_cannot_be_opened(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="hello")
    stored = gateway.stores.artifacts.store(b"x", run_id="other")

    with pytest.raises(NotFound):
        gateway.artifacts.open(run_id, stored.artifact_id)

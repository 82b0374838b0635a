from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

KEY = "Idempotency-Key: order-7"
BODY = {"bundle_id": "echo", "input_data": {"prompt": "hi"}}


def test_a_start_repeated_under_its_key_answers_with_the_first_run(live):
    first = live.ask("POST", "/runs/start", KEY, body=BODY)
    again = live.ask("POST", "/runs/start", KEY, body=BODY)
    other = live.ask("POST", "/runs/start", "Idempotency-Key: order-8", body=BODY)

    assert first.status == again.status == 200
    assert again.json == first.json
    assert other.json != first.json
    assert len(live.ask("GET", "/runs").json["items"]) == 2


def test_a_key_used_for_another_start_is_a_conflict(live):
    live.ask("POST", "/runs/start", KEY, body=BODY)

    answer = live.ask("POST", "/runs/start", KEY, body={**BODY, "input_data": {"prompt": "bye"}})

    assert (answer.status, answer.json["code"]) == (409, "idempotency_key_reused")
    assert "'order-7'" in answer.json["detail"]
    assert len(live.ask("GET", "/runs").json["items"]) == 1


def test_a_repeated_start_is_found_after_a_restart_and_after_its_bundle_has_gone(go_live, live):
    durable = go_live(store_backend="file")
    first = durable.ask("POST", "/runs/start", KEY, body=BODY).json
    durable.server.stop()
    durable.service.close()
    live.ask("DELETE", "/bundles/echo")

    again = go_live(store_backend="file").ask("POST", "/runs/start", KEY, body=BODY)

    assert again.json == first


def test_starts_at_the_same_moment_under_one_key_make_one_run(live):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: live.ask("POST", "/runs/start", KEY, body=BODY), range(24)))

    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["run_id"] for answer in answers}) == 1
    assert len(live.ask("GET", "/runs").json["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a b"])
def test_a_key_that_is_not_one_is_refused(live, key):
    answer = live.ask("POST", "/runs/start", f"Idempotency-Key: {key}", body=BODY)

    assert answer.status == 422
    assert answer.json["detail"][0]["loc"] == ["header", "Idempotency-Key"]


def test_runs_without_a_key_are_independent(live):
    assert live.start(**BODY) != live.start(**BODY)

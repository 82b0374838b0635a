from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from abstractgateway.testing import ScriptedModel
from tests.http.conftest import LiveGateway, packed
from tests.llm.provider import KEY, Provider, Reply, chat, failed, said

Json = dict[str, Any]
PATIENCE_S = 10.0
QUESTION = [{"role": "user", "content": "What happened?"}]


@pytest.fixture
def talking(go_live: Callable[..., LiveGateway]) -> Callable[..., tuple[LiveGateway, str]]:
    """Opens a gateway whose model answers, and a run that has ended."""

    def start(*answers: str, **settings: Any) -> tuple[LiveGateway, str]:
        live = go_live({"model": ScriptedModel(answers)}, provider="openai", model="m", **settings)
        return live, ended(live)

    return start


Talking = Callable[..., tuple[LiveGateway, str]]


def ended(live: LiveGateway) -> str:
    live.upload(packed())
    run_id = live.start(bundle_id="echo", session_id="s1")
    live.finish(run_id)
    return run_id


def told(live: LiveGateway, run_id: str) -> list[Json]:
    items = live.ask("GET", f"/runs/{run_id}/ledger?limit=2000").json["items"]
    return [item["effect"]["payload"] for item in items if item["node_id"] == "observer"]


def test_a_summary_is_answered_and_is_in_the_ledger(talking: Talking) -> None:
    live, run_id = talking("It echoed.", "Again.")

    answer = live.ask("POST", f"/runs/{run_id}/summary", body={})
    bare = live.ask("POST", f"/runs/{run_id}/summary")

    assert (answer.status, bare.status) == (200, 200)
    assert answer.json == {
        "ok": True,
        "run_id": run_id,
        "provider": "openai",
        "model": "m",
        "generated_at": answer.json["generated_at"],
        "summary": "It echoed.",
    }
    assert [event["name"] for event in told(live, run_id)] == ["abstract.summary"] * 2
    assert told(live, run_id)[0]["payload"]["text"] == "It echoed."
    assert set(told(live, run_id)[0]["payload"]) == {"text", "generated_at", "provider", "model", "source"}


def test_an_answer_is_kept_where_that_is_asked_for(talking: Talking) -> None:
    live, run_id = talking("one", "two")

    plain = live.ask("POST", f"/runs/{run_id}/chat", body={"messages": QUESTION})
    kept = live.ask("POST", f"/runs/{run_id}/chat", body={"messages": QUESTION, "persist": True})

    assert (plain.json["answer"], kept.json["answer"]) == ("one", "two")
    (event,) = told(live, run_id)
    assert event["name"] == "abstract.chat"
    assert set(event["payload"]) == {"generated_at", "provider", "model", "question", "answer", "source"}
    assert (event["payload"]["question"], event["payload"]["answer"]) == ("What happened?", "two")


def test_a_conversation_is_kept_once(talking: Talking) -> None:
    live, run_id = talking()
    body = {"messages": [*QUESTION, {"role": "assistant", "content": "It echoed."}], "title": "Mine"}

    first = live.ask("POST", f"/runs/{run_id}/chat_threads", body=body).json
    again = live.ask("POST", f"/runs/{run_id}/chat_threads", body=body).json

    names = "ok run_id workflow_id thread_id created_at duplicate title message_count chat_artifact"
    assert set(first) == set(names.split())
    assert (first["title"], first["message_count"], first["duplicate"]) == ("Mine", 2, False)
    assert again == {**first, "duplicate": True}
    content = live.ask("GET", f"/runs/{run_id}/artifacts/{first['chat_artifact']['$artifact']}/content")
    assert content.json["messages"] == body["messages"]
    assert [event["name"] for event in told(live, run_id)] == ["abstract.chat.thread"]


def test_a_conversation_over_the_limit_is_refused(talking: Talking) -> None:
    live, run_id = talking(max_chat_thread_bytes=1000)
    body = {"messages": [{"role": "user", "content": "x" * 1000}]}

    answer = live.ask("POST", f"/runs/{run_id}/chat_threads", body=body)

    assert (answer.status, answer.json["code"]) == (413, "chat_thread_too_large")


@pytest.mark.parametrize("name", ["summary", "chat", "chat_threads"])
def test_an_unknown_run_is_not_found(talking: Talking, name: str) -> None:
    live, _ = talking()

    answer = live.ask("POST", f"/runs/nope/{name}", body={"messages": QUESTION})

    assert (answer.status, answer.json["code"], answer.json["detail"]) == (404, "run_not_found", "Run 'nope' not found")


@pytest.mark.parametrize("name", ["summary", "chat"])
def test_without_a_model_the_request_is_refused(go_live: Callable[..., LiveGateway], name: str) -> None:
    live = go_live()
    run_id = ended(live)

    answer = live.ask("POST", f"/runs/{run_id}/{name}", body={"messages": QUESTION})

    assert (answer.status, answer.json["code"]) == (400, "no_model")
    assert told(live, run_id) == []


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (failed(401, f"bad key {KEY}"), "401: bad key [key]"),
        (said({}), "no choices"),
        (said(chat("")), "gave no text"),
    ],
)
def test_a_provider_that_fails_is_told_of(go_live: Callable[..., LiveGateway], reply: Reply, why: str) -> None:
    with Provider(reply) as provider:
        live = go_live(provider="openai", model="m", openai_base_url=provider.url, openai_api_key=KEY)
        run_id = ended(live)
        answer = live.ask("POST", f"/runs/{run_id}/summary", body={})

    assert (answer.status, answer.json["code"]) == (400, "direct_call_failed")
    assert why in answer.json["detail"]
    assert KEY not in answer.json["detail"]
    assert told(live, run_id) == []


def test_the_provider_is_asked_with_what_the_ledger_says(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(said(chat("fine"))) as provider:
        live = go_live(openai_base_url=provider.url, openai_api_key=KEY)
        run_id = ended(live)
        body = {"messages": QUESTION, "provider": "openai", "model": "m"}
        answer = live.ask("POST", f"/runs/{run_id}/chat", body=body)

    messages = provider.bodies[0]["messages"]
    assert answer.json["answer"] == "fine"
    assert [message["role"] for message in messages] == ["system", "user"]
    assert run_id in messages[0]["content"]
    assert messages[1]["content"] == "What happened?"


def test_a_silent_provider_is_given_up_in_time(go_live: Callable[..., LiveGateway]) -> None:
    over = threading.Event()

    def wait(request: Any) -> Reply:
        over.wait(PATIENCE_S)
        return said(chat("late"))

    with Provider(script=wait) as provider:
        live = go_live(
            provider="openai",
            model="m",
            openai_base_url=provider.url,
            openai_api_key=KEY,
            direct_timeout_s=0.2,
            llm_retries=0,
        )
        run_id = ended(live)
        answer = live.ask("POST", f"/runs/{run_id}/summary", body={})
        over.set()

    assert (answer.status, answer.json["code"]) == (400, "direct_call_failed")
    assert "within 0.2 s" in answer.json["detail"]


def test_too_many_calls_at_once_are_to_come_back_later(go_live: Callable[..., LiveGateway]) -> None:
    began, go_on = threading.Event(), threading.Event()

    class Slow:
        def generate(self, call: Json) -> Json:
            began.set()
            assert go_on.wait(PATIENCE_S)
            return {"content": "done"}

    live = go_live({"model": Slow()}, direct_calls=1)
    run_id = ended(live)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(live.ask("POST", f"/runs/{run_id}/summary", body={})))
    thread.start()
    assert began.wait(PATIENCE_S)

    refused = live.ask("POST", f"/runs/{run_id}/summary", body={})
    alive = live.ask("GET", f"/runs/{run_id}")
    go_on.set()
    thread.join(PATIENCE_S)

    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (503, "calls_full", "5")
    assert (alive.status, answers[0].status) == (200, 200)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages 0"),
        ({"messages": [{"role": "user"}]}, "messages 0 content"),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages 0 role"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages 0 content"),
        ({"messages": [{"role": "user", "content": "x"}] * 1001}, "messages"),
        ({"messages": QUESTION, "provider": 5}, "provider"),
        ({"messages": QUESTION, "include_subruns": "perhaps"}, "include_subruns"),
    ],
)
@pytest.mark.parametrize("name", ["chat", "chat_threads"])
def test_a_body_of_another_shape_is_refused(live: LiveGateway, name: str, body: Json, place: str) -> None:
    answer = live.ask("POST", f"/runs/x/{name}", body=body)

    assert (answer.status, answer.json["code"]) == (422, "validation_failed")
    assert " ".join(map(str, answer.json["detail"][0]["loc"])) == f"body {place}"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": " "}],
        [{"role": "robot", "content": "x"}],
        [{"role": "assistant", "content": "x"}],
    ],
)
def test_messages_without_a_question_are_refused(talking: Talking, messages: list[Json]) -> None:
    live, run_id = talking()

    answer = live.ask("POST", f"/runs/{run_id}/chat", body={"messages": messages})

    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert "messages" in answer.json["detail"]


def test_who_follows_the_ledger_sees_the_summary_at_once(talking: Talking) -> None:
    live, run_id = talking("fine")
    count = live.ask("GET", f"/runs/{run_id}").json["ledger_len"]

    live.ask("POST", f"/runs/{run_id}/summary", body={})

    page = live.ask("GET", f"/runs/{run_id}/ledger?after={count}").json
    assert [item["effect"]["payload"]["name"] for item in page["items"]] == ["abstract.summary"]


def test_a_token_of_one_session_talks_about_runs_of_that_session_only(talking: Talking) -> None:
    live, run_id = talking("fine", store_backend="file")
    create = live.service.access.tokens.create
    tokens = [create(session, ["command"], session_id=session)[1] for session in ("s1", "s2")]

    own, foreign = (
        live.ask("POST", f"/runs/{run_id}/summary", f"Authorization: Bearer {token}", body={}) for token in tokens
    )

    assert (own.status, foreign.status, foreign.json["code"]) == (200, 404, "run_not_found")

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Invalid, NotFound, Unavailable
from abstractgateway.jsonvalue import loads
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.service.ledger_digest import MAX_CHARS
from abstractgateway.testing import ScriptedModel
from tests.postgres.server import url_of
from tests.service.conftest import SAMPLES
from tests.service.waiting import PATIENCE_S, wait_for_status

Json = dict[str, Any]
OpenWith = Callable[..., GatewayService]


@pytest.fixture
def open_with(backend: str, tmp_path: Path) -> Iterator[OpenWith]:
    """Opens gateways with a model, on one data directory."""
    opened: list[GatewayService] = []

    def open_one(model: Any, /, **settings: Any) -> GatewayService:
        chosen = {"data_dir": tmp_path / "runtime", "flows_dir": SAMPLES, "store_backend": backend, **settings}
        if backend == "postgres":
            chosen["database_url"] = url_of(tmp_path)
        opened.append(GatewayService.open(GatewayConfig(**chosen), model=model))
        return opened[-1]

    yield open_one
    for gateway in opened:
        gateway.close()


def said(gateway: GatewayService, run_id: str) -> list[Json]:
    """The records that no step of the run made."""
    return [record for record in ledger(gateway, run_id) if record["node_id"] == "observer"]


def ledger(gateway: GatewayService, run_id: str) -> list[Json]:
    return [loads(body) for body in gateway.ledger.read(run_id, 0, 2000).records]


def finished(gateway: GatewayService, bundle_id: str = "hello") -> str:
    run_id = gateway.runs.start(bundle_id=bundle_id)
    wait_for_status(gateway, run_id, "completed", "waiting")
    return run_id


def question(text: str) -> list[Json]:
    return [{"role": "user", "content": text}]


def test_a_summary_is_what_the_model_says_and_a_record_of_the_ledger(open_with: OpenWith) -> None:
    model = ScriptedModel([" It went well. "])
    gateway = open_with(model, provider="P", model="m")
    run_id = finished(gateway)
    before = gateway.runs.get(run_id)

    answer = gateway.talk.summary(run_id)

    (record,) = said(gateway, run_id)
    payload = record["effect"]["payload"]["payload"]
    assert answer == {
        "ok": True,
        "run_id": run_id,
        "provider": "p",
        "model": "m",
        "generated_at": payload["generated_at"],
        "summary": "It went well.",
    }
    assert (record["status"], record["effect"]["type"]) == ("completed", "emit_event")
    assert (record["effect"]["payload"]["name"], record["effect"]["payload"]["scope"]) == ("abstract.summary", "run")
    lengths = {run_id: before["ledger_len"]}
    source = {"run_id": run_id, "include_subruns": True, "ledger_len_by_run": lengths}
    assert payload == {**answer_of(answer), "text": "It went well.", "source": source}
    after = gateway.runs.get(run_id)
    assert after == {**before, "ledger_len": before["ledger_len"] + 1}
    assert verify_chain(ledger(gateway, run_id)).ok


def answer_of(answer: Json) -> Json:
    return {name: answer[name] for name in ("provider", "model", "generated_at")}


def test_the_model_is_told_what_the_ledger_says(open_with: OpenWith) -> None:
    model = ScriptedModel(["fine"])
    gateway = open_with(model)
    run_id = finished(gateway)

    gateway.talk.summary(run_id)

    (call,) = model.calls
    assert run_id in call["system_prompt"]
    assert "completed" in call["system_prompt"]
    assert "abstract.status" in call["system_prompt"]
    assert call["tools"] == []


def test_a_chat_is_answered_and_kept_only_where_that_is_asked_for(open_with: OpenWith) -> None:
    model = ScriptedModel(["one", "two"])
    gateway = open_with(model)
    run_id = finished(gateway)

    first = gateway.talk.chat(run_id, messages=question("What?"))
    kept = gateway.talk.chat(
        run_id,
        messages=[*question("What?"), {"role": "assistant", "content": "one"}, *question("And then?")],
        persist=True,
    )

    (record,) = said(gateway, run_id)
    payload = record["effect"]["payload"]["payload"]
    assert (first["answer"], kept["answer"]) == ("one", "two")
    assert record["effect"]["payload"]["name"] == "abstract.chat"
    assert (payload["question"], payload["answer"]) == ("And then?", "two")
    assert [message["content"] for message in model.calls[1]["messages"]] == ["What?", "one", "And then?"]


def test_a_run_that_waits_goes_on_after_it_was_talked_about(open_with: OpenWith) -> None:
    gateway = open_with(ScriptedModel(lambda call: "it waits"))
    run_id = gateway.runs.start(bundle_id="ask")
    wait_for_status(gateway, run_id, "waiting")

    gateway.talk.summary(run_id)
    gateway.commands.submit(run_id=run_id, type="resume", payload={"payload": {"response": "Bob"}})
    wait_for_status(gateway, run_id, "completed")

    records = ledger(gateway, run_id)
    assert verify_chain(records).ok
    assert [record["node_id"] for record in records].count("observer") == 1


def test_talking_about_a_run_while_it_is_driven_loses_no_record_of_either(open_with: OpenWith) -> None:
    gateway = open_with(ScriptedModel(lambda call: "hi"))
    run_ids = [gateway.runs.start(bundle_id="ask") for _ in range(4)]

    def talk(run_id: str) -> None:
        for number in range(5):
            gateway.talk.chat_thread(run_id, messages=question(str(number)))

    threads = [threading.Thread(target=talk, args=(run_id,)) for run_id in run_ids for _ in range(2)]
    for thread in threads:
        thread.start()
    for run_id in run_ids:
        gateway.commands.submit(run_id=run_id, type="pause", payload={})
        gateway.commands.submit(run_id=run_id, type="resume", payload={})
    for run_id in run_ids:
        wait_for_status(gateway, run_id, "waiting")
        gateway.commands.submit(run_id=run_id, type="resume", payload={"payload": {"response": "Bob"}})
    for thread in threads:
        thread.join(PATIENCE_S)
    for run_id in run_ids:
        wait_for_status(gateway, run_id, "completed")

    for run_id in run_ids:
        told = [record["effect"]["payload"]["payload"]["title"] for record in said(gateway, run_id)]
        assert sorted(told) == ["0", "1", "2", "3", "4"]
        assert verify_chain(ledger(gateway, run_id)).ok


def test_the_runs_below_are_read_unless_they_are_not_wanted(open_with: OpenWith) -> None:
    gateway = open_with(ScriptedModel(lambda call: "fine"))
    run_id = finished(gateway)
    child = gateway.stores.runs.open(run_id)
    assert child is not None
    child.state.run_id, child.state.parent_run_id = "below", run_id
    gateway.stores.runs.save(child.state)

    gateway.talk.summary(run_id)
    gateway.talk.summary(run_id, include_subruns=False)

    lengths = [
        record["effect"]["payload"]["payload"]["source"]["ledger_len_by_run"] for record in said(gateway, run_id)
    ]
    assert [sorted(item) for item in lengths] == [sorted([run_id, "below"]), [run_id]]


def test_what_is_read_of_a_long_ledger_is_bounded(open_with: OpenWith) -> None:
    model = ScriptedModel(lambda call: "long")
    gateway = open_with(model)
    run_id = finished(gateway)
    for number in range(120):
        gateway.talk.chat_thread(run_id, messages=question(f"{number} " + "x" * 3000))

    gateway.talk.summary(run_id)

    assert len(model.calls[-1]["system_prompt"]) < MAX_CHARS + 1000
    assert "119 xxx" in model.calls[-1]["system_prompt"]


def test_the_model_of_the_request_wins_over_that_of_the_settings(open_with: OpenWith) -> None:
    model = ScriptedModel(lambda call: "hi")
    gateway = open_with(model, provider="openai", model="small")
    run_id = finished(gateway)

    for provider, name in ((None, None), ("openai", "large"), ("OpenAI", None), (None, "large"), ("other", "x")):
        gateway.talk.summary(run_id, provider=provider, model=name)

    asked = [(call.get("provider"), call["model"]) for call in model.calls]
    assert asked == [
        ("openai", "small"),
        ("openai", "large"),
        ("openai", "small"),
        (None, "large"),
        ("other", "x"),
    ]


def test_of_a_long_conversation_the_model_is_told_the_end(open_with: OpenWith) -> None:
    model = ScriptedModel(lambda call: "hi")
    gateway = open_with(model)
    run_id = finished(gateway)
    said_before = [{"role": "user", "content": f"{number} " + "x" * 10_000} for number in range(9)]

    gateway.talk.chat(run_id, messages=said_before)
    gateway.talk.chat(run_id, messages=[*said_before, *question("y" * 60_000)])

    firsts = [[message["content"][:2] for message in call["messages"]] for call in model.calls]
    assert firsts == [["5 ", "6 ", "7 ", "8 "], ["yy"]]


class Refusing:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def generate(self, call: Json) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (RuntimeError("no quota"), "no quota"),
        ({"content": None}, "gave no text"),
        ({"content": "  "}, "gave no text"),
        ({"content": "\ud800"}, "the answer"),
        (17, "not iterable"),
    ],
)
def test_a_model_that_fails_is_told_of_and_changes_nothing(tmp_path: Path, answer: Any, why: str) -> None:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES)
    with GatewayService.open(config, model=Refusing(answer)) as gateway:
        run_id = finished(gateway)
        before = gateway.runs.get(run_id)

        with pytest.raises(Invalid, match=why) as failure:
            gateway.talk.chat(run_id, messages=question("What?"), persist=True)

        assert failure.value.code == "direct_call_failed"
        assert gateway.runs.get(run_id) == before


def test_without_any_model_the_request_is_refused(tmp_path: Path) -> None:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES)
    with GatewayService.open(config) as gateway:
        run_id = finished(gateway)

        with pytest.raises(Invalid, match="ABSTRACTGATEWAY_PROVIDER") as no_provider:
            gateway.talk.summary(run_id)
        with pytest.raises(Invalid, match="ABSTRACTGATEWAY_MODEL"):
            gateway.talk.summary(run_id, provider="openai")

    assert no_provider.value.code == "no_model"


@pytest.mark.parametrize("messages", [[], question("  "), [{"role": "robot", "content": "x"}], [{"role": "user"}]])
def test_messages_without_a_question_are_refused(tmp_path: Path, messages: list[Json]) -> None:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES)
    with GatewayService.open(config, model=ScriptedModel(["x"])) as gateway:
        run_id = finished(gateway)

        with pytest.raises(Invalid, match="messages"):
            gateway.talk.chat(run_id, messages=messages)


def test_an_unknown_run_cannot_be_talked_about(tmp_path: Path) -> None:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES)
    model = ScriptedModel([])
    with GatewayService.open(config, model=model) as gateway:
        for talk in (gateway.talk.chat, gateway.talk.chat_thread):
            with pytest.raises(NotFound, match="Run 'nope' not found"):
                talk("nope", messages=question("x"))
        for run_id in ("nope", "../x"):
            with pytest.raises(NotFound, match="not found"):
                gateway.talk.summary(run_id)

    assert model.calls == []


def test_only_so_many_calls_are_made_at_once(tmp_path: Path) -> None:
    began, go_on = threading.Semaphore(0), threading.Event()

    class Slow:
        def generate(self, call: Json, timeout_s: float | None = None) -> Json:
            began.release()
            assert go_on.wait(PATIENCE_S)
            return {"content": f"within {timeout_s}"}

    config = GatewayConfig(
        store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES, direct_calls=2, direct_timeout_s=7.0
    )
    answers: list[Json] = []
    with GatewayService.open(config, model=Slow()) as gateway:
        run_id = finished(gateway)
        threads = [threading.Thread(target=lambda: answers.append(gateway.talk.summary(run_id))) for _ in range(2)]
        for thread in threads:
            thread.start()
            assert began.acquire(timeout=PATIENCE_S)

        with pytest.raises(Unavailable, match="all 2 calls") as refusal:
            gateway.talk.summary(run_id)
        go_on.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        again = gateway.talk.summary(run_id)

    assert (refusal.value.code, refusal.value.retry_after) == ("calls_full", 5.0)
    assert [answer["summary"] for answer in [*answers, again]] == ["within 7.0"] * 3


def test_calls_leave_two_threads_of_the_server_free(tmp_path: Path) -> None:
    config = GatewayConfig(
        store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES, direct_calls=50, http_threads=3
    )
    inner: list[str] = []

    class Nested:
        def generate(self, call: Json) -> Json:
            with pytest.raises(Unavailable, match="all 1 calls"):
                gateway.talk.summary(run_id)
            inner.append("refused")
            return {"content": "done"}

    with GatewayService.open(config, model=Nested()) as gateway:
        run_id = finished(gateway)
        gateway.talk.summary(run_id)

    assert inner == ["refused"]


def test_a_conversation_is_kept_once_as_an_artifact_that_the_ledger_tells_of(open_with: OpenWith) -> None:
    gateway = open_with(ScriptedModel([]))
    run_id = finished(gateway)
    messages = [*question("  What\nhappened? "), {"role": "assistant", "content": "Nothing."}]

    first = gateway.talk.chat_thread(run_id, messages=messages)
    again = gateway.talk.chat_thread(run_id, messages=messages)
    named = gateway.talk.chat_thread(run_id, messages=messages, title=" Mine ")

    ref = first["chat_artifact"]
    _, content = gateway.artifacts.content(run_id, ref["$artifact"])
    listed = {item["artifact_id"]: item["tags"]["kind"] for item in gateway.artifacts.list(run_id)["items"]}
    assert (first["title"], first["message_count"], first["duplicate"]) == ("What happened?", 2, False)
    assert again == {**first, "duplicate": True}
    assert (named["title"], named["duplicate"]) == ("Mine", False)
    assert loads(content)["messages"] == messages
    assert len(content) == ref["size_bytes"]
    assert listed[ref["$artifact"]] == "chat_thread"
    names = [record["effect"]["payload"]["name"] for record in said(gateway, run_id)]
    assert names == ["abstract.chat.thread", "abstract.chat.thread"]


def test_a_conversation_whose_record_was_lost_is_told_of_by_the_next_request(tmp_path: Path) -> None:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES)
    with GatewayService.open(config, model=ScriptedModel([])) as gateway:
        run_id, other = finished(gateway), finished(gateway)
        thread = gateway.talk.chat_thread(other, messages=question("x"))
        _, content = gateway.artifacts.content(other, thread["chat_artifact"]["$artifact"])
        kept = gateway.talk.chat_thread(run_id, messages=question("x"))
        artifact_id = kept["chat_artifact"]["$artifact"]
        fresh = finished(gateway)
        assert content != gateway.artifacts.content(run_id, artifact_id)[1]

        gateway.talk._events.find = lambda run_id, key: None  # type: ignore[method-assign]
        again = gateway.talk.chat_thread(run_id, messages=question("x"))

        assert again == {**kept, "duplicate": False}
        assert len(said(gateway, run_id)) == 2
        assert said(gateway, fresh) == []


def test_a_conversation_over_the_limit_is_not_kept(tmp_path: Path) -> None:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path, flows_dir=SAMPLES, max_chat_thread_bytes=1000)
    with GatewayService.open(config, model=ScriptedModel([])) as gateway:
        run_id = finished(gateway)

        with pytest.raises(Invalid, match="1000 bytes") as refusal:
            gateway.talk.chat_thread(run_id, messages=question("x" * 900))

        assert refusal.value.code == "chat_thread_too_large"
        assert said(gateway, run_id) == []


def test_an_answer_too_large_for_a_ledger_is_kept_elsewhere(open_with: OpenWith) -> None:
    gateway = open_with(ScriptedModel(["y" * 5000]), max_inline_bytes=1000)
    run_id = finished(gateway)

    answer = gateway.talk.summary(run_id)

    (record,) = said(gateway, run_id)
    assert answer["summary"] == "y" * 5000
    assert len(str(record)) < 4000

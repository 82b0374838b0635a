"""A gateway that is killed in the middle of a model call."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import Client, environment, port_of, serve
from tests.llm.flows import asking
from tests.llm.provider import KEY, PATIENCE_S, Provider, Reply, chat, chat_chunks, said, streamed


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_call_whose_answer_was_lost_with_the_process_is_made_again_under_the_same_key(
    tmp_path: Path, backend: str
) -> None:
    answered, killed = threading.Event(), threading.Event()
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "asks.flow").write_bytes(asking())

    def lost() -> Iterator[bytes]:
        """All of the answer but its end: so it is with the gateway, and cannot be committed."""
        yield from streamed(chat_chunks("first"), has_end=False).parts
        answered.set()
        killed.wait(PATIENCE_S)

    first = Reply(lost(), headers={"Content-Type": "text/event-stream"})
    with Provider(first, said(chat("second"))) as provider:
        env = environment(tmp_path / "data", backend, FLOWS_DIR=tmp_path / "flows", PROVIDER="openai", MODEL="m") | {
            "OPENAI_BASE_URL": provider.url,
            "OPENAI_API_KEY": KEY,
        }
        with serve(env=env) as process:
            run_id = Client(port_of(process)).start(bundle_id="asks", input_data={"prompt": "hi"})
            assert answered.wait(PATIENCE_S)
            process.end(signal.SIGKILL)
        killed.set()
        with serve(env=env) as process:
            client = Client(port_of(process))
            records = [record for _, record in client.follow(run_id)]
            run = client.run(run_id)

    calls = [record for record in records if (record["effect"] or {}).get("type") == "llm_call"]
    keys = {request.headers["idempotency-key"] for request in provider.requests}
    assert run["output"]["response"] == "second"
    assert [(record["status"], record["attempt"]) for record in calls] == [
        ("started", 1),
        ("started", 2),
        ("completed", 2),
    ]
    assert len(provider.requests) == 2
    assert keys == {record["idempotency_key"] for record in calls}

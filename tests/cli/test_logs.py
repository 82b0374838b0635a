from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.cli.logging import JsonLines, TextLines
from abstractgateway.security import Redactor
from tests.cli.processes import TOKEN, Client, environment, port_of, serve


def a_record(text: str = "something", **fields: Any) -> logging.LogRecord:
    return logging.getLogger("abstractgateway.test").makeRecord(
        "abstractgateway.test", logging.INFO, __file__, 1, text, (), None, extra=fields
    )


def a_failure() -> logging.LogRecord:
    try:
        raise ValueError("the secret is s3cr3t-word")
    except ValueError:
        return logging.LogRecord("abstractgateway.test", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())


def test_a_line_of_text_has_the_fields_of_the_event() -> None:
    line = TextLines(Redactor()).format(a_record("run started", run_id="r1", why="a b"))

    assert line.endswith('Z INFO abstractgateway.test: run started run_id=r1 why="a b"')


def test_a_line_of_json_has_them_as_values() -> None:
    line = JsonLines(Redactor()).format(a_record("run started", run_id="r1", records=3))

    told = json.loads(line)
    assert (told["level"], told["message"], told["run_id"], told["records"]) == ("info", "run started", "r1", 3)


@pytest.mark.parametrize("lines", [TextLines, JsonLines])
def test_an_event_is_one_line_without_secrets_whatever_is_in_it(lines: type[TextLines] | type[JsonLines]) -> None:
    formatter = lines(Redactor(["s3cr3t-word"]))
    records = (a_record("a\nb s3cr3t-word", reason="c\r\nd s3cr3t-word"), a_failure())

    texts = [formatter.format(record) for record in records]

    assert all("\n" not in text and "\r" not in text and "s3cr3t" not in text for text in texts)
    assert "Traceback" in texts[1]


def test_what_a_gateway_logs_tells_its_requests_runs_and_commands(tmp_path: Path) -> None:
    env = environment(tmp_path, "file", LOG_FORMAT="json")
    with serve("--log-level", "info", env=env) as process:
        client = Client(port_of(process))
        run_id = client.start(bundle_id="ask")
        _, key = client.question(run_id)
        client.answer(run_id, key, "Bob", "c-1")
        list(client.follow(run_id))
        client.call("/api/gateway/runs?session_id=private")
        client.call("/api/gateway/commands", {"command_id": "c-2", "run_id": "nope", "type": "pause", "payload": {}})
        while client.call("/api/gateway/commands/c-2")["status"] == "pending":
            continue
        process.end()
    events = [json.loads(line) for line in process.output if line.startswith("{")]

    access = [event for event in events if event["logger"] == "abstractgateway.http.access"]
    start = next(event for event in access if event["path"] == "/api/gateway/runs/start")
    assert (start["method"], start["status"]) == ("POST", 200)
    assert start["request_id"] and start["bytes"] > 0 and start["ms"] >= 0
    runs = [(event["message"], event["run_id"]) for event in events if event["message"].startswith("run ")]
    assert runs == [("run started", run_id), ("run completed", run_id)]
    commands = [(event["message"], event["command_id"]) for event in events if event["message"].startswith("command ")]
    assert commands == [("command applied", "c-1"), ("command rejected", "c-2")]
    assert "private" not in "".join(process.output)
    assert TOKEN not in "".join(process.output)


def test_nothing_is_logged_unless_something_is_wrong(tmp_path: Path) -> None:
    with serve(env=environment(tmp_path, "file")) as process:
        client = Client(port_of(process))
        list(client.follow(client.start(bundle_id="hello")))
        process.end()

    assert [line for line in process.output if " INFO " in line or " WARNING " in line] == []

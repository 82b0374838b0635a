"""Tools of servers that are processes; the servers are real ones."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from abstractgateway.errors import NotFound, Unavailable
from abstractgateway.runner.stop import StopSignal
from abstractgateway_mcp import McpTools, ToolError
from tests.mcp.conftest import (
    PATIENCE_S,
    PLAIN,
    STDIO,
    TOKEN,
    Open,
    Pipe,
    config_of,
    names,
    soon,
    specs_by_name,
    wait_for_name,
)

SECRETIVE = {**STDIO, "env": {"TOKEN": TOKEN}}


@pytest.fixture(scope="module")
def tools() -> Iterator[McpTools]:
    """One server for the tests that do it no harm."""
    opened = McpTools(config_of({"t": SECRETIVE}), pause=soon)
    opened.connect()
    yield opened
    opened.close()


def begun_to_hang(tools: McpTools, pipe: Pipe, **options: Any) -> tuple[threading.Thread, list[Exception]]:
    """Call a tool that does not return, in a thread, and wait until the server has begun with it."""
    failed: list[Exception] = []

    def call() -> None:
        try:
            tools.execute("t__hang", {"pipe": pipe.path}, **options)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    pipe.wait_for("begun")
    return thread, failed


def test_a_tool_is_offered_with_what_its_server_says_about_it(tools: McpTools) -> None:
    spec = specs_by_name(tools)["t__add"]

    assert (spec["description"], spec["server"]) == ("Add.", "t")
    assert spec["parameters"]["required"] == ["a", "b"]
    assert spec["annotations"] == {"title": "Add numbers", "readOnlyHint": True}
    assert "requires_approval" not in spec


def test_structured_content_is_the_output(tools: McpTools) -> None:
    assert tools.execute("t__add", {"a": 1, "b": 2}) == {"sum": 3}


def test_a_name_that_models_cannot_use_is_replaced_by_one_that_they_can(tools: McpTools) -> None:
    (name,) = {name for name in names(tools) if name.startswith("t__odd_name_1_")}

    assert tools.execute(name, {}) == "odd"


def test_a_tool_that_fails_says_why_without_secrets(tools: McpTools) -> None:
    with pytest.raises(ToolError) as failed:
        tools.execute("t__fail", {})

    assert str(failed.value) == "no such file; [secret]"


@pytest.mark.parametrize("name", ["t__nothing", "other__add", "add"])
def test_a_tool_that_nobody_has_is_not_found(tools: McpTools, name: str) -> None:
    with pytest.raises(NotFound, match="there is no tool"):
        tools.execute(name, {})


def test_a_server_gets_the_key_that_a_repeated_call_has_again(tools: McpTools) -> None:
    assert tools.execute("t__key", {}, idempotency_key="k-1") == "k-1"


def test_text_that_is_too_long_is_cut_and_says_so(tools: McpTools) -> None:
    output = tools.execute("t__long", {"size": 1_000_000})

    assert output.endswith("\n[cut off: 262144 of 1000000 bytes]")
    assert len(output) < 263_000


def test_other_content_is_described(tools: McpTools) -> None:
    assert tools.execute("t__kinds", {}) == [
        {"type": "text", "text": "see"},
        {"type": "image", "mime_type": "image/png", "data": "aGk="},
        {"type": "audio", "mime_type": "audio/wav", "data": "aGk="},
        {"type": "resource_link", "uri": "file:///notes.txt", "name": "notes"},
        {"type": "resource", "uri": "file:///a.txt", "mime_type": "text/plain", "text": "inside"},
    ]


def test_content_that_is_too_large_is_described_without_it(tools: McpTools) -> None:
    output = tools.execute("t__kinds", {"times": 100_000})

    assert output[2] == {"type": "audio", "mime_type": "audio/wav", "omitted_characters": 400_000}
    assert output[4]["text"] == "inside"


def test_a_process_gets_no_more_of_the_environment_than_its_entry_says(tools: McpTools) -> None:
    seen = tools.execute("t__environment", {})["environment"]

    assert seen["TOKEN"] == TOKEN
    assert set(seen) <= {"PATH", "HOME", "LANG", "TOKEN", "LC_CTYPE"}


def test_tools_that_the_settings_deny_are_neither_offered_nor_called(tools_of: Open) -> None:
    tools = tools_of({"t": {**PLAIN, "allow": ["a*", "die"], "deny": ["d*"]}})
    tools.connect()

    assert names(tools) == {"t__add"}
    with pytest.raises(NotFound, match="there is no tool 't__die'"):
        tools.execute("t__die", {})


def test_a_thousand_tools_on_many_pages_are_all_offered(tools_of: Open) -> None:
    tools = tools_of({"t": {**STDIO, "args": [*STDIO["args"], "--tools", "1000"]}})
    tools.connect()

    assert {f"t__tool_{number}" for number in range(1000)} < names(tools)
    assert tools.execute("t__tool_999", {}) == "called tool_999"


def test_a_server_that_lists_too_many_tools_is_not_used(tools_of: Open) -> None:
    tools = tools_of({"t": {**PLAIN, "args": [*PLAIN["args"], "3000"]}})

    with pytest.raises(Unavailable, match="more than 2000 tools"):
        tools.execute("t__add", {"a": 1, "b": 2})


def test_a_server_that_dies_in_the_middle_of_a_call_fails_it_and_is_started_again(tools_of: Open) -> None:
    tools = tools_of({"t": {**PLAIN, "env": {"TOKEN": TOKEN}}})

    with pytest.raises(ToolError, match="the connection was lost during the call, which may have had its effect"):
        tools.execute("t__die", {})

    assert tools.execute("t__add", {"a": 1, "b": 2}) == "3"


def test_the_last_words_of_a_server_are_in_the_error_without_its_secrets(tools_of: Open) -> None:
    shouting = [sys.executable, "-c", "import os, sys; sys.exit('bad ' + os.environ['TOKEN'])"]
    tools = tools_of({"t": {"command": shouting[0], "args": shouting[1:], "env": {"TOKEN": TOKEN}}})

    with pytest.raises(Unavailable) as failed:
        tools.execute("t__add", {})

    assert str(failed.value) == "mcp server 't': it ended; it said: bad [secret]"
    assert tools.problems() == {"t": str(failed.value)}


def test_a_program_that_is_not_there_is_an_error_that_names_it(tools_of: Open) -> None:
    tools = tools_of({"t": {"command": "no-such-program-here"}})

    with pytest.raises(Unavailable, match="No such file or directory: 'no-such-program-here'"):
        tools.execute("t__add", {})


@pytest.mark.parametrize(
    ("tool", "why"),
    [("spoil", "it sent a line that is no message"), ("flood", "it sent a message of more than 16777216 bytes")],
)
def test_a_server_that_breaks_the_protocol_fails_the_call_and_is_started_again(
    tools_of: Open, tool: str, why: str
) -> None:
    tools = tools_of({"t": PLAIN})

    with pytest.raises(ToolError, match=why):
        tools.execute(f"t__{tool}", {})

    assert tools.execute("t__add", {"a": 1, "b": 2}) == "3"


def test_what_a_server_prints_before_it_speaks_is_passed_over(tools_of: Open) -> None:
    assert tools_of({"t": PLAIN}).execute("t__add", {"a": 1, "b": 2}) == "3"


def test_an_error_of_the_protocol_is_told_without_secrets(tools_of: Open) -> None:
    tools = tools_of({"t": {**PLAIN, "env": {"TOKEN": TOKEN}}})

    with pytest.raises(ToolError) as failed:
        tools.execute("t__refuse", {})

    assert str(failed.value) == "mcp server 't': error -32602: not with [secret]"


def test_an_answer_that_is_no_result_is_an_error(tools_of: Open) -> None:
    tools = tools_of({"t": PLAIN})

    with pytest.raises(ToolError, match="an answer that is no result of a tool"):
        tools.execute("t__nonsense", {})

    assert tools.execute("t__add", {"a": 1, "b": 2}) == "3"


@pytest.mark.parametrize("entry", [STDIO, PLAIN], ids=["newer", "older"])
def test_a_tool_that_comes_later_is_offered_later(tools_of: Open, entry: dict[str, Any]) -> None:
    tools = tools_of({"t": entry})
    tools.connect()
    assert "t__fresh" not in names(tools)

    tools.execute("t__grow", {"name": "fresh"})

    wait_for_name(tools, "t__fresh")
    assert tools.execute("t__fresh", {}) == "called fresh"


def test_a_call_that_takes_too_long_is_given_up_and_its_server_told(tools_of: Open, pipe: Pipe) -> None:
    tools = tools_of({"t": PLAIN})
    tools.execute("t__add", {"a": 1, "b": 2})

    thread, failed = begun_to_hang(tools, pipe, timeout_s=0.5)
    thread.join(PATIENCE_S)

    assert [str(error) for error in failed] == ["mcp server 't': no answer within 0.5 s; it may have had its effect"]
    pipe.wait_for("cancelled")


def test_a_call_that_is_stopped_ends_at_once_and_its_server_is_told(tools_of: Open, pipe: Pipe) -> None:
    tools, stop = tools_of({"t": PLAIN}), StopSignal()
    thread, failed = begun_to_hang(tools, pipe, stop=stop)

    began = time.monotonic()
    stop.set()
    thread.join(PATIENCE_S)

    assert time.monotonic() - began < 2.0
    assert [str(error) for error in failed] == ["mcp server 't': the call was cancelled; it may have had its effect"]
    pipe.wait_for("cancelled")
    assert tools.execute("t__add", {"a": 1, "b": 2}) == "3"


def test_a_call_that_is_stopped_before_it_begins_is_not_made(tools_of: Open) -> None:
    tools, stop = tools_of({"t": PLAIN}), StopSignal()
    stop.set()

    with pytest.raises(ToolError, match="the call was cancelled"):
        tools.execute("t__add", {"a": 1, "b": 2}, stop=stop)


def test_a_hanging_call_delays_no_other_of_the_same_server(tools_of: Open, pipe: Pipe) -> None:
    tools, stop = tools_of({"t": PLAIN}), StopSignal()
    thread, _ = begun_to_hang(tools, pipe, stop=stop)

    assert tools.execute("t__add", {"a": 1, "b": 2}, timeout_s=PATIENCE_S) == "3"

    stop.set()
    thread.join(PATIENCE_S)


def test_a_server_that_never_answers_delays_neither_the_beginning_nor_others_nor_the_end(tools_of: Open) -> None:
    deaf = {"command": sys.executable, "args": ["-c", "import time; time.sleep(600)"]}
    tools = tools_of({"deaf": deaf, "t": PLAIN})

    began = time.monotonic()
    tools.connect()
    assert time.monotonic() - began < 2.0
    assert tools.execute("t__add", {"a": 1, "b": 2}) == "3"
    ending = time.monotonic()
    tools.close()
    assert time.monotonic() - ending < 8.0


def test_a_server_that_is_not_ready_in_time_is_an_error(tools_of: Open) -> None:
    deaf = {"command": sys.executable, "args": ["-c", "import sys; sys.stdin.read()"]}
    tools = tools_of({"t": deaf}, mcp_connect_timeout_s=0.3)

    with pytest.raises(Unavailable, match=r"it was not ready within 0\.3 s"):
        tools.execute("t__add", {})


def test_closing_ends_the_processes_and_the_calls_under_way(tools_of: Open, pipe: Pipe) -> None:
    tools = tools_of({"t": {**PLAIN, "env": {"ALIVE": pipe.path}}})
    thread, failed = begun_to_hang(tools, pipe)

    tools.close()

    thread.join(PATIENCE_S)
    assert len(failed) == 1
    pipe.wait_for_end()
    with pytest.raises(Unavailable, match="the tools are closed"):
        tools.execute("t__add", {})


def test_closing_ends_a_process_that_ignores_everything_and_what_it_started(tools_of: Open, pipe: Pipe) -> None:
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); "
        "os.write(os.open(os.environ['ALIVE'], os.O_WRONLY), b'begun'); time.sleep(600)"
    )
    entry = {"command": sys.executable, "args": ["-c", stubborn], "env": {"ALIVE": pipe.path}}
    tools = tools_of({"t": entry})
    tools.connect()
    pipe.wait_for("begunbegun")

    tools.close()

    pipe.wait_for_end()


def test_before_it_is_connected_there_are_no_tools_and_no_processes(tools_of: Open) -> None:
    before = threading.active_count()

    assert tools_of({"t": PLAIN}).specs() == []
    assert threading.active_count() == before

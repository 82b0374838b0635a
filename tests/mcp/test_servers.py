"""What the settings may say about servers, which none of these tests starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.config import McpServers
from abstractgateway.errors import Invalid
from abstractgateway_mcp.servers import Server, servers_of

NAME = "ABSTRACTGATEWAY_MCP_SERVERS"


def read(entries: dict[str, Any], **environ: str) -> tuple[Server, ...]:
    return servers_of(GatewayConfig(mcp_servers=McpServers.of(entries, environ)))


@pytest.mark.parametrize("is_inline", [True, False])
def test_servers_are_read_from_a_file_or_from_the_variable_itself(tmp_path: Path, is_inline: bool) -> None:
    text = json.dumps({"mcpServers": {"clock": {"command": "clock", "args": ["--utc"]}}})
    path = tmp_path / "servers.json"
    path.write_text(text)

    config = GatewayConfig.from_env({NAME: text if is_inline else str(path)})

    assert [(server.name, server.command, server.args) for server in servers_of(config)] == [
        ("clock", "clock", ("--utc",))
    ]


@pytest.mark.parametrize(
    "text", ["/nowhere/servers.json", "{", "{}", '{"mcpServers": []}', '{"servers": {}}'], ids=lambda text: text
)
def test_what_names_no_servers_stops_the_program_and_names_the_variable(text: str) -> None:
    with pytest.raises(Invalid, match=NAME):
        GatewayConfig.from_env({NAME: text})


def test_without_the_variable_there_are_no_servers() -> None:
    assert GatewayConfig.from_env({}).mcp_servers is None


def test_a_process_sees_of_the_environment_what_programs_need_and_what_its_entry_says() -> None:
    entry = {"command": "x", "env": {"TOKEN": "${SECRET}", "MODE": "a"}}

    (server,) = read({"x": entry}, PATH="/bin", HOME="/h", LANG="C", SECRET="s3cret", OPENAI_API_KEY="other")

    assert server.env == {"PATH": "/bin", "HOME": "/h", "LANG": "C", "TOKEN": "s3cret", "MODE": "a"}


def test_references_are_replaced_wherever_texts_may_be() -> None:
    entries = {
        "p": {"command": "${BIN}/x", "args": ["--at=${PLACE}"], "cwd": "${BIN}"},
        "u": {"url": "https://${PLACE}/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
    }

    process, remote = read(entries, BIN="/opt", PLACE="here", KEY="k-1234")

    assert (process.command, process.args, process.cwd) == ("/opt/x", ("--at=here",), "/opt")
    assert (remote.url, remote.headers) == ("https://here/mcp", {"Authorization": "Bearer k-1234"})


def test_a_reference_to_what_is_not_set_is_refused() -> None:
    with pytest.raises(Invalid, match=r"mcpServers\.x\.env\.TOKEN: refers to \$\{SECRET\}, which is not set"):
        read({"x": {"command": "x", "env": {"TOKEN": "${SECRET}"}}})


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("x", "clock", "is not an object"),
        ("x", {}, "either a command or a url"),
        ("x", {"command": "a", "url": "https://b"}, "either a command or a url"),
        ("x", {"command": ""}, "command: is not a text"),
        ("x", {"command": "a", "args": "b"}, "args: is not a list of texts"),
        ("x", {"command": "a", "args": ["a\0b"]}, "no program can be given"),
        ("x", {"command": "a", "env": {"A": 1}}, "env.A: is not a text"),
        ("x", {"command": "a", "headers": {}}, "headers: is not a field"),
        ("x", {"command": "a", "autoApprove": ["*"]}, "autoApprove: is not a field"),
        ("x", {"command": "a", "type": "http"}, "'http' does not go with a command"),
        ("x", {"url": "https://a", "type": "sse"}, "'sse' does not go with a url"),
        ("x", {"command": "a", "timeout_s": 0}, "timeout_s: is not a number of seconds"),
        ("x", {"command": "a", "disabled": "no"}, "disabled: is not true or false"),
        ("x", {"url": "ftp://a"}, "is no URL"),
        ("x", {"url": "https://user:word@a"}, "credentials belong into headers"),
        ("x", {"url": "https://a", "headers": {"A": "b\r\nC: d"}}, "no header may have"),
        ("x", {"url": "https://a", "headers": {"A:": "b"}}, "no header may have"),
        ("two__parts", {"command": "a"}, "is not a name"),
        ("ends_", {"command": "a"}, "is not a name"),
        ("a b", {"command": "a"}, "is not a name"),
        ("n" * 33, {"command": "a"}, "is not a name"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place_and_the_reason(name: str, entry: Any, said: str) -> None:
    with pytest.raises(Invalid, match="mcpServers") as refused:
        read({name: entry})

    assert said in str(refused.value)


def test_a_disabled_server_is_left_out() -> None:
    assert read({"x": {"command": "a", "disabled": True}}) == ()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, {"read_file", "write_file", "stat"}),
        ({"allow": ["read_*"]}, {"read_file"}),
        ({"deny": ["write_*"]}, {"read_file", "stat"}),
        ({"allow": ["*_file"], "deny": ["write_file"]}, {"read_file"}),
        ({"allow": []}, set()),
    ],
)
def test_lists_say_which_tools_may_be_called(rules: dict[str, Any], expected: set[str]) -> None:
    (server,) = read({"x": {"command": "a", **rules}})

    allowed = {name for name in ("read_file", "write_file", "stat") if server.has_allowed(name)}

    assert allowed == expected


def test_what_the_settings_keep_secret_is_shown_by_no_repr_and_no_message() -> None:
    entries = {
        "p": {"command": "x", "args": ["--key=${KEY}"], "env": {"A": "first-secret"}},
        "u": {"url": "https://a/?token=third-secret", "headers": {"X": "Bearer second-secret"}},
    }
    config = GatewayConfig(mcp_servers=McpServers.of(entries, {"KEY": "fourth-secret"}))

    process, remote = servers_of(config)

    assert "secret" not in f"{config!r} {process!r} {remote!r}"
    assert process.hidden("first-secret and fourth-secret") == "[secret] and [secret]"
    assert "-secret" not in remote.hidden("second-secret, Bearer second-secret, token=third-secret")

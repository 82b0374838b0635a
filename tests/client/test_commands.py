from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from abstractgateway.cli import main
from abstractgateway.cli.remote import answer_to, waits_of
from abstractgateway.client import Entry
from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.runtime.chain import verify_chain
from tests.client.conftest import TOKEN
from tests.commands import Said, said_by


@pytest.fixture
def ag(server, monkeypatch, capsys) -> Callable[..., Said]:
    """Runs a command line against the server."""
    monkeypatch.setenv("ABSTRACTGATEWAY_URL", server.url)
    monkeypatch.setenv("ABSTRACTGATEWAY_AUTH_TOKEN", TOKEN)

    def run(*arguments: str) -> Said:
        return said_by(capsys, *arguments)

    return run


@pytest.fixture
def asked(ag, client) -> str:
    """A run that asks `Who?`."""
    run_id = ag("runs", "start", "ask", "--set", "prompt=Who?").out.strip()
    next(entry for entry in client.follow(run_id) if entry.record["status"] == "waiting")
    return run_id


def test_a_run_is_started_and_watched_to_its_end(ag):
    said = ag("runs", "start", "hello", "--set", "prompt=World", "--watch")

    assert said.code == 0
    assert "completed  answer" in said.out
    assert said.out.splitlines()[-1] == 'completed: {"response": "Hello, World", "success": true}'


def test_inputs_come_from_a_file_and_are_overridden_one_by_one(ag, client, tmp_path):
    (tmp_path / "in.json").write_text('{"prompt": "File", "n": 1}')

    run_id = ag(
        "runs", "start", "hello", "--input", f"@{tmp_path / 'in.json'}", "--set", "prompt=Flag", "--session", "s"
    ).out.strip()

    run = client.wait(run_id)
    assert (run["output"]["response"], run["session_id"]) == ("Hello, Flag", "s")


def test_a_key_makes_starts_one(ag):
    first, second = (json.loads(ag("runs", "start", "ask", "--key", "k", "--json").out) for _ in range(2))

    assert first == second


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (("hello", "--input", "[]"), "no JSON object", 2),
        (("hello", "--input", "{"), "not valid JSON", 2),
        (("hello", "--input", "@/nowhere"), "cannot be read", 2),
        (("hello", "--deltas"), "goes with --watch", 2),
        (("nope",), "Bundle not found", 1),
        (("hello:nope",), "nope", 1),
    ],
)
def test_a_start_that_is_wrong_is_told_of_and_starts_nothing(ag, arguments, text, code):
    said = ag("runs", "start", *arguments)

    assert (said.code, said.out) == (code, "")
    assert text in said.err and said.err.startswith("abstractgateway: ")
    assert ag("runs", "list", "--json").out.strip() == '{\n  "items": []\n}'


@pytest.mark.parametrize("text", ["prompt", "=x"])
def test_an_input_that_is_no_assignment_is_a_wrong_command_line(ag, capsys, text):
    with pytest.raises(SystemExit) as raised:
        ag("runs", "start", "hello", "--set", text)

    assert raised.value.code == 2
    assert "is not NAME=VALUE" in capsys.readouterr().err


def test_runs_are_listed_with_what_they_ask(ag, asked):
    said = ag("runs", "list", "--status", "waiting", "--limit", "5")

    head, row = said.out.splitlines()
    assert head.split() == ["RUN", "STATUS", "WORKFLOW", "NODE", "UPDATED"]
    assert row.startswith(f"{asked}  waiting  ask@0.1.0:ask  ask") and row.endswith("Who?")


def test_why_a_run_does_not_go_on_is_said_with_what_to_do(ag, asked):
    said = ag("runs", "why", "latest")

    assert f"{asked}  waiting  ask@0.1.0:ask  at ask\n  asks since " in said.out
    assert f": Who?\n  answer it with: abstractgateway runs answer {asked} '…'\n" in said.out
    assert json.loads(ag("runs", "why", asked, "--json").out)[0]["blocked_by"]["kind"] == "user"


def test_a_question_is_answered_once(ag, asked, client):
    first, second = ag("runs", "answer", asked, "Bob"), ag("runs", "answer", asked, "Eve")

    assert (first.code, first.out) == (0, "applied\n")
    assert (second.code, second.out) == (1, "")
    assert "asks nothing" in second.err
    assert client.wait(asked)["output"]["response"] == "You answered: Bob"
    assert "ended" in ag("runs", "why", asked).out


def test_a_wait_is_answered_with_an_object(ag, asked, client):
    assert ag("runs", "answer", asked, '{"response": "Bob"}', "--payload").code == 0
    assert client.wait(asked)["output"]["response"] == "You answered: Bob"


def test_a_cancelled_run_is_no_success_for_who_watches_it(ag, asked):
    cancelled = ag("runs", "cancel", asked, "--reason", "enough")
    watched = ag("runs", "watch", asked)

    assert (cancelled.code, cancelled.out) == (0, "applied\n")
    assert watched.code == 1
    assert "asks since" not in watched.out
    assert f"run {asked} has not completed" in watched.err


def test_a_command_that_cannot_be_applied_fails(ag):
    said = ag("runs", "pause", "nope")

    assert (said.code, said.out) == (1, "")
    assert "rejected" in said.err


def test_a_run_is_watched_as_json_from_a_cursor(ag, client):
    run_id = client.start(bundle_id="hello")
    client.wait(run_id)

    lines = [json.loads(line) for line in ag("runs", "watch", run_id, "--json", "--after", "2").out.splitlines()]

    assert [line["cursor"] for line in lines] == [3, 4]


def test_a_run_is_shown(ag, asked, client):
    assert json.loads(ag("runs", "show", asked).out) == client.get(asked)


def test_ledgers_are_verified_and_exported(ag, asked, client, tmp_path):
    verified = ag("ledger", "verify")
    ag("ledger", "export", asked, "--out", str(tmp_path / "out.jsonl"))
    printed = ag("ledger", "export", asked).out

    assert (verified.code, verified.out) == (0, f"{asked}  2 records  whole\n")
    exported = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert exported == [entry.record for entry in client.ledger(asked)] == list(map(json.loads, printed.splitlines()))
    assert verify_chain(exported).ok


def test_a_ledger_that_was_changed_is_found(script, monkeypatch, capsys):
    record = {"run_id": "r", "prev_hash": None, "record_hash": "0" * 64, "signature": None}
    ledger = json.dumps({"items": [record], "next_after": 1}).encode()
    server = script((200, {}, b"{}"), (200, {}, ledger))
    monkeypatch.setenv("ABSTRACTGATEWAY_URL", server.url)

    code = main(("ledger", "verify", "r"))

    said = capsys.readouterr()
    assert (code, said.out) == (1, "r  1 records  broken at record 1: record_hash_mismatch\n")
    assert "1 of 1 ledgers are not what was written" in said.err


def test_where_no_gateway_answers_the_url_is_named(monkeypatch, capsys):
    monkeypatch.setattr("abstractgateway.client.connection._FIRST_PAUSE_S", 60.0)

    code = main(("runs", "list", "--url", "http://127.0.0.1:1"))

    assert code == 1
    assert "the gateway at http://127.0.0.1:1 cannot be reached" in capsys.readouterr().err


def test_there_is_no_latest_run_at_first(ag):
    said = ag("runs", "why", "latest")

    assert (said.code, said.out) == (1, "")
    assert "abstractgateway runs start" in said.err


def test_tool_calls_are_shown_with_their_arguments_and_approved_or_denied_in_a_word():
    calls = [{"name": "write_file", "arguments": {"file_path": "a.txt"}, "call_id": "1"}]
    details = {"kind": "tool_approval", "tool_calls": calls, "digest": "d"}
    waiting = {"reason": "user", "prompt": "May they?", "details": details}
    run = {"run_id": "r", "waiting": waiting, "blocked_by": {"kind": "user", "since": "now", **waiting}}

    assert waits_of(run) == [
        "asks since now: May they?",
        'write_file {"file_path": "a.txt"}',
        "answer it with: abstractgateway runs answer r approve, or deny",
    ]
    assert answer_to(waiting, "approve") == {"approved": True, "digest": "d"}
    assert answer_to(waiting, "Deny ") == {"approved": False, "digest": "d"}
    with pytest.raises(Invalid, match="neither 'approve' nor 'deny'"):
        answer_to(waiting, "yes please")


def test_deltas_of_a_start_go_with_watch(ag):
    said = ag("runs", "start", "hello", "--deltas")

    assert (said.code, said.err) == (2, "abstractgateway: --deltas: goes with --watch\n")


@pytest.mark.parametrize("arguments", [("runs", "show", ""), ("ledger", "export", " "), ("ledger", "verify", "")])
def test_a_run_that_is_not_named_is_a_wrong_command_line(ag, capsys, arguments):
    with pytest.raises(SystemExit) as raised:
        ag(*arguments)

    assert raised.value.code == 2
    assert "use the id of a run, or latest" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "watch", "latest", "--after", "-1"),
        ("runs", "list", "--limit", "0"),
        ("runs", "next", "latest", "--count", "x"),
        ("ledger", "export", "latest", "--after", "1.5"),
    ],
)
def test_a_number_that_is_none_is_a_wrong_command_line(ag, capsys, arguments):
    with pytest.raises(SystemExit) as raised:
        ag(*arguments)

    assert raised.value.code == 2
    assert "use a whole number from" in capsys.readouterr().err


def test_ctrl_c_ends_a_watch_and_not_the_run(ag, asked, client, monkeypatch):
    def interrupted(self, run_id, after, **given):
        raise KeyboardInterrupt

    monkeypatch.setattr("abstractgateway.client.GatewayClient.follow", interrupted)
    said = ag("runs", "watch", asked)

    assert said.code == 130
    assert said.err == f"the run goes on; watch it with: abstractgateway runs watch {asked}\n"
    assert client.get(asked)["status"] == "waiting"


def test_what_runs_say_cannot_steer_the_terminal(ag, client):
    evil = "\x1b[2J\x9b31m\u202eWho?"
    run_id = ag("runs", "start", "ask", "--set", f"prompt={evil}").out.strip()
    next(entry for entry in client.follow(run_id) if entry.record["status"] == "waiting")

    for said in (ag("runs", "list"), ag("runs", "why", run_id)):
        assert "\\x1b[2J\\x9b31m\\u202eWho?" in said.out
        assert "\x1b" not in said.out


def test_a_watch_says_when_the_gateway_goes_away_and_is_back(ag, asked, client, monkeypatch):
    def follow(self, run_id, after, *, on_delta, on_away):
        on_away(Unavailable("the gateway cannot be reached"))
        on_away(None)
        return iter(())

    monkeypatch.setattr("abstractgateway.client.GatewayClient.follow", follow)
    said = ag("runs", "watch", asked)

    assert "the gateway cannot be reached; trying again\n" in said.out
    assert "the gateway is back\n" in said.out


def test_an_export_that_is_interrupted_leaves_what_was_there(ag, asked, tmp_path, monkeypatch):
    out = tmp_path / "run.jsonl"
    assert ag("ledger", "export", asked, "--out", str(out)).code == 0
    before = out.read_bytes()

    def interrupted(self, run_id, after=0):
        yield Entry(1, {"n": 1})
        raise KeyboardInterrupt

    monkeypatch.setattr("abstractgateway.client.GatewayClient.ledger", interrupted)
    said = ag("ledger", "export", asked, "--out", str(out))

    assert (said.code, said.out) == (130, "")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("run")] == ["run.jsonl"]
    assert out.read_bytes() == before

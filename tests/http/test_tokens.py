from __future__ import annotations

import json
from contextlib import closing

import pytest

from abstractgateway_http.routes import ROUTES
from abstractgateway_http.sessions import rule_of
from tests.http.conftest import Client, packed

API = "/api/gateway"

CACHE = "/prompt_cache"
LOOKING = {
    "POST /kg/query",
    "POST /runs/ledger/batch",
    *(f"POST {CACHE}/{name}" for name in ("set", "update", "fork", "clear", "prepare_modules", "save", "load")),
    *(f"POST /sessions/{{session_id}}{CACHE}/{name}" for name in ("prepare", "clear", "rebuild")),
}
"""Routes that are no GET and change nothing: prompt caches are not kept here."""

EXPECTED = {
    **dict.fromkeys(LOOKING, "read"),
    **dict.fromkeys(("POST /attachments/ingest", "POST /attachments/upload", "POST /embeddings"), "run"),
    **dict.fromkeys(("POST /runs/schedule", "POST /runs/start"), "run"),
    "POST /commands": "command",
    **dict.fromkeys((f"POST /runs/{{run_id}}/{name}" for name in ("summary", "chat", "chat_threads")), "command"),
    **dict.fromkeys(
        (f"POST /runs/{{run_id}}/{name}" for name in ("voice/tts", "audio/transcribe", "images/generate")), "command"
    ),
    "GET /audit/tail": "admin",
}
"""What is not the rule: `read` for GET, `admin` for everything else."""


def name_of(route) -> str:
    return f"{route.method} {route.path.removeprefix(API)}"


PROTECTED = {name_of(route): route for route in ROUTES if route.needs_token}


@pytest.fixture
def gateway(go_live):
    """A real gateway that keeps its tokens in a data directory, with the bundle `echo`."""
    live = go_live(store_backend="file", lockout_base_s=0.0)
    live.upload(packed())
    return live


@pytest.fixture
def ask(gateway):
    """Sends a request with a token that has these scopes, and a session."""
    tokens = {}

    def send(method, path, *, scopes, session=None, body=None, root=API):
        key = (scopes, session)
        if key not in tokens:
            tokens[key] = gateway.service.access.tokens.create(str(key), scopes, session_id=session)[1]
        raw = b"" if body is None else json.dumps(body).encode()
        kind = () if body is None else ("Content-Type: application/json",)
        with closing(Client(gateway.server.port)) as client:
            client.send(method, f"{root}{path}", f"Authorization: Bearer {tokens[key]}", *kind, body=raw)
            return client.answer(has_body=method != "HEAD")

    return send


def filled(path: str, **names: str) -> str:
    for name, value in names.items():
        path = path.replace("{" + name + "}", value)
    return path.replace("{", "").replace("}", "")


def test_every_route_needs_the_scope_that_is_written_down_here():
    needed = {name: route.needed_scope for name, route in PROTECTED.items()}

    rule = {name: "read" if name.startswith("GET ") else "admin" for name in PROTECTED}
    assert needed == {**rule, **{name: scope for name, scope in EXPECTED.items() if name in PROTECTED}}
    assert set(EXPECTED) <= set(PROTECTED)


@pytest.mark.parametrize("scope", ["read", "run", "command"])
def test_no_route_does_anything_for_a_token_without_its_scope(gateway, ask, scope):
    closed = [route for route in PROTECTED.values() if route.needed_scope != scope]

    answers = [ask(route.method, filled(route.path), scopes=(scope,), body={}, root="") for route in closed]

    assert len(closed) > 8
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(403, "scope_missing")}
    assert gateway.ask("GET", "/runs").json["items"] == []
    assert gateway.ask("GET", "/bundles/echo").status == 200


def test_each_scope_opens_what_needs_it_and_admin_everything(ask):
    start = {"bundle_id": "echo"}
    commands = {"command_id": "c", "run_id": "r", "type": "cancel"}

    seen = {
        scope: [
            ask("GET", "/runs", scopes=(scope,)).status,
            ask("POST", "/runs/start", scopes=(scope,), body=start).status,
            ask("POST", "/commands", scopes=(scope,), body=commands).status,
            ask("POST", "/bundles/reload", scopes=(scope,)).status,
            ask("GET", "/audit/tail", scopes=(scope,)).status,
        ]
        for scope in ("read", "run", "command", "admin")
    }

    assert seen == {
        "read": [200, 403, 403, 403, 403],
        "run": [403, 200, 403, 403, 403],
        "command": [403, 403, 200, 403, 403],
        "admin": [200] * 5,
    }


def test_a_refusal_names_the_scope(ask):
    answer = ask("POST", "/runs/start", scopes=("read",), body={"bundle_id": "echo"})

    assert answer.json["detail"] == "Forbidden (this token lacks the scope 'run')"
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="run"'


def test_a_revoked_token_is_refused_from_the_next_request_on(gateway, connect_to):
    about, text = gateway.service.access.tokens.create("ci", ["read"])
    client = connect_to(gateway.server)

    before = client.send("GET", f"{API}/runs", f"Authorization: Bearer {text}").answer()
    gateway.service.access.tokens.revoke(about["id"])
    after = client.send("GET", f"{API}/runs", f"Authorization: Bearer {text}").answer()

    assert (before.status, after.status) == (200, 401)


def test_a_gateway_may_have_named_tokens_only(go_live, connect_to):
    live = go_live(store_backend="file", auth_tokens=())
    _, text = live.service.access.tokens.create("ci", ["read"])

    answer = connect_to(live.server).send("GET", f"{API}/runs", f"Authorization: Bearer {text}").answer()

    assert answer.status == 200


@pytest.fixture
def runs(gateway):
    """One run in each of two sessions, both ended."""
    found = {name: gateway.start(bundle_id="echo", session_id=name) for name in ("mine", "theirs")}
    for run_id in found.values():
        gateway.finish(run_id)
    return found


def mine(ask, method, path, body=None, root=API):
    return ask(method, path, scopes=("read", "run", "command"), session="mine", body=body, root=root)


RUN_ROUTES = [route for route in PROTECTED.values() if "{run_id}" in route.path and route.method == "GET"]


@pytest.mark.parametrize("route", RUN_ROUTES, ids=name_of)
def test_a_run_of_another_session_does_not_exist(ask, runs, route):
    there = mine(ask, "GET", filled(route.path, run_id=runs["theirs"]), root="")
    nowhere = mine(ask, "GET", filled(route.path, run_id="no-such-run"), root="")

    assert (there.status, nowhere.status) == (404, 404)
    assert there.json["detail"].replace(runs["theirs"], "X") == nowhere.json["detail"].replace("no-such-run", "X")


def test_the_runs_of_the_session_are_there(ask, runs):
    listed = mine(ask, "GET", "/runs")

    assert [item["run_id"] for item in listed.json["items"]] == [runs["mine"]]
    assert mine(ask, "GET", f"/runs/{runs['mine']}").json["run_id"] == runs["mine"]
    assert mine(ask, "GET", f"/runs/{runs['mine']}/ledger").json["items"]
    batch = mine(ask, "POST", "/runs/ledger/batch", {"runs": [{"run_id": runs["mine"]}]})
    assert batch.json["runs"][runs["mine"]]["items"]


def test_a_batch_with_a_run_of_another_session_is_refused_as_a_whole(ask, runs):
    wanted = [{"run_id": run_id} for run_id in runs.values()]

    assert mine(ask, "POST", "/runs/ledger/batch", {"runs": wanted}).status == 404


def test_a_start_belongs_to_the_session_without_saying_so(gateway, ask):
    run_id = mine(ask, "POST", "/runs/start", {"bundle_id": "echo"}).json["run_id"]

    assert gateway.service.runs.session_of(run_id) == "mine"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/runs/start", {"bundle_id": "echo", "session_id": "theirs"}),
        ("POST", "/runs/schedule", {"bundle_id": "echo", "flow_id": "root", "session_id": "theirs"}),
        ("GET", "/runs?session_id=theirs", None),
        ("POST", "/kg/query", {"scope": "global"}),
        ("GET", "/workspace/policy", None),
    ],
)
def test_what_leads_out_of_the_session_is_refused(gateway, ask, method, path, body):
    answer = mine(ask, method, path, body)

    assert (answer.status, answer.json["code"]) == (403, "session_not_allowed")
    assert gateway.ask("GET", "/runs").json["items"] == []


def test_a_command_for_a_run_of_another_session_is_not_stored(gateway, ask, runs):
    body = {"command_id": "c-1", "run_id": runs["theirs"], "type": "cancel"}

    assert mine(ask, "POST", "/commands", body).status == 404
    assert gateway.ask("GET", "/commands/c-1").status == 404


def test_the_outcome_of_a_command_for_another_session_does_not_exist(gateway, ask, runs):
    for name, run_id in runs.items():
        gateway.ask("POST", "/commands", body={"command_id": name, "run_id": run_id, "type": "pause"})

    answer = mine(ask, "GET", "/commands/theirs")

    assert (answer.status, answer.json["detail"]) == (404, "Command 'theirs' not found")
    assert mine(ask, "GET", "/commands/mine").json["run_id"] == runs["mine"]


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"name": "e"}, 200),
        ({"name": "e", "session_id": "mine"}, 200),
        ({"name": "e", "session_id": "theirs"}, 403),
        ({"name": "e", "sessionId": "theirs"}, 403),
        ({"name": "e", "scope": "global"}, 403),
        ({"name": "e", "scope": " Workflow ", "workflow_id": "echo:root"}, 403),
        ({"name": "e", "scope": "run", "run_id": "x"}, 403),
    ],
)
def test_an_event_stays_in_the_session(ask, runs, payload, status):
    body = {"command_id": "c", "run_id": runs["mine"], "type": "emit_event", "payload": payload}

    assert mine(ask, "POST", "/commands", body).status == status


def test_a_route_without_a_rule_is_closed_to_tokens_of_one_session(ask, runs):
    closed = [route for route in PROTECTED.values() if rule_of(route).__name__ == "_closed"]
    readable = [route for route in closed if route.needed_scope == "read" and route.method == "GET" and not route.query]

    answers = [mine(ask, "GET", filled(route.path), root="") for route in readable]

    assert {answer.json["code"] for answer in answers} == {"session_not_allowed"}


def test_bundles_can_be_looked_at_with_a_token_of_one_session(ask):
    assert mine(ask, "GET", "/bundles").json["items"][0]["bundle_id"] == "echo"

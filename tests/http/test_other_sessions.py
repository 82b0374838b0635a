"""Whoever has a token of one session tries to reach what belongs to another, with its ids in every place there is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from abstractgateway.service.media import Media
from abstractgateway.testing import ScriptedModel
from abstractgateway_http.route import Route
from abstractgateway_http.routes import ROUTES
from tests.http.conftest import Answer, Client, LiveGateway, form, packed

API = "/api/gateway"
CANARY = "canary-of-theirs"
ASK = {
    "id": "root",
    "name": "root",
    "nodes": [
        {"id": "s", "type": "on_flow_start", "data": {"outputs": [{"id": "exec-out", "type": "execution"}]}},
        {"id": "q", "type": "ask_user", "data": {"inputs": [], "pinDefaults": {"prompt": f"{CANARY}?"}}},
        {"id": "e", "type": "on_flow_end", "data": {"inputs": []}},
    ],
    "edges": [
        {"id": "1", "source": "s", "sourceHandle": "exec-out", "target": "q", "targetHandle": "exec-in"},
        {"id": "2", "source": "q", "sourceHandle": "exec-out", "target": "e", "targetHandle": "exec-in"},
    ],
}


class Parrot:
    """Speaks, listens and draws; what it heard is said again."""

    def speak(self, text: str, *, voice: str | None, format: str, timeout_s: float) -> bytes:
        return f"{text} {voice}".encode()

    def transcribe(self, audio: bytes, *, content_type: str, language: str | None, timeout_s: float) -> str:
        return audio.decode()

    def draw(self, wish: dict[str, Any], *, timeout_s: float) -> bytes | None:
        return b"\x89PNG\r\n\x1a\n" + json.dumps(wish).encode()


@dataclass
class Belongings:
    """The ids of what belongs to a session."""

    session: str
    runs: dict[str, str] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    command: str = ""

    @property
    def all(self) -> list[str]:
        return [self.session, *self.runs.values(), *self.artifacts, self.command]


@pytest.fixture
def live(go_live: Callable[..., LiveGateway]) -> LiveGateway:
    given = {"model": ScriptedModel(lambda call: json.dumps(call)), "media": Media(Parrot(), Parrot(), Parrot())}
    gateway = go_live(given, store_backend="file", provider="openai", model="m", lockout_base_s=0.0)
    gateway.upload(packed())
    gateway.upload(packed("ask", flow=ASK))
    return gateway


def furnished(live: LiveGateway, session: str, text: str) -> Belongings:
    """Return a session with a run that has ended, one that waits, a schedule and its child, files and a command."""
    found = Belongings(session)
    data = {"prompt": text}
    found.runs["ended"] = live.start(bundle_id="echo", session_id=session, input_data=data)
    live.finish(found.runs["ended"])
    found.runs["waiting"] = live.start(bundle_id="ask", session_id=session, input_data=data)
    schedule = {"bundle_id": "ask", "flow_id": "root", "session_id": session, "input_data": data, "interval": "1h"}
    found.runs["schedule"] = live.ask("POST", "/runs/schedule", body=schedule).json["run_id"]
    content, kind = form(text.encode(), session_id=session)
    attached = live.ask("POST", "/attachments/upload", kind, body=content).json
    found.runs["files"] = attached["run_id"]
    stored = live.service.stores.artifacts.store(text.encode(), content_type="audio/wav", run_id=found.runs["ended"])
    thread = {"messages": [{"role": "user", "content": text}]}
    live.ask("POST", f"/runs/{found.runs['ended']}/chat_threads", body=thread)
    found.artifacts = [attached["attachment"]["$artifact"], stored.artifact_id]
    found.command = f"command-of-{session}"
    pause = {"command_id": found.command, "run_id": found.runs["ended"], "type": "pause"}
    live.ask("POST", "/commands", body=pause)
    return found


@pytest.fixture
def mine(live: LiveGateway) -> Belongings:
    return furnished(live, "mine", "what is mine")


@pytest.fixture
def theirs(live: LiveGateway) -> Belongings:
    return furnished(live, "theirs", f"{CANARY} {'x' * 20}")


@pytest.fixture
def ask(live: LiveGateway) -> Callable[..., Answer]:
    """Asks with a token of the session `mine` that may do everything a session may."""
    _, token = live.service.access.tokens.create("mine", ["read", "run", "command"], session_id="mine")

    def send(method: str, path: str, *headers: str, body: Any = None) -> Answer:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = () if body is None or isinstance(body, bytes) else ("Content-Type: application/json",)
        with closing(Client(live.server.port)) as client:
            client.send(method, path, f"Authorization: Bearer {token}", *headers, *kind, body=raw)
            client.sock.settimeout(3.0)
            try:
                return client.answer(has_body=method != "HEAD")
            except TimeoutError:  # a stream of a run that goes on
                return Answer(200, {}, client.seen)

    return send


def paths(route: Route, ours: Belongings, others: Belongings) -> Iterator[str]:
    """Return the path of a route with ids of either session in each place, the whole of our own apart."""
    places = {
        "{run_id}": [[*item.runs.values(), item.artifacts[0]] for item in (ours, others)],
        "{artifact_id}": [item.artifacts for item in (ours, others)],
        "{command_id}": [[item.command] for item in (ours, others)],
        "{session_id}": [[item.session] for item in (ours, others)],
    }
    used = {name: sum(values, []) for name, values in places.items() if name in route.path}
    for chosen in itertools.product(*used.values()):
        path = route.path
        for name, value in zip(used, chosen, strict=True):
            path = path.replace(name, quote(value, safe=""))
        if any(quote(value, safe="") in path for value in others.all) or not used:
            yield path.replace("{", "").replace("}", "")


def bodies(route: Route, ours: Belongings, others: Belongings) -> Iterator[dict[str, Any]]:
    """Return bodies with an id of the other session in one field at a time, and ours in the others."""
    own: dict[str, Any] = {
        "run_id": ours.runs["ended"],
        "session_id": ours.session,
        "bundle_id": "echo",
        "flow_id": "root",
        "command_id": "c",
        "type": "cancel",
        "runs": [{"run_id": ours.runs["ended"]}],
        "messages": [{"role": "user", "content": "?"}],
        "audio_artifact": {"$artifact": ours.artifacts[1]},
        "prompt": "?",
        "text": "?",
    }
    names = [item.name for item in route.body or ()]
    base = {name: own[name] for name in names if name in own}
    yield base
    foreign: dict[str, list[Any]] = {
        "run_id": [*others.runs.values(), f" {others.runs['waiting']} "],
        "session_id": [others.session, f" {others.session} ", f"{others.session}\u200b"],
        "runs": [[{"run_id": run_id}] for run_id in others.runs.values()]
        + [[*base.get("runs", []), {"run_id": f" {others.runs['ended']}"}]],
        "audio_artifact": [{"$artifact": item} for item in others.artifacts],
        "input_data": [
            {"prompt": {"$artifact": others.artifacts[1]}},
            {"prompt": {"$artifact": others.artifacts[1], "$offloaded": "text"}},
            {"prompt": "x", "session_id": others.session, "parent_run_id": others.runs["schedule"]},
            {"prompt": "x", "_runtime": {"workflow_snapshot": {"artifact_id": others.artifacts[1]}, "offloaded": True}},
        ],
        "messages": [[{"role": "user", "content": json.dumps({"$artifact": others.artifacts[1]})}]],
    }
    for name in names:
        for value in foreign.get(name, ()):
            yield {**base, name: value}


def queries(route: Route, others: Belongings) -> Iterator[str]:
    yield ""
    for item in route.query:
        for value in others.all:
            yield f"?{item.name}={quote(value, safe='')}"
    if any(item.name == "include_session" for item in route.query):
        yield "?include_session=true&include_subruns=true&ledger_mode=full"
    if any(item.name == "include" for item in route.query):
        yield "?include=children&deltas=true"


def state_of(live: LiveGateway, owned: Belongings) -> list[Any]:
    """Return all that a change to a session's belongings would change."""
    runs = [live.ask("GET", f"/runs/{run_id}").json for run_id in owned.runs.values()]
    files = [live.ask("GET", f"/runs/{run_id}/artifacts").json for run_id in owned.runs.values()]
    listed = live.ask("GET", f"/runs?session_id={owned.session}&limit=500").json["items"]
    return [runs, files, sorted(item["run_id"] for item in listed), live.ask("GET", f"/commands/{owned.command}").json]


PROTECTED = [route for route in ROUTES if route.needs_token]


@pytest.mark.parametrize("route", PROTECTED, ids=lambda route: f"{route.method} {route.path.removeprefix(API)}")
def test_no_route_shows_or_changes_what_belongs_to_another_session(live, mine, theirs, ask, route) -> None:
    live.service.access.audit.flush()
    before = state_of(live, theirs)
    tried = 0

    for path in paths(route, mine, theirs):
        for query in queries(route, theirs):
            for body in bodies(route, mine, theirs) if route.body is not None and not route.is_form else (None,):
                answer = ask(route.method, path + query, "Last-Event-ID: 1(1:0,2:0)", body=body)
                tried += 1
                shown = answer.body.decode("utf-8", "replace")
                assert CANARY not in shown, (route.method, path, query, body, shown[:2_000])
                assert answer.status != 500

    assert tried
    assert state_of(live, theirs) == before


def runs_of_mine(live: LiveGateway) -> list[str]:
    return [item["run_id"] for item in live.ask("GET", "/runs?session_id=mine&limit=500").json["items"]]


@pytest.mark.parametrize(
    ("type", "payload"),
    [
        ("compact_memory", {"target_run_id": "{waiting}"}),
        ("compact_memory", {"targetRunId": "{schedule}"}),
        ("update_schedule", {"interval": "2h", "run_id": "{schedule}", "schedule_id": "{schedule}"}),
        ("resume", {"payload": {"response": "x"}, "run_id": "{waiting}", "target_run_id": "{waiting}"}),
        ("emit_event", {"name": "e", "run_id": "{waiting}", "target_run_id": "{waiting}"}),
        ("cancel", {"run_id": "{waiting}", "include_session": True}),
    ],
)
def test_no_command_reaches_a_run_of_another_session(live, mine, theirs, ask, type, payload) -> None:
    before = state_of(live, theirs)
    filled = {name: value.format(**theirs.runs) if isinstance(value, str) else value for name, value in payload.items()}

    for number, run_id in enumerate((*mine.runs.values(), *theirs.runs.values())):
        body = {"command_id": f"{type}-{number}", "run_id": run_id, "type": type, "payload": filled}
        answer = ask("POST", f"{API}/commands", "Prefer: wait=5", body=body)
        assert answer.status in (200, 404)
        assert CANARY not in answer.body.decode()

    assert state_of(live, theirs) == before


def references(artifact_id: str) -> list[dict[str, Any]]:
    return [
        {"context": {"attachments": [{"$artifact": artifact_id}]}},
        {"prompt": [[{"x": {"artifact_id": artifact_id}}]]},
        {"prompt": {"$artifact": artifact_id, "$offloaded": "text"}},
    ]


def test_a_start_or_command_that_names_an_artifact_of_another_session_is_refused(live, mine, theirs, ask) -> None:
    before = runs_of_mine(live)
    answers = []
    for data in references(theirs.artifacts[0]) + references(theirs.artifacts[1]):
        answers.append(ask("POST", f"{API}/runs/start", body={"bundle_id": "echo", "input_data": data}))
        schedule = {"bundle_id": "echo", "flow_id": "root", "input_data": data}
        answers.append(ask("POST", f"{API}/runs/schedule", body=schedule))
        command = {"command_id": "c-9", "run_id": mine.runs["waiting"], "type": "resume", "payload": {"payload": data}}
        answers.append(ask("POST", f"{API}/commands", body=command))

    assert {(answer.status, answer.json["code"]) for answer in answers} == {(404, "artifact_not_found")}
    assert runs_of_mine(live) == before
    assert live.ask("GET", "/commands/c-9").status == 404


def test_own_files_and_references_that_lead_nowhere_can_be_named(live, mine, ask) -> None:
    for data in (*references(mine.artifacts[0]), *references("no-such-artifact"), *references("../x")):
        assert ask("POST", f"{API}/runs/start", body={"bundle_id": "echo", "input_data": data}).status == 200


def test_an_input_that_looks_like_a_value_stored_elsewhere_is_read_back_as_it_is(live, mine, theirs) -> None:
    for data in references(theirs.artifacts[1]):
        run_id = live.start(bundle_id="echo", session_id="mine", input_data=data)
        live.finish(run_id)
        for path in ("", "/ledger", "/input_data", "/history_bundle?include_session=true", "/artifacts"):
            assert CANARY not in live.ask("GET", f"/runs/{run_id}{path}").body.decode()
        assert live.ask("GET", f"/runs/{run_id}").json["output"]["prompt"] == data.get("prompt")

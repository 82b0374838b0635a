"""No request makes the gateway ask a server that only the client has named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from abstractgateway_http.route import Route
from abstractgateway_http.routes import ROUTES
from tests.http.conftest import LiveGateway, form, packed
from tests.llm.provider import Provider, chat, said
from tests.mcp.test_gateway import calling
from tests.visualflow.conftest import flow, node

OBJECTS = ("base_url", "api_base", "url", "endpoint", "proxy", "host", "webhook", "callback_url", "provider", "model")


@pytest.fixture
def stranger() -> Iterator[Provider]:
    """A server of the attacker, which would answer."""
    with Provider(said(chat("got you"))) as provider:
        yield provider


@pytest.fixture
def own() -> Iterator[Provider]:
    """The server of the settings."""
    with Provider(said(chat("an answer"))) as provider:
        yield provider


@pytest.fixture
def live(go_live, stranger: Provider, own: Provider) -> LiveGateway:
    settings = {"openai_base_url": f"{own.url}/v1", "openai_api_key": "sk-of-a-test", "provider": "openai"}
    gateway = go_live(store_backend="memory", model="m", tool_mode="local", embedding_provider="openai", **settings)
    gateway.upload(packed())
    asking = flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("m", "llm_call", "> prompt", "> response", defaults={"prompt": "?"}),
            node("e", "on_flow_end", "> response"),
        ],
        ["s > m", "m > e", "m/response -> e/response"],
        "root",
    )
    gateway.upload(packed("asks", flow=asking))
    fetching = calling("fetch_url", {"url": f"{stranger.url}/from-a-tool"})
    gateway.upload(packed("fetch", flow={**fetching, "id": "root"}))
    return gateway


def requests(route: Route, run_id: str, url: str) -> Iterator[tuple[str, Any]]:
    """Return paths with queries, and bodies, that name a server wherever a text or an object may stand."""
    path = route.path.removeprefix("/api/gateway").replace("{run_id}", run_id)
    for name in ("provider_name", "artifact_id", "command_id", "bundle_id", "flow_id", "workflow_id", "session_id"):
        path = path.replace(f"{{{name}}}", quote(url, safe="") if name == "provider_name" else "x")
    known = {"run_id": run_id, "bundle_id": "asks", "flow_id": "root", "session_id": "s", "type": "cancel"}
    known |= {"command_id": "c", "text": "?", "prompt": "?", "input": "?", "name": "n", "path": "x"}
    known |= {
        "messages": [{"role": "user", "content": url}],
        "audio_artifact": {"$artifact": "x", "url": url},
        "runs": [],
    }
    fields = route.body or ()
    base = {field.name: known[field.name] for field in fields if field.name in known}
    places = dict.fromkeys(OBJECTS, url)
    yield f"{path}?{'&'.join(f'{field.name}={quote(url)}' for field in route.query)}", base
    yield f"{path}?{'&'.join(f'{name}={quote(url)}' for name in OBJECTS)}", {**places, **base}
    for field in fields:
        if field.reader.schema.get("type") == "object":
            yield path, {**base, field.name: {**places, "_runtime": places, "_limits": places, "media": [places]}}
        elif field.name not in ("run_id", "bundle_id", "type"):
            yield path, {**base, field.name: url}


def test_no_route_asks_a_server_that_a_client_names(live: LiveGateway, stranger: Provider, own: Provider) -> None:
    first = live.start(bundle_id="echo", session_id="s")
    live.finish(first)

    for route in ROUTES:
        for path, body in requests(route, first, f"{stranger.url}/v1") if route.needs_token else ():
            if path.partition("?")[0].endswith("/stream"):
                continue
            if route.is_form:
                content, kind = form(json.dumps(body).encode(), session_id="s", content_type=f"{stranger.url}/v1")
                live.ask(route.method, path, kind, body=content)
            else:
                live.ask(route.method, path, body=body if route.body is not None else None)
    for item in live.ask("GET", "/runs?limit=500").json["items"]:
        if item["status"] not in ("completed", "failed", "cancelled"):
            live.ask(
                "POST", "/commands", body={"command_id": item["run_id"], "run_id": item["run_id"], "type": "cancel"}
            )
            live.finish(item["run_id"])

    assert stranger.requests == []


def test_no_tool_fetches_from_this_machine(live: LiveGateway, stranger: Provider) -> None:
    run_id = live.start(bundle_id="fetch")
    live.finish(run_id)

    told = json.dumps(live.ask("GET", f"/runs/{run_id}").json)

    assert "127.0.0.1" in told and "address" in told
    assert stranger.requests == []

from __future__ import annotations

import io
import json

import pytest

from abstractgateway.client import GatewayClient
from abstractgateway.errors import Denied, GatewayError, Invalid, NotFound, Unavailable
from tests.client.conftest import SAMPLES

HELLO = (SAMPLES / "hello@0.1.0.flow").read_bytes()


def test_a_run_is_started_followed_and_read(client):
    run_id = client.start(bundle_id="hello", input_data={"prompt": "World"})

    entries = list(client.follow(run_id))

    assert [entry.cursor for entry in entries] == list(range(1, len(entries) + 1))
    assert entries == list(client.ledger(run_id))
    run = client.get(run_id)
    assert (run["status"], run["output"]["response"]) == ("completed", "Hello, World")
    assert client.wait(run_id) == run


def test_a_question_is_answered_and_the_command_has_an_outcome(client):
    run_id = client.start(bundle_id="ask", input_data={"prompt": "Who?"})
    reader = client.follow(run_id)
    waiting = next(entry.record["result"]["wait"] for entry in reader if entry.record["status"] == "waiting")

    stale = client.outcome(client.answer(run_id, {"response": "Eve"}, wait_key="another"))
    applied = client.outcome(client.answer(run_id, {"response": "Bob"}, wait_key=waiting["wait_key"]))

    assert (stale["status"], applied["status"]) == ("rejected", "applied")
    assert client.wait(run_id)["output"]["response"] == "You answered: Bob"


def test_a_run_is_cancelled(client):
    run_id = client.start(bundle_id="ask", input_data={"prompt": "Who?"})

    outcome = client.outcome(client.cancel(run_id, reason="enough"))

    assert outcome["status"] == "applied"
    assert client.wait(run_id)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("send", "type", "payload"),
    [
        (lambda client: client.pause("r"), "pause", {}),
        (lambda client: client.pause("r", reason="lunch"), "pause", {"reason": "lunch"}),
        (lambda client: client.resume("r"), "resume", {}),
        (lambda client: client.cancel("r", reason="enough"), "cancel", {"reason": "enough"}),
        (lambda client: client.answer("r", {"response": "x"}), "resume", {"payload": {"response": "x"}}),
        (
            lambda client: client.answer("r", {"response": "x"}, wait_key="k"),
            "resume",
            {"payload": {"response": "x"}, "wait_key": "k"},
        ),
        (
            lambda client: client.emit_event("ping", [1], session_id="r"),
            "emit_event",
            {"name": "ping", "payload": [1], "scope": "session"},
        ),
    ],
)
def test_a_command_is_sent_as_the_gateway_reads_it(script, send, type, payload):
    server = script((200, {}, b"{}"))

    command_id = send(GatewayClient(server.url))

    ((method, path, _, body),) = server.requests
    assert (method, path) == ("POST", "/api/gateway/commands")
    assert json.loads(body) == {"command_id": command_id, "run_id": "r", "type": type, "payload": payload}


def test_a_start_and_a_command_under_one_key_are_done_once(client):
    run_ids = {client.start(bundle_id="ask", idempotency_key="k") for _ in range(3)}
    (run_id,) = run_ids

    commands = {client.command(run_id, "cancel", command_id="c") for _ in range(3)}

    assert commands == {"c"}
    assert len(list(client.list())) == 1


def test_all_runs_are_listed_page_by_page(client):
    started = [client.start(bundle_id="hello", input_data={"prompt": str(n)}) for n in range(7)]
    for run_id in started:
        client.wait(run_id)

    listed = [run["run_id"] for run in client.list(page_size=2, root_only=True, status="completed")]

    assert sorted(listed) == sorted(started)


def test_a_ledger_of_several_pages_is_read_whole(client):
    run_id = client.start(bundle_id="hello")
    client.wait(run_id)

    whole, small = list(client.ledger(run_id)), list(client.ledger(run_id, page_size=1))

    assert small == whole != []
    assert list(client.ledger(run_id, after=2)) == whole[2:]
    assert list(client.ledger("nobody")) == []


def test_a_bundle_is_installed(client):
    with pytest.raises(Invalid, match="already installed: hello@0.1.0"):
        client.upload_bundle(HELLO)

    assert client.upload_bundle(HELLO, overwrite=True)["bundle_ref"] == "hello@0.1.0"
    assert "hello" in {bundle["bundle_id"] for bundle in client.bundles()["items"]}


def test_a_file_is_attached_to_a_session(client):
    attached = client.attach("s", b"hello", file_name='a "quoted" näme.txt', content_type="text/plain")

    ((artifact),) = client.artifacts("session_memory_s")
    target = io.BytesIO()
    client.download("session_memory_s", attached["$artifact"], target)
    assert artifact["artifact_id"] == attached["$artifact"]
    assert (attached["filename"], attached["content_type"]) == ('a "quoted" näme.txt', "text/plain")
    assert target.getvalue() == b"hello"


def test_an_artifact_is_downloaded(client):
    run_id = client.start(bundle_id="hello")
    client.wait(run_id)
    (flow,) = client.artifacts(run_id)
    target = io.BytesIO()

    written = client.download(run_id, flow["artifact_id"], target)

    assert written == flow["size_bytes"] == len(target.getvalue())


@pytest.mark.parametrize(
    ("ask", "error", "code"),
    [
        (lambda client: client.get("nope"), NotFound, "run_not_found"),
        (lambda client: list(client.follow("nope")), NotFound, "run_not_found"),
        (lambda client: client.get("a/../b?c#d"), NotFound, None),
        (lambda client: client.start(bundle_id="nope"), NotFound, None),
        (lambda client: client.start(), Invalid, "flow_id_required"),
        (lambda client: client.command("r", "explode"), Invalid, None),
        (lambda client: list(client.list(status="odd")), Invalid, None),
        (lambda client: client.upload_bundle(b"no zip"), Invalid, None),
        (lambda client: client.attach(" ", b"", file_name="x"), Invalid, None),
        (lambda client: client.attach("s", b"", file_name="a\nb"), Invalid, None),
        (lambda client: client.download("r", "a", io.BytesIO()), NotFound, "run_not_found"),
    ],
)
def test_what_the_gateway_refuses_is_raised_as_an_embedded_one_would(client, ask, error, code):
    with pytest.raises(error) as raised:
        ask(client)

    assert code is None or raised.value.code == code


def test_a_wrong_token_is_denied(server):
    with pytest.raises(Denied, match="nauthorized"):
        GatewayClient(server.url, "wrong").bundles()


def test_a_server_that_is_no_gateway_is_told_of(script):
    server = script((200, {}, b"<html>"))

    with pytest.raises(GatewayError, match="is there a gateway at this URL"):
        GatewayClient(server.url).bundles()


def test_a_token_goes_as_it_is_and_one_that_cannot_is_refused(script):
    server = script((200, {}, b'{"items": []}'))

    GatewayClient(server.url, "tök").bundles()

    (_, _, headers, _) = server.requests[0]
    sent = next(value for name, value in headers.items() if name.lower() == "authorization")
    assert sent.encode("latin-1").decode() == "Bearer tök"
    with pytest.raises(Invalid, match="control characters"):
        GatewayClient(server.url, "a\nb")


@pytest.mark.parametrize(
    "url", ["", "ftp://host", "http://", "http:///path", "http://a/b c", "http://a:99999", "http://[a", "http://ü/"]
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(Invalid, match="no URL such as http://127.0.0.1:8080"):
        GatewayClient(url)


def test_the_url_may_have_a_path_and_lack_its_scheme(script):
    server = script((200, {}, b"{}"), (200, {}, b"{}"))

    GatewayClient(f"{server.url}/behind/a/proxy/").bundles()
    GatewayClient(server.url.removeprefix("http://")).bundles()

    assert [path for _, path, _, _ in server.requests] == [
        "/behind/a/proxy/api/gateway/bundles",
        "/api/gateway/bundles",
    ]


def test_a_start_is_repeated_under_its_key_until_the_gateway_can_answer(script, monkeypatch):
    server = script(
        (503, {"Retry-After": "7"}, b'{"detail": "full", "code": "disk_full"}'),
        (200, {}, b'{"run_id": "r"}'),
    )
    client = GatewayClient(server.url)
    pauses: list[float] = []
    monkeypatch.setattr(client._server, "sleep", pauses.append)

    run_id = client.start(bundle_id="b")

    keys = {headers["idempotency-key"] for _, _, headers, _ in server.requests}
    assert (run_id, pauses, len(keys), len(server.requests)) == ("r", [7.0], 1, 2)


def test_a_gateway_that_stays_away_is_unavailable_and_says_why(script):
    server = script((503, {"Retry-After": "60"}, b'{"detail": "the disk is full", "code": "disk_full"}'))

    with pytest.raises(Unavailable, match="the disk is full") as raised:
        GatewayClient(server.url).bundles()

    assert (raised.value.code, raised.value.retry_after) == ("disk_full", 30.0)


def test_a_gateway_that_cannot_be_reached_is_unavailable():
    with pytest.raises(Unavailable, match="cannot be reached") as raised:
        GatewayClient("http://127.0.0.1:1", patience_s=0).bundles()

    assert raised.value.code == "unreachable"


def test_an_upload_is_never_sent_twice(script):
    server = script((503, {}, b"{}"))

    with pytest.raises(Unavailable):
        GatewayClient(server.url).upload_bundle(b"x")

    assert len(server.requests) == 1


def test_a_kept_connection_that_the_server_closed_is_replaced(script):
    server = script((200, {}, b"{}"), (200, {}, b"{}"))
    client = GatewayClient(server.url, patience_s=0)
    client.bundles()
    (kept,) = client._server._kept
    kept.sock.close()

    assert client.bundles() == {}

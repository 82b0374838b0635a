from __future__ import annotations

import json
import threading
from contextlib import closing

import pytest
from werkzeug.test import Client as WsgiClient

from abstractgateway_http import create_app
from tests.house.pages import SAMPLES

from .conftest import TOKEN, Client

RUNS = "/api/gateway/runs"


def finished_run(live) -> str:
    run_id = live.start(bundle_id="echo", input_data={"prompt": "hi"})
    live.finish(run_id)
    return run_id


def test_a_batch_has_the_page_of_each_run(live):
    first, second = finished_run(live), finished_run(live)
    asked = [{"run_id": first, "after": 1}, {"run_id": second}, {"run_id": "nope"}, {"run_id": " "}]

    answer = live.ask("POST", "/runs/ledger/batch", body={"runs": asked, "limit": 2})

    pages = answer.json["runs"]
    assert list(pages) == [first, second, "nope"]
    assert pages[first] == live.ask("GET", f"/runs/{first}/ledger?after=1&limit=2").json
    assert pages[second] == live.ask("GET", f"/runs/{second}/ledger?limit=2").json
    assert pages["nope"] == {"items": [], "next_after": 0}


def test_a_whole_number_may_be_written_with_a_point(live):
    run_id = finished_run(live)

    answer = live.ask("POST", "/runs/ledger/batch", body={"runs": [{"run_id": run_id, "after": 1.0}], "limit": 2.0})

    assert answer.json["runs"][run_id]["next_after"] == 2


def test_of_a_run_named_twice_the_last_cursor_counts(live):
    run_id = finished_run(live)

    answer = live.ask(
        "POST", "/runs/ledger/batch", body={"runs": [{"run_id": run_id}, {"run_id": run_id, "after": 99}]}
    )

    assert answer.json == {"runs": {run_id: {"items": [], "next_after": 99}}}


@pytest.mark.parametrize(
    ("body", "kind", "place"),
    [
        ({}, "missing", "runs"),
        ({"runs": {}}, "list_type", "runs"),
        ({"runs": [{"after": 1}]}, "missing", "runs 0 run_id"),
        ({"runs": [{"run_id": "r"}, "r"]}, "model_attributes_type", "runs 1"),
        ({"runs": [{"run_id": 5}]}, "string_type", "runs 0 run_id"),
        ({"runs": [{"run_id": "r", "after": -1}]}, "greater_than_equal", "runs 0 after"),
        ({"runs": [{"run_id": "r", "after": True}]}, "int_type", "runs 0 after"),
        ({"runs": [{"run_id": "r"}] * 1_001}, "too_long", "runs"),
        ({"runs": [], "limit": 0}, "greater_than_equal", "limit"),
        ({"runs": [], "limit": 2_001}, "less_than_equal", "limit"),
        ({"runs": [], "limit": 1.5}, "int_type", "limit"),
    ],
)
def test_a_wrong_batch_is_refused(live, body, kind, place):
    answer = live.ask("POST", "/runs/ledger/batch", body=body)

    assert answer.status == 422
    (problem,) = answer.json["detail"]
    assert (problem["type"], " ".join(map(str, problem["loc"]))) == (kind, f"body {place}")


def test_a_wrong_cursor_of_a_batch_is_quoted_itself(live):
    answer = live.ask("POST", "/runs/ledger/batch", body={"runs": [{"run_id": "r"}, {"run_id": "r", "after": -1}]})

    assert answer.json["detail"] == [
        {
            "type": "greater_than_equal",
            "loc": ["body", "runs", 1, "after"],
            "msg": "Input should be greater than or equal to 0",
            "input": -1,
            "ctx": {"ge": 0},
        }
    ]


def test_a_full_page_may_be_kept_and_the_last_one_not(live):
    run_id = finished_run(live)

    full = live.ask("GET", f"/runs/{run_id}/ledger?limit=1")
    rest = live.ask("GET", f"/runs/{run_id}/ledger")

    assert "immutable" in full.headers["cache-control"]
    assert "private" in full.headers["cache-control"]
    assert rest.headers["cache-control"] == "no-store"


def test_waiting_ends_with_the_next_record(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().send("GET", RUNS + "/r/ledger?after=1&wait=30")
    client.read_until(b"\r\n\r\n")

    gateway.ledger.append("r", b'{"n":2}', b'{"n":3}', b'{"n":4}')

    assert b'{"items":[{"n":2},{"n":3},{"n":4}],"next_after":4}' in client.read_to_end()


def test_a_page_that_was_waited_for_keeps_the_limit(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().send("GET", RUNS + "/r/ledger?after=1&wait=30&limit=2")
    client.read_until(b"\r\n\r\n")

    gateway.ledger.append("r", b'{"n":2}', b'{"n":3}', b'{"n":4}')

    assert b'{"items":[{"n":2},{"n":3}],"next_after":3}' in client.read_to_end()


def test_streams_and_pages_that_wait_at_one_cursor_get_the_same_record_each_in_its_form(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    stream = connect().stream("r", query="?after=1")
    pages = [connect().send("GET", RUNS + f"/r/ledger?after=1&wait=30&limit={limit}") for limit in (1, 2)]
    for client in pages:
        client.read_until(b"\r\n\r\n")
    gateway.ledger.append("later", b"{}")
    connect().stream("later").read_until(b'"record": {}}\n\n')

    gateway.ledger.append("r", b'{"n":2}', b'{"n":3}')

    assert b'data: {"cursor": 3, "record": {"n":3}}' in stream.read_until(b'"n":3}}\n\n')
    assert b'{"items":[{"n":2}],"next_after":2}' in pages[0].read_to_end()
    assert b'{"items":[{"n":2},{"n":3}],"next_after":3}' in pages[1].read_to_end()


def test_waiting_in_vain_ends_with_an_empty_page(gateway, ask):
    gateway.ledger.append("r", b'{"n":1}')

    answer = ask("GET", RUNS + "/r/ledger?after=1&wait=1", version="1.0")

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"items": [], "next_after": 1}


@pytest.mark.parametrize("query", ["after=0&wait=30", "after=0"])
def test_records_that_are_there_are_answered_at_once(gateway, ask, query):
    gateway.ledger.append("r", b'{"n":1}')

    answer = ask("GET", RUNS + f"/r/ledger?{query}")

    assert answer.body == b'{"items":[{"n":1}],"next_after":1}'


def test_nobody_waits_for_a_run_that_has_ended_or_is_unknown(gateway, ask):
    gateway.ledger.append("r", b'{"n":1}')
    gateway.ledger.end("r")

    ended = ask("GET", RUNS + "/r/ledger?after=1&wait=30")
    unknown = ask("GET", RUNS + "/nope/ledger?wait=30")

    assert ended.json == {"items": [], "next_after": 1}
    assert unknown.json == {"items": [], "next_after": 0}


def test_the_end_of_a_run_ends_the_waiting(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().send("GET", RUNS + "/r/ledger?after=1&wait=30", version="1.0")
    client.read_until(b"\r\n\r\n")

    gateway.ledger.end("r")

    assert client.read_to_end().strip() == b'{"items":[],"next_after":1}'


def test_those_who_wait_take_no_thread(gateway, server, connect):
    gateway.ledger.append("r", b'{"n":1}')
    waiting = [connect().send("GET", RUNS + "/r/ledger?after=1&wait=30") for _ in range(40)]
    for client in waiting:
        client.read_until(b"\r\n\r\n")

    health = connect().send("GET", "/api/health").answer()
    gateway.ledger.append("r", b'{"n":2}')

    assert health.status == 200
    assert all(b'"next_after":2}' in client.read_to_end() for client in waiting)


def test_a_stop_ends_the_waiting_with_an_empty_page(gateway, server, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().send("GET", RUNS + "/r/ledger?after=1&wait=30", version="1.0")
    client.read_until(b"\r\n\r\n")

    server.stop()

    assert client.read_to_end().strip() == b'{"items":[],"next_after":1}'


def test_waiting_counts_as_a_stream_and_more_are_refused(gateway, serve_gateway, connect_to):
    gateway.ledger.append("r", b'{"n":1}')
    server = serve_gateway(gateway, streams=1)
    first = connect_to(server).send("GET", RUNS + "/r/ledger?after=1&wait=30")
    first.read_until(b"\r\n\r\n")

    answer = connect_to(server).send("GET", RUNS + "/r/ledger?after=1&wait=30").answer()

    assert (answer.status, answer.json["code"]) == (503, "streams_full")
    assert answer.headers["retry-after"] == "2"


def test_on_another_server_waiting_takes_a_thread_and_is_bounded(make_gateway):
    gateway = make_gateway(http_threads=3)
    gateway.ledger.append("r", b'{"n":1}')
    client = WsgiClient(create_app(gateway))
    asked = {"path": RUNS + "/r/ledger", "headers": {"Authorization": f"Bearer {TOKEN}"}}

    first = client.get(**asked, query_string="after=1&wait=1")
    second = client.get(**asked, query_string="after=1&wait=1")
    body = first.get_data()
    first.close()

    assert json.loads(body) == {"items": [], "next_after": 1}
    assert (second.status_code, second.get_json()["code"]) == (503, "streams_full")


@pytest.mark.parametrize("wait", ["-1", "31", "soon"])
def test_the_time_to_wait_has_bounds(ask, wait):
    answer = ask("GET", RUNS + f"/r/ledger?wait={wait}")

    assert answer.status == 422
    assert answer.json["detail"][0]["loc"] == ["query", "wait"]


def test_an_answer_to_a_question_wakes_whoever_waits(go_live):
    live = go_live()
    live.upload((SAMPLES / "ask@0.1.0.flow").read_bytes())
    run_id = live.start(bundle_id="ask", input_data={"prompt": "Name?"})
    seen = next(entry.cursor for entry in live.service.ledger.follow(run_id) if entry.record["status"] == "waiting")
    pages = []

    with closing(Client(live.server.port)) as client:
        client.send("GET", f"{RUNS}/{run_id}/ledger?after={seen}&wait=20", version="1.0")
        client.read_until(b"\r\n\r\n")
        reader = threading.Thread(target=lambda: pages.append(client.read_to_end()))
        reader.start()
        body = {"command_id": "c", "run_id": run_id, "type": "resume", "payload": {"payload": {"response": "Bob"}}}
        live.ask("POST", "/commands", body=body)
        reader.join(10)

    assert b'"status":"completed"' in pages[0]


DAMAGES = [b'{"run_id":"r","torn', b"", b"\0" * 40, b'{"x":"\xff"}', b'{"x":"a\0b"}', b"[1]", b"  "]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_told_and_the_page_before_it_can_be_read(live, damage):
    run_id = finished_run(live)
    whole = live.ask("GET", f"/runs/{run_id}/ledger?limit=1").body
    live.service.stores.records[run_id][1] = damage

    page = live.ask("GET", f"/runs/{run_id}/ledger")
    pages = live.ask("POST", "/runs/ledger/batch", body={"runs": [{"run_id": run_id}]})
    before = live.ask("GET", f"/runs/{run_id}/ledger?limit=1")

    assert {(answer.status, answer.json["code"]) for answer in (page, pages)} == {(503, "ledger_damaged")}
    assert f"record 2 of the ledger of run '{run_id}'" in page.json["detail"]
    assert before.body == whole


@pytest.mark.parametrize("query", ["", "?include=children"])
def test_a_stream_ends_before_a_damaged_record_and_does_not_begin_at_it(live, query):
    run_id = finished_run(live)
    live.service.stores.records[run_id][1] = b'{"torn'

    with closing(Client(live.server.port)) as client:
        sent = client.stream(run_id, query=query, version="1.0").read_to_end()
    again = live.ask("GET", f"/runs/{run_id}/ledger/stream?after=1")

    assert (sent.count(b"event: step"), sent.count(b"event: done")) == (1, 0)
    assert (again.status, again.json["code"]) == (503, "ledger_damaged")


def test_spaces_around_a_stored_record_are_no_damage(live):
    run_id = finished_run(live)
    live.service.stores.records[run_id][0] += b" \r"

    assert live.ask("GET", f"/runs/{run_id}/ledger?limit=1").json["next_after"] == 1


@pytest.mark.parametrize("path", ["", "/ledger", "/ledger?wait=1&after=999", "/ledger/stream", "/input_data"])
def test_head_answers_as_get_does_without_a_body(live, path):
    run_id = finished_run(live)

    head = live.ask("HEAD", f"/runs/{run_id}{path}", has_body=False)
    got = live.ask("GET", f"/runs/{run_id}{path}")

    assert head.status == got.status == 200
    for name in ("content-type", "etag", "cache-control"):
        assert head.headers.get(name) == got.headers.get(name)
    if "content-length" in got.headers:
        assert head.headers["content-length"] == got.headers["content-length"]


def test_only_a_full_page_may_be_kept_for_ever(live):
    run_id = finished_run(live)

    full, part = (live.ask("GET", f"/runs/{run_id}/ledger?limit={limit}") for limit in (2, 2000))

    assert full.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert "immutable" not in part.headers.get("cache-control", "")

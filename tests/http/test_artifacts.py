from __future__ import annotations

import hashlib

import pytest

CONTENT = b"0123456789"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def run_id(live) -> str:
    run_id = live.start(bundle_id="echo", input_data={"prompt": "hi"})
    live.finish(run_id)
    return run_id


@pytest.fixture
def path(live, run_id) -> str:
    """The path of an artifact of the run."""
    tags = {"filename": 'a "b"/ü.txt'}
    stored = live.service.stores.artifacts.store(CONTENT, content_type="text/html", run_id=run_id, tags=tags)
    return f"/runs/{run_id}/artifacts/{stored.artifact_id}"


def test_the_artifacts_of_a_run_are_listed_with_the_flow_it_started_with(live, run_id, path):
    items = live.ask("GET", f"/runs/{run_id}/artifacts").json["items"]

    own = items[0]
    assert own.pop("created_at")
    assert own == {
        "artifact_id": path.rpartition("/")[2],
        "content_type": "text/html",
        "size_bytes": 10,
        "tags": {"filename": 'a "b"/ü.txt'},
    }
    assert [item["tags"].get("kind") for item in items] == [None, "workflow_snapshot"]


def test_the_list_keeps_its_limit(live, run_id, path):
    assert len(live.ask("GET", f"/runs/{run_id}/artifacts?limit=1").json["items"]) == 1


def test_an_artifact_is_described(live, run_id, path):
    shown = live.ask("GET", path).json

    assert shown.pop("created_at")
    assert shown == {
        "artifact_id": path.rpartition("/")[2],
        "content_type": "text/html",
        "size_bytes": 10,
        "blob_id": DIGEST,
        "run_id": run_id,
        "tags": {"filename": 'a "b"/ü.txt'},
    }


def test_content_comes_with_its_length_and_type_and_is_never_run_by_a_browser(live, path):
    answer = live.ask("GET", path + "/content")

    assert answer.body == CONTENT
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-length"] == "10"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["content-disposition"].startswith("attachment; filename")
    assert "a%20_b__%C3%BC.txt" in answer.headers["content-disposition"]
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{DIGEST}"'


@pytest.mark.parametrize(
    ("asked", "part", "place"),
    [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ],
)
def test_a_range_of_the_content_can_be_asked_for(live, path, asked, part, place):
    answer = live.ask("GET", path + "/content", f"Range: {asked}")

    assert (answer.status, answer.body) == (206, part)
    assert answer.headers["content-range"] == place
    assert answer.headers["content-length"] == str(len(part))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100"])
def test_a_range_outside_the_content_is_refused(live, path, asked):
    answer = live.ask("GET", path + "/content", f"Range: {asked}")

    assert (answer.status, answer.json["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10"


def test_content_that_the_client_has_is_not_sent_again(live, path):
    answer = live.ask("GET", path + "/content", f'If-None-Match: "{DIGEST}"', has_body=False)

    assert answer.status == 304


def test_the_head_of_content_tells_its_length(live, path):
    answer = live.ask("HEAD", path + "/content", has_body=False)

    assert (answer.status, answer.headers["content-length"]) == (200, "10")


@pytest.mark.parametrize(
    ("target", "status", "detail"),
    [
        ("/runs/nope/artifacts", 404, "Run 'nope' not found"),
        ("/runs/nope/artifacts/a", 404, "Run 'nope' not found"),
        ("/runs/{run}/artifacts/abc", 404, "Artifact 'abc' not found"),
        ("/runs/{run}/artifacts/abc/content", 404, "Artifact 'abc' not found"),
        ("/runs/{run}/artifacts/..%00", 400, "Invalid artifact id: '..\\x00'"),
        ("/runs/session_memory_new/artifacts/abc", 404, "Artifact 'abc' not found"),
    ],
)
def test_what_is_not_there_is_named(live, run_id, target, status, detail):
    answer = live.ask("GET", target.replace("{run}", run_id))

    assert (answer.status, answer.json["detail"]) == (status, detail)


def test_an_artifact_of_another_run_is_not_found(live, run_id, path):
    other = live.start(bundle_id="echo", input_data={"prompt": "other"})

    answer = live.ask("GET", path.replace(run_id, other))

    assert answer.status == 404


def test_a_session_that_has_no_artifacts_yet_has_an_empty_list(live):
    assert live.ask("GET", "/runs/session_memory_new/artifacts").json == {"items": []}


def test_the_flow_a_run_started_with_can_be_read(live, run_id):
    ref = live.ask("GET", f"/runs/{run_id}/history_bundle").json["workflow_snapshot"]

    content = live.ask("GET", f"/runs/{run_id}/artifacts/{ref['artifact_id']}/content")

    assert hashlib.sha256(content.body).hexdigest() == ref["sha256"]

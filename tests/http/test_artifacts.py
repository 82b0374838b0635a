from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from abstractgateway.stores.artifacts import FileArtifactStore
from tests.http.conftest import packed

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


@pytest.mark.parametrize("asked", ["items=0-1", "bytes=0-1,3-4", "bytes=x", "bytes=5-2"])
def test_a_range_that_cannot_be_given_as_one_is_ignored(live, path, asked):
    answer = live.ask("GET", path + "/content", f"Range: {asked}")

    assert (answer.status, answer.body) == (200, CONTENT)


def test_content_that_is_not_what_the_client_names_is_refused(live, path):
    refused = live.ask("GET", path + "/content", 'If-Match: "another"')
    given = live.ask("GET", path + "/content", f'If-Match: "{DIGEST}"')

    assert (refused.status, refused.json["code"]) == (412, "precondition_failed")
    assert DIGEST in refused.json["detail"]
    assert (given.status, given.body) == (200, CONTENT)


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


LARGE = bytes(range(256)) * 12_345


@pytest.fixture
def filed(go_live):
    """A gateway that keeps artifacts as files and lets nobody have a whole one in memory."""
    gateway = go_live(store_backend="file", max_inline_bytes=1000)
    gateway.upload(packed())
    return gateway


@pytest.fixture
def large(filed) -> str:
    """The path of an artifact that is sent in several parts."""
    run_id = filed.start(bundle_id="echo", input_data={"prompt": "hi"})
    stored = filed.service.stores.artifacts.store(LARGE, run_id=run_id)
    return f"/runs/{run_id}/artifacts/{stored.artifact_id}/content"


def test_large_content_is_sent_without_being_loaded(filed, large, monkeypatch):
    monkeypatch.delattr(FileArtifactStore, "load")

    whole = filed.ask("GET", large)
    part = filed.ask("GET", large, "Range: bytes=1500000-2999999")

    assert (whole.status, whole.headers["content-length"]) == (200, str(len(LARGE)))
    assert whole.body == LARGE
    assert (part.status, part.body) == (206, LARGE[1_500_000:3_000_000])
    assert part.headers["content-range"] == f"bytes 1500000-2999999/{len(LARGE)}"


def test_the_large_content_that_a_client_has_is_not_sent(filed, large):
    etag = filed.ask("HEAD", large, has_body=False).headers["etag"]

    assert filed.ask("GET", large, f"If-None-Match: {etag}", has_body=False).status == 304
    assert filed.ask("GET", large, "Range: bytes=0-9", 'If-Range: "other"').status == 200
    assert filed.ask("GET", large, "Range: bytes=0-9", f"If-Range: {etag}").status == 206


@pytest.mark.parametrize("headers", [(), ("Range: bytes=0-1",)])
def test_of_damaged_content_nothing_is_sent(filed, large, headers):
    (blob,) = Path(filed.service.config.data_dir).glob(f"artifacts/blobs/{hashlib.sha256(LARGE).hexdigest()}.bin")
    blob.write_bytes(b"X" + LARGE[1:])

    answer = filed.ask("GET", large, *headers)

    assert (answer.status, answer.json["code"]) == (503, "artifact_damaged")


def test_a_large_output_is_whole_in_the_run_and_a_reference_in_the_ledger(filed):
    text = "wörter " * 1000
    run_id = filed.start(bundle_id="echo", input_data={"prompt": text})
    filed.finish(run_id)

    output = filed.ask("GET", f"/runs/{run_id}").json["output"]
    ledger = filed.ask("GET", f"/runs/{run_id}/ledger").json["items"]

    assert text in str(output)
    ref = next(found for item in ledger if (found := reference_in(item["result"])) is not None)
    content = filed.ask("GET", f"/runs/{run_id}/artifacts/{ref['$artifact']}/content")
    assert (content.body.decode(), content.headers["content-type"]) == (text, "text/plain")
    assert filed.ask("GET", f"/runs/{run_id}/input_data").json["input_data"]["prompt"] == text


def reference_in(value):
    """Return the first reference to an offloaded value in a JSON value."""
    if not isinstance(value, dict):
        return None
    if "$offloaded" in value:
        return value
    return next((found for item in value.values() if (found := reference_in(item)) is not None), None)

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

DIGEST = hashlib.sha256(b"hello").hexdigest()


def form(content: bytes | None, *, filename: str = "h.txt", kind: str | None = "text/plain", **fields: str):
    """Return the body of an upload and its content type."""
    parts = [
        b'--bnd\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())
        for name, value in fields.items()
    ]
    if content is not None:
        named = f'; filename="{filename}"' if filename else ""
        typed = f"\r\nContent-Type: {kind}" if kind else ""
        head = f'--bnd\r\nContent-Disposition: form-data; name="file"{named}{typed}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join([*parts, b"--bnd--\r\n"]), "Content-Type: multipart/form-data; boundary=bnd"


def upload(live, content: bytes | None = b"hello", **given):
    given.setdefault("session_id", "S1")
    body, kind = form(content, **given)
    return live.ask("POST", "/attachments/upload", kind, body=body)


def content_of(live, answer) -> bytes:
    run_id, artifact_id = answer.json["run_id"], answer.json["attachment"]["$artifact"]
    return live.ask("GET", f"/runs/{run_id}/artifacts/{artifact_id}/content").body


@pytest.fixture
def shelf(tmp_path):
    """A workspace with a file, and one that is mounted as `notes`."""
    shelf = tmp_path / "shelf"
    (shelf / "docs").mkdir(parents=True)
    (shelf / "docs" / "a.md").write_text("hello")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "todo.md").write_text("hello")
    (tmp_path / "outside.txt").write_text("secret")
    return shelf


@pytest.fixture
def live(go_live, shelf, tmp_path):
    return go_live(
        store_backend="file",
        workspace_dir=shelf,
        workspace_mounts=(("notes", str(tmp_path / "mounted")),),
        max_attachment_bytes=500_000,
    )


def ingest(live, path: str, **given):
    return live.ask("POST", "/attachments/ingest", body={"session_id": "S1", "path": path, **given})


def test_an_uploaded_file_is_an_artifact_of_its_session(live):
    answer = upload(live)

    attachment = answer.json["attachment"]
    metadata = answer.json["metadata"]
    assert (answer.status, answer.json["ok"], answer.json["run_id"]) == (200, True, "session_memory_S1")
    assert attachment == {
        "$artifact": hashlib.sha256(b"session_memory_S1\0hello").hexdigest()[:32],
        "target": "client",
        "filename": "h.txt",
        "content_type": "text/plain",
        "source_path": "client:h.txt",
        "sha256": DIGEST,
    }
    assert metadata == {
        "artifact_id": attachment["$artifact"],
        "content_type": "text/plain",
        "size_bytes": 5,
        "created_at": metadata["created_at"],
        "blob_id": DIGEST,
        "run_id": "session_memory_S1",
        "tags": {
            "kind": "attachment",
            "target": "client",
            "source": "upload",
            "path": "client:h.txt",
            "filename": "h.txt",
            "session_id": "S1",
            "sha256": DIGEST,
        },
    }
    assert content_of(live, answer) == b"hello"


def test_the_session_has_an_empty_list_before_and_its_files_afterwards(live):
    before = live.ask("GET", "/runs/session_memory_S1/artifacts")
    upload(live)

    after = live.ask("GET", "/runs/session_memory_S1/artifacts")

    assert (before.status, before.json) == (200, {"items": []})
    assert [item["tags"]["filename"] for item in after.json["items"]] == ["h.txt"]


def test_the_run_of_a_session_is_stored_and_hidden_from_the_list(live):
    upload(live)

    run = live.ask("GET", "/runs/session_memory_S1").json

    assert (run["status"], run["session_id"]) == ("completed", "S1")
    assert live.ask("GET", "/runs").json["items"] == []


def test_attachments_survive_a_restart(live, go_live):
    answer = upload(live)
    live.server.stop()
    live.service.close()

    again = go_live(store_backend="file")

    assert content_of(again, answer) == b"hello"
    assert again.ask("GET", "/runs/session_memory_S1").status == 200


def test_a_session_id_that_is_no_run_id_is_hashed(live):
    answer = upload(live, session_id="a b/c")

    expected = hashlib.sha256(b"a b/c").hexdigest()[:32]
    assert answer.json["run_id"] == f"session_memory_sha_{expected}"
    assert answer.json["metadata"]["tags"]["session_id"] == "a b/c"


@pytest.mark.parametrize(
    ("given", "filename", "content_type"),
    [
        ({"filename": "a.png", "kind": None}, "a.png", "image/png"),
        ({"filename": "a.unknown-thing", "kind": None}, "a.unknown-thing", "application/octet-stream"),
        ({"filename": "a.png", "kind": "no type"}, "a.png", "image/png"),
        ({"filename": "a.bin", "kind": "Text/Plain; charset=utf-8"}, "a.bin", "text/plain; charset=utf-8"),
        ({"filename": "../../etc/pass wd"}, "pass wd", "text/plain"),
        ({"filename": "C:\\\\docs\\\\a.txt"}, "a.txt", "text/plain"),
        ({"filename": ".."}, "upload.bin", "text/plain"),
    ],
)
def test_name_and_type_come_from_the_part(live, given, filename, content_type):
    attachment = upload(live, **given).json["attachment"]

    assert (attachment["filename"], attachment["content_type"]) == (filename, content_type)
    assert attachment["source_path"] == f"client:{filename}"


def named(live, **fields: str):
    parts = {"session_id": "S1", **fields}
    body = b"".join(
        b'--bnd\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())
        for name, value in parts.items()
    )
    part = b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="h.txt"\r\nContent-Type: text/plain\r\n\r\n'
    content = body + part + b"hello\r\n--bnd--\r\n"
    return live.ask("POST", "/attachments/upload", "Content-Type: multipart/form-data; boundary=bnd", body=content)


def test_the_fields_of_the_form_win_over_the_part(live):
    attachment = named(live, filename="x.csv", content_type=" Text/CSV ").json["attachment"]

    assert (attachment["filename"], attachment["content_type"]) == ("x.csv", "text/csv")


def test_blank_fields_of_the_form_count_as_missing(live):
    attachment = named(live, filename=" ", content_type="").json["attachment"]

    assert (attachment["filename"], attachment["content_type"]) == ("h.txt", "text/plain")


@pytest.mark.parametrize("kind", ["text", "text/html\r\nX-Evil: 1", "a/b c", "x" * 200 + "/y"])
def test_a_content_type_that_is_none_is_refused(live, kind):
    answer = named(live, content_type=kind)

    assert (answer.status, answer.json["detail"].startswith("content_type: ")) == (400, True)


def test_the_same_bytes_under_another_name_are_another_attachment(live):
    first = upload(live, filename="a.txt")
    second = upload(live, filename="b.md", kind="text/markdown")

    again = upload(live, filename="b.md", kind="text/markdown")

    assert again.json == second.json
    assert first.json["attachment"]["$artifact"] != second.json["attachment"]["$artifact"]
    listed = live.ask("GET", "/runs/session_memory_S1/artifacts").json["items"]
    assert sorted((item["tags"]["filename"], item["content_type"]) for item in listed) == [
        ("a.txt", "text/plain"),
        ("b.md", "text/markdown"),
    ]
    assert content_of(live, second) == b"hello"


def test_the_same_file_twice_is_one_attachment(live):
    assert upload(live).json == upload(live).json


def test_an_empty_file_can_be_attached(live):
    answer = upload(live, b"")

    assert (answer.status, answer.json["metadata"]["size_bytes"], content_of(live, answer)) == (200, 0, b"")


@pytest.mark.parametrize("session", ["", "   "])
def test_a_blank_session_is_refused(live, session):
    answer = upload(live, session_id=session)

    assert (answer.status, answer.json["detail"]) == (400, "session_id is required")


def test_missing_fields_are_named(live):
    body, kind = form(None)

    answer = live.ask("POST", "/attachments/upload", kind, body=body)

    assert answer.status == 422
    assert [item["loc"] for item in answer.json["detail"]] == [["body", "session_id"], ["body", "file"]]


def test_a_file_that_is_no_file_is_refused(live):
    body, kind = form(None, session_id="S1", file="hello")

    assert live.ask("POST", "/attachments/upload", kind, body=body).status == 422


def test_a_json_body_is_no_upload(live):
    assert live.ask("POST", "/attachments/upload", body={"session_id": "S1"}).status == 415


def test_an_upload_may_be_larger_than_other_bodies(live):
    content = os.urandom(400_000)

    answer = upload(live, content, filename="x.bin")

    assert answer.status == 200
    assert content_of(live, answer) == content


def test_a_file_over_the_limit_is_refused_with_its_size(live):
    answer = upload(live, b"x" * 500_001)

    assert (answer.status, answer.json["code"]) == (413, "attachment_too_large")
    assert answer.json["detail"] == "Attachment too large (500001 bytes > 500000 bytes)"
    assert live.ask("GET", "/runs/session_memory_S1/artifacts").json == {"items": []}


def test_a_form_over_the_limit_is_refused_before_it_is_read(live):
    declared = "Content-Length: 90000000"

    answer = live.ask("POST", "/attachments/upload", "Content-Type: multipart/form-data", declared)

    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")


def test_the_upload_of_a_stranger_is_refused(live):
    body, kind = form(b"hello", session_id="S1")

    assert live.ask("POST", "/attachments/upload", kind, "Authorization: none", body=body).status == 401


def test_many_uploads_at_once_to_a_new_session_all_succeed(live):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: upload(live, b"%d" % number, filename=f"{number}"), range(24)))

    assert {answer.status for answer in answers} == {200}
    assert len(live.ask("GET", "/runs/session_memory_S1/artifacts").json["items"]) == 24


def test_a_file_of_the_workspace_is_attached_as_it_is_now(live, shelf):
    answer = ingest(live, "docs/a.md")
    (shelf / "docs" / "a.md").write_text("changed")

    attachment = answer.json["attachment"]
    assert answer.json["run_id"] == "session_memory_S1"
    assert attachment == {
        "$artifact": answer.json["metadata"]["artifact_id"],
        "target": "server",
        "filename": "a.md",
        "content_type": "text/markdown",
        "source_path": "docs/a.md",
        "sha256": DIGEST,
    }
    tags = answer.json["metadata"]["tags"]
    assert (tags["target"], tags["source"], tags["path"]) == ("server", "workspace", "docs/a.md")
    assert content_of(live, answer) == b"hello"


@pytest.mark.parametrize("path", ["notes/todo.md", "@notes/todo.md", "notes\\todo.md", " notes/todo.md "])
def test_a_file_of_a_mount_is_known_by_the_name_of_the_mount(live, path):
    assert ingest(live, path).json["attachment"]["source_path"] == "notes/todo.md"


def test_an_absolute_path_inside_a_root_is_shown_without_it(live, shelf, tmp_path):
    answers = [ingest(live, str(shelf / "docs" / "a.md")), ingest(live, str(tmp_path / "mounted" / "todo.md"))]

    assert [answer.json["attachment"]["source_path"] for answer in answers] == ["docs/a.md", "notes/todo.md"]
    assert str(tmp_path) not in answers[0].body.decode()


def test_name_and_type_of_an_ingested_file_can_be_told(live):
    attachment = ingest(live, "docs/a.md", filename="b.txt", content_type="Text/X-Other").json["attachment"]

    assert (attachment["filename"], attachment["content_type"]) == ("b.txt", "text/x-other")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("../outside.txt", 403, "path escapes workspace root"),
        ("notes/../../outside.txt", 403, "path escapes workspace root"),
        ("~/x", 403, "path escapes workspace root"),
        ("/etc/passwd", 403, "path is outside workspace roots"),
        ("docs/gone.md", 404, "File not found"),
        ("gone/a.md", 404, "File not found"),
        ("docs", 400, "Path is not a file"),
        (".", 400, "Path is not a file"),
        ("  ", 400, "path is required"),
        ("a\0b", 400, "null character"),
        ("link.txt", 403, "leads through a link"),
        ("linked/outside.txt", 403, "leads through a link"),
        (".env", 403, "is hidden"),
        (".git/config", 403, "is hidden"),
        ("ignored/x", 403, "File is ignored by .abstractignore policy"),
        ("pipe", 400, "Path is not a file"),
    ],
)
def test_a_path_that_may_not_be_read_is_refused(live, shelf, tmp_path, path, status, text):
    (shelf / ".env").write_text("KEY=1")
    (shelf / ".git").mkdir()
    (shelf / ".git" / "config").write_text("x")
    (shelf / "link.txt").symlink_to(tmp_path / "outside.txt")
    (shelf / "linked").symlink_to(tmp_path)
    (shelf / "ignored").mkdir()
    (shelf / "ignored" / "x").write_text("x")
    (shelf / ".abstractignore").write_text("ignored/\n")
    os.mkfifo(shelf / "pipe")

    answer = ingest(live, path)

    assert (answer.status, text in answer.json["detail"]) == (status, True), answer.json
    assert str(tmp_path) not in answer.body.decode()
    assert live.ask("GET", "/runs/session_memory_S1/artifacts").json == {"items": []}


def test_a_workspace_of_the_clients_choice_counts_for_nothing_unless_it_is_allowed(live, tmp_path):
    wishes = {"workspace_root": str(tmp_path), "workspace_access_mode": "all_except_ignored"}

    answers = [ingest(live, "outside.txt", **wishes), ingest(live, str(tmp_path / "outside.txt"), **wishes)]

    assert [answer.status for answer in answers] == [404, 403]


def test_a_workspace_of_the_clients_choice_counts_where_it_is_allowed(go_live, tmp_path, shelf):
    live = go_live(client_workspace_scope=True, workspace_dir=shelf)

    answer = ingest(live, "outside.txt", workspace_root=str(tmp_path), workspace_ignored_paths=["mounted"])

    assert answer.json["attachment"]["source_path"] == "outside.txt"
    blocked = ingest(live, "mounted/todo.md", workspace_root=str(tmp_path), workspace_ignored_paths=["mounted"])
    assert (blocked.status, blocked.json["detail"]) == (403, "path is blocked by workspace_ignored_paths")


def test_a_large_file_of_the_workspace_is_refused_with_its_size(live, shelf):
    (shelf / "large").write_bytes(b"x" * 500_001)

    answer = ingest(live, "large")

    assert (answer.status, answer.json["detail"]) == (413, "Attachment too large (500001 bytes > 500000 bytes)")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"path": "a"}, "session_id"),
        ({"session_id": "S1"}, "path"),
        ({"session_id": "S1", "path": 5}, "path"),
        ({"session_id": "S1", "path": "a", "workspace_allowed_paths": [1]}, "workspace_allowed_paths"),
    ],
)
def test_a_wrong_field_of_an_ingest_is_named(live, body, place):
    answer = live.ask("POST", "/attachments/ingest", body=body)

    assert answer.status == 422
    assert [item["loc"] for item in answer.json["detail"]] == [["body", place]]


def test_an_ingest_needs_a_session(live):
    assert ingest(live, "docs/a.md", session_id=" ").json["detail"] == "session_id is required"

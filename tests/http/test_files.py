from __future__ import annotations

import os
from urllib.parse import quote, urlencode

import pytest


def put(top, **files: str):
    for path, text in files.items():
        target = top / path.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@pytest.fixture
def shelf(tmp_path):
    """A workspace, beside it a mounted directory and a file that is nobody's business."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "notes.txt").write_text("hello\nworld\n")
    (shelf / "docs").mkdir()
    (shelf / "docs" / "a.md").write_text("one\ntwo")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "todo.md").write_text("buy milk\n")
    (tmp_path / "outside.txt").write_text("secret\n")
    return shelf


@pytest.fixture
def settings(shelf, tmp_path):
    return {"workspace_dir": shelf, "workspace_mounts": (("notes", str(tmp_path / "mounted")),)}


@pytest.fixture
def live(go_live, settings):
    return go_live(**settings)


def get(live, route: str, /, **query):
    return live.ask("GET", f"{route}?{urlencode(query)}")


def found(live, query: str, **more) -> list[str]:
    return [item["path"] for item in get(live, "/files/search", query=query, **more).json["items"]]


def test_the_policy_names_the_mounts_and_no_path(live, tmp_path):
    answer = live.ask("GET", "/workspace/policy")

    assert answer.json == {
        "ok": True,
        "policy": {
            "target": "server",
            "mounts": [{"name": "notes"}],
            "max_attachment_bytes": 26_214_400,
            "client_workspace_scope_overrides": False,
            "allowed_access_modes": ["workspace_only", "workspace_or_allowed"],
        },
    }
    assert str(tmp_path) not in answer.body.decode()


@pytest.mark.parametrize("more", [{"client_workspace_scope": True}, {"tool_mode": "local"}])
def test_the_policy_tells_that_clients_may_choose(go_live, settings, more):
    policy = go_live(**settings, **more).ask("GET", "/workspace/policy").json["policy"]

    assert policy["client_workspace_scope_overrides"] is True
    assert policy["allowed_access_modes"] == ["workspace_only", "workspace_or_allowed", "all_except_ignored"]


def test_a_file_is_read_with_its_line_numbers(live, tmp_path):
    answer = get(live, "/files/read", path="notes.txt")

    assert answer.json == {"path": "notes.txt", "content": "File: notes.txt (2 lines)\n\n1: hello\n2: world"}
    assert str(tmp_path) not in answer.body.decode()


def test_a_range_of_lines_is_read(live, shelf):
    (shelf / "long.txt").write_text("".join(f"line {number}\n" for number in range(1, 101)))

    content = get(live, "/files/read", path="long.txt", start_line=40, end_line=41).json["content"]

    assert content == "File: long.txt (lines 40 to 41)\n\n40: line 40\n41: line 41"


@pytest.mark.parametrize("path", ["notes/todo.md", "@notes/todo.md", "notes\\todo.md"])
def test_a_mount_is_reached_by_its_name(live, path):
    answer = get(live, "/files/read", path=path)

    assert answer.json == {"path": "notes/todo.md", "content": "File: notes/todo.md (1 lines)\n\n1: buy milk"}


def test_the_name_of_a_mount_alone_means_the_base(live, shelf):
    (shelf / "notes").write_text("of the base")

    assert get(live, "/files/read", path="notes").json["content"].endswith("1: of the base")


def test_an_absolute_path_is_answered_with_a_relative_one(live, shelf, tmp_path):
    paths = [shelf / "docs" / "a.md", tmp_path / "mounted" / "todo.md"]

    assert [get(live, "/files/read", path=path).json["path"] for path in paths] == ["docs/a.md", "notes/todo.md"]


@pytest.mark.parametrize("route", ["/files/read", "/files/skim"])
@pytest.mark.parametrize("path", ["gone.txt", "gone/x", "notes/gone.md"])
def test_a_missing_file_is_told_in_the_content(live, route, path):
    answer = get(live, route, path=path)

    assert answer.status == 200
    assert answer.json["path"] == path
    assert answer.json["content"].startswith("Error: File not found")


@pytest.mark.parametrize("route", ["/files/read", "/files/skim"])
@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("../outside.txt", 403, "path escapes workspace root"),
        ("docs/../../outside.txt", 403, "path escapes workspace root"),
        ("/etc/passwd", 403, "path is outside workspace roots"),
        ("~/x", 403, "path escapes workspace root"),
        (".env", 403, "is hidden"),
        ("docs/.secret/x", 403, "is hidden"),
        ("notes/.env", 403, "is hidden"),
        ("link.txt", 403, "leads through a link"),
        ("linked/outside.txt", 403, "leads through a link"),
        ("ignored/x", 403, "File is ignored by .abstractignore policy"),
        (".abstractignore", 403, "is hidden"),
        ("", 400, "path is required"),
        ("%00", 400, "null character"),
    ],
)
def test_what_may_not_be_read_is_refused(live, shelf, tmp_path, route, path, status, text):
    (shelf / ".env").write_text("KEY=1")
    (tmp_path / "mounted" / ".env").write_text("KEY=1")
    put(shelf, docs__x="x", ignored__x="x")
    (shelf / "docs" / ".secret").mkdir()
    (shelf / "docs" / ".secret" / "x").write_text("KEY=1")
    (shelf / ".abstractignore").write_text("ignored/\n")
    (shelf / "link.txt").symlink_to(tmp_path / "outside.txt")
    (shelf / "linked").symlink_to(tmp_path)
    os.mkfifo(shelf / "pipe")

    answer = live.ask("GET", f"{route}?path={path if path == '%00' else quote(path)}")

    assert (answer.status, text in answer.json["detail"]) == (status, True), answer.json
    assert "KEY=1" not in answer.body.decode()
    assert str(tmp_path) not in answer.body.decode()


@pytest.mark.parametrize("route", ["/files/read", "/files/skim"])
@pytest.mark.parametrize("path", ["docs", ".", "notes/inner", "pipe"])
def test_what_is_no_file_is_told_in_the_content(live, shelf, tmp_path, route, path):
    (tmp_path / "mounted" / "inner").mkdir()
    os.mkfifo(shelf / "pipe")

    answer = get(live, route, path=path)

    assert (answer.status, answer.json) == (200, {"path": path, "content": f"Error: Path is not a file: {path!r}"})


@pytest.mark.parametrize(
    ("query", "place", "kind"),
    [
        ("", "path", "missing"),
        ("path=a&start_line=0", "start_line", "greater_than_equal"),
        ("path=a&start_line=x", "start_line", "int_parsing"),
        ("path=a&end_line=0", "end_line", "greater_than_equal"),
    ],
)
def test_wrong_fields_of_reading_are_named(live, query, place, kind):
    answer = live.ask("GET", f"/files/read?{query}")

    assert answer.status == 422
    assert [(item["loc"], item["type"]) for item in answer.json["detail"]] == [(["query", place], kind)]


@pytest.mark.parametrize(
    ("query", "place", "kind"),
    [
        ("", "path", "missing"),
        ("path=a&target_percent=0.5", "target_percent", "greater_than_equal"),
        ("path=a&target_percent=26", "target_percent", "less_than_equal"),
        ("path=a&target_percent=nan", "target_percent", "float_parsing"),
        ("path=a&target_percent=inf", "target_percent", "float_parsing"),
        ("path=a&target_percent=x", "target_percent", "float_parsing"),
        ("path=a&head_lines=501", "head_lines", "less_than_equal"),
        ("path=a&tail_lines=-1", "tail_lines", "greater_than_equal"),
    ],
)
def test_wrong_fields_of_skimming_are_named(live, query, place, kind):
    answer = live.ask("GET", f"/files/skim?{query}")

    assert answer.status == 422
    assert [(item["loc"], item["type"]) for item in answer.json["detail"]] == [(["query", place], kind)]


def test_a_file_that_is_no_text_says_so(live, shelf):
    (shelf / "image.bin").write_bytes(b"\x89PNG\0\0")

    read, skimmed = (get(live, route, path="image.bin") for route in ("/files/read", "/files/skim"))

    assert (read.status, read.json["content"]) == (200, "Error: 'image.bin' is no text")
    assert "no text" in skimmed.json["content"]


def test_lines_beyond_the_end_are_told_in_the_content(live):
    assert get(live, "/files/read", path="notes.txt", start_line=9).json["content"].startswith("Error: 9 is beyond")


def test_a_large_file_is_cut_off_and_says_how_to_go_on(live, shelf):
    (shelf / "large.txt").write_text("x" * 99 + "\n" + "y\n" * 200_000)

    content = get(live, "/files/read", path="large.txt").json["content"]

    assert len(content) < 1_000_000
    assert "cut off; go on with start_line=" in content


def test_skimming_shows_both_ends_and_something_between(live, shelf):
    (shelf / "long.txt").write_text("".join(f"line {number}\n" for number in range(1, 1001)))

    answer = get(live, "/files/skim", path="long.txt", target_percent=1, head_lines=2, tail_lines=1)

    lines = answer.json["content"].splitlines()
    assert answer.json["path"] == "long.txt"
    assert lines[:4] == ["File: long.txt (1000 lines)", "", "1: line 1", "2: line 2"]
    assert lines[-1] == "1000: line 1000"
    assert 5 <= len(lines) <= 20


def test_a_file_that_is_too_large_to_skim_says_so(live, shelf):
    with (shelf / "huge.txt").open("wb") as file:
        file.truncate(8_000_001)

    assert get(live, "/files/skim", path="huge.txt").json["content"].startswith("Error: 'huge.txt' is larger than")


def test_names_that_begin_with_the_query_come_first_then_names_then_paths(live, shelf):
    put(shelf, src__report__x="", src__my_report="", src__b__report="", report_long="", src__Report="")

    assert found(live, "report") == [
        "src/Report",
        "report_long",
        "src/b/report",
        "src/my_report",
        "src/report/x",
    ]


def test_hits_have_their_size_and_their_mount(live):
    items = get(live, "/files/search", query="o").json["items"]

    assert {"path": "notes.txt", "size_bytes": 12} in items
    assert {"path": "notes/todo.md", "size_bytes": 9, "mount": "notes"} in items


def test_the_at_sign_of_a_mention_does_not_count(live):
    assert found(live, "@notes.t") == ["notes.txt"]


@pytest.mark.parametrize("query", ["", "  ", "@"])
def test_an_empty_query_finds_nothing(live, query):
    answer = get(live, "/files/search", query=query)

    assert (answer.status, answer.json) == (200, {"items": []})
    assert live.ask("GET", "/files/search").json == {"items": []}


def test_as_many_hits_as_wanted_are_returned(live, shelf):
    for number in range(30):
        (shelf / f"f{number}").write_text("")

    assert (len(found(live, "f")), len(found(live, "f", limit=5))) == (20, 5)


@pytest.mark.parametrize("limit", ["0", "201", "x"])
def test_a_wrong_limit_is_refused(live, limit):
    assert get(live, "/files/search", query="a", limit=limit).status == 422


def test_hidden_ignored_linked_and_odd_files_are_not_found(live, shelf, tmp_path):
    put(shelf, ignored__pick="", node_modules__pick="", deep__pick="")
    (shelf / ".pick").write_text("")
    (shelf / ".hidden").mkdir()
    (shelf / ".hidden" / "pick").write_text("")
    (shelf / "pick-link").symlink_to(tmp_path / "outside.txt")
    (shelf / "pick-links").symlink_to(tmp_path)
    os.mkfifo(shelf / "pick-pipe")
    (shelf / ".abstractignore").write_text("ignored/\n")
    with open(os.fsencode(shelf) + b"/pick\xff", "w"):
        pass

    assert found(live, "pick") == ["deep/pick"]


def test_a_missing_directory_has_no_files_and_the_others_are_found(go_live, settings, shelf):
    mounts = (*settings["workspace_mounts"], ("gone", str(shelf / "gone")))
    live = go_live(**{**settings, "workspace_mounts": mounts})

    assert found(live, "todo") == ["notes/todo.md"]


def test_a_directory_that_cannot_be_listed_is_told_and_hides_no_other(go_live, settings, shelf):
    (shelf / "file").write_text("")
    mounts = (*settings["workspace_mounts"], ("broken", str(shelf / "file")))
    live = go_live(**{**settings, "workspace_mounts": mounts})

    answer = get(live, "/files/search", query="todo")

    assert [item["path"] for item in answer.json["items"]] == ["notes/todo.md"]
    assert answer.json["error"].startswith("broken: ")
    assert str(shelf) not in answer.body.decode()


def test_without_a_workspace_the_workspaces_of_runs_are_shown(go_live, tmp_path):
    live = go_live()
    put(tmp_path / "data" / "workspaces", **{"run-1__out.txt": "result"})

    assert found(live, "out") == ["run-1/out.txt"]
    assert get(live, "/files/read", path="run-1/out.txt").json["content"].endswith("1: result")


def test_a_directory_of_the_clients_choice_counts_for_nothing_unless_it_is_allowed(live, tmp_path):
    wishes = {
        "workspace_root": str(tmp_path),
        "workspace_access_mode": "all_except_ignored",
        "workspace_allowed_paths": str(tmp_path),
    }

    assert found(live, "outside", **wishes) == []
    assert get(live, "/files/read", path=str(tmp_path / "outside.txt"), **wishes).status == 403
    assert get(live, "/files/read", path="notes.txt", **wishes).json["content"].endswith("2: world")


def test_not_even_a_directory_inside_the_workspace_may_be_chosen_unless_it_is_allowed(live, shelf):
    wishes = {"workspace_root": str(shelf / "docs"), "workspace_ignored_paths": str(shelf / "notes.txt")}

    assert get(live, "/files/read", path="notes.txt", **wishes).json["path"] == "notes.txt"
    assert found(live, "a.md", **wishes) == ["docs/a.md"]


@pytest.fixture
def trusting(go_live, settings):
    return go_live(**settings, client_workspace_scope=True)


def test_where_clients_may_choose_their_directory_takes_the_place_of_the_operators(trusting, tmp_path):
    wishes = {"workspace_root": str(tmp_path)}

    assert found(trusting, "outside", **wishes) == ["outside.txt"]
    assert get(trusting, "/files/read", path="notes/todo.md", **wishes).json["content"].startswith("Error: ")
    assert get(trusting, "/files/read", path="notes/todo.md").json["content"].endswith("buy milk")


def test_where_clients_may_choose_allowed_directories_are_mounts_by_their_names(trusting, shelf, tmp_path):
    other = tmp_path / "other" / "docs"
    other.mkdir(parents=True)
    (other / "b.md").write_text("b")
    allowed = "\n".join([str(shelf / "docs"), str(other)])
    wishes = {"workspace_root": str(tmp_path / "mounted"), "workspace_allowed_paths": allowed}

    open_mode = {**wishes, "workspace_access_mode": "workspace_or_allowed"}
    assert sorted(found(trusting, "md", **open_mode)) == ["docs-2/b.md", "docs/a.md", "todo.md"]
    assert get(trusting, "/files/read", path="docs-2/b.md", **open_mode).json["path"] == "docs-2/b.md"
    assert found(trusting, "md", **wishes, workspace_access_mode="workspace_only") == ["todo.md"]


def test_where_clients_may_choose_everything_is_everything_but_what_is_ignored(trusting, tmp_path):
    wishes = {"workspace_access_mode": "all_except_ignored", "workspace_ignored_paths": str(tmp_path / "mounted")}

    path = str(tmp_path / "outside.txt")
    read = get(trusting, "/files/read", path=path, **wishes)
    blocked = get(trusting, "/files/read", path=str(tmp_path / "mounted" / "todo.md"), **wishes)

    assert (read.json["path"], read.json["content"].splitlines()[-1]) == (path, "1: secret")
    assert (blocked.status, blocked.json["detail"]) == (403, "path is blocked by workspace_ignored_paths")


def test_a_stranger_reads_no_files(live):
    for path in ("/workspace/policy", "/files/search?query=a", "/files/read?path=notes.txt", "/files/skim?path=a"):
        assert live.ask("GET", path, "Authorization: none").status == 401

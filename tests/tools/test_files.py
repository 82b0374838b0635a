"""The tools on files: what models are shown, and that nothing outside the workspace is reached."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Denied, GatewayError, Invalid, NotFound
from abstractgateway.tools import files, workspace_files
from abstractgateway.tools.process import Limits, ToolFailed
from tests.tools.toolbox import Desk


def test_files_are_listed_with_their_sizes(desk: Desk) -> None:
    desk.put("b.txt", "12345")
    desk.put("src/a.py", "x")
    desk.put("src/deep/c.py", "")
    desk.put("__pycache__/x.pyc", "")

    assert desk.call("list_files") == "__pycache__/\nb.txt  (5 bytes)\nsrc/"
    assert desk.call("list_files", recursive=True, pattern="*.py") == "src/a.py  (1 bytes)\nsrc/deep/c.py  (0 bytes)"
    assert desk.call("list_files", directory_path="src/deep") == "src/deep/c.py  (0 bytes)"
    assert desk.call("skim_folders", paths=["src"]) == "src:\n  a.py  (1 bytes)\n  deep/\n    c.py  (0 bytes)"


def test_a_workspace_that_nothing_was_written_to_is_empty(desk: Desk) -> None:
    desk.run.vars = {}

    assert desk.call("list_files") == "nothing there"
    with pytest.raises(NotFound):
        desk.call("list_files", directory_path="src")


def test_a_long_list_says_how_to_go_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_LISTED", 2)
    for number in range(5):
        desk.put(f"{number}.txt")

    assert desk.call("list_files").splitlines()[2:] == ["… 3 more entries; narrow it with directory_path or pattern"]


def test_a_file_is_read_by_lines(desk: Desk) -> None:
    desk.put("a.txt", "one\ntwo\r\nthree")

    assert desk.call("read_file", file_path="a.txt") == "File: a.txt (3 lines)\n\n1: one\n2: two\n3: three"
    assert desk.call("read_file", file_path="@a.txt", start_line=2, end_line=2) == (
        "File: a.txt (lines 2 to 2)\n\n2: two"
    )
    with pytest.raises(Invalid, match="beyond the end"):
        desk.call("read_file", file_path="a.txt", start_line=9)
    with pytest.raises(Invalid, match="less than start_line"):
        desk.call("read_file", file_path="a.txt", start_line=3, end_line=2)


def test_a_long_file_is_shown_in_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_SHOWN_CHARS", 10)
    desk.put("a.txt", f"{'x' * 25}\nshort\nmore\n")

    assert desk.call("read_file", file_path="a.txt").endswith("1: xxxxxxxxxx\n… cut off; go on with start_line=2")
    assert "2: short\n3: more" in desk.call("read_file", file_path="a.txt", start_line=2)


def test_a_file_that_is_larger_than_what_is_looked_through_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_SCANNED_BYTES", 100)
    desk.put("a.txt", "x\n" * 100)

    with pytest.raises(Invalid, match="more than 100 bytes"):
        desk.call("read_file", file_path="a.txt", start_line=90)


def test_a_binary_file_is_not_shown(desk: Desk) -> None:
    desk.put("a.bin", b"ab\0cd")

    with pytest.raises(Invalid, match="is no text"):
        desk.call("read_file", file_path="a.bin")
    assert "5 bytes, no text" in desk.call("skim_files", paths=["a.bin"])


def test_files_are_skimmed_and_one_that_is_missing_says_so(desk: Desk) -> None:
    desk.put("a.txt", "\n".join(f"line {number}" for number in range(1, 101)))

    shown = desk.call("skim_files", paths=["a.txt", "b.txt"], head_lines=2, tail_lines=1, target_percent=10)

    first, second = shown.split("\n\nFile: b.txt")
    assert first.splitlines()[:4] == ["File: a.txt (100 lines)", "", "1: line 1", "2: line 2"]
    assert first.splitlines()[-1] == "100: line 100"
    assert 10 < len(first.splitlines()) < 18
    assert second == "\n\nError: File not found: 'b.txt'"


def test_lines_are_found_by_pattern(desk: Desk) -> None:
    desk.put("a.py", "def one(): pass\ndef Two(): pass\n")
    desk.put("b.txt", "def three\n")
    desk.put("empty.txt", "")
    desk.put("c.bin", b"def \0")

    assert desk.call("search_files", pattern=r"def \w+", file_pattern="*.py") == (
        "a.py:1: def one(): pass\na.py:2: def Two(): pass"
    )
    assert desk.call("search_files", pattern="two", case_sensitive=True) == "no line of 3 files matches"
    assert desk.call("search_files", pattern="TWO", path="a.py") == "a.py:2: def Two(): pass"
    with pytest.raises(ToolFailed, match="the pattern cannot be used"):
        desk.call("search_files", pattern="(")
    with pytest.raises(NotFound):
        desk.call("search_files", pattern="x", path="nowhere")


def test_a_pattern_that_never_ends_is_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abstractgateway.tools.process.TEXT_LIMITS", Limits(timeout_s=0.5))
    desk.put("a.txt", "a" * 50 + "!")

    with pytest.raises(ToolFailed, match=r"took longer than 0.5 s and was killed"):
        desk.call("search_files", pattern="(a+)+$")


def test_code_is_shown_as_an_outline(desk: Desk) -> None:
    desk.put("a.py", "import os\n\nclass A(B):\n    async def f(self, x: int = 1) -> int:\n        return x\n\nN = 1\n")
    desk.put("a.js", "function f() {\n  return 1\n}\n")
    desk.put("bad.py", "def (")
    desk.put("deep.py", "(" * 5000)

    assert desk.call("analyze_code", file_path="a.py").splitlines() == [
        "a.py:",
        "1: import os",
        "3-5: class A(B)",
        "4-5:   async def f(self, x: int=1)",
        "7: N = …",
    ]
    assert desk.call("analyze_code", file_path="a.js") == "a.js:\n1: function f() {"
    for name in ("bad.py", "deep.py"):
        with pytest.raises(ToolFailed, match="it cannot be parsed"):
            desk.call("analyze_code", file_path=name)


def test_a_file_is_written_as_a_whole(desk: Desk) -> None:
    assert desk.call("write_file", file_path="new/a.txt", content="grüezi") == "wrote 7 bytes to new/a.txt"
    assert (desk.top / "new/a.txt").read_text(encoding="utf-8") == "grüezi"
    assert [item.name for item in (desk.top / "new").iterdir()] == ["a.txt"]


def test_a_file_that_is_written_again_keeps_its_mode(desk: Desk) -> None:
    script = desk.put("run.sh", "#!/bin/sh\n")
    script.chmod(0o750)

    desk.call("edit_file", file_path="run.sh", old_text="sh\n", new_text="sh\nls\n")

    assert script.stat().st_mode & 0o777 == 0o750
    assert script.read_text() == "#!/bin/sh\nls\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"old_text": "two", "new_text": "2"}, "one\n2\none\n"),
        ({"old_text": "one", "new_text": "1", "replace_all": True}, "1\ntwo\n1\n"),
        ({"start_line": 2, "new_text": "x\ny"}, "one\nx\ny\none\n"),
        ({"start_line": 1, "end_line": 2, "new_text": ""}, "one\n"),
        ({"start_line": 3, "end_line": 3, "new_text": "end"}, "one\ntwo\nend"),
    ],
    ids=str,
)
def test_a_file_is_edited(desk: Desk, arguments: dict[str, Any], text: str) -> None:
    file = desk.put("a.txt", "one\ntwo\none\n")

    desk.call("edit_file", file_path="a.txt", **arguments)

    assert file.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"old_text": "one", "new_text": "x"}, "occurs 2 times"),
        ({"old_text": "six", "new_text": "x"}, "does not occur"),
        ({"old_text": "", "new_text": "x"}, "is empty"),
        ({"old_text": "two", "new_text": "two"}, "would leave 'a.txt' as it is"),
        ({"new_text": "x"}, "give either old_text"),
        ({"old_text": "two", "start_line": 1, "new_text": "x"}, "give either old_text"),
        ({"start_line": 2, "end_line": 9, "new_text": "x"}, "is not between"),
        ({"start_line": 2, "end_line": 1, "new_text": "x"}, "is not between"),
    ],
    ids=str,
)
def test_an_edit_that_is_not_clear_changes_nothing(desk: Desk, arguments: dict[str, Any], error: str) -> None:
    file = desk.put("a.txt", "one\ntwo\none\n")

    with pytest.raises(Invalid, match=error):
        desk.call("edit_file", file_path="a.txt", **arguments)
    assert file.read_text() == "one\ntwo\none\n"


HOSTILE = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "//etc/passwd",
    "~/x",
    "~root/x",
    "\\..\\x",
    "@../x",
    "\0",
    "a/\0",
    "",
    " ",
]
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("read_file", "file_path", {}),
    ("write_file", "file_path", {"content": "x"}),
    ("edit_file", "file_path", {"old_text": "root", "new_text": "x"}),
    ("analyze_code", "file_path", {}),
    ("list_files", "directory_path", {}),
    ("search_files", "path", {"pattern": "root"}),
    ("execute_command", "working_directory", {"command": "ls"}),
]


@pytest.mark.parametrize("path", HOSTILE, ids=repr)
@pytest.mark.parametrize(("tool", "name", "more"), CALLS, ids=[call[0] for call in CALLS])
def test_a_path_out_of_the_workspace_is_refused(
    desk: Desk, tool: str, name: str, more: dict[str, Any], path: str
) -> None:
    desk.put("../x", "root")
    if tool == "execute_command" and not path.strip():
        pytest.skip("no directory is the workspace")

    with pytest.raises((Denied, Invalid)):
        desk.call(tool, **{name: path}, **more)
    assert (desk.top / "../x").read_text() == "root"


@pytest.mark.parametrize("path", ["link/secret", "file", "deep/inner/secret", "loop"])
@pytest.mark.parametrize(("tool", "name", "more"), CALLS, ids=[call[0] for call in CALLS])
def test_a_link_is_not_followed(
    desk: Desk, tmp_path: Path, tool: str, name: str, more: dict[str, Any], path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("root")
    (desk.top / "link").symlink_to(outside)
    (desk.top / "file").symlink_to(outside / "secret")
    (desk.top / "loop").symlink_to("loop")
    (desk.top / "deep").mkdir()
    (desk.top / "deep/inner").symlink_to(outside)

    with pytest.raises(Denied, match="leads through a link"):
        desk.call(tool, **{name: path}, **more)
    assert (outside / "secret").read_text() == "root"


def test_links_are_in_no_list_and_in_no_search(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root")
    (desk.top / "file").symlink_to(tmp_path / "secret")
    (desk.top / "all").symlink_to(tmp_path)
    desk.put("own.txt", "root")

    assert desk.call("list_files", recursive=True) == "own.txt  (4 bytes)"
    assert desk.call("search_files", pattern="root") == "own.txt:1: root"


def test_a_directory_that_is_swapped_for_a_link_leads_nowhere(desk: Desk, tmp_path: Path) -> None:
    """Whoever wins the race, the file outside is neither read nor written."""
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "a.txt").write_text("secret")
    desk.put("dir/a.txt", "own")
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            os.rename(desk.top / "dir", desk.top / "kept")
            os.symlink(secret, desk.top / "dir")
            os.unlink(desk.top / "dir")
            while (desk.top / "kept").exists():
                shutil.rmtree(desk.top / "dir", ignore_errors=True)  # the tool makes one where it finds none
                with contextlib.suppress(OSError):
                    os.rename(desk.top / "kept", desk.top / "dir")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    for number in range(300):
        try:
            seen.add(desk.call("read_file", file_path="dir/a.txt"))
            desk.call("write_file", file_path="dir/b.txt", content=str(number))
        except (Denied, NotFound):
            continue
    is_over.set()
    swapper.join()

    assert all("secret" not in shown for shown in seen)
    assert [item.name for item in secret.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("tool", "name", "more"), CALLS[:4], ids=[call[0] for call in CALLS[:4]])
def test_what_is_no_file_is_not_waited_for(desk: Desk, tool: str, name: str, more: dict[str, Any]) -> None:
    os.mkfifo(desk.top / "pipe")

    with pytest.raises(Invalid, match="is not a file"):
        desk.call(tool, **{name: "pipe"}, **more)
    assert desk.call("list_files") == "nothing there"


def test_a_file_without_end_is_not_read(desk: Desk) -> None:
    with open(desk.top / "huge", "wb") as file:
        file.truncate(10_000_000_000)

    with pytest.raises(Invalid, match="larger than 8000000 bytes"):
        desk.call("edit_file", file_path="huge", old_text="a", new_text="b")
    with pytest.raises(GatewayError):
        desk.call("read_file", file_path="huge")
    assert desk.call("search_files", pattern="x") == "no line of 0 files matches"


def test_a_walk_comes_to_an_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_files, "MOST_ENTRIES", 50)
    desk.put("/".join(["d"] * 40) + "/x")
    for number in range(60):
        desk.put(f"many/{number}")

    assert len(desk.call("list_files", recursive=True).splitlines()) <= 50


def test_a_name_that_is_no_text_is_spelt_out(desk: Desk) -> None:
    with open(os.fsencode(desk.top) + b"/a\xff.txt", "w") as file:
        file.write("find me")

    assert desk.call("list_files") == "a\\udcff.txt  (7 bytes)"
    assert desk.call("search_files", pattern="find") == "a\\udcff.txt:1: find me"


def test_ignored_files_are_not_there(desk: Desk) -> None:
    desk.put(".abstractignore", "# what runs do not see\nsecret/\n*.key\n!public.key\n/top.txt\n")
    for path in ("secret/a.txt", "a/b.key", "public.key", "top.txt", "a/top.txt", "a/secret"):
        desk.put(path, "find me")

    assert desk.call("search_files", pattern="find").splitlines() == [
        "a/secret:1: find me",
        "a/top.txt:1: find me",
        "public.key:1: find me",
    ]
    for path in ("secret/a.txt", "a/b.key", "top.txt"):
        with pytest.raises(Denied, match="ignored by .abstractignore"):
            desk.call("read_file", file_path=path)
        with pytest.raises(Denied, match="ignored by .abstractignore"):
            desk.call("write_file", file_path=path, content="")
    with pytest.raises(Denied, match="ignored by .abstractignore"):
        desk.call("list_files", directory_path="secret")
    with pytest.raises(Denied, match="ignored by .abstractignore"):
        desk.call("execute_command", command="ls", working_directory="secret")


def test_a_run_cannot_change_what_it_is_not_to_see(desk: Desk) -> None:
    rules = desk.put(".abstractignore", "secret\n")

    for arguments in ({"content": ""}, {"old_text": "secret", "new_text": "x"}):
        with pytest.raises(Denied, match="they may not change it"):
            desk.call("write_file" if "content" in arguments else "edit_file", file_path=rules.name, **arguments)
    assert rules.read_text() == "secret\n"


def test_ignored_paths_of_the_run_are_not_there(desk: Desk) -> None:
    desk.put("a/one", "find")
    desk.put("b/two", "find")
    desk.run.vars["workspace_ignored_paths"] = "b"

    assert desk.call("list_files", recursive=True) == "a/\na/one  (4 bytes)"
    with pytest.raises(Denied):
        desk.call("list_files", directory_path="b")


def test_a_child_run_has_the_workspace_of_its_parent(desk: Desk) -> None:
    from abstractgateway.runtime import Runtime
    from tests.runtime.workflows import end, spec

    desk.put("a.txt", "x")
    runtime = Runtime(stores=desk.stores)
    parent = runtime.start(workflow=spec("w", end=end()), vars={"workspace_root": "."})
    middle = runtime.start(workflow=spec("w", end=end()), parent_run_id=parent)
    desk.run.vars, desk.run.parent_run_id = {}, middle

    assert desk.call("list_files") == "a.txt  (1 bytes)"

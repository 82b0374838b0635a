from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Denied, GatewayError, Invalid
from abstractgateway.security.workspace import Place, Scope, WorkspacePolicy, place

STRICT = WorkspacePolicy(roots=("/srv/team", "/mnt/notes", "/data/workspaces"), base="/srv/team")
TRUSTING = WorkspacePolicy(roots=("/srv/team",), base="/srv/team", may_clients_choose=True)
OWN = "/data/workspaces/run-1"


def scope(policy: WorkspacePolicy = STRICT, **variables: Any) -> Scope:
    return policy.scope({f"workspace_{name}": value for name, value in variables.items()}, OWN)


@pytest.mark.parametrize(
    ("root", "kept"),
    [
        ("/srv/team/a", "/srv/team/a"),
        ("a/b", "/srv/team/a/b"),
        (".", "/srv/team"),
        ("/mnt/notes", "/mnt/notes"),
        ("/srv/team/../etc", None),
        ("../etc", None),
        ("/etc", None),
        ("/srv/teams", None),
        ("//etc", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_a_workspace_lies_in_a_directory_of_the_operator(root: Any, kept: str | None) -> None:
    assert STRICT.clamp({"workspace_root": root, "x": 1}) == ({"workspace_root": kept, "x": 1} if kept else {"x": 1})


def test_trusted_clients_choose_any_workspace() -> None:
    wished = {"workspaceRoot": "/etc", "workspace_access_mode": "all_except_ignored"}

    assert TRUSTING.clamp(wished) == {"workspace_root": "/etc", "workspace_access_mode": "all_except_ignored"}


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("workspace_only", "workspace_only"),
        ("workspace_or_allowed", "workspace_or_allowed"),
        ("all_except_ignored", "workspace_only"),
        ("everything", "workspace_only"),
        (1, "workspace_only"),
    ],
)
def test_a_mode_that_reaches_everything_is_not_granted(mode: Any, kept: str) -> None:
    assert STRICT.clamp({"workspace_access_mode": mode}) == {"workspace_access_mode": kept}


@pytest.mark.parametrize("allowed", [["/mnt/notes/x", "/etc"], "/mnt/notes/x\n/etc\n", '["/mnt/notes/x", "/etc", 3]'])
def test_allowed_paths_are_a_list_or_lines_and_lie_inside(allowed: Any) -> None:
    assert STRICT.clamp({"workspace_allowed_paths": allowed}) == {"workspace_allowed_paths": ["/mnt/notes/x"]}


@pytest.mark.parametrize("allowed", [["/etc"], "", "[", None, 5])
def test_allowed_paths_of_which_nothing_is_left_are_dropped(allowed: Any) -> None:
    assert STRICT.clamp({"workspace_allowed_paths": allowed}) == {}


def test_what_is_granted_twice_is_granted_the_same() -> None:
    wished = {
        "workspace_root": "a",
        "workspace_access_mode": "workspace_or_allowed",
        "workspace_allowed_paths": "/mnt/notes",
        "workspace_ignored_paths": ["secret", "b"],
    }

    once = STRICT.clamp(wished)

    assert STRICT.clamp(once) == once
    assert once["workspace_ignored_paths"] == "secret\nb"


@pytest.mark.parametrize("path", ["a/b.txt", "@a/b.txt", "./a//b.txt", r"a\b.txt", f"{OWN}/a/b.txt"])
def test_a_path_lies_in_the_workspace(path: str) -> None:
    found = place(scope(), path)

    assert found == Place("/data/workspaces", ("run-1", "a", "b.txt"), "a/b.txt")


@pytest.mark.parametrize(
    ("path", "error", "why"),
    [
        ("../x", Denied, "escapes"),
        ("a/../../x", Denied, "escapes"),
        (r"a\..\..\x", Denied, "escapes"),
        ("a/..", Denied, "escapes"),
        ("~/x", Denied, "escapes"),
        ("~root/x", Denied, "escapes"),
        ("/etc/passwd", Denied, "outside"),
        ("/mnt/notes/x", Denied, "outside"),
        ("/data/workspaces/run-11/x", Denied, "outside"),
        ("@/etc/passwd", Denied, "outside"),
        ("", Invalid, "is required"),
        (None, Invalid, "is required"),
        (".", Invalid, "directory"),
        (OWN, Invalid, "directory"),
        ("a\0b", Invalid, "null"),
    ],
)
def test_a_path_that_leads_out_is_refused(path: Any, error: type[GatewayError], why: str) -> None:
    with pytest.raises(error, match=why):
        place(scope(), path)


def test_a_flow_cannot_widen_its_own_reach() -> None:
    wide = scope(root="/", access_mode="all_except_ignored", allowed_paths=["/"])

    with pytest.raises(Denied, match="outside"):
        place(wide, "/etc/passwd")


def test_allowed_paths_count_in_their_mode_only() -> None:
    wider = scope(access_mode="workspace_or_allowed", allowed_paths=["/mnt/notes"])

    assert place(wider, "/mnt/notes/a").parts == ("a",)
    with pytest.raises(Denied):
        place(scope(allowed_paths=["/mnt/notes"]), "/mnt/notes/a")


@pytest.mark.parametrize("path", ["secret/key", "secret", f"{OWN}/secret/key", "./secret//key"])
def test_ignored_paths_are_out_of_reach(path: str) -> None:
    with pytest.raises(Denied, match="blocked"):
        place(scope(ignored_paths="secret\nother"), path)


def test_with_trust_and_its_mode_everything_but_the_ignored_is_reached() -> None:
    wide = scope(TRUSTING, access_mode="all_except_ignored", ignored_paths=["/etc/shadow"])

    assert place(wide, "/etc/hosts") == Place("/", ("etc", "hosts"), "etc/hosts")
    with pytest.raises(Denied, match="blocked"):
        place(wide, "/etc/shadow")


def test_no_link_is_followed_between_an_operators_directory_and_the_workspace() -> None:
    assert place(scope(root="/srv/team/team/a"), "x").root == "/srv/team"

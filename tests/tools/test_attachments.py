from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import NotFound
from abstractgateway.stores.base import ArtifactMetadata
from abstractgateway.tools.process import ToolFailed
from tests.tools.toolbox import Desk


def attach(desk: Desk, name: str, content: bytes, session: str = "s1", **options: Any) -> ArtifactMetadata:
    tags = {"kind": "attachment", "filename": name, "path": f"client:{name}", **options.pop("tags", {})}
    return desk.stores.artifacts.store(
        content, run_id=f"session_memory_{session}", tags=tags, **{"content_type": "text/plain", **options}
    )


def test_an_attachment_is_shown_by_name_or_id(desk: Desk) -> None:
    kept = attach(desk, "a.txt", b"one\ntwo\n")

    shown = "File: a.txt (2 lines)\n\n1: one\n2: two"
    assert desk.call("open_attachment", artifact_id=kept.artifact_id) == shown
    assert desk.call("open_attachment", filename="a.txt") == shown
    assert desk.call("open_attachment", filename="client:a.txt", start_line=2).endswith("2: two")
    assert desk.call("open_attachment") == f"a.txt  (artifact_id {kept.artifact_id}, text/plain, 8 bytes)"


def test_a_file_of_another_session_is_not_there(desk: Desk) -> None:
    other = attach(desk, "a.txt", b"secret", session="s2")
    memory = attach(desk, "note", b"secret", tags={"kind": "span"})

    for arguments in ({"filename": "a.txt"}, {"artifact_id": other.artifact_id}, {"artifact_id": memory.artifact_id}):
        with pytest.raises(NotFound):
            desk.call("open_attachment", **arguments)
    assert desk.call("open_attachment") == "no file is attached to this session"


def test_a_run_without_a_session_has_no_attachments(desk: Desk) -> None:
    attach(desk, "a.txt", b"x", session="")
    desk.run.session_id = None

    assert desk.call("open_attachment") == "no file is attached to this session"


def test_a_file_that_is_no_text_is_not_shown(desk: Desk) -> None:
    attach(desk, "a.png", b"x", content_type="image/png")

    with pytest.raises(ToolFailed, match=r"'a.png' is image/png, no text \(1 bytes\)"):
        desk.call("open_attachment", filename="a.png")

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path

import pytest

from abstractgateway import GatewayService
from abstractgateway.errors import Unavailable
from tests.service.conftest import Open

RUN = "session_memory_S1"
SIZE = 8_000_000


def bytes_of(gateway: GatewayService, artifact_id: str) -> bytes:
    return gateway.artifacts.content(RUN, artifact_id)[1]


def test_an_attachment_is_there_after_a_restart(open_gateway: Open, backend: str) -> None:
    if backend == "memory":
        pytest.skip("nothing survives the process")
    first = open_gateway()
    answer = first.attachments.upload(io.BytesIO(b"hello"), session_id="S1", filename="h.txt")
    first.close()

    again = open_gateway()

    assert bytes_of(again, answer["attachment"]["$artifact"]) == b"hello"
    assert again.runs.get(RUN)["session_id"] == "S1"
    assert again.attachments.upload(io.BytesIO(b"hello"), session_id="S1", filename="h.txt") == answer


def test_the_same_bytes_under_another_name_share_their_bytes(gateway: GatewayService) -> None:
    first = gateway.attachments.upload(io.BytesIO(b"hello"), session_id="S1", filename="a.txt")
    second = gateway.attachments.upload(io.BytesIO(b"hello"), session_id="S1", filename="b.txt")

    ids = [answer["attachment"]["$artifact"] for answer in (first, second)]
    assert len(set(ids)) == 2
    assert [bytes_of(gateway, found) for found in ids] == [b"hello", b"hello"]
    assert first["metadata"]["blob_id"] == second["metadata"]["blob_id"] == hashlib.sha256(b"hello").hexdigest()


def test_a_run_of_the_session_finds_the_attachment(gateway: GatewayService) -> None:
    gateway.attachments.upload(io.BytesIO(b"hello"), session_id="S1", filename="h.txt")

    listed = gateway.artifacts.list(RUN)["items"]

    assert [item["tags"]["filename"] for item in listed] == ["h.txt"]


def test_the_memory_of_a_session_and_its_attachments_have_one_owner(gateway: GatewayService) -> None:
    gateway.attachments.upload(io.BytesIO(b"hello"), session_id="S1")

    stored = gateway.stores.runs.open(RUN)

    assert stored is not None
    assert (stored.state.workflow_id, stored.state.vars["_runtime"]) == ("__session_memory__", {"memory_spans": []})


class Stream(io.RawIOBase):
    """A file of zeros that is nowhere in memory."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        part = bytes(min(size, self._left))
        self._left -= len(part)
        return part


def test_an_upload_is_in_memory_once(tmp_path: Path, open_gateway: Open, backend: str) -> None:
    if backend != "file":
        pytest.skip("the others keep the bytes themselves, or hand them to a server")
    gateway = open_gateway()
    gateway.attachments.upload(io.BytesIO(b"x"), session_id="S1")
    tracemalloc.start()
    try:
        gateway.attachments.upload(Stream(SIZE), session_id="S1")  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 1.2 * SIZE


def test_an_endless_upload_is_not_kept(open_gateway: Open, backend: str) -> None:
    gateway = open_gateway(max_attachment_bytes=1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match=r"Attachment too large \(8000000 bytes > 1000000 bytes\)"):
            gateway.attachments.upload(Stream(SIZE), session_id="S1")  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 3_000_000
    assert gateway.artifacts.list(RUN) == {"items": []}


def test_an_attachment_that_cannot_be_stored_is_refused(
    open_gateway: Open, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend != "file":
        pytest.skip("about the files of one backend")
    gateway = open_gateway()
    (tmp_path / "runtime" / "artifacts").mkdir(exist_ok=True)
    (tmp_path / "runtime" / "artifacts" / "blobs").write_text("in the way")

    with pytest.raises(Unavailable):
        gateway.attachments.upload(io.BytesIO(b"hello"), session_id="S1")

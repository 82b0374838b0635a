from __future__ import annotations

import errno
from pathlib import Path

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.service.readiness import Readiness
from abstractgateway.stores import open_memory_stores
from abstractgateway.stores.disk import Disk
from abstractgateway.testing import ManualClock


class FullDisk(Disk):
    is_full = True

    def write_at(self, fd: int, offset: int, data: bytes) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_at(fd, offset, data)


@pytest.mark.parametrize("backend", ["memory", "file", "sqlite"])
def test_a_gateway_that_can_work_is_alive_and_ready(go_live, connect_to, backend):
    live = go_live(store_backend=backend)

    answers = [
        connect_to(live.server).send("GET", path, "Authorization: none").answer() for path in ("/livez", "/readyz")
    ]

    assert [(answer.status, answer.json) for answer in answers] == [(200, {"status": "ok"}), (200, {"status": "ready"})]


def test_a_gateway_whose_directory_cannot_be_written_is_alive_but_not_ready(go_live, connect_to, tmp_path: Path):
    live = go_live(store_backend="file")
    live.service.readiness = Readiness(stores=live.service.stores, data_dir=tmp_path / "data", disk=FullDisk())

    alive = connect_to(live.server).send("GET", "/livez").answer()
    ready = connect_to(live.server).send("GET", "/readyz", "Authorization: none").answer()

    assert alive.status == 200
    assert (ready.status, ready.json["code"]) == (503, "not_ready")
    assert ready.json["detail"] == "not ready: the data directory cannot be written: No space left on device"
    assert ready.headers["retry-after"] == "1"


def test_readiness_comes_back_and_is_not_probed_more_than_once_a_second(tmp_path: Path):
    disk, clock = FullDisk(), ManualClock()
    readiness = Readiness(stores=open_memory_stores(), data_dir=tmp_path, clock=clock, disk=disk)
    with pytest.raises(Unavailable):
        readiness.check()
    disk.is_full = False

    with pytest.raises(Unavailable):
        readiness.check()
    clock.move(1.1)

    readiness.check()


def test_a_client_learns_whether_its_token_is_accepted(live):
    told = live.ask("GET", "/ping")
    refused = live.ask("GET", "/ping", "Authorization: Bearer another-token-of-some-length")

    assert (told.status, told.json["ok"], told.json["status"]) == (200, True, "healthy")
    assert refused.status == 401

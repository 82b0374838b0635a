from __future__ import annotations

import errno
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from abstractgateway.bundles.catalogue import Bundle
from abstractgateway.bundles.install import install_bundle, remove_bundles
from abstractgateway.errors import Conflict, Invalid, Unavailable
from abstractgateway.stores.disk import Disk


class FullDisk(Disk):
    def rename(self, source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def accept(bundle: Bundle) -> None:
    return None


def refuse(bundle: Bundle) -> None:
    raise Invalid("flow", f"{bundle.ref} is not wanted")


def files(directory: Path) -> list[str]:
    return sorted(item.name for item in directory.iterdir())


@pytest.fixture
def content(pack) -> bytes:
    return pack().read_bytes()


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    return tmp_path / "flows"


def test_a_missing_directory_is_made(content, flows):
    installed = install_bundle(io.BytesIO(content), flows, check=accept)

    assert installed.bundle.ref == "ask@0.0.1"
    assert files(flows) == ["ask@0.0.1.flow"]


def test_what_the_check_refuses_leaves_nothing_behind(content, flows):
    with pytest.raises(Invalid, match="is not wanted"):
        install_bundle(io.BytesIO(content), flows, check=refuse)

    assert files(flows) == []


def test_while_a_bundle_is_checked_no_reader_of_the_directory_sees_it(content, flows):
    seen: list[list[Path]] = []

    install_bundle(io.BytesIO(content), flows, check=lambda bundle: seen.append(list(flows.glob("*.flow"))))

    assert seen == [[]]


def test_a_full_disk_is_said_and_the_old_bundle_stays(pack, flows):
    first = pack().read_bytes()
    install_bundle(io.BytesIO(first), flows, check=accept)
    other = pack(created_at="2027-01-01T00:00:00+00:00").read_bytes()

    with pytest.raises(Unavailable, match="No space left"):
        install_bundle(io.BytesIO(other), flows, check=accept, overwrite=True, disk=FullDisk())

    assert files(flows) == ["ask@0.0.1.flow"]
    assert (flows / "ask@0.0.1.flow").read_bytes() == first


def test_of_several_at_once_one_is_installed(content, flows):
    flows.mkdir()

    def install(number: int) -> str:
        try:
            install_bundle(io.BytesIO(content), flows, check=accept)
        except Invalid as error:
            return error.code
        return "installed"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(install, range(8)))

    assert sorted(outcomes) == ["bundle_installed"] * 7 + ["installed"]
    assert files(flows) == ["ask@0.0.1.flow"]


def test_a_stream_over_the_limit_is_counted_to_its_end_but_not_kept(flows):
    with pytest.raises(Invalid, match=r"3000000 bytes > 10 bytes") as refusal:
        install_bundle(io.BytesIO(b"x" * 3_000_000), flows, check=accept, max_bytes=10)

    assert refusal.value.code == "bundle_too_large"
    assert files(flows) == []


@pytest.mark.parametrize("name", ["one.flow", "unpacked"])
def test_a_path_that_is_one_bundle_is_not_changed(pack, tmp_path, name):
    path = tmp_path / name
    if name == "unpacked":
        path.mkdir()
        (path / "manifest.json").write_text("{}")
    else:
        pack(name)

    with pytest.raises(Conflict):
        install_bundle(io.BytesIO(b""), path, check=accept)
    with pytest.raises(Conflict):
        remove_bundles(path, "ask", None)


def test_a_bundle_that_is_a_directory_is_removed_and_others_stay(content, flows):
    install_bundle(io.BytesIO(content), flows, check=accept)
    (flows / "mail@2.flow" / "flows").mkdir(parents=True)

    removed = remove_bundles(flows, "mail", "2")

    assert removed == 1
    assert files(flows) == ["ask@0.0.1.flow"]
    assert remove_bundles(flows, "mail", "2") == 0

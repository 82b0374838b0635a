"""What holds of bundles wherever they are kept: in a directory, or on the shelf of a database beside one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from abstractgateway.bundles.archive import ArchiveLimits
from abstractgateway.bundles.catalogue import Bundle, LoadError
from abstractgateway.bundles.shared import DRAWER, SharedBundles
from abstractgateway.bundles.source import BundleDirectory, BundleSource
from abstractgateway.errors import Conflict, Invalid
from abstractgateway.hosts import BundleHost
from tests.postgres.server import open_test_database

Make = Callable[[], BundleSource]


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    (tmp_path / "flows").mkdir()
    return tmp_path / "flows"


@pytest.fixture
def share(flows: Path, tmp_path: Path) -> Iterator[Callable[..., SharedBundles]]:
    """Opens what one process of a fleet has; each may have a directory of its own."""
    with ExitStack() as closing:

        def make(directory: Path = flows) -> SharedBundles:
            stores = open_test_database(tmp_path)
            closing.callback(stores.close)
            return SharedBundles(stores.shelf, directory)

        yield make


@pytest.fixture(params=["directory", "shared"])
def make(request: pytest.FixtureRequest, flows: Path) -> Make:
    """Opens what a further process has."""
    if request.param == "directory":
        return lambda: BundleDirectory(flows)
    share: Make = request.getfixturevalue("share")
    return share


def accept(bundle: Bundle) -> None:
    return None


def install(
    source: BundleSource,
    content: bytes,
    *,
    check: Callable[[Bundle], object] = accept,
    overwrite: bool = False,
    max_bytes: int = ArchiveLimits.file_bytes,
) -> str:
    done = source.install(io.BytesIO(content), check=check, overwrite=overwrite, max_bytes=max_bytes)
    return done.bundle.ref


def found(source: BundleSource) -> list[str]:
    loaded = [source.load(place) for place in source.stamps()]
    return [item.ref if isinstance(item, Bundle) else item.error for item in loaded]


def test_an_installed_bundle_is_there_for_every_process(make: Make, pack) -> None:
    one, two = make(), make()

    ref = install(one, pack().read_bytes())

    assert (ref, found(one), found(two)) == ("ask@0.0.1", ["ask@0.0.1"], ["ask@0.0.1"])


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"no zip", "not a zip file"), (b"x" * 2_000_000, r"2000000 bytes > 1000000 bytes")],
)
def test_what_is_no_bundle_is_refused_and_changes_nothing(make: Make, content: bytes, said: str) -> None:
    source = make()

    with pytest.raises(Invalid, match=said):
        install(source, content, max_bytes=1_000_000)

    assert found(source) == []


def test_what_the_check_refuses_changes_nothing(make: Make, pack) -> None:
    source = make()

    def refuse(bundle: Bundle) -> None:
        raise Invalid("flow", f"{bundle.ref} is not wanted")

    with pytest.raises(Invalid, match="is not wanted"):
        install(source, pack().read_bytes(), check=refuse)

    assert found(source) == []


def test_a_name_that_could_not_be_a_file_is_refused(make: Make, pack) -> None:
    with pytest.raises(Invalid, match="cannot name a bundle"):
        install(make(), pack(bundle_id="../x").read_bytes())


def test_a_version_that_is_there_is_replaced_only_when_that_is_wanted(make: Make, pack) -> None:
    source = make()
    install(source, pack().read_bytes())
    before = dict(source.stamps())
    newer = pack(created_at="2027-01-01T00:00:00+00:00").read_bytes()

    with pytest.raises(Invalid, match="already installed: ask@0.0.1.flow") as refused:
        install(source, newer)
    unchanged = dict(source.stamps())
    install(source, newer, overwrite=True)

    assert refused.value.code == "bundle_installed"
    assert unchanged == before
    assert dict(source.stamps()) != before
    (place,) = source.stamps()
    assert source.load(place).manifest.created_at == "2027-01-01T00:00:00+00:00"


def test_of_several_uploads_at_once_one_is_installed(make: Make, pack) -> None:
    content, sources = pack().read_bytes(), [make(), make()]

    def try_to(number: int) -> str:
        try:
            return install(sources[number % 2], content)
        except Invalid as error:
            return error.code

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(try_to, range(6)))

    assert sorted(outcomes) == ["ask@0.0.1"] + ["bundle_installed"] * 5
    assert found(sources[0]) == ["ask@0.0.1"]


def test_a_version_is_removed_and_others_stay(make: Make, pack) -> None:
    one, two = make(), make()
    for bundle_id, version in (("ask", "0.0.1"), ("ask", "0.0.2"), ("ask-more", "0.0.1")):
        install(one, pack(bundle_id=bundle_id, bundle_version=version).read_bytes())

    assert two.remove("ask", "0.0.1") == 1
    assert two.remove("ask", "0.0.1") == 0
    assert found(one) == ["ask-more@0.0.1", "ask@0.0.2"]


def test_all_versions_are_removed_and_may_be_installed_again(make: Make, pack) -> None:
    source = make()
    for version in ("0.0.1", "0.0.2"):
        install(source, pack(bundle_version=version).read_bytes())

    assert source.remove("ask", None) == 2
    assert found(source) == []
    install(source, pack().read_bytes())
    assert found(source) == ["ask@0.0.1"]


def test_a_bundle_beside_the_database_is_served_and_cannot_be_uploaded_again(share, pack, flows: Path) -> None:
    source = share()
    content = pack("x.flow").read_bytes()
    (flows / "x.flow").write_bytes(content)

    with pytest.raises(Invalid, match="already installed: x.flow"):
        install(source, content)

    assert found(source) == ["ask@0.0.1"]


def test_a_bundle_beside_the_database_is_not_removed_through_a_gateway(share, pack, flows: Path) -> None:
    source = share()
    (flows / "x.flow").write_bytes(pack("x.flow").read_bytes())
    install(source, pack(bundle_version="0.0.2").read_bytes())

    for version in ("0.0.1", None):
        with pytest.raises(Conflict, match="x.flow") as refused:
            source.remove("ask", version)

    assert refused.value.code == "bundle_deployed"
    assert len(found(source)) == 2
    assert source.remove("ask", "0.0.2") == 1


def test_where_a_directory_has_another_bundle_of_that_version_the_database_counts(share, pack, flows: Path) -> None:
    source = share()
    (flows / "ask@0.0.1.flow").write_bytes(pack(created_at="2020-01-01T00:00:00+00:00").read_bytes())
    uploaded = pack().read_bytes()
    install(source, uploaded, overwrite=True)

    listed = BundleHost(source).list_bundles()
    (flows / "ask@0.0.1.flow").write_bytes(uploaded)
    same = BundleHost(source).list_bundles()

    assert [item["created_at"] for item in listed["items"]] == ["2026-01-08T00:00:00+00:00"]
    assert listed["load_errors"] == [
        {
            "file": "ask@0.0.1.flow",
            "bundle_ref": "ask@0.0.1",
            "error": "'ask@0.0.1' is already in 'ask@0.0.1.flow' in the database",
        }
    ]
    assert (len(same["items"]), same["load_errors"]) == (1, [])


def test_a_bundle_that_cannot_be_read_from_the_database_hides_no_other(share, pack) -> None:
    source = share()
    install(source, pack().read_bytes())
    source._shelf.put(DRAWER, "bad@1.flow", b"no zip")

    listed = BundleHost(source).list_bundles()

    assert [item["bundle_ref"] for item in listed["items"]] == ["ask@0.0.1"]
    assert [error["file"] for error in listed["load_errors"]] == ["bad@1.flow"]
    assert source.remove("bad", "1") == 1


def test_a_bundle_that_goes_while_it_is_read_is_said_to_be_gone(share, pack) -> None:
    source = share()
    install(source, pack().read_bytes())
    (place,) = source.stamps()
    source.remove("ask", None)

    gone = source.load(place)

    assert isinstance(gone, LoadError) and "removed" in gone.error

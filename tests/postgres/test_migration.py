"""Moving to a database and away from it: who keeps whom away, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.cli import doctor
from abstractgateway.compose import open_stores
from abstractgateway.errors import Conflict, Unavailable
from abstractgateway.stores import migrate as migration
from abstractgateway.stores import open_file_stores
from abstractgateway_postgres import open_postgres_stores
from abstractgateway_postgres.address import Address
from abstractgateway_postgres.alone import GATEWAYS, DatabaseLock
from abstractgateway_postgres.database import Database
from tests.commands import Said, said_by
from tests.postgres.server import SECRETIVE, Server, shared, url_of
from tests.small_disk import small_disk
from tests.stores.shapes import a_run, save

Ag = Callable[..., Said]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of the file backend with two runs and an artifact."""
    with closing(open_file_stores(tmp_path / "data")) as stores:
        for name in ("r1", "r2"):
            save(stores, a_run(name), count=3)
        stores.artifacts.store(b"content", run_id="r1", tags={"kind": "x"})
    return tmp_path / "data"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of the gateway that nobody uses, which the environment names."""
    monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", url_of(tmp_path))
    return url_of(tmp_path)


@pytest.fixture
def ag(data: Path, url: str, capsys: pytest.CaptureFixture[str]) -> Ag:
    """Runs `migrate` on the data directory and the database."""

    def run(source: str, target: str, *arguments: str) -> Said:
        return said_by(capsys, "migrate", "--data-dir", str(data), "--from", source, "--to", target, *arguments)

    return run


def runs_in(url: str) -> int:
    ((count,),) = shared().execute("SELECT COUNT(*) FROM abstractgateway.runs", url.rpartition("/")[2])
    return int(count)


def interrupt(ag: Ag, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a migration into the database half done."""

    def refuse(*arguments: object) -> None:
        raise Unavailable("the network is down")

    with monkeypatch.context() as patched:
        patched.setattr(migration, "_copy_commands", refuse)
        said = ag("file", "postgres")
    assert said.code == 1 and "run the command again to go on" in said.err


def test_a_database_that_gateways_use_is_neither_source_nor_target(ag: Ag, data: Path, url: str) -> None:
    with closing(open_postgres_stores(url)):
        into, from_ = ag("file", "postgres"), ag("postgres", "sqlite")

    for said in (into, from_):
        assert said.code == 1
        assert "in use by 1 gateway process: stop every" in said.err
    assert runs_in(url) == 0
    assert not (data / "gateway.sqlite3").exists()
    assert ag("file", "postgres").code == 0


def test_a_runner_that_only_its_lease_tells_of_is_respected(ag: Ag, url: str) -> None:
    lease = "INSERT INTO abstractgateway.runners (epoch, pid, host, lease_until) VALUES (7, 4711, 'far-away', now() + "
    shared().execute(f"{lease} interval '1 hour')", url.rpartition("/")[2])

    said = ag("file", "postgres")

    assert said.code == 1
    assert "a runner (process 4711 on far-away)" in said.err
    assert runs_in(url) == 0


def test_a_runner_whose_lease_is_over_is_in_nobody_s_way(ag: Ag, url: str) -> None:
    lease = "INSERT INTO abstractgateway.runners (epoch, pid, host, lease_until) VALUES (7, 4711, 'far-away', now() - "
    shared().execute(f"{lease} interval '1 second')", url.rpartition("/")[2])

    assert ag("file", "postgres").code == 0


def test_a_gateway_does_not_start_on_a_database_while_it_is_migrated(ag: Ag, url: str) -> None:
    with closing(Database(Address(url))) as database:
        lock = DatabaseLock(database, GATEWAYS)
        assert lock.try_acquire()
        with pytest.raises(Conflict, match="for itself") as refused:
            open_postgres_stores(url)
        second = ag("file", "postgres")
        lock.release()

    assert refused.value.code == "migration_active"
    assert (second.code, "in use by another migration" in second.err) == (1, True)
    open_postgres_stores(url).close()


def test_a_database_that_was_left_unfinished_is_not_opened_and_doctor_says_so(
    ag: Ag, data: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(ag, monkeypatch)
    config = GatewayConfig(data_dir=data, store_backend="postgres", database_url=url)

    with pytest.raises(Conflict, match="was interrupted") as refused:
        open_stores(config)
    found = [finding for finding in doctor.examine(config, "127.0.0.1") if finding.level == "problem"]

    assert refused.value.code == "migration_unfinished"
    assert [finding.about for finding in found if "--overwrite to begin anew" in finding.text] == ["store"]
    assert ag("file", "postgres").code == 0
    open_stores(config).close()


def test_what_a_database_has_is_removed_only_when_that_is_asked_for(ag: Ag, url: str) -> None:
    with closing(open_postgres_stores(url)) as stores:
        save(stores, a_run("another"), count=1)
        stores.artifacts.store(b"another", run_id="another")
        stores.shelf.put("drawer", "name", b"on the shelf")

    refused = ag("file", "postgres")
    overwritten = ag("file", "postgres", "--overwrite")

    assert (refused.code, "has data already, in the database" in refused.err) == (1, True)
    assert overwritten.code == 0
    with closing(open_postgres_stores(url)) as stores:
        assert stores.runs.row("another") is None
        assert [item.run_id for item in stores.artifacts.list_all(None)] == ["r1"]
        assert stores.ledger.count("r1") == 3
        assert stores.shelf.list("drawer") == []


def test_a_server_that_goes_down_meanwhile_costs_the_time_only(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()
    copy_commands = migration._copy_commands

    def lose_server(*arguments: Any) -> None:
        server.kill()
        copy_commands(*arguments)

    command = ("migrate", "--data-dir", str(data), "--from", "file", "--to", "postgres", "--database-url", server.url())
    try:
        with monkeypatch.context() as patched:
            patched.setattr(migration, "_copy_commands", lose_server)
            lost = said_by(capsys, *command)
        server.start()
        with pytest.raises(Conflict, match="was interrupted"):
            open_postgres_stores(server.url())
        again = said_by(capsys, *command)
        with closing(open_postgres_stores(server.url())) as stores:
            assert (stores.ledger.count("r1"), stores.runs.row("r2").revision) == (3, 1)
    finally:
        server.stop()

    assert (lost.code, "no connection to the database" in lost.err) == (1, True)
    assert "run the command again to go on" in lost.err
    assert (again.code, "0 records" in again.out) == (0, True)


@pytest.mark.parametrize("what", ["records", "artifacts"])
@pytest.mark.parametrize("target", ["file", "sqlite"])
def test_a_full_disk_is_told_and_once_there_is_room_the_migration_goes_on(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, what: str
) -> None:
    with closing(open_postgres_stores(url)) as stores:
        for number in range(20):
            save(stores, a_run(f"r{number}"), count=5, text="x" * (60_000 if what == "records" else 1))
        if what == "artifacts":
            stores.artifacts.store(bytes(range(256)) * 20_000, run_id="r1")
    with small_disk(tmp_path / "small", 4 << 20) as resize:
        data = tmp_path / "small" / "data"
        command = ("migrate", "--data-dir", str(data), "--from", "postgres", "--to", target)
        full = said_by(capsys, *command)
        with pytest.raises(Conflict, match="was interrupted"):
            open_stores(GatewayConfig(data_dir=data, store_backend=target))
        resize(64 << 20)
        again = said_by(capsys, *command)
        with closing(open_stores(GatewayConfig(data_dir=data, store_backend=target))) as moved:
            ledgers = [moved.ledger.count(f"r{number}") for number in range(20)]
            artifacts = len(moved.artifacts.list_all(None))

    assert (full.code, full.out) == (1, "")
    assert "full" in full.err or "No space left" in full.err
    assert "run the command again to go on" in full.err
    assert (again.code, ledgers, artifacts) == (0, [5] * 20, 1 if what == "artifacts" else 0)


def test_artifacts_may_be_files_that_all_processes_share(ag: Ag, data: Path, url: str, tmp_path: Path) -> None:
    shared_dir = tmp_path / "shared"

    said = ag("file", "postgres", "--artifacts-dir", str(shared_dir))

    assert (said.code, "1 artifacts" in said.out) == (0, True)
    with closing(open_file_stores(data)) as source:
        with closing(open_postgres_stores(url, artifacts_dir=shared_dir)) as stores:
            assert stores.artifacts.list_all(None) == source.artifacts.list_all(None)
        with closing(open_postgres_stores(url)) as stores:
            assert stores.artifacts.list_all(None) == []


def test_artifacts_that_stay_in_the_data_directory_are_not_copied(ag: Ag, data: Path, url: str) -> None:
    said = ag("file", "postgres", "--artifacts-dir", str(data))

    assert (said.code, "0 artifacts" in said.out) == (0, True)
    with closing(open_postgres_stores(url, artifacts_dir=data)) as stores:
        assert len(stores.artifacts.list_all(None)) == 1


def test_a_data_directory_is_made_for_what_comes_from_a_database(
    ag: Ag, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ag("file", "postgres")

    said = said_by(capsys, "migrate", "--data-dir", str(tmp_path / "new"), "--from", "postgres", "--to", "sqlite")

    assert said.code == 0, said.err
    config = GatewayConfig(data_dir=tmp_path / "new", store_backend="sqlite")
    with closing(open_stores(config)) as stores:
        assert stores.ledger.count("r2") == 3
        assert len(stores.artifacts.list_all(None)) == 1


def test_an_empty_database_is_no_source_and_gets_no_tables(ag: Ag, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = shared()
    server.execute("CREATE DATABASE migrated_from")
    monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", server.url("migrated_from"))
    try:
        said = ag("postgres", "sqlite")
        ((has_tables,),) = server.execute("SELECT to_regnamespace('abstractgateway') IS NOT NULL", "migrated_from")
    finally:
        server.execute("DROP DATABASE migrated_from WITH (FORCE)")

    assert (said.code, "has nothing of the postgres backend" in said.err) == (1, True)
    assert not has_tables


def test_a_database_of_a_newer_gateway_is_refused(ag: Ag, url: str) -> None:
    name = url.rpartition("/")[2]
    shared().execute("INSERT INTO abstractgateway.schema_version (version, name) VALUES (99, 'later')", name)
    try:
        said = [ag("file", "postgres", "--overwrite"), ag("postgres", "sqlite")]
    finally:
        shared().execute("DELETE FROM abstractgateway.schema_version WHERE version = 99", name)

    assert [each.code for each in said] == [1, 1]
    assert all("use a newer version" in each.err for each in said)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("postgresql://me:s3cr3t@127.0.0.1:1/db", "no connection to the database me@127.0.0.1:1/db"),
        ("mysql://me:s3cr3t@127.0.0.1/db", "is no URL of a PostgreSQL database"),
        ("postgresql://me:s3cr3t@127.0.0.1:port/db", "cannot be read"),
        ("", "is not set"),
        (None, "password authentication failed"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_its_password(
    ag: Ag, data: Path, address: str | None, text: str
) -> None:
    if address is None:
        address = shared().url(user=SECRETIVE).replace("@", ":s3cr3t@")

    for way in (("file", "postgres"), ("postgres", "file")):
        said = ag(*way, "--overwrite", "--database-url", address)

        assert (said.code, text in said.err) == (1, True), said.err
        assert "s3cr3t" not in said.out + said.err
    assert (data / "runs.index").exists()


def test_without_the_package_it_is_said_what_to_install(ag: Ag, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr("abstractgateway.compose.stores.pkgutil.resolve_name", missing)

    said = ag("file", "postgres")

    assert (said.code, "pip install 'abstractgateway[postgres]'" in said.err) == (1, True)


def test_one_database_to_another_is_the_business_of_pg_dump(ag: Ag) -> None:
    assert "pg_dump" in ag("postgres", "postgres").err

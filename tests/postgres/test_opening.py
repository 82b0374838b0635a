"""Opening a database: what is refused and how it is said, migrations, and several gateways that start at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.compose import open_stores
from abstractgateway.errors import Conflict, GatewayError, Invalid, Unavailable
from abstractgateway_postgres import checks, open_postgres_stores
from abstractgateway_postgres.migrations import known_migrations
from tests.postgres.pooler import TransactionPooler
from tests.postgres.server import SECRETIVE, shared, url_of
from tests.stores.shapes import Told, a_run, save


@pytest.fixture
def empty() -> Iterator[str]:
    """A database without any tables."""
    server = shared()
    server.execute("CREATE DATABASE blank")
    yield server.url("blank")
    server.execute("DROP DATABASE blank WITH (FORCE)")


def refusal(url: str) -> Unavailable:
    with pytest.raises(Unavailable) as refused:
        open_postgres_stores(url)
    return refused.value


def test_gateways_that_start_at_once_on_an_empty_database_make_its_tables_once(empty: str) -> None:
    errors: list[Exception] = []

    def start() -> None:
        try:
            open_postgres_stores(empty).close()
        except GatewayError as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    applied = shared().execute("SELECT version FROM abstractgateway.schema_version ORDER BY version", "blank")
    assert applied == [(number,) for number, _, _ in known_migrations()]


def test_a_database_of_a_newer_gateway_is_refused_and_left_alone(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    name = url.rpartition("/")[2]
    shared().execute("INSERT INTO abstractgateway.schema_version (version, name) VALUES (99, 'later')", name)
    try:
        with pytest.raises(Conflict, match="newer version") as refused:
            open_postgres_stores(url)
    finally:
        shared().execute("DELETE FROM abstractgateway.schema_version WHERE version = 99", name)

    assert refused.value.code == "schema_too_new"


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    refused = refusal("postgresql://me:s3cr3t@127.0.0.1:1/db")

    assert refused.code == "database_unreachable"
    assert "me@127.0.0.1:1/db" in str(refused)
    assert "s3cr3t" not in str(refused)


def test_a_wrong_password_is_told_and_not_shown() -> None:
    url = shared().url(user=SECRETIVE).replace("@", ":s3cr3t@")

    refused = refusal(url)

    assert "password authentication failed" in str(refused)
    assert "s3cr3t" not in str(refused)


@pytest.mark.parametrize("url", ["postgresql://me:s3cr3t@host:port/db", "s3cr3t nonsense", "postgresql://%zz:s3cr3t@h"])
def test_an_address_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        open_postgres_stores(url)

    assert "ABSTRACTGATEWAY_DATABASE_URL" in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


def test_a_database_with_another_encoding_is_refused() -> None:
    shared().execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        refused = refusal(shared().url("latin"))
    finally:
        shared().execute("DROP DATABASE latin WITH (FORCE)")

    assert "encoding is LATIN1" in str(refused)


def test_an_old_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = url_of(tmp_path)
    monkeypatch.setattr(checks, "OLDEST_SERVER", 990_000)

    assert "newer is needed" in str(refusal(url))


def test_a_server_that_takes_no_writes_is_refused(empty: str) -> None:
    shared().execute("ALTER DATABASE blank SET default_transaction_read_only = on")

    assert "takes no writes" in str(refusal(empty))


def test_missing_rights_are_told(empty: str) -> None:
    shared().execute("DROP ROLE IF EXISTS poor")
    shared().execute("CREATE ROLE poor LOGIN")

    refused = refusal(shared().url("blank", user="poor"))

    assert "grant it CREATE" in str(refused)


def test_a_user_without_rights_of_its_own_needs_only_the_schema(empty: str) -> None:
    shared().execute("DROP ROLE IF EXISTS modest")
    shared().execute("CREATE ROLE modest LOGIN")
    shared().execute("CREATE SCHEMA abstractgateway AUTHORIZATION modest", "blank")

    with closing(open_postgres_stores(shared().url("blank", user="modest"))) as stores:
        assert save(stores, a_run()).revision == 1
    shared().execute("DROP OWNED BY modest", "blank")


def test_a_pooler_that_mixes_sessions_is_refused(tmp_path: Path) -> None:
    server = shared()
    database = url_of(tmp_path).rpartition("/")[2]
    pooler = TransactionPooler(server.port, database)
    try:
        refused = refusal(server.url(database, port=pooler.port))
    finally:
        pooler.close()

    assert "pool_mode=session" in str(refused)


def test_a_dump_that_was_restored_on_another_server_goes_on(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    with closing(open_postgres_stores(url)) as stores:
        save(stores, a_run("old"))
    name = url.rpartition("/")[2]
    shared().execute("UPDATE abstractgateway.runs SET changed = '99999999999'", name)

    with closing(open_postgres_stores(url)) as here, closing(open_postgres_stores(url)) as there:
        told = Told(there)
        save(here, a_run("new"))
        save(here, a_run("old"))

        assert told.wait_until(lambda: told.has_heard("old", 2))
        assert told.revisions.count(("old", 1)) == 0


def test_the_settings_lead_to_the_database(tmp_path: Path) -> None:
    config = GatewayConfig(
        store_backend="postgres", database_url=url_of(tmp_path), database_artifacts_dir=tmp_path / "shared"
    )

    with closing(open_stores(config)) as stores:
        stored = stores.artifacts.store(b"bytes", run_id="r1")

    assert list((tmp_path / "shared").rglob(f"{stored.blob_id}*"))
    assert str(config.database_url) not in repr(config)


@pytest.mark.parametrize("url", [None, "mysql://me:s3cr3t@host/db"])
def test_settings_without_a_database_are_refused(url: str | None) -> None:
    with pytest.raises(Invalid, match="ABSTRACTGATEWAY_DATABASE_URL") as refused:
        GatewayConfig(store_backend="postgres", database_url=url)

    assert "s3cr3t" not in str(refused.value)


def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abstractgateway.compose.stores._POSTGRES", "abstractgateway_postgres_that_is_not_there:open")
    config = GatewayConfig(store_backend="postgres", database_url="postgresql://h/db")

    with pytest.raises(Unavailable, match=r"abstractgateway\[postgres\]") as refused:
        open_stores(config)

    assert refused.value.code == "postgres_extra_missing"

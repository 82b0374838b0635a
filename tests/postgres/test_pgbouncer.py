"""A real PgBouncer between gateway and server: session mode serves, transaction mode is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from abstractgateway.errors import LeaseLost, StaleWrite, Unavailable
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.commit import Commit
from abstractgateway_postgres import open_postgres_stores
from tests.cli.processes import Client, environment, port_of, serve
from tests.postgres.fleet_loop import write_tick
from tests.postgres.pgbouncer import PgBouncer
from tests.postgres.server import shared, url_of
from tests.stores.shapes import Told, a_command, a_run, applied, save, write


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[str]:
    """The URL of a database behind a PgBouncer in session mode."""
    bouncer = PgBouncer(shared(), "session")
    yield behind(bouncer, tmp_path)
    bouncer.stop()


def behind(bouncer: PgBouncer, directory: Path) -> str:
    return url_of(directory).replace(f":{shared().port}/", f":{bouncer.port}/")


def test_stores_keep_their_promises_in_session_mode(pooled: str) -> None:
    with closing(open_postgres_stores(pooled)) as one, closing(open_postgres_stores(pooled)) as two:
        told = Told(two)
        epoch = one.claim("me")
        stored = save(one, a_run("r1"), count=2, epoch=epoch)
        command = one.commands.append(a_command())
        one.commit(Commit(outcome=applied(a_command(), command.seq), runs=(write(a_run("r2"), count=1),)))

        assert told.wait_until(lambda: told.has_heard("r1", 1) and told.has_heard("r2", 1))
        assert two.runs.open("r1") == stored
        assert verify_chain(two.ledger.list("r1")).ok
        assert two.commands.outcome(a_command().command_id).status == "applied"
        save(two, a_run("r1"), count=1)
        with pytest.raises(StaleWrite):
            one.commit(Commit(runs=(write(a_run("r1"), stored, count=1),)))
        two.claim("other")
        with pytest.raises(LeaseLost):
            save(one, a_run("r1"), epoch=epoch)
        artifact = one.artifacts.store(b"bytes", run_id="r1")
        assert two.artifacts.load(artifact.artifact_id) == b"bytes"


def test_sessions_that_are_lost_in_session_mode_are_replaced(pooled: str) -> None:
    with closing(open_postgres_stores(pooled)) as stores:
        save(stores, a_run("r1"))
        name = pooled.rpartition("/")[2]
        shared().execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

        assert save(stores, a_run("r1")).revision == 2


def test_a_run_goes_through_over_http_in_session_mode(pooled: str, tmp_path: Path) -> None:
    write_tick(tmp_path / "tick.flow")
    env = environment(tmp_path / "data", "postgres", FLOWS_DIR=tmp_path, DATABASE_URL=pooled)
    with serve(env=env) as process:
        client = Client(port_of(process))
        run_id = client.start(bundle_id="tick", input_data={"key": "k"})
        records = [record for _, record in client.follow(run_id)]

        assert client.run(run_id)["status"] == "completed"
        assert len(client.ledger(run_id)) == len(records) > 0
        assert process.end() == 0


def test_transaction_mode_is_refused_with_its_reason(tmp_path: Path) -> None:
    bouncer = PgBouncer(shared(), "transaction")
    try:
        with pytest.raises(Unavailable, match="pool_mode=session") as refused:
            open_postgres_stores(behind(bouncer, tmp_path))
    finally:
        bouncer.stop()

    assert refused.value.code == "database_unusable"

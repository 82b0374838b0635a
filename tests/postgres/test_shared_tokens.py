"""Gateways on one database: a named token that is made or revoked on one machine counts on all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Conflict
from abstractgateway.service import GatewayService
from abstractgateway.service.tokens import FILE_NAME, NamedTokens, TokenFile
from abstractgateway_http.server import GatewayServer
from abstractgateway_postgres import news
from abstractgateway_postgres.ends import PostgresEnd
from abstractgateway_postgres.opening import open_shelf
from tests.cli.processes import Client as OtherClient
from tests.cli.processes import environment, port_of, serve
from tests.commands import Said, said_by, without_settings
from tests.http.conftest import Client, LiveGateway, config_of
from tests.postgres.conftest import Join
from tests.postgres.proxy import Proxy
from tests.postgres.server import shared, url_of

PATIENCE_S = 10.0


def status(live: LiveGateway, token: str, path: str = "/ping") -> int:
    with closing(Client(live.server.port)) as client:
        return client.send("GET", f"/api/gateway{path}", f"Authorization: Bearer {token}").answer().status


class Accepted:
    """What a process accepts, as it hears of changes: waiting for something asks no database and sends no request."""

    def __init__(self, live: LiveGateway) -> None:
        self._tokens = live.service.access.tokens
        self._changed = threading.Condition()
        live.service.stores.shelf.subscribe(self._note)

    def wait_for(self, *names: str) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._names() == sorted(names), PATIENCE_S)

    def _names(self) -> list[str]:
        return sorted(token.name for token in self._tokens.current())

    def _note(self) -> None:
        with self._changed:
            self._changed.notify_all()


@pytest.fixture
def ag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs command lines on a machine of its own, on the database."""
    without_settings(monkeypatch)
    monkeypatch.setenv("ABSTRACTGATEWAY_STORE_BACKEND", "postgres")
    monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", url_of(tmp_path))
    monkeypatch.setenv("ABSTRACTGATEWAY_DATA_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("ABSTRACTGATEWAY_FLOWS_DIR", str(tmp_path / "no-flows"))
    return lambda *arguments: said_by(capsys, *arguments)


def in_database(tmp_path: Path, statements: str) -> None:
    shared().execute(f"SET search_path = abstractgateway; {statements}", url_of(tmp_path).rpartition("/")[2])


REVOKE_UNHEARD = "UPDATE shelf SET sha256 = NULL, content = NULL WHERE drawer = 'tokens'"


def test_a_token_made_by_a_command_opens_every_gateway_until_it_is_revoked_by_one(
    join: Join, ag: Callable[..., Said]
) -> None:
    gateways = [join(), join()]
    heard = [Accepted(live) for live in gateways]
    made = ag("token", "create", "ci", "--scope", "read")
    token = made.out.strip()
    known = [each.wait_for("ci") for each in heard]
    opened = [status(live, token) for live in gateways]

    said = ag("token", "revoke", "ci")
    gone = [each.wait_for() for each in heard]

    assert (known, opened) == ([True, True], [200, 200])
    assert (gone, [status(live, token) for live in gateways]) == ([True, True], [401, 401])
    assert (said.code, said.out) == (0, "The token 'ci' is revoked.\n")
    assert "Every gateway of the database knows within two seconds" in made.err
    assert ag("token", "revoke", "ci").err == "abstractgateway: there is no token 'ci'\n"


def test_all_are_told_at_once(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "SHORTEST_LOOK_S", 60.0)
    monkeypatch.setattr(news, "LONGEST_LOOK_S", 60.0)
    one, two = join(), join()
    heard = Accepted(two)
    tokens = one.service.access.tokens

    _, token = tokens.create("ci", ["read"])
    assert heard.wait_for("ci") and status(two, token) == 200
    tokens.revoke("ci")
    assert heard.wait_for() and status(two, token) == 401


def test_a_revocation_of_which_nobody_was_told_is_found(join: Join, tmp_path: Path) -> None:
    one = join()
    heard = Accepted(one)
    one.service.access.tokens.create("ci", ["read"])
    heard.wait_for("ci")

    in_database(tmp_path, f"{REVOKE_UNHEARD}; UPDATE counters SET value = value + 1 WHERE name = 'shelf'")

    assert heard.wait_for()


def test_a_process_that_is_never_idle_looks_as_well(
    join: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "LONGEST_LOOK_S", 0.3)
    one = join()
    heard = Accepted(one)
    one.service.access.tokens.create("ci", ["read"])
    heard.wait_for("ci")

    with ringing(one):
        in_database(tmp_path, f"{REVOKE_UNHEARD}; UPDATE counters SET value = value + 1 WHERE name = 'shelf'")
        assert heard.wait_for()


@contextmanager
def ringing(live: LiveGateway) -> Iterator[None]:
    """Keep a process as busy with its own commits as it can be."""
    end = threading.Event()

    def ring() -> None:
        while not end.wait(0.002):
            live.service.stores._news.ring()

    bell = threading.Thread(target=ring)
    bell.start()
    try:
        yield
    finally:
        end.set()
        bell.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    opened = Proxy(shared().port)
    yield opened
    opened.close()


@pytest.fixture
def cut(join: Join, proxy: Proxy, tmp_path: Path) -> LiveGateway:
    """A gateway whose connections go through the proxy."""
    live = join(database_url=url_of(tmp_path).replace(f":{shared().port}/", f":{proxy.port}/"))
    live.service.stores.database.patience_s = 0.05
    return live


def test_without_the_database_the_known_tokens_count_and_afterwards_what_was_changed_meanwhile(
    cut: LiveGateway, proxy: Proxy, join: Join
) -> None:
    one, heard = join(), Accepted(cut)
    tokens = {name: one.service.access.tokens.create(name, ["read"])[1] for name in ("kept", "revoked")}
    heard.wait_for("kept", "revoked")
    proxy.cut_now(stays_away=True)
    one.service.access.tokens.revoke("revoked")
    tokens["new"] = one.service.access.tokens.create("new", ["read"])[1]

    during = {name: (status(cut, token), status(cut, token, "/runs")) for name, token in tokens.items()}
    proxy.heal()
    is_healed = heard.wait_for("kept", "new")

    assert during == {"kept": (200, 503), "revoked": (200, 503), "new": (401, 401)}
    assert is_healed
    assert {name: status(cut, token) for name, token in tokens.items()} == {"kept": 200, "revoked": 401, "new": 200}


def test_a_server_that_lacks_the_latest_changes_is_believed(cut: LiveGateway, proxy: Proxy, tmp_path: Path) -> None:
    heard = Accepted(cut)
    cut.service.access.tokens.create("ci", ["read"])
    heard.wait_for("ci")

    in_database(tmp_path, REVOKE_UNHEARD)  # the revision stays what it was
    proxy.cut_now()

    assert heard.wait_for()


def test_no_request_asks_the_database_for_tokens(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    one = join()
    _, token = one.service.access.tokens.create("ci", ["read"])
    asking: set[str] = set()
    rows = one.service.stores.database.rows

    def noted(*given: Any, **options: Any) -> Any:
        asking.add(threading.current_thread().name)
        return rows(*given, **options)

    monkeypatch.setattr(one.service.stores.database, "rows", noted)
    answers = {status(one, token if n % 2 else "wrong") for n in range(6)}

    assert answers == {200, 401}
    assert {name for name in asking if not name.startswith("gateway-")} == set()


def test_a_gateway_takes_the_tokens_of_its_data_directory_over_once(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    _, token = NamedTokens(TokenFile(directory / FILE_NAME)).create("ci", ["read"])

    def answered(*, revokes: bool) -> int:
        config = config_of(store_backend="postgres", data_dir=directory, database_url=url_of(tmp_path))
        with GatewayService.open(config) as service:
            server = GatewayServer(service).start()
            answer = status(LiveGateway(service, server), token)
            server.stop()
            if revokes:
                service.access.tokens.revoke("ci")
        return answer

    assert [answered(revokes=True), answered(revokes=False)] == [200, 401]


def test_a_server_without_a_token_is_refused_until_the_database_has_one(
    tmp_path: Path, ag: Callable[..., Said]
) -> None:
    refused = ag("serve", "--port", "0", "--host", "0.0.0.0")
    token = ag("token", "create", "ci", "--scope", "read").out.strip()
    env = environment(tmp_path / "data", "postgres", AUTH_TOKEN=None, DATABASE_URL=url_of(tmp_path))

    with serve(env=env) as process:
        answer = OtherClient(port_of(process), token).call("/api/gateway/ping")
        code = process.end()

    assert (refused.code, "Missing gateway auth token" in refused.err) == (1, True)
    assert not (tmp_path / "elsewhere").exists()
    assert (bool(answer), code) == (True, 0)
    ag("token", "revoke", "ci")
    assert "Missing gateway auth token" in ag("serve", "--port", "0").err


def test_commands_say_that_the_database_cannot_be_reached(
    ag: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", "postgresql://me:s3cr3t@127.0.0.1:1/db")

    for command in (("token", "list"), ("token", "revoke", "x"), ("bundle", "list"), ("serve", "--port", "0")):
        said = ag(*command)

        assert (said.code, "no connection to the database" in said.err) == (1, True), command
        assert "s3cr3t" not in said.out + said.err


def test_tokens_are_not_changed_while_a_migration_has_the_database(ag: Callable[..., Said], tmp_path: Path) -> None:
    end, other = (PostgresEnd(url_of(tmp_path)) for _ in range(2))
    end.take()
    said = ag("token", "create", "ci", "--scope", "read")
    end.release()
    try:
        with open_shelf(url_of(tmp_path)), pytest.raises(Conflict, match="1 gateway process"):
            other.take()
    finally:
        other.release()

    assert (said.code, "a migration has the database" in said.err) == (1, True)

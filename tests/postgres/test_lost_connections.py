"""Connections are cut at every message of a commit: it is applied once, or refused and not applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.commit import Commit
from abstractgateway.stores.base import Stores
from abstractgateway_postgres import PostgresStores, open_postgres_stores
from tests.postgres.proxy import Cut, Proxy
from tests.postgres.server import shared, url_of
from tests.stores.shapes import Told, a_command, a_run, applied, save, waiting, write

MOST_MESSAGES = 90
STEP = 3
"""Each way of cutting tries every third message, together they try all."""
PATIENCE_S = 10.0


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    opened = Proxy(shared().port)
    yield opened
    opened.close()


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[PostgresStores]:
    stores = open_postgres_stores(url_of(tmp_path))
    yield stores
    stores.close()


@pytest.fixture
def cut(proxy: Proxy, direct: PostgresStores, tmp_path: Path) -> Iterator[PostgresStores]:
    """Stores whose connections go through the proxy."""
    url = url_of(tmp_path).replace(f":{shared().port}/", f":{proxy.port}/")
    stores = open_postgres_stores(url, patience_s=PATIENCE_S)
    stores._news.close()  # its messages would be counted
    save(stores, a_run("r1"), count=1)
    yield stores
    stores.close()


def everything(number: int, stores: Stores) -> Commit:
    """Return a commit that changes a run, adds one, settles a command and accepts another."""
    runs = (
        write(waiting("r1", key=f"k{number}"), stores.runs.open("r1"), count=2),
        write(a_run(f"n{number}"), count=1),
    )
    outcome = applied(a_command(f"c{number}"), number) if number else None
    return Commit(runs=runs, command=a_command(f"c{number + 1}"), outcome=outcome)


@pytest.mark.parametrize("how", ["before", "after", "silent"])
def test_a_commit_of_one_statement_whose_connection_is_cut_anywhere_is_applied_once(
    proxy: Proxy, cut: PostgresStores, direct: PostgresStores, how: Cut
) -> None:
    told = Told(cut)
    number = 0
    proxy.has_cut = True
    while proxy.has_cut:
        number += 1
        runs = (write(a_run("r1"), direct.runs.open("r1"), count=2), write(a_run(f"n{number}"), count=1))
        proxy.cut_at(number, how)

        cut.commit(Commit(runs=runs))
        proxy.heal()

        found = direct.runs.open("r1")
        assert (found.revision, found.ledger_len) == (number + 1, 2 * number + 1)
        assert verify_chain(direct.ledger.list("r1")).ok
        assert direct.runs.open(f"n{number}").ledger_len == 1
        assert told.revisions.count(("r1", number + 1)) == 1
    assert number > 4


@pytest.mark.parametrize(("first", "how"), [(1, "before"), (2, "after"), (3, "silent")])
def test_a_commit_whose_connection_is_cut_anywhere_is_applied_once(
    proxy: Proxy, cut: PostgresStores, direct: PostgresStores, first: int, how: Cut
) -> None:
    told = Told(cut)
    for number in range(MOST_MESSAGES // STEP):
        commit = everything(number, direct)
        proxy.cut_at(first + STEP * number, how)

        cut.commit(commit)
        proxy.heal()

        found = direct.runs.open("r1")
        assert (found.revision, found.ledger_len) == (number + 2, 2 * number + 3)
        assert verify_chain(direct.ledger.list("r1")).ok
        assert direct.runs.open(f"n{number}").ledger_len == 1
        assert direct.commands.get_last_seq() == number + 1
        assert told.revisions.count(("r1", number + 2)) == 1
        if not proxy.has_cut:
            break
    assert 10 < number < MOST_MESSAGES // STEP - 1


def test_a_commit_that_cannot_be_finished_is_never_half_there_nor_acknowledged_in_vain(
    proxy: Proxy, cut: PostgresStores, direct: PostgresStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut.database, "patience_s", 0.02)
    codes: dict[str, set[int]] = {}
    for number in range(1, MOST_MESSAGES, STEP):
        before = direct.runs.open("r1")
        commit = everything(direct.commands.get_last_seq(), direct)
        proxy.cut_at(number, "after", stays_away=True)
        refused: Any = None
        try:
            cut.commit(commit)
        except Unavailable as error:
            refused = error
        proxy.heal()
        if not proxy.has_cut:
            break

        changed = direct.runs.open("r1").revision - before.revision
        codes.setdefault(refused.code, set()).add(changed)
        assert direct.runs.open("r1").ledger_len == before.ledger_len + 2 * changed
        assert "lost" in str(refused) or "no connection" in str(refused)
        repeated = everything(direct.commands.get_last_seq(), direct)
        cut.commit(repeated)
        assert direct.runs.open("r1").revision == before.revision + changed + 1

    assert codes["database_unreachable"] == {0}
    assert 1 in codes["outcome_unknown"]


def test_a_process_whose_cable_was_pulled_in_a_transaction_holds_nobody_up(
    proxy: Proxy, cut: PostgresStores, direct: PostgresStores
) -> None:
    proxy.cut_at(12, "silent")

    cut.commit(Commit(runs=(write(a_run("r1", current_node="mine"), direct.runs.open("r1"), count=1),)))
    direct.commit(Commit(runs=(write(a_run("r1", current_node="theirs"), direct.runs.open("r1"), count=1),)))

    assert cut.runs.open("r1").state.current_node == "theirs"
    assert cut.runs.open("r1").revision == 3


def test_reading_goes_on_over_a_lost_connection(proxy: Proxy, cut: PostgresStores) -> None:
    cut.runs.open("r1")
    proxy.cut_now()

    found = cut.runs.open("r1")
    page = cut.ledger.read("r1", 0, 10)

    assert found is not None and len(page.records) == 1


def test_what_others_commit_while_the_listening_connection_is_cut_is_told(
    proxy: Proxy, direct: PostgresStores, tmp_path: Path
) -> None:
    url = url_of(tmp_path).replace(f":{shared().port}/", f":{proxy.port}/")
    stores = open_postgres_stores(url)
    told = Told(stores)
    save(direct, a_run("first"))
    assert told.wait_until(lambda: told.has_heard("first", 1))

    proxy.cut_now(stays_away=True)
    save(direct, a_run("meanwhile"))
    direct.commands.append(a_command())
    proxy.heal()

    assert told.wait_until(lambda: told.has_heard("meanwhile", 1))
    assert told.wait_until(lambda: any(changes.has_commands for changes in told.changes))
    stores.close()


def test_artifacts_are_stored_and_read_over_a_lost_connection(proxy: Proxy, cut: PostgresStores) -> None:
    content = bytes(range(256)) * 3000
    for message in range(1, 40, STEP):
        proxy.cut_at(message, "after")
        stored = cut.artifacts.store(content + bytes([message]), run_id="r1")
        proxy.cut_at(1, "after")

        assert cut.artifacts.load(stored.artifact_id) == content + bytes([message])
        proxy.heal()


def test_a_claim_whose_answer_is_lost_is_made_again(proxy: Proxy, cut: PostgresStores) -> None:
    first = cut.claim("me")
    for message in range(1, 15, STEP):
        proxy.cut_at(message, "after")
        epoch = cut.claim("me")
        proxy.heal()

        assert epoch > first
        save(cut, replace(a_run("r1"), current_node=f"n{message}"), epoch=epoch)
        first = epoch

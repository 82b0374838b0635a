"""What commands and explanations say where the runs are in a database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.bundles.shared import DRAWER as BUNDLES
from abstractgateway.cli import doctor
from abstractgateway.service.shared_tokens import SharedTokens
from abstractgateway.service.tokens import FILE_NAME, NamedTokens, TokenFile
from abstractgateway.testing import ManualClock
from abstractgateway_postgres import checks
from abstractgateway_postgres.opening import open_shelf
from tests.cli.processes import SAMPLES
from tests.commands import said_by
from tests.http.conftest import packed
from tests.postgres.server import shared, url_of


def settings(tmp_path: Path, **more: object) -> GatewayConfig:
    given = {"data_dir": tmp_path / "data", "flows_dir": SAMPLES, "store_backend": "postgres"}
    return GatewayConfig(**{**given, "database_url": url_of(tmp_path), "auth_tokens": ("t" * 20,), **more})


def store_findings(config: GatewayConfig) -> list[tuple[str, str]]:
    found = doctor.examine(config, "127.0.0.1")
    return [(finding.level, finding.text) for finding in found if finding.about in ("store", "runner")]


def told(config: GatewayConfig, about: str) -> list[tuple[str, str]]:
    return [(item.level, item.text) for item in doctor.examine(config, "127.0.0.1") if item.about == about]


NO_FSYNC = ("warning", "the database server runs with fsync off: a power loss may cost what was acknowledged")
"""The server of the tests."""


def test_doctor_says_what_the_database_is_and_who_uses_it(tmp_path: Path) -> None:
    config = settings(tmp_path)
    server, alone = store_findings(config)[:2]
    with GatewayService.open(config) as gateway:
        list(gateway.ledger.follow(gateway.runs.start(bundle_id="hello")))  # by then a runner has its lease
        shared_by_one = store_findings(config)[1]

    assert server[0] == "ok" and server[1].startswith("PostgreSQL 1") and "schema version" in server[1]
    assert alone == ("ok", "runners with a lease: 0; processes that have the database open: 0")
    assert shared_by_one == ("ok", "runners with a lease: 1; processes that have the database open: 1")
    assert NO_FSYNC in store_findings(config)


def test_doctor_makes_no_tables(tmp_path: Path) -> None:
    shared().execute("CREATE DATABASE looked_at")
    try:
        server, *_ = store_findings(settings(tmp_path, database_url=shared().url("looked_at")))
        ((has_tables,),) = shared().execute("SELECT to_regnamespace('abstractgateway') IS NOT NULL", "looked_at")
    finally:
        shared().execute("DROP DATABASE looked_at WITH (FORCE)")

    assert "no tables yet" in server[1]
    assert not has_tables


def test_doctor_says_that_a_database_cannot_be_reached_and_no_password(tmp_path: Path) -> None:
    (found,) = store_findings(settings(tmp_path, database_url="postgresql://me:s3cr3t@127.0.0.1:1/db"))

    assert found[0] == "problem"
    assert "me@127.0.0.1:1/db" in found[1] and "s3cr3t" not in found[1]


def test_doctor_tells_a_database_that_does_not_answer_from_a_missing_token(tmp_path: Path) -> None:
    away = settings(tmp_path, database_url="postgresql://127.0.0.1:1/db", auth_tokens=())
    with_token = settings(tmp_path, auth_tokens=())
    missing = told(with_token, "security")
    with open_shelf(url_of(tmp_path)) as shelf:
        NamedTokens(SharedTokens(shelf)).create("ci", ["read"])

    assert not any("Missing gateway auth token" in text for _, text in told(away, "security"))
    assert any("tokens: 0 plain, ? named" in text for _, text in told(away, "security"))
    assert any("Missing gateway auth token" in text for _, text in missing)
    found = told(with_token, "security")
    assert not [text for level, text in found if level == "problem"]
    assert any("tokens: 0 plain, 1 named" in text for _, text in found)
    assert any("'ci' never expires" in text for _, text in found)


def test_doctor_counts_tokens_that_a_start_takes_over_and_takes_none_over(tmp_path: Path) -> None:
    config = settings(tmp_path, auth_tokens=())
    NamedTokens(TokenFile(tmp_path / "data" / FILE_NAME)).create("ci", ["read"])

    found = told(config, "security")

    assert not [text for level, text in found if level == "problem"]
    with open_shelf(url_of(tmp_path)) as shelf:
        assert shelf.list("tokens") == []


def test_doctor_says_which_rights_are_missing(tmp_path: Path) -> None:
    name = url_of(tmp_path).rpartition("/")[2]
    shared().execute("DROP ROLE IF EXISTS half")
    shared().execute("CREATE ROLE half LOGIN; GRANT USAGE ON SCHEMA abstractgateway TO half", name)
    shared().execute("GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA abstractgateway TO half", name)
    shared().execute("GRANT INSERT ON abstractgateway.runs TO half", name)
    try:
        found = store_findings(settings(tmp_path, database_url=shared().url(name, user="half")))
    finally:
        shared().execute("DROP OWNED BY half", name)

    (problem,) = [text for level, text in found if level == "problem"]
    assert problem.startswith("the database user lacks rights: ")
    assert "INSERT on abstractgateway.shelf" in problem
    assert "INSERT on abstractgateway.runs," not in problem


def test_doctor_says_that_tables_cannot_be_made(tmp_path: Path) -> None:
    shared().execute("DROP ROLE IF EXISTS bare")
    shared().execute("CREATE ROLE bare LOGIN")
    shared().execute("CREATE DATABASE looked_at")
    try:
        found = store_findings(settings(tmp_path, database_url=shared().url("looked_at", user="bare")))
    finally:
        shared().execute("DROP DATABASE looked_at WITH (FORCE)")

    assert ("problem" in dict(found)) and "lacks rights: CREATE on the database" in dict(found)["problem"]


def test_doctor_tells_of_a_clock_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SystemClock", lambda: ManualClock())

    warnings = [text for level, text in store_findings(settings(tmp_path)) if level == "warning"]

    assert any("the clock of the database is" in text and "the one here" in text for text in warnings)


def test_doctor_needs_no_flows_directory_and_looks_at_the_bundles_of_the_database(tmp_path: Path) -> None:
    config = settings(tmp_path, flows_dir=tmp_path / "nowhere")
    before = told(config, "flows")
    with open_shelf(url_of(tmp_path)) as shelf:
        shelf.put(BUNDLES, "echo@0.0.1.flow", packed())
        shelf.put(BUNDLES, "bad@1.flow", b"no zip")

    after = told(config, "flows")

    assert before == [("ok", f"0 bundles in {tmp_path / 'nowhere'}; 0 in the database")]
    assert after[0] == ("ok", f"0 bundles in {tmp_path / 'nowhere'}; 1 in the database")
    assert after[1][0] == "warning" and "bad@1.flow is not usable" in after[1][1]


def test_the_bundles_that_are_listed_are_those_that_the_fleet_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "beside.flow").write_bytes(packed("beside"))
    (flows / "same.flow").write_bytes(packed("echo", created_at="2020-01-01T00:00:00+00:00"))
    for name, value in {"STORE_BACKEND": "postgres", "DATABASE_URL": url_of(tmp_path), "FLOWS_DIR": flows}.items():
        monkeypatch.setenv(f"ABSTRACTGATEWAY_{name}", str(value))
    with open_shelf(url_of(tmp_path)) as shelf:
        shelf.put(BUNDLES, "echo@0.0.1.flow", packed())

    said = said_by(capsys, "bundle", "list")
    listed = json.loads(said_by(capsys, "bundle", "list", "--json").out)
    of_directory = said_by(capsys, "bundle", "list", str(flows))

    lines = ["beside@0.0.1  root  (beside.flow)", "echo@0.0.1  root  (echo@0.0.1.flow in the database)"]
    assert said.out.splitlines() == lines
    assert "same.flow is not usable: 'echo@0.0.1' is already in 'echo@0.0.1.flow' in the database" in said.err
    assert [(item["bundle_ref"], item["in_database"]) for item in listed] == [
        ("beside@0.0.1", False),
        ("echo@0.0.1", True),
    ]
    assert "echo@0.0.1  root  (same.flow)" in of_directory.out


def test_a_list_of_no_bundles_says_where_it_looked_and_makes_no_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ABSTRACTGATEWAY_STORE_BACKEND", "postgres")
    monkeypatch.setenv("ABSTRACTGATEWAY_FLOWS_DIR", str(tmp_path / "nowhere"))
    shared().execute("CREATE DATABASE looked_at")
    try:
        monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", shared().url("looked_at"))
        said = said_by(capsys, "bundle", "list")
        ((has_tables,),) = shared().execute("SELECT to_regnamespace('abstractgateway') IS NOT NULL", "looked_at")
    finally:
        shared().execute("DROP DATABASE looked_at WITH (FORCE)")

    assert (said.code, said.out, has_tables) == (0, "", False)
    assert f"no bundle in the database and {tmp_path / 'nowhere'}" in said.err


def test_settings_are_listed_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ABSTRACTGATEWAY_STORE_BACKEND", "postgres")
    monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", "postgresql://me:s3cr3t@127.0.0.1:1/db")

    for arguments in (("--all",), ("--json",)):
        said = said_by(capsys, "config", "status", *arguments)

        assert (said.code, "database_url" in said.out) == (0, True)
        assert "s3cr3t" not in said.out + said.err


def test_a_run_that_nobody_drives_says_that_it_waits_for_a_runner_of_the_database(tmp_path: Path) -> None:
    with GatewayService.open(settings(tmp_path, runner_enabled=False)) as gateway:
        run_id = gateway.runs.start(bundle_id="hello")
        blocked_by = gateway.runs.get(run_id)["blocked_by"]

    assert blocked_by["reason"] == "no runner drives the runs of this database; start 'abstractgateway runner' on it"

"""Bundles, deprecations and drawn flows follow their gateway to a database and back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.bundles.shared import DRAWER
from tests.commands import Said, said_by
from tests.http.conftest import packed
from tests.postgres.server import url_of

Open = Callable[[str], GatewayService]


@pytest.fixture
def open_at(tmp_path: Path) -> Open:
    def start(backend: str) -> GatewayService:
        given: dict[str, Any] = {"database_url": url_of(tmp_path)} if backend == "postgres" else {}
        return GatewayService.open(
            GatewayConfig(data_dir=tmp_path / "data", flows_dir=tmp_path / "flows", store_backend=backend, **given)
        )

    return start


@pytest.fixture
def move(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs `migrate` from one backend to another."""

    def run(source: str, target: str, *more: str) -> Said:
        monkeypatch.setenv("ABSTRACTGATEWAY_DATABASE_URL", url_of(tmp_path))
        monkeypatch.setenv("ABSTRACTGATEWAY_FLOWS_DIR", str(tmp_path / "flows"))
        ends = ("--from", source, "--to", target)
        return said_by(capsys, "migrate", "--data-dir", str(tmp_path / "data"), *ends, *more)

    return run


def fill(gateway: GatewayService, name: str) -> str:
    gateway.bundles.upload(io.BytesIO(packed(name)))
    gateway.runs.start(bundle_id=name)
    gateway.bundles.deprecate(name, reason=f"no more {name}")
    return str(gateway.visualflows.create(name=name)["id"])


def held(gateway: GatewayService) -> dict[str, Any]:
    items = gateway.bundles.list(include_deprecated=True)["items"]
    return {
        "bundles": {item["bundle_id"]: item["entrypoints"][0]["deprecated_reason"] for item in items},
        "drawn": sorted(flow["name"] for flow in gateway.visualflows.list()),
        "errors": gateway.bundles.list()["load_errors"],
    }


def test_nothing_is_lost_on_the_way_to_a_database_and_back(open_at: Open, move: Callable[..., Said]) -> None:
    with open_at("file") as before:
        fill(before, "first")
        changed = fill(before, "changed")
    move("file", "postgres")
    with open_at("postgres") as between:
        taken_over = held(between)
        fill(between, "second")
        between.bundles.upload(io.BytesIO(packed("changed", version="0.0.2")))
        between.visualflows.update(changed, name="renamed")
    said = move("postgres", "sqlite")
    with open_at("sqlite") as after:
        found = held(after)

    reasons = {"changed": "no more changed", "first": "no more first"}
    assert taken_over == {"bundles": reasons, "drawn": ["changed", "first"], "errors": []}
    assert found["bundles"] == {**reasons, "second": "no more second"}
    assert (found["drawn"], found["errors"]) == (["first", "renamed", "second"], [])
    assert "Copied 2 bundles" in said.out
    assert "3 deprecations, 3 drawn flows" in said.out


def test_a_bundle_that_cannot_be_read_is_named_and_the_others_are_copied(
    open_at: Open, move: Callable[..., Said], tmp_path: Path
) -> None:
    with open_at("postgres") as gateway:
        gateway.bundles.upload(io.BytesIO(packed()))
        gateway.runs.start(bundle_id="echo")
        gateway.stores.shelf.put(DRAWER, "bad@1.flow", b"no zip")

    said = move("postgres", "file")

    assert "not copied: the bundle 'bad@1.flow'" in said.err
    assert [path.name for path in (tmp_path / "flows").iterdir()] == ["echo@0.0.1.flow"]


def test_a_flows_directory_that_is_one_bundle_takes_none(
    open_at: Open, move: Callable[..., Said], tmp_path: Path
) -> None:
    with open_at("postgres") as gateway:
        gateway.bundles.upload(io.BytesIO(packed()))
        gateway.runs.start(bundle_id="echo")
    (tmp_path / "flows" / "manifest.json").parent.mkdir(exist_ok=True)
    (tmp_path / "flows" / "manifest.json").write_text("{}")

    said = move("postgres", "file")

    assert said.code != 0
    assert "is one bundle" in said.err


def test_a_database_to_which_only_bundles_were_uploaded_is_not_empty(
    open_at: Open, move: Callable[..., Said], tmp_path: Path
) -> None:
    with open_at("file") as before:
        fill(before, "mine")
    with open_at("postgres") as uploaded:
        uploaded.bundles.upload(io.BytesIO(packed("theirs")))

    as_target = move("file", "postgres")
    as_source = move("postgres", "sqlite")

    assert as_target.code == 1
    assert "--overwrite" in as_target.err
    assert as_source.code == 0, as_source.err
    assert (tmp_path / "flows" / "theirs@0.0.1.flow").is_file()


def test_beginning_anew_removes_what_was_uploaded_to_the_database(open_at: Open, move: Callable[..., Said]) -> None:
    with open_at("file") as before:
        fill(before, "first")
    with open_at("postgres") as gateway:
        fill(gateway, "second")
    move("file", "postgres", "--overwrite")

    with open_at("postgres") as gateway:
        assert held(gateway)["bundles"] == {"first": "no more first"}


def test_named_tokens_move_along_and_those_that_were_revoked_do_not_come_back(
    open_at: Open, move: Callable[..., Said]
) -> None:
    with open_at("file") as before:
        kept, _ = before.access.tokens.create("kept", ["read"])
        before.access.tokens.create("revoked", ["read"])
        fill(before, "first")
    move("file", "postgres")
    with open_at("postgres") as between:
        between.access.tokens.revoke("revoked")
        made, _ = between.access.tokens.create("made", ["run"])
    with open_at("file") as aside:
        aside.access.tokens.create("new", ["read"])

    said = move("postgres", "file", "--overwrite")

    with open_at("file") as after:
        found = {token["name"]: token["id"] for token in after.access.tokens.listed()}
    assert (found["kept"], found["made"]) == (kept["id"], made["id"])
    assert sorted(found) == ["kept", "made", "new"]
    assert "2 named tokens" in said.out

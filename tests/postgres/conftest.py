"""Gateways of a fleet: on one database, each with directories of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.service import GatewayService
from abstractgateway_http.server import GatewayServer
from tests.http.conftest import LiveGateway, config_of
from tests.postgres.server import url_of

Join = Callable[..., LiveGateway]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Starts gateways on one database, each with directories of its own; the first one drives the runs."""
    opened: list[LiveGateway] = []

    def start(**settings: Any) -> LiveGateway:
        own = tmp_path / f"machine{len(opened)}"
        (own / "flows").mkdir(parents=True, exist_ok=True)
        known = {"database_url": url_of(tmp_path), "flows_dir": own / "flows", "runner_enabled": not opened}
        config = config_of(store_backend="postgres", data_dir=own / "data", **{**known, **settings})
        service = GatewayService.open(config)
        opened.append(LiveGateway(service, GatewayServer(service).start()))
        return opened[-1]

    yield start
    for live in opened:
        live.server.stop()
        live.service.close()


@pytest.fixture
def one(join: Join) -> LiveGateway:
    return join()


@pytest.fixture
def two(one: LiveGateway, join: Join) -> LiveGateway:
    return join()

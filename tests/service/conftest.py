from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.testing import ScriptedModel
from tests.postgres.server import url_of

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "docs" / "samples"

Open = Callable[..., GatewayService]


@pytest.fixture(params=["file", "memory", "sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_gateway(backend: str, tmp_path: Path) -> Iterator[Open]:
    """A function that opens a gateway on the same data directory, with settings of one's own."""
    opened: list[GatewayService] = []

    def open_one(**settings: Any) -> GatewayService:
        chosen = {"data_dir": tmp_path / "runtime", "flows_dir": SAMPLES, "store_backend": backend, **settings}
        if backend == "postgres":
            chosen["database_url"] = url_of(tmp_path)
        model = ScriptedModel(lambda call: "hi")
        opened.append(GatewayService.open(GatewayConfig(**chosen), model=model))
        return opened[-1]

    yield open_one
    for gateway in opened:
        gateway.close()


@pytest.fixture
def gateway(open_gateway: Open) -> GatewayService:
    return open_gateway()

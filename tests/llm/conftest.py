from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.testing import ManualClock
from abstractgateway_llm import ProviderModel
from tests.llm.provider import KEY, Provider

Open = Callable[..., ProviderModel]


@pytest.fixture
def pauses() -> list[float]:
    """How long the model paused between repetitions, in the order of the pauses."""
    return []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def model_of(pauses: list[float], clock: ManualClock) -> Iterator[Open]:
    """Opens a model whose provider `name` is at a fake one."""
    opened: list[ProviderModel] = []

    def open_one(provider: Provider, name: str = "openai", **settings: Any) -> ProviderModel:
        field = name.replace("-", "_")
        chosen = {
            f"{field}_base_url": provider.url,
            f"{field}_api_key": KEY,
            "provider": name,
            "model": "m",
            **settings,
        }
        model = ProviderModel(GatewayConfig(**chosen), clock=clock, sleep=pauses.append)
        opened.append(model)
        return model

    yield open_one
    for model in opened:
        model.close()

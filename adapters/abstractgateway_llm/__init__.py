"""Language models over HTTP: OpenAI and what is compatible with it, Anthropic, and through AbstractCore any other.

from abstractgateway_llm import open_model

model = open_model(GatewayConfig.from_env())
"""

from __future__ import annotations

from .errors import ModelError
from .model import ProviderModel, open_model

__all__ = ["ModelError", "ProviderModel", "open_model"]

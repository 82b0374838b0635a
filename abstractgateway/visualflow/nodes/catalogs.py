"""Nodes that list models. A gateway without a registry of models has none to list, which is no error."""

from __future__ import annotations

from typing import Any

from ...jsonvalue import JsonObject
from ..flow import Node
from ..node import Evaluate, Inputs, NodeType, Pure
from ..state import Step
from ..values import first_text


def _provider_catalog(_node: Node) -> Evaluate:
    return lambda _inputs, _step: {"providers": []}


def _provider_models(node: Node) -> Evaluate:
    config = node.config("providerModelsConfig")

    def show(inputs: Inputs, _step: Step) -> JsonObject:
        provider = first_text(inputs.get("provider"), config.get("provider"))
        return {"provider": provider.lower() if provider is not None else "", "models": []}

    return show


def _model_catalog(_node: Node) -> Evaluate:
    nothing: dict[str, Any] = {"providers": [], "models": [], "pair": None, "provider": "", "model": ""}
    return lambda _inputs, _step: dict(nothing)


TYPES = (
    NodeType(
        "provider_catalog",
        "catalogs",
        Pure(_provider_catalog, without_pins=False),
        ("allowed_providers",),
        ("providers",),
        "Lists the providers of a model registry; empty without one.",
    ),
    NodeType(
        "provider_models",
        "catalogs",
        Pure(_provider_models, without_pins=False),
        ("provider", "allowed_models"),
        ("provider", "models"),
        "Lists the models of a provider; empty without a model registry.",
    ),
    NodeType(
        "model_catalog",
        "catalogs",
        Pure(_model_catalog, without_pins=False),
        ("allowed_providers", "allowed_models", "index"),
        ("providers", "models", "pair", "provider", "model"),
        "Chooses a pair of provider and model; empty without a model registry.",
    ),
)

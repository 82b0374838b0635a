"""What answers model calls, and makes vectors, speech and images, as the settings say."""

from __future__ import annotations

import pkgutil
from functools import partial
from typing import Any

from ..config import GatewayConfig
from ..errors import Unavailable
from ..service.embeddings import FILE_NAME as EMBEDDINGS_FILE
from ..service.embeddings import EmbedderOfSettings, EmbeddingChoice, OwnEmbedder
from ..service.models_of_settings import ModelsOfSettings, ProviderModels
from ..service.providers_of_settings import ProvidersOfSettings
from .stores import durable_dir

_MODEL = "abstractgateway_llm:open_model"
_EMBEDDER = "abstractgateway_llm.embeddings:open_embedder"
_CATALOGUE = "abstractgateway_llm.catalogue:open_catalogue"
_MEDIA = "abstractgateway_llm.media_services:open_media"


def open_models(config: GatewayConfig) -> ModelsOfSettings:
    """Return the language model on the providers of the settings."""

    def load(provider: object) -> ProviderModels:
        who = f"provider {provider!r} needs" if provider else "model calls need"
        loaded: ProviderModels = _of_llm(_MODEL, who)(config)
        return loaded

    return ModelsOfSettings(config, load)


def open_providers(config: GatewayConfig) -> ProvidersOfSettings:
    """Return what lists models and makes media as the settings say."""

    def load(part: str) -> Any:
        return _of_llm(part, "lists of models, speech and images need")(config)

    return ProvidersOfSettings(catalogue=partial(load, _CATALOGUE), media=partial(load, _MEDIA))


def open_embedder(config: GatewayConfig) -> EmbedderOfSettings:
    """Return what makes vectors as the settings say; its adapter is loaded by the first who needs it."""
    directory = durable_dir(config)
    path = directory / EMBEDDINGS_FILE if directory else None
    choice = EmbeddingChoice(path, provider=config.embedding_provider, model=config.embedding_model)

    def opened(provider: str, model: str) -> OwnEmbedder:
        embedder: OwnEmbedder = _of_llm(_EMBEDDER, "embeddings need")(config, provider, model)
        return embedder

    return EmbedderOfSettings(choice, opened)


def _of_llm(name: str, who: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except ImportError as error:
        raise Unavailable(
            f"{who} the extra llm: pip install 'abstractgateway[llm]' ({error})", code="llm_extra_missing"
        ) from error

"""Texts as vectors: one provider and model for a data directory, so that its vectors can be compared."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import GatewayError, Invalid, Unavailable
from ..jsonvalue import JsonObject, dumps, loads
from ..stores.disk import Disk

FILE_NAME = "gateway_embeddings.json"
DEFAULT_PROVIDER = "lmstudio"
DEFAULT_MODEL = "text-embedding-nomic-embed-text-v1.5@q6_k"
_PROBE = "dimension"


class Embedder(Protocol):
    """Makes vectors of texts. `provider` and `model` say with what; a program that embeds the gateway may give one."""

    @property
    def provider(self) -> str: ...

    @property
    def model(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text, in their order. Raises `GatewayError` when that fails."""


class Pair(NamedTuple):
    """A provider and one of its models."""

    provider: str
    model: str


class EmbeddingService:
    """The use cases around embeddings."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._dimension = 0

    def embed(self, texts: str | list[str], *, provider: str | None = None, model: str | None = None) -> JsonObject:
        """Return `{object, provider, model, dimension, data: [{object, index, embedding}]}`; no texts have no vectors.

        Raises `Invalid` for another provider or model than the one that is configured, and `Unavailable` when there
        are no embeddings now.
        """
        self._check_pair(provider, model)
        given = [texts] if isinstance(texts, str) else texts
        vectors = self._vectors(given) if given else []
        return {
            "object": "list",
            "provider": self._embedder.provider,
            "model": self._embedder.model,
            "dimension": len(vectors[0]) if vectors else 0,
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
        }

    def config(self) -> JsonObject:
        """Return `{ok, provider, model, dimension, error?}`; the dimension is that of a vector made to find it out."""
        found: JsonObject = {"ok": True, "provider": self._embedder.provider, "model": self._embedder.model}
        try:
            return {**found, "dimension": self._known_dimension()}
        except Unavailable as error:
            return {**found, "ok": False, "dimension": 0, "error": error.message}

    def _known_dimension(self) -> int:
        with self._lock:
            if not self._dimension:
                self._dimension = len(self._vectors([_PROBE])[0])
            return self._dimension

    def _check_pair(self, provider: str | None, model: str | None) -> None:
        wished = (provider or "").strip().lower(), (model or "").strip()
        known = self._embedder.provider.lower(), self._embedder.model
        for name, wish, used in zip(("provider", "model"), wished, known, strict=True):
            if wish and wish != used:
                raise Invalid(
                    name, f"{wish!r} is not {used!r}, with which this gateway makes all vectors so that they compare"
                )

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        try:
            found = [_vector(item) for item in self._embedder.embed(texts)]
        except GatewayError as error:
            raise _failed(error.message) from error
        except Exception as error:  # an embedder is a program's own code
            raise _failed(f"{type(error).__name__}: {error}") from error
        if len(found) != len(texts) or len({len(vector) for vector in found}) > 1:
            raise _failed(f"{len(found)} vectors came for {len(texts)} texts, or they are of different lengths")
        return found


class EmbeddingChoice:
    """Which provider and model are used: the settings', else the stored pair, else the default; durably, as a file.

    Without a path nothing is kept.
    """

    def __init__(self, path: Path | None, *, provider: str | None, model: str | None, disk: Disk | None = None) -> None:
        self._path = path
        self._wished = (provider or "").strip().lower(), (model or "").strip()
        self._disk = disk or Disk()

    def pair(self) -> Pair:
        """Return the pair, and keep it if the settings changed it. Raises `Unavailable` when it cannot be kept."""
        stored = self._stored()
        provider, model = self._wished
        chosen = Pair(
            provider or stored.get("provider", "").lower() or DEFAULT_PROVIDER,
            model or stored.get("model") or DEFAULT_MODEL,
        )
        if any(self._wished) and chosen._asdict() != stored:
            self._keep(chosen)
        return chosen

    def _stored(self) -> dict[str, str]:
        """Return the stored pair; a file that nobody can read counts as none."""
        if self._path is None:
            return {}
        try:
            document: Any = loads(self._path.read_bytes(), field=FILE_NAME)
        except (OSError, Invalid):
            return {}
        found = {name: document.get(name) for name in Pair._fields} if isinstance(document, dict) else {}
        return {name: value.strip() for name, value in found.items() if isinstance(value, str) and value.strip()}

    def _keep(self, pair: Pair) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._disk.replace(self._path, dumps(pair._asdict()), is_durable=True)
            self._disk.sync_path(self._path.parent)
        except OSError as error:
            raise Unavailable(f"{FILE_NAME!r} cannot be written: {error.strerror}", code="store_failed") from error


class OwnEmbedder(Embedder, Protocol):
    """An embedder that holds connections."""

    def close(self) -> None: ...


class EmbedderOfSettings:
    """The embedder of the chosen pair; `open_embedder` makes it for the first who needs it."""

    def __init__(self, choice: EmbeddingChoice, open_embedder: Callable[[str, str], OwnEmbedder]) -> None:
        self._choice = choice
        self._open_embedder = open_embedder
        self._lock = threading.Lock()
        self._pair: Pair | None = None
        self._opened: OwnEmbedder | None = None

    @property
    def provider(self) -> str:
        return self._chosen().provider

    @property
    def model(self) -> str:
        return self._chosen().model

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text. Raises `Unavailable` when the extra that it needs is not installed."""
        pair = self._chosen()
        with self._lock:
            self._opened = self._opened or self._open_embedder(*pair)
        return self._opened.embed(texts)

    def close(self) -> None:
        """Let go of the connections that nobody uses."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def _chosen(self) -> Pair:
        with self._lock:
            self._pair = self._pair or self._choice.pair()
            return self._pair


def _vector(value: Any) -> list[float]:
    vector = [float(number) for number in value]
    if not vector or not all(map(math.isfinite, vector)):
        raise Unavailable("a vector is empty, or has something in it that is no number")
    return vector


def _failed(why: str) -> Unavailable:
    return Unavailable(f"Embedding generation failed: {why}", code="embedding_failed")

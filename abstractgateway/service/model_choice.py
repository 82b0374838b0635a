"""Which model answers: what the request says, else the settings, else what the drawings of the workflow suggest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ..errors import Invalid
from ..hosts.base import WorkflowHost
from ..jsonvalue import JsonObject


class Chosen(NamedTuple):
    """A provider and a model, and where they come from: `request`, `gateway_env`, `flow_defaults` or `resolved`."""

    provider: str | None
    model: str | None
    source: str


Level = tuple[str, str | None, str | None]


class ModelChoice:
    """Chooses models. With `is_free` a call may name none: the model is an embedding program's own."""

    def __init__(
        self,
        *,
        provider: str | None,
        model: str | None,
        host: WorkflowHost,
        list_bundles: Callable[[], JsonObject],
        is_free: bool = False,
    ) -> None:
        self._settings: Level = ("gateway_env", provider, model)
        self._host = host
        self._list_bundles = list_bundles
        self._is_free = is_free

    def of_request(self, provider: str | None, model: str | None, workflow_id: str) -> Chosen:
        """Return the model for a request about a run of a workflow. Raises `Invalid` when there is none."""
        suggested = self._host.runtime_defaults(workflow_id)
        chosen = _first_pair([("request", provider, model), self._settings, _suggestion(suggested)])
        if chosen.provider is None and not self._is_free:
            raise _no_model("provider", "ABSTRACTGATEWAY_PROVIDER")
        if chosen.model is None and not self._is_free:
            raise _no_model("model", "ABSTRACTGATEWAY_MODEL")
        return chosen

    def default(self) -> Chosen | None:
        """Return the model of a request that names none, or None when there is no such model."""
        chosen = _first_pair([self._settings, *map(_suggestion, self._suggestions())])
        return chosen if chosen.provider and chosen.model else None

    def _suggestions(self) -> Iterator[JsonObject]:
        for workflow_id in workflow_ids(self._list_bundles()):
            yield self._host.runtime_defaults(workflow_id)


def workflow_ids(listing: JsonObject) -> Iterator[str]:
    """Yield the ids of the workflows of a listing of bundles, or of single flows."""
    for bundle in listing["items"]:
        for entrypoint in bundle["entrypoints"]:
            yield f"{bundle['bundle_ref']}:{entrypoint['flow_id']}"
    for flow in listing.get("flows", ()):
        yield flow["flow_id"]


def _suggestion(defaults: JsonObject) -> Level:
    return ("flow_defaults", _text(defaults.get("provider")), _text(defaults.get("model")))


def _first_pair(levels: Iterable[Level]) -> Chosen:
    """Return the first complete pair; a half may come from a later level that agrees with the other half."""
    provider: str | None = None
    model: str | None = None
    used: list[str] = []
    for name, its_provider, its_model in levels:
        offered, offered_model = _text((its_provider or "").lower()), _text(its_model)
        if _disagrees(provider, offered) or _disagrees(model, offered_model):
            continue
        if (provider is None and offered) or (model is None and offered_model):
            used.append(name)
        provider, model = provider or offered, model or offered_model
        if provider and model:
            break
    return Chosen(provider, model, used[0] if len(used) == 1 else "resolved")


def _disagrees(known: str | None, offered: str | None) -> bool:
    return known is not None and offered is not None and known != offered


def _text(value: Any) -> str | None:
    return (value.strip() or None) if isinstance(value, str) else None


def _no_model(what: str, setting: str) -> Invalid:
    return Invalid(what, f"is missing and there is no default; name it, or set {setting}", code="no_model")

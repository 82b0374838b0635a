"""Nodes that assert and look up statements in a knowledge graph: the gateway's, or one that the program gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import GatewayError
from ...jsonvalue import JsonObject
from ...runtime.models import Effect, EffectOutcome, EffectType, RunState
from ...runtime.policy import InDoubt
from ..flow import Node
from ..node import Ask, Inputs, NodeType, Site
from ..state import Step
from ..values import MISSING, as_object

Perform = Callable[..., EffectOutcome]


class KnowledgeGraph(Protocol):
    """A store of statements `{subject, predicate, object, …}`; `request` holds the pins of the node that asks.

    What is returned are the output pins of the node. Whatever is raised fails the run.
    """

    def assert_statements(self, run: RunState, request: JsonObject) -> JsonObject:
        """Keep statements and return `{assertion_ids, count, ok}`.

        One with a parameter `idempotency_key` is told the key of this performance of the effect, and must keep nothing
        twice under it: after a crash it is simply called again. Without it, somebody is asked what to do.
        """

    def query(self, run: RunState, request: JsonObject) -> JsonObject:
        """Return `{items, count, ok, …}`: the statements that a request describes."""

    def resolve(self, run: RunState, request: JsonObject) -> JsonObject:
        """Return `{candidates, count, ok}`: what a label may stand for."""


def knowledge_effects(graph: KnowledgeGraph) -> Mapping[EffectType, Perform]:
    """Return the handlers of the three effects."""
    return {
        EffectType.MEMORY_KG_ASSERT: _asserted(graph),
        EffectType.MEMORY_KG_QUERY: _performed(graph.query),
        EffectType.MEMORY_KG_RESOLVE: _performed(graph.resolve),
    }


def knowledge_in_doubt(graph: KnowledgeGraph) -> Mapping[EffectType, InDoubt]:
    """Return what becomes of the effects that a crash interrupted: looking again changes nothing."""
    rules: dict[EffectType, InDoubt] = {EffectType.MEMORY_KG_QUERY: "retry", EffectType.MEMORY_KG_RESOLVE: "retry"}
    return rules | ({EffectType.MEMORY_KG_ASSERT: "retry"} if _takes_key(graph) else {})


def _takes_key(graph: KnowledgeGraph) -> bool:
    return "idempotency_key" in inspect.signature(graph.assert_statements).parameters


def _asserted(graph: KnowledgeGraph) -> Perform:
    takes_key = _takes_key(graph)

    def perform(
        run: RunState, effect: Effect, _next_node: str | None = None, idempotency_key: str = ""
    ) -> EffectOutcome:
        key = {"idempotency_key": idempotency_key} if takes_key else {}
        return _outcome(effect, lambda: graph.assert_statements(run, effect.payload, **key))

    return perform


def _performed(ask: Callable[[RunState, JsonObject], JsonObject]) -> Perform:
    def perform(run: RunState, effect: Effect, _next_node: str | None = None) -> EffectOutcome:
        return _outcome(effect, lambda: ask(run, effect.payload))

    return perform


def _outcome(effect: Effect, ask: Callable[[], JsonObject]) -> EffectOutcome:
    try:
        return EffectOutcome.completed(ask())
    except GatewayError as error:
        return EffectOutcome.failed(f"{effect.type.value}: {error}")


_ASSERTIONS = ("assertions", "triples", "items")


def _ask(effect: EffectType, pins: tuple[str, ...], outputs: tuple[str, ...], main: str) -> Ask:
    """Return how a node asks: every pin that carries something is a field, and fields of the result are pins."""

    def build(_site: Site) -> Callable[[Inputs, Step], JsonObject]:
        return lambda inputs, _step: {pin: inputs[pin] for pin in pins if inputs.get(pin) is not None}

    def present(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
        return lambda raw, _step: {"raw": raw, **_shown(as_object(raw), outputs)}

    return Ask(effect, build, present, main)


def _shown(result: JsonObject, outputs: tuple[str, ...]) -> JsonObject:
    found = ((name, result.get(name, MISSING)) for name in outputs)
    return {name: value for name, value in found if value is not MISSING}


def _row(effect: EffectType, pins: tuple[str, ...], outputs: tuple[str, ...], text: str) -> NodeType:
    return NodeType(effect.value, "memory", _ask(effect, pins, outputs, outputs[0]), pins, (*outputs, "raw"), text)


TYPES = (
    _row(
        EffectType.MEMORY_KG_ASSERT,
        (*_ASSERTIONS, "scope", "span_id", "owner_id", "attributes_defaults", "allow_custom_predicates"),
        ("assertion_ids", "count", "ok"),
        "Asserts statements in the knowledge graph.",
    ),
    _row(
        EffectType.MEMORY_KG_QUERY,
        (
            *("query_text", "subject", "predicate", "object", "since", "until", "active_at", "scope", "recall_level"),
            *("owner_id", "order", "min_score", "max_input_tokens", "max_in_tokens", "model", "limit"),
        ),
        (
            *("items", "count", "ok", "packets", "active_memory_text", "packed_count", "dropped"),
            *("estimated_tokens", "warnings"),
        ),
        "Looks up statements in the knowledge graph.",
    ),
    _row(
        EffectType.MEMORY_KG_RESOLVE,
        (
            *("label", "expected_type", "scope", "recall_level", "max_candidates", "limit", "min_score"),
            *("include_semantic", "owner_id"),
        ),
        ("candidates", "count", "ok"),
        "Finds what a label may stand for in the knowledge graph.",
    ),
)

"""Nodes that assert and look up statements in a knowledge graph, which is the host's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...jsonvalue import JsonObject
from ...runtime.models import Effect, EffectOutcome, EffectType, RunState
from ..flow import Node
from ..node import Ask, Inputs, NodeType, Site
from ..state import Step
from ..values import MISSING, as_object

Perform = Callable[[RunState, Effect, str | None], EffectOutcome]


class KnowledgeGraph(Protocol):
    """A store of statements `{subject, predicate, object, …}`; `request` holds the pins of the node that asks.

    What is returned are the output pins of the node. Whatever is raised fails the run.
    """

    def assert_statements(self, run: RunState, request: JsonObject) -> JsonObject:
        """Keep statements and return `{assertion_ids, count, ok}`."""

    def query(self, run: RunState, request: JsonObject) -> JsonObject:
        """Return `{items, count, ok, …}`: the statements that a request describes."""

    def resolve(self, run: RunState, request: JsonObject) -> JsonObject:
        """Return `{candidates, count, ok}`: what a label may stand for."""


def knowledge_effects(graph: KnowledgeGraph | None) -> Mapping[EffectType, Perform]:
    """Return the handlers of the three effects; without a graph they fail and say so."""
    return {
        EffectType.MEMORY_KG_ASSERT: _performed(graph.assert_statements if graph is not None else None),
        EffectType.MEMORY_KG_QUERY: _performed(graph.query if graph is not None else None),
        EffectType.MEMORY_KG_RESOLVE: _performed(graph.resolve if graph is not None else None),
    }


def _performed(ask: Callable[[RunState, JsonObject], JsonObject] | None) -> Perform:
    def perform(run: RunState, effect: Effect, _next_node: str | None) -> EffectOutcome:
        if ask is None:
            return EffectOutcome.failed(
                f"{effect.type.value}: this gateway has no knowledge graph; "
                "give one to GatewayService.open(knowledge=...)"
            )
        return EffectOutcome.completed(ask(run, effect.payload))

    return perform


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
        "Asserts statements in the host's knowledge graph.",
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
        "Looks up statements in the host's knowledge graph.",
    ),
    _row(
        EffectType.MEMORY_KG_RESOLVE,
        (
            *("label", "expected_type", "scope", "recall_level", "max_candidates", "limit", "min_score"),
            *("include_semantic", "owner_id"),
        ),
        ("candidates", "count", "ok"),
        "Finds what a label may stand for in the host's knowledge graph.",
    ),
)

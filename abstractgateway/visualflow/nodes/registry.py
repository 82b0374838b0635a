"""The node library: every type that this gateway runs, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..node import Action, NodeType, Pure
from ..sandbox import CodeRunner
from . import (
    active_memory,
    agents,
    arithmetic,
    arrays,
    catalogs,
    code,
    control,
    entry,
    files,
    interaction,
    knowledge,
    listeners,
    literals,
    logic,
    memory,
    models,
    objects,
    strings,
    subflow,
    variables,
)

_FAMILIES = (
    entry,
    control,
    logic,
    arithmetic,
    strings,
    objects,
    arrays,
    literals,
    variables,
    interaction,
    models,
    agents,
    subflow,
    code,
    catalogs,
    listeners,
    memory,
    knowledge,
    active_memory,
    files,
)

REGISTRY: Mapping[str, NodeType] = MappingProxyType({row.name: row for family in _FAMILIES for row in family.TYPES})


def library(code_runner: CodeRunner | None) -> Mapping[str, NodeType]:
    """Return the library whose code nodes are executed by a runner."""
    if code_runner is None:
        return REGISTRY
    return {**REGISTRY, **{row.name: row for row in code.code_types(code_runner)}}


def is_pure_without_pins(type_name: str) -> bool:
    """Say whether a node that lists no pins only computes a value."""
    known = REGISTRY.get(type_name)
    if known is None:
        return False
    if isinstance(known.run, Action):
        return known.run.as_pure is not None and not known.run.acts_without_pins
    return isinstance(known.run, Pure) and known.run.without_pins

"""The knowledge graph: statements of a subject, a predicate and an object, kept for runs, sessions and everybody."""

from __future__ import annotations

from .graph import StoredKnowledge
from .memory import MemoryTripleStore
from .owners import Owners
from .sqlite import SqliteTripleStore
from .triples import Found, Pattern, Triple, TripleStore

__all__ = [
    "Found",
    "MemoryTripleStore",
    "Owners",
    "Pattern",
    "SqliteTripleStore",
    "StoredKnowledge",
    "Triple",
    "TripleStore",
]

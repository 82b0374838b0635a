"""The predicates that statements may have: those of public vocabularies that the framework's flows use."""

from __future__ import annotations

from .terms import canonical

_VOCABULARIES = {
    "rdf": "type",
    "dcterms": (
        "abstract created creator description hasPart identifier isPartOf modified publisher references subject title"
    ),
    "schema": (
        "about endDate genre instrument knowsAbout location mentions name nextItem organizer participant previousItem "
        "result sameAs startDate temporalCoverage"
    ),
    "skos": "altLabel broader closeMatch definition exactMatch narrower prefLabel related",
    "cito": "confirms disagreesWith discusses extends providesDataFor supports usesDataFrom",
}

KNOWN = frozenset(
    canonical(f"{vocabulary}:{name}") for vocabulary, names in _VOCABULARIES.items() for name in names.split()
)

_MEANT = {
    "schema:description": "dcterms:description",
    "schema:creator": "dcterms:creator",
    "schema:awareness": "schema:knowsabout",
    "schema:haspart": "dcterms:haspart",
    "schema:hasmember": "dcterms:haspart",
    "schema:ispartof": "dcterms:ispartof",
    "schema:hasparent": "dcterms:ispartof",
    "schema:recognizedas": "skos:closematch",
    "schema:hasmemorysource": "dcterms:references",
    "dcterms:has_part": "dcterms:haspart",
    "dcterms:is_part_of": "dcterms:ispartof",
}
"""What models write for predicates of the list."""

LABELS = ("schema:name", "skos:preflabel", "skos:altlabel", "dcterms:title", "dcterms:identifier")
"""The predicates whose objects are names of their subjects."""

TYPE = "rdf:type"


def predicate(text: str) -> str:
    """Return the canonical form of a predicate, and the known one where another is meant."""
    term = canonical(text)
    return _MEANT.get(term, term)


def is_known(term: str, *, may_be_custom: bool) -> bool:
    """Say whether a canonical predicate may be used; custom ones begin with `ex:`."""
    return term in KNOWN or (may_be_custom and term.startswith("ex:") and len(term) > len("ex:"))

"""Terms: the one form in which the names of a knowledge graph are kept and compared.

Case, blanks around and between words, and the two ways of writing an accent in Unicode tell no two names apart.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ..errors import Invalid

MOST_CHARS = 10_000
"""So long a term may be: a paragraph, not a document, because terms are looked up by an index."""

_OWN = "ex:"
_ACCENTS = re.compile("(?<=[a-z])[\u0300-\u036f]+")


def canonical(text: str) -> str:
    """Return a term in lower case, with single blanks, in Unicode's composed form."""
    return unicodedata.normalize("NFC", " ".join(text.lower().split()))


def entity(text: str) -> str:
    """Return the canonical form of a subject or an object.

    A name of the graph's own, `ex:…`, has letters and digits joined by dashes: `ex:Person_Ada Lovelace` is
    `ex:person-ada-lovelace`. Accents on Latin letters go, letters of other scripts stay.
    """
    term = canonical(text)
    if not term.startswith(_OWN):
        return term
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", term[len(_OWN) :]))
    kept = "".join(char if unicodedata.category(char)[0] in "LNM" else " " for char in bare)
    name = unicodedata.normalize("NFC", "-".join(kept.split()))
    return f"{_OWN}{name}" if name else term


def term_text(value: Any, field: str) -> str:
    """Return a text that names something. Raises `Invalid(field, …)` for anything else, and for one that is too long.

    Half a surrogate pair, which JSON can spell, is no text.
    """
    if not isinstance(value, str) or not value.strip():
        raise Invalid(field, f"must be a text that is not blank, not {_shown(value)}")
    if len(value) > MOST_CHARS:
        raise Invalid(field, f"has {len(value)} characters; at most {MOST_CHARS} are kept")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Invalid(field, f"is no text in Unicode: {error.reason}") from error
    return value.strip()


def _shown(value: Any) -> str:
    return repr(value) if value is None or isinstance(value, (str, int, float)) else f"a {type(value).__name__}"

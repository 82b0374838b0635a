"""How well statements answer a text: a number from 0 to 1 for each, made of the words that both have.

Each word of the text that a statement has counts 1; one that begins a word of the statement counts 1/2, if it has three
letters. The sum is divided by the number of words of the statement, or by that of the words of the text that any of the
statements has, whichever are fewer: a question has many words that say nothing, and a statement may be long.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

MOST_WORDS = 32
"""So many words of a text are looked for."""
LEAST_PREFIX = 3
_LONGEST = 64

_ACCENTS = re.compile("[\u0300-\u036f]")
_VOCABULARY = re.compile(r"[A-Za-z][\w.-]{0,80}:(?=\S)")  # with a bound: a term may be a long text
# Chinese characters and kana are written without blanks: each counts as a word.
_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def words_of(text: str) -> tuple[str, ...]:
    """Return the different words of a text in lower case and without accents, in their order."""
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", text)).casefold()
    found = _WORD.findall(unicodedata.normalize("NFKC", bare))
    return tuple(dict.fromkeys(word[:_LONGEST] for word in found))


def wanted_words(text: str) -> tuple[str, ...]:
    """Return the words of a text that are looked for."""
    return words_of(text)[:MOST_WORDS]


def words_of_terms(terms: Iterable[str]) -> tuple[str, ...]:
    """Return the different words of terms, without the names of their vocabularies."""
    return words_of(" ".join(_VOCABULARY.sub("", term, count=1) for term in terms))


def relevances(wanted: Sequence[str], statements: Sequence[Collection[str]]) -> list[float]:
    """Return how well each statement, given as its words, answers a text with the words that are wanted."""
    shares = [[_share(word, words) for word in wanted] for words in statements]
    known = sum(1 for column in zip(*shares, strict=True) if any(column))
    fewer = [min(known, len(words)) or 1 for words in statements]
    return [min(1.0, sum(row) / count) for row, count in zip(shares, fewer, strict=True)]


def _share(word: str, words: Collection[str]) -> float:
    if word in words:
        return 1.0
    is_long = len(word) >= LEAST_PREFIX
    return 0.5 if is_long and any(other.startswith(word) for other in words) else 0.0

"""`.abstractignore`: which files of a workspace its runs are not to see.

The rules are those of `.gitignore`, from one file at the top of the workspace: the last pattern that matches decides,
`!` takes a path back, a `/` at the end means directories, one before that means from the top, `**` any number of
directories. What lies in an ignored directory is ignored.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

FILE_NAME = ".abstractignore"
MAX_BYTES = 65_536
_MOST_RULES = 1_000


class _Rule(NamedTuple):
    names: tuple[str, ...]
    is_negated: bool
    is_for_directories: bool


class IgnoreRules:
    """The rules of one file."""

    def __init__(self, text: str = "") -> None:
        lines = (line.strip() for line in text.splitlines()[:_MOST_RULES])
        rules = (_rule(line) for line in lines if not line.startswith("#"))
        self._rules = [rule for rule in rules if rule.names]

    def hides(self, names: Sequence[str], *, is_directory: bool) -> bool:
        """Say whether a path, given by its names from the top, is ignored."""
        return any(
            self._matches(names[:count], is_directory or count < len(names)) for count in range(1, len(names) + 1)
        )

    def _matches(self, names: Sequence[str], is_directory: bool) -> bool:
        for rule in reversed(self._rules):
            if (is_directory or not rule.is_for_directories) and _fits(rule.names, names):
                return not rule.is_negated
        return False


def _rule(line: str) -> _Rule:
    is_negated = line.startswith("!")
    text = line.removeprefix("!")
    body = text.strip("/")
    names = tuple(name for name in body.split("/") if name)
    if names and names[-1] == "**":
        names = (*names, "*")  # what lies inside, not the directory itself
    is_anchored = text.startswith("/") or "/" in body or not names
    return _Rule(names if is_anchored else ("**", *names), is_negated, text.endswith("/"))


def _fits(pattern: Sequence[str], names: Sequence[str]) -> bool:
    """Compare name by name, remembering which parts of the pattern can be reached; never slower than their product."""
    reached = _spread({0}, pattern)
    for name in names:
        following = {at for at in reached if at < len(pattern) and pattern[at] == "**"}
        following |= {
            at + 1
            for at in reached
            if at < len(pattern) and pattern[at] != "**" and fnmatch.fnmatchcase(name, pattern[at])
        }
        reached = _spread(following, pattern)
    return len(pattern) in reached


def _spread(reached: set[int], pattern: Sequence[str]) -> set[int]:
    """Add the places behind every `**` that is reached, which may stand for nothing."""
    found = set(reached)
    for at in range(len(pattern)):
        if at in found and pattern[at] == "**":
            found.add(at + 1)
    return found

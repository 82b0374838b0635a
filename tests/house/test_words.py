from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import sources
from tests.house.sources import ROOT

PLACES = (
    "README.md",
    "LICENSE",
    "pyproject.toml",
    ".ci",
    "abstractgateway",
    "adapters",
    "docs",
    "scripts",
    "tests",
)
TEXT_SUFFIXES = frozenset({"", ".md", ".py", ".json", ".toml", ".sql", ".html", ".css", ".js", ".txt", ".typed"})
GENERATED_DIRECTORIES = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"})
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:work|home|root|Users|tmp/team)/")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")


def text_files() -> Iterator[Path]:
    """Return every text file of the project that is neither generated nor a packed bundle."""
    for place in PLACES:
        top = ROOT / place
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and path.suffix in TEXT_SUFFIXES and not GENERATED_DIRECTORIES & set(path.parts):
                yield path


def offences(name: str, text: str) -> list[str]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if match := MACHINE_PATH.search(line):
            found.append(f"{name}:{number}: {match.group()!r} is a path of one machine")
        if match := UNFINISHED.search(line):
            found.append(f"{name}:{number}: {match.group()!r}: finish it or leave it out")
    return found


def test_no_file_names_a_machine_path_or_unfinished_work() -> None:
    this_file = Path(__file__).resolve()

    found = [
        line
        for path in text_files()
        if path != this_file
        for line in offences(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]

    assert not found, sources.report(found)


@pytest.mark.parametrize(
    "line", ["see /work/main", "open('/home/ann/x')", "# TO" + "DO later", "FIX" + "ME: wrong", "a /tmp/team/x"]
)
def test_a_refused_word_is_found(line: str) -> None:
    found = offences("page.md", line)

    assert len(found) == 1


@pytest.mark.parametrize("line", ["a network/work/item", "https://example.org/work/", "/var/lib/gateway", "todo lists"])
def test_a_harmless_word_is_let_through(line: str) -> None:
    found = offences("page.md", line)

    assert found == []

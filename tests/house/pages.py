"""The fenced blocks of the documentation, for the tests that run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.house.sources import ROOT

SAMPLES = ROOT / "docs" / "samples"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page: where it starts, what its fence says, and what is in it."""

    where: str
    info: tuple[str, ...]
    code: str


def blocks(name: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [
        Block(
            where=f"{name}:{text.count(chr(10), 0, match.start()) + 1}",
            info=tuple(match["info"].split()),
            code=match["code"],
        )
        for match in FENCE.finditer(text)
    ]


def runnable(found: list[Block], language: str) -> list[Block]:
    """Return the blocks of a language that are not marked as `no-run`."""
    return [block for block in found if block.info[:1] == (language,) and "no-run" not in block.info]


def runnable_of(page: Path, language: str) -> list[Block]:
    """Return the runnable blocks of a language in a file of the checkout."""
    return runnable(blocks(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8")), language)

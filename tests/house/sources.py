"""The project's own Python files, parsed once, for the tests that read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "abstractgateway"


@dataclass(frozen=True)
class Source:
    """One Python file: where it is, the module it is, its text and its syntax tree."""

    path: Path
    module: str
    is_package: bool
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix() if self.path.is_relative_to(ROOT) else str(self.path)


def parsed(path: Path, base: Path, text: str) -> Source:
    """Return the source whose module name is its path below `base`."""
    parts = path.relative_to(base).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    return Source(path, module, is_package, text, ast.parse(text, filename=str(path)))


@cache
def library() -> tuple[Source, ...]:
    """Return the sources of the library."""
    return _below(ROOT / LIBRARY, ROOT)


@cache
def adapters() -> tuple[Source, ...]:
    """Return the sources of all adapters."""
    return _below(ROOT / "adapters", ROOT / "adapters")


@cache
def tests() -> tuple[Source, ...]:
    """Return the sources of the test suite."""
    return _below(ROOT / "tests", ROOT)


def product() -> tuple[Source, ...]:
    """Return the sources that users install."""
    return library() + adapters()


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return every function and method of a source, nested ones included."""
    return (node for node in ast.walk(source.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def classes(source: Source) -> Iterator[ast.ClassDef]:
    """Return every class of a source."""
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef))


def report(offences: list[str]) -> str:
    """Return the offences as a message of one line each."""
    return "\n" + "\n".join(offences)


def _below(directory: Path, base: Path) -> tuple[Source, ...]:
    return tuple(parsed(path, base, path.read_text(encoding="utf-8")) for path in sorted(directory.rglob("*.py")))

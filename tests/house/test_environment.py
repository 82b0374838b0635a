from __future__ import annotations

import ast

import pytest

from tests.house import sources
from tests.house.sources import ROOT, Source

ONLY_READER = "abstractgateway/config/gateway.py"
WAYS_TO_READ = frozenset({"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"})


def uses(source: Source) -> list[str]:
    """Return the places where a source reads or changes the environment of the process."""
    names = names_of_os(source.tree)
    lines = [node.lineno for node in ast.walk(source.tree) if is_attribute_use(node, names) or is_import_use(node)]
    return [f"{source.name}:{line}: only {ONLY_READER} reads the environment" for line in lines]


def names_of_os(tree: ast.AST) -> frozenset[str]:
    """Return the names under which a module knows `os`; a request's WSGI environ is another thing."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import))
    aliases = (alias for node in imports for alias in node.names if alias.name == "os")
    return frozenset(alias.asname or alias.name for alias in aliases)


def is_attribute_use(node: ast.AST, names: frozenset[str]) -> bool:
    """Say whether a node is `os.environ` or one of its relatives, under whatever name `os` goes."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr in WAYS_TO_READ
        and isinstance(node.value, ast.Name)
        and node.value.id in names
    )


def is_import_use(node: ast.AST) -> bool:
    """Say whether a node imports `environ` or one of its relatives."""
    return isinstance(node, ast.ImportFrom) and any(alias.name in WAYS_TO_READ for alias in node.names)


def test_only_the_settings_read_the_environment() -> None:
    found = [line for source in sources.product() if source.name != ONLY_READER for line in uses(source)]

    assert not found, sources.report(found)


@pytest.mark.parametrize(
    "code",
    ["import os\nos.environ['A']", "import os as system\nsystem.getenv('A')", "from os import environ as settings"],
)
def test_a_use_of_the_environment_is_found(code: str) -> None:
    source = sources.parsed(ROOT / "abstractgateway" / "walk.py", ROOT, code)

    found = uses(source)

    assert len(found) == 1


def test_the_settings_are_seen_to_read_the_environment() -> None:
    (settings,) = [source for source in sources.library() if source.name == ONLY_READER]

    found = uses(settings)

    assert found

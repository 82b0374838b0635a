from __future__ import annotations

import ast

from tests.house import sources
from tests.house.sources import ROOT, Source

MOST_LINES_OF_A_BODY = 60
MOST_LINES_OF_A_FILE = 600
MOST_METHODS_OF_A_PORT = 6


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function's body spans, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1


def long_bodies(source: Source) -> list[str]:
    return [
        f"{source.name}:{function.lineno}: {function.name} has {lines} lines, at most {MOST_LINES_OF_A_BODY}"
        for function in sources.functions(source)
        if (lines := body_lines(function)) > MOST_LINES_OF_A_BODY
    ]


def long_file(source: Source) -> list[str]:
    lines = len(source.text.splitlines())
    if lines <= MOST_LINES_OF_A_FILE:
        return []
    return [f"{source.name} has {lines} lines, at most {MOST_LINES_OF_A_FILE}"]


def is_port(node: ast.ClassDef) -> bool:
    """Say whether a class is a Protocol, whichever way that is spelt."""
    names = [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases]
    return "Protocol" in names


def wide_ports(source: Source) -> list[str]:
    found = []
    for node in filter(is_port, sources.classes(source)):
        methods = [item for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]
        if len(methods) > MOST_METHODS_OF_A_PORT:
            found.append(
                f"{source.name}:{node.lineno}: the port {node.name} has {len(methods)} methods, "
                f"at most {MOST_METHODS_OF_A_PORT}"
            )
    return found


def test_no_function_body_is_too_long() -> None:
    found = [line for source in sources.product() + sources.tests() for line in long_bodies(source)]

    assert not found, sources.report(found)


def test_no_file_is_too_long() -> None:
    found = [line for source in sources.product() + sources.tests() for line in long_file(source)]

    assert not found, sources.report(found)


def test_no_port_is_too_wide() -> None:
    found = [line for source in sources.product() for line in wide_ports(source)]

    assert not found, sources.report(found)


def test_a_body_over_the_limit_is_found() -> None:
    body = "\n".join("    x = 1" for _ in range(MOST_LINES_OF_A_BODY + 1))
    source = sources.parsed(ROOT / "long.py", ROOT, f'def f() -> None:\n    """Text."""\n{body}\n')

    found = long_bodies(source)

    assert found == ["long.py:1: f has 61 lines, at most 60"]


def test_a_file_over_the_limit_is_found() -> None:
    source = sources.parsed(ROOT / "long.py", ROOT, "x = 1\n" * (MOST_LINES_OF_A_FILE + 1))

    found = long_file(source)

    assert found == ["long.py has 601 lines, at most 600"]


def test_a_port_over_the_limit_is_found() -> None:
    methods = "\n".join(f"    def m{number}(self) -> None: ..." for number in range(MOST_METHODS_OF_A_PORT + 1))
    source = sources.parsed(ROOT / "wide.py", ROOT, f"class Wide(typing.Protocol[T]):\n{methods}\n")

    found = wide_ports(source)

    assert found == ["wide.py:1: the port Wide has 7 methods, at most 6"]

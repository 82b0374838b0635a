from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from abstractgateway_http.error_codes import ERROR_CODES, NARROWER_CODES, errors_page

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("abstractgateway", "adapters") for path in sorted((ROOT / folder).rglob("*.py"))]


def codes_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            named = node.func.id if isinstance(node.func, ast.Name) else ""
            values += node.args[1:2] if named in ("Deny", "Refused", "problem") else []
        elif isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["code"]:
            values = [node.value]
        else:
            continue
        texts = (value.value for value in values if isinstance(value, ast.Constant))
        yield from (text for text in texts if isinstance(text, str) and text)


CODE_OF_CLASS = {
    "NotFound": "not_found",
    "Conflict": "conflict",
    "Invalid": "invalid",
    "Denied": "denied",
    "Unavailable": "unavailable",
    "GatewayError": "internal_error",
}


def classes_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the codes that a file raises errors with, and the names of their classes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODE_OF_CLASS:
            given = (keyword.value for keyword in node.keywords if keyword.arg == "code")
            yield from ((value.value, node.func.id) for value in given if isinstance(value, ast.Constant))
        elif isinstance(node, ast.ClassDef):
            base = next((base.id for base in node.bases if isinstance(base, ast.Name)), "")
            for item in (item for item in node.body if isinstance(item, ast.Assign)):
                is_code = [getattr(target, "id", "") for target in item.targets] == ["code"]
                if is_code and base in CODE_OF_CLASS and isinstance(item.value, ast.Constant):
                    yield item.value.value, base


def test_the_errors_page_is_what_the_table_says():
    assert (ROOT / "docs" / "errors.md").read_text() == errors_page()


def test_every_code_in_the_sources_is_documented():
    raised = {code: path.name for path in SOURCES for code in codes_in(path)}

    documented = {row.code for row in ERROR_CODES} | {code for code, _, _ in NARROWER_CODES}

    assert {code: place for code, place in raised.items() if code not in documented} == {}


def test_every_documented_code_exists():
    text = "".join(path.read_text() for path in SOURCES if path.name != "error_codes.py")
    by_waitress = {"headers_too_large", "not_implemented"}

    documented = {row.code for row in ERROR_CODES} | {code for code, _, _ in NARROWER_CODES}

    assert {code for code in documented if f'"{code}"' not in text} == by_waitress


def test_a_narrower_code_belongs_to_the_class_that_is_raised_with_it():
    own = {row.code for row in ERROR_CODES}
    wider = {code: wide for code, wide, _ in NARROWER_CODES}

    wrong = {
        (code, name)
        for path in SOURCES
        for code, name in classes_in(path)
        if code not in own and wider[code] != CODE_OF_CLASS[name]
    }

    assert wrong == {("busy", "Unavailable")}  # the runner's own: a command that could not be fitted in is tried again


def test_a_narrower_code_belongs_to_a_code_of_the_table():
    assert {wider for _, wider, _ in NARROWER_CODES} <= {row.code for row in ERROR_CODES}

from __future__ import annotations

import re

import pytest

from tests.house import sources
from tests.house.sources import ROOT, Source

REFUSED = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"})


def words(name: str) -> set[str]:
    """Return the words of a snake_case or CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def module_offences(source: Source) -> list[str]:
    wrong = words(source.module.replace(".", "_")) & REFUSED
    return [f"{source.name}: {word!r} says nothing about what is inside" for word in sorted(wrong)]


def definition_offences(source: Source) -> list[str]:
    return [
        f"{source.name}:{node.lineno}: {node.name} says nothing about what it is; name it after its one reason"
        for node in (*sources.classes(source), *sources.functions(source))
        if words(node.name) & REFUSED
    ]


def test_no_module_has_a_name_that_says_nothing() -> None:
    found = [line for source in sources.product() + sources.tests() for line in module_offences(source)]

    assert not found, sources.report(found)


def test_no_class_or_function_has_a_name_that_says_nothing() -> None:
    found = [line for source in sources.product() for line in definition_offences(source)]

    assert not found, sources.report(found)


@pytest.mark.parametrize("code", ["class RunManager: ...", "def path_utils() -> None: ...", "class HTTPHelper: ..."])
def test_a_refused_name_of_a_definition_is_found(code: str) -> None:
    source = sources.parsed(ROOT / "abstractgateway" / "walk.py", ROOT, code)

    found = definition_offences(source)

    assert len(found) == 1


def test_a_refused_name_of_a_module_is_found() -> None:
    source = sources.parsed(ROOT / "abstractgateway" / "common" / "walk.py", ROOT, "")

    found = module_offences(source)

    assert found == ["abstractgateway/common/walk.py: 'common' says nothing about what is inside"]


@pytest.mark.parametrize("code", ["def commonly() -> None: ...", "class Manages: ...", "def helped() -> None: ..."])
def test_a_name_that_only_contains_the_letters_is_let_through(code: str) -> None:
    source = sources.parsed(ROOT / "abstractgateway" / "walk.py", ROOT, code)

    found = definition_offences(source)

    assert found == []

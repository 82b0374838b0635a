"""Values against JSON schemas: the reasons are written for whoever made the value, a model or a person."""

from __future__ import annotations

import time
from typing import Any

import pytest

from abstractgateway.runtime.json_schema import MOST_PROBLEMS, problems

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": ["integer", "null"], "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "maxItems": 2},
        "home": {"$ref": "#/$defs/place"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"city": {"const": "Bern"}}, "required": ["city"]}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "Ann"},
        {"name": "Ann", "age": 5, "tags": ["a", "b"], "home": {"city": "Bern", "more": 1}},
        {"name": "Ann", "age": None, "tags": []},
        {"name": "Ann", "age": 5.0},
    ],
    ids=str,
)
def test_a_value_that_fits_has_no_problem(value: Any) -> None:
    assert problems(value, PERSON) == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([], ["is array, not object"]),
        ({}, ["name: is missing"]),
        ({"name": ""}, ["name: has 0 characters, at least 1 are needed"]),
        ({"name": "A", "age": True}, ["age: is boolean, not integer or null"]),
        ({"name": "A", "age": -1}, ["age: -1 is less than 0"]),
        ({"name": "A", "age": 1.5}, ["age: is number, not integer or null"]),
        ({"name": "A", "tags": ["c"]}, ["tags[0]: 'c' is not one of 'a', 'b'"]),
        ({"name": "A", "tags": ["a", "a"]}, ["tags: has an item twice"]),
        ({"name": "A", "tags": ["a", "b", "a"]}, ["tags: has an item twice", "tags: has 3 items, at most 2 may be"]),
        ({"name": "A", "home": {"city": "Rome"}}, ["home.city: 'Rome' is not 'Bern'"]),
        ({"name": "A", "home": {}}, ["home.city: is missing"]),
        ({"name": "A", "nick": 1}, ["nick: is not known; known: age, home, name, tags"]),
    ],
    ids=str,
)
def test_a_problem_names_the_place_and_the_reason(value: Any, found: list[str]) -> None:
    assert problems(value, PERSON) == found


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (True, 1, None),
        ({}, object, None),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, 4, 2),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, 9, 3),
        ({"allOf": [{"minimum": 1}, {"maximum": 5}]}, 3, 9),
        ({"not": {"type": "string"}}, 3, "x"),
        ({"const": 1}, 1.0, True),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 3}, 2, 3),
        ({"multipleOf": 0.1}, 0.3, 0.35),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", 1], [1, "a"]),
        ({"items": [{"type": "string"}]}, ["a", 1], [1]),
        ({"additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}),
        ({"minProperties": 1, "maxProperties": 1}, {"a": 1}, {}),
        ({"type": "string", "nullable": True}, None, 1),
        ({"type": "object", "$ref": "#/x~1y", "x/y": {"required": ["a"]}}, {"a": 1}, {}),
    ],
    ids=str,
)
def test_each_keyword_lets_through_what_fits(schema: Any, good: Any, bad: Any) -> None:
    assert problems(good, schema) == []
    assert bad is None or problems(bad, schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (False, "is not allowed"),
        (5, "the schema of the value is int, not an object"),
        ({"type": "thing"}, "the schema has the type 'thing'"),
        ({"properties": []}, "properties in the schema is [], not an object"),
        ({"required": "a"}, "required in the schema is 'a', not a list"),
        ({"required": [{}]}, "the schema requires {}, which is no name"),
        ({"minLength": "x"}, "minLength in the schema is 'x', not a number"),
        ({"$ref": "http://elsewhere/"}, "which is not a part of it"),
        ({"$ref": "#/nowhere"}, "which it does not have"),
        ({"$ref": "#"}, "the schema takes too long to apply"),
        ({"multipleOf": 0}, "which is not above 0"),
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_applied_is_the_problem(schema: Any, said: str) -> None:
    found = problems({} if isinstance(schema, dict) and "m" not in next(iter(schema)) else "x", schema)

    assert said in (found or problems(3, schema))[0]


def test_a_schema_that_doubles_with_every_level_comes_to_an_end() -> None:
    inner: Any = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}, False]}
    begun = time.monotonic()

    found = problems(1, {"$defs": {"a": inner}, "allOf": [inner]})

    assert found == ["the schema takes too long to apply"]
    assert time.monotonic() - begun < 5


def test_a_pattern_is_not_applied() -> None:
    assert problems("a" * 40 + "!", {"type": "string", "pattern": "(a+)+$"}) == []


def test_not_all_problems_of_a_long_list_are_told() -> None:
    assert len(problems(["x"] * 1000, {"items": {"type": "integer"}})) == MOST_PROBLEMS

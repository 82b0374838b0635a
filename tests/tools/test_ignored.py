from __future__ import annotations

import time

import pytest

from abstractgateway.tools.ignored import IgnoreRules


@pytest.mark.parametrize(
    ("rules", "path", "is_hidden"),
    [
        ("*.log", "a.log", True),
        ("*.log", "deep/er/a.log", True),
        ("*.log", "a.txt", False),
        ("/a.log", "deep/a.log", False),
        ("deep/a.log", "deep/a.log", True),
        ("deep/a.log", "very/deep/a.log", False),
        ("**/deep/a.log", "very/deep/a.log", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**", "a/b", True),
        ("a/**", "a", False),
        ("build/", "build/x", True),
        ("build/", "build", False),
        ("*\n!keep", "keep", False),
        ("*\n!keep\nkeep", "keep", True),
        ("dir\n!dir/keep", "dir/keep", True),
        ("[ab].txt", "b.txt", True),
        ("a?c", "abc", True),
        ("#x\n\n  \n", "x", False),
        ("/", "x", False),
    ],
)
def test_a_rule_hides_what_it_says(rules: str, path: str, is_hidden: bool) -> None:
    assert IgnoreRules(rules).hides(path.split("/"), is_directory=False) is is_hidden


def test_a_directory_is_hidden_by_its_name() -> None:
    assert IgnoreRules("build/").hides(["build"], is_directory=True)


def test_hostile_rules_are_applied_in_time() -> None:
    rules = IgnoreRules("/".join(["**"] * 500) + "/x\n" + "*a" * 100 + "\n")
    begun = time.monotonic()

    assert not rules.hides(["a" * 250 + "b"] * 30, is_directory=False)
    assert time.monotonic() - begun < 5

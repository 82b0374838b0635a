from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from abstractgateway_http.routes import ROUTES
from tests.house.sources import ROOT
from tests.house.test_walkthrough import served, walk

PAGE = ROOT / "docs" / "http.md"


def test_the_page_lists_the_routes_of_the_table_and_no_others():
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]

    assert rows == [f"{route.method} {route.path}" for route in ROUTES]


def test_the_page_names_every_input_of_every_route():
    text = PAGE.read_text()
    names = {field.name for route in ROUTES for field in (*route.query, *(route.body or ()))}

    missing = {name for name in names if f"`{name}`" not in text}

    assert missing == set()


@pytest.mark.skipif(not shutil.which("curl"), reason="the page uses curl")
@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_the_examples_of_the_page_work_as_written(backend: str, tmp_path: Path):
    with served(backend, tmp_path) as address:
        printed = walk(PAGE, address)

    assert "Run 'nope' not found" in printed
    assert printed.count("event: done") == 3
    assert printed.count("id: 1\n") == 2
    assert printed.count("id: 4\n") == 3
    assert '"next_after":5' in printed

from __future__ import annotations

import gc
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from abstractgateway.runtime.commit import Commit
from abstractgateway.stores import open_file_stores
from abstractgateway.stores.problems import MOST, Problem, Problems
from tests.stores.shapes import Told, a_run, save, write


def test_a_problem_is_kept_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems()

    for why in ("torn", "torn", "foreign"):
        problems.note("a.json", why)

    assert problems == [Problem("a.json", "torn"), Problem("a.json", "foreign")]
    assert [record.getMessage() for record in caplog.records] == ["a.json: torn", "a.json: foreign"]


def test_more_problems_than_anybody_reads_are_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems()

    for number in range(MOST + 5):
        problems.note("a.json", f"line {number}")

    assert len(problems) == MOST
    assert problems[0] == Problem("a.json", "line 0")
    assert len(caplog.records) == MOST + 5


@pytest.mark.parametrize("is_on", [True, False], ids=["collecting", "not collecting"])
def test_a_start_leaves_the_collection_of_garbage_as_it_was(tmp_path: Path, is_on: bool) -> None:
    with closing(open_file_stores(tmp_path)) as stores:
        save(stores, a_run())
    try:
        if not is_on:
            gc.disable()
        with closing(open_file_stores(tmp_path)) as stores:
            assert stores.runs.open("r1") is not None
        assert gc.isenabled() is is_on
    finally:
        gc.enable()


@pytest.mark.parametrize("body", [{}, {"run_id": "odd"}, {"run_id": "odd", "status": "walking"}], ids=json.dumps)
def test_a_checkpoint_that_another_process_wrote_wrongly_hides_no_other(tmp_path: Path, body: dict[str, str]) -> None:
    with closing(open_file_stores(tmp_path)) as mine, closing(open_file_stores(tmp_path)) as theirs:
        mine._wake.close()
        told = Told(mine)
        wrong = replace(write(a_run("odd")), body=json.dumps(body).encode())
        theirs.commit(Commit(runs=(wrong, write(a_run("well"), count=1))))
        mine.look()

        assert told.revisions == [("well", 1)]
        assert mine.runs.row("odd") is None
        assert mine.runs.open("well").ledger_len == 1

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = ROOT.parent / "shared" / "seeds" / "runtime-getting-started.txt"


def examples() -> dict[str, str]:
    """Return the page's programs by a name, with the imports naming this library."""
    text = SEED.read_text(encoding="utf-8")
    text = text.replace("from abstractruntime.storage import", "from abstractgateway.stores import")
    text = text.replace("from abstractruntime import", "from abstractgateway.runtime import")
    cut = {
        "pause and resume": (r"from abstractgateway\.runtime import Effect,", r"print\(state\.output\)\n"),
        "scheduled": (r"from datetime import", r"sr\.stop\(\)\n"),
        "files": (r"from abstractgateway\.runtime import create_scheduled_runtime, JsonFile", r"\n\)\n"),
    }
    found = {}
    for name, (first, last) in cut.items():
        start = re.search(first, text)
        assert start is not None
        stop = re.compile(last).search(text, start.start())
        assert stop is not None
        found[name] = text[start.start() : stop.end()]
    return found


def run_program(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(not SEED.exists(), reason="the seed page is not next to this checkout")
@pytest.mark.parametrize(
    ("name", "printed"), [("pause and resume", "{'answer': 'yes'}"), ("scheduled", "completed {'ok': True}")]
)
def test_an_example_of_the_seed_page_runs_with_only_its_imports_changed(
    name: str, printed: str, tmp_path: Path
) -> None:
    finished = run_program(examples()[name], tmp_path)

    assert (finished.returncode, finished.stderr, finished.stdout.strip()) == (0, "", printed)


@pytest.mark.skipif(not SEED.exists(), reason="the seed page is not next to this checkout")
def test_runs_of_the_seed_page_survive_in_files(tmp_path: Path) -> None:
    program = examples()["files"] + (
        "from abstractgateway.runtime import StepPlan, WorkflowSpec\n"
        "wf = WorkflowSpec('w', 'n', {'n': lambda run, ctx: StepPlan('n', complete_output={'ok': True})})\n"
        "run_id, state = sr.run(wf)\n"
        "print(run_id, state.status.value)\n"
    )

    finished = run_program(program, tmp_path)

    assert (finished.returncode, finished.stderr) == (0, "")
    run_id, status = finished.stdout.split()
    assert status == "completed"
    assert (tmp_path / "data" / f"run_{run_id}.json").exists()
    assert (tmp_path / "data" / f"ledger_{run_id}.jsonl").exists()


def test_a_name_the_kernel_does_not_have_is_refused() -> None:
    import abstractgateway.runtime as kernel

    with pytest.raises(AttributeError, match="has no attribute 'SqliteRunStore'"):
        kernel.SqliteRunStore  # noqa: B018
